"""Answers that are known already, in the form in which a repeated call asks for them."""

from __future__ import annotations

import json
from typing import Any, Final

from perdure.dialects.body import object_in
from perdure.dialects.replay import response_events, run_events
from perdure.dialects.routes import path_to
from perdure.dialects.shapes import is_object
from perdure.engine.decoding import decoded
from perdure.engine.journalled import as_message
from perdure.engine.messages import WAITS, Unread, note_run, read_unread
from perdure.engine.ops import Answer, Find, Found, MarkLost, Page
from perdure.engine.wire import JSON, Wire
from perdure.errors import TurnUnderway
from perdure.flow import Flow
from perdure.model import StoredAnswer, TurnKey

_NOTE: Final = ("perdure-replayed", "true")
_NEEDS_NOBODY: Final = {"queued", "in_progress", "cancelling"}
_POLL_SECONDS: Final = 1.0  # as often as the SDK does
_PAGE: Final = 100


def replayed(wire: Wire, turn: TurnKey, stored: StoredAnswer) -> Flow[Answer]:
    """Return a stored answer as JSON or as a stream of events, whichever the call asked for.

    A run that goes on is followed to its end for a stream, one request a second. Raises
    :class:`~perdure.errors.TurnUnderway` where that cannot be done.
    """
    if b'"stream":true' not in wire.call.content.replace(b" ", b""):
        return Answer(stored.status, (*JSON, _NOTE), stored.body)
    value = json.loads(stored.body)
    if value.get("object") == "thread.run":
        return (yield from _told(wire, turn, value, stored.status))
    if value.get("status") in _NEEDS_NOBODY:
        raise TurnUnderway(turn.turn_id, str(value.get("id")))
    return _stream(stored.status, response_events(stored.body))


def retold(wire: Wire, turn: TurnKey, answer: Answer) -> Flow[Answer]:
    """Return a run that an answer shows as a stream of events; any other answer as it is.

    Its news of a recovery stay; raises as :func:`replayed`.
    """
    run = object_in(answer.body) if answer.ok and answer.stream is None else {}
    if run.get("object") != "thread.run":
        return answer
    events = yield from _told(wire, turn, run, answer.status)
    news = tuple(one for one in answer.headers if one[0].startswith("perdure-"))
    return events.edited(headers=news)


def _told(wire: Wire, turn: TurnKey, run: dict[str, Any], status: int) -> Flow[Answer]:
    """Follow a run to its end and tell it as events."""
    ended = yield from _followed(wire, turn, run)
    messages = yield from _messages(wire, turn, ended)
    news = {"perdure": run["perdure"]} if "perdure" in run else {}
    return _stream(status, run_events({**ended, **news}, messages))


def _stream(status: int, events: bytes) -> Answer:
    headers = (("content-type", "text/event-stream; charset=utf-8"), _NOTE)
    return Answer(status, headers, events)


def _followed(wire: Wire, turn: TurnKey, run: dict[str, Any]) -> Flow[dict[str, Any]]:
    """Return a run as it ends, or waits for the app."""
    call, run_id = wire.call, str(run.get("id"))
    while run.get("status") in _NEEDS_NOBODY:
        found = yield from Find(call.tenant, call.upstream, run_id)
        answer = None if found is None else (yield from run_now(wire, found, run_id))
        if answer is None:
            raise TurnUnderway(turn.turn_id, run_id)
        run = json.loads(answer.body)
        if run.get("status") in _NEEDS_NOBODY and not (yield from wire.pause(_POLL_SECONDS)):
            raise TurnUnderway(turn.turn_id, run_id)
    return run


def run_now(wire: Wire, found: Found, run_id: str) -> Flow[Answer | None]:
    """Ask the provider how a run is; None where it is not to be had from its thread."""
    replica = found.replica
    if replica.state != "live" or replica.dialect != "threads":
        return None
    path = path_to("threads", replica.handle, "runs", run_id)
    answer, _ = decoded((yield from wire.own("GET", path)), is_object)
    judgement = yield from wire.judge(answer, "threads", replica.handle)
    if judgement.verdict == "gone" and replica.handle is not None:
        yield from MarkLost(wire.call.tenant, wire.call.upstream, replica.handle)
    if judgement.verdict != "ok" or (yield from note_run(wire.call, found, answer)) == "replaced":
        return None
    return answer


def _messages(wire: Wire, turn: TurnKey, run: dict[str, Any]) -> Flow[list[dict[str, Any]]]:
    """Return what a run has said, from the log, where it is entered first if it is not yet."""
    call, run_id = wire.call, str(run.get("id"))
    found = yield from Find(call.tenant, call.upstream, run_id)
    if found is None:
        return []
    if found.unread == run_id and found.replica.state == "live":
        unread = Unread(run_id, found.unread_ended)
        yield from read_unread(wire, turn.conversation, found.replica, unread)
    page = yield from Page(call.tenant, turn.conversation, newest_first=True, limit=_PAGE)
    messages = [json.loads(item.wire) for item in reversed(page.items)]
    of_run = [message for message in messages if message.get("run_id") == run_id]
    if of_run or run.get("status") == WAITS:
        return of_run
    # Nobody has read it as it stands on its thread: what a stream has shown of it is what there is.
    page = yield from Page(
        call.tenant, turn.conversation, newest_first=True, limit=_PAGE, turn_response=run_id
    )
    shown = [item for item in reversed(page.items) if item.role == "assistant"]
    of = {"run_id": run_id, "thread_id": run.get("thread_id")}
    return [{**as_message(item, turn.conversation), **of} for item in shown]
