"""A simulated world: workers, a provider, a store, and one clock that jumps to what happens next.

The flows are the production flows and the store is a real one; what is simulated is who gets to go
on when, how long the provider takes, which answers are lost, and who dies or sleeps at which op.
All of it comes from one seed.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias

from perdure.dialects.routes import route
from perdure.engine import ops
from perdure.engine.exchange import exchange
from perdure.engine.ops import Answer, SendFailed
from perdure.engine.wire import Call, Unanswered
from perdure.flow import Flow, Op
from perdure.model import Policy
from perdure.stores import Store
from perdure.testing.simulator.provider import HEADERS, MODEL, SimProvider

UPSTREAM: Final = "sim://provider/v1"
TIMEOUT_SECONDS: Final = 30.0
_LEASE_SECONDS: Final = 60.0
_MOST_OPS: Final = 20_000


class Death(Enum):
    """What is heard of a worker that died."""

    DIED = "died"


DIED: Final = Death.DIED
Done: TypeAlias = Callable[[Answer | Death | None], None]


@dataclass(slots=True)
class Odds:
    """How likely each thing is, at each op or each request."""

    crash: float = 0.0
    stall: float = 0.0
    lost_before: float = 0.0
    lost_after: float = 0.0
    slow: float = 0.0
    error: float = 0.0
    forget: float = 0.0

    @classmethod
    def drawn(cls, chance: random.Random) -> Odds:
        """Return odds for one history; some faults are absent from some histories."""
        return cls(
            crash=chance.choice((0.06, 0.1, 0.15, 0.2)),
            stall=chance.choice((0.0, 0.02, 0.05)),
            lost_before=chance.choice((0.0, 0.05, 0.1)),
            lost_after=chance.choice((0.0, 0.1, 0.2)),
            slow=chance.choice((0.0, 0.1)),
            error=chance.choice((0.0, 0.05, 0.1)),
            forget=chance.choice((0.0, 0.05, 0.15)),
        )


class Restless(Exception):
    """A history that does not come to an end: something is tried for ever."""


@dataclass(slots=True)
class Attempt:
    """One request of a client, as the client knows it."""

    client: str
    mark: str
    turn_id: str | None
    status: int | None = None  # None: no answer at all
    body: dict[str, Any] = field(default_factory=dict)
    died: bool = False


class World:
    """One history: everything that happens in it follows from its seed."""

    def __init__(self, seed: int, store: Store, clock: Clock) -> None:
        self.seed = seed
        self.tenant = f"tenant-{seed}"
        self.chance = random.Random(seed)  # noqa: S311  # a history, not a secret
        self.odds = Odds.drawn(self.chance)
        self.provider = SimProvider(self.chance)
        self.store = store
        self.clock = clock
        self.faults: Counter[str] = Counter()
        self.accepted: dict[tuple[int, int], str] = {}
        self.refused: set[tuple[int, int]] = set()
        self.erased: set[str] = set()
        self.learnt: set[str] = set()
        self._unanswered = Unanswered()
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._number = itertools.count()
        self._ops = 0
        self._ids = itertools.count()

    # -- time ----------------------------------------------------------------------------------

    def later(self, seconds: float, do: Callable[[], object]) -> None:
        """Let something happen after a while."""
        event = (self.clock.time + seconds, next(self._number), do)
        heapq.heappush(self._events, event)

    def run(self) -> None:
        """Let everything happen that is to happen."""
        while self._events:
            at, _, do = heapq.heappop(self._events)
            self.clock.time = max(self.clock.time, at)
            do()

    # -- workers -------------------------------------------------------------------------------

    def request(
        self,
        body: dict[str, Any],
        *,
        turn_id: str | None,
        subject: str | None,
        retry: int,
        done: Done,
        path: str = "/responses",
    ) -> None:
        """Start a worker on a request; ``done`` hears the answer, None, or that it died."""
        recognised = route("POST", f"/v1{path}")
        assert recognised is not None
        call = Call(
            tenant=self.tenant,
            policy=Policy(),
            route=recognised,
            upstream=UPSTREAM,
            method="POST",
            path=path,
            query="",
            content=json.dumps(body, separators=(",", ":")).encode(),
            turn_id=turn_id,
            subject=subject,
            own_headers=(),
            rules=(),
            learned=[],
            deadline_seconds=TIMEOUT_SECONDS,
            began=self.clock.time,
            retry=retry,
            credentials=0,
            unanswered=self._unanswered,
        )
        worker = Worker(self, exchange(call), done)
        self.later(0.0, worker.go_on)

    def count_op(self) -> None:
        """Count what is done; raises :class:`Restless` where it is far too much."""
        self._ops += 1
        if self._ops > _MOST_OPS:
            raise Restless(f"seed {self.seed}: more than {_MOST_OPS} ops")

    def new_id(self) -> str:
        """Make an id as a worker does."""
        return f"{next(self._ids):08x}{self.chance.getrandbits(96):024x}"


@dataclass(slots=True)
class Clock:
    """The store's clock, and everybody's."""

    time: float = 1_800_000_000.0

    def now(self) -> float:
        """Return the time."""
        return self.time


class Worker:
    """A process that carries out one flow, and may die or fall asleep at any op."""

    def __init__(self, world: World, flow: Flow[Any], done: Done) -> None:
        self._world = world
        self._flow = flow
        self._done = done
        self._result: Any = None
        self._error: BaseException | None = None

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
            except ConnectionError:
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
        match op:
            case ops.Send():
                self._send(op)
                return False
            case ops.Sleep():
                world.later(op.seconds * world.chance.uniform(1.0, 1.5), self.go_on)
                return False
            case ops.Elapsed():
                self._result = world.clock.time
            case ops.NewId():
                self._result = world.new_id()
            case ops.Report():
                pass
            case ops.Spawn():
                worker = Worker(world, op.flow, lambda _answer: None)
                world.later(world.chance.uniform(0.0, 1.0), worker.go_on)
            case _:
                self._result = world.store.perform(op)
                self._note(op, self._result)
        return True

    def _note(self, op: Op[Any], result: Any) -> None:
        world = self._world
        if isinstance(op, ops.Accept) and result.outcome in {"deliver", "wait"} and op.items:
            key = (result.turn.conversation, result.turn.seq)
            world.accepted[key] = json.loads(op.items[-1].wire)["content"]
            world.refused.discard(key)
        if isinstance(op, ops.Fail) and result and op.withdrawn:
            world.refused.add((op.turn.conversation, op.turn.seq))

    # -- the wire ------------------------------------------------------------------------------

    def _send(self, op: ops.Send) -> None:
        world, odds, chance = self._world, self._world.odds, self._world.chance
        if chance.random() < odds.forget:
            self._forget()
        if chance.random() < odds.lost_before:
            world.faults["lost before"] += 1
            world.later(chance.choice((0.1, TIMEOUT_SECONDS)), lambda: self._gets(None))
            return
        if chance.random() < odds.error:
            self._server_error(op)
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
        held = [*world.provider.conversations, *world.provider.responses]
        if held:
            world.faults["forget"] += 1
            world.provider.forget(world.chance.choice(held))

    def _gets(self, outcome: tuple[int, bytes] | None) -> None:
        if outcome is None:
            self._error = SendFailed(ConnectionError("lost"), definite=False)
        else:
            status, body = outcome
            if status == 200 and b'"object":"conversation"' in body:  # noqa: PLR2004
                self._world.learnt.add(json.loads(body)["id"])
            self._result = Answer(status, HEADERS, body)
        self.go_on()


def question(mark: str, **handle: str) -> dict[str, Any]:
    """Return the body of a model call that says one marked message."""
    message = {"type": "message", "role": "user", "content": mark}
    return {"model": MODEL, "input": [message], **handle}
