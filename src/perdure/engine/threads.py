"""Threads: messages that open a turn, runs that answer it, and runs that outlive their thread."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from perdure.dialects import items as item_forms
from perdure.dialects.body import Body, read_body
from perdure.dialects.messages import from_thread_message
from perdure.dialects.streams import RunReader
from perdure.dialects.verdicts import Judgement
from perdure.engine.adopt import take_up
from perdure.engine.collapse import collapse_of, give_up
from perdure.engine.ops import (
    Answer,
    Complete,
    Fail,
    Find,
    Learn,
    MarkLost,
    Page,
    SendFailed,
    Underway,
)
from perdure.engine.rebuild import Loss, NotRebuilt, loss_before_sending, rebuild
from perdure.engine.streaming import Opening, attempt, pass_stream
from perdure.engine.telling import marked, member
from perdure.engine.turns import Turn, accept, settle_failure
from perdure.engine.wire import Call, Wire, retired
from perdure.flow import Flow
from perdure.model import NewItem, Recovery, Replica, StoredItem, TurnKey, TurnKind, value

ENDED: Final = {"completed", "incomplete", "failed", "cancelled", "expired"}
_PAGE: Final = 100
_NEWEST: Final = 20
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
    yield from _catch_up(wire)
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
        yield from Complete(
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
        yield from take_up(wire.call, "threads", turn)
        return answer if recovery is None else marked(answer, recovery)


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
        yield from Underway(
            wire.call.tenant, wire.call.upstream, turn.key, str(started.get("id")), answer.body
        )
        if recovery is not None:
            return marked(answer, recovery)
        return answer


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
    yield from Fail(tenant, turn.key, "failed", reason, withdrawn=True)
    return retired(answer) if judgement.retired else answer


def live_path(call: Call, handle: str | None) -> str:
    """Return the call's path with the live thread in place of the one that the app named."""
    old = call.route.handle or ""
    return call.path if handle == old else call.path.replace(f"/{old}", f"/{handle}", 1)


def _catch_up(wire: Wire) -> Flow[None]:
    """Read the messages of a run that the app has not read: the only extra healthy call.

    Before the turn is accepted, so that the log keeps the order in which things were said.
    """
    call = wire.call
    found = yield from Find(call.tenant, call.upstream, call.route.handle or "")
    if found is None or found.foreign or found.unread is None:
        return
    if found.replica.state != "live" or found.replica.dialect != "threads":
        return
    try:
        judgement = yield from read_unread(wire, found.conversation, found.replica, found.unread)
    except SendFailed:
        return  # the message is worth more than the reply before it: it is journalled now
    if judgement.verdict == "gone" and found.replica.handle is not None:
        yield from MarkLost(call.tenant, call.upstream, found.replica.handle)


def read_unread(wire: Wire, conversation: int, replica: Replica, run_id: str) -> Flow[Judgement]:
    """Put the messages of a run into the log, from the thread's newest; costs one request.

    A run of which they do not show everything, or nothing, costs another. Where the list shows
    that the thread has collapsed, the replica is given up.
    """
    path = f"/threads/{replica.handle}/messages?order=desc&limit={_NEWEST}"
    answer = yield from wire.own("GET", path)
    judgement = yield from wire.judge(answer, "threads", replica.handle)
    if judgement.verdict != "ok":
        return judgement
    page = json.loads(answer.body)
    newest = page.get("data") or []
    messages = [message for message in reversed(newest) if message.get("run_id") == run_id]
    if not page.get("has_more"):
        told = yield from collapse_of(
            wire.call, conversation, replica, newest, requests=wire.requests
        )
        if told is not None:
            yield from give_up(wire.call, replica, told)
            if not messages:
                return judgement  # what the run has said is gone as well
    elif messages and newest[-1] is messages[0]:
        messages = []  # there may be more of them than the page has
    if not messages:
        return (yield from _read_run(wire, conversation, replica, run_id))
    yield from learn(wire.call, conversation, messages, whole=True, to_the_end=True)
    return judgement


def _read_run(wire: Wire, conversation: int, replica: Replica, run_id: str) -> Flow[Judgement]:
    """Put the messages of a run into the log, asking for just those."""
    path = f"/threads/{replica.handle}/messages?run_id={run_id}&order=asc&limit={_PAGE}"
    answer = yield from wire.own("GET", path)
    judgement = yield from wire.judge(answer, "threads", replica.handle)
    if judgement.verdict == "ok":
        messages = json.loads(answer.body).get("data") or []
        yield from learn(wire.call, conversation, messages, whole=True, to_the_end=True)
    return judgement


def learn(
    call: Call,
    conversation: int,
    messages: list[dict[str, Any]],
    *,
    whole: bool,
    to_the_end: bool = False,
) -> Flow[None]:
    """Enter messages, oldest first; what the app sent itself only gets its id now.

    ``whole``: they follow directly on what the log has; ``to_the_end``: nothing follows on them.
    """
    fresh, named = yield from _told_apart(call, conversation, messages)
    yield from Learn(call.tenant, conversation, thread_items(fresh), whole, named, to_the_end)


def _told_apart(
    call: Call, conversation: int, messages: list[dict[str, Any]]
) -> Flow[tuple[list[dict[str, Any]], tuple[tuple[int, str, str], ...]]]:
    """Return the messages that are new, and those that the app sent, by their place in the log."""
    page = yield from Page(call.tenant, conversation, newest_first=True, limit=_PAGE)
    known = {item.provider_id for item in page.items}
    unnamed = [item for item in reversed(page.items) if item.provider_id is None]
    fresh, named = [], []
    for message in messages:
        mine = None
        if message.get("id") not in known:
            mine = next((item for item in unnamed if _is_same(item, message)), None)
        if mine is None:
            fresh.append(message)
        else:
            unnamed.remove(mine)
            named.append((mine.position, str(message.get("id")), item_forms.dumps(message)))
    return fresh, tuple(named)


def _is_same(item: StoredItem, message: dict[str, Any]) -> bool:
    sent = json.loads(item.wire)
    return item.role == message.get("role") and item_forms.text_of(sent) == item_forms.text_of(
        message
    )


# -- streamed runs ---------------------------------------------------------------------------


def _pass_run(wire: Wire, turn: Turn, opening: Opening, recovery: Recovery | None) -> Flow[Answer]:
    """Pass a streamed run on; its messages and its end enter the log before its last event."""
    reader = opening.reader
    assert isinstance(reader, RunReader)
    call = wire.call

    def ended() -> Flow[None]:
        if reader.fault is not None:
            yield from Fail(call.tenant, turn.key, "failed", "run failed")
        else:
            yield from end_of_stream(call, turn.key, reader)

    def cut(reason: str) -> Flow[None]:
        run_id = reader.response.get("id")
        if run_id is not None:  # the run goes on at the provider; its messages are read later
            body = item_forms.dumps(reader.response).encode()
            yield from Underway(call.tenant, call.upstream, turn.key, str(run_id), body)
            return
        yield from Fail(call.tenant, turn.key, "unknown", reason)

    def note() -> str | None:
        return None if recovery is None else member(recovery)

    head = opening.answer
    if recovery is not None:
        head = head.edited(headers=recovery.as_headers())
    return (yield from pass_stream(head, opening, ended=ended, cut=cut, note=note))


def end_of_stream(call: Call, turn: TurnKey, reader: RunReader) -> Flow[None]:
    """Enter what a streamed run said, and its end (or that it waits for tool outputs)."""
    run_object = reader.response
    body = item_forms.dumps(run_object).encode()
    if run_object.get("status") in ENDED:
        fresh, named = yield from _told_apart(call, turn.conversation, reader.items)
        own = tuple((message_id, wire) for _, message_id, wire in named)
        ending = completion(call, turn, run_object, body, unread=False)
        yield from replace(ending, items=thread_items(fresh), own=own)
        return
    yield from learn(call, turn.conversation, reader.items, whole=True)
    run_id = str(run_object.get("id"))
    yield from Underway(call.tenant, call.upstream, turn, run_id, body)


def completion(
    call: Call, turn: TurnKey, run_object: dict[str, Any], body: bytes, *, unread: bool
) -> Complete:
    """Return the operation that gives a run's turn its answer."""
    return Complete(
        tenant=call.tenant,
        upstream=call.upstream,
        dialect="threads",
        turn=turn,
        status=200,
        body=body,
        content_type="application/json",
        items=(),
        response_id=run_object.get("id"),
        model=run_object.get("model"),
        input_tokens=(run_object.get("usage") or {}).get("prompt_tokens"),
        handle_kind="run",
        unread=unread,
    )


def thread_items(messages: Iterable[dict[str, Any]]) -> tuple[NewItem, ...]:
    """Return thread messages ready for the log."""
    return tuple(map(from_thread_message, messages))
