"""A run that is known, as it is now: by the journal, by the provider, or begun again."""

from __future__ import annotations

import json
from typing import Any, Final

from perdure.dialects import items as item_forms
from perdure.engine.lost_run import runs_on, unknown_run
from perdure.engine.messages import completion, note_run
from perdure.engine.ops import Answer, Found, Underway
from perdure.engine.rebuild import Loss, NotRebuilt, loss_before_sending, rebuild
from perdure.engine.telling import marked
from perdure.engine.wire import Wire
from perdure.flow import Flow
from perdure.model import Replica

_JSON: Final = (("content-type", "application/json"),)


def known_run(
    wire: Wire, found: Found, run_found: Found, run_id: str, request: Flow[Answer]
) -> Flow[Answer]:
    """Return the answer to a request about a run; ``found`` is its thread, ``run_found`` the run.

    One that was lost with its thread is begun again, on the thread that took its place. Its old id
    points to the new run from then on. Costs the request, two more for a loss.
    """
    replica = found.replica
    loss = loss_before_sending(wire.call, found.conversation, replica)
    ended = run_found.answer if run_found.ended else None
    if ended is not None and (replica.generation > 0 or loss is not None):
        return Answer(200, _JSON, ended.body)
    if loss is None and not _is_elsewhere(run_found, found):
        answer = yield from request
        if answer.stream is not None:
            return answer
        judgement = yield from wire.judge(answer, "threads", replica.handle)
        if judgement.verdict == "ok":
            yield from note_run(wire.call, run_found, answer)
        if judgement.verdict != "gone":
            return answer
        loss = Loss(found.conversation, replica, "gone", run_found.turn)
        if ended is not None:
            return Answer(200, _JSON, ended.body)
    if wire.call.route.action == "cancel":
        return (yield from _cancelled(wire, run_found))
    return (yield from _begun_again(wire, found, run_found, loss, run_id))


def _is_elsewhere(run_found: Found, found: Found) -> bool:
    """Whether a run was on a thread in whose place there is another one by now."""
    return found.replica.generation > 0 and _shown(run_found).get("thread_id") not in {
        None,
        found.replica.handle,
    }


def _shown(run_found: Found) -> dict[str, Any]:
    """Return a run as it was last seen."""
    shown: dict[str, Any] = {} if run_found.answer is None else json.loads(run_found.answer.body)
    return shown


def _cancelled(wire: Wire, run_found: Found) -> Flow[Answer]:
    """End a run that was lost and is not wanted any more."""
    run_object = {**_shown(run_found), "status": "cancelled", "required_action": None}
    answer = Answer(200, _JSON, item_forms.dumps(run_object).encode())
    if run_found.turn is not None:
        yield from completion(wire.call, run_found.turn, run_object, answer.body, unread=False)
    return answer


def _begun_again(
    wire: Wire, found: Found, run_found: Found, loss: Loss | None, run_id: str
) -> Flow[Answer]:
    """Begin a run again with the parameters it had, on a new thread where there is none yet.

    One that waited for tool outputs asks for them again: their calls died with the thread.
    """
    assert run_found.turn is not None
    call, replica, recovery, newest = wire.call, found.replica, None, None
    try:
        if loss is None:
            newest = yield from runs_on(wire, replica)
            if newest is None:
                loss = Loss(found.conversation, replica, "gone", run_found.turn)
        if loss is not None:
            rebuilt = yield from rebuild(wire, loss, found.last_position, following=1)
            replica, recovery = rebuilt.replica, rebuilt.recovery
            if recovery is None:
                newest = yield from runs_on(wire, replica)
    except NotRebuilt as refused:
        return refused.answer
    # Somebody may have begun it on a thread that is not just made, and not come to say so.
    begun = yield from unknown_run(call, replica, newest, run_found.request)
    if begun is not None:
        answer = Answer(200, _JSON, item_forms.dumps(begun).encode())
    else:
        answer = yield from _posted(wire, replica, run_found.request)
    if not answer.ok:
        return answer
    new_id = str(json.loads(answer.body).get("id"))
    yield from Underway(
        call.tenant, call.upstream, run_found.turn, new_id, answer.body, replaces=run_id
    )
    return marked(answer, recovery)


def _posted(wire: Wire, replica: Replica, request: str) -> Flow[Answer]:
    members = json.loads(request or "{}")
    members.pop("stream", None)
    members.pop("additional_messages", None)  # they are in the log, and so in the new thread
    content = item_forms.dumps(members).encode()
    return (yield from wire.own("POST", f"/threads/{replica.handle}/runs", content))
