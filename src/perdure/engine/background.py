"""Responses that are made in the background: their answer is read later, by the app or by us.

It comes before what is said next in the conversation, or goes on from it, so it is read before that
is entered. An app that polls for it, as it has to, pays nothing.
"""

from __future__ import annotations

import json
from typing import Any, Final, Literal

from perdure.dialects import items as item_forms
from perdure.engine.ops import Answer, Complete, Fail, Find, Found
from perdure.engine.wire import Call, Wire
from perdure.flow import Flow

UNFINISHED: Final = {"queued", "in_progress"}
NO_ANSWER: Final = {"failed", "cancelled"}
_STEP_SECONDS: Final = 0.5
_MOST_SECONDS: Final = 5.0


def note_response(call: Call, found: Found, response: dict[str, Any], body: bytes) -> Flow[None]:
    """Give a background response's turn its answer once it has ended."""
    replica, stands_in = found.replica, response.get("conversation")
    if found.ended or found.turn is None or response.get("status") in UNFINISHED:
        return
    if response.get("status") in NO_ANSWER:
        yield from Fail(call.tenant, found.turn, "failed", f"response {response['status']}")
        return
    if isinstance(stands_in, dict):
        stands_in = stands_in.get("id")
    yield from Complete(
        tenant=call.tenant,
        upstream=call.upstream,
        dialect=replica.dialect,
        turn=found.turn,
        status=200,
        body=body,
        content_type="application/json",
        items=item_forms.new_items(response.get("output") or []),
        response_id=response.get("id"),
        head=response.get("id") if replica.dialect == "responses" else None,
        model=response.get("model"),
        input_tokens=(response.get("usage") or {}).get("input_tokens"),
        primed=replica.generation if stands_in == replica.handle else None,
    )


def read_answer(
    wire: Wire, response_id: str, *, wait: bool
) -> Flow[Answer | Literal["locked"] | None]:
    """Read what a response in the background has said; the provider's refusal where it shows none.

    Costs one request. ``wait``: until it has ended, as it keeps its conversation locked so long;
    "locked" where the call's deadline is over before.
    """
    call, step = wire.call, _STEP_SECONDS
    while True:
        answer = yield from wire.own("GET", f"/responses/{response_id}")
        judgement = yield from wire.judge(answer, "responses", response_id)
        found = yield from Find(call.tenant, call.upstream, response_id)
        if found is None or found.turn is None:
            return None
        if judgement.verdict == "gone":
            yield from Fail(call.tenant, found.turn, "failed", "gone before it was read")
            return None
        if judgement.verdict != "ok":
            return answer
        response = json.loads(answer.body)
        yield from note_response(call, found, response, answer.body)
        if not wait or response.get("status") not in UNFINISHED:
            return None
        if not (yield from wire.pause(step)):
            return "locked"
        step = min(step * 1.5, _MOST_SECONDS)
