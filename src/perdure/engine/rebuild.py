"""Rebuilding a shared replica: a new conversation or thread in the place of a lost one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from perdure.dialects import upstreams
from perdure.dialects.routes import path_to
from perdure.dialects.shapes import is_object
from perdure.engine import prime as primes
from perdure.engine.anew import Given, create_anew, given_of
from perdure.engine.decoding import decoded
from perdure.engine.ops import Answer, Bind, Find, Found, Report, Spawn
from perdure.engine.recollect import Next, recollect
from perdure.engine.sweep import sweep_quietly
from perdure.engine.wire import Call, Wire, refusal
from perdure.errors import IssuedTwice, TurnOvertaken
from perdure.flow import Flow
from perdure.model import Dialect, Reason, Recovery, Replica, ReplicaState, TurnKey, value

_MAY_EXIST: Final = frozenset({"predicted", "broken", "not_visible", "ambiguous", "absent"})
#: How often an object is created before a provider that repeats its ids is given up.
CREATES: Final = 3


@value
class Loss:
    """A replica that has to be replaced, and why."""

    conversation: int
    replica: Replica
    reason: Reason
    turn: TurnKey | None = None

    @property
    def turn_id(self) -> str | None:
        """The turn that met the loss."""
        return None if self.turn is None else self.turn.turn_id

    @property
    def orphan(self) -> bool:
        """Whether the old object may still exist at the provider."""
        return self.replica.handle is not None and self.reason in _MAY_EXIST


@value
class Rebuilt:
    """A new replica. ``answer`` is the create's own; the loser of a race has no ``recovery``."""

    replica: Replica
    answer: Answer
    recovery: Recovery | None


class NotRebuilt(Exception):
    """The provider would not create a new replica; ``answer`` is what it said."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(answer.status)


class Behind(Exception):
    """The log has gone on while a thread was created with it: another one has to be."""


def rebuild(
    wire: Wire,
    loss: Loss,
    through: int,
    *,
    following: int = 0,
    tell: bool = False,
) -> Flow[Rebuilt]:
    """Create a new replica and bind it; raises :class:`NotRebuilt` with the provider's answer.

    Raises :class:`Behind` where what was said meanwhile is not on it.

    It gets the metadata of the old one as the app last saw it. A thread is created with its history
    up to ``through``; a conversation is created empty, its history travels in the ``input`` of the
    next call. Costs one request, and more where files are gone too (:mod:`perdure.engine.anew`);
    ``following`` counts those that the caller will send before the recovery is complete. A
    conversation's recovery is told by the turn that brings the history, and before that (``tell``)
    by a call that cannot. Where another worker was faster its replica is returned and ours becomes
    an orphan; where an item was deleted meanwhile another is created, as ours may have it.
    """
    call, old = wire.call, loss.replica
    last = yield from _last_seen(wire, loss, through)
    prime, given = last.prime, last.given

    def send(given: Given) -> Flow[Answer]:
        return wire.own("POST", path_to(old.dialect), given.body())

    for _attempt in range(CREATES):
        anew = yield from create_anew(wire, old.dialect, loss.conversation, given, send)
        answer, made = decoded(anew.created.answer, is_object)
        if not answer.ok:
            raise NotRebuilt(refusal(call, answer, old.dialect))
        prime = as_given(prime, len(given.messages) - len(anew.given.messages), anew.left_out)
        given = anew.given
        handle = str(made["id"])
        recovery = Recovery(
            conversation=loss.conversation,
            turn_id=loss.turn_id,
            reason=loss.reason,
            generation=old.generation + 1,
            lost_handle=old.handle,
            new_handle=handle,
            memory=prime.memory,
            primed=prime.primed,
            left_out=prime.left_out,
            requests=wire.requests + following,
        )
        bound = yield from Bind(
            tenant=call.tenant,
            upstream=call.upstream,
            dialect=old.dialect,
            conversation=loss.conversation,
            generation=old.generation,
            handle=handle,
            intent=anew.created.intent,
            primed_through=last.through,
            primed_from=last.since,
            turn=loss.turn,
            lost=old.handle,
            orphan=loss.orphan,
            doubtful=loss.reason == "ambiguous",
            recovery=recovery,
            body=answer.body,
        )
        if bound == "beaten":
            yield from Spawn("sweep", sweep_quietly(call.tenant, call.upstream))
            now = yield from _winner(wire, loss)
            if now.state == "live":
                return Rebuilt(now, answer, None)
            again = replace(loss, replica=now, reason="known")
            return (yield from rebuild(wire, again, through, following=following, tell=tell))
        if bound == "behind":
            yield from Spawn("sweep", sweep_quietly(call.tenant, call.upstream))
            raise Behind
        if bound == "fenced":
            raise TurnOvertaken(loss.turn_id or "")
        if bound == "bound":
            if old.dialect == "threads" or tell:
                yield from Report(recovery)
            return Rebuilt(_renewed(old, recovery, last.through), answer, recovery)
    raise IssuedTwice(handle)


@value
class _LastSeen:
    """What a new replica is created with; from where to where that has the history in it."""

    given: Given
    prime: primes.Prime
    through: int
    since: int | None = None


def _last_seen(wire: Wire, loss: Loss, through: int) -> Flow[_LastSeen]:
    """Read what the new replica is to have: the old object's own members, a thread's messages."""
    call, old = wire.call, loss.replica
    known = yield from Find(call.tenant, call.upstream, old.handle or "")
    shown = known.answer if known is not None else None
    if old.dialect != "threads":
        return _LastSeen(given_of(shown, old.dialect, []), primes.NOTHING, 0)
    upcoming = Next(loss.conversation, through, _said_next(call))
    prime = yield from recollect(wire, upcoming, thread=True)
    if known is not None and known.unread is not None and prime.memory == "full":
        prime = replace(prime, memory="partial")  # a run's reply was lost before it was read
    given = given_of(shown, old.dialect, primes.thread_messages(prime))
    since = None if known is None else known.first_position
    return _LastSeen(given, prime, prime.through, since)


def as_given(prime: primes.Prime, dropped: int, left_out: int) -> primes.Prime:
    """Return a prime's counts where files were left out, and messages that were nothing else."""
    if not left_out:
        return prime
    return replace(
        prime,
        primed=prime.primed - dropped,
        left_out=prime.left_out + left_out,
        memory="partial" if prime.memory == "full" else prime.memory,
    )


def _renewed(old: Replica, recovery: Recovery, primed_through: int) -> Replica:
    return replace(
        old,
        state="live",
        handle=recovery.new_handle,
        generation=recovery.generation,
        primed_through=primed_through,
        age_seconds=0.0,
    )


def _winner(wire: Wire, loss: Loss) -> Flow[Replica]:
    """Return the replica that there is now: another worker's, or one that is still to be replaced.

    Raises :class:`TurnOvertaken` where it is of no use: elsewhere, or without what was said
    meanwhile; and where the deadline is over.
    """
    call = wire.call
    found = yield from Find(call.tenant, call.upstream, loss.replica.handle or "")
    now = None if found is None else found.replica
    if now is not None and now.dialect == loss.replica.dialect and not now.doubtful:
        if now.state == "live":
            return now
        if now.state == "lost" and (yield from wire.left()) > 0:
            return now
    raise TurnOvertaken(loss.turn_id or f"in conversation {loss.conversation}")


def _said_next(call: Call) -> tuple[dict[str, Any], ...]:
    """Return the messages that a call on a thread brings, for which its history is recalled."""
    if call.route.action not in {"append", "run", "create_run"}:
        return ()
    members = json.loads(call.content or b"{}")
    own = (members,) if "content" in members else ()
    return (*own, *(members.get("additional_messages") or ()))


def as_named(replica: Replica, dialect: Dialect, handle: str | None, state: str) -> Replica:
    """Return a conversation's replica as the API knows it that names it by a handle.

    Where the conversation has moved to another API since, its replica is there; what the handle
    names has stayed behind, in the state that the handle is in.
    """
    if replica.dialect == dialect:
        return replica
    left: ReplicaState = "lost" if state == "lost" else "live"
    return replace(
        replica, dialect=dialect, handle=handle, state=left, primed_through=0, doubtful=False
    )


def is_retired(found: Found, dialect: Dialect) -> bool:
    """Whether what a handle leads to was deleted through us, by this id or another of its own."""
    shared = "responses" not in {dialect, found.replica.dialect}
    return found.state == "retired" or (shared and found.replica.state == "retired")


def loss_before_sending(
    call: Call, conversation: int, replica: Replica, turn: TurnKey | None = None
) -> Loss | None:
    """Return the loss of a replica that is known, or certain by age, to be dead already."""
    if replica.state == "absent":
        return Loss(conversation, replica, "absent", turn)
    if replica.doubtful:
        return Loss(conversation, replica, "ambiguous", turn)
    if replica.state == "lost":
        return Loss(conversation, replica, "known", turn)
    kept = upstreams.retention_seconds(call.policy, call.upstream, replica.dialect)
    if kept is not None and replica.age_seconds > kept:
        return Loss(conversation, replica, "predicted", turn)
    return None
