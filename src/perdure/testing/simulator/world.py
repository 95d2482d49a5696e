"""A simulated world: workers, a provider, a store, and one clock that jumps to what happens next.

The flows are the production flows and the store is a real one; what is simulated is who gets to go
on when, how long the provider takes, which answers are lost, and who dies or sleeps at which op.
All of it comes from one seed.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from perdure.dialects.routes import route
from perdure.engine import ops
from perdure.engine.exchange import exchange
from perdure.engine.wire import Call, Unanswered
from perdure.flow import Op
from perdure.model import Policy, Recovery
from perdure.testing.simulator.odds import Mix, Odds
from perdure.testing.simulator.provider import MODEL, SimProvider, Surroundings
from perdure.testing.simulator.sites import Site
from perdure.testing.simulator.worker import TIMEOUT_SECONDS, Done, Reader, Worker

UPSTREAM: Final = "sim://provider/v1"
_MOST_OPS: Final = 20_000
_EMPTIED: Final = (0.0, 0.0, 0.0, 0.3, 0.6)
#: Steps of time that are exact as a float and in microseconds: a lease ends in every store at once.
_TICKS: Final = 64


class Restless(Exception):
    """A history that does not come to an end: something is tried for ever."""


class World:
    """One history: everything that happens in it follows from its seed."""

    def __init__(self, seed: int, mix: Mix, site: Site) -> None:
        clock = site.clock
        self.seed = seed
        self.mix = mix
        self.tenant = f"{site.name}-{seed}"
        self.chance = random.Random(seed)  # noqa: S311  # a history, not a secret
        self.faults: Counter[str] = Counter()
        self.around = Surroundings(
            self.chance, Odds.drawn(self.chance, mix), self.faults, clock.now, self.later
        )
        self.odds.empty = random.Random(f"empty {seed}").choice(_EMPTIED)  # noqa: S311
        self.provider = SimProvider(self.around)
        self.site = site
        self.store = site.store
        self.clock = clock
        self.accepted: dict[tuple[int, int], str] = {}
        self.refused: set[tuple[int, int]] = set()
        self.erased: set[str] = set()
        #: Marks of items that somebody is deleting, and when it was confirmed; of those said again
        #: since, it is not.
        self.removing: set[str] = set()
        self.removed: dict[str, float] = {}
        self.said_at: dict[str, float] = {}
        #: When each turn was first given to a worker.
        self.delivered: dict[tuple[int, int], float] = {}
        self.seen_amiss: list[str] = []
        self._unanswered = Unanswered()
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._number = itertools.count()
        self._ops = 0
        self._ids = itertools.count()

    @property
    def odds(self) -> Odds:
        """How likely what is, now."""
        return self.around.odds

    @odds.setter
    def odds(self, odds: Odds) -> None:
        self.around.odds = odds

    # -- time ----------------------------------------------------------------------------------

    def later(self, seconds: float, do: Callable[[], object]) -> None:
        """Let something happen after a while."""
        at = math.ceil((self.clock.time + seconds) * _TICKS) / _TICKS
        event = (at, next(self._number), do)
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
        body: dict[str, Any] | None,
        *,
        done: Done,
        method: str = "POST",
        path: str = "/responses",
        query: str = "",
        turn_id: str | None = None,
        subject: str | None = None,
        retry: int = 0,
        reader: Reader | None = None,
    ) -> None:
        """Start a worker on a request; ``done`` hears the answer, None, or that it died.

        ``reader`` is who reads the answer if it comes as a stream.
        """
        recognised = route(method, f"/v1{path}")
        assert recognised is not None
        content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        call = Call(
            tenant=self.tenant,
            policy=Policy(),
            route=recognised,
            upstream=UPSTREAM,
            method=method,
            path=path,
            query=query,
            content=content,
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
        worker = Worker(self, exchange(call), done, reader)
        self.later(0.0, worker.go_on)

    def perform(self, op: Op[Any]) -> Any:
        """Perform an op of the store or the worker; note what must be true at the end."""
        match op:
            case ops.Elapsed():
                return self.clock.time
            case ops.NewId():
                return self.new_id()
            case ops.Report():
                self._told(op.recovery)
                return None
        result = self.store.perform(op)
        if isinstance(op, ops.Accept) and result.outcome == "deliver":
            at = (result.turn.conversation, result.turn.seq)
            self.delivered.setdefault(at, self.clock.time)
        if isinstance(op, ops.Accept) and result.outcome in {"deliver", "wait"} and op.items:
            key = (result.turn.conversation, result.turn.seq)
            self.accepted[key] = mark = json.loads(op.items[-1].wire)["content"]
            self.said_at[mark] = self.clock.time
            self.removed.pop(mark, None)
            self.refused.discard(key)
        if isinstance(op, ops.Fail) and result and op.withdrawn:
            self.refused.add((op.turn.conversation, op.turn.seq))
        return result

    def _told(self, recovery: Recovery) -> None:
        """Note what is told of a replica that has forgotten: it must have."""
        if recovery.reason != "forgot":
            return
        self.faults["forgetting told"] += 1
        if recovery.lost_handle not in self.provider.emptied:
            self.seen_amiss.append(f"told to have forgotten, and has not: {recovery.lost_handle}")

    def count_op(self) -> None:
        """Count what is done; raises :class:`Restless` where it is far too much."""
        self._ops += 1
        if self._ops > _MOST_OPS:
            raise Restless(f"seed {self.seed}: more than {_MOST_OPS} ops")

    def new_id(self) -> str:
        """Make an id as a worker does."""
        return f"{next(self._ids):08x}{self.chance.getrandbits(96):024x}"


def question(mark: str, **more: Any) -> dict[str, Any]:
    """Return the body of a model call that says one marked message."""
    message = {"type": "message", "role": "user", "content": mark}
    return {"model": MODEL, "input": [message], **more}
