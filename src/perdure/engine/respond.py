"""``POST /responses``: one turn, on a chain of responses or on a conversation."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Final

from perdure.dialects import items as item_forms
from perdure.dialects.body import Body, read_body, with_members
from perdure.dialects.streams import ResponseReader, is_event_stream
from perdure.dialects.verdicts import Judgement, fault_in
from perdure.engine import prime as primes
from perdure.engine.adopt import adopt
from perdure.engine.ops import (
    Accepted,
    Answer,
    Complete,
    Fail,
    Find,
    Found,
    History,
    MarkLost,
    ReadRecovery,
    Release,
    Report,
    SendFailed,
    Spawn,
    Underway,
)
from perdure.engine.rebuild import Loss, NotRebuilt, loss_before_sending, rebuild
from perdure.engine.streaming import Loss as StreamLoss
from perdure.engine.streaming import Opening, open_stream, pass_stream
from perdure.engine.turns import Turn, accept, replay, settle_failure
from perdure.engine.wire import Call, Wire, final
from perdure.errors import ForeignTenant, StoreError
from perdure.flow import Flow
from perdure.model import Dialect, Reason, Recovery, Replica

_VISIBILITY_STEPS: Final = (0.25, 0.5, 1.0, 1.0)
_LOCK_STEP: Final = 1.0
_UNFINISHED: Final = {"queued", "in_progress"}


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is sent for a turn: the body, and the recovery if it carries a prime."""

    content: bytes
    handle: str | None
    recovery: Recovery | None = None
    replica: Replica | None = None


def respond(wire: Wire) -> Flow[Answer]:
    """Carry out one model call; two requests more at most, and only where its replica is lost."""
    body = read_body(wire.call.content)
    previous, conversation = _handles(body)
    if previous and conversation:
        return (yield from _untouched(wire, body))  # the provider explains what it does not allow
    dialect: Dialect = "conversations" if conversation else "responses"
    handle = conversation or previous
    if body.members.get("store") is False or wire.call.route.action == "measure":
        return (yield from _unjournalled(wire, body, dialect, handle))
    if handle is None and wire.call.subject is None and wire.call.policy.journal == "linked":
        return (yield from _untouched(wire, body))
    turn = yield from accept(
        wire,
        dialect=dialect,
        kind="respond",
        handle=handle,
        items=item_forms.new_items(item_forms.from_input(body.members.get("input"))),
        request=_settings(body),
    )
    if isinstance(turn, Answer):
        return turn
    if turn is None:
        return (yield from _untouched(wire, body))
    return (yield from _deliver(wire, body, dialect, handle, turn))


def _handles(body: Body) -> tuple[str | None, str | None]:
    previous = body.members.get("previous_response_id")
    conversation = body.members.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    return (
        previous if isinstance(previous, str) else None,
        conversation if isinstance(conversation, str) else None,
    )


def _settings(body: Body) -> str:
    """Return what a turn keeps of its request besides the items."""
    model = body.members.get("model")
    return item_forms.dumps({"model": model} if model is not None else {})


def _untouched(wire: Wire, body: Body) -> Flow[Answer]:
    """Send the call as it is and pass its answer, streamed or not."""
    answer = yield from wire.send(wire.call.content, stream=body.members.get("stream") is True)
    return (yield from pass_through(answer))


def pass_through(answer: Answer) -> Flow[Answer]:
    """Hand an answer over as it comes."""
    if answer.stream is None:
        return answer
    return (yield from pass_stream(answer))


# -- a journalled turn -----------------------------------------------------------------------


def _deliver(
    wire: Wire, body: Body, dialect: Dialect, handle: str | None, turn: Turn
) -> Flow[Answer]:
    try:
        delivery = yield from _before_sending(wire, body, dialect, handle, turn)
        return (yield from _attempts(wire, body, dialect, handle, turn, delivery))
    except NotRebuilt as refused:
        yield from Fail(wire.call.tenant, turn.key, "failed", "not rebuilt")
        return refused.answer
    except SendFailed as failure:
        yield from settle_failure(wire, turn, failure)
        raise failure.cause from None


def _before_sending(
    wire: Wire, body: Body, dialect: Dialect, handle: str | None, turn: Turn
) -> Flow[Delivery]:
    """Decide what is sent first: the call as it is, under another handle, or with a prime."""
    accepted, replica = turn.accepted, turn.replica
    if dialect == "responses":
        if handle is not None:
            loss = _response_loss(wire.call, accepted, handle, turn)
            if loss is None:
                return Delivery(wire.call.content, handle)
            return (yield from _primed_response(wire, body, turn, loss))
        if wire.call.subject is None or accepted.through == 0:
            return Delivery(wire.call.content, None)
        head = replica.handle if replica.dialect == "responses" else None
        loss = (
            Loss(turn.key.conversation, replica, "absent", turn.key.turn_id)
            if head is None
            else _response_loss(wire.call, accepted, head, turn)
        )
        if loss is not None:
            return (yield from _primed_response(wire, body, turn, loss))
        content = body.changed({"previous_response_id": json.dumps(head)})
        return Delivery(content, head)
    loss = loss_before_sending(wire.call, turn.key.conversation, replica, turn.key.turn_id)
    if loss is not None:
        return (yield from _primed_conversation(wire, body, turn, loss))
    return (yield from _on_conversation(wire, body, turn, replica))


def _response_loss(call: Call, accepted: Accepted, handle: str, turn: Turn) -> Loss | None:
    """Return why a response cannot be continued from, as far as that is known without asking."""
    at = replace(
        turn.replica,
        dialect="responses",
        state="lost" if accepted.handle_state == "lost" else "live",
        handle=handle,
        age_seconds=accepted.handle_age_seconds,
    )
    return loss_before_sending(call, turn.key.conversation, at, turn.key.turn_id)


def _attempts(
    wire: Wire,
    body: Body,
    dialect: Dialect,
    handle: str | None,
    turn: Turn,
    delivery: Delivery,
) -> Flow[Answer]:
    """Send until an answer stands: waiting where that helps, rebuilding once."""
    stream = body.members.get("stream") is True
    waits = list(_VISIBILITY_STEPS)
    waited = 0.0
    while True:
        answer = yield from wire.send(delivery.content, stream=stream)
        opening: Opening | None = None
        if answer.stream is not None and is_event_stream(answer.header("content-type")):
            opened = yield from open_stream(
                wire, answer, ResponseReader(), may_be_lost=delivery.handle is not None
            )
            if isinstance(opened, StreamLoss):
                judgement = yield from wire.judge_fault(opened.fault, dialect, delivery.handle)
                if judgement.verdict not in {"gone", "locked"}:
                    opening = opened.opening
                    judgement = Judgement("ok")
                else:
                    yield from Release(answer.stream)
                    answer = opened.as_answer(answer)
            else:
                opening, judgement = opened, Judgement("ok")
        else:
            judgement = yield from _judge_json(wire, answer, dialect, delivery.handle)
        match judgement.verdict:
            case "ok" if opening is not None:
                return (yield from _finish_stream(wire, dialect, turn, delivery, opening))
            case "ok":
                return (yield from _finish(wire, dialect, turn, delivery, answer))
            case "gone" if delivery.recovery is None:
                limit = wire.call.policy.visibility_wait.total_seconds()
                young = dialect == "responses" and _young(wire.call, turn.accepted)
                if young and waits and waited < limit:
                    step = min(waits.pop(0), limit - waited)
                    waited += step
                    if (yield from wire.pause(step)):
                        continue
                if turn.accepted.adopting and wire.call.policy.on_unknown == "error":
                    return (yield from _rejected(wire, turn, answer, "unknown handle"))
                delivery = yield from _rebuilt(
                    wire, body, dialect, turn, delivery, "not_visible" if young else "gone"
                )
            case "locked" if (yield from wire.pause(_LOCK_STEP)):
                continue
            case _:
                return (yield from _not_answered(wire, turn, answer, judgement))


def _young(call: Call, accepted: Accepted) -> bool:
    """Whether a response is so fresh that it may exist although it cannot be read yet."""
    return (
        not accepted.adopting
        and accepted.handle_age_seconds < call.policy.visibility_age.total_seconds()
    )


def _judge_json(
    wire: Wire, answer: Answer, dialect: Dialect, handle: str | None
) -> Flow[Judgement]:
    """Judge a whole answer; a 200 that carries a failed response is judged by its error."""
    if answer.ok and b'"failed"' in answer.body[:4096]:
        response = _object(answer.body)
        if response.get("status") == "failed" and handle is not None:
            judgement = yield from wire.judge_fault(fault_in(200, response), dialect, None)
            return judgement if judgement.verdict == "gone" else Judgement("ok")
    return (yield from wire.judge(answer, dialect, handle))


def _rejected(wire: Wire, turn: Turn, answer: Answer, reason: str) -> Flow[Answer]:
    """Pass on a definite refusal: nothing was done, the turn's items are not part of the log."""
    yield from Fail(wire.call.tenant, turn.key, "failed", reason, withdrawn=True)
    return answer


def _not_answered(wire: Wire, turn: Turn, answer: Answer, judgement: Judgement) -> Flow[Answer]:
    if judgement.verdict == "ambiguous":
        yield from Fail(wire.call.tenant, turn.key, "unknown", f"status {answer.status}")
        return answer
    rejected = yield from _rejected(wire, turn, answer, judgement.rule or f"status {answer.status}")
    return final(rejected) if judgement.retired else rejected


# -- rebuilding ------------------------------------------------------------------------------


def _rebuilt(
    wire: Wire, body: Body, dialect: Dialect, turn: Turn, delivery: Delivery, reason: Reason
) -> Flow[Delivery]:
    replica = replace(delivery.replica or turn.replica, dialect=dialect, handle=delivery.handle)
    loss = Loss(turn.key.conversation, replica, reason, turn.key.turn_id)
    if dialect == "responses":
        return (yield from _primed_response(wire, body, turn, loss))
    return (yield from _primed_conversation(wire, body, turn, loss))


def _prime(wire: Wire, body: Body, turn: Turn, after: int = 0) -> Flow[primes.Prime]:
    span = yield from History(
        wire.call.tenant,
        turn.key.conversation,
        turn.accepted.through,
        wire.call.policy.budget_tokens,
    )
    if after:
        span = replace(span, items=tuple(item for item in span.items if item.position > after))
    return primes.build(span, item_forms.from_input(body.members.get("input")))


def _primed_response(wire: Wire, body: Body, turn: Turn, loss: Loss) -> Flow[Delivery]:
    """Put the history in front of the caller's input: the new response is the new replica."""
    prime = yield from _prime(wire, body, turn)
    recovery = Recovery(
        conversation=turn.key.conversation,
        turn_id=turn.key.turn_id,
        reason=loss.reason,
        generation=loss.replica.generation + 1,
        lost_handle=loss.replica.handle,
        new_handle=None,
        memory=prime.memory,
        primed=prime.primed,
        left_out=prime.left_out,
        requests=0,
    )
    content = body.changed(
        {
            "previous_response_id": None,
            "input": primes.joined(prime, body.raw("input") if "input" in body.members else None),
        }
    )
    return Delivery(content, None, recovery)


def _primed_conversation(wire: Wire, body: Body, turn: Turn, loss: Loss) -> Flow[Delivery]:
    """Create an empty conversation and let the history travel in this call's input."""
    rebuilt = yield from rebuild(wire, loss, turn.accepted.through)
    return (yield from _on_conversation(wire, body, turn, rebuilt.replica, rebuilt=True))


def _on_conversation(
    wire: Wire, body: Body, turn: Turn, replica: Replica, *, rebuilt: bool = False
) -> Flow[Delivery]:
    """Address the live conversation; give it the history if it has not been given yet."""
    changes: dict[str, str | None] = {}
    recovery = None
    unprimed = replica.generation > 0 and replica.primed_through < turn.accepted.through
    if rebuilt or unprimed:
        prime = yield from _prime(wire, body, turn, replica.primed_through)
        raw = body.raw("input") if "input" in body.members else None
        changes["input"] = primes.joined(prime, raw)
        begun = yield from ReadRecovery(wire.call.tenant, turn.key.conversation, replica.generation)
        recovery = _with_prime(turn, prime, begun, replica)
    if replica.handle != turn.handle:
        changes["conversation"] = json.dumps(replica.handle)
    content = body.changed(changes) if changes else wire.call.content
    return Delivery(content, replica.handle, recovery, replica)


def _with_prime(
    turn: Turn, prime: primes.Prime, begun: Recovery | None, replica: Replica
) -> Recovery:
    """Return the recovery that this turn completes, with what the new replica is given."""
    recovery = begun or Recovery(
        conversation=turn.key.conversation,
        turn_id=None,
        reason="absent",
        generation=replica.generation,
        lost_handle=None,
        new_handle=replica.handle,
        memory="none",
        primed=0,
        left_out=0,
        requests=0,
    )
    return replace(
        recovery,
        turn_id=turn.key.turn_id,
        memory=prime.memory,
        primed=prime.primed,
        left_out=prime.left_out,
    )


# -- finishing -------------------------------------------------------------------------------


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _final_recovery(wire: Wire, delivery: Delivery, response: dict[str, Any]) -> Recovery | None:
    recovery = delivery.recovery
    if recovery is None:
        return None
    return replace(
        recovery,
        requests=wire.requests,
        new_handle=recovery.new_handle or response.get("id"),
    )


def _finish(
    wire: Wire, dialect: Dialect, turn: Turn, delivery: Delivery, answer: Answer
) -> Flow[Answer]:
    """Commit a whole answer, then hand it over."""
    response = _object(answer.body)
    if response.get("status") in _UNFINISHED and response.get("id"):
        yield from Underway(
            wire.call.tenant, wire.call.upstream, turn.key, response["id"], answer.body
        )
        return answer
    recovery = _final_recovery(wire, delivery, response)
    output = response.get("output") or []
    completion = _completion(wire, dialect, turn, delivery, response, output)
    marked = answer if recovery is None else _with_recovery(answer, recovery)
    stored = yield from commit(
        replace(
            completion,
            status=answer.status,
            body=answer.body,
            content_type=answer.header("content-type") or "application/json",
            recovery=recovery,
        )
    )
    if stored is None:
        return (yield from replay(wire, turn))
    if stored:
        yield from _after(wire, dialect, turn, recovery, output)
        return marked
    return _not_stored(marked)


def commit(completion: Complete) -> Flow[bool | None]:
    """Give a turn its answer; None: another worker did. A store that fails now loses no answer."""
    try:
        won = yield from completion
    except StoreError:
        return False
    return True if won else None


def _not_stored(answer: Answer) -> Answer:
    member = '"perdure":{"stored":false}'
    if b'"perdure":{' in answer.body:
        return answer.edited(headers=(("perdure-stored", "false"),))
    body = with_members(answer.body.decode(), member).encode()
    return answer.edited(body, headers=(("perdure-stored", "false"),))


def _after(
    wire: Wire,
    dialect: Dialect,
    turn: Turn,
    recovery: Recovery | None,
    output: list[dict[str, Any]],
) -> Flow[None]:
    if recovery is not None:
        yield from Report(recovery)
    if turn.accepted.adopting and turn.handle is not None:
        oldest = str(output[0].get("id")) if output else None
        inputs = turn.accepted.accepted_items
        job = adopt(wire.call, dialect, turn.key.conversation, turn.handle, oldest, inputs)
        yield from Spawn("adopt", job)


def _with_recovery(answer: Answer, recovery: Recovery) -> Answer:
    member = f'"perdure":{item_forms.dumps(recovery.as_member())}'
    body = with_members(answer.body.decode(), member).encode()
    return answer.edited(body, headers=recovery.as_headers())


def _completion(
    wire: Wire,
    dialect: Dialect,
    turn: Turn,
    delivery: Delivery,
    response: dict[str, Any],
    output: list[dict[str, Any]],
) -> Complete:
    usage = response.get("usage") or {}
    response_id = response.get("id")
    recovery = delivery.recovery
    return Complete(
        tenant=wire.call.tenant,
        upstream=wire.call.upstream,
        dialect=dialect,
        turn=turn.key,
        status=200,
        body=b"",
        content_type="application/json",
        items=item_forms.new_items(output),
        response_id=response_id,
        head=response_id if dialect == "responses" else None,
        model=response.get("model"),
        input_tokens=usage.get("input_tokens"),
        primed=dialect == "conversations",
        lost=recovery.lost_handle if recovery else None,
        orphan=recovery is not None and recovery.reason in {"predicted"},
    )


def _finish_stream(
    wire: Wire, dialect: Dialect, turn: Turn, delivery: Delivery, opening: Opening
) -> Flow[Answer]:
    """Pass a stream on; the turn is answered by its terminal event, before that is passed."""
    recovery = delivery.recovery
    reader = opening.reader
    assert isinstance(reader, ResponseReader)

    def ended() -> Flow[bool]:
        response = reader.response
        if reader.fault is not None:
            yield from Fail(wire.call.tenant, turn.key, "failed", "response failed")
            return True
        final_recovery = _final_recovery(wire, delivery, response)
        completion = _completion(wire, dialect, turn, delivery, response, reader.items)
        stored = yield from commit(
            replace(
                completion,
                body=item_forms.dumps(response).encode(),
                content_type="text/event-stream",
                recovery=final_recovery,
            )
        )
        if stored:
            yield from _after(wire, dialect, turn, final_recovery, reader.items)
        return bool(stored)

    def cut(reason: str) -> Flow[None]:
        yield from Fail(
            wire.call.tenant,
            turn.key,
            "failed" if dialect == "responses" else "unknown",
            reason,
            partial=item_forms.new_items(reader.partial()),
        )

    def note() -> str | None:
        done = _final_recovery(wire, delivery, reader.response)
        return None if done is None else f'"perdure":{item_forms.dumps(done.as_member())}'

    head = opening.answer
    if recovery is not None:
        known = _final_recovery(wire, delivery, reader.response) or recovery
        head = head.edited(headers=known.as_headers())
    return (yield from pass_stream(head, opening, ended=ended, cut=cut, note=note))


# -- calls that leave nothing in the log -----------------------------------------------------


def _unjournalled(wire: Wire, body: Body, dialect: Dialect, handle: str | None) -> Flow[Answer]:
    """Carry out a ``store: false`` call: recovered like any other, adding nothing to the log."""
    found = None
    if handle is not None:
        found = yield from Find(wire.call.tenant, wire.call.upstream, handle)
    if found is None or handle is None or found.state == "retired":
        return (yield from _untouched(wire, body))
    if found.foreign:
        raise ForeignTenant(handle, wire.call.tenant)
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
    return (yield from _primed_without_trace(wire, body, handle, found, stream=stream))


def _primed_without_trace(
    wire: Wire, body: Body, handle: str, found: Found, *, stream: bool
) -> Flow[Answer]:
    through = found.position if found.replica.dialect == "responses" else found.last_position
    span = yield from History(
        wire.call.tenant, found.conversation, through, wire.call.policy.budget_tokens
    )
    prime = primes.build(span, item_forms.from_input(body.members.get("input")))
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
        return (yield from pass_stream(answer.edited(headers=recovery.as_headers())))
    return _with_recovery(answer, recovery)
