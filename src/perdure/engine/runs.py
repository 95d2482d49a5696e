"""Runs: reading one that was begun earlier, beginning one anew, and threads made with a run."""

from __future__ import annotations

import json
from typing import Any

from perdure.dialects import items as item_forms
from perdure.dialects.body import Body, read_body
from perdure.dialects.streams import RunReader
from perdure.engine.ending import end, kept
from perdure.engine.known_run import known_run
from perdure.engine.messages import thread_items
from perdure.engine.ops import Answer, BindNew, Find, Found, Underway
from perdure.engine.streaming import Loss as StreamLoss
from perdure.engine.streaming import open_stream, pass_stream, pass_through
from perdure.engine.telling import marked, member
from perdure.engine.threads import end_of_stream, live_path
from perdure.engine.turns import Turn, accept
from perdure.engine.wire import Call, Created, Wire
from perdure.flow import Flow
from perdure.model import Replica, TurnKey


def read_run(wire: Wire, found: Found) -> Flow[Answer]:
    """Carry out GET, submit or cancel of a run: from the journal, the provider, or begun again."""
    call = wire.call
    run_id = call.route.child or ""
    run_found = yield from Find(call.tenant, call.upstream, run_id)
    if run_found is None or run_found.turn is None:
        answer = yield from _run_request(wire, found.replica, run_id)
        return (yield from pass_through(answer))
    turn = run_found.turn
    while run_found.replaced_by is not None:
        run_id = run_found.replaced_by
        newer = yield from Find(call.tenant, call.upstream, run_id)
        if newer is None:
            break
        run_found = newer
    request = _run_request(wire, found.replica, run_id)
    answer = yield from known_run(wire, found, run_found, run_id, request)
    if answer.stream is not None:
        return (yield from _pass_submitted(wire, turn, answer))
    return answer


def _run_request(wire: Wire, replica: Replica, run_id: str) -> Flow[Answer]:
    call = wire.call
    path = live_path(call, replica.handle).replace(f"/{call.route.child}", f"/{run_id}", 1)
    return (yield from wire.send(call.content, path=path, stream=_wants_stream(call)))


def _pass_submitted(wire: Wire, turn: TurnKey, answer: Answer) -> Flow[Answer]:
    """Pass the stream of a run that goes on with tool outputs; its end enters the log."""
    opened = yield from open_stream(wire, answer, RunReader(), may_be_lost=False)
    assert not isinstance(opened, StreamLoss)
    reader = opened.reader
    assert isinstance(reader, RunReader)

    stored = [True]

    def ended() -> Flow[None]:
        if reader.response.get("id") is not None:
            ending = end_of_stream(wire.call, turn, reader)
            stored[0] = (yield from end(turn, ending)) == "stored"

    def cut(_reason: str) -> Flow[None]:
        """Do nothing: the run goes on at the provider, and is read later."""
        yield from ()

    def note() -> str | None:
        return member(None, stored=stored[0])

    return (yield from pass_stream(answer, opened, ended=ended, cut=cut, note=note))


def _wants_stream(call: Call) -> bool:
    if not call.content:
        return False
    return read_body(call.content).members.get("stream") is True


def create_run(wire: Wire) -> Flow[Answer]:
    """Carry out POST /threads/runs: a new thread with its first messages, and a run on it."""
    call = wire.call
    body = read_body(call.content)
    send = wire.send(call.content, stream=body.members.get("stream") is True)
    created = yield from wire.creating("threads", 0, send)
    answer = created.answer
    messages = (body.members.get("thread") or {}).get("messages") or []
    if answer.stream is not None:
        return (yield from _pass_created(wire, body, messages, created))
    if not answer.ok:
        return answer
    run_object = json.loads(answer.body)

    def entering() -> Flow[None]:
        thread = str(run_object["thread_id"])
        shown = _thread_of(body, thread, run_object)
        turn = yield from _entered(wire, body, messages, thread, shown, created.intent)
        if turn is not None:
            yield from Underway(
                call.tenant, call.upstream, turn.key, str(run_object["id"]), answer.body
            )

    return marked(answer, None, stored=(yield from kept(entering())))


def _thread_of(body: Body, thread: str, run_object: dict[str, Any]) -> bytes:
    """Return a thread's own object, of which the answer to a run shows only the id."""
    sent = body.members.get("thread") or {}
    shown = {
        "id": thread,
        "object": "thread",
        "created_at": run_object.get("created_at"),
        "metadata": sent.get("metadata") or {},
        "tool_resources": sent.get("tool_resources") or {},
    }
    return item_forms.dumps(shown).encode()


def _pass_created(
    wire: Wire, body: Body, messages: list[dict[str, Any]], created: Created
) -> Flow[Answer]:
    """Pass the stream of a thread and its first run; both are entered when the run has ended."""
    opened = yield from open_stream(wire, created.answer, RunReader(), may_be_lost=False)
    assert not isinstance(opened, StreamLoss)
    reader = opened.reader
    assert isinstance(reader, RunReader)
    stored = [True]

    def entering() -> Flow[None]:
        thread = reader.response.get("thread_id")
        if thread is None:
            return
        shown = item_forms.dumps(reader.thread).encode() if reader.thread else b""
        turn = yield from _entered(wire, body, messages, str(thread), shown, created.intent)
        if turn is not None:
            yield from end_of_stream(wire.call, turn.key, reader)

    def ended() -> Flow[None]:
        stored[0] = yield from kept(entering())

    def cut(_reason: str) -> Flow[None]:
        yield from entering()

    def note() -> str | None:
        return member(None, stored=stored[0])

    return (yield from pass_stream(created.answer, opened, ended=ended, cut=cut, note=note))


def _entered(
    wire: Wire, body: Body, messages: list[dict[str, Any]], thread: str, shown: bytes, intent: str
) -> Flow[Turn | None]:
    """Enter a thread that was created together with a run, and the run's turn."""
    call = wire.call
    yield from BindNew(
        tenant=call.tenant,
        upstream=call.upstream,
        dialect="threads",
        handle=thread,
        items=thread_items(messages),
        body=shown,
        intent=intent,
        subject=call.subject,
    )
    request = {key: value for key, value in body.members.items() if key not in {"thread", "stream"}}
    turn = yield from accept(
        wire,
        dialect="threads",
        kind="run",
        handle=thread,
        items=(),
        request=item_forms.dumps(request),
    )
    return turn if isinstance(turn, Turn) else None
