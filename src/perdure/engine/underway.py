"""Runs under way: what is noted of them when they begin, go on and end, and the streams of them.

A run goes on without the worker that began it. So its id is noted as soon as it is known, and from
then on any worker can read what became of it; a stream only says so earlier.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from perdure.dialects import items as item_forms
from perdure.dialects.streams import RunReader
from perdure.engine.adopt import take_up_again
from perdure.engine.ending import kept
from perdure.engine.messages import ENDED, completion, ended, learn, now_shown
from perdure.engine.ops import Answer, Fail, Release
from perdure.engine.streaming import Opening, pass_stream
from perdure.engine.telling import member
from perdure.engine.turns import Turn
from perdure.engine.wire import Wire
from perdure.errors import TurnOvertaken
from perdure.flow import Flow
from perdure.model import Recovery, Replica, TurnKey


def note_started(
    wire: Wire, turn: TurnKey, on: Replica, body: bytes, run_object: dict[str, Any]
) -> Flow[None]:
    """Note that a run has begun on a thread; ``body`` is what the app is shown of it.

    Raises :class:`~perdure.errors.TurnOvertaken` where another worker has the turn.
    """
    if not (yield from now_shown(wire.call, turn, on, run_object, body=body)):
        raise TurnOvertaken(turn.turn_id)


# -- streams ---------------------------------------------------------------------------------


@dataclass(slots=True)
class RunTap:
    """What is noted while a run's events pass.

    ``turn`` is the run's turn on the thread ``on``; for a thread that is made with its run both are
    had from ``enter``, when the ids are known. ``known``: the run was begun earlier.
    ``incomplete``: what was said before the log is still to be copied. What the store does not take
    is passed on all the same, and told to be not ``stored``.
    """

    wire: Wire
    reader: RunReader
    turn: TurnKey | None = None
    on: Replica | None = None
    enter: Callable[[], Flow[Turn | None]] | None = None
    known: bool = False
    incomplete: bool = False
    heard_of: bool = False
    noted: bool = False
    stored: bool = True

    @property
    def _since_outputs(self) -> str | None:
        """The run of which this stream shows only what it says since it got its outputs."""
        return str(self.reader.response.get("id")) if self.known else None

    def heard(self) -> Flow[None]:
        """Note the run as soon as its id is known."""
        if self.heard_of or self.reader.response.get("id") is None:
            return
        self.heard_of = True
        self.stored = yield from kept(self._begun())

    def ended(self) -> Flow[None]:
        """Enter what a run said, and its end or that it waits for tool outputs.

        Raises :class:`~perdure.errors.TurnOvertaken` where it is being begun again, or its thread
        has been replaced meanwhile: what it says was not made from what the log says. In that case
        it is kept as what was shown.
        """
        if self.reader.fault is not None:
            yield from self.cut("error in the stream")
        elif self.turn is not None and self.on is not None:
            self.stored = yield from kept(self._over(self.turn, self.on))

    def _begun(self) -> Flow[None]:
        if self.enter is not None:
            entered = yield from self.enter()
            if entered is None:
                return
            self.turn, self.on = entered.key, entered.replica
        assert self.turn is not None
        assert self.on is not None
        yield from self._note(self.turn, self.on)

    def _note(self, turn: TurnKey, on: Replica) -> Flow[None]:
        run_object = self.reader.response
        shown = item_forms.dumps(run_object).encode()
        yield from note_started(self.wire, turn, on, shown, run_object)
        self.noted = True
        yield from self._take_up(turn)

    def _take_up(self, turn: TurnKey) -> Flow[None]:
        """Let older history be copied: what this run says can be told from it by now."""
        if self.incomplete:
            yield from take_up_again(self.wire.call, "threads", turn.conversation)

    def _note_if_lacking(self, turn: TurnKey, on: Replica) -> Flow[None]:
        """Note a run where the store failed as it began: nobody knows whose its messages are."""
        if not (self.noted or self.known):
            yield from self._note(turn, on)

    def _over(self, turn: TurnKey, on: Replica) -> Flow[None]:
        yield from self._note_if_lacking(turn, on)
        run_object, call = self.reader.response, self.wire.call
        over = run_object.get("status") in ENDED
        if not over:
            yield from now_shown(call, turn, on, run_object)
        stored: str = yield from learn(
            call,
            turn.conversation,
            self.reader.items,
            whole=True,
            read=str(run_object.get("id")),
            since_outputs=self._since_outputs,
            replica=on,
        )
        if stored == "apart":
            # What it said before comes first: until somebody reads that, this is what was shown.
            yield from now_shown(call, turn, on, run_object, partial=self.reader.partial())
        if stored != "replaced" and over:
            completing = completion(call, turn, run_object, on, unread=None)
            stored = yield from ended(call, turn, run_object, completing)
        if stored == "replaced":
            yield from self._keep_shown(turn, on)
            raise TurnOvertaken(turn.turn_id)
        yield from self._take_up(turn)

    def cut(self, reason: str) -> Flow[None]:
        """Keep what was shown of a run that goes on at the provider; the rest is read later."""
        if self.turn is None or self.on is None:
            return
        if self.heard_of:
            with suppress(TurnOvertaken):  # whose run is another one by now
                yield from self._note_if_lacking(self.turn, self.on)
                yield from self._keep_shown(self.turn, self.on)
        elif not self.known:
            yield from Fail(self.wire.call.tenant, self.turn, "unknown", reason)

    def _keep_shown(self, turn: TurnKey, on: Replica) -> Flow[None]:
        """Enter whole messages; of a thread that was replaced they are only what was shown."""
        reader, call = self.reader, self.wire.call
        learnt = yield from learn(
            call,
            turn.conversation,
            reader.items,
            whole=True,
            since_outputs=self._since_outputs,
            replica=on,
        )
        shown = reader.partial()[0 if learnt in {"replaced", "apart"} else len(reader.items) :]
        if shown:
            yield from now_shown(call, turn, on, reader.response, partial=shown)


def pass_run(opening: Opening, tap: RunTap, recovery: Recovery | None = None) -> Flow[Answer]:
    """Pass a streamed run on; its messages and its end enter the log before its last event."""
    head = opening.answer

    def note() -> str | None:
        return member(recovery, stored=tap.stored)

    if recovery is not None:
        head = head.edited(headers=recovery.as_headers())
    try:
        yield from tap.heard()
    except TurnOvertaken:
        yield from Release(head.stream)
        raise
    return (
        yield from pass_stream(
            head, opening, ended=tap.ended, cut=tap.cut, note=note, heard=tap.heard
        )
    )
