"""The run whose answer was lost: looked for on its thread, and taken over.

A POST of a run that got no answer may have begun one. It is one that the thread shows and nobody
here knows, newer than the newest that is known, of the assistant that was asked. What does not
stand there may still be on its way: nothing follows from that.
"""

from __future__ import annotations

import json
from typing import Any, Final

from perdure.dialects import items as item_forms
from perdure.engine.messages import ENDED, completion, has_messages
from perdure.engine.ops import Find, Underway, UnsettledTurn
from perdure.engine.rebuild import NotRebuilt
from perdure.engine.wire import Wire
from perdure.flow import Flow
from perdure.model import Replica, StoredAnswer

_PAGE: Final = 100


def lost_run(wire: Wire, replica: Replica, turn: UnsettledTurn) -> Flow[StoredAnswer | None]:
    """Find the run that a turn began and make it the turn's; None where it cannot be told.

    One that goes on is under way from now on, one that has ended is the turn's answer, with its
    messages still to be read. Costs one request; raises :class:`NotRebuilt` with the provider's
    answer where the thread cannot be read just now.
    """
    call = wire.call
    run = yield from _begun(wire, replica, turn)
    if run is None:
        return None
    body = item_forms.dumps(run).encode()
    if run.get("status") in ENDED:
        ending = completion(call, turn.key, run, body, unread=has_messages(run))
        mine = (yield from ending) == "done"
    else:
        mine = yield from Underway(call.tenant, call.upstream, turn.key, str(run["id"]), body)
    return StoredAnswer(200, body, "application/json") if mine else None


def _begun(wire: Wire, replica: Replica, turn: UnsettledTurn) -> Flow[dict[str, Any] | None]:
    """Return the one run on the thread that the turn can have begun."""
    answer = yield from wire.own("GET", f"/threads/{replica.handle}/runs?order=desc&limit={_PAGE}")
    judgement = yield from wire.judge(answer, "threads", replica.handle)
    if judgement.verdict == "gone":
        return None
    if judgement.verdict != "ok":
        raise NotRebuilt(answer)
    unknown = yield from _unknown(wire, replica, json.loads(answer.body))
    asked = json.loads(turn.request).get("assistant_id")
    fitting = [run for run in unknown if run.get("assistant_id") == asked]
    return fitting[0] if len(fitting) == 1 else None


def _unknown(wire: Wire, replica: Replica, page: dict[str, Any]) -> Flow[list[dict[str, Any]]]:
    """Return the runs newer than the newest that is known; none where that cannot be told.

    Where none is known, every run is newer on a thread that was made through us; another one may
    have had runs before it came here.
    """
    call = wire.call
    newest_first: list[dict[str, Any]] = page.get("data") or []
    for number, run in enumerate(newest_first):
        known = yield from Find(call.tenant, call.upstream, str(run.get("id")))
        if known is not None:
            return newest_first[:number]
    thread = yield from Find(call.tenant, call.upstream, replica.handle or "")
    made_here = replica.generation > 0 or (thread is not None and thread.answer is not None)
    return newest_first if made_here and not page.get("has_more") else []
