"""Deleting through us: what is deleted stays deleted, and does not come back with a prime."""

from __future__ import annotations

import json
from typing import Final

from perdure.dialects import items as item_forms
from perdure.engine.journalled import FROM_JOURNAL, position_of
from perdure.engine.ops import (
    ANY,
    Answer,
    Discard,
    Found,
    History,
    Learn,
    MarkLost,
    OneItem,
    Retire,
    Tombstone,
)
from perdure.engine.readback import essence
from perdure.engine.threads import live_path
from perdure.engine.wire import Wire
from perdure.flow import Flow

_ALL: Final = 1 << 40  # tokens


def delete(wire: Wire, found: Found, handle: str) -> Flow[Answer]:
    """Delete through us: written down before it is sent, so that it stays deleted."""
    call = wire.call
    if call.route.child is not None:
        return (yield from _delete_item(wire, found, call.route.child))
    yield from Retire(call.tenant, call.upstream, handle)
    live = found.replica
    if call.dialect == "responses" or live.handle is None:
        return (yield from wire.send(call.content))
    if live.dialect == call.dialect:
        return (yield from wire.send(call.content, path=live_path(call, live.handle)))
    # The conversation has moved to another API since; nobody names its replica there any more.
    yield from Discard(call.tenant, call.upstream, live.dialect, found.conversation, live.handle)
    return (yield from wire.send(call.content))


def _delete_item(wire: Wire, found: Found, child: str) -> Flow[Answer]:
    """Delete one item. A rebuilt replica knows it under no id of ours, so it is replaced.

    One that the app only sent has an id at the provider that is not known here: it is read first,
    which costs one request.
    """
    call = wire.call
    refused = yield from _named(wire, found, child)
    if refused is not None:
        return refused
    yield from Tombstone(call.tenant, found.conversation, child)
    if found.replica.generation == 0:
        return (yield from wire.send(call.content))
    if found.replica.handle is not None:
        yield from MarkLost(call.tenant, call.upstream, found.replica.handle)
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
    if (yield from OneItem(call.tenant, found.conversation, child)) is not None:
        return None
    place, wanted = position_of(child), None
    if place is None:
        if found.replica.generation > 0 or found.replica.state != "live":
            return None
        answer = yield from wire.own("GET", live_path(call, found.replica.handle))
        if not answer.ok:
            judgement = yield from wire.judge(answer, call.dialect, found.replica.handle)
            return answer if judgement.verdict == "ambiguous" else None
        wanted = essence(json.loads(answer.body))
    everything = History(call.tenant, found.conversation, found.last_position, _ALL, wire=ANY)
    for item in reversed((yield from everything).items):
        mine = (
            item.position == place if wanted is None else essence(json.loads(item.wire)) == wanted
        )
        if mine and item.provider_id is None:
            named = ((item.position, child, item.wire),)
            yield from Learn(call.tenant, found.conversation, (), whole=True, named=named)
            return None
    return None
