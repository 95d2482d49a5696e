"""Workers of the simulator: each carries out one flow, and may die or fall asleep at any op."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from perdure.engine import ops
from perdure.engine.ops import Answer, Closed, SendFailed
from perdure.errors import CutStream, StoreUnavailable
from perdure.flow import Flow, Op
from perdure.model import TurnKey
from perdure.testing.simulator.streams import Reset, SimStream
from perdure.testing.simulator.wire import HEADERS, STREAM_HEADERS, Whole

if TYPE_CHECKING:
    from perdure.testing.simulator.world import World

TIMEOUT_SECONDS: Final = 30.0
_LEASE_SECONDS: Final = 60.0


class Death(Enum):
    """What is heard of a worker that died."""

    DIED = "died"


DIED: Final = Death.DIED
Done: TypeAlias = Callable[[Answer | Death | None], None]


class Reader(Protocol):
    """Whoever reads a streamed answer; ``turn`` is the one that ended without its whole answer.

    ``unstored``: the store failed meanwhile, so what was shown may stand nowhere.
    """

    turn: TurnKey | None
    unstored: bool
    started: bool

    def start(self, answer: Answer) -> None:
        """Take the head."""

    def take(self, data: bytes) -> bool:
        """Take a piece; False: no more of it is wanted."""


#: The ops that are no question to the store.
_OF_THE_WORKER: Final = {
    ops.Send, ops.Sleep, ops.Pull, ops.Start, ops.Emit, ops.Release, ops.Spawn,
    ops.Elapsed, ops.NewId, ops.Report,
}  # fmt: skip


class Worker:
    """A process that carries out one flow, and may die or fall asleep at any op."""

    def __init__(
        self, world: World, flow: Flow[Any], done: Done, reader: Reader | None = None
    ) -> None:
        self._world = world
        self._flow = flow
        self._done = done
        self._reader = reader
        self._result: Any = None
        self._error: BaseException | None = None
        self._stream: SimStream | None = None

    def go_on(self) -> None:
        """Take the flow to its next op that takes time, or to its end."""
        while True:
            try:
                if self._error is not None:
                    error, self._error = self._error, None
                    op = self._flow.throw(error)
                else:
                    op = self._flow.send(self._result)
            except StopIteration as stop:
                self._done(stop.value)
                return
            except (ConnectionError, CutStream, StoreUnavailable):
                self._done(None)
                return
            if self._dies():
                return
            if not self._performed(op):
                return
            if self._dies():
                return
            if self._falls_asleep():
                return

    def _dies(self) -> bool:
        world = self._world
        if world.chance.random() >= world.odds.crash / 2:
            return False
        world.faults["crash"] += 1
        if self._stream is not None:
            world.faults["crash in a stream"] += 1
            self._stream.leave()
        self._done(DIED)
        return True

    def _falls_asleep(self) -> bool:
        world = self._world
        if world.chance.random() >= world.odds.stall:
            return False
        world.faults["stall"] += 1
        world.later(_LEASE_SECONDS * world.chance.uniform(0.5, 3.0), self.go_on)
        return True

    def _performed(self, op: Op[Any]) -> bool:
        """Perform an op; False where its result comes later."""
        world = self._world
        world.count_op()
        self._result = None
        if type(op) not in _OF_THE_WORKER:  # most of them
            self._ask_store(op)
            return True
        match op:
            case ops.Send():
                self._send(op)
                return False
            case ops.Sleep():
                world.later(op.seconds * world.chance.uniform(1.0, 1.5), self.go_on)
                return False
            case ops.Pull():
                return self._pulled(op.stream, op.seconds)
            case ops.Start() | ops.Emit():
                self._hand_over(op)
            case ops.Release():
                op.stream.leave()
                self._stream = None
            case ops.Spawn():
                worker = Worker(world, op.flow, lambda _answer: None)
                world.later(world.chance.uniform(0.0, 1.0), worker.go_on)
            case _:
                self._result = world.perform(op)
        return True

    def _ask_store(self, op: Op[Any]) -> None:
        """Perform an op of the store, which may fail, before it has done it or after."""
        world = self._world
        fails = world.chance.random() < world.odds.store
        if fails and world.chance.random() < 0.5:  # noqa: PLR2004
            self._store_fails("store down")
            return
        result = world.perform(op)
        if fails:
            self._store_fails("store silent")
            return
        self._result = result
        reader = self._reader
        if isinstance(op, ops.Fail) and result and reader is not None and reader.started:
            reader.turn = op.turn

    def _store_fails(self, how: str) -> None:
        self._world.faults[how] += 1
        self._error = StoreUnavailable(how)
        if self._reader is not None:
            self._reader.unstored = True

    def _hand_over(self, op: ops.Start | ops.Emit) -> None:
        assert self._reader is not None
        if isinstance(op, ops.Start):
            self._reader.start(op.answer)
        elif not self._reader.take(op.data):
            self._error = Closed()

    # -- the wire ------------------------------------------------------------------------------

    def _send(self, op: ops.Send) -> None:
        world, odds, chance = self._world, self._world.odds, self._world.chance
        if chance.random() < odds.forget:
            self._forget()
        if odds.empty and chance.random() < odds.empty:
            self._empty(op)
        if chance.random() < odds.lost_before:
            world.faults["lost before"] += 1
            world.later(chance.choice((0.1, TIMEOUT_SECONDS)), lambda: self._gets(None))
            return
        if chance.random() < odds.error:
            self._server_error(op)
            return
        if op.stream:
            self._send_for_stream(op)
            return
        work = world.provider.begin(op.method, op.path, op.body)
        takes = chance.uniform(0.5, 5.0)
        if chance.random() < odds.slow:
            world.faults["slow"] += 1
            takes = chance.uniform(TIMEOUT_SECONDS, TIMEOUT_SECONDS * 4)
        if work.outcome is not None:
            takes = 0.1
        lost = chance.random() < odds.lost_after
        if lost or takes >= TIMEOUT_SECONDS:
            world.faults["lost after"] += 1
            waits = (
                min(takes + 0.1, TIMEOUT_SECONDS) if takes < TIMEOUT_SECONDS else TIMEOUT_SECONDS
            )
            world.later(takes, work.finish)
            world.later(waits, lambda: self._gets(None))
        else:
            world.later(takes, lambda: self._gets(work.finish()))

    def _server_error(self, op: ops.Send) -> None:
        """Answer 500: sometimes after the work, sometimes instead of it; or 429, without any."""
        world, chance = self._world, self._world.chance
        kind = chance.choice(("500", "500 after the work", "429"))
        world.faults[kind] += 1
        if kind == "500 after the work":
            world.provider.begin(op.method, op.path, op.body).finish()
        status = 429 if kind == "429" else 500
        body = b'{"error":{"message":"no","type":"server_error","code":null,"param":null}}'
        world.later(0.2, lambda: self._gets((status, body)))

    def _forget(self) -> None:
        world = self._world
        held = world.provider.handles()
        if held:
            world.faults["forget"] += 1
            lost = world.chance.choice(held)
            thread = world.provider.threads.held.get(lost)
            if thread is not None and thread.active is not None:
                world.faults["run lost"] += 1
            world.provider.forget(lost)

    def _empty(self, op: ops.Send) -> None:
        """Empty what a model call is to continue, or the thread that a request is about."""
        named = json.loads(op.body) if op.body else {}
        handle = named.get("conversation") or named.get("previous_response_id")
        if op.path.startswith("/threads/"):
            handle = op.path.split("/")[2]
        if handle is not None and self._world.provider.empty(handle):
            self._world.faults["emptied"] += 1

    def _gets(self, outcome: Whole | None) -> None:
        if outcome is None:
            self._error = SendFailed(ConnectionError("lost"), definite=False)
        else:
            status, body = outcome
            self._result = Answer(status, HEADERS, body)
        self.go_on()

    # -- streams -------------------------------------------------------------------------------

    def _send_for_stream(self, op: ops.Send) -> None:
        """Send a request whose answer comes piece by piece, from when it has arrived."""
        world, odds, chance = self._world, self._world.odds, self._world.chance
        lost = chance.random() < odds.lost_after
        stream = SimStream(chance, odds, world.faults)

        def arrives() -> None:
            refused = world.provider.open(op.path, op.body or b"", stream)
            if lost:
                world.faults["lost after"] += 1
                stream.leave()
                world.later(0.1, lambda: self._gets(None))
            elif refused is None:
                world.faults["streamed"] += 1
                self._begins(stream)
            elif chance.random() < odds.error_in_stream:
                world.faults["refused in a stream"] += 1
                stream.refuse(refused)
                self._begins(stream)
            else:
                self._gets(refused)

        world.later(chance.uniform(0.1, 1.0), arrives)

    def _begins(self, stream: SimStream) -> None:
        self._stream = stream
        self._result = Answer(200, STREAM_HEADERS, b"", None, stream)
        self.go_on()

    def _pulled(self, stream: SimStream, seconds: float | None) -> bool:
        """Read the next chunk; False where it has still to arrive."""
        if stream.ready():
            self._take(stream)
            return True
        waits = TIMEOUT_SECONDS if seconds is None else min(seconds, TIMEOUT_SECONDS)
        waiting = True

        def arrived() -> None:
            nonlocal waiting
            if waiting:
                waiting = False
                self._take(stream)
                self.go_on()

        def late() -> None:
            nonlocal waiting
            if not waiting:
                return
            waiting = False
            if seconds is not None and seconds < TIMEOUT_SECONDS:
                self._result = b""
            else:
                self._world.faults["lost after"] += 1
                stream.leave()
                self._error = SendFailed(ConnectionError("late"), definite=False)
            self.go_on()

        stream.wait(arrived)
        self._world.later(waits, late)
        return False

    def _take(self, stream: SimStream) -> None:
        try:
            self._result = stream.take()
        except Reset as reset:
            self._error = SendFailed(ConnectionError(str(reset)), definite=False)
