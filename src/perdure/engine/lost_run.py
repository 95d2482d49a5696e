"""The run whose answer was lost: looked for on its thread, and taken over.

A POST of a run that got no answer may have begun one. It is one that the thread shows and nobody
here knows, newer than the newest that is known, of the assistant that was asked. What does not
stand there may still be on its way: nothing follows from that.
"""

from __future__ import annotations

import json
from typing import Any, Final

from perdure.dialects import items as item_forms
from perdure.dialects.routes import path_to
from perdure.dialects.shapes import is_page
from perdure.engine.decoding import decoded
from perdure.engine.messages import ENDED, Unread, completion, now_shown, read_unread
from perdure.engine.ops import Find, UnsettledTurn
from perdure.engine.rebuild import NotRebuilt
from perdure.engine.wire import Call, Wire, may_pass
from perdure.errors import TurnOvertaken
from perdure.flow import Flow
from perdure.model import Replica, StoredAnswer

_PAGE: Final = 100


def lost_run(wire: Wire, replica: Replica, turn: UnsettledTurn) -> Flow[StoredAnswer | None]:
    """Find the run that a turn began and make it the turn's; None where it cannot be told.

    One that goes on is under way from now on, one that has ended is the turn's answer, with its
    messages still to be read. Costs one request; raises as :func:`_runs_on`, and
    :class:`~perdure.errors.TurnOvertaken` where another worker has settled the turn meanwhile.
    """
    call = wire.call
    newest = yield from _runs_on(wire, replica)
    run = yield from _unknown_run(call, replica, newest, turn.request)
    if newest is None or run is None:
        return None
    listed = newest["data"]
    yield from _read_before(wire, replica, [one.get("id") for one in listed[listed.index(run) :]])
    mine = yield from now_shown(call, turn.key, replica, run)
    if mine and run.get("status") in ENDED:
        mine = (yield from completion(call, turn.key, run, replica, unread=True)) == "done"
    if not mine:
        raise TurnOvertaken(turn.key.turn_id)
    return StoredAnswer(200, item_forms.dumps(run).encode(), "application/json")


def _read_before(wire: Wire, replica: Replica, older: list[str]) -> Flow[None]:
    """Read what a run has said that is among those older than another: it has ended.

    Raises :class:`NotRebuilt` with the provider's answer where it cannot be read just now.
    """
    call = wire.call
    thread = yield from Find(call.tenant, call.upstream, replica.handle or "")
    if thread is None or thread.unread is None or thread.unread not in older:
        return
    unread = Unread(thread.unread, ended=True)
    answer, judgement = yield from read_unread(wire, thread.conversation, replica, unread)
    if judgement.verdict not in {"ok", "gone"}:
        raise NotRebuilt(answer)


def _runs_on(wire: Wire, replica: Replica) -> Flow[dict[str, Any] | None]:
    """Return the newest runs on a thread as they are listed; None where it shows none to us.

    Costs one request; raises :class:`NotRebuilt` with the provider's answer where the thread
    cannot be read just now.
    """
    path = path_to("threads", replica.handle, "runs")
    page = yield from wire.own("GET", f"{path}?order=desc&limit={_PAGE}")
    answer, listed = decoded(page, is_page)
    judgement = yield from wire.judge(answer, "threads", replica.handle)
    if judgement.verdict != "ok":
        if may_pass(answer, judgement):
            raise NotRebuilt(answer)
        return None  # it is gone, or may not be read
    return listed


def _unknown_run(
    call: Call, replica: Replica, newest: dict[str, Any] | None, request: str
) -> Flow[dict[str, Any] | None]:
    """Return the one run among a thread's newest that such a request can have begun."""
    if newest is None:
        return None
    unknown = yield from _unknown(call, replica, newest)
    asked = json.loads(request).get("assistant_id")
    fitting = [run for run in unknown if run.get("assistant_id") == asked]
    return fitting[0] if len(fitting) == 1 else None


def _unknown(call: Call, replica: Replica, newest: dict[str, Any]) -> Flow[list[dict[str, Any]]]:
    """Return the runs newer than the newest that is known; none where that cannot be told.

    Where none is known, every run is newer on a thread that was made through us; another one may
    have had runs before it came here.
    """
    listed: list[dict[str, Any]] = newest.get("data") or []
    for number, run in enumerate(listed):
        known = yield from Find(call.tenant, call.upstream, str(run.get("id")))
        if known is not None:
            return listed[:number]
    thread = yield from Find(call.tenant, call.upstream, replica.handle or "")
    made_here = replica.generation > 0 or (thread is not None and thread.answer is not None)
    return listed if made_here and not newest.get("has_more") else []
