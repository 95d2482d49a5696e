"""Responses that are made in the background: their answer is read later, by the app or by us.

It comes before what is said next in the conversation, or goes on from it, so it is read before that
is entered. An app that polls for it through perdure, as it has to, pays nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Literal

from perdure.dialects import items as item_forms
from perdure.dialects.body import object_in, objects_in
from perdure.dialects.routes import path_to
from perdure.dialects.shapes import is_response
from perdure.dialects.tokens import shared_out
from perdure.engine import amnesia
from perdure.engine.forgetful import warn
from perdure.engine.ops import Answer, Complete, Fail, Find, Found
from perdure.engine.wire import Call, Wire, may_pass
from perdure.flow import Flow
from perdure.model import Recovery, Replica, TurnKey, value

UNFINISHED: Final = {"queued", "in_progress"}
NO_ANSWER: Final = {"failed", "cancelled"}
_ANSWERED: Final = {"completed", "incomplete"}
_STEP_SECONDS: Final = 0.5
_MOST_SECONDS: Final = 5.0
#: How long what is said next waits for it; then the provider decides.
_WAIT_SECONDS: Final = 60.0


@value
class Noted:
    """Whether a response in the background has ended, and what is told of one that forgot."""

    ended: bool
    told: Recovery | None = None


def note_response(wire: Wire, found: Found, answer: Answer) -> Flow[Noted]:
    """Give a background response's turn its answer once it has ended.

    One that the turn was made again under another id says nothing about it any more. One that was
    made without the history has been seen, as the end of a stream has: it is told of, and the next
    turn begins from a replica with the history.
    """
    call = wire.call
    if found.ended or found.turn is None or found.replaced_by is not None:
        return Noted(ended=True)
    replica, response = found.replica, object_in(answer.body)
    if not is_response(response):
        return Noted(ended=False)
    if response.get("status") in NO_ANSWER:
        yield from Fail(call.tenant, found.turn, "failed", f"response {response['status']}")
        return Noted(ended=True)
    if response.get("status") not in _ANSWERED:
        return Noted(ended=False)
    here = replica.dialect == "responses" or _stands_on_replica(found, response)
    output = objects_in(response.get("output"))
    counts = amnesia.counts_of(response, output, call.upstream)
    concluded = _concluded(call, found, counts, here=here)
    chain = replica.dialect == "responses"
    made_on = response.get("previous_response_id") if chain else replica.handle
    stored = yield from Complete(
        tenant=call.tenant,
        upstream=call.upstream,
        dialect=replica.dialect,
        turn=found.turn,
        status=200,
        body=answer.body,
        content_type="application/json",
        items=shared_out(item_forms.new_items(output), counts.visible_tokens),
        response_id=response.get("id"),
        head=response.get("id") if chain else None,
        model=counts.model,
        input_tokens=counts.input_tokens,
        primed=replica.generation if here and not chain else None,
        settles=True,
        remembered=concluded.remembered,
        forgot=made_on or response.get("id") if concluded.given_up else None,
    )
    if stored != "done" or not concluded.forgot:
        return Noted(ended=True)
    # A line that begins with it has nothing else that could be named.
    named = replace(replica, handle=replica.handle or response.get("id"))
    told = yield from warn(wire, found.conversation, found.turn.turn_id, named)
    return Noted(ended=True, told=told)


def _stands_on_replica(found: Found, response: dict[str, Any]) -> bool:
    """Whether a response stands in the conversation that is the replica now.

    A server need not show in which it stands. One that is waited for still was not replaced since.
    """
    if "conversation" not in response:
        return found.unread == response.get("id")
    stands_in = response["conversation"]
    if isinstance(stands_in, dict):
        stands_in = stands_in.get("id")
    return bool(stands_in == found.replica.handle)


def _concluded(
    call: Call, found: Found, counts: amnesia.Counts, *, here: bool
) -> amnesia.Conclusion:
    """Judge an answer by what its turn has kept of its call, where it was made on this replica.

    What is remembered when something was said behind it is not found under its id.
    """
    kept = object_in(found.request.encode()).get("brought")
    if kept is None or not here:
        return amnesia.Conclusion(forgot=False, given_up=False, remembered=found.remembered)
    brought = amnesia.Brought(**kept)
    return amnesia.conclude(found.remembered, brought, counts, call.policy.on_amnesia)


def read_answer(
    wire: Wire, response_id: str, *, wait: bool
) -> Flow[Answer | Literal["locked"] | None]:
    """Read what a response in the background has said.

    Costs one request; ``wait``: as many as it takes until it has ended, for a minute at most.
    Returns the provider's error where it cannot be read just now and something else would get in
    between; "locked" where the call's deadline is over before that minute. One that nobody will be
    shown (a key that may not read, a response that is gone) holds nothing up; what a rebuilt
    conversation has then is not known.
    """
    call, step, waited = wire.call, _STEP_SECONDS, 0.0
    while True:
        answer = yield from wire.own("GET", path_to("responses", response_id))
        judgement = yield from wire.judge(answer, "responses", response_id)
        found = yield from Find(call.tenant, call.upstream, response_id)
        if found is None or found.turn is None:
            return None
        if judgement.verdict == "ok":
            noted = yield from note_response(wire, found, answer)
            if noted.ended or not wait or waited >= _WAIT_SECONDS:
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
        if may_pass(answer, judgement):
            return answer if wait else None
        if not found.ended and is_rebuilt(found.replica):
            yield from Fail(call.tenant, found.turn, "unknown", "cannot be read")
        return None


def is_rebuilt(replica: Replica) -> bool:
    """Whether a conversation is told what it has not had of the log, as the journal knows it."""
    return replica.dialect == "conversations" and replica.generation > 0


def _gone(call: Call, found: Found, turn: TurnKey, *, young: bool) -> Flow[None]:
    """Give up a response that is not there; what it said may stand in its conversation."""
    if found.replaced_by is not None:
        return
    reason = "gone before it was read"
    if found.replica.dialect == "conversations":
        yield from Fail(call.tenant, turn, "unknown", reason)
    elif not young:
        yield from Fail(call.tenant, turn, "failed", reason)
