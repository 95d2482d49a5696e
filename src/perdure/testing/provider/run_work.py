"""What a run does: its states, its steps, its message, as one sequence of events."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from perdure.testing.provider import model, text, turn
from perdure.testing.provider.state import Run, State, Thread
from perdure.testing.provider.wire import Event, Json

RUN_SECONDS = 5.0
"""How long a run takes by the clock, if nobody asks for it."""
ACTIVE = frozenset({"queued", "in_progress", "requires_action", "cancelling"})


def active_run(thread: Thread) -> Run | None:
    """Return the run that keeps the thread busy."""
    return next((run for run in thread.runs.values() if run.body["status"] in ACTIVE), None)


def advance_by_clock(state: State, thread: Thread, run: Run) -> None:
    """Complete a run whose time has come, or expire one that waited too long."""
    now = state.clock.now()
    if run.body["status"] in {"queued", "in_progress"} and now - run.since >= RUN_SECONDS:
        finish(state, thread, run)
    expires = run.body["expires_at"]
    if run.body["status"] in ACTIVE and expires is not None and now >= expires:
        run.body |= {"status": "expired", "expires_at": None, "required_action": None}
        close_steps(run, "expired", int(now))


def advance(state: State, thread: Thread, run: Run) -> None:
    """Move a run on by one state, which each read of it does."""
    status = run.body["status"]
    if status == "queued":
        run.body |= {"status": "in_progress", "started_at": int(state.clock.now())}
    elif status == "in_progress":
        finish(state, thread, run)
    elif status == "cancelling":
        now = int(state.clock.now())
        run.body |= {"status": "cancelled", "cancelled_at": now, "expires_at": None}
        close_steps(run, "cancelled", now)


def finish(state: State, thread: Thread, run: Run) -> None:
    """Do all that a run does until it ends or needs its tools."""
    deque(perform(state, thread, run), maxlen=0)


def close_steps(run: Run, status: str, now: int) -> None:
    """End the steps that were still open."""
    for step in run.steps:
        if step["status"] == "in_progress":
            step |= {"status": status, f"{status}_at": now}


def perform(state: State, thread: Thread, run: Run) -> Iterator[Event]:
    """Yield what happens from `in_progress` on; each event is true when it is yielded."""
    now = int(state.clock.now())
    run.body |= {"status": "in_progress", "started_at": run.body["started_at"] or now}
    yield "thread.run.in_progress", dict(run.body)
    prompt = _prompt(thread, run)
    said = turn.speak(state, prompt)
    cut, said = turn.cut(said, run.body["max_completion_tokens"])
    _count(run, prompt.tokens(), text.count_items(said))
    for raw in said:
        if raw.get("type", "message") == "message":
            yield from _say(state, thread, run, raw, cut=cut)
    calls = [raw for raw in said if raw.get("type") == "function_call"]
    if calls:
        yield from _call(state, thread, run, calls)
        return
    status = "incomplete" if cut else "completed"
    run.body |= {"status": status, "expires_at": None, "completed_at": None if cut else now}
    if cut:
        run.body["incomplete_details"] = {"reason": "max_completion_tokens"}
    yield f"thread.run.{status}", dict(run.body)


def _prompt(thread: Thread, run: Run) -> model.Prompt:
    items: list[Json] = [
        {"type": "message", "role": row["role"], "content": row["content"]}
        for row in thread.messages.values()
    ]
    strategy = run.body["truncation_strategy"]
    if strategy["type"] == "last_messages" and strategy.get("last_messages"):
        items = items[-strategy["last_messages"] :]
    if run.forgot:
        items = items[-1:]
    return model.Prompt(
        items=[*items, *run.scratch],
        instructions=run.body["instructions"],
        tools=run.body["tools"],
        tool_choice=run.body["tool_choice"],
    )


def _count(run: Run, prompt_tokens: int, completion_tokens: int) -> None:
    before = run.body["usage"] or {"prompt_tokens": 0, "completion_tokens": 0}
    prompt_tokens += before["prompt_tokens"]
    completion_tokens += before["completion_tokens"]
    run.body["usage"] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_token_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _say(state: State, thread: Thread, run: Run, raw: Json, *, cut: bool) -> Iterator[Event]:
    now = int(state.clock.now())
    message = message_wire(state, thread, "assistant", [])
    message |= {"assistant_id": run.body["assistant_id"], "run_id": run.id}
    details = {"type": "message_creation", "message_creation": {"message_id": message["id"]}}
    step = _new_step(state, thread, run, details)
    yield from _both("thread.run.step", step)
    message |= {"status": "in_progress", "completed_at": None}
    yield from _both("thread.message", message)
    said = text.text_of_item(raw)
    for piece in text.pieces(said):
        yield "thread.message.delta", _text_delta(message["id"], piece)
    status = "incomplete" if cut else "completed"
    message |= {"status": status, f"{status}_at": now}
    message["content"] = [{"type": "text", "text": {"value": said, "annotations": []}}]
    if cut:
        message["incomplete_details"] = {"reason": "max_tokens"}
    thread.messages[message["id"]] = message
    yield f"thread.message.{status}", dict(message)
    _end_step(run, step, now)
    yield "thread.run.step.completed", dict(step)


def _both(kind: str, wire: Json) -> Iterator[Event]:
    yield f"{kind}.created", dict(wire)
    yield f"{kind}.in_progress", dict(wire)


def _text_delta(handle: str, piece: str) -> Json:
    part = {"index": 0, "type": "text", "text": {"value": piece}}
    return {"id": handle, "object": "thread.message.delta", "delta": {"content": [part]}}


def _call(state: State, thread: Thread, run: Run, said: list[Json]) -> Iterator[Event]:
    calls = [_tool_call(state, raw) for raw in said]
    run.scratch += [_scratch_call(call) for call in calls]
    step = _new_step(state, thread, run, {"type": "tool_calls", "tool_calls": []})
    yield from _both("thread.run.step", step)
    for index, call in enumerate(calls):
        yield "thread.run.step.delta", _call_delta(step["id"], index, call)
    told = [{**call, "function": {**call["function"], "output": None}} for call in calls]
    step["step_details"] = {"type": "tool_calls", "tool_calls": told}
    run.body |= {
        "status": "requires_action",
        "required_action": {
            "type": "submit_tool_outputs",
            "submit_tool_outputs": {"tool_calls": calls},
        },
    }
    yield "thread.run.requires_action", dict(run.body)


def _tool_call(state: State, raw: Json) -> Json:
    function = {"name": raw["name"], "arguments": raw.get("arguments", "{}")}
    handle = raw.get("call_id") or state.ids.short("call")
    return {"id": handle, "type": "function", "function": function}


def _scratch_call(call: Json) -> Json:
    return {"type": "function_call", "call_id": call["id"], **call["function"]}


def _call_delta(handle: str, index: int, call: Json) -> Json:
    told = {"index": index, **call, "function": {**call["function"], "output": None}}
    details = {"type": "tool_calls", "tool_calls": [told]}
    return {"id": handle, "object": "thread.run.step.delta", "delta": {"step_details": details}}


def take_outputs(state: State, run: Run, outputs: dict[str, str]) -> Json:
    """Give a waiting run its tool outputs, queue it again, and return its finished step."""
    step = next(step for step in reversed(run.steps) if step["type"] == "tool_calls")
    for call in step["step_details"]["tool_calls"]:
        call["function"]["output"] = outputs[call["id"]]
    run.scratch += [
        {"type": "function_call_output", "call_id": call_id, "output": told}
        for call_id, told in outputs.items()
    ]
    _end_step(run, step, int(state.clock.now()))
    run.body |= {"status": "queued", "required_action": None}
    run.since = state.clock.now()
    return step


def _new_step(state: State, thread: Thread, run: Run, details: Json) -> Json:
    step: Json = {
        "id": state.ids.short("step"),
        "object": "thread.run.step",
        "created_at": int(state.clock.now()),
        "run_id": run.id,
        "assistant_id": run.body["assistant_id"],
        "thread_id": thread.id,
        "type": details["type"],
        "status": "in_progress",
        "cancelled_at": None,
        "completed_at": None,
        "expired_at": None,
        "failed_at": None,
        "last_error": None,
        "step_details": details,
        "usage": None,
        "metadata": {},
    }
    run.steps.append(step)
    return step


def _end_step(run: Run, step: Json, now: int) -> None:
    step |= {"status": "completed", "completed_at": now, "usage": run.body["usage"]}


def message_wire(state: State, thread: Thread, role: str, content: list[Json]) -> Json:
    """Return a new message object."""
    now = int(state.clock.now())
    return {
        "id": state.ids.short("msg"),
        "object": "thread.message",
        "created_at": now,
        "assistant_id": None,
        "thread_id": thread.id,
        "run_id": None,
        "role": role,
        "content": content,
        "attachments": [],
        "metadata": {},
        "status": "completed",
        "completed_at": now,
        "incomplete_at": None,
        "incomplete_details": None,
    }
