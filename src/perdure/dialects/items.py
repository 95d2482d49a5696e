"""Items: the provider's wire forms and the one canonical form, an OpenAI Responses input item.

What may be replayed by hand is the rule table of OpenAI's Responses API as mature clients found
it: ids, statuses and foreign encrypted content dropped, because kept ids are resolved in the
provider's store, which no longer has them; reasoning left out, because without its id it is
refused; built-in tool items left out, because they are replayed *by* id; a call and its output
together or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from perdure.model import NewItem, StoredItem

NEVER_PRIMED: Final = ""
_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_quoted = json.encoder.encode_basestring

# Members a content part may keep in an input item; null ones are dropped.
_PARTS: Final[dict[str, tuple[str, ...]]] = {
    "input_text": ("text",),
    "input_image": ("image_url", "file_id", "detail"),
    "input_file": ("file_id", "filename", "file_data", "file_url"),
    "input_audio": ("input_audio",),
    "output_text": ("text",),
    "refusal": ("refusal",),
}
_USER_PARTS: Final = {"input_text", "input_image", "input_file", "input_audio"}
_ASSISTANT_PARTS: Final = {"output_text", "refusal"}
_CALLS: Final = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
}
_PLAIN: Final = 3  # type, role, content
_ROLES: Final = frozenset({"user", "assistant", "system", "developer"})
CALL_KINDS: Final = frozenset(_CALLS)
OUTPUT_KINDS: Final = frozenset(_CALLS.values())


def dumps(value: object) -> str:
    """Return compact JSON text as every stored or spliced item has it."""
    return _dump(value)


def from_input(value: Any) -> list[dict[str, Any]]:
    """Return the ``input`` of a Responses call as a list of items; a string is one user message."""
    if value is None:
        return []
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": value}]
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def user_message(text: str) -> NewItem:
    """Return the one message that a string input is."""
    return NewItem(
        wire=f'{{"type":"message","role":"user","content":{_quoted(text)}}}',
        input=None,
        kind="message",
        role="user",
    )


def new_item(wire: dict[str, Any]) -> NewItem:
    """Return a Responses or Conversations item ready for the log."""
    kind = str(wire.get("type") or ("message" if "role" in wire else "unknown"))
    make = _FORMS.get(kind)
    form = None if make is None else make(wire)
    return NewItem(
        wire=dumps(wire),
        input=NEVER_PRIMED if form is None else (None if form == wire else _finished(form)),
        kind=kind,
        role=wire.get("role"),
        call_id=wire.get("call_id"),
        provider_id=wire.get("id"),
    )


def _finished(form: dict[str, Any]) -> str:
    """Return a form's text; a plain message, which nearly all are, without the general encoder."""
    content = form.get("content")
    if len(form) == _PLAIN and isinstance(content, str) and form["role"] in _ROLES:
        return f'{{"type":"message","role":"{form["role"]}","content":{_quoted(content)}}}'
    return dumps(form)


def new_items(wires: Iterable[dict[str, Any]]) -> tuple[NewItem, ...]:
    """Return several items ready for the log."""
    return tuple(map(new_item, wires))


def _message(wire: dict[str, Any]) -> dict[str, Any] | None:
    role, content = wire.get("role"), wire.get("content")
    allowed = _ASSISTANT_PARTS if role == "assistant" else _USER_PARTS
    if isinstance(content, list):
        parts = [_part(part) for part in content if part.get("type") in allowed]
        texts = [part["text"] for part in parts if part["type"] == "output_text"]
        # The string form is the one that every compatible server takes for an assistant.
        content = texts[0] if len(parts) == 1 and texts else parts
    if not isinstance(content, str | list) or content == []:
        return None
    form = {"type": "message", "role": role, "content": content}
    if role == "assistant" and wire.get("phase"):
        form["phase"] = wire["phase"]  # required back on assistant messages, refused on others
    return form


def _part(part: dict[str, Any]) -> dict[str, Any]:
    kind = part["type"]
    kept = {key: part[key] for key in _PARTS[kind] if part.get(key) is not None}
    return {"type": kind, **kept}


def _keeping(*keys: str) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    def form(wire: dict[str, Any]) -> dict[str, Any] | None:
        if any(wire.get(key) is None for key in keys):
            return None
        return {"type": wire["type"], **{key: wire[key] for key in keys}}

    return form


_FORMS: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]]] = {
    "message": _message,
    "function_call": _keeping("call_id", "name", "arguments"),
    "function_call_output": _keeping("call_id", "output"),
    "custom_tool_call": _keeping("call_id", "name", "input"),
    "custom_tool_call_output": _keeping("call_id", "output"),
}


def replayable(
    items: Sequence[StoredItem], following: Iterable[dict[str, Any]] = ()
) -> list[StoredItem]:
    """Return the items that form valid input in front of ``following``, the caller's own.

    Every call needs exactly one later output and every output an earlier call; what has no
    partner is left out. Once outputs begin, all open calls must be answered before anything else
    comes, so outputs are drawn together; a call that the caller answers now stands last.
    """
    output_of, answered_now = _partners(items, following)
    outputs = set(output_of.values())
    chosen: list[StoredItem] = []
    open_calls: list[int] = []
    for index, item in enumerate(items):
        if index in output_of:
            chosen.append(item)
            open_calls.append(index)
        elif index in outputs:
            drawn = sorted(output_of[call] for call in open_calls)
            chosen += [items[output] for output in drawn]
            open_calls.clear()
        elif item.input != NEVER_PRIMED and item.kind not in CALL_KINDS | OUTPUT_KINDS:
            chosen.append(item)
    return [*chosen, *(items[call] for call in answered_now)]


def _partners(
    items: Sequence[StoredItem], following: Iterable[dict[str, Any]]
) -> tuple[dict[int, int], list[int]]:
    """Return each answered call with its output, and the calls that ``following`` answers."""
    open_calls: dict[tuple[str, str], int] = {}
    output_of: dict[int, int] = {}
    for index, item in enumerate(items):
        if item.input == NEVER_PRIMED:
            continue
        if item.kind in CALL_KINDS:
            open_calls.setdefault((_CALLS[item.kind], item.call_id or ""), index)
        elif item.kind in OUTPUT_KINDS:
            call = open_calls.pop((item.kind, item.call_id or ""), None)
            if call is not None:
                output_of[call] = index
    now = (
        open_calls.pop((str(wire.get("type")), str(wire.get("call_id"))), None)
        for wire in following
    )
    return output_of, sorted(call for call in now if call is not None)


def without_ids(
    wires: Sequence[dict[str, Any]], *, whole: bool
) -> tuple[list[dict[str, Any]], int]:
    """Return items in the forms that need nothing stored, and how many have none.

    ``whole``: nothing stands before them, so that calls and outputs need their partners here.
    """
    stored = []
    for position, item in enumerate(map(new_item, wires)):
        form = item.wire if item.input is None else item.input
        stored.append(StoredItem(position, item.kind, item.role, item.call_id, None, "", form, 0.0))
    kept = replayable(stored) if whole else [item for item in stored if item.input]
    return [json.loads(item.input) for item in kept], len(wires) - len(kept)


def text_of(wire: dict[str, Any]) -> str:
    """Return what a person would read in a message item, any dialect; empty for other items."""
    content = wire.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(_part_text(part) for part in content or () if _part_text(part))


def _part_text(part: dict[str, Any]) -> str:
    text = part.get("text")
    if isinstance(text, dict):  # a thread message's part
        text = text.get("value")
    return str(text or part.get("refusal") or "")


# -- thread messages -------------------------------------------------------------------------


def from_thread_message(message: dict[str, Any]) -> NewItem:
    """Return a thread message (as sent or as received) ready for the log."""
    role = message.get("role")
    content = message.get("content")
    if isinstance(content, list):
        content = [part for part in map(_from_thread_part, content) if part is not None]
        if role == "assistant":
            content = [
                {"type": "output_text", "text": part["text"]} if "text" in part else part
                for part in content
                if part["type"] in {"input_text", "refusal"}
            ]
    form = _message({"role": role, "content": content})
    return NewItem(
        wire=dumps(message),
        input=NEVER_PRIMED if form is None else dumps(form),
        kind="message",
        role=role,
        provider_id=message.get("id"),
    )


def _from_thread_part(part: dict[str, Any]) -> dict[str, Any] | None:
    match part.get("type"):
        case "text":
            text = part.get("text")
            value = text.get("value") if isinstance(text, dict) else text
            return {"type": "input_text", "text": value or ""}
        case "image_file":
            return {"type": "input_image", **_kept(part["image_file"], "file_id", "detail")}
        case "image_url":
            image = part["image_url"]
            return {"type": "input_image", "image_url": image["url"], **_kept(image, "detail")}
        case "refusal":
            return {"type": "refusal", "refusal": part.get("refusal") or ""}
        case _:
            return None


def _kept(source: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: source[key] for key in keys if source.get(key) is not None}


def to_thread_message(form: dict[str, Any]) -> dict[str, Any] | None:
    """Return a canonical item as a message to create a thread with; None where threads have none.

    Threads know the roles user and assistant only, and no calls outside a run.
    """
    if form.get("type") != "message" or form.get("role") not in {"user", "assistant"}:
        return None
    content = form["content"]
    if isinstance(content, list):
        content = [part for part in map(_to_thread_part, content) if part is not None]
    return {"role": form["role"], "content": content} if content else None


def _to_thread_part(part: dict[str, Any]) -> dict[str, Any] | None:
    match part["type"]:
        case "input_text" | "output_text":
            return {"type": "text", "text": part["text"]}
        case "refusal":
            return {"type": "text", "text": part["refusal"]}
        case "input_image" if "file_id" in part:
            return {"type": "image_file", "image_file": _kept(part, "file_id", "detail")}
        case "input_image":
            return {
                "type": "image_url",
                "image_url": {"url": part["image_url"], **_kept(part, "detail")},
            }
        case _:
            return None
