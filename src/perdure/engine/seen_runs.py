"""Runs that are listed, looked into or changed, on their thread or from the journal.

None of it needs a new thread: what a lost one had is in the journal, as the app last saw it. The
steps of a run are not kept, so a run that has stayed behind on a lost thread shows none.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from perdure.dialects import items as item_forms
from perdure.dialects.body import object_in, objects_in, read_body
from perdure.dialects.routes import path_to
from perdure.dialects.shapes import is_object
from perdure.engine.journalled import (
    FROM_JOURNAL,
    WantedPage,
    check_metadata,
    listing,
    no_item,
    wanted_page,
)
from perdure.engine.messages import as_seen, newest_run, note_run
from perdure.engine.ops import Answer, Find, Found, MarkLost, Refresh, Runs, SeenRun
from perdure.engine.rebuild import loss_before_sending
from perdure.engine.runs import is_on_its_thread, run_request
from perdure.engine.threads import live_path
from perdure.engine.wire import Call, Wire
from perdure.errors import TurnOvertaken
from perdure.flow import Flow

_MOST: Final = 100


def seen_runs(wire: Wire, found: Found) -> Flow[Answer]:
    """Carry out a list of runs or steps, a read of a step, or a change of a run."""
    if wire.call.route.child is None:
        return (yield from _list(wire, found))
    return (yield from _of_one(wire, found))


# -- the list ---------------------------------------------------------------------------------


def _list(wire: Wire, found: Found) -> Flow[Answer]:
    """List runs: those of the thread that the app made, later all that the journal has."""
    call, replica = wire.call, found.replica
    if replica.generation == 0:
        answer = yield from _on_thread(wire, found)
        if answer is not None:
            return answer
    wanted = wanted_page(call)
    runs = yield from _known(call, found, wanted)
    if runs is None:
        return no_item(call)
    page = runs[: wanted.limit]
    going_on = {run.run_id for run in page if not run.ended}
    now = (yield from _as_they_are(wire, found, going_on)) if going_on else {}
    data = [now.get(run.run_id) or json.loads(run.body) for run in page]
    if wanted.back:
        data.reverse()
    body = listing(data, has_more=len(runs) > wanted.limit)
    return Answer(200, FROM_JOURNAL, item_forms.dumps(body).encode())


def _known(call: Call, found: Found, wanted: WantedPage) -> Flow[tuple[SeenRun, ...] | None]:
    """Return the runs that the journal has for a page, and one more; None without its cursor."""
    seq = None
    if wanted.cursor is not None:
        cursor = yield from Find(call.tenant, call.upstream, wanted.cursor)
        if cursor is None or cursor.turn is None or cursor.conversation != found.conversation:
            return None
        seq = cursor.turn.seq
    return (
        yield from Runs(
            tenant=call.tenant,
            upstream=call.upstream,
            conversation=found.conversation,
            newest_first=wanted.newest_first,
            limit=wanted.limit + 1,
            above=None if wanted.newest_first else seq,
            below=seq if wanted.newest_first else None,
        )
    )


def _on_thread(wire: Wire, found: Found) -> Flow[Answer | None]:
    """Ask the thread that the app made; None where it is lost."""
    call, replica = wire.call, found.replica
    if loss_before_sending(call, found.conversation, replica) is not None:
        return None
    answer = yield from wire.send(call.content, path=live_path(call, replica.handle))
    judgement = yield from wire.judge(answer, "threads", replica.handle)
    if judgement.verdict != "gone" or replica.handle is None:
        if answer.ok and call.route.part == "runs":
            runs = (yield from _known(call, found, wanted_page(call))) or ()
            yield from _note_ends(call, answer, {run.run_id for run in runs if not run.ended})
        return answer
    yield from MarkLost(call.tenant, call.upstream, replica.handle)
    return None


def _as_they_are(wire: Wire, found: Found, going_on: set[str]) -> Flow[dict[str, dict[str, Any]]]:
    """Ask the thread that there is now for runs that go on; costs one request."""
    call, replica = wire.call, found.replica
    if loss_before_sending(call, found.conversation, replica) is not None:
        return {}
    path = path_to("threads", replica.handle, "runs")
    answer = yield from wire.own("GET", f"{path}?order=desc&limit={_MOST}")
    return (yield from _note_ends(call, answer, going_on)) if answer.ok else {}


def _note_ends(call: Call, answer: Answer, going_on: set[str]) -> Flow[dict[str, dict[str, Any]]]:
    """Return how a list shows runs of which the journal knows no end, and enter what has ended.

    The app has seen it so: it will be told so, whatever becomes of the thread.
    """
    listed = objects_in(object_in(answer.body).get("data"))
    now = {str(run.get("id")): run for run in listed if run.get("id") in going_on}
    for run_id, run in now.items():
        run_found = yield from Find(call.tenant, call.upstream, run_id)
        if run_found is not None:
            body = item_forms.dumps(run).encode()
            yield from _note(call, run_found, Answer(200, FROM_JOURNAL, body))
    return now


def _note(call: Call, run_found: Found, answer: Answer) -> Flow[None]:
    """Note how a run was seen; where it is being begun again, that is not its end."""
    with suppress(TurnOvertaken):
        yield from note_run(call, run_found, answer)


# -- one run ----------------------------------------------------------------------------------


def _of_one(wire: Wire, found: Found) -> Flow[Answer]:
    """Read the steps of a run or change it, on its thread or in the journal alone."""
    call = wire.call
    run_id, run_found = yield from newest_run(call, call.route.child or "")
    if run_found is None or run_found.conversation != found.conversation:
        return (yield from run_request(wire, found.replica, run_id))
    replica = run_found.replica
    if is_on_its_thread(call, run_found, replica):
        answer = yield from run_request(wire, replica, run_id)
        judgement = yield from wire.judge(answer, "threads", replica.handle)
        if judgement.verdict != "gone" or replica.handle is None:
            updated = answer.ok and call.route.action == "update"
            if updated and is_object(object_in(answer.body)):
                yield from _note(call, run_found, answer)
                yield from Refresh(call.tenant, call.upstream, run_id, answer.body)
            return answer
        yield from MarkLost(call.tenant, call.upstream, replica.handle)
    if call.route.action == "update":
        return (yield from _changed(call, run_found, run_id))
    if call.route.detail == "steps":
        body = item_forms.dumps(listing([], has_more=False))
        return Answer(200, FROM_JOURNAL, body.encode())
    step = (call.route.detail or "").removeprefix("steps/")
    return no_item(replace(call, route=replace(call.route, part="steps", child=step)))


def _changed(call: Call, run_found: Found, run_id: str) -> Flow[Answer]:
    """Change a run in the journal, where its thread is lost."""
    metadata = read_body(call.content).members.get("metadata") or {}
    check_metadata(metadata)
    body = item_forms.dumps({**as_seen(run_found), "metadata": metadata}).encode()
    yield from Refresh(call.tenant, call.upstream, run_id, body)
    return Answer(200, FROM_JOURNAL, body)
