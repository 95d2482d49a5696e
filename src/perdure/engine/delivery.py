"""What is sent for a turn on ``/responses``: the call as it is, or the history before it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from perdure.dialects import items as item_forms
from perdure.dialects import upstreams
from perdure.dialects.body import Body, read_body
from perdure.dialects.tokens import message_tokens
from perdure.engine import prime as primes
from perdure.engine.ops import OneItem, ReadRecovery
from perdure.engine.rebuild import Loss, loss_before_sending, rebuild
from perdure.engine.recollect import Next, model_of, recollect
from perdure.engine.turns import Turn
from perdure.engine.wire import Wire
from perdure.flow import Flow
from perdure.model import Dialect, Reason, Recovery, Replica, value


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
        age = self.wire.call.policy.visibility_age.total_seconds()
        accepted = self.turn.accepted
        return (
            self.dialect == "responses"
            and not accepted.adopting
            and accepted.handle_age_seconds < age
        )

    @property
    def raw_input(self) -> str | None:
        """The text of ``input`` as the app sent it, without what the log has already."""
        if self.turn.accepted.known_items:
            return item_forms.dumps(self.own_items)
        return self.body.raw("input") if "input" in self.body.members else None

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


def shorter_delivery(asked: Asked, last: Delivery) -> Flow[Delivery | None]:
    """Decide what is sent after the provider said that the input is too long: half the prime.

    None where there was none, or it has been halved already: then it is the app's own input.
    """
    if last.recovery is None or last.halved:
        return None
    most = message_tokens(last.content.decode()) // 2
    prime = yield from _prime(asked, last.recovery.reason, most=most)
    recovery = replace(
        last.recovery, memory=prime.memory, primed=prime.primed, left_out=prime.left_out
    )
    shorter = primes.joined(prime, asked.raw_input)
    content = read_body(last.content).changed({"input": shorter})
    return replace(last, content=content, recovery=recovery, halved=True)


def delivery_without_ids(asked: Asked, last: Delivery, item_id: str) -> Flow[Delivery | None]:
    """Decide what is sent after the provider said that an item is gone which the input names.

    The app sent the items themselves, so they go again in forms that need nothing stored; one
    that it only referred to comes from the journal. None where the id was never seen here, or
    where nothing is left to take out.
    """
    call = asked.wire.call
    known = yield from OneItem(call.tenant, None, item_id)
    if known is None and call.policy.on_unknown == "error":
        return None
    body = read_body(last.content)
    sent = item_forms.from_input(body.members.get("input"))
    wires = list(sent)
    for number, wire in enumerate(sent):
        if wire.get("type") == "item_reference":
            stored = yield from OneItem(call.tenant, None, str(wire.get("id")))
            wires[number] = wire if stored is None else json.loads(stored.wire)
    unknown = any(wire.get("type") == "item_reference" for wire in wires)
    kept, left_out = item_forms.without_ids(wires, whole=last.handle is None)
    if kept == sent:
        return None
    content = body.changed({"input": item_forms.dumps(kept)})
    if last.handle is not None:  # the replica lives and has the history
        return replace(last, content=content)
    recovery = last.recovery or Recovery(
        conversation=asked.turn.key.conversation,
        turn_id=asked.turn.key.turn_id,
        reason="gone",
        generation=asked.turn.replica.generation + 1,
        lost_handle=item_id,
        new_handle=None,
        memory="full",
        primed=0,
        left_out=0,
        requests=0,
    )
    recovery = replace(
        recovery,
        left_out=recovery.left_out + left_out,
        memory="partial" if unknown else recovery.memory,
    )
    return replace(last, content=content, recovery=recovery)


def delivery_without_files(asked: Asked, last: Delivery, file_id: str | None) -> Delivery | None:
    """Decide what is sent after the provider said that a file is gone which the history names.

    None where the history was not sent along, or names no such file: it is the app's own then.
    Without a ``file_id`` it is not known which file it is.
    """
    recovery = last.recovery
    if recovery is None:
        return None
    body = read_body(last.content)
    sent = item_forms.from_input(body.members.get("input"))
    primed = len(sent) - len(asked.own_items)

    def gone(one: str) -> bool:
        return file_id is None or one == file_id

    kept, left_out = item_forms.without_files(sent[:primed], gone)
    if not left_out:
        return None
    return replace(
        last,
        content=body.changed({"input": item_forms.dumps([*kept, *sent[primed:]])}),
        recovery=replace(
            recovery,
            primed=recovery.primed - (primed - len(kept)),
            left_out=recovery.left_out + left_out,
            memory="partial" if recovery.memory == "full" else recovery.memory,
        ),
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
    prime = yield from _prime(asked, loss.reason)
    recovery = Recovery(
        conversation=loss.conversation,
        turn_id=loss.turn_id,
        reason=loss.reason,
        generation=loss.replica.generation + 1,
        lost_handle=loss.replica.handle,
        new_handle=None,
        memory=prime.memory,
        primed=prime.primed,
        left_out=prime.left_out,
        requests=0,
    )
    content = asked.body.changed(
        {"previous_response_id": None, "input": primes.joined(prime, asked.raw_input)}
    )
    return Delivery(content, None, recovery, rebuilt=True)


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
        reason = begun.reason if begun is not None else "absent"
        prime = yield from _prime(asked, reason, after=replica.primed_through)
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


def _prime(
    asked: Asked, reason: Reason, after: int = 0, most: int | None = None
) -> Flow[primes.Prime]:
    """Read the history before this turn; ``after``: the new replica has it up to there."""
    turn = asked.turn
    through = turn.accepted.through
    model = model_of(asked.body.members)
    own, moved = tuple(asked.own_items), reason == "absent"
    upcoming = Next(turn.key.conversation, through, own, after, model, moved)
    return (yield from recollect(asked.wire, upcoming, most=most))
