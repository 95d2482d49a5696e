"""Responses that were made earlier: read, resumed as a stream, cancelled, or asked for their input.

A lost one is answered from the journal, in the form in which it is asked for.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs

from perdure.dialects import items as item_forms
from perdure.dialects.replay import response_events
from perdure.dialects.routes import number_in
from perdure.dialects.streams import ResponseReader
from perdure.engine.adopt import take_up_again
from perdure.engine.background import Noted, note_response
from perdure.engine.ending import kept
from perdure.engine.journalled import FROM_JOURNAL, inputs_from_journal
from perdure.engine.ops import Answer, Found, MarkLost
from perdure.engine.seen import note_inputs
from perdure.engine.streaming import Loss, open_stream, pass_stream, pass_through
from perdure.engine.telling import marked, member
from perdure.engine.wire import JSON, Call, Wire
from perdure.flow import Flow
from perdure.model import Recovery

_EVENTS: Final = (("content-type", "text/event-stream; charset=utf-8"),)


def pass_on(wire: Wire) -> Flow[Answer]:
    """Send a request as it is and hand its answer over, streamed or not."""
    answer = yield from wire.send(wire.call.content, stream=_wants_stream(wire.call))
    return (yield from pass_through(answer))


def _wants_stream(call: Call) -> bool:
    return parse_qs(call.query).get("stream") == ["true"]


def seen_response(wire: Wire, found: Found, handle: str) -> Flow[Answer]:
    """Read, cancel or list the input of a response; a lost one is answered from the journal.

    What is still being made is asked for wherever it is: the journal has no answer of it.
    """
    inputs = wire.call.route.part == "input_items"
    primed = inputs and found.ended and found.replica.generation > 0  # it lists the prime as well
    if (found.state == "live" or not found.ended) and not primed:
        answer, lost = yield from _of_live(wire, found, handle)
        if not lost or not (inputs or found.ended):
            return answer
    if inputs:
        return (yield from inputs_from_journal(wire.call, found, handle))
    if found.answer is None:
        return (yield from pass_on(wire))
    recovery = Recovery(
        conversation=found.conversation,
        turn_id=found.turn.turn_id if found.turn else None,
        reason="known" if found.state == "lost" else "gone",
        generation=found.replica.generation,
        lost_handle=handle,
        new_handle=None,
        memory="none",
        primed=0,
        left_out=0,
        requests=wire.requests,
    )
    whole = marked(Answer(200, FROM_JOURNAL, found.answer.body), recovery)
    return _as_events(wire.call, whole) if _wants_stream(wire.call) else whole


def _as_events(call: Call, whole: Answer) -> Answer:
    """Return an answer as the stream of events in which it would arrive, from where it is asked."""
    after = parse_qs(call.query).get("starting_after", [""])[0]
    events = response_events(whole.body, after=number_in(after, -1))
    telling = (one for one in whole.headers if not one[0].startswith("content-"))
    return Answer(whole.status, (*_EVENTS, *telling), events)


def _of_live(wire: Wire, found: Found, handle: str) -> Flow[tuple[Answer, bool]]:
    """Ask the provider about a response, and learn from what it says; True where it is lost."""
    call = wire.call
    answer = yield from wire.send(call.content, stream=_wants_stream(call))
    if answer.stream is not None:
        return (yield from _resumed(wire, found, answer)), False
    if answer.ok:
        if call.route.part == "input_items":
            yield from note_inputs(call, found, handle, answer)
            return answer, False
        noted = yield from _noted(wire, found, answer)
        return marked(answer, noted.told), False
    judgement = yield from wire.judge(answer, "responses", handle)
    if judgement.verdict != "gone":
        return answer, False
    if found.age_seconds >= call.policy.visibility_age.total_seconds():
        yield from MarkLost(call.tenant, call.upstream, handle)
    return answer, True


def _noted(wire: Wire, found: Found, answer: Answer) -> Flow[Noted]:
    """Enter the end of a response; older history can be told from what is in the log by then."""
    noted = yield from note_response(wire, found, answer)
    ends = noted.ended and not found.ended
    if ends and found.replica.dialect == "conversations" and found.replica.generation == 0:
        yield from take_up_again(wire.call, "conversations", found.conversation)
    return noted


def _resumed(wire: Wire, found: Found, answer: Answer) -> Flow[Answer]:
    """Pass a resumed stream on; its terminal event is the answer of what was begun earlier.

    Raises :class:`~perdure.errors.CutStream` where it ends before that.
    """
    reader = ResponseReader()
    opened = yield from open_stream(wire, answer, reader, may_be_lost=False)
    assert not isinstance(opened, Loss)
    told: Recovery | None = None
    stored = True

    def noting() -> Flow[None]:
        nonlocal told
        body = item_forms.dumps(reader.response).encode()
        told = (yield from _noted(wire, found, Answer(200, JSON, body))).told

    def ended() -> Flow[None]:
        nonlocal stored
        stored = yield from kept(noting())

    def cut(_reason: str) -> Flow[None]:
        yield from ()  # it goes on without its reader, and is read later

    return (
        yield from pass_stream(
            answer, opened, ended=ended, cut=cut, note=lambda: member(told, stored=stored)
        )
    )
