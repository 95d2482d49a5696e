"""What the suite works with: a store to open, a clock to turn, and short ways to ask."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from perdure.engine import ops
from perdure.flow import Op
from perdure.model import Dialect, NewItem, Recovery, TurnKey
from perdure.stores import AsyncStore, Store

R = TypeVar("R")

WORKERS = 8
BODY = b'{"id":"answer"}'


@dataclass(frozen=True)
class Site:
    """Where the store under test is.

    ``open`` gives a store on the database, each call as another process would open it; where that
    cannot be (a database in one process's memory), each call gives the same store and
    ``reopens`` is False. ``advance`` turns the clock that the store reads by so many seconds. The
    database may hold other data: each test keeps to a tenant of its own.
    """

    open: Callable[[], Store]
    advance: Callable[[float], object]
    reopens: bool = True


class Awaited:
    """The async face of a store behind blocking methods: an event loop in a thread of its own."""

    def __init__(self, store: AsyncStore) -> None:
        self.fast = False
        self._store = store
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    def perform(self, op: Op[Any]) -> Any:
        """Carry out one store operation."""
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._run, args=(self._loop,), daemon=True).start()
        return asyncio.run_coroutine_threadsafe(self._store.perform_async(op), self._loop).result()

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        loop.run_forever()
        loop.close()

    def close(self) -> None:
        """Close the store and end the loop; the next operation begins another."""
        loop, self._loop = self._loop, None
        if loop is not None:
            asyncio.run_coroutine_threadsafe(self._store.aclose(), loop).result()
            loop.call_soon_threadsafe(loop.stop)


def message(text: str, *, role: str = "user", provider_id: str | None = None) -> NewItem:
    """Return one message as an item."""
    wire = {"type": "message", "role": role, "content": text}
    if provider_id is not None:
        wire["id"] = provider_id
    return NewItem(
        wire=json.dumps(wire, ensure_ascii=False),
        input=None,
        kind="message",
        role=role,
        provider_id=provider_id,
    )


def messages(*texts: str) -> tuple[NewItem, ...]:
    """Return messages of the user."""
    return tuple(map(message, texts))


def numbered(first: int, last: int) -> tuple[NewItem, ...]:
    """Return messages that a provider knows as ``msg_<n>``."""
    return tuple(message(str(n), provider_id=f"msg_{n}") for n in range(first, last + 1))


def shown(listing: ops.Listing) -> list[str | None]:
    """Return the ids on a page."""
    return [item.provider_id for item in listing.items]


def text(item: Any) -> str:
    """Return what a stored message says."""
    said: str = json.loads(item.input or item.wire)["content"]
    return said


class Bench:
    """A store under test, as one worker uses it, for a tenant of this test's own."""

    def __init__(self, site: Site, tenant: str | None = None) -> None:
        self.site = site
        self.tenant = tenant or f"tenant-{uuid.uuid4().hex}"
        self.upstream = f"https://{uuid.uuid4().hex}.example/v1"
        self.store = site.open()

    def ask(self, op: Op[R]) -> R:
        """Perform one operation."""
        result: R = self.store.perform(op)
        return result

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    @contextmanager
    def another(self, tenant: str | None = None) -> Iterator[Bench]:
        """Open the same database a second time, for the same tenant if no other is given."""
        other = Bench(self.site, tenant or self.tenant)
        other.upstream = self.upstream
        try:
            yield other
        finally:
            if self.site.reopens:
                other.close()

    def at_once(self, work: Callable[[Bench, int], R], workers: int = WORKERS) -> list[R]:
        """Let workers with stores of their own do the same thing at the same time."""
        (results,) = self.rounds(1, lambda worker, number, _: work(worker, number), workers)
        return results

    def rounds(
        self, count: int, work: Callable[[Bench, int, int], R], workers: int = WORKERS
    ) -> list[list[R]]:
        """Let them do so several times, each time together; the results of each time."""
        benches = [Bench(self.site, self.tenant) for _ in range(workers)]
        ready = threading.Barrier(workers)

        def run(number: int) -> list[R]:
            bench = benches[number]
            bench.upstream = self.upstream
            bench.ask(ops.Throttled(bench.tenant, bench.upstream))  # so that it is connected
            results = []
            for time in range(count):
                ready.wait(60)
                results.append(work(bench, number, time))
            return results

        try:
            with ThreadPoolExecutor(workers) as pool:
                done = list(pool.map(run, range(workers)))
            return [list(together) for together in zip(*done, strict=True)]
        finally:
            if self.site.reopens:
                for bench in benches:
                    bench.close()

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.site.advance(seconds)

    # -- turns -------------------------------------------------------------------------------

    def accept(
        self,
        *texts: str,
        dialect: Dialect = "responses",
        items: tuple[NewItem, ...] | None = None,
        **values: Any,
    ) -> ops.Accepted:
        """Accept a turn with these messages; the same ones make the same body."""
        made = messages(*texts) if items is None else items
        return self.ask(
            ops.Accept(
                **{
                    "tenant": self.tenant,
                    "upstream": self.upstream,
                    "dialect": dialect,
                    "kind": "respond",
                    "turn_id": None,
                    "body_hash": "|".join(item.wire for item in made)[:100],
                    "items": made,
                    "request": json.dumps(texts),
                    **values,
                }
            )
        )

    def taken(self, *texts: str, **values: Any) -> TurnKey:
        """Accept a turn that is to be delivered, and return its key."""
        accepted = self.accept(*texts, **values)
        assert accepted.outcome == "deliver", accepted
        assert accepted.turn is not None
        return accepted.turn

    def complete(
        self,
        turn: TurnKey,
        *texts: str,
        dialect: Dialect = "responses",
        response: str | None = None,
        **values: Any,
    ) -> ops.Completed:
        """Answer a turn with these messages; a response becomes the head of its conversation."""
        said = tuple(
            message(one, role="assistant", provider_id=f"{response}-{number}" if response else None)
            for number, one in enumerate(texts)
        )
        return self.ask(
            ops.Complete(
                **{
                    "tenant": self.tenant,
                    "upstream": self.upstream,
                    "dialect": dialect,
                    "turn": turn,
                    "status": 200,
                    "body": BODY,
                    "content_type": "application/json",
                    "items": said,
                    "response_id": response,
                    "head": response if dialect == "responses" else None,
                    **values,
                }
            )
        )

    def fail(self, turn: TurnKey, state: Any = "failed", **values: Any) -> bool:
        """End a turn without an answer."""
        return self.ask(ops.Fail(self.tenant, turn, state, "because", **values))

    def underway(self, turn: TurnKey, response: str, **values: Any) -> bool:
        """Note the provider's id of a turn."""
        values = {"body": BODY, **values}
        return self.ask(ops.Underway(self.tenant, self.upstream, turn, response, **values))

    def learn(self, conversation: int, items: tuple[NewItem, ...], **values: Any) -> ops.Learnt:
        """Add what the provider shows."""
        values = {"whole": True, **values}
        return self.ask(ops.Learn(self.tenant, conversation, items, **values))

    def exchange(self, question: str, answer: str, response: str, **values: Any) -> TurnKey:
        """One whole turn on ``responses``."""
        turn = self.taken(question, **values)
        assert self.complete(turn, answer, response=response) == "done"
        return turn

    def conversation(self, handle: str = "conv_1", *texts: str, **values: Any) -> int:
        """Enter a conversation that the app has created; returns its number."""
        entered = self.ask(
            ops.BindNew(
                **{
                    "tenant": self.tenant,
                    "upstream": self.upstream,
                    "dialect": "conversations",
                    "handle": handle,
                    "items": messages(*texts),
                    "body": BODY,
                    "intent": "",
                    **values,
                }
            )
        )
        assert entered == "bound", entered
        return self.found(handle).conversation

    def bind(self, conversation: int, generation: int, handle: str, **values: Any) -> ops.Bound:
        """Make an object the replica of the next generation."""
        return self.ask(
            ops.Bind(
                **{
                    "tenant": self.tenant,
                    "upstream": self.upstream,
                    "dialect": "conversations",
                    "conversation": conversation,
                    "generation": generation,
                    "handle": handle,
                    "intent": "",
                    "primed_through": 0,
                    **values,
                }
            )
        )

    # -- reading -----------------------------------------------------------------------------

    def find(self, handle: str) -> ops.Found | None:
        """Look a handle up."""
        return self.ask(ops.Find(self.tenant, self.upstream, handle))

    def found(self, handle: str) -> ops.Found:
        """Look up a handle that is there."""
        found = self.find(handle)
        assert found is not None, f"{handle} is not known"
        return found

    def history(
        self,
        conversation: int,
        budget: int = 10**9,
        through: int = 10**9,
        *,
        wire: str | None = None,
    ) -> ops.Span:
        """Read the log as a prime would."""
        return self.ask(ops.History(self.tenant, conversation, through, budget, wire))

    def said(self, conversation: int, **values: Any) -> list[str]:
        """Read what the log's messages say."""
        return [text(item) for item in self.history(conversation, **values).items]

    def page(self, conversation: int, **values: Any) -> ops.Listing:
        """Read a page as a provider would list it."""
        return self.ask(
            ops.Page(self.tenant, conversation, **{"newest_first": False, "limit": 100, **values})
        )

    def orphans(self, limit: int = 100) -> tuple[ops.Orphan, ...]:
        """Read what is to be deleted."""
        return self.ask(ops.Orphans(self.tenant, self.upstream, limit))

    def removed(self, conversation: int, provider_id: str, **values: Any) -> ops.Removed:
        """Delete one item."""
        at = (self.tenant, self.upstream, conversation, provider_id)
        return self.ask(ops.Tombstone(*at, **values))

    def generation(self, handle: str) -> int:
        """Read how often a conversation has got a new replica."""
        return self.found(handle).replica.generation

    def orphaned(self) -> list[str]:
        """Read the ids that are to be deleted."""
        return [orphan.handle for orphan in self.orphans()]

    def unsettled(self, conversation: int, **values: Any) -> ops.Doubt:
        """Read the turns whose outcome is unknown."""
        return self.ask(ops.Unsettled(self.tenant, conversation, **{"asking": 0, **values}))


def again(turn: TurnKey) -> TurnKey:
    """Return the key of whoever takes a turn next."""
    return replace(turn, epoch=turn.epoch + 1)


def recovery(conversation: int, generation: int = 1, **values: Any) -> Recovery:
    """Return the record of a rebuild."""
    return Recovery(
        **{
            "conversation": conversation,
            "turn_id": None,
            "reason": "gone",
            "generation": generation,
            "lost_handle": "old",
            "new_handle": "new",
            "memory": "full",
            "primed": 3,
            "left_out": 1,
            "requests": 2,
            **values,
        }
    )


def counted(values: Iterable[str]) -> dict[str, int]:
    """Return how often each value occurs."""
    found: dict[str, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return found
