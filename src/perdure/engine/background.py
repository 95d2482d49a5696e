"""Responses that are made in the background: their answer is read later, by the app or by us.

It comes before what is said next in the conversation, or goes on from it, so it is read before that
is entered. An app that polls for it through perdure, as it has to, pays nothing.
"""

from __future__ import annotations

from typing import Final, Literal

from perdure.dialects import items as item_forms
from perdure.dialects.body import object_in
from perdure.engine.ops import Answer, Complete, Fail, Find, Found
from perdure.engine.wire import Call, Wire
from perdure.flow import Flow
from perdure.model import TurnKey

UNFINISHED: Final = {"queued", "in_progress"}
NO_ANSWER: Final = {"failed", "cancelled"}
_ANSWERED: Final = {"completed", "incomplete"}
_STEP_SECONDS: Final = 0.5
_MOST_SECONDS: Final = 5.0
#: How long what is said next waits for it; then the provider decides.
_WAIT_SECONDS: Final = 60.0
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500


def note_response(call: Call, found: Found, answer: Answer) -> Flow[bool]:
    """Give a background response's turn its answer once it has ended; whether it has.

    One that the turn was made again under another id says nothing about it any more.
    """
    if found.ended or found.turn is None or found.replaced_by is not None:
        return True
    replica, response = found.replica, object_in(answer.body)
    if response.get("status") in NO_ANSWER:
        yield from Fail(call.tenant, found.turn, "failed", f"response {response['status']}")
        return True
    if response.get("status") not in _ANSWERED:
        return False
    stands_in = response.get("conversation")
    if isinstance(stands_in, dict):
        stands_in = stands_in.get("id")
    yield from Complete(
        tenant=call.tenant,
        upstream=call.upstream,
        dialect=replica.dialect,
        turn=found.turn,
        status=200,
        body=answer.body,
        content_type="application/json",
        items=item_forms.new_items(response.get("output") or []),
        response_id=response.get("id"),
        head=response.get("id") if replica.dialect == "responses" else None,
        model=response.get("model"),
        input_tokens=(response.get("usage") or {}).get("input_tokens"),
        primed=replica.generation if stands_in == replica.handle else None,
        settles=True,
        # How the call was made is not known here; what was remembered before it still is.
        remembered=found.remembered,
    )
    return True


def read_answer(
    wire: Wire, response_id: str, *, wait: bool
) -> Flow[Answer | Literal["locked"] | None]:
    """Read what a response in the background has said.

    Costs one request; ``wait``: as many as it takes until it has ended, for a minute at most.
    Returns the provider's error where it cannot be read just now and something else would get in
    between; "locked" where the call's deadline is over before that minute. One that nobody will be
    shown (a key that may not read, a response that is gone) holds nothing up.
    """
    call, step, waited = wire.call, _STEP_SECONDS, 0.0
    while True:
        answer = yield from wire.own("GET", f"/responses/{response_id}")
        judgement = yield from wire.judge(answer, "responses", response_id)
        found = yield from Find(call.tenant, call.upstream, response_id)
        if found is None or found.turn is None:
            return None
        if judgement.verdict == "ok":
            ended = yield from note_response(call, found, answer)
            if ended or not wait or waited >= _WAIT_SECONDS:
                return None
            if not (yield from wire.pause(step)):
                return "locked"
            waited, step = waited + step, min(step * 1.5, _MOST_SECONDS)
            continue
        if judgement.verdict == "gone":
            young = found.age_seconds < call.policy.visibility_age.total_seconds()
            waits = waited < call.policy.visibility_wait.total_seconds()
            if young and waits and (yield from wire.pause(step)):
                waited += step
                continue
            yield from _gone(call, found, found.turn, young=young)
            return None
        later = answer.status == _TOO_MANY or answer.status >= _SERVER_ERROR
        return answer if wait and later else None


def _gone(call: Call, found: Found, turn: TurnKey, *, young: bool) -> Flow[None]:
    """Give up a response that is not there; what it said may stand in its conversation."""
    if found.replaced_by is not None:
        return
    reason = "gone before it was read"
    if found.replica.dialect == "conversations":
        yield from Fail(call.tenant, turn, "unknown", reason)
    elif not young:
        yield from Fail(call.tenant, turn, "failed", reason)
