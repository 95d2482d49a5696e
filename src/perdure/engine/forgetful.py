"""A replica that has forgotten the history: it is given up, and the app is told."""

from __future__ import annotations

from perdure.engine.ops import Discard, MarkLost, Report
from perdure.engine.wire import Call, Wire
from perdure.flow import Flow
from perdure.model import Dialect, Recovery, Replica


def give_up(call: Call, conversation: int, dialect: Dialect, handle: str) -> Flow[None]:
    """Let the next call begin from a replica with the history; a shared one is swept later."""
    if dialect == "responses":
        yield from MarkLost(call.tenant, call.upstream, handle)
    else:
        yield from Discard(call.tenant, call.upstream, dialect, conversation, handle, replica=True)


def forgotten(conversation: int, turn_id: str | None, replica: Replica, requests: int) -> Recovery:
    """Return what is told of a replica that has forgotten, before anything is rebuilt."""
    return Recovery(
        conversation=conversation,
        turn_id=turn_id,
        reason="forgot",
        generation=replica.generation,
        lost_handle=replica.handle,
        new_handle=None,
        memory="none",
        primed=0,
        left_out=0,
        requests=requests,
    )


def warn(wire: Wire, conversation: int, turn_id: str | None, replica: Replica) -> Flow[Recovery]:
    """Tell of an answer that passes although it was made without the history."""
    told = forgotten(conversation, turn_id, replica, wire.requests)
    yield from Report(told)
    return told
