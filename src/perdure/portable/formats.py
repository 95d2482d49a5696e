"""What conversations look like in files: ours, and those that people have.

Each reader takes a file's content apart into :class:`Carried`, one at a time and item by item, so
that a file may be larger than memory where its format is lines. What cannot be carried is counted
in the report, never guessed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from perdure.dialects.items import new_item
from perdure.dialects.messages import from_thread_message
from perdure.errors import BadInput
from perdure.model import Dialect, NewItem, value

OURS: Final = "perdure-conversation/v1"
THREADS: Final = "assistants-thread-export/v1"
_ROLES: Final = {"user", "assistant", "system", "developer"}
_DIALECTS: Final[tuple[tuple[str, Dialect], ...]] = (
    ("thread_", "threads"),
    ("conv_", "conversations"),
)


@value
class Carried:
    """A conversation on its way in: whose it is, the id it had, its items, what stays behind.

    ``name`` tells the same conversation again when a file is imported twice.
    """

    name: str
    subject: str | None
    handle: str | None
    facts: tuple[str, ...]
    items: tuple[NewItem, ...]
    left_behind: tuple[str, ...]

    @property
    def dialect(self) -> Dialect:
        """The API that the old id belongs to."""
        named = (dialect for start, dialect in _DIALECTS if (self.handle or "").startswith(start))
        return next(named, "conversations")

    @property
    def bound_to(self) -> str:
        """The id under which the conversation is entered: its old one, or one made of its name."""
        if self.handle is not None:
            return self.handle
        return f"conv_imported_{hashlib.sha256(self.name.encode()).hexdigest()[:32]}"


def read_lines(lines: Iterable[str], name: str) -> Iterator[Carried]:
    """Read conversations that perdure has exported: JSON lines, one conversation after another."""
    head: dict[str, Any] | None = None
    items: list[NewItem] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        record = _decoded(line, f"{name}, line {number}")
        if record.get("format") == OURS:
            head, items = record, []
        elif head is None:
            raise BadInput(f"{name}, line {number}: this is not a file of format {OURS}.")
        elif "wire" in record:
            items.append(_ours(record))
        elif "end" in record:
            if record["end"] != len(items):
                raise BadInput(
                    f"{name}, line {number}: the conversation had {record['end']} items when it "
                    f"was exported, {len(items)} are here. The file is damaged; nothing of this "
                    "conversation was imported."
                )
            yield _carried(head, items, name)
            head = None
    if head is not None:
        raise BadInput(
            f"{name} ends in the middle of a conversation: the export was interrupted. Export it "
            "again; what stands before that was imported."
        )


def _carried(head: dict[str, Any], items: list[NewItem], name: str) -> Carried:
    return Carried(
        name=f"{head.get('tenant')}/{head.get('conversation')}/{head.get('subject') or name}",
        subject=head.get("subject"),
        handle=head.get("handle"),
        facts=tuple(map(str, head.get("facts") or ())),
        items=tuple(items),
        left_behind=(),
    )


def _ours(record: dict[str, Any]) -> NewItem:
    wire = json.loads(record["wire"])
    thread = wire.get("object") == "thread.message" or record.get("thread")
    item = from_thread_message(wire) if thread else new_item(wire)
    return _at(item, record.get("at"), provider_id=record.get("id"))


def _at(item: NewItem, at: object, provider_id: object = None) -> NewItem:
    """Return an item with the time at which it was said, and the id it was known by."""
    return NewItem(
        wire=item.wire,
        input=item.input,
        kind=item.kind,
        role=item.role,
        call_id=item.call_id,
        provider_id=provider_id if isinstance(provider_id, str) else item.provider_id,
        created_at=float(at) if isinstance(at, int | float) else None,
    )


def _decoded(text: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{where}: not JSON ({error}).") from None
    if not isinstance(record, dict):
        raise BadInput(f"{where}: a JSON object was expected.")
    return record


# -- others' -----------------------------------------------------------------------------------


def read_document(text: str, name: str) -> Iterator[Carried]:
    """Read a JSON document: exported threads, or a list of Chat Completions messages."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{name}: not JSON ({error}).") from None
    if isinstance(document, list):
        if all(isinstance(one, dict) and "messages" in one for one in document) and document:
            for number, one in enumerate(document, 1):
                yield _any(one, f"{name}#{number}")
            return
        document = {"messages": document}
    if not isinstance(document, dict):
        raise BadInput(f"{name}: a JSON object or list was expected.")
    many = document.get("threads")
    if isinstance(many, list):
        for number, one in enumerate(many, 1):
            yield _any(one if isinstance(one, dict) else {}, f"{name}#{number}")
        return
    yield _any(document, name)


def _any(document: dict[str, Any], name: str) -> Carried:
    messages = document.get("messages")
    if isinstance(messages, dict):  # the answer of a list route, kept whole
        messages = messages.get("data")
    if not isinstance(messages, list):
        raise BadInput(
            f"{name}: no messages are in it. Imported are {OURS}, {THREADS}, lists of Chat "
            "Completions messages, and openai-agents SQLite sessions."
        )
    if _is_thread(document, messages):
        return _thread(document, messages, name)
    return _completions(document, messages, name)


def _is_thread(document: dict[str, Any], messages: list[Any]) -> bool:
    named = document.get("format") or document.get("schema") or document.get("version")
    return named == THREADS or any(
        isinstance(one, dict) and one.get("object") == "thread.message" for one in messages
    )


def _thread(document: dict[str, Any], messages: list[Any], name: str) -> Carried:
    thread = document.get("thread")
    thread = thread if isinstance(thread, dict) else {}
    handle = thread.get("id") or document.get("thread_id") or document.get("id")
    said = [one for one in messages if isinstance(one, dict)]
    # Lists of a provider run newest first; of two messages of one second the order is kept.
    order = [one.get("created_at") for one in said]
    if all(isinstance(at, int | float) for at in order) and order != sorted(order):  # type: ignore[type-var]
        said.reverse()
        said.sort(key=lambda one: float(one["created_at"]))
    handle = handle or next((one.get("thread_id") for one in said if one.get("thread_id")), None)
    items = _once(_at(from_thread_message(one), one.get("created_at")) for one in said)
    behind = [f"{len(messages) - len(said)} entries that are no messages"]
    behind += [f"{sum(bool(one.get('attachments')) for one in said)} messages' files themselves"]
    if document.get("runs") or document.get("run_steps"):
        behind.append("1 list of runs and their steps")
    return Carried(
        name=str(handle or name),
        subject=_text(document.get("subject") or document.get("user")),
        handle=_text(handle),
        facts=(),
        items=items,
        left_behind=tuple(one for one in behind if not one.startswith("0 ")),
    )


def _completions(document: dict[str, Any], messages: list[Any], name: str) -> Carried:
    items: list[NewItem] = []
    lost = 0
    for message in messages:
        made = _from_completion(message) if isinstance(message, dict) else []
        lost += not made
        items += made
    return Carried(
        name=str(document.get("id") or name),
        subject=_text(document.get("subject") or document.get("user") or document.get("id")),
        handle=_text(document.get("handle")),
        facts=(),
        items=tuple(items),
        left_behind=(f"{lost} messages of unknown form",) if lost else (),
    )


def _from_completion(message: dict[str, Any]) -> list[NewItem]:
    """Return a Chat Completions message as items: its text, then the calls that it makes."""
    role, content = message.get("role"), message.get("content")
    at = message.get("created_at") or message.get("timestamp")
    if role in {"tool", "function"}:
        output = {
            "type": "function_call_output",
            "call_id": message.get("tool_call_id") or message.get("name"),
            "output": content if isinstance(content, str) else json.dumps(content),
        }
        return [_at(new_item(output), at)]
    if role not in _ROLES:
        return []
    found = []
    if isinstance(content, list):
        content = [part for part in map(_completion_part, content) if part is not None]
        if role == "assistant":
            content = "".join(part.get("text", "") for part in content)
    if content:
        found.append(_at(new_item({"type": "message", "role": role, "content": content}), at))
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        wire = {
            "type": "function_call",
            "call_id": call.get("id"),
            "name": function.get("name"),
            "arguments": function.get("arguments") or "{}",
        }
        found.append(_at(new_item(wire), at))
    return found


def _completion_part(part: Any) -> dict[str, Any] | None:
    match part:
        case {"type": "text", "text": str(text)}:
            return {"type": "input_text", "text": text}
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return {"type": "input_image", "image_url": url}
        case {"type": "refusal", "refusal": str(refusal)}:
            return {"type": "refusal", "refusal": refusal}
        case _:
            return None


def read_session(session: str, rows: Iterable[tuple[str, float | None]]) -> Carried:
    """Read one session of openai-agents: the items of a run loop, as JSON, with their times."""
    items: list[NewItem] = []
    lost = 0
    for text, at in rows:
        try:
            wire = json.loads(text)
        except ValueError:
            wire = None
        if isinstance(wire, dict):
            items.append(_at(new_item(wire), at))
        else:
            lost += 1
    return Carried(
        name=session,
        subject=session,
        handle=None,
        facts=(),
        items=_once(items),
        left_behind=(f"{lost} items that are not JSON",) if lost else (),
    )


def _once(items: Iterable[NewItem]) -> tuple[NewItem, ...]:
    """Return items, each provider's id once: a log has no two items of one id."""
    seen: set[str] = set()
    found = []
    for item in items:
        if item.provider_id is not None and item.provider_id in seen:
            continue
        if item.provider_id is not None:
            seen.add(item.provider_id)
        found.append(item)
    return tuple(found)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


# -- ours, written -------------------------------------------------------------------------------


def head_line(facts: Iterable[str], **about: Any) -> str:
    """Return the line that a conversation begins with and that says what it is."""
    return json.dumps({"format": OURS, **about, "facts": list(facts)}, ensure_ascii=False)


def item_line(wire: str, at: float, provider_id: str | None) -> str:
    """Return the line of one item; its wire form is kept as text, to the letter."""
    thread = '"object":"thread.message"' in wire
    record = {"wire": wire, "at": at, "id": provider_id, **({"thread": True} if thread else {})}
    return json.dumps(record, ensure_ascii=False)


def end_line(items: int) -> str:
    """Return the line that a conversation ends with; without it a file is cut."""
    return json.dumps({"end": items})
