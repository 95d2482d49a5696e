"""A replica that has answered without the history: it is given up, and the app is told."""

from __future__ import annotations

from perdure.engine.ops import Discard, MarkLost, Report
from perdure.engine.wire import Wire
from perdure.flow import Flow
from perdure.model import Dialect, Recovery, Replica


def give_up(wire: Wire, conversation: int, dialect: Dialect, head: str) -> Flow[None]:
    """Let the next call begin from a replica with the history; a conversation is swept later."""
    call = wire.call
    yield from MarkLost(call.tenant, call.upstream, head)
    if dialect == "conversations":
        yield from Discard(call.tenant, call.upstream, dialect, conversation, head)


def warn(wire: Wire, conversation: int, turn_id: str | None, replica: Replica) -> Flow[Recovery]:
    """Tell of an answer that passes although it was made without the history."""
    told = Recovery(
        conversation=conversation,
        turn_id=turn_id,
        reason="forgot",
        generation=replica.generation,
        lost_handle=replica.handle,
        new_handle=None,
        memory="none",
        primed=0,
        left_out=0,
        requests=wire.requests,
    )
    yield from Report(told)
    return told
