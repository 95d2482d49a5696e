"""Streamed answers: held back while they may still be a loss, then passed on under a tap.

A provider can report a loss inside a 200: its stream opens, and the first event that says
anything is the error. So the opening is held until an event shows that the call is under way (or
the hold has lasted long enough); from the first byte passed on there is no recovery any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from perdure.dialects.body import with_members
from perdure.dialects.items import dumps
from perdure.dialects.sse import Event, Parser
from perdure.dialects.verdicts import Fault
from perdure.engine.ops import (
    Answer,
    Closed,
    Elapsed,
    Emit,
    Pull,
    Release,
    SendFailed,
    Start,
)
from perdure.engine.wire import Wire
from perdure.errors import CutStream
from perdure.flow import Flow

_ERROR_STATUS = 400


class Reader(Protocol):
    """What a dialect's reader of events offers."""

    fault: Fault | None
    terminal: bool

    def opening(self, event: Event) -> bool: ...
    def annotated(self, event: Event) -> bool: ...
    def observe(self, event: Event) -> None: ...


@dataclass(slots=True)
class Opening:
    """A stream that has begun: its head, and the events read so far but not passed on."""

    answer: Answer
    reader: Reader
    parser: Parser
    held: list[Event] = field(default_factory=list)
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Loss:
    """A stream whose first word was an error."""

    fault: Fault
    opening: Opening

    def as_answer(self, answer: Answer) -> Answer:
        """Return the error as the HTTP error that it would have been without a stream."""
        error = {
            "message": self.fault.message,
            "type": self.fault.type or "invalid_request_error",
            "param": self.fault.param,
            "code": self.fault.code,
        }
        whole = Answer(_ERROR_STATUS, answer.headers, dumps({"error": error}).encode())
        return whole.edited(headers=())


def open_stream(
    wire: Wire, answer: Answer, reader: Reader, *, may_be_lost: bool
) -> Flow[Opening | Loss]:
    """Read the opening of a stream until it shows whether the call is under way."""
    opening = Opening(answer, reader, Parser())
    if not may_be_lost:
        return opening
    began = yield from Elapsed()
    limit = wire.call.policy.hold.total_seconds()
    while True:
        left = limit - ((yield from Elapsed()) - began)
        if left <= 0:
            return opening
        chunk = yield from Pull(answer.stream, left)
        if chunk is None:
            opening.ended = True
            return opening
        decided = False
        for event in opening.parser.feed(chunk):
            reader.observe(event)
            opening.held.append(event)
            if reader.fault is not None and not decided:
                return Loss(reader.fault, opening)
            decided = decided or not reader.opening(event)
        if decided:
            return opening


def pass_stream(
    head: Answer,
    opening: Opening | None = None,
    *,
    ended: Callable[[], Flow[bool]] | None = None,
    cut: Callable[[str], Flow[None]] | None = None,
    note: Callable[[], str | None] | None = None,
) -> Flow[Answer]:
    """Pass a stream on, piece by piece, as the body of the caller's answer.

    ``ended`` runs when the terminal event is read, before it is passed on, ``cut`` when the stream
    ends or is closed before that; ``note`` gives the member that tells of a recovery.
    """
    stream = head.stream
    settled = False
    try:
        yield from Start(head)
        held: list[Event] | None = opening.held if opening else None
        while True:
            if held is None:
                if opening is not None and opening.ended:
                    break
                chunk = yield from Pull(stream)
                if chunk is None:
                    break
                if opening is None:
                    yield from Emit(chunk)
                    continue
                held = opening.parser.feed(chunk)
                for event in held:
                    opening.reader.observe(event)
            assert opening is not None
            if opening.reader.terminal and not settled and ended is not None:
                settled = True
                yield from ended()
            if held:
                yield from Emit(b"".join(_noted(event, opening.reader, note) for event in held))
            held = None
        if opening is not None and opening.parser.rest:
            yield from Emit(opening.parser.rest)
    except Closed:
        if not settled and cut is not None:
            yield from cut("closed by the caller")
        yield from Release(stream)
        return head
    except SendFailed as failure:
        if not settled and cut is not None:
            yield from cut(str(failure))
        raise failure.cause from None
    if not settled and cut is not None:
        yield from cut("ended before its terminal event")
        raise CutStream(
            "The provider's stream ended before its terminal event: the answer is incomplete. "
            "What arrived is stored; send the message again."
        )
    return head


def _noted(event: Event, reader: Reader, note: Callable[[], str | None] | None) -> bytes:
    """Return an event's bytes, with the news of a recovery where the event carries the object."""
    member = note() if note is not None and reader.annotated(event) else None
    if member is None:
        return event.raw
    return event.replaced(_with_note(event, member))


def _with_note(event: Event, member: str) -> str:
    """Add a member to the ``response`` of an event, or to the run that the event is."""
    value = event.json()
    if "response" not in value:
        return with_members(event.data, member)
    inner = with_members(dumps(value["response"]), member)
    rest = {key: item for key, item in value.items() if key != "response"}
    return with_members(dumps(rest), f'"response":{inner}')
