"""The event stream of one response, in the recorded order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from perdure.testing.provider import text
from perdure.testing.provider.wire import Event, Json

OBFUSCATED_CHARS = 16
"""A delta and its obfuscation are padded to a multiple of this, as recorded."""


class EventWriter:
    """Number the events of one response."""

    def __init__(self, *, obfuscate: bool) -> None:
        self.obfuscate = obfuscate
        self.sequence = 0

    def event(self, kind: str, **members: object) -> Event:
        """Return the next event."""
        data: Json = {"type": kind, "sequence_number": self.sequence, **members}
        self.sequence += 1
        return kind, data

    def delta(self, kind: str, piece: str, place: Json, **members: object) -> Event:
        """Return the next delta, padded so that its length tells nothing."""
        if self.obfuscate:
            members = {**members, "obfuscation": _padding(piece, self.sequence)}
        return self.event(kind, **place, delta=piece, **members)


def _padding(piece: str, sequence: int) -> str:
    wanted = -len(piece) % OBFUSCATED_CHARS
    return hashlib.sha256(f"{piece}{sequence}".encode()).hexdigest()[:wanted]


def stream(
    opening: Json, final: Json, settle: Callable[[], None], *, obfuscate: bool
) -> Iterator[Event]:
    """Yield a whole response; the turn is kept just before its terminal event."""
    writer = EventWriter(obfuscate=obfuscate)
    yield writer.event("response.created", response=opening)
    if opening["status"] == "queued":
        yield writer.event("response.queued", response=opening)
    yield writer.event("response.in_progress", response=opening | {"status": "in_progress"})
    for index, item in enumerate(final["output"]):
        yield from _item_events(writer, item, index)
    settle()
    yield writer.event(f"response.{final['status']}", response=final)


def failed(opening: Json, error: Json | None) -> Iterator[Event]:
    """Yield a response that was created and then failed, perhaps without saying why."""
    writer = EventWriter(obfuscate=False)
    yield writer.event("response.created", response=opening)
    reason = error and {"code": error["code"] or "invalid_prompt", "message": error["message"]}
    response = opening | {"status": "failed", "error": reason}
    yield writer.event("response.failed", response=response)


def _item_events(writer: EventWriter, item: Json, index: int) -> Iterator[Event]:
    kind = item["type"]
    yield writer.event("response.output_item.added", output_index=index, item=_unfinished(item))
    if kind == "message":
        for number, part in enumerate(item["content"]):
            place = {"item_id": item["id"], "output_index": index, "content_index": number}
            yield from _part_events(writer, part, place)
    elif kind == "function_call":
        place = {"item_id": item["id"], "output_index": index}
        yield from _argument_events(writer, item, place)
    yield writer.event("response.output_item.done", output_index=index, item=item)


def _unfinished(item: Json) -> Json:
    if item["type"] == "message":
        return item | {"status": "in_progress", "content": []}
    if item["type"] == "function_call":
        return item | {"status": "in_progress", "arguments": ""}
    return item


def _part_events(writer: EventWriter, part: Json, place: Json) -> Iterator[Event]:
    if part["type"] == "refusal":
        said, name, kind = part["refusal"], "refusal", "response.refusal"
    else:
        said, name, kind = part["text"], "text", "response.output_text"
    extra: Json = {"logprobs": []} if name == "text" else {}
    yield writer.event("response.content_part.added", **place, part=part | {name: ""})
    for piece in text.pieces(said):
        yield writer.delta(f"{kind}.delta", piece, place, **extra)
    yield writer.event(f"{kind}.done", **place, **{name: said}, **extra)
    yield writer.event("response.content_part.done", **place, part=part)


def _argument_events(writer: EventWriter, item: Json, place: Json) -> Iterator[Event]:
    kind = "response.function_call_arguments"
    for piece in text.pieces(item["arguments"]):
        yield writer.delta(f"{kind}.delta", piece, place)
    yield writer.event(f"{kind}.done", **place, arguments=item["arguments"], name=item["name"])
