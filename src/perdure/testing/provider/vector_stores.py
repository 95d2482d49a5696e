"""The /vector_stores routes, as far as threads need them: made of files, and deleted."""

from __future__ import annotations

from perdure.testing.provider import errors, schema
from perdure.testing.provider.state import State, VectorStore
from perdure.testing.provider.wire import Answer, Json, Request


def create(state: State, request: Request) -> Answer:
    """Answer POST /vector_stores."""
    body = request.json()
    for name in body:
        if name not in {"name", "file_ids", "expires_after", "metadata", "chunking_strategy"}:
            raise errors.UNKNOWN_PARAMETER.error(param=name)
    return Answer(keep(state, request.project, body).body)


def keep(state: State, project: str, body: Json) -> VectorStore:
    """Make a vector store of files that are there."""
    file_ids = body.get("file_ids") or []
    for file_id in file_ids:
        if state.find_file(file_id, project) is None:
            raise errors.FILE_NOT_FOUND.error(id=file_id)
    metadata = schema.check_metadata(body.get("metadata"))
    handle, now = state.ids.hexed("vs"), state.clock.now()
    wire: Json = {
        "id": handle,
        "object": "vector_store",
        "created_at": int(now),
        "name": body.get("name"),
        "usage_bytes": 0,
        "status": "completed",
        "expires_after": body.get("expires_after"),
        "expires_at": None,
        "last_active_at": int(now),
        "metadata": metadata,
    }
    state.vector_stores[handle] = VectorStore(handle, project, wire, now)
    state.vector_stores[handle].add(file_ids)
    return state.vector_stores[handle]


def _find(state: State, request: Request, handle: str) -> VectorStore:
    found = state.find_vector_store(handle, request.project)
    if found is None:
        raise errors.VECTOR_STORE_NOT_FOUND.error(id=handle)
    return found


def retrieve(state: State, request: Request, handle: str) -> Answer:
    """Answer GET /vector_stores/{id}."""
    return Answer(_find(state, request, handle).body)


def delete(state: State, request: Request, handle: str) -> Answer:
    """Answer DELETE /vector_stores/{id}."""
    found = _find(state, request, handle)
    del state.vector_stores[found.id]
    return Answer({"id": found.id, "object": "vector_store.deleted", "deleted": True})
