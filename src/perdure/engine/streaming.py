"""Streamed answers: held back while they may still be a loss, then passed on under a tap.

A provider can report a loss inside a 200: its stream opens, and the first event that says
anything is the error. So the opening is held until an event shows that the call is under way (or
the hold has lasted long enough); from the first byte passed on there is no recovery any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from perdure.dialects import verdicts
from perdure.dialects.body import object_in, with_members
from perdure.dialects.items import dumps
from perdure.dialects.shapes import Shape, tells_an_error
from perdure.dialects.sse import Event, Parser
from perdure.dialects.verdicts import Fault, Judgement
from perdure.engine.ending import kept
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
from perdure.engine.wire import JSON, Wire
from perdure.errors import CutStream, PerdureError
from perdure.flow import Flow
from perdure.model import Dialect, value

_ERROR_STATUS: Final = 400
_OF_THE_REPLICA: Final = {"gone", "item_gone", "too_long", "locked"}


class Reader(Protocol):
    """What a dialect's reader of events offers."""

    fault: Fault | None
    terminal: bool

    def opening(self, event: Event) -> bool:
        """Whether the event only announces an answer that may still turn out to be a loss."""

    def annotated(self, event: Event) -> bool:
        """Whether the event carries the whole object, and so the news of a recovery."""

    def observe(self, event: Event) -> None:
        """Take in one event."""


@dataclass(slots=True)
class Opening:
    """A stream that has begun: its head, and the events read so far but not passed on."""

    answer: Answer
    reader: Reader
    parser: Parser
    held: list[Event] = field(default_factory=list)
    ended: bool = False


@value
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
        kept = tuple(one for one in answer.headers if one[0].lower() != "content-type")
        whole = Answer(_ERROR_STATUS, kept, dumps({"error": error}).encode())
        return whole.edited(headers=JSON)


@value
class Attempt:
    """One request and what came of it: a whole answer, or a stream that has begun.

    ``shown`` is the object that a whole answer is, decoded once for whoever needs it.
    """

    answer: Answer
    judgement: Judgement
    opening: Opening | None = None
    shown: dict[str, Any] = field(default_factory=dict)


def attempt(
    wire: Wire,
    content: bytes,
    *,
    reader: Reader | None,
    dialect: Dialect,
    handle: str | None,
    shape: Shape,
    path: str | None = None,
) -> Flow[Attempt]:
    """Send a call once and judge what comes back, be it an error, a body or a stream.

    ``reader``: for a stream, None where the app wants none; ``shape``: of a whole answer.
    Costs one request, or two where an unrecognised error has to be probed.
    """
    answer = yield from wire.send(content, path=path, stream=reader is not None)
    if answer.stream is None or reader is None:
        return (yield from judged(wire, answer, dialect, handle, shape))
    opened = yield from open_stream(wire, answer, reader, may_be_lost=handle is not None)
    if isinstance(opened, Opening):
        return Attempt(answer, Judgement("ok"), opened)
    judgement = yield from wire.judge_fault(opened.fault, dialect, handle)
    if judgement.verdict not in _OF_THE_REPLICA:
        return Attempt(answer, Judgement("ok"), opened.opening)
    yield from Release(answer.stream)
    return Attempt(opened.as_answer(answer), judgement)


def judged(
    wire: Wire, answer: Answer, dialect: Dialect, handle: str | None, shape: Shape
) -> Flow[Attempt]:
    """Judge a whole answer; a 200 that is no answer or a failed one is judged by its error.

    Some servers erase the cause: then the handle is probed, like after any unrecognised error.
    """
    if not answer.ok:
        return Attempt(answer, (yield from wire.judge(answer, dialect, handle)))
    shown = object_in(answer.body)
    fault = verdicts.failure_in(answer.body, shown, shape)
    if fault is None:
        return Attempt(answer, Judgement("ok"), shown=shown)
    if not shape(shown):
        return Attempt(answer, (yield from _no_answer(wire, fault, shown, dialect, handle)))
    found = Judgement("ok")
    if handle is not None:
        found = yield from wire.judge_fault(fault, dialect, handle)
    verdict = found if found.verdict in _OF_THE_REPLICA else Judgement("ok")
    return Attempt(answer, verdict, shown=shown)


def _no_answer(
    wire: Wire, fault: Fault, shown: dict[str, Any], dialect: Dialect, handle: str | None
) -> Flow[Judgement]:
    """Judge a 200 that is no answer: by the rules, or by its handle where it tells of an error.

    A page that a proxy puts in the place of the answer says nothing of the handle.
    """
    found = verdicts.judge(fault, dialect, handle, wire.call.rules)
    if found.rule is not None:
        return found
    if tells_an_error(shown):
        found = yield from wire.judge_fault(fault, dialect, handle)
    return verdicts.judge_no_answer(found)


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


def pass_through(answer: Answer) -> Flow[Answer]:
    """Hand an answer over as it comes, whole or streamed."""
    stream = answer.stream
    if stream is None:
        return answer
    try:
        yield from Start(answer)
        while (chunk := (yield from Pull(stream))) is not None:
            yield from Emit(chunk)
    except Closed:
        yield from Release(stream)
    except SendFailed as failure:
        failure.raise_cause()
    return answer


def _nothing() -> Flow[None]:
    yield from ()


def pass_stream(
    head: Answer,
    opening: Opening,
    *,
    ended: Callable[[], Flow[None]],
    cut: Callable[[str], Flow[None]],
    note: Callable[[], str | None],
    heard: Callable[[], Flow[None]] = _nothing,
) -> Flow[Answer]:
    """Pass a stream on, piece by piece, as the body of the caller's answer.

    ``heard`` runs whenever something was read, ``ended`` when the terminal event was, before it is
    passed on, ``cut`` when the stream ends or is closed before that; ``note`` gives the member that
    tells of a recovery.
    """
    try:
        return (yield from _passed(head, opening, ended, cut, note, heard))
    except CutStream:
        raise
    except PerdureError as fault:  # its head has been passed: only an error says that it is cut
        yield from Release(head.stream)
        raise CutStream(str(fault)) from fault


def _passed(
    head: Answer,
    opening: Opening,
    ended: Callable[[], Flow[None]],
    cut: Callable[[str], Flow[None]],
    note: Callable[[], str | None],
    heard: Callable[[], Flow[None]],
) -> Flow[Answer]:
    reader, settled = opening.reader, False
    try:
        yield from Start(head)
        events: list[Event] | None = opening.held
        while events is not None:
            yield from heard()
            if reader.terminal and not settled:
                settled = True
                yield from ended()
            if events:
                yield from Emit(b"".join(_noted(event, reader, note) for event in events))
            events = yield from _next_events(opening)
        if opening.parser.rest:
            yield from Emit(opening.parser.rest)
    except Closed:
        if not settled:
            yield from kept(cut("closed by the caller"))
        yield from Release(head.stream)
        return head
    except SendFailed as failure:
        if settled:  # all that was to be said has been: an error would make the app say it again
            yield from Release(head.stream)
            return head
        yield from kept(cut(str(failure)))
        failure.raise_cause()
    if not settled:
        yield from kept(cut("ended before its terminal event"))
        raise CutStream(
            "The provider's stream ended before its terminal event: the answer is incomplete. "
            "What arrived of a stored one is kept; send the message again."
        )
    return head


def _next_events(opening: Opening) -> Flow[list[Event] | None]:
    """Read what comes next (perhaps no whole event yet); None at the end of the stream."""
    if opening.ended:
        return None
    chunk = yield from Pull(opening.answer.stream)
    if chunk is None:
        return None
    events = opening.parser.feed(chunk)
    for event in events:
        opening.reader.observe(event)
    return events


def _noted(event: Event, reader: Reader, note: Callable[[], str | None]) -> bytes:
    """Return an event's bytes, with the news of a recovery where the event carries the object."""
    member = note() if reader.annotated(event) and event.json() else None
    if member is None:
        return event.raw
    return event.replaced(_with_note(event, member))


def _with_note(event: Event, member: str) -> str:
    """Add a member to the ``response`` of an event, or to the run that the event is."""
    value = event.json()
    if not isinstance(value.get("response"), dict):
        return with_members(event.data, member)
    inner = with_members(dumps(value["response"]), member)
    rest = {key: item for key, item in value.items() if key != "response"}
    return with_members(dumps(rest), f'"response":{inner}')
