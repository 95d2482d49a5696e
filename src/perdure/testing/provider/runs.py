"""The run routes of the threads API: create, read, cancel, submit, steps."""

from __future__ import annotations

from collections.abc import Iterator

from perdure.testing.provider import (
    assistants,
    errors,
    models,
    paging,
    run_work,
    schema,
    thread_schema,
    threads,
)
from perdure.testing.provider.state import Assistant, Run, State, Thread
from perdure.testing.provider.wire import Answer, Event, Json, Request

EXPIRES_AFTER_SECONDS = 600
POLL = {"openai-poll-after-ms": "1"}
"""Lets the SDK's polling helpers go on at once."""


def create(state: State, request: Request, handle: str) -> Answer:
    """Answer POST /threads/{id}/runs."""
    body = request.json()
    thread = threads.find(state, request, handle)
    assistant = _assistant(state, request, body)
    active = run_work.active_run(thread)
    if active is not None:
        raise errors.RUN_ACTIVE_RUN.error(thread=thread.id, run=active.id)
    return _start(state, request, thread, assistant, body)


def create_with_thread(state: State, request: Request) -> Answer:
    """Answer POST /threads/runs."""
    body = request.json()
    assistant = _assistant(state, request, body)
    thread = threads.build(state, request, body.get("thread") or {})
    state.threads[thread.id] = thread
    return _start(state, request, thread, assistant, body, created_thread=True)


def _assistant(state: State, request: Request, body: Json) -> Assistant:
    if body.get("model") is not None:
        models.require(body["model"])
    schema.check_metadata(body.get("metadata"))
    return assistants.find(state, request, body.get("assistant_id"))


def _start(
    state: State,
    request: Request,
    thread: Thread,
    assistant: Assistant,
    body: Json,
    *,
    created_thread: bool = False,
) -> Answer:
    added = [
        thread_schema.check_message(raw, f"additional_messages[{index}].")
        for index, raw in enumerate(body.get("additional_messages") or [])
    ]
    thread_schema.check_files(state, request.project, added, {})
    for raw in added:
        threads.append(state, thread, raw)
    run = Run(state.ids.short("run"), {}, state.clock.now())
    run.body = _wire(state, thread, assistant, run.id, body)
    run.forgot = request.fault("amnesia") is not None
    thread.runs[run.id] = run
    if not body.get("stream"):
        return Answer(dict(run.body))
    first: list[Event] = [("thread.created", thread.body)] if created_thread else []
    first.append(("thread.run.created", dict(run.body)))
    return Answer(events=_streamed(state, thread, run, first))


def _streamed(state: State, thread: Thread, run: Run, first: list[Event]) -> Iterator[Event]:
    yield from first
    yield "thread.run.queued", dict(run.body)
    yield from run_work.perform(state, thread, run)
    yield "done", "[DONE]"


def _wire(state: State, thread: Thread, assistant: Assistant, handle: str, body: Json) -> Json:
    now = int(state.clock.now())
    theirs = assistant.body
    instructions = _or(body.get("instructions"), theirs["instructions"] or "")
    if body.get("additional_instructions"):
        instructions = f"{instructions}\n{body['additional_instructions']}".strip()
    return {
        "id": handle,
        "object": "thread.run",
        "created_at": now,
        "assistant_id": assistant.id,
        "thread_id": thread.id,
        "status": "queued",
        "started_at": None,
        "expires_at": now + EXPIRES_AFTER_SECONDS,
        "cancelled_at": None,
        "failed_at": None,
        "completed_at": None,
        "required_action": None,
        "last_error": None,
        "model": body.get("model") or theirs["model"],
        "instructions": instructions,
        "tools": _or(body.get("tools"), theirs["tools"]),
        "tool_resources": {},
        "metadata": body.get("metadata") or {},
        "temperature": _or(body.get("temperature"), theirs["temperature"]),
        "top_p": _or(body.get("top_p"), theirs["top_p"]),
        "reasoning_effort": body.get("reasoning_effort"),
        "max_completion_tokens": body.get("max_completion_tokens"),
        "max_prompt_tokens": body.get("max_prompt_tokens"),
        "truncation_strategy": body.get("truncation_strategy")
        or {"type": "auto", "last_messages": None},
        "incomplete_details": None,
        "usage": None,
        "response_format": _or(body.get("response_format"), theirs["response_format"]),
        "tool_choice": _or(body.get("tool_choice"), "auto"),
        "parallel_tool_calls": _or(body.get("parallel_tool_calls"), default=True),
    }


def _or(value: object, default: object) -> object:
    return default if value is None else value


def _find(state: State, request: Request, handle: str, run_id: str) -> tuple[Thread, Run]:
    thread = threads.find(state, request, handle)
    schema.check_handle(run_id, "run_id", "run")
    found = thread.runs.get(run_id)
    if found is None:
        raise errors.RUN_NOT_FOUND.error(id=run_id)
    return thread, found


def list_all(state: State, request: Request, handle: str) -> Answer:
    """Answer GET /threads/{id}/runs."""
    thread = threads.find(state, request, handle)
    return Answer(paging.page(request, [run.body for run in thread.runs.values()]))


def retrieve(state: State, request: Request, handle: str, run_id: str) -> Answer:
    """Answer GET /threads/{id}/runs/{run_id}; each read moves the run on by one state."""
    thread, run = _find(state, request, handle, run_id)
    run_work.advance(state, thread, run)
    return Answer(dict(run.body), headers=dict(POLL))


def update(state: State, request: Request, handle: str, run_id: str) -> Answer:
    """Answer POST /threads/{id}/runs/{run_id}."""
    body = request.json()
    _thread, run = _find(state, request, handle, run_id)
    if "metadata" in body:
        run.body["metadata"] = schema.check_metadata(body["metadata"])
    return Answer(dict(run.body))


def cancel(state: State, request: Request, handle: str, run_id: str) -> Answer:
    """Answer POST /threads/{id}/runs/{run_id}/cancel."""
    _thread, run = _find(state, request, handle, run_id)
    if run.body["status"] not in run_work.ACTIVE - {"cancelling"}:
        raise errors.CANNOT_CANCEL_RUN.error(status=run.body["status"])
    run.body |= {"status": "cancelling", "required_action": None}
    return Answer(dict(run.body))


def submit(state: State, request: Request, handle: str, run_id: str) -> Answer:
    """Answer POST /threads/{id}/runs/{run_id}/submit_tool_outputs."""
    body = request.json()
    thread, run = _find(state, request, handle, run_id)
    if run.body["status"] != "requires_action":
        raise errors.NO_TOOL_OUTPUTS_WANTED.error(status=run.body["status"])
    if body.get("tool_outputs") is None:
        raise errors.MISSING.error(param="tool_outputs")
    given = {one.get("tool_call_id"): one.get("output") or "" for one in body["tool_outputs"]}
    action = run.body["required_action"]["submit_tool_outputs"]
    expected = [call["id"] for call in action["tool_calls"]]
    if set(given) != set(expected):
        raise errors.WRONG_TOOL_OUTPUTS.error(expected=expected, got=list(given))
    step = run_work.take_outputs(state, run, {call_id: given[call_id] for call_id in expected})
    if not body.get("stream"):
        return Answer(dict(run.body))
    first: list[Event] = [("thread.run.step.completed", dict(step))]
    return Answer(events=_streamed(state, thread, run, first))


def list_steps(state: State, request: Request, handle: str, run_id: str) -> Answer:
    """Answer GET /threads/{id}/runs/{run_id}/steps."""
    _thread, run = _find(state, request, handle, run_id)
    return Answer(paging.page(request, run.steps))


def retrieve_step(state: State, request: Request, handle: str, run_id: str, step_id: str) -> Answer:
    """Answer GET /threads/{id}/runs/{run_id}/steps/{step_id}."""
    _thread, run = _find(state, request, handle, run_id)
    for step in run.steps:
        if step["id"] == step_id:
            return Answer(step)
    raise errors.STEP_NOT_FOUND.error(id=step_id)
