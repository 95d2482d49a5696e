"""Model calls that leave nothing in the log: ``store: false``, token counts, compaction.

On a handle that is known here they are recovered like any other call, except that nothing is made
for it: where the replica is lost, the whole history travels in the call's own input.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from perdure.dialects import items as item_forms
from perdure.dialects.body import Body, objects_in
from perdure.dialects.shapes import is_measure, is_response
from perdure.dialects.streams import ResponseReader
from perdure.dialects.verdicts import Judgement
from perdure.engine import amnesia
from perdure.engine import prime as primes
from perdure.engine.delivery import Delivery, told_of, young
from perdure.engine.forgetful import give_up, warn
from perdure.engine.lighter import shorter, without_files, without_ids
from perdure.engine.ops import Answer, Find, Found, MarkLost, Report
from perdure.engine.rebuild import Loss, as_named, is_retired, loss_before_sending
from perdure.engine.recollect import Next, model_of, recollect
from perdure.engine.sending import Manner, send
from perdure.engine.streaming import Opening, pass_stream, pass_through
from perdure.engine.telling import marked, member
from perdure.engine.wire import Wire, retired
from perdure.errors import ForeignTenant
from perdure.flow import Flow
from perdure.model import NO_CONVERSATION, Dialect, Reason, Recovery, Replica, ReplicaState, value


def untouched(wire: Wire, body: Body) -> Flow[Answer]:
    """Send the call as it is and pass its answer, streamed or not."""
    answer = yield from wire.send(wire.call.content, stream=body.members.get("stream") is True)
    return (yield from pass_through(answer))


def unjournalled(wire: Wire, body: Body, dialect: Dialect, handle: str | None) -> Flow[Answer]:
    """Carry out a call that adds nothing to the log; without a known handle, as it is.

    One of which the log knows nothing begins from nothing where it is gone and the policy says so.
    """
    found = None
    if handle is not None:
        found = yield from Find(wire.call.tenant, wire.call.upstream, handle)
        if found is None and wire.call.policy.on_unknown == "fresh":
            found = _unknown(dialect, handle)
    if found is None or handle is None or is_retired(found, dialect):
        return (yield from untouched(wire, body))
    if found.foreign:
        raise ForeignTenant(handle, wire.call.tenant)
    if dialect == "conversations":
        found = replace(found, replica=as_named(found.replica, dialect, handle, found.state))
    return (yield from _carried_out(_Aside(wire, body, dialect, handle, found)))


def _unknown(dialect: Dialect, handle: str) -> Found:
    """Return what is found under a handle of which the log knows nothing."""
    return Found(NO_CONVERSATION, 0, "live", 0.0, Replica("live", handle, 0, 0, 0.0, dialect))


@value
class _Aside:
    """A call that adds nothing to the log, and what its handle points to."""

    wire: Wire
    body: Body
    dialect: Dialect
    handle: str
    found: Found

    @property
    def known(self) -> bool:
        """Whether the log has something of what its handle stands for."""
        return self.found.conversation != NO_CONVERSATION

    @property
    def manner(self) -> Manner:
        """How it is sent."""
        policy, age = self.wire.call.policy, self.found.age_seconds
        stream = self.body.members.get("stream") is True
        fresh = self.known and young(policy, self.dialect, age)
        measures = self.wire.call.route.action == "measure"
        return Manner(self.dialect, stream, fresh, is_measure if measures else is_response)

    @property
    def items(self) -> tuple[dict[str, Any], ...]:
        """The app's own items."""
        return tuple(item_forms.from_input(self.body.members.get("input")))

    @property
    def raw_input(self) -> str | None:
        """The text of ``input`` as the app sent it."""
        return self.body.raw("input") if "input" in self.body.members else None

    @property
    def upcoming(self) -> Next:
        """What the history before this call is remembered for."""
        found = self.found
        through = found.position if self.dialect == "responses" else found.last_position
        return Next(found.conversation, through, self.items, model=model_of(self.body.members))

    def told(self, handle: str | None, reason: Reason, prime: primes.Prime | None) -> Recovery:
        """Return the recovery from a loss: nothing is made, so the generation stays."""
        replica = replace(self.found.replica, handle=handle)
        told = told_of(Loss(self.found.conversation, replica, reason), prime)
        return replace(told, generation=replica.generation)


def _carried_out(aside: _Aside) -> Flow[Answer]:
    """Send until an answer stands, and pass it on; once more where it was made from nothing."""
    wire, delivery = aside.wire, (yield from _first(aside))

    def renewal(last: Delivery, judgement: Judgement) -> Flow[Delivery | None]:
        return _renewed(aside, last, judgement)

    while True:
        sent = yield from send(wire, aside.manner, delivery, renewal)
        delivery, answer, judgement = sent.delivery, sent.attempt.answer, sent.attempt.judgement
        if judgement.verdict != "ok":
            yield from wire.heed(answer)
            return retired(answer) if judgement.retired else answer
        if sent.attempt.opening is not None:
            return (yield from _streamed(aside, delivery, sent.attempt.opening))
        forgot = _forgot(aside, delivery, sent.attempt.shown)
        if not forgot or wire.call.policy.on_amnesia == "warn":
            return marked(answer, (yield from _told(aside, delivery, forgot=forgot)))
        yield from _given_up(aside, delivery)
        delivery = yield from _primed(aside, "forgot")


def _first(aside: _Aside) -> Flow[Delivery]:
    """Decide what is sent first: as it is, to the living replica, or with the whole history."""
    found, call, handle = aside.found, aside.wire.call, aside.handle
    replica = found.replica
    if aside.dialect == "responses":
        state: ReplicaState = "lost" if found.state == "lost" else "live"
        age = found.age_seconds
        replica = Replica(state, handle, replica.generation, 0, age, "responses")
    loss = loss_before_sending(call, found.conversation, replica)
    if loss is not None:
        return (yield from _primed(aside, loss.reason))
    if aside.dialect == "conversations":
        if replica.generation > 0 and replica.primed_through < found.last_position:
            return (yield from _primed(aside, "known"))
        if replica.handle != handle:
            content = aside.body.changed({"conversation": json.dumps(replica.handle)})
            return Delivery(content, replica.handle)
    return Delivery(call.content, handle)


def _renewed(aside: _Aside, last: Delivery, judgement: Judgement) -> Flow[Delivery | None]:
    """Decide what is sent after a definite loss; None where it is the caller's to know of."""
    wire, call = aside.wire, aside.wire.call
    match judgement.verdict:
        case "item_gone":
            begun = aside.told(judgement.item, "gone", None)
            return (yield from without_ids(wire, last, begun))
        case "too_long" if not aside.known:
            return None
        case "too_long":
            return (yield from shorter(wire, aside.upcoming, aside.raw_input, last))
        case "file_gone":
            return without_files(last, len(aside.items), judgement.item)
    if last.rebuilt:
        return None
    if not aside.known:
        return (yield from _primed(aside, "gone"))
    if aside.manner.young:
        return (yield from _primed(aside, "not_visible"))
    yield from MarkLost(call.tenant, call.upstream, last.handle or aside.handle)
    return (yield from _primed(aside, "gone"))


def _primed(aside: _Aside, reason: Reason) -> Flow[Delivery]:
    """Put the whole history in front of the app's input, on no handle at all."""
    prime = primes.NOTHING
    if aside.known:
        prime = yield from recollect(aside.wire, aside.upcoming)
    content = aside.body.changed(
        {
            "previous_response_id": None,
            "conversation": None,
            "input": primes.joined(prime, aside.raw_input),
        }
    )
    return Delivery(content, None, aside.told(aside.handle, reason, prime), rebuilt=True)


def _forgot(aside: _Aside, delivery: Delivery, response: dict[str, Any]) -> bool:
    """Whether an answer was made without the history; one that was given it is not judged."""
    if delivery.recovery is not None or aside.wire.call.policy.on_amnesia == "off":
        return False
    return _lacks_history(aside, response, objects_in(response.get("output")))


def _lacks_history(aside: _Aside, response: dict[str, Any], output: list[dict[str, Any]]) -> bool:
    counts = amnesia.counts_of(response, output, aside.wire.call.upstream)
    return amnesia.judge(aside.found.remembered, amnesia.brought_by(aside.body), counts) == "forgot"


def _given_up(aside: _Aside, delivery: Delivery) -> Flow[None]:
    head = delivery.handle or aside.handle
    yield from give_up(aside.wire.call, aside.found.conversation, aside.dialect, head)


def _told(aside: _Aside, delivery: Delivery, *, forgot: bool) -> Flow[Recovery | None]:
    """Tell of the recovery, or that an answer passes although it was made without the history."""
    if forgot:
        replica = replace(aside.found.replica, handle=delivery.handle)
        return (yield from warn(aside.wire, aside.found.conversation, None, replica))
    if delivery.recovery is None:
        return None
    recovery = replace(delivery.recovery, requests=aside.wire.requests)
    yield from Report(recovery)
    return recovery


def _streamed(aside: _Aside, delivery: Delivery, opening: Opening) -> Flow[Answer]:
    """Pass a stream on; its events tell of a lost replica, the last one of one that forgot."""
    reader, policy = opening.reader, aside.wire.call.policy
    assert isinstance(reader, ResponseReader)
    told = delivery.recovery
    if told is not None:
        told = replace(told, requests=aside.wire.requests)
    news = [told]

    def ended() -> Flow[None]:
        if reader.fault is None:
            judged = told is None and policy.on_amnesia != "off"
            forgot = judged and _lacks_history(aside, reader.response, reader.items)
            if forgot and policy.on_amnesia == "rebuild":
                yield from _given_up(aside, delivery)
            news.append((yield from _told(aside, delivery, forgot=forgot)))

    def cut(_reason: str) -> Flow[None]:
        yield from ()

    def note() -> str | None:
        return member(news[-1])

    head = opening.answer
    if told is not None:
        head = head.edited(headers=told.as_headers())
    return (yield from pass_stream(head, opening, ended=ended, cut=cut, note=note))
