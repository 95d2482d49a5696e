"""Threads: messages that open a turn, runs that answer it, and runs that outlive their thread."""

from __future__ import annotations

import json
from typing import Any, Final

from perdure.dialects import items as item_forms
from perdure.dialects.body import Body, read_body
from perdure.dialects.messages import from_thread_message
from perdure.dialects.streams import RunReader
from perdure.dialects.verdicts import Judgement
from perdure.engine.adopt import take_up
from perdure.engine.ending import end
from perdure.engine.messages import (
    ENDED,
    catch_up,
    completion,
    learn,
    thread_items,
)
from perdure.engine.ops import (
    Answer,
    Complete,
    Completed,
    Fail,
    SendFailed,
    Underway,
)
from perdure.engine.rebuild import Loss, NotRebuilt, loss_before_sending, rebuild
from perdure.engine.streaming import Opening, attempt, pass_stream
from perdure.engine.telling import marked, member
from perdure.engine.turns import Turn, accept, settle_failure
from perdure.engine.wire import Call, Wire, retired
from perdure.flow import Flow
from perdure.model import Recovery, TurnKey, TurnKind, value

_LOCK_STEP: Final = 1.0


def append(wire: Wire) -> Flow[Answer]:
    """Carry out POST messages: journalled, then sent; a lost thread costs two requests more."""
    body = read_body(wire.call.content)
    item = from_thread_message(body.members)
    turn = yield from _accepted(wire, "append", (item,), "{}")
    if not isinstance(turn, Turn):
        return turn if turn is not None else (yield from wire.send(wire.call.content))
    return (yield from _deliver(wire, turn, _Append()))


def run(wire: Wire) -> Flow[Answer]:
    """Carry out POST runs, streamed or not."""
    body = read_body(wire.call.content)
    extra = body.members.get("additional_messages") or ()
    items = thread_items(extra)
    turn = yield from _accepted(wire, "run", items, body.text)
    if not isinstance(turn, Turn):
        return turn if turn is not None else (yield from wire.send(wire.call.content))
    return (yield from _deliver(wire, turn, _Run(body)))


def _accepted(
    wire: Wire, kind: TurnKind, items: tuple[Any, ...], request: str
) -> Flow[Turn | Answer | None]:
    yield from catch_up(wire)
    return (
        yield from accept(
            wire,
            dialect="threads",
            kind=kind,
            handle=wire.call.route.handle,
            items=items,
            request=request,
        )
    )


# -- delivering ------------------------------------------------------------------------------


@value
class _Append:
    """A message: its answer is the message object, and ends the turn."""

    stream: bool = False

    def finish(
        self, wire: Wire, turn: Turn, answer: Answer, recovery: Recovery | None
    ) -> Flow[Answer]:
        message = json.loads(answer.body)
        completion = Complete(
            tenant=wire.call.tenant,
            upstream=wire.call.upstream,
            dialect="threads",
            turn=turn.key,
            status=answer.status,
            body=answer.body,
            content_type="application/json",
            items=(),
            own=((str(message.get("id")), answer.body.decode()),),
            recovery=recovery,
        )
        stored = (yield from end(turn.key, completion)) == "stored"
        if stored:
            yield from take_up(wire.call, "threads", turn)
        return marked(answer, recovery, stored=stored)


@value
class _Run:
    """A run: its answer says that it is under way; its end is read later, or streamed."""

    body: Body

    @property
    def stream(self) -> bool:
        return self.body.members.get("stream") is True

    def finish(
        self, wire: Wire, turn: Turn, answer: Answer, recovery: Recovery | None
    ) -> Flow[Answer]:
        started = json.loads(answer.body)
        noted = Underway(
            wire.call.tenant, wire.call.upstream, turn.key, str(started.get("id")), answer.body
        )
        return marked(answer, recovery, stored=(yield from end(turn.key, noted)) == "stored")


def _deliver(wire: Wire, turn: Turn, kind: _Append | _Run) -> Flow[Answer]:
    try:
        return (yield from _attempts(wire, turn, kind))
    except NotRebuilt as refused:
        yield from Fail(wire.call.tenant, turn.key, "failed", "not rebuilt")
        return refused.answer
    except SendFailed as failure:
        yield from settle_failure(wire, turn, failure)
        failure.raise_cause()


def _attempts(wire: Wire, turn: Turn, kind: _Append | _Run) -> Flow[Answer]:
    """Send until an answer stands: waiting where that helps, rebuilding once."""
    call, replica = wire.call, turn.replica
    recovery: Recovery | None = None
    loss = loss_before_sending(call, turn.key.conversation, replica, turn.key)
    while True:
        if loss is not None:
            rebuilt = yield from rebuild(wire, loss, turn.accepted.through, following=1)
            replica, recovery, loss = rebuilt.replica, rebuilt.recovery, None
            yield from wire.hold()
        tried = yield from attempt(
            wire,
            call.content,
            reader=RunReader() if kind.stream else None,
            dialect="threads",
            handle=replica.handle,
            path=live_path(call, replica.handle),
        )
        match tried.judgement.verdict:
            case "ok" if tried.opening is not None:
                return (yield from _pass_run(wire, turn, tried.opening, recovery))
            case "ok":
                return (yield from kind.finish(wire, turn, tried.answer, recovery))
            case "gone" if recovery is None and _repairable(call, turn):
                loss = Loss(turn.key.conversation, replica, "gone", turn.key)
            case "locked" if (yield from wire.pause(_LOCK_STEP)):
                continue
            case _:
                return (yield from _refused(wire, turn, tried.answer, tried.judgement))


def _repairable(call: Call, turn: Turn) -> bool:
    return not turn.accepted.adopting or call.policy.on_unknown == "fresh"


def _refused(wire: Wire, turn: Turn, answer: Answer, judgement: Judgement) -> Flow[Answer]:
    tenant, reason = wire.call.tenant, judgement.rule or f"status {answer.status}"
    if judgement.verdict == "ambiguous":
        yield from Fail(tenant, turn.key, "unknown", reason)
        return answer
    yield from wire.heed(answer)
    yield from Fail(tenant, turn.key, "failed", reason, withdrawn=True)
    return retired(answer) if judgement.retired else answer


def live_path(call: Call, handle: str | None) -> str:
    """Return the call's path with the live thread in place of the one that the app named."""
    old = call.route.handle or ""
    return call.path if handle == old else call.path.replace(f"/{old}", f"/{handle}", 1)


# -- streamed runs ---------------------------------------------------------------------------


def _pass_run(wire: Wire, turn: Turn, opening: Opening, recovery: Recovery | None) -> Flow[Answer]:
    """Pass a streamed run on; its messages and its end enter the log before its last event."""
    reader = opening.reader
    assert isinstance(reader, RunReader)
    call = wire.call
    stored = [True]

    def ended() -> Flow[None]:
        if reader.fault is not None:
            yield from Fail(call.tenant, turn.key, "failed", "run failed")
            return
        ending = end_of_stream(call, turn.key, reader)
        stored[0] = (yield from end(turn.key, ending)) == "stored"

    def cut(reason: str) -> Flow[None]:
        run_id = reader.response.get("id")
        if run_id is not None:  # the run goes on at the provider; its messages are read later
            body = item_forms.dumps(reader.response).encode()
            yield from Underway(call.tenant, call.upstream, turn.key, str(run_id), body)
            return
        yield from Fail(call.tenant, turn.key, "unknown", reason)

    def note() -> str | None:
        return member(recovery, stored=stored[0])

    head = opening.answer
    if recovery is not None:
        head = head.edited(headers=recovery.as_headers())
    return (yield from pass_stream(head, opening, ended=ended, cut=cut, note=note))


def end_of_stream(call: Call, turn: TurnKey, reader: RunReader) -> Flow[Completed | bool]:
    """Enter the end of a streamed run (or that it waits for tool outputs), and what it said.

    In this order: an end is entered once, by one worker, and whoever else has seen what was said
    enters it once as well.
    """
    run_object = reader.response
    body = item_forms.dumps(run_object).encode()
    run_id = str(run_object.get("id"))
    ended: Completed | bool
    if run_object.get("status") in ENDED:
        ended = yield from completion(call, turn, run_object, body, unread=bool(reader.items))
    else:
        ended = yield from Underway(call.tenant, call.upstream, turn, run_id, body)
    if ended in {"done", True}:
        yield from learn(call, turn.conversation, reader.items, run_id)
    return ended
