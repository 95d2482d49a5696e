"""Answers that are known already, in the form in which a repeated call asks for them."""

from __future__ import annotations

import json
from typing import Any, Final

from perdure.dialects.replay import response_events, run_events
from perdure.engine.known_run import known_run
from perdure.engine.messages import read_unread
from perdure.engine.ops import Answer, Find, Page
from perdure.engine.wire import Wire
from perdure.flow import Flow
from perdure.model import StoredAnswer

_NOTE: Final = ("perdure-replayed", "true")
_NEEDS_NOBODY: Final = {"queued", "in_progress", "cancelling"}
_POLL_SECONDS: Final = 1.0  # as often as the SDK does
_PAGE: Final = 100


def replayed(wire: Wire, stored: StoredAnswer) -> Flow[Answer]:
    """Return a stored answer as JSON or as a stream of events, whichever the call asked for.

    A run that goes on is followed to its end for a stream, one request a second.
    """
    if b'"stream":true' not in wire.call.content.replace(b" ", b""):
        return Answer(stored.status, (("content-type", "application/json"), _NOTE), stored.body)
    value = json.loads(stored.body)
    if value.get("object") != "thread.run":
        return _stream(stored.status, response_events(stored.body))
    followed = yield from _followed(wire, value)
    if isinstance(followed, Answer):
        return followed
    messages = yield from _messages(wire, str(followed.get("id")))
    return _stream(stored.status, run_events(followed, messages))


def _stream(status: int, events: bytes) -> Answer:
    headers = (("content-type", "text/event-stream; charset=utf-8"), _NOTE)
    return Answer(status, headers, events)


def _followed(wire: Wire, run: dict[str, Any]) -> Flow[dict[str, Any] | Answer]:
    """Return a run as it ends, or waits for the app, or is when the deadline is over."""
    call = wire.call
    while run.get("status") in _NEEDS_NOBODY:
        run_id = str(run.get("id"))
        found = yield from Find(call.tenant, call.upstream, call.route.handle or "")
        run_found = yield from Find(call.tenant, call.upstream, run_id)
        if found is None or run_found is None:  # forgotten meanwhile
            return run
        request = wire.own("GET", f"/threads/{found.replica.handle}/runs/{run_id}")
        answer = yield from known_run(wire, found, run_found, run_id, request)
        if not answer.ok:
            return answer
        run = json.loads(answer.body)
        if run.get("status") in _NEEDS_NOBODY and not (yield from wire.pause(_POLL_SECONDS)):
            return run
    return run


def _messages(wire: Wire, run_id: str) -> Flow[list[dict[str, Any]]]:
    """Return what a run has said, from the log, where it is entered first if it is not yet."""
    call = wire.call
    found = yield from Find(call.tenant, call.upstream, call.route.handle or "")
    if found is None:
        return []
    yield from read_unread(wire, found)
    page = yield from Page(call.tenant, found.conversation, newest_first=True, limit=_PAGE)
    messages = [json.loads(item.wire) for item in reversed(page.items)]
    return [message for message in messages if message.get("run_id") == run_id]
