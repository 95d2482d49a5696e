"""Model calls that leave nothing in the log: ``store: false``, token counts, compaction."""

from __future__ import annotations

import json
from dataclasses import replace

from perdure.dialects import items as item_forms
from perdure.dialects.body import Body
from perdure.engine import prime as primes
from perdure.engine.ops import Answer, Find, Found, MarkLost, Report
from perdure.engine.rebuild import as_named
from perdure.engine.recollect import Next, model_of, recollect
from perdure.engine.streaming import pass_through
from perdure.engine.telling import marked
from perdure.engine.wire import Wire
from perdure.errors import ForeignTenant
from perdure.flow import Flow
from perdure.model import Dialect, Recovery


def untouched(wire: Wire, body: Body) -> Flow[Answer]:
    """Send the call as it is and pass its answer, streamed or not."""
    answer = yield from wire.send(wire.call.content, stream=body.members.get("stream") is True)
    return (yield from pass_through(answer))


def unjournalled(wire: Wire, body: Body, dialect: Dialect, handle: str | None) -> Flow[Answer]:
    """Carry out a ``store: false`` call: recovered like any other, adding nothing to the log."""
    found = None
    if handle is not None:
        found = yield from Find(wire.call.tenant, wire.call.upstream, handle)
    if found is None or handle is None or found.state == "retired":
        return (yield from untouched(wire, body))
    if found.foreign:
        raise ForeignTenant(handle, wire.call.tenant)
    if dialect == "conversations":
        found = replace(found, replica=as_named(found.replica, dialect, handle, found.state))
    stream = body.members.get("stream") is True
    content = wire.call.content
    dead = found.state == "lost"
    if dialect == "conversations" and found.replica.state == "live":
        dead = found.replica.primed_through < found.last_position and found.replica.generation > 0
        if found.replica.handle != handle:
            content = body.changed({"conversation": json.dumps(found.replica.handle)})
    if not dead:
        answer = yield from wire.send(content, stream=stream)
        judgement = yield from wire.judge(answer, dialect, handle)
        if judgement.verdict != "gone":
            return (yield from pass_through(answer))
        yield from MarkLost(wire.call.tenant, wire.call.upstream, handle)
    through = found.position if dialect == "responses" else found.last_position
    return (yield from _primed_without_trace(wire, body, handle, found, through, stream=stream))


def _primed_without_trace(
    wire: Wire, body: Body, handle: str, found: Found, through: int, *, stream: bool
) -> Flow[Answer]:
    sent = tuple(item_forms.from_input(body.members.get("input")))
    upcoming = Next(found.conversation, through, sent, model=model_of(body.members))
    prime = yield from recollect(wire, upcoming)
    raw = body.raw("input") if "input" in body.members else None
    content = body.changed(
        {
            "previous_response_id": None,
            "conversation": None,
            "input": primes.joined(prime, raw),
        }
    )
    answer = yield from wire.send(content, stream=stream)
    if not answer.ok:
        return answer
    recovery = Recovery(
        conversation=found.conversation,
        turn_id=None,
        reason="known",
        generation=found.replica.generation,
        lost_handle=handle,
        new_handle=None,
        memory=prime.memory,
        primed=prime.primed,
        left_out=prime.left_out,
        requests=wire.requests,
    )
    yield from Report(recovery)
    if answer.stream is not None:
        return (yield from pass_through(answer.edited(headers=recovery.as_headers())))
    return marked(answer, recovery)
