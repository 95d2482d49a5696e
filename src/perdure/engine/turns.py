"""Turns: accepting one before anything is sent, and what happens to it when nothing comes back."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from perdure.dialects.items import dumps
from perdure.dialects.tokens import counted
from perdure.engine.background import read_answer
from perdure.engine.messages import Unread, read_unread
from perdure.engine.ops import Accept, Accepted, Answer, Fail, MarkLost, SendFailed
from perdure.engine.readback import read_back
from perdure.engine.rebuild import Behind, Loss, NotRebuilt, as_named, rebuild
from perdure.engine.replaying import replayed
from perdure.engine.wire import JSON, Call, Wire
from perdure.errors import ForeignTenant, TurnErased, TurnExpired, TurnMismatch, TurnOvertaken
from perdure.flow import Flow
from perdure.model import Dialect, NewItem, Replica, TurnKey, TurnKind, value

_WAIT_STEP = 0.02
_WAIT_STEP_MOST = 0.5


@value
class Turn:
    """An accepted turn that is this call's to deliver."""

    key: TurnKey
    accepted: Accepted
    handle: str | None
    replica: Replica
    op: Accept


@value
class LostRun:
    """A run that is gone with its thread; ``waited``: for the outputs of its tools."""

    turn: TurnKey
    run_id: str
    waited: bool


def accept(
    wire: Wire,
    *,
    dialect: Dialect,
    kind: TurnKind,
    handle: str | None,
    items: tuple[NewItem, ...],
    request: str,
    lost: LostRun | None = None,
) -> Flow[Turn | Answer | None]:
    """Journal a turn and take it, waiting behind turns accepted before it.

    Returns the answer where one is known already, and None for a handle deleted through us: such
    a call is passed on without a trace. Of a ``lost`` run None says that it has spoken: it is over.
    """
    call = wire.call
    if call.policy.count_tokens is not None:
        items = counted(items, call.policy.count_tokens)
    body_hash = hashlib.sha256(call.content).hexdigest()
    linked = handle is not None or call.turn_id is not None or call.subject is not None
    op = Accept(
        tenant=call.tenant,
        upstream=call.upstream,
        dialect=dialect,
        kind=kind,
        turn_id=call.turn_id,
        body_hash=body_hash,
        # An id that the app sends along is the provider's for another place, never this one's.
        items=tuple(
            item if item.provider_id is None else replace(item, provider_id=None) for item in items
        ),
        sent_ids=tuple(item.provider_id for item in items),
        request=request,
        handle=handle,
        subject=call.subject,
        waiting_for=_waited_for(call, body_hash, lost, linked=linked),
        lost=None if lost is None else lost.run_id,
        interim=lost is not None and lost.waited,
        retry=call.retry > 0,
        once=call.policy.on_ambiguous == "raise",
        deadline_seconds=call.deadline_seconds,
    )
    return (yield from _admitted(wire, op))


def _waited_for(
    call: Call, body_hash: str, lost: LostRun | None, *, linked: bool
) -> TurnKey | None:
    """Return the turn that a call is about, where it is known without the store."""
    if lost is not None:
        return lost.turn
    return None if linked or not call.retry else call.unanswered.match(call, body_hash)


def _admitted(wire: Wire, op: Accept) -> Flow[Turn | Answer | None]:
    """Ask until the turn is ours to deliver, or its answer is known."""
    step = _WAIT_STEP
    while True:
        accepted = yield from op
        _raise_refusal(op, accepted)
        match accepted.outcome:
            case "deliver":
                return (yield from _taken(wire, op, accepted))
            case "answered":
                assert accepted.turn is not None
                assert accepted.stored is not None
                return (yield from replayed(wire, accepted.turn, accepted.stored))
            case "retired" | "spoken":
                return None
            case "unsettled":
                refused = yield from _settle(wire, accepted)
                if refused is not None:
                    return refused
                op = replace(op, looked=op.looked or "")
            case "unread":
                refused = yield from _read_first(wire, op, accepted)
                if refused is not None:
                    return refused
                op = replace(op, looked=accepted.unread)
            case _:
                assert accepted.turn is not None
                op = replace(op, waiting_for=accepted.turn)
                if not (yield from wire.pause(step)):
                    return locked(op.handle)
                step = min(step * 1.5, _WAIT_STEP_MOST)


def _raise_refusal(op: Accept, accepted: Accepted) -> None:
    """Raise our own fault for a turn that cannot be taken."""
    turn_id = accepted.turn.turn_id if accepted.turn is not None else op.turn_id or ""
    match accepted.outcome:
        case "mismatch":
            raise TurnMismatch(turn_id)
        case "foreign":
            raise ForeignTenant(op.handle or "", op.tenant)
        case "expired":
            raise TurnExpired(turn_id, once=op.once)
        case "erased":
            raise TurnErased(turn_id)


def taken_again(wire: Wire, turn: Turn) -> Flow[Turn | Answer | None]:
    """Give a turn back of which nothing was done, and take it again behind what was said since."""
    yield from Fail(wire.call.tenant, turn.key, "failed", "the log had gone on", withdrawn=True)
    return (yield from _admitted(wire, replace(turn.op, waiting_for=turn.key)))


def _taken(wire: Wire, op: Accept, accepted: Accepted) -> Flow[Turn | Answer]:
    """Return the turn to be delivered, or its answer where an earlier attempt has left one."""
    key, replica = accepted.turn, accepted.replica
    assert key is not None
    assert replica is not None
    if op.handle is not None and op.dialect not in {"responses", replica.dialect}:
        # The conversation has moved to another API since: what the handle names has stayed behind.
        named = as_named(replica, op.dialect, op.handle, "live")
        return Turn(key, accepted, op.handle, replace(named, state="absent"), op)
    turn = Turn(key, accepted, op.handle, replica, op)
    if not (accepted.again and replica.doubtful):
        return turn
    try:
        found = yield from read_back(wire, key.conversation, replica, key.seq)
    except NotRebuilt as refused:
        yield from Fail(wire.call.tenant, key, "unknown", "not read back")
        return refused.answer
    except SendFailed as failure:
        yield from Fail(wire.call.tenant, key, "unknown", "not read back")
        failure.raise_cause()
    if found.answer is None:
        return turn
    return (yield from replayed(wire, key, found.answer))


def _settle(wire: Wire, accepted: Accepted) -> Flow[Answer | None]:
    """Settle what turns ahead have done to a replica, or replace it; the refusal if neither."""
    place, replica = accepted.turn, accepted.replica
    assert place is not None
    assert replica is not None
    try:
        found = yield from read_back(wire, place.conversation, replica)
        if not found.settled:
            loss = Loss(place.conversation, replica, "ambiguous")
            yield from rebuild(wire, loss, accepted.through, following=1)
    except NotRebuilt as refused:
        return refused.answer
    except SendFailed as failure:
        failure.raise_cause()
    except (TurnOvertaken, Behind):
        return None  # it has been settled, or has to be looked at again
    return None


def _read_first(wire: Wire, op: Accept, accepted: Accepted) -> Flow[Answer | None]:
    """Read what a run or a response has said, which comes before what is said after it.

    The only extra call where nothing is wrong. Returns the provider's refusal: a message whose
    place in the log is not known is not entered.
    """
    place, replica, run_id = accepted.turn, accepted.replica, accepted.unread
    assert place is not None
    assert replica is not None
    assert run_id is not None
    if op.dialect != "threads":
        refused = yield from read_answer(wire, run_id, wait=op.kind == "respond")
        return locked(op.handle) if refused == "locked" else refused
    unread = Unread(run_id, accepted.unread_ended)
    try:
        answer, judgement = yield from read_unread(wire, place.conversation, replica, unread)
    except SendFailed as failure:
        failure.raise_cause()
    if judgement.verdict == "gone" and replica.handle is not None:
        yield from MarkLost(wire.call.tenant, wire.call.upstream, replica.handle)
        return None
    return None if judgement.verdict == "ok" else answer


def locked(handle: str | None) -> Answer:
    """Return what a provider says of a conversation that is being worked on."""
    error = {
        "message": "Another process is currently operating on this conversation. "
        "Please retry in a few seconds.",
        "type": "invalid_request_error",
        "param": "conversation",
        "code": "conversation_locked",
        "handle": handle,
    }
    return Answer(400, JSON, dumps({"error": error}).encode())


def unanswered(wire: Wire, turn: Turn) -> None:
    """Remember a turn without a handle, so that the SDK's own repeat is known for one."""
    call = wire.call
    if turn.handle is None and call.turn_id is None and call.subject is None:
        call.unanswered.note(call, hashlib.sha256(call.content).hexdigest(), turn.key)


def settle_failure(wire: Wire, turn: Turn, failure: SendFailed) -> Flow[None]:
    """Note what a request without an answer means for its turn."""
    reason = str(failure)
    unanswered(wire, turn)
    if failure.definite:
        yield from Fail(wire.call.tenant, turn.key, "failed", reason, withdrawn=True)
    else:
        yield from Fail(wire.call.tenant, turn.key, "unknown", reason)
