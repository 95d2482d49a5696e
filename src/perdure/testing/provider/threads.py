"""The /threads routes but for runs: threads and their messages (FACTS 1)."""

from __future__ import annotations

from perdure.testing.provider import errors, paging, run_work, schema
from perdure.testing.provider.state import State, Thread
from perdure.testing.provider.wire import Answer, Json, Request

MESSAGE_ROLES = ("user", "assistant")


def find(state: State, request: Request, handle: str) -> Thread:
    """Return a thread with its runs moved on by the clock, or refuse the id."""
    schema.check_handle(handle, "thread_id", "thread")
    found = state.find_thread(handle, request.project)
    if found is None:
        raise errors.THREAD_NOT_FOUND.error(id=handle)
    for run in found.runs.values():
        run_work.advance_by_clock(state, found, run)
    return found


def build(state: State, request: Request, body: Json) -> Thread:
    """Return a new thread with its first messages, not yet kept."""
    metadata = schema.check_metadata(body.get("metadata"))
    now = state.clock.now()
    handle = state.ids.short("thread")
    wire = {
        "id": handle,
        "object": "thread",
        "created_at": int(now),
        "metadata": metadata,
        "tool_resources": body.get("tool_resources") or {},
    }
    thread = Thread(handle, request.project, now, now, wire)
    for index, raw in enumerate(body.get("messages") or []):
        append(state, thread, check_message(raw, f"messages[{index}]."))
    return thread


def create(state: State, request: Request) -> Answer:
    """Answer POST /threads."""
    thread = build(state, request, request.json())
    state.threads[thread.id] = thread
    return Answer(thread.body)


def retrieve(state: State, request: Request, handle: str) -> Answer:
    """Answer GET /threads/{id}."""
    return Answer(find(state, request, handle).body)


def update(state: State, request: Request, handle: str) -> Answer:
    """Answer POST /threads/{id}."""
    body = request.json()
    found = find(state, request, handle)
    if "metadata" in body:
        found.body = found.body | {"metadata": schema.check_metadata(body["metadata"])}
    if body.get("tool_resources") is not None:
        found.body = found.body | {"tool_resources": body["tool_resources"]}
    return Answer(found.body)


def delete(state: State, request: Request, handle: str) -> Answer:
    """Answer DELETE /threads/{id}."""
    found = find(state, request, handle)
    del state.threads[found.id]
    return Answer({"id": found.id, "object": "thread.deleted", "deleted": True})


def check_message(raw: object, at: str) -> Json:
    """Return one message to be added, or refuse its shape."""
    if not isinstance(raw, dict):
        raise errors.INVALID_TYPE.error(
            param=at.rstrip("."), expected="an object", got=schema.json_type(raw)
        )
    for name in ("role", "content"):
        if raw.get(name) is None:
            raise errors.MISSING.error(param=f"{at}{name}")
    for name in raw:
        if name not in {"role", "content", "metadata", "attachments"}:
            raise errors.UNKNOWN_PARAMETER.error(param=f"{at}{name}")
    if raw["role"] not in MESSAGE_ROLES:
        raise errors.INVALID_VALUE.error(
            param=f"{at}role", value=raw["role"], supported="'user' and 'assistant'"
        )
    schema.check_metadata(raw.get("metadata"), f"{at}metadata")
    return raw


def append(state: State, thread: Thread, raw: Json) -> Json:
    """Add a message the caller wrote."""
    content = raw["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    wire = run_work.message_wire(state, thread, raw["role"], [*map(_part, parts)])
    wire["metadata"] = raw.get("metadata") or {}
    wire["attachments"] = raw.get("attachments") or []
    thread.messages[wire["id"]] = wire
    return wire


def _part(part: Json) -> Json:
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": {"value": part["text"], "annotations": []}}
    return part


def create_message(state: State, request: Request, handle: str) -> Answer:
    """Answer POST /threads/{id}/messages."""
    raw = check_message(request.json(), "")
    thread = find(state, request, handle)
    active = run_work.active_run(thread)
    if active is not None:
        raise errors.RUN_ACTIVE_MESSAGE.error(thread=thread.id, run=active.id)
    return Answer(append(state, thread, raw))


def list_messages(state: State, request: Request, handle: str) -> Answer:
    """Answer GET /threads/{id}/messages."""
    thread = find(state, request, handle)
    run_id = request.asked("run_id")
    rows = [row for row in thread.messages.values() if run_id in {None, row["run_id"]}]
    return Answer(paging.page(request, rows))


def _find_message(state: State, request: Request, handle: str, message: str) -> tuple[Thread, Json]:
    thread = find(state, request, handle)
    found = thread.messages.get(message)
    if found is None:
        raise errors.MESSAGE_NOT_FOUND.error(id=message)
    return thread, found


def retrieve_message(state: State, request: Request, handle: str, message: str) -> Answer:
    """Answer GET /threads/{id}/messages/{message_id}."""
    return Answer(_find_message(state, request, handle, message)[1])


def update_message(state: State, request: Request, handle: str, message: str) -> Answer:
    """Answer POST /threads/{id}/messages/{message_id}."""
    body = request.json()
    _thread, found = _find_message(state, request, handle, message)
    if "metadata" in body:
        found["metadata"] = schema.check_metadata(body["metadata"])
    return Answer(found)


def delete_message(state: State, request: Request, handle: str, message: str) -> Answer:
    """Answer DELETE /threads/{id}/messages/{message_id}."""
    thread, found = _find_message(state, request, handle, message)
    del thread.messages[found["id"]]
    return Answer({"id": found["id"], "object": "thread.message.deleted", "deleted": True})
