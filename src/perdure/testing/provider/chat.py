"""POST /chat/completions, which keeps nothing."""

from __future__ import annotations

from collections.abc import Iterator

from perdure.testing.provider import errors, model, models, response_body, text, turn
from perdure.testing.provider.state import State
from perdure.testing.provider.wire import Answer, Event, Json, Request


def create(state: State, request: Request) -> Answer:
    """Answer POST /chat/completions."""
    body = request.json()
    for name in ("model", "messages"):
        if body.get(name) is None:
            raise errors.MISSING.error(param=name)
    models.require(body["model"])
    prompt = model.Prompt(
        items=[one for message in body["messages"] for one in _items(message)],
        tools=body.get("tools") or [],
        tool_choice=body.get("tool_choice", "auto"),
    )
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    was_cut, said = turn.cut(turn.speak(state, prompt), limit)
    choice = _choice(state, said, was_cut=was_cut)
    used = _usage(prompt.tokens(), text.count_items(said))
    name = str(body["model"])
    head: Json = {
        "id": state.ids.short("chatcmpl").replace("_", "-"),
        "object": "chat.completion",
        "created": int(state.clock.now()),
        "model": response_body.SNAPSHOTS.get(name, name),
    }
    if not body.get("stream"):
        extra = {"usage": used, "service_tier": "default", "system_fingerprint": None}
        return Answer({**head, "choices": [choice], **extra})
    with_usage = (body.get("stream_options") or {}).get("include_usage")
    return Answer(events=_chunks(head, choice, used if with_usage else None))


def _items(message: Json) -> list[Json]:
    """Return a chat message as the items the model reads."""
    role = message.get("role")
    if role == "tool":
        output = text.text_of_content(message.get("content"))
        call_id = message.get("tool_call_id")
        return [{"type": "function_call_output", "call_id": call_id, "output": output}]
    content = message.get("content")
    said: list[Json] = []
    if content is not None:
        said.append({"type": "message", "role": role, "content": content})
    said += [
        {"type": "function_call", "call_id": call["id"], **call["function"]}
        for call in message.get("tool_calls") or []
    ]
    return said


def _choice(state: State, said: list[Json], *, was_cut: bool) -> Json:
    spoken = [raw for raw in said if raw.get("type", "message") == "message"]
    calls = [
        {
            "id": raw.get("call_id") or state.ids.short("call"),
            "type": "function",
            "function": {"name": raw["name"], "arguments": raw.get("arguments", "{}")},
        }
        for raw in said
        if raw.get("type") == "function_call"
    ]
    content = "\n".join(map(text.text_of_item, spoken)) if spoken else None
    message: Json = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
    if calls:
        message["tool_calls"] = calls
    reason = "tool_calls" if calls else "length" if was_cut else "stop"
    return {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}


def _usage(prompt_tokens: int, completion_tokens: int) -> Json:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _chunks(head: Json, choice: Json, used: Json | None) -> Iterator[Event]:
    head = {**head, "object": "chat.completion.chunk"}
    message = choice["message"]
    yield None, _chunk(head, {"role": "assistant", "content": "", "refusal": None})
    for piece in text.pieces(message["content"] or ""):
        yield None, _chunk(head, {"content": piece})
    for index, call in enumerate(message.get("tool_calls", ())):
        yield None, _chunk(head, {"tool_calls": [{"index": index, **call}]})
    yield None, _chunk(head, {}, choice["finish_reason"])
    if used is not None:
        yield None, {**head, "choices": [], "usage": used}
    yield None, "[DONE]"


def _chunk(head: Json, delta: Json, reason: str | None = None) -> Json:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return {**head, "choices": [choice]}
