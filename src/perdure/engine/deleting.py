"""Deleting through us: what is deleted stays deleted, and does not come back with a prime."""

from __future__ import annotations

import json
from typing import Final

from perdure.dialects import items as item_forms
from perdure.dialects.verdicts import Judgement
from perdure.engine.delivery import young
from perdure.engine.journalled import FROM_JOURNAL, no_item, place_of
from perdure.engine.ops import (
    ANY,
    Answer,
    Found,
    History,
    Learn,
    Retire,
    Spawn,
    Tombstone,
)
from perdure.engine.readback import essence
from perdure.engine.rebuild import as_named
from perdure.engine.sweep import sweep_quietly
from perdure.engine.threads import live_path
from perdure.engine.wire import NOT_THERE, Call, Wire
from perdure.flow import Flow
from perdure.model import Dialect

_ALL: Final = 1 << 40  # tokens
_DELETED: Final[dict[Dialect, str]] = {
    "responses": "response",
    "conversations": "conversation.deleted",
    "threads": "thread.deleted",
}


def delete(wire: Wire, found: Found, handle: str) -> Flow[Answer]:
    """Delete through us: written down before it is sent, so that it stays deleted.

    What the provider has lost is there for the app, so it can be deleted: costs no request where
    the loss is known. Where the server may only lack the route its own answer is passed on.
    """
    call = wire.call
    if call.route.child is not None:
        return (yield from _delete_item(wire, found, call.route.child))
    yield from Retire(call.tenant, call.upstream, handle)
    if call.dialect == "responses":
        answer = yield from wire.send(call.content)
        judgement = yield from wire.judge(answer, "responses", handle)
        may_exist = young(call.policy, "responses", found.age_seconds)
        return _deleted(call) if _is_gone(judgement) and not may_exist else answer
    replica = as_named(found.replica, call.dialect, handle, found.state)
    if replica.state == "lost":
        return _deleted(call)
    named = replica.handle or handle
    answer = yield from wire.send(call.content, path=live_path(call, named))
    judgement = yield from wire.judge(answer, call.dialect, named)
    return _deleted(call) if _is_gone(judgement) else answer


def _is_gone(judgement: Judgement) -> bool:
    """Whether there is nothing to delete; to infer that is no proof of it."""
    return judgement.verdict == "gone" and not judgement.inferred


def _deleted(call: Call) -> Answer:
    gone = {"id": call.route.handle, "object": _DELETED[call.dialect], "deleted": True}
    return Answer(200, FROM_JOURNAL, item_forms.dumps(gone).encode())


def _delete_item(wire: Wire, found: Found, child: str) -> Flow[Answer]:
    """Delete one item. A rebuilt replica knows it under no id of ours, so it is replaced.

    One that the app only sent has an id at the provider that is not known here: it is read first,
    which costs one request.
    """
    call = wire.call
    at = (call.tenant, call.upstream, found.conversation, child)
    removed = yield from Tombstone(*at)
    if removed == "unknown":
        refused = yield from _named(wire, found, child)
        if refused is not None:
            return refused
        removed = yield from Tombstone(*at)
    lives = found.replica.generation == 0 and found.replica.state == "live"
    if removed in {"unknown", "before"} and not lives:
        return no_item(call)
    if removed != "replaced":
        answer = yield from wire.send(call.content)
        judgement = yield from wire.judge(answer, call.dialect, found.replica.handle)
        if judgement.verdict != "gone" or removed != "there":
            return answer
        yield from Tombstone(*at, gone=found.replica.handle)
    yield from Spawn("sweep", sweep_quietly(call.tenant, call.upstream))
    if call.dialect == "threads":
        gone = {"id": child, "object": "thread.message.deleted", "deleted": True}
    else:
        gone = {
            "id": call.route.handle,
            "object": "conversation",
            "created_at": 0,
            "metadata": {},
            **(json.loads(found.answer.body) if found.answer else {}),
        }
    return Answer(200, FROM_JOURNAL, item_forms.dumps(gone).encode())


def _named(wire: Wire, found: Found, child: str) -> Flow[Answer | None]:
    """See to it that the log knows an item by an id, if it has it; returns the provider's refusal.

    What is deleted must not come back with the next prime.
    """
    call = wire.call
    made, wanted = place_of(child), None
    if made is None:
        if found.replica.generation > 0 or found.replica.state != "live":
            return None
        answer = yield from wire.own("GET", live_path(call, found.replica.handle))
        if answer.status in NOT_THERE:
            return None
        if not answer.ok:  # deleted all the same, it would come back
            return answer
        wanted = essence(json.loads(answer.body))
    everything = History(call.tenant, found.conversation, found.last_position, _ALL, wire=ANY)
    for item in reversed((yield from everything).items):
        mine = (
            (found.conversation, item.position) == made
            if wanted is None
            else essence(json.loads(item.wire)) == wanted
        )
        if mine and item.provider_id is None:
            named = ((item.position, child, item.wire),)
            yield from Learn(call.tenant, found.conversation, (), whole=True, named=named)
            return None
    return None
