"""Threads: messages that open a turn, and runs that answer it.

A thread shows in which order things were said, and the log has to show the same. So a message is
entered when what the run before it said is in the log (`Accept` sees to that), and stands behind
whatever is learnt of the thread until the provider has taken it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from perdure.dialects import items as item_forms
from perdure.dialects.body import Body, read_body
from perdure.dialects.messages import from_thread_message
from perdure.dialects.routes import escaped
from perdure.dialects.shapes import is_object
from perdure.dialects.streams import RunReader
from perdure.dialects.verdicts import Judgement
from perdure.engine.adopt import take_up
from perdure.engine.ending import end, kept
from perdure.engine.journalled import as_message
from perdure.engine.messages import Unread, read_unread, thread_items
from perdure.engine.ops import Answer, Complete, Fail, Page, Release, SendFailed
from perdure.engine.rebuild import Behind, Loss, NotRebuilt, loss_before_sending, rebuild
from perdure.engine.streaming import Attempt, attempt
from perdure.engine.telling import marked
from perdure.engine.turns import Turn, accept, settle_failure, taken_again
from perdure.engine.underway import RunTap, note_started, pass_run
from perdure.engine.wire import JSON, Call, Wire, retired
from perdure.flow import Flow
from perdure.model import Recovery, Replica, value

_LOCK_STEP: Final = 1.0
_HANDLE, _CHILD = 2, 4  # where they stand in "/threads/{handle}/runs/{child}/cancel"


def append(wire: Wire) -> Flow[Answer]:
    """Carry out POST messages: journalled, then sent; a lost thread costs two requests more."""
    body = read_body(wire.call.content)
    item = from_thread_message(body.members)
    turn = yield from accept(
        wire,
        dialect="threads",
        kind="append",
        handle=wire.call.route.handle,
        items=(item,),
        request="{}",
    )
    return (yield from _done(wire, turn, _Append()))


def run(wire: Wire) -> Flow[Answer]:
    """Carry out POST runs, streamed or not."""
    body = read_body(wire.call.content)
    turn = yield from accept(
        wire,
        dialect="threads",
        kind="run",
        handle=wire.call.route.handle,
        items=thread_items(body.members.get("additional_messages") or ()),
        request=body.text,
    )
    return (yield from _done(wire, turn, _Run(body)))


def _done(wire: Wire, turn: Turn | Answer | None, kind: Kind) -> Flow[Answer]:
    """Carry a turn out; a call that is none goes to the provider as it is."""
    done = (yield from deliver(wire, turn, kind)) if isinstance(turn, Turn) else turn
    return done if done is not None else (yield from wire.send(wire.call.content))


# -- delivering ------------------------------------------------------------------------------


class Kind(ABC):
    """What differs between the things that are done on a thread."""

    __slots__ = ()

    @abstractmethod
    def send(self, wire: Wire, handle: str | None, *, given: bool) -> Flow[Attempt]:
        """Send it to a thread, which may have been ``given`` the turn's items already."""

    @property
    def done_when_given(self) -> bool:
        """Whether nothing has to be sent to a thread that was given the turn's items."""
        return False

    @abstractmethod
    def finish(
        self, wire: Wire, turn: Turn, on: Replica, tried: Attempt, recovery: Recovery | None
    ) -> Flow[Answer]:
        """End the turn with the provider's answer, and return what the app is told."""

    def refused(self, wire: Wire, turn: Turn, answer: Answer, judgement: Judgement) -> Flow[Answer]:
        """End a turn that the provider refused, or about which it says nothing clear."""
        tenant, reason = wire.call.tenant, judgement.rule or f"status {answer.status}"
        if judgement.verdict == "ambiguous":
            yield from Fail(tenant, turn.key, "unknown", reason)
            return answer
        yield from wire.heed(answer)
        yield from Fail(tenant, turn.key, "failed", reason, withdrawn=True)
        return retired(answer) if judgement.retired else answer


@value
class _Append(Kind):
    """A message: its answer is the message object, and ends the turn."""

    def send(self, wire: Wire, handle: str | None, *, given: bool) -> Flow[Attempt]:
        del given
        return (
            yield from attempt(
                wire,
                wire.call.content,
                reader=None,
                dialect="threads",
                handle=handle,
                shape=is_object,
                path=live_path(wire.call, handle),
            )
        )

    @property
    def done_when_given(self) -> bool:
        return True

    def finish(
        self, wire: Wire, turn: Turn, on: Replica, tried: Attempt, recovery: Recovery | None
    ) -> Flow[Answer]:
        answer, message = tried.answer, tried.shown
        completion = Complete(
            tenant=wire.call.tenant,
            upstream=wire.call.upstream,
            dialect="threads",
            turn=turn.key,
            status=answer.status,
            body=answer.body,
            content_type="application/json",
            items=(),
            primed=on.generation,
            own=((str(message.get("id")), item_forms.dumps(message)),),
            recovery=recovery,
        )
        stored = (yield from end(turn.key, completion)) == "stored"
        if stored:
            yield from take_up(wire.call, "threads", turn)
        return marked(answer, recovery, stored=stored)


@value
class _Run(Kind):
    """A run: its answer says that it is under way; its end is read later, or streamed."""

    body: Body

    def send(self, wire: Wire, handle: str | None, *, given: bool) -> Flow[Attempt]:
        content = wire.call.content
        if given:  # they stand on the thread already
            content = self.body.changed({"additional_messages": None})
        return (
            yield from attempt(
                wire,
                content,
                reader=RunReader() if self.body.members.get("stream") is True else None,
                dialect="threads",
                handle=handle,
                shape=is_object,
                path=live_path(wire.call, handle),
            )
        )

    def finish(
        self, wire: Wire, turn: Turn, on: Replica, tried: Attempt, recovery: Recovery | None
    ) -> Flow[Answer]:
        if tried.opening is not None:
            reader = tried.opening.reader
            assert isinstance(reader, RunReader)
            tap = RunTap(wire, reader, turn.key, on, incomplete=turn.accepted.incomplete)
            return (yield from pass_run(tried.opening, tap, recovery))
        stored = yield from kept(note_started(wire, turn.key, on, tried.answer.body, tried.shown))
        if stored:  # what it says is known for its own from now on
            yield from take_up(wire.call, "threads", turn)
        return marked(tried.answer, recovery, stored=stored)


def deliver(wire: Wire, turn: Turn, kind: Kind, gone: str | None = None) -> Flow[Answer | None]:
    """Carry a turn out on the thread, or on a new one where that is lost.

    ``gone`` is a thread of which the provider has just said so. A turn that had to be taken again
    may be none any more: then what :func:`~perdure.engine.turns.accept` says of it is returned.
    """
    try:
        return (yield from _attempts(wire, turn, kind, gone))
    except Behind:
        again = yield from taken_again(wire, turn)
        if not isinstance(again, Turn):
            return again
        return (yield from deliver(wire, again, kind))
    except NotRebuilt as refused:
        yield from Fail(wire.call.tenant, turn.key, "failed", "not rebuilt")
        return refused.answer
    except SendFailed as failure:
        yield from settle_failure(wire, turn, failure)
        failure.raise_cause()


def _attempts(wire: Wire, turn: Turn, kind: Kind, gone: str | None) -> Flow[Answer]:
    """Send until an answer stands: waiting where that helps, rebuilding once."""
    call, replica = wire.call, turn.replica
    recovery: Recovery | None = None
    loss = loss_before_sending(call, turn.key.conversation, replica, turn.key)
    if loss is None and gone == replica.handle:
        loss = Loss(turn.key.conversation, replica, "gone", turn.key)
    while True:
        if loss is not None:
            rebuilt = yield from rebuild(wire, loss, turn.accepted.through, following=1)
            replica, recovery, loss = rebuilt.replica, rebuilt.recovery, None
            yield from wire.hold()
        # Another worker may have created it with what this turn says: that was in the log.
        given = replica.primed_through >= _last_own(turn)
        if given and kind.done_when_given:
            return (yield from _from_log(wire, turn, kind, replica))
        tried = yield from kind.send(wire, replica.handle, given=given)
        match tried.judgement.verdict:
            case "ok":
                before = yield from _said_meanwhile(wire, turn, replica)
                if before is None:
                    return (yield from kind.finish(wire, turn, replica, tried, recovery))
                yield from _let_go(tried)
                if isinstance(before, Answer):
                    return before
                loss = before
            case "gone" if recovery is None and _repairable(call, turn):
                loss = Loss(turn.key.conversation, replica, "gone", turn.key)
            case "locked" if (yield from wire.pause(_LOCK_STEP)):
                continue
            case _:
                return (yield from kind.refused(wire, turn, tried.answer, tried.judgement))


def _last_own(turn: Turn) -> int:
    """Return the position of the last of a turn's own items; one without any was never given."""
    accepted = turn.accepted
    return accepted.through + accepted.accepted_items if accepted.accepted_items else 1 << 62


def _let_go(tried: Attempt) -> Flow[None]:
    """Read no further in what is not to be told."""
    if tried.opening is not None:
        yield from Release(tried.answer.stream)


def _said_meanwhile(wire: Wire, turn: Turn, on: Replica) -> Flow[Answer | Loss | None]:
    """Read what a run said that was under way when a turn was accepted.

    The thread has taken the turn, so that run has ended, between looking and sending. What it said
    stands before the turn's own items. Where it cannot be read the turn's outcome is unknown. Where
    the thread is gone by now nobody will ever read it, and what is made from it must not be told.
    """
    run_id = turn.accepted.unread
    if run_id is None or on.generation != turn.replica.generation:
        return None
    unread = Unread(run_id, ended=True)
    answer, judgement = yield from read_unread(wire, turn.key.conversation, on, unread)
    if judgement.verdict == "ok":
        return None
    if judgement.verdict == "gone":
        loss = Loss(turn.key.conversation, on, "gone", turn.key)
        return loss if _repairable(wire.call, turn) else None
    yield from Fail(wire.call.tenant, turn.key, "unknown", "what was said before was not read")
    return answer


def _from_log(wire: Wire, turn: Turn, kind: Kind, on: Replica) -> Flow[Answer]:
    """Return a message as it stands on a thread that another worker created with it."""
    page = yield from Page(wire.call.tenant, turn.key.conversation, newest_first=True, limit=100)
    own = next(item for item in page.items if item.position == _last_own(turn))
    message = as_message(own, turn.key.conversation)
    answer = Answer(200, JSON, item_forms.dumps(message).encode())
    tried = Attempt(answer, Judgement("ok"), shown=message)
    return (yield from kind.finish(wire, turn, on, tried, None))


def _repairable(call: Call, turn: Turn) -> bool:
    known = not turn.accepted.adopting or turn.op.lost is not None
    return known or call.policy.on_unknown == "fresh"


def live_path(call: Call, handle: str | None, child: str | None = None) -> str:
    """Return the call's path with the live thread in place of the one that the app named.

    ``child`` is likewise the run that there is now. What needs no other id stays as the app has
    written it.
    """
    parts, route = call.path.split("/"), call.route
    for place, named, live in ((_HANDLE, route.handle, handle), (_CHILD, route.child, child)):
        if live is not None and live != named:
            parts[place] = escaped(live)
    return "/".join(parts)
