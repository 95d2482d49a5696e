"""Items and messages as the app saw them, answered from the journal; and lists that show a loss.

After a rebuild the provider holds a prime where the app remembers a conversation. So what the app
asks to see comes from the journal, in wire form, with the ids and times that it saw.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import parse_qs

from perdure.dialects import items as item_forms
from perdure.dialects.body import read_body
from perdure.dialects.messages import is_metadata
from perdure.engine.collapse import collapse_of, tell_of_collapse
from perdure.engine.ops import Answer, Find, Found, Learn, OneItem, Page
from perdure.engine.telling import marked
from perdure.engine.wire import JSON, Call, Wire
from perdure.errors import BadInput
from perdure.flow import Flow
from perdure.model import StoredItem

_MADE: Final = "msg_perdure"
_MADE_ID: Final = re.compile(f"{_MADE}([0-9a-f]{{37}})")
_HALF: Final = 1 << 31
FROM_JOURNAL: Final = (*JSON, ("perdure-source", "journal"))


def from_journal(call: Call, found: Found) -> Flow[Answer | None]:
    """Answer a read or a list of items or messages as the app saw them, ids and times included."""
    show = as_item if call.dialect == "conversations" else as_message
    if call.route.child is not None:
        if call.route.action != "read":
            return None
        item = yield from OneItem(call.tenant, found.conversation, call.route.child)
        if item is None:
            return no_item(call)
        return Answer(200, FROM_JOURNAL, item_forms.dumps(show(item)).encode())
    query = {key: values[0] for key, values in parse_qs(call.query).items()}
    page = yield from Page(
        tenant=call.tenant,
        conversation=found.conversation,
        newest_first=query.get("order", "desc") != "asc",
        limit=max(1, min(100, int(query["limit"]) if query.get("limit", "").isdigit() else 20)),
        after=query.get("after"),
        before=query.get("before"),
        turn_response=query.get("run_id"),
    )
    if not page.cursor_found:
        return no_item(call)
    data = [show(item) for item in page.items]
    body = item_forms.dumps(listing(data, has_more=page.has_more))
    return Answer(200, FROM_JOURNAL, body.encode())


def no_item(call: Call) -> Answer:
    """Say, as the provider would, that there is no such item or message."""
    wanted = call.route.child or parse_qs(call.query).get("after", [""])[0]
    kind = "Item" if call.dialect == "conversations" else "Message"
    error = {
        "message": f"{kind} with id '{wanted}' not found in conversation.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    return Answer(404, FROM_JOURNAL, item_forms.dumps({"error": error}).encode())


def listing(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Return entries as a provider's list of them."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def shown(wire: dict[str, Any], item_id: str) -> dict[str, Any]:
    """Return an item as a provider lists it: with an id, a status and its content in parts."""
    shown = {"type": "message", **wire, "id": wire.get("id") or item_id, "status": "completed"}
    if isinstance(shown.get("content"), str):
        kind = "output_text" if shown.get("role") == "assistant" else "input_text"
        shown["content"] = [{"type": kind, "text": shown["content"]}]
    return shown


def _made_id(item: StoredItem) -> str:
    """Return an id for an item that the app sent and never saw; of a form that APIs take."""
    return f"{_MADE}{item.position & (2 * _HALF - 1):037x}"


def position_of(made_id: str) -> int | None:
    """Return the position of an item in the log by an id that was made for it here."""
    made = _MADE_ID.fullmatch(made_id)
    if made is None:
        return None
    place = int(made[1], 16)
    return place if place < _HALF else place - 2 * _HALF  # adopted history stands before 1


def as_item(item: StoredItem) -> dict[str, Any]:
    """Return an item of the log as a provider lists it."""
    return shown(json.loads(item.wire), item.provider_id or _made_id(item))


def as_message(item: StoredItem) -> dict[str, Any]:
    """Return a thread message as the app saw it; one that it only sent gets the usual members."""
    message = json.loads(item.wire)
    if message.get("object") == "thread.message":
        return dict(message)
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": {"value": content, "annotations": []}}]
    return {
        "id": item.provider_id or _made_id(item),
        "object": "thread.message",
        "created_at": int(item.created_at),
        "thread_id": None,
        "assistant_id": None,
        "run_id": None,
        "status": "completed",
        "role": item.role or "user",
        "content": [_thread_part(part) for part in content or ()],
        "attachments": message.get("attachments") or [],
        "metadata": message.get("metadata") or {},
    }


def _thread_part(part: dict[str, Any]) -> dict[str, Any]:
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": {"value": part["text"], "annotations": []}}
    return part


# -- messages that are changed ---------------------------------------------------------------


def is_change(call: Call) -> bool:
    """Whether a call changes a message of a thread."""
    return call.route.part == "messages" and call.route.action == "update"


def note_changed(call: Call, found: Found, message: dict[str, Any]) -> Flow[None]:
    """Keep a message as the provider has changed it."""
    child = call.route.child or ""
    item = yield from OneItem(call.tenant, found.conversation, child)
    if item is not None:
        named = ((item.position, child, item_forms.dumps(message)),)
        yield from Learn(call.tenant, found.conversation, (), whole=False, named=named)


def changed(call: Call, found: Found) -> Flow[Answer | None]:
    """Change a message in the journal alone, where the rebuilt thread has it under another id.

    None where it was posted on the live thread, which is to change it then.
    """
    item = yield from OneItem(call.tenant, found.conversation, call.route.child or "")
    if item is None:
        return no_item(call)
    if item.position > found.replica.primed_through:
        return None
    metadata = read_body(call.content).members.get("metadata") or {}
    if not is_metadata(metadata):
        raise BadInput(
            "The metadata of a message is at most 16 pairs of text, keys of up to 64 characters, "
            "values of up to 512. Nothing was changed."
        )
    message = {**as_message(item), "metadata": metadata}
    yield from note_changed(call, found, message)
    return Answer(200, FROM_JOURNAL, item_forms.dumps(message).encode())


# -- lists that show a loss ------------------------------------------------------------------


def collapsed(wire: Wire, found: Found, answer: Answer) -> Flow[Answer | None]:
    """Return the journal's list where a provider's whole list has collapsed."""
    call = wire.call
    if not _judgeable(call):
        return None
    listed = json.loads(answer.body)
    if listed.get("has_more") is not False:
        return None
    told = yield from collapse_of(
        call,
        found.conversation,
        found.replica,
        listed.get("data") or (),
        requests=wire.requests,
    )
    if told is None:
        return None
    if told == "replaced":
        now = yield from Find(call.tenant, call.upstream, call.route.handle or "")
        return (yield from from_journal(call, now or found))
    yield from tell_of_collapse(call, found.replica, told)
    if call.policy.on_amnesia == "warn":
        return marked(answer, told)
    whole = yield from from_journal(call, found)
    return marked(whole or answer, told)


def _judgeable(call: Call) -> bool:
    """Whether a request asks for a list from its very start, unfiltered."""
    return (
        call.route.action == "list"
        and call.route.part in {"items", "messages"}
        and not parse_qs(call.query).keys() & {"after", "before", "run_id"}
    )
