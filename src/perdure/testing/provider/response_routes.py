"""Reading, deleting, cancelling, counting and compacting responses."""

from __future__ import annotations

from perdure.testing.provider import (
    errors,
    items,
    models,
    paging,
    response_body,
    responses,
    text,
)
from perdure.testing.provider.state import State, StoredResponse
from perdure.testing.provider.wire import Answer, Request


def _find(state: State, request: Request, handle: str) -> StoredResponse:
    found = state.find_response(handle, request.project)
    if found is None:
        raise errors.RESPONSE_NOT_FOUND.error(id=handle)
    return found


def retrieve(state: State, request: Request, handle: str) -> Answer:
    """Answer GET /responses/{id}; each read of a background response moves it on."""
    found = _find(state, request, handle)
    responses.advance_by_clock(state, found)
    if request.asked("stream") == "true" and found.events is not None:
        responses.finish_background(found)
        after = int(request.asked("starting_after") or -1)
        later = [event for event in found.events if event[1]["sequence_number"] > after]
        return Answer(events=iter(later))
    if found.finish is not None:
        found.pending += 1
        if found.pending > 1:
            responses.finish_background(found)
            found = _find_settled(state, found)
        else:
            found.body = found.body | {"status": "in_progress"}
    else:
        found = _find_settled(state, found)
    return Answer(response_body.billed(found.body))


def _find_settled(state: State, found: StoredResponse) -> StoredResponse:
    """Return the object that completion put in the place of the queued one."""
    return state.responses.get(found.id, found)


def delete(state: State, request: Request, handle: str) -> Answer:
    """Answer DELETE /responses/{id}: one link only, its items stay readable by reference."""
    found = _find(state, request, handle)
    del state.responses[found.id]
    return Answer({"id": found.id, "object": "response", "deleted": True})


def cancel(state: State, request: Request, handle: str) -> Answer:
    """Answer POST /responses/{id}/cancel; only a background response can be cancelled."""
    found = _find(state, request, handle)
    responses.advance_by_clock(state, found)
    found = _find_settled(state, found)
    if not found.body["background"]:
        raise errors.NOT_BACKGROUND.error()
    if found.finish is not None:
        found.finish = None
        found.body = found.body | {"status": "cancelled"}
        conversation = state.conversations.get(found.conversation or "")
        if conversation is not None and conversation.locked_by == found.id:
            conversation.locked_by = None
    return Answer(response_body.billed(found.body))


def input_items(state: State, request: Request, handle: str) -> Answer:
    """Answer GET /responses/{id}/input_items: the request's own input, not the chain's."""
    found = _find(state, request, handle)
    return Answer(paging.page(request, [item.body for item in found.input]))


def input_tokens(state: State, request: Request) -> Answer:
    """Answer POST /responses/input_tokens."""
    body = {"model": "gpt-4o-mini", **request.json()}
    turn = responses.Turn(state, request, body, responses.check_shape(state, body))
    responses.find_state(turn)
    tokens = models.weigh(str(body["model"]), turn.prompt().tokens())
    return Answer({"object": "response.input_tokens", "input_tokens": tokens})


def compact(state: State, request: Request) -> Answer:
    """Answer POST /responses/compact: the user messages and one sealed item (FACTS 3.4)."""
    body = request.json()
    turn = responses.Turn(state, request, body, responses.check_shape(state, body))
    responses.find_state(turn)
    responses.check_capability(body)
    context = [*turn.context, *turn.input]
    said = "\n".join(text.text_of_item(one) for one in items.opened(state, context))
    blob = state.seal(request.project, said)
    sealed = items.fresh(state, request.project, {"type": "compaction", "encrypted_content": blob})
    state.keep_item(sealed)
    for item in turn.input:
        state.keep_item(item)
    users = [item.body for item in context if item.body.get("role") == "user"]
    used = response_body.usage(turn.prompt().tokens(), text.TOKENS_PER_ITEM)
    return Answer(
        {
            "id": state.ids.hexed("resp"),
            "object": "response.compaction",
            "created_at": int(state.clock.now()),
            "output": [*users, sealed.body],
            "usage": used,
        }
    )
