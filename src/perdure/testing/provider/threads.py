"""The /threads routes but for runs: threads and their messages (FACTS 1)."""

from __future__ import annotations

from collections.abc import Iterable

from perdure.testing.provider import (
    errors,
    paging,
    run_work,
    schema,
    thread_schema,
    vector_stores,
)
from perdure.testing.provider.state import State, Thread
from perdure.testing.provider.wire import Answer, Json, Request


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
    for name in body:
        if name not in {"messages", "metadata", "tool_resources"}:
            raise errors.UNKNOWN_PARAMETER.error(param=name)
    metadata = schema.check_metadata(body.get("metadata"))
    resources = thread_schema.check_resources(body.get("tool_resources"), creating=True)
    messages = [
        thread_schema.check_message(raw, f"messages[{index}].")
        for index, raw in enumerate(body.get("messages") or [])
    ]
    thread_schema.check_files(state, request.project, messages, resources)
    now = state.clock.now()
    handle = state.ids.short("thread")
    wire = {
        "id": handle,
        "object": "thread",
        "created_at": int(now),
        "metadata": metadata,
        "tool_resources": _shown(state, request.project, resources),
    }
    thread = Thread(handle, request.project, now, now, wire)
    for raw in messages:
        append(state, thread, raw)
    return thread


def _shown(state: State, project: str, resources: Json) -> Json:
    """Return tool resources as answered: a store that is made along is one like any other."""
    shown = {name: dict(inner) for name, inner in resources.items() if inner}
    for store in shown.get("file_search", {}).pop("vector_stores", None) or ():
        made = vector_stores.keep(state, project, store)
        shown["file_search"]["vector_store_ids"] = [made.id]
    return shown


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
    changed: Json = {}
    if "metadata" in body:
        changed["metadata"] = schema.check_metadata(body["metadata"])
    if body.get("tool_resources") is not None:
        resources = thread_schema.check_resources(body["tool_resources"], creating=False)
        thread_schema.check_files(state, request.project, [], resources)
        changed["tool_resources"] = found.body["tool_resources"] | resources
    found.body = found.body | changed
    return Answer(found.body)


def delete(state: State, request: Request, handle: str) -> Answer:
    """Answer DELETE /threads/{id}."""
    found = find(state, request, handle)
    del state.threads[found.id]
    return Answer({"id": found.id, "object": "thread.deleted", "deleted": True})


def append(state: State, thread: Thread, raw: Json) -> Json:
    """Add a message the caller wrote."""
    content = raw["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    wire = run_work.message_wire(state, thread, raw["role"], [*map(_part, parts)])
    wire["metadata"] = raw.get("metadata") or {}
    wire["attachments"] = raw.get("attachments") or []
    thread.messages[wire["id"]] = wire
    for attachment in wire["attachments"]:
        for tool in attachment.get("tools") or ():
            _attach(state, thread, tool["type"], attachment["file_id"])
    return wire


def _attach(state: State, thread: Thread, tool: str, file_id: str) -> None:
    """Add a message's file to what the thread's tools may use, in a store made for it if needed."""
    resources = dict(thread.body["tool_resources"])
    if tool == "code_interpreter":
        ids: list[str] = (resources.get(tool) or {}).get("file_ids") or []
        resources[tool] = {"file_ids": [*ids, *({file_id} - {*ids})]}
    else:
        stores: Iterable[str] = (resources.get(tool) or {}).get("vector_store_ids") or ()
        found = [state.find_vector_store(one, thread.project) for one in stores]
        store = found[0] if found else vector_stores.keep(state, thread.project, {})
        if store is not None:
            store.add([file_id])
            resources[tool] = {"vector_store_ids": [store.id]}
    thread.body = thread.body | {"tool_resources": resources}


def _part(part: Json) -> Json:
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": {"value": part["text"], "annotations": []}}
    return part


def create_message(state: State, request: Request, handle: str) -> Answer:
    """Answer POST /threads/{id}/messages."""
    raw = thread_schema.check_message(request.json(), "")
    thread = find(state, request, handle)
    thread_schema.check_files(state, request.project, [raw], {})
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
