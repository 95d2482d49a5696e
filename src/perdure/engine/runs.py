"""Runs: reading one that was begun earlier, and threads that are made with a run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from perdure.dialects import items as item_forms
from perdure.dialects.body import Body, object_in, read_body
from perdure.dialects.shapes import is_object
from perdure.dialects.streams import RunReader
from perdure.engine.begun_again import went_on
from perdure.engine.ending import kept
from perdure.engine.messages import (
    WAITS,
    as_seen,
    calls_of,
    newest_run,
    note_run,
    now_shown,
    thread_items,
)
from perdure.engine.ops import Answer, BindNew, Find, Found
from perdure.engine.rebuild import loss_before_sending
from perdure.engine.replaying import replayed, retold, run_now
from perdure.engine.streaming import Loss, open_stream, pass_through
from perdure.engine.telling import marked
from perdure.engine.threads import live_path, run
from perdure.engine.turns import Turn, accept
from perdure.engine.underway import RunTap, note_started, pass_run
from perdure.engine.wire import JSON, Call, Created, Wire
from perdure.errors import TurnUnderway
from perdure.flow import Flow
from perdure.model import Replica, StoredAnswer, TurnKey

_REFUSED: Final = 400
_DONE: Final = "completed"


def begin_run(wire: Wire) -> Flow[Answer]:
    """Carry out POST runs; one that was begun before and lost since is begun again first."""
    while True:
        try:
            return (yield from run(wire))
        except TurnUnderway as underway:
            call = wire.call
            run_id, run_found = yield from newest_run(call, underway.remote_id)
            if run_found is None or run_found.turn is None or (yield from wire.left()) <= 0:
                raise
            if is_on_its_thread(wire.call, run_found, run_found.replica):
                raise
            asks = as_seen(run_found).get("status") == WAITS
            again = yield from went_on(wire, run_found, run_id, None, asks=asks)
            if not again.ok:
                return again


def is_on_its_thread(call: Call, run_found: Found, replica: Replica) -> bool:
    """Whether a run is where it was begun, as far as is known; doubt is about what came later."""
    loss = loss_before_sending(call, run_found.conversation, replica)
    lost = loss is not None and loss.reason != "ambiguous"
    return not lost and as_seen(run_found).get("thread_id") == replica.handle


def read_run(wire: Wire, found: Found) -> Flow[Answer]:
    """Carry out GET, submit or cancel of a run: from the journal, the provider, or started anew."""
    call = wire.call
    run_id, run_found = yield from newest_run(call, call.route.child or "")
    if run_found is None or run_found.turn is None:
        answer = yield from run_request(wire, found.replica, run_id)
        return (yield from pass_through(answer))
    # Where the conversation has moved to another API since, the run has stayed behind.
    moved = run_found.replica.dialect != "threads"
    replica, stored = (found if moved else run_found).replica, run_found.answer
    if run_found.ended and replica.generation > 0 and stored is not None:
        return (yield from _as_asked(wire, run_found.turn, Answer(200, JSON, stored.body)))
    gone, lives = None, is_on_its_thread(call, run_found, replica)
    given, asked = _calls_answered(call), as_seen(run_found).get("status") == WAITS
    noted = yield from _note_submitting(call, run_found, run_found.turn, given, here=lives)
    if lives:
        here = replace(run_found, replica=replica)
        answered = yield from _on_its_thread(wire, here, run_found.turn, run_id, given)
        if answered is not None:
            before = run_found.ended if not noted else not asked
            if given and before and answered.status == _REFUSED:
                return (yield from _given_before(wire, run_id, given)) or answered
            return answered
        gone = replica.handle
    if run_found.ended and stored is not None:
        return (yield from _as_asked(wire, run_found.turn, Answer(200, JSON, stored.body)))
    asks = not noted and (asked or _is_empty(call, given))
    again = yield from went_on(wire, run_found, run_id, gone, asks=asks)
    return (yield from _as_asked(wire, run_found.turn, again))


def _as_asked(wire: Wire, turn: TurnKey, answer: Answer) -> Flow[Answer]:
    """Return a run that was not streamed as the events for which the app sent its outputs."""
    streamed = wire.call.route.action == "submit" and _wants_stream(wire.call)
    return (yield from retold(wire, turn, answer)) if streamed else answer


def _given_before(wire: Wire, run_id: str, given: str) -> Flow[Answer | None]:
    """Answer outputs that are sent once more by how the run is that has got them already.

    None where it still waits for any of them, or has ended without: the refusal is about that.
    """
    found = yield from Find(wire.call.tenant, wire.call.upstream, run_id)
    now = None if found is None else (yield from run_now(wire, found, run_id))
    if found is None or found.turn is None or now is None:
        return None
    run_object = json.loads(now.body)
    waits_for = set(calls_of(run_object).split())
    ended_without = found.ended and run_object.get("status") != _DONE
    if ended_without or not waits_for.isdisjoint(given.split()):
        return None
    stored = StoredAnswer(now.status, now.body, "application/json")
    return (yield from replayed(wire, found.turn, stored))


def _on_its_thread(
    wire: Wire, run_found: Found, turn: TurnKey, run_id: str, given: str
) -> Flow[Answer | None]:
    """Ask the provider about a run; None where it is gone with its thread.

    ``given``: the calls whose outputs it is given.
    """
    call, replica = wire.call, run_found.replica
    answer = yield from run_request(wire, replica, run_id)
    if answer.stream is not None:
        reader = RunReader()
        opened = yield from open_stream(wire, answer, reader, may_be_lost=False)
        assert not isinstance(opened, Loss)
        return (yield from pass_run(opened, RunTap(wire, reader, turn, replica, known=True)))
    judgement = yield from wire.judge(answer, "threads", replica.handle)
    if judgement.verdict == "gone":
        return None
    asked = given and as_seen(run_found).get("status") == WAITS
    if asked and judgement.verdict not in {"ok", "ambiguous"}:
        yield from now_shown(call, turn, replica, as_seen(run_found), refused=given)
    if judgement.verdict != "ok" or (yield from note_run(call, run_found, answer)) != "replaced":
        return answer
    return None


def run_request(wire: Wire, replica: Replica, run_id: str) -> Flow[Answer]:
    """Send a request about a run to the thread that there is, under the id that it has now."""
    call = wire.call
    path = live_path(call, replica.handle, run_id)
    return (yield from wire.send(call.content, path=path, stream=_wants_stream(call)))


def _wants_stream(call: Call) -> bool:
    if not call.content:
        return False
    return read_body(call.content).members.get("stream") is True


def _is_empty(call: Call, given: str) -> bool:
    return call.route.action == "submit" and not given


def _calls_answered(call: Call) -> str:
    """Return the ids of the calls whose outputs a request brings; none where it does not."""
    if call.route.action != "submit":
        return ""
    outputs = read_body(call.content).members.get("tool_outputs")
    given = [one for one in outputs if isinstance(one, dict)] if isinstance(outputs, list) else []
    return " ".join(sorted(str(one.get("tool_call_id")) for one in given))


def _note_submitting(
    call: Call, found: Found, turn: TurnKey, given: str, *, here: bool
) -> Flow[bool]:
    """Note that a run is given what it waited for: whether it got it may stay unknown.

    What it says from then on is its answer. ``here``: it is on its thread, as far as is known.
    False where nothing was noted: nothing is given, or nothing that it can have asked for, or
    somebody is starting the run again.
    """
    if not given or found.ended:
        return False
    known = as_seen(found)
    asked = known.get("status") == WAITS
    if asked and calls_of(known) != given:
        return False  # it is refused: a run takes all that it asks for, and nothing else
    run_object = {**known, "status": "queued", "required_action": None}
    note = now_shown(call, turn, found.replica, run_object, outputs_of=given, unasked=not asked)
    return (yield from note if here else replace(note, generation=None))


# -- threads made with a run -------------------------------------------------------------------


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
    run_object = object_in(answer.body)
    thread = run_object.get("thread_id")
    if not is_object(run_object) or not isinstance(thread, str):
        return answer  # whatever it is, there is nothing that could be entered

    def entering() -> Flow[None]:
        made = _thread_of(body, thread, run_object)
        turn = yield from _entered(wire, body, messages, thread, made, created.intent)
        if turn is not None:
            yield from note_started(wire, turn.key, turn.replica, answer.body, run_object)

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
    """Pass the stream of a thread and its first run; both are entered when their ids are known."""
    reader = RunReader()
    opened = yield from open_stream(wire, created.answer, reader, may_be_lost=False)
    assert not isinstance(opened, Loss)

    def enter() -> Flow[Turn | None]:
        made = item_forms.dumps(reader.thread).encode() if reader.thread else b""
        thread = reader.response.get("thread_id")
        if not isinstance(thread, str):
            return None
        return (yield from _entered(wire, body, messages, thread, made, created.intent))

    return (yield from pass_run(opened, RunTap(wire, reader, enter=enter)))


def _entered(
    wire: Wire, body: Body, messages: list[dict[str, Any]], thread: str, made: bytes, intent: str
) -> Flow[Turn | None]:
    """Enter a thread that was created together with a run, and the run's turn."""
    call = wire.call
    yield from BindNew(
        tenant=call.tenant,
        upstream=call.upstream,
        dialect="threads",
        handle=thread,
        items=thread_items(messages),
        body=made,
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
