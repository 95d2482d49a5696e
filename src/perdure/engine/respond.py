"""``POST /responses``: one turn, on a chain of responses or on a conversation."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Literal

from perdure.dialects import items as item_forms
from perdure.dialects.body import Body, objects_in, read_body
from perdure.dialects.shapes import is_response
from perdure.dialects.streams import ResponseReader
from perdure.dialects.tokens import shared_out
from perdure.dialects.verdicts import Judgement
from perdure.engine import amnesia
from perdure.engine.adopt import take_up
from perdure.engine.background import NO_ANSWER, UNFINISHED, is_rebuilt
from perdure.engine.delivery import (
    Asked,
    Delivery,
    first_delivery,
    next_delivery,
    told_of,
)
from perdure.engine.ending import end, kept
from perdure.engine.forgetful import give_up, warn
from perdure.engine.lighter import shorter, without_files, without_ids
from perdure.engine.ops import (
    Answer,
    Complete,
    Discard,
    Fail,
    Report,
    SendFailed,
    Underway,
)
from perdure.engine.rebuild import CREATES, NotRebuilt
from perdure.engine.sending import Manner, send
from perdure.engine.streaming import Opening, pass_stream
from perdure.engine.telling import marked, member
from perdure.engine.turns import Turn, accept, locked, settle_failure, unanswered
from perdure.engine.unjournalled import unjournalled, untouched
from perdure.engine.wire import Wire, retired
from perdure.errors import IssuedTwice
from perdure.flow import Flow
from perdure.model import Dialect, NewItem, Reason, Recovery, value


def respond(wire: Wire) -> Flow[Answer]:
    """Carry out one model call; two requests more at most, and only where its replica is lost."""
    call = wire.call
    body = read_body(call.content)
    previous, conversation = _handles(body)
    if previous and conversation:
        return (yield from untouched(wire, body))  # the provider explains what it does not allow
    dialect: Dialect = "conversations" if conversation else "responses"
    handle = conversation or previous
    if body.members.get("store") is False or call.route.action == "measure":
        return (yield from unjournalled(wire, body, dialect, handle))
    unlinked = handle is None and call.subject is None and call.policy.journal == "linked"
    turn = None
    if not unlinked:
        turn = yield from accept(
            wire,
            dialect=dialect,
            kind="respond",
            handle=handle,
            items=_input_items(body),
            request=_settings(body),
        )
    if turn is None:
        return (yield from untouched(wire, body))
    if isinstance(turn, Answer):
        return turn
    if _is_busy(turn):
        yield from Fail(call.tenant, turn.key, "failed", "conversation locked", withdrawn=True)
        return locked(handle)
    return (yield from _carried_out(Asked(wire, body, dialect, turn)))


def _is_busy(turn: Turn) -> bool:
    """Whether something is still being made in a rebuilt conversation, whatever that has then.

    What is under way was sent there; told with the rest that is not known to be there, it would
    stand there twice.
    """
    accepted, replica = turn.accepted, turn.replica
    behind = replica.primed_through < accepted.through
    return is_rebuilt(replica) and behind and accepted.unread is not None


def _handles(body: Body) -> tuple[str | None, str | None]:
    previous = body.members.get("previous_response_id")
    conversation = body.members.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    return (
        previous if isinstance(previous, str) else None,
        conversation if isinstance(conversation, str) else None,
    )


def _input_items(body: Body) -> tuple[NewItem, ...]:
    sent = body.members.get("input")
    if isinstance(sent, str):
        return (item_forms.user_message(sent),)
    return item_forms.new_items(item_forms.from_input(sent))


def _settings(body: Body) -> str:
    """Return what a turn keeps of its request besides the items."""
    model = body.members.get("model")
    kept: dict[str, Any] = {} if model is None else {"model": model}
    if body.members.get("background") is True:  # its answer is judged when the call is over
        # What of its input the log has already is not sent, so nothing is known of the least.
        kept["brought"] = asdict(replace(amnesia.brought_by(body), least=0))
    return item_forms.dumps(kept)


def _carried_out(asked: Asked) -> Flow[Answer]:
    wire, key = asked.wire, asked.turn.key
    try:
        delivery = yield from first_delivery(asked)
        return (yield from _attempts(asked, delivery))
    except NotRebuilt as refused:
        yield from Fail(wire.call.tenant, key, "failed", "not rebuilt")
        return refused.answer
    except SendFailed as failure:
        yield from settle_failure(wire, asked.turn, failure)
        failure.raise_cause()


def _attempts(asked: Asked, delivery: Delivery) -> Flow[Answer]:
    """Send until an answer stands and is committed; once more where it forgot, or its id is old."""
    wire = asked.wire
    manner = Manner(asked.dialect, asked.stream, asked.young)

    def renewal(last: Delivery, judgement: Judgement) -> Flow[Delivery | None]:
        return _renewed(asked, last, judgement)

    while True:
        sent = yield from send(wire, manner, delivery, renewal)
        delivery, tried = sent.delivery, sent.attempt
        if tried.judgement.verdict != "ok":
            return (yield from _not_answered(asked, tried.answer, tried.judgement))
        if tried.opening is not None:
            return (yield from _finish_stream(asked, delivery, tried.opening))
        said = _said(asked, delivery, tried.shown)
        # A store that fails just now leaves an answer that says what it was made from.
        if said.concluded.given_up and (yield from kept(_given_up(asked, delivery, said))):
            delivery = yield from next_delivery(asked, delivery, "forgot")
            continue
        answer = yield from _finish(asked, delivery, tried.answer, said)
        if answer is not None:
            return answer
        yield from _issued_twice(asked, said)


def _renewed(asked: Asked, last: Delivery, judgement: Judgement) -> Flow[Delivery | None]:
    """Decide what is sent after a definite loss; None where it is the caller's to know of."""
    match judgement.verdict:
        case "item_gone":
            item = replace(asked.turn.replica, handle=judgement.item)
            begun = told_of(asked.lost(item, "gone"))
            return (yield from without_ids(asked.wire, last, begun))
        case "too_long":
            return (yield from shorter(asked.wire, asked.upcoming, asked.raw_input, last))
        case "file_gone":
            return without_files(last, len(asked.own_items), judgement.item)
    unknown = asked.turn.accepted.adopting and asked.wire.call.policy.on_unknown == "error"
    if unknown or last.rebuilt:
        return None
    reason: Reason = "not_visible" if asked.young else "gone"
    return (yield from next_delivery(asked, last, "broken" if judgement.there else reason))


def _issued_twice(asked: Asked, said: _Said) -> Flow[None]:
    """Let the call be made again for another id; a server that counts anew is given up at last.

    Bound to both, the id would lead one user's call to another's conversation.
    """
    if asked.wire.requests >= CREATES:
        call = asked.wire.call
        yield from Fail(call.tenant, asked.turn.key, "failed", "id issued twice")
        raise IssuedTwice(str(said.response.get("id")))


def _given_up(asked: Asked, delivery: Delivery, said: _Said) -> Flow[None]:
    """Let nobody go on from a replica that has forgotten, whatever becomes of this call.

    It has what was just asked by now: made again there, the answer would look as if it remembered.
    Its answer, which nobody will see, exists at the provider.
    """
    call, conversation = asked.wire.call, asked.turn.key.conversation
    if delivery.handle is not None:
        yield from give_up(call, conversation, asked.dialect, delivery.handle)
    response_id = said.response.get("id")
    if response_id is not None:
        yield from Discard(call.tenant, call.upstream, "responses", conversation, str(response_id))


def _rejected(asked: Asked, answer: Answer, reason: str) -> Flow[Answer]:
    """Pass on a definite refusal: nothing was done, the turn's items are not part of the log."""
    tenant, key = asked.wire.call.tenant, asked.turn.key
    yield from Fail(tenant, key, "failed", reason, withdrawn=True)
    return answer


def _not_answered(asked: Asked, answer: Answer, judgement: Judgement) -> Flow[Answer]:
    reason = judgement.rule or f"status {answer.status}"
    unanswered(asked.wire, asked.turn)
    yield from asked.wire.heed(answer)
    if judgement.verdict == "ambiguous":
        yield from Fail(asked.wire.call.tenant, asked.turn.key, "unknown", reason)
        return answer
    rejected = yield from _rejected(asked, answer, reason)
    return retired(rejected) if judgement.retired else rejected


# -- finishing -------------------------------------------------------------------------------


@value
class _Said:
    """What a finished response says: the object, its items, its counts.

    ``concluded``: whether it forgot; one that was given the history is not judged.
    """

    response: dict[str, Any]
    output: list[dict[str, Any]]
    counts: amnesia.Counts
    concluded: amnesia.Conclusion


def _said(
    asked: Asked,
    delivery: Delivery,
    response: dict[str, Any],
    items: list[dict[str, Any]] | None = None,
) -> _Said:
    output = objects_in(response.get("output")) if items is None else items
    counts = amnesia.counts_of(response, output, asked.wire.call.upstream)
    before = None if delivery.recovery is not None else asked.turn.accepted.remembered
    brought, policy = amnesia.brought_by(asked.body), asked.wire.call.policy
    if asked.turn.accepted.known_items:
        brought = replace(brought, least=0)
    concluded = amnesia.conclude(before, brought, counts, policy.on_amnesia)
    return _Said(response, output, counts, concluded)


def _finish(asked: Asked, delivery: Delivery, answer: Answer, said: _Said) -> Flow[Answer | None]:
    """Commit an answer, then hand it over; None where its id belongs to another conversation."""
    call, key, response = asked.wire.call, asked.turn.key, said.response
    status, recovery = response.get("status"), _told(asked, delivery, response)
    if status in UNFINISHED and response.get("id"):
        noted = yield from end(key, _in_the_background(asked, answer.body, response, recovery))
        if noted == "stored":
            yield from _after(asked, recovery)
        return marked(answer, recovery, stored=noted == "stored")
    if status in NO_ANSWER:
        yield from Fail(call.tenant, key, "failed", f"response {status}")
        return answer
    stored = yield from end(key, _completion(asked, delivery, answer.body, said, recovery))
    if stored == "taken":
        return None
    if stored == "not stored":
        return marked(answer, recovery, stored=False)
    yield from _after(asked, recovery)
    warned = yield from _warned(asked, delivery, said)
    return marked(answer, warned or recovery)


def _in_the_background(
    asked: Asked,
    body: bytes,
    response: dict[str, Any],
    recovery: Recovery | None,
    partial: list[dict[str, Any]] | None = None,
) -> Underway:
    """Return the operation that notes a response which will be answered later."""
    return Underway(
        tenant=asked.wire.call.tenant,
        upstream=asked.wire.call.upstream,
        turn=asked.turn.key,
        response_id=response["id"],
        body=body,
        partial=item_forms.new_items(partial or []),
        recovery=recovery,
        lost=recovery.lost_handle if recovery else None,
    )


def _warned(asked: Asked, delivery: Delivery, said: _Said) -> Flow[Recovery | None]:
    """Tell of an answer that passes although it was made without the history."""
    key = asked.turn.key
    if not said.concluded.forgot:
        return None
    replica = replace(asked.turn.replica, handle=delivery.handle)
    return (yield from warn(asked.wire, key.conversation, key.turn_id, replica))


def _told(asked: Asked, delivery: Delivery, response: dict[str, Any]) -> Recovery | None:
    """Return the recovery as the caller is told of it."""
    recovery = delivery.recovery
    if recovery is None:
        return None
    new_handle = recovery.new_handle or response.get("id")
    return replace(recovery, requests=asked.wire.requests, new_handle=new_handle)


def _completion(
    asked: Asked, delivery: Delivery, body: bytes, said: _Said, recovery: Recovery | None
) -> Complete:
    response = said.response
    response_id = response.get("id")
    return Complete(
        tenant=asked.wire.call.tenant,
        upstream=asked.wire.call.upstream,
        dialect=asked.dialect,
        turn=asked.turn.key,
        status=200,
        body=body,
        content_type="application/json",
        items=shared_out(item_forms.new_items(said.output), said.counts.visible_tokens),
        response_id=response_id,
        head=response_id if asked.dialect == "responses" else None,
        model=said.counts.model,
        input_tokens=said.counts.input_tokens,
        primed=delivery.replica.generation if delivery.replica else None,
        remembered=said.concluded.remembered,
        recovery=recovery,
        lost=recovery.lost_handle if recovery else None,
        forgot=delivery.handle if said.concluded.given_up else None,
    )


def _after(asked: Asked, recovery: Recovery | None) -> Flow[None]:
    """Tell of a recovery; see to it that the history of a handle first seen today is copied."""
    if recovery is not None:
        yield from Report(recovery)
    yield from take_up(asked.wire.call, asked.dialect, asked.turn)


def _goes_on(asked: Asked, delivery: Delivery, reader: ResponseReader) -> Flow[bool]:
    """Note a response that goes on without its reader, who may come back; whether it does."""
    begun = reader.response
    if asked.body.members.get("background") is not True or not begun.get("id"):
        return False
    recovery, body = _told(asked, delivery, begun), item_forms.dumps(begun).encode()
    yield from _in_the_background(asked, body, begun, recovery, reader.partial())
    yield from _after(asked, recovery)
    return True


def _broken_off(asked: Asked, reader: ResponseReader, reason: str, *, unknown: bool) -> Flow[None]:
    """End a turn whose stream did not come to its end; keep what was shown.

    A chain simply lacks the turn that was cut; what a conversation holds cannot be told, unless the
    provider itself has said that the response failed.
    """
    state: Literal["failed", "unknown"] = "failed"
    if unknown and asked.dialect != "responses":
        state = "unknown"
    partial = item_forms.new_items(reader.partial())
    yield from Fail(asked.wire.call.tenant, asked.turn.key, state, reason, partial=partial)


def _finish_stream(asked: Asked, delivery: Delivery, opening: Opening) -> Flow[Answer]:
    """Pass a stream on; the turn is answered by its terminal event, before that is passed."""
    reader = opening.reader
    assert isinstance(reader, ResponseReader)
    tenant, key = asked.wire.call.tenant, asked.turn.key
    told: list[str | None] = []

    def ended() -> Flow[None]:
        if reader.fault is not None or not is_response(reader.response):
            yield from _broken_off(asked, reader, "response failed", unknown=not reader.failed)
            return
        recovery = _told(asked, delivery, reader.response)
        body = item_forms.dumps(reader.response).encode()
        said = _said(asked, delivery, reader.response, reader.items)
        stored = yield from end(key, _completion(asked, delivery, body, said, recovery))
        if stored == "taken":  # its events have been seen: it cannot be made again
            yield from Fail(tenant, key, "failed", "id issued twice")
        if stored == "not stored":
            told.append(member(recovery, stored=False))
        if stored == "stored":
            yield from _after(asked, recovery)
            told.append(member((yield from _warned(asked, delivery, said)) or recovery))

    def cut(reason: str) -> Flow[None]:
        if not (yield from _goes_on(asked, delivery, reader)):
            yield from _broken_off(asked, reader, reason, unknown=True)

    def note() -> str | None:
        return told[0] if told else member(_told(asked, delivery, reader.response))

    head = opening.answer
    begun = _told(asked, delivery, reader.response)
    if begun is not None:
        head = head.edited(headers=begun.as_headers())
    return (yield from pass_stream(head, opening, ended=ended, cut=cut, note=note))
