"""What is sent for a turn on ``/responses``: the call as it is, or the history before it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from perdure.dialects import items as item_forms
from perdure.dialects import upstreams
from perdure.dialects.body import Body
from perdure.engine import prime as primes
from perdure.engine.ops import ReadRecovery
from perdure.engine.rebuild import Loss, loss_before_sending, rebuild
from perdure.engine.recollect import Next, model_of, recollect
from perdure.engine.turns import Turn
from perdure.engine.wire import Wire
from perdure.flow import Flow
from perdure.model import Dialect, Policy, Reason, Recovery, Replica, value


def young(policy: Policy, dialect: Dialect, age_seconds: float) -> bool:
    """Whether a handle is a response so fresh that it may exist although it is not seen."""
    return dialect == "responses" and age_seconds < policy.visibility_age.total_seconds()


@value
class Asked:
    """One accepted model call: how it was made, on which kind of handle, as which turn."""

    wire: Wire
    body: Body
    dialect: Dialect
    turn: Turn

    @property
    def stream(self) -> bool:
        """Whether the app wants events."""
        return self.body.members.get("stream") is True

    @property
    def young(self) -> bool:
        """Whether the handle is a response so fresh that it may exist although it is not seen."""
        accepted = self.turn.accepted
        age = accepted.handle_age_seconds
        return not accepted.adopting and young(self.wire.call.policy, self.dialect, age)

    @property
    def raw_input(self) -> str | None:
        """The text of ``input`` as the app sent it, without what the log has already."""
        if self.turn.accepted.known_items:
            return item_forms.dumps(self.own_items)
        return self.body.raw("input") if "input" in self.body.members else None

    @property
    def upcoming(self) -> Next:
        """What the history before this turn is remembered for."""
        turn, model = self.turn, model_of(self.body.members)
        through = turn.accepted.through
        return Next(turn.key.conversation, through, tuple(self.own_items), model=model)

    @property
    def own_items(self) -> list[dict[str, Any]]:
        """The items of ``input`` that are new to the log."""
        sent = item_forms.from_input(self.body.members.get("input"))
        return sent[self.turn.accepted.known_items :]

    def lost(self, replica: Replica, reason: Reason) -> Loss:
        """Return the loss of a replica met by this turn."""
        return Loss(self.turn.key.conversation, replica, reason, self.turn.key)


@value
class Delivery:
    """What is sent: the body, the handle in it, and the recovery if it carries a prime.

    ``rebuilt``: this call itself has made the replica, so a loss of it is not repaired again; one
    that another worker made is.
    ``halved``: it was too long for the model with a whole prime.
    """

    content: bytes
    handle: str | None
    recovery: Recovery | None = None
    replica: Replica | None = None
    rebuilt: bool = False
    halved: bool = False


def first_delivery(asked: Asked) -> Flow[Delivery]:
    """Decide what is sent first, from what is known before anything is."""
    if asked.dialect == "conversations":
        turn = asked.turn
        loss = loss_before_sending(asked.wire.call, turn.key.conversation, turn.replica, turn.key)
        if loss is not None:
            return (yield from _on_new_conversation(asked, loss))
        return (yield from _on_conversation(asked, turn.replica))
    if asked.turn.handle is not None:
        return (yield from _from_response(asked, asked.turn.handle, as_sent=True))
    return (yield from _from_head(asked))


def next_delivery(asked: Asked, last: Delivery, reason: Reason) -> Flow[Delivery]:
    """Decide what is sent after the provider said that the handle is dead."""
    known = last.replica or asked.turn.replica
    loss = asked.lost(replace(known, dialect=asked.dialect, handle=last.handle), reason)
    if asked.dialect == "responses":
        return (yield from _with_history(asked, loss))
    return (yield from _on_new_conversation(asked, loss))


def told_of(loss: Loss, prime: primes.Prime | None = None) -> Recovery:
    """Return the recovery from a loss by what is sent along: a prime, or only the app's own."""
    return Recovery(
        conversation=loss.conversation,
        turn_id=loss.turn_id,
        reason=loss.reason,
        generation=loss.replica.generation + 1,
        lost_handle=loss.replica.handle,
        new_handle=None,
        memory="full" if prime is None else prime.memory,
        primed=0 if prime is None else prime.primed,
        left_out=0 if prime is None else prime.left_out,
        requests=0,
    )


# -- responses -------------------------------------------------------------------------------


def _from_head(asked: Asked) -> Flow[Delivery]:
    """Continue a subject's conversation, whose handle the app does not hold."""
    turn, call = asked.turn, asked.wire.call
    if call.subject is None or turn.accepted.through == 0:
        return Delivery(call.content, None)
    if turn.replica.dialect != "responses" or turn.replica.handle is None:
        return (yield from _with_history(asked, asked.lost(turn.replica, "absent")))
    return (yield from _from_response(asked, turn.replica.handle, as_sent=False))


def _from_response(asked: Asked, handle: str, *, as_sent: bool) -> Flow[Delivery]:
    """Continue from a response, unless it cannot be there any more."""
    turn, call = asked.turn, asked.wire.call
    kept = upstreams.retention_seconds(call.policy, call.upstream, "responses")
    if as_sent and kept is None and turn.accepted.handle_state != "lost":
        return Delivery(call.content, handle)
    replica = replace(
        turn.replica,
        dialect="responses",
        state="lost" if turn.accepted.handle_state == "lost" else "live",
        handle=handle,
        age_seconds=turn.accepted.handle_age_seconds,
    )
    loss = loss_before_sending(call, turn.key.conversation, replica, turn.key)
    if loss is not None:
        return (yield from _with_history(asked, loss))
    if as_sent:
        return Delivery(call.content, handle)
    return Delivery(asked.body.changed({"previous_response_id": json.dumps(handle)}), handle)


def _with_history(asked: Asked, loss: Loss) -> Flow[Delivery]:
    """Put the history in front of the caller's input: the new response is the new replica."""
    prime = yield from _prime(asked)
    content = asked.body.changed(
        {"previous_response_id": None, "input": primes.joined(prime, asked.raw_input)}
    )
    return Delivery(content, None, told_of(loss, prime), rebuilt=True)


# -- conversations ---------------------------------------------------------------------------


def _on_new_conversation(asked: Asked, loss: Loss) -> Flow[Delivery]:
    """Create an empty conversation and let the history travel in this call's input."""
    rebuilt = yield from rebuild(asked.wire, loss, asked.turn.accepted.through)
    delivery = yield from _on_conversation(asked, rebuilt.replica, anew=True)
    return replace(delivery, rebuilt=rebuilt.recovery is not None)


def _on_conversation(asked: Asked, replica: Replica, *, anew: bool = False) -> Flow[Delivery]:
    """Address the live conversation; give it the history if it has not been given yet."""
    turn, call = asked.turn, asked.wire.call
    changes: dict[str, str | None] = {}
    begun = recovery = None
    unprimed = replica.generation > 0 and replica.primed_through < turn.accepted.through
    prime = None
    if anew or unprimed:
        if not replica.primed_through:
            begun = yield from ReadRecovery(call.tenant, turn.key.conversation, replica.generation)
        prime = yield from _prime(asked, after=replica.primed_through)
    if prime is not None and (prime.texts or not replica.primed_through):
        changes["input"] = primes.joined(prime, asked.raw_input)
    elif turn.accepted.known_items:
        changes["input"] = asked.raw_input or "[]"
    if prime is not None and not replica.primed_through:
        recovery = _completed(turn, prime, begun, replica)
    if replica.handle != turn.handle:
        changes["conversation"] = json.dumps(replica.handle)
    content = asked.body.changed(changes) if changes else call.content
    return Delivery(content, replica.handle, recovery, replica)


def _completed(
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


def _prime(asked: Asked, after: int = 0) -> Flow[primes.Prime]:
    """Read the history before this turn; ``after``: the new replica has it up to there."""
    upcoming = replace(asked.upcoming, after=after)
    return (yield from recollect(asked.wire, upcoming))
