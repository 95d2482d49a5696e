"""A stored answer as the stream of events in which it would have arrived."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from perdure.dialects.items import dumps
from perdure.dialects.sse import encode


def response_events(body: bytes, *, after: int = -1) -> bytes:
    """Return the complete, legal event sequence of a finished response.

    ``after``: for a reader that has seen another sequence, with more events, up to that number. It
    gets everything once more that says something whole, and the end.
    """
    events = _events(json.loads(body))
    if after >= 0:
        events = ((name, data) for name, data in events if _is_whole(name))
    return b"".join(
        encode(name, dumps({"type": name, "sequence_number": number, **data}))
        for number, (name, data) in enumerate(events, after + 1)
    )


def run_events(run: dict[str, Any], messages: Iterable[dict[str, Any]]) -> bytes:
    """Return the event sequence of a run as far as it has come, and of what it has said."""
    events = [encode(name, dumps(data)) for name, data in _run_events(run, messages)]
    return b"".join([*events, encode("done", "[DONE]")])


def _events(response: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for index, item in enumerate(response.get("output") or ()):
        yield from _item_events(index, item)
    yield f"response.{response.get('status', 'completed')}", {"response": response}


def _is_whole(name: str) -> bool:
    return name.endswith((".done", ".completed", ".incomplete", ".failed", ".cancelled"))


def _item_events(index: int, item: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    at = {"output_index": index}
    here = {"item_id": item.get("id"), **at}
    begun = {**item, "status": "in_progress"}
    match item.get("type"):
        case "message":
            yield "response.output_item.added", {**at, "item": {**begun, "content": []}}
            for number, part in enumerate(item.get("content") or ()):
                yield from _part_events({**here, "content_index": number}, part)
        case "function_call":
            arguments = item.get("arguments", "")
            yield "response.output_item.added", {**at, "item": {**begun, "arguments": ""}}
            yield "response.function_call_arguments.delta", {**here, "delta": arguments}
            yield "response.function_call_arguments.done", {**here, "arguments": arguments}
        case _:
            yield "response.output_item.added", {**at, "item": begun}
    yield "response.output_item.done", {**at, "item": item}


def _part_events(
    here: dict[str, Any], part: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    key = "refusal" if part.get("type") == "refusal" else "text"
    name = "refusal" if key == "refusal" else "output_text"
    text = part.get(key, "")
    extra: dict[str, Any] = {} if key == "refusal" else {"logprobs": []}
    yield "response.content_part.added", {**here, "part": {**part, key: ""}}
    yield f"response.{name}.delta", {**here, "delta": text, **extra}
    yield f"response.{name}.done", {**here, key: text, **extra}
    yield "response.content_part.done", {**here, "part": part}


def _run_events(
    run: dict[str, Any], messages: Iterable[dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    status = run.get("status", "completed")
    begun = {**run, "usage": None, "required_action": None}
    yield "thread.run.created", {**begun, "status": "queued"}
    begun.pop("perdure", None)  # told as the run begins, and as it ends
    yield "thread.run.queued", {**begun, "status": "queued"}
    if status == "queued":
        return
    yield "thread.run.in_progress", {**begun, "status": "in_progress"}
    for message in messages:
        yield from _message_events(message)
    if status != "in_progress":
        yield f"thread.run.{status}", run


def _message_events(message: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    begun = {**message, "status": "in_progress", "content": []}
    yield "thread.message.created", begun
    yield "thread.message.in_progress", begun
    content = [{"index": at, **part} for at, part in enumerate(message.get("content") or ())]
    delta = {"id": message.get("id"), "object": "thread.message.delta"}
    yield "thread.message.delta", {**delta, "delta": {"content": content}}
    yield f"thread.message.{message.get('status', 'completed')}", message
