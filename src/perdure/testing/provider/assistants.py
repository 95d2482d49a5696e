"""The /assistants routes, as far as runs need them."""

from __future__ import annotations

from perdure.testing.provider import errors, models, paging, schema
from perdure.testing.provider.state import Assistant, State
from perdure.testing.provider.wire import Answer, Json, Request

SETTINGS: Json = {
    "name": None,
    "description": None,
    "model": None,
    "instructions": None,
    "tools": [],
    "top_p": 1.0,
    "temperature": 1.0,
    "reasoning_effort": None,
    "tool_resources": {},
    "metadata": {},
    "response_format": "auto",
}


def create(state: State, request: Request) -> Answer:
    """Answer POST /assistants."""
    body = request.json()
    if not isinstance(body.get("model"), str):
        raise errors.MISSING.error(param="model")
    schema.check_metadata(body.get("metadata"))
    models.require(body["model"])
    handle = state.ids.short("asst")
    wire = {"id": handle, "object": "assistant", "created_at": int(state.clock.now()), **SETTINGS}
    assistant = Assistant(handle, request.project, wire | _given(body))
    state.assistants[handle] = assistant
    return Answer(assistant.body)


def _given(body: Json) -> Json:
    return {name: body[name] for name in SETTINGS if body.get(name) is not None}


def find(state: State, request: Request, handle: object) -> Assistant:
    """Return an assistant, or refuse the id."""
    if not isinstance(handle, str):
        raise errors.MISSING.error(param="assistant_id")
    schema.check_handle(handle, "assistant_id", "asst")
    found = state.find_assistant(handle, request.project)
    if found is None:
        raise errors.ASSISTANT_NOT_FOUND.error(id=handle)
    return found


def list_all(state: State, request: Request) -> Answer:
    """Answer GET /assistants."""
    mine = [one.body for one in state.assistants.values() if one.project == request.project]
    return Answer(paging.page(request, mine))


def retrieve(state: State, request: Request, handle: str) -> Answer:
    """Answer GET /assistants/{id}."""
    return Answer(find(state, request, handle).body)


def update(state: State, request: Request, handle: str) -> Answer:
    """Answer POST /assistants/{id}."""
    body = request.json()
    found = find(state, request, handle)
    found.body = found.body | _given(body)
    return Answer(found.body)


def delete(state: State, request: Request, handle: str) -> Answer:
    """Answer DELETE /assistants/{id}."""
    found = find(state, request, handle)
    del state.assistants[found.id]
    return Answer({"id": found.id, "object": "assistant.deleted", "deleted": True})
