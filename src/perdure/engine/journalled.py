"""Items and messages as the app saw them, answered from the journal; and lists that show a loss.

After a rebuild the provider holds a prime where the app remembers a conversation. So what the app
asks to see comes from the journal, in wire form, with the ids and times that it saw.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qs

from perdure.dialects import items as item_forms
from perdure.dialects.body import object_in, objects_in, read_body
from perdure.dialects.messages import is_metadata
from perdure.dialects.routes import number_in
from perdure.dialects.shapes import is_object, is_page
from perdure.engine.collapse import collapse_of, tell_of_collapse
from perdure.engine.messages import newest_run
from perdure.engine.ops import Answer, Find, Found, Learn, Listing, OneItem, Page
from perdure.engine.telling import marked
from perdure.engine.wire import JSON, Call, Wire
from perdure.errors import BadInput
from perdure.flow import Flow
from perdure.model import StoredItem, value

_MADE_ID: Final = re.compile("[a-z]+_perdure([0-7][0-9a-f]{15})([0-9a-f]{8})[0-9a-f]{8}")
_HALF: Final = 1 << 31
#: Items in which an API takes no status when they are sent again.
_WITHOUT_STATUS: Final = {"mcp_approval_response", "additional_tools", "configuration_update"}
_MOST: Final = 100
_USUAL: Final = 20
_KINDS: Final = {"messages": "Message", "runs": "Run", "steps": "Step"}
FROM_JOURNAL: Final = (*JSON, ("perdure-source", "journal"))


def from_journal(call: Call, found: Found) -> Flow[Answer | None]:
    """Answer a read or a list of items or messages as the app saw them, ids and times included."""
    show = as_item if call.dialect == "conversations" else as_message
    if call.route.child is not None:
        if call.route.action != "read":
            return None
        item = yield from named_item(call, found.conversation, call.route.child)
        if item is None:
            return no_item(call)
        body = item_forms.dumps(show(item, found.conversation))
        return Answer(200, FROM_JOURNAL, body.encode())
    page = yield from _page(call, found.conversation)
    return _listed(call, page, [show(item, found.conversation) for item in page.items])


def inputs_from_journal(call: Call, found: Found, response_id: str) -> Flow[Answer]:
    """Answer a list of what a response was asked; what primed it is no part of that."""
    page = yield from _page(call, found.conversation, asked=response_id)
    return _listed(call, page, [as_item(item, found.conversation) for item in page.items])


def _listed(call: Call, page: Listing, data: list[dict[str, Any]]) -> Answer:
    if not page.cursor_found:
        return no_item(call)
    body = item_forms.dumps(listing(data, has_more=page.has_more))
    return Answer(200, FROM_JOURNAL, body.encode())


def named_item(
    call: Call, conversation: int, item_id: str, *, anywhere: bool = False
) -> Flow[StoredItem | None]:
    """Return a conversation's item that has an id, be it the provider's or one that was made here.

    ``anywhere``: it may be of any conversation, as with the provider.
    """
    made = place_of(item_id)
    if made is None or (conversation != made[0] and not anywhere):
        return (yield from OneItem(call.tenant, None if anywhere else conversation, item_id))
    log, position = made
    at = Page(call.tenant, log, newest_first=True, limit=1, above=position - 1, below=position + 1)
    item = next(iter((yield from at).items), None)
    if item is None or log == conversation:
        return item
    # A place could be guessed, so it alone does not lead to what is said elsewhere.
    return item if item_id in {item.provider_id, _made_id(item, log)} else None


@value
class WantedPage:
    """The page that a list asks for: so many entries behind a cursor, in the order they are read.

    ``back``: it is the page before the cursor, so it is read in the other order than it is shown.
    """

    newest_first: bool
    cursor: str | None
    limit: int
    back: bool


def wanted_page(call: Call) -> WantedPage:
    """Return what a list asks for."""
    query = {key: values[0] for key, values in parse_qs(call.query).items()}
    back = "before" in query and "after" not in query
    limit = number_in(query.get("limit", ""), _USUAL)
    return WantedPage(
        newest_first=(query.get("order", "desc") != "asc") is not back,
        cursor=query.get("before" if back else "after"),
        limit=max(1, min(_MOST, limit)),
        back=back,
    )


def _page(call: Call, conversation: int, asked: str | None = None) -> Flow[Listing]:
    """Read the page that a list asks for; one before a cursor is the one next to it.

    ``asked``: of what this response was asked.
    """
    wanted = wanted_page(call)
    made = place_of(wanted.cursor or "")
    place = made[1] if made is not None and made[0] == conversation else None
    run_id = parse_qs(call.query).get("run_id", [None])[0]
    if run_id is not None:  # one that was started again has spoken under another id
        run_id, _ = yield from newest_run(call, run_id)
    page = yield from Page(
        tenant=call.tenant,
        conversation=conversation,
        newest_first=wanted.newest_first,
        limit=wanted.limit,
        after=wanted.cursor if place is None else None,
        above=None if wanted.newest_first else place,
        below=place if wanted.newest_first else None,
        turn_response=asked or run_id,
        inputs=asked is not None,
    )
    return replace(page, items=page.items[::-1]) if wanted.back else page


def no_item(call: Call) -> Answer:
    """Say, as the provider would, that there is no such item or message."""
    query = parse_qs(call.query)
    wanted = call.route.child or (query.get("after") or query.get("before") or [""])[0]
    kind = _KINDS.get(call.route.part or "", "Item")
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
        "first_id": data[0].get("id") if data else None,
        "last_id": data[-1].get("id") if data else None,
        "has_more": has_more,
    }


def shown(wire: dict[str, Any], item_id: str) -> dict[str, Any]:
    """Return an item as a provider lists it: with an id, a status and its content in parts."""
    shown = {"type": "message", **wire, "id": wire.get("id") or item_id}
    if str(shown["type"]) not in _WITHOUT_STATUS:
        shown.setdefault("status", "completed")
    if isinstance(shown.get("content"), str):
        kind = "output_text" if shown.get("role") == "assistant" else "input_text"
        shown["content"] = [{"type": kind, "text": shown["content"]}]
    return shown


def id_of(item: StoredItem, conversation: int) -> str:
    """Return an item's id; one that the app sent and never saw gets one that is made here."""
    return _made_id(item, conversation) if item.provider_id is None else item.provider_id


def _made_id(item: StoredItem, conversation: int) -> str:
    """Return the id that is made for an item: its place, and what only who has seen it can know."""
    place = item.position & (2 * _HALF - 1)
    known = hashlib.sha256(f"{item.created_at:.0f} {item.wire}".encode()).hexdigest()[:8]
    return item_forms.made_id(item.kind, f"perdure{conversation:016x}{place:08x}{known}")


def place_of(made_id: str) -> tuple[int, int] | None:
    """Return an item's conversation and position by an id that was made for it here."""
    made = _MADE_ID.fullmatch(made_id)
    if made is None:
        return None
    place = int(made[2], 16)
    # Adopted history stands before 1.
    return int(made[1], 16), place if place < _HALF else place - 2 * _HALF


def as_item(item: StoredItem, conversation: int) -> dict[str, Any]:
    """Return an item of the log as the app saw it; one that it only sent as a provider lists it."""
    wire = json.loads(item.wire)
    return wire if wire.get("id") else shown(wire, id_of(item, conversation))


def as_message(item: StoredItem, conversation: int) -> dict[str, Any]:
    """Return a thread message as the app saw it; one that it only sent gets the usual members."""
    message = json.loads(item.wire)
    if message.get("object") == "thread.message":
        return dict(message)
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": {"value": content, "annotations": []}}]
    return {
        "id": id_of(item, conversation),
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
    item = yield from named_item(call, found.conversation, child)
    if item is not None:
        named = ((item.position, child, item_forms.dumps(message)),)
        yield from Learn(call.tenant, found.conversation, (), whole=False, named=named)


def check_metadata(metadata: Any) -> None:
    """Raise :class:`~perdure.errors.BadInput` for what no provider takes as metadata."""
    if not is_metadata(metadata):
        raise BadInput(
            "Metadata is at most 16 pairs of text, keys of up to 64 characters, values of up to "
            "512. Nothing was changed."
        )


def changed(call: Call, found: Found) -> Flow[Answer | None]:
    """Change a message in the journal alone, where the rebuilt thread has it under another id.

    None where it was posted on the live thread, which is to change it then.
    """
    item = yield from named_item(call, found.conversation, call.route.child or "")
    if item is None:
        return no_item(call)
    if item.position > found.replica.primed_through:
        return None
    metadata = read_body(call.content).members.get("metadata") or {}
    check_metadata(metadata)
    message = {**as_message(item, found.conversation), "metadata": metadata}
    yield from note_changed(call, found, message)
    return Answer(200, FROM_JOURNAL, item_forms.dumps(message).encode())


# -- lists that show a loss ------------------------------------------------------------------


def collapsed(wire: Wire, found: Found, answer: Answer) -> Flow[Answer | None]:
    """Return the journal's list where a provider's whole list has collapsed."""
    call = wire.call
    if not _judgeable(call):
        return None
    listed = object_in(answer.body)
    data = objects_in(listed.get("data"))
    if not is_page(listed) or listed.get("has_more") is not False or not all(map(is_object, data)):
        return None
    told = yield from collapse_of(
        call,
        found.conversation,
        found.replica,
        data,
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
