"""Streamed answers in the simulator: the provider's side of a connection that can break."""

from __future__ import annotations

import json
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from perdure.dialects.items import dumps, text_of
from perdure.dialects.sse import encode
from perdure.testing.simulator.odds import Odds
from perdure.testing.simulator.wire import Whole

if TYPE_CHECKING:
    from perdure.testing.simulator.provider import Responding, SimProvider

#: Something that goes on by itself: it yields how long it takes until its next step.
Life: TypeAlias = Iterator[float]

_TERMINAL: Final = ("response.completed", "response.incomplete", "response.failed", "error")
_RUN_ENDS: Final = ("completed", "incomplete", "requires_action", "failed", "cancelled", "expired")
ENDS: Final = frozenset({*_TERMINAL, *(f"thread.run.{state}" for state in _RUN_ENDS)})
_MOST_EVENTS: Final = 10
_ABORTED: Final = 0.5


class Reset(Exception):
    """A connection that broke."""


class SimStream:
    """An open body: chunks that have arrived, at most one reader that waits, and a cut to come."""

    def __init__(self, chance: random.Random, odds: Odds, faults: Counter[str]) -> None:
        self._chance = chance
        self._faults = faults
        self._chunks: deque[bytes | Reset | None] = deque()
        self._reader: Callable[[], object] | None = None
        self._rest = b""
        self._cut_after: int | None = None
        if chance.random() < odds.cut:
            self._cut_after = chance.randint(0, _MOST_EVENTS)
        self._written = 0
        self.broken = False
        self.ended = False  # its terminal event was written

    # -- the provider's side -------------------------------------------------------------------

    def write(self, name: str, value: Any) -> None:
        """Write one event, unless the connection is broken or breaks now."""
        if self.broken:
            return
        if self._written == self._cut_after:
            self._break()
            return
        self._written += 1
        self.ended = self.ended or name in ENDS
        data = value if isinstance(value, str) else dumps(value)
        self._rest += encode(name, data)

    def flush(self) -> None:
        """Send what was written: in one piece, or with the last event in two."""
        if self._rest and not self.broken:
            at = len(self._rest)
            if self._chance.random() < 0.2:  # noqa: PLR2004
                at = self._chance.randint(1, len(self._rest))
            pieces = (self._rest[:at], self._rest[at:])
            self._chunks.extend(piece for piece in pieces if piece)
        self._rest = b""
        self._wake()

    def close(self) -> None:
        """End the body; a connection that was to break later breaks now."""
        self.flush()
        if self.broken:
            return
        if self._cut_after is not None:
            self._break()
        else:
            self._chunks.append(None)
        self._wake()

    def _break(self) -> None:
        when = "after" if self.ended else "before"
        self._faults[f"cut {when} its end"] += 1
        if self._rest:
            self._chunks.append(self._rest)
        self._rest = b""
        self._chunks.append(Reset() if self._chance.random() < 0.5 else None)  # noqa: PLR2004
        self.broken = True

    def refuse(self, answer: Whole) -> None:
        """Say no inside a 200, as some servers do."""
        error = json.loads(answer[1])["error"]
        self.write("error", {"type": "error", **error})
        self.close()

    def aborts(self) -> bool:
        """Whether the provider gives the work up because nobody reads."""
        return self.broken and self._chance.random() < _ABORTED

    # -- the reader's side ---------------------------------------------------------------------

    def ready(self) -> bool:
        """Whether there is something to be read."""
        return bool(self._chunks)

    def take(self) -> bytes | None:
        """Read the next chunk; None at the end. Raises :class:`Reset`."""
        chunk = self._chunks.popleft()
        if isinstance(chunk, Reset):
            raise chunk
        return chunk

    def wait(self, reader: Callable[[], object]) -> None:
        """Call a reader once there is something."""
        self._reader = reader

    def leave(self) -> None:
        """Stop reading; the provider notices."""
        self._reader = None
        self._chunks.clear()
        self.broken = True

    def _wake(self) -> None:
        if self._chunks and self._reader is not None:
            reader, self._reader = self._reader, None
            reader()


def words(text: str, chance: random.Random) -> tuple[list[str], list[str]]:
    """Return a text as two stretches of deltas; every delta ends with a word."""
    parts = text.split(" ")
    at = chance.randint(1, len(parts))
    first, second = " ".join(parts[:at]), "".join(f" {part}" for part in parts[at:])
    return [first], [second] if second else []


def pause(provider: SimProvider) -> float:
    """Return how long a step of a model takes; sometimes longer than anybody waits."""
    chance = provider.around.chance
    if chance.random() < provider.around.odds.slow / 2:
        provider.around.faults["slow"] += 1
        return chance.uniform(30.0, 120.0)
    return chance.uniform(0.1, 2.0)


def response_life(provider: SimProvider, call: Responding, stream: SimStream) -> Life:
    """Answer a model call on a stream, piece by piece."""
    chance, odds = provider.around.chance, provider.around.odds
    response_id = provider.new_id("resp")

    def write(name: str, **members: Any) -> None:
        stream.write(name, {"type": name, **members})

    def told(status: str, output: list[Any]) -> dict[str, Any]:
        return call.response(response_id, status, output)

    write("response.created", response=told("in_progress", []))
    if chance.random() < 0.5:  # noqa: PLR2004
        write("response.in_progress", response=told("in_progress", []))
    stream.flush()
    yield pause(provider)
    fails = chance.random() < odds.failed
    if stream.aborts() or (fails and chance.random() < 0.5):  # noqa: PLR2004
        _fail(provider, call, stream, told)
        return
    said = call.said()
    text = text_of(said)
    begun = {**said, "status": "in_progress", "content": []}
    write("response.output_item.added", output_index=0, item=begun)
    first, second = words(text, chance)
    for delta in first:
        write("response.output_text.delta", item_id=said["id"], delta=delta)
    stream.flush()
    yield pause(provider)
    if stream.aborts() or fails:
        _fail(provider, call, stream, told)
        return
    for delta in second:
        write("response.output_text.delta", item_id=said["id"], delta=delta)
    write("response.output_item.done", output_index=0, item=said)
    call.done(said, response_id)
    end = "incomplete" if chance.random() < odds.failed else "completed"
    output = [] if chance.random() < 0.2 else [said]  # noqa: PLR2004 - some servers leave it out
    write(f"response.{end}", response=told(end, output))
    stream.close()


def _fail(
    provider: SimProvider,
    call: Responding,
    stream: SimStream,
    told: Callable[[str, list[Any]], dict[str, Any]],
) -> None:
    """End a call without an answer, and say so; or break down, perhaps with the work done."""
    chance, faults = provider.around.chance, provider.around.faults
    error = {"code": "server_error", "message": "The model had a problem.", "param": None}
    if chance.random() < 0.5:  # noqa: PLR2004
        call.give_up()
        if not stream.broken:
            faults["failed in a stream"] += 1
        failed = {**told("failed", []), "error": error}
        stream.write("response.failed", {"type": "response.failed", "response": failed})
    else:
        if chance.random() < 0.5:  # noqa: PLR2004
            call.give_up()
        else:
            call.done(call.said())
        if not stream.broken:
            faults["error in a stream"] += 1
        stream.write("error", {"type": "error", **error})
    stream.close()
