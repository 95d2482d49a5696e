"""Runs that are gone with their thread: they are over, or are started again on another one."""

from __future__ import annotations

import json
from typing import Any

from perdure.dialects import items as item_forms
from perdure.dialects.routes import path_to
from perdure.dialects.shapes import is_object
from perdure.dialects.verdicts import Judgement
from perdure.engine.ending import kept
from perdure.engine.messages import as_seen, completion, ended
from perdure.engine.ops import Answer, Found, Underway
from perdure.engine.streaming import Attempt, judged
from perdure.engine.telling import marked
from perdure.engine.threads import Kind, deliver
from perdure.engine.turns import LostRun, Turn, accept
from perdure.engine.underway import note_started
from perdure.engine.wire import JSON, Call, Wire
from perdure.flow import Flow
from perdure.model import Recovery, Replica, TurnKey, value


def went_on(
    wire: Wire, run_found: Found, run_id: str, gone: str | None, *, asks: bool
) -> Flow[Answer]:
    """Say what became of a run whose thread is lost: it is over, or it is started again.

    ``asks``: it still asks for the outputs of its tools, so what it has said is not its answer.
    """
    call, turn, known = wire.call, run_found.turn, as_seen(run_found)
    assert turn is not None
    taken = yield from accept(
        wire,
        dialect="threads",
        kind="run",
        handle=call.route.handle,
        items=(),
        request=run_found.request,
        lost=LostRun(turn, run_id, asks),
    )
    if isinstance(taken, Turn) and call.route.action == "cancel":
        return (yield from _over(call, taken.key, known, "cancelled"))
    if isinstance(taken, Turn):
        taken = yield from deliver(wire, taken, _Again(run_found.request, run_id, known), gone)
    if taken is None:  # the app has seen what it said
        return (yield from _over(call, turn, known, "completed"))
    return taken


def _over(call: Call, turn: TurnKey, known: dict[str, Any], status: str) -> Flow[Answer]:
    """End the turn of a run that is gone with its thread."""
    run_object = {**known, "status": status, "required_action": None}
    body = item_forms.dumps(run_object).encode()
    completing = completion(call, turn, run_object, None, unread=False)
    yield from ended(call, turn, run_object, completing)
    return Answer(200, JSON, body)


@value
class _Again(Kind):
    """A lost run, started again; its old id points to the new run from now on.

    A run that waited for tool outputs asks for them again: their calls died with the thread.
    """

    request: str
    run_id: str
    known: dict[str, Any]

    def send(self, wire: Wire, handle: str | None, *, given: bool) -> Flow[Attempt]:
        """Start it on another thread, with what it was started with; its messages are there."""
        del given
        request = json.loads(self.request or "{}")
        request.pop("stream", None)
        request.pop("additional_messages", None)
        body = item_forms.dumps(request).encode()
        answer = yield from wire.own("POST", path_to("threads", handle, "runs"), body)
        return (yield from judged(wire, answer, "threads", handle, is_object))

    def finish(
        self, wire: Wire, turn: Turn, on: Replica, tried: Attempt, recovery: Recovery | None
    ) -> Flow[Answer]:
        """Note it under both ids."""
        noted = note_started(wire, turn.key, on, tried.answer.body, tried.shown)
        return marked(tried.answer, recovery, stored=(yield from kept(noted)))

    def refused(self, wire: Wire, turn: Turn, answer: Answer, judgement: Judgement) -> Flow[Answer]:
        """Leave it to be started later: another run may be at work on the thread."""
        if judgement.verdict == "ambiguous":
            return (yield from Kind.refused(self, wire, turn, answer, judgement))
        call, body = wire.call, item_forms.dumps(self.known).encode()
        yield from Underway(call.tenant, call.upstream, turn.key, self.run_id, body)
        if judgement.rule == "active-run":
            return Answer(200, JSON, body)
        return answer
