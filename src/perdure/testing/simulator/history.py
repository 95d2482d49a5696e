"""Histories: what clients do in a simulated world, and what must be true when it is over."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from perdure.engine.ops import Answer, Forget
from perdure.model import value
from perdure.stores import SQLiteStore
from perdure.testing.simulator.checks import problems
from perdure.testing.simulator.world import (
    DIED,
    TIMEOUT_SECONDS,
    Attempt,
    Clock,
    Death,
    Odds,
    World,
    question,
)

Kind: TypeAlias = Literal["conversation", "chain", "subject"]
_KINDS: Final[tuple[Kind, ...]] = ("conversation", "conversation", "chain", "subject")
_OK: Final = 200
_FINAL_ATTEMPTS: Final = 15
_LONG: Final = 10_000.0


@value
class Outcome:
    """What one history came to; ``problems`` is empty where everything held."""

    seed: int
    problems: tuple[str, ...]
    faults: Counter[str]
    turns: int
    answered: int


@dataclass(slots=True)
class Talk:
    """One conversation: how it is named on the wire, and the clients that talk in it."""

    name: str
    kind: Kind
    handle: str | None = None
    forgotten: bool = False

    def at(self) -> dict[str, str]:
        """Return the members that name it."""
        if self.handle is None:
            return {}
        return {
            "conversation" if self.kind == "conversation" else "previous_response_id": self.handle
        }

    @property
    def subject(self) -> str | None:
        """The app's user, for a conversation that is named by one."""
        return self.name if self.kind == "subject" else None


class Client:
    """Says marked messages one after the other; repeats what got no answer, or lets it be."""

    def __init__(self, world: World, talk: Talk, name: str, messages: int, *, named: bool) -> None:
        self._world = world
        self._talk = talk
        self._name = name
        self._left = messages
        self._named = named or talk.kind == "subject"
        self._said = 0
        self.attempts: list[Attempt] = []

    def go_on(self) -> None:
        """Say the next message, if there is one."""
        if self._left == 0 or self._talk.forgotten:
            return
        self._left -= 1
        self.say(f"{self._name}.{self._said}")
        self._said += 1

    def say(self, mark: str, *, retry: int = 0, until: int = 4) -> None:
        """Make one attempt at a message."""
        if self._talk.forgotten:
            return
        turn_id = f"{self._world.tenant}/{mark}" if self._named else None
        attempt = Attempt(self._name, mark, turn_id)
        self.attempts.append(attempt)

        def done(answer: Answer | Death | None) -> None:
            self._heard(attempt, answer, retry=retry, until=until)

        self._world.request(
            question(mark, **self._talk.at()),
            turn_id=turn_id,
            subject=self._talk.subject,
            retry=retry,
            done=done,
        )

    def _heard(
        self, attempt: Attempt, answer: Answer | Death | None, *, retry: int, until: int
    ) -> None:
        world, chance = self._world, self._world.chance
        died = attempt.died = answer is DIED
        if self._talk.forgotten:
            return
        if isinstance(answer, Answer):
            attempt.status, attempt.body = answer.status, json.loads(answer.body)
        if attempt.status == _OK:
            if self._talk.kind == "chain":
                self._talk.handle = attempt.body["id"]
            world.later(chance.uniform(0.0, 20.0), self.go_on)
            return
        # A client without names for its turns that died cannot know what it had sent.
        if (died and not self._named) or retry + 1 >= until or chance.random() < 0.1:  # noqa: PLR2004
            world.faults["given up"] += 1
            world.later(chance.uniform(0.0, 20.0), self.go_on)
            return
        world.faults["repeat"] += 1
        again = 0 if died else retry + 1
        pause = chance.choice((0.5, 2.0, TIMEOUT_SECONDS, 100.0)) if died else 0.7
        world.later(pause, lambda: self.say(attempt.mark, retry=again, until=until))

    @property
    def answered(self) -> bool:
        """Whether the newest message got its answer."""
        return self.attempts[-1].status == _OK


class Histories:
    """Runs histories, each in a tenant of its own, on stores in memory."""

    def __init__(self) -> None:
        self._clock = Clock()
        self._store: SQLiteStore | None = None
        self._used = 0

    def run(self, seed: int) -> Outcome:
        """Run the history of a seed and look at what it has left."""
        if self._store is None or self._used >= 100:  # noqa: PLR2004 - a small database is a fast one
            self._store = SQLiteStore(None, clock=self._clock.now)
            self._used = 0
        self._used += 1
        history = _History(World(seed, self._store, self._clock))
        history.run()
        return history.outcome()


class _History:
    def __init__(self, world: World) -> None:
        self.world = world
        chance = world.chance
        self.talks = [Talk(f"t{n}", chance.choice(_KINDS)) for n in range(chance.choice((1, 1, 2)))]
        self.clients: list[Client] = []
        self.final: list[str] = []

    def run(self) -> None:
        """Let the talks begin, go wrong, and come to rest."""
        world, chance = self.world, self.world.chance
        odds, world.odds = world.odds, Odds()
        for talk in self.talks:
            self._begin(talk)
        world.run()
        world.odds = odds
        for talk in self.talks:
            for number in range(chance.choice((1, 1, 2)) if talk.kind != "chain" else 1):
                self._client(talk, f"{talk.name}c{number}", chance.randint(3, 6))
            if talk.kind == "subject" and chance.random() < 0.2:  # noqa: PLR2004
                world.later(chance.uniform(5.0, 60.0), lambda talk=talk: self._erase(talk))  # type: ignore[misc]
        for client in self.clients:
            world.later(chance.uniform(0.0, 5.0), client.go_on)
        world.run()
        world.odds = Odds()
        world.clock.time += _LONG
        self._come_to_rest()

    def _begin(self, talk: Talk) -> None:
        if talk.kind != "conversation":
            return

        def begun(answer: Answer | Death | None) -> None:
            assert isinstance(answer, Answer)
            talk.handle = json.loads(answer.body)["id"]

        self.world.request(
            {}, path="/conversations", turn_id=None, subject=None, retry=0, done=begun
        )  # fmt: skip

    def _client(self, talk: Talk, name: str, messages: int) -> Client:
        client = Client(
            self.world, talk, name, messages, named=self.world.chance.random() < 0.5  # noqa: PLR2004
        )  # fmt: skip
        self.clients.append(client)
        return client

    def _erase(self, talk: Talk) -> None:
        self.world.faults["erased"] += 1
        talk.forgotten = True
        self.world.store.perform(Forget(self.world.tenant, talk.name))
        self.world.erased |= set(self.world.accepted.values())

    def _come_to_rest(self) -> None:
        """With nothing going wrong any more, each talk must go on."""
        for talk in self.talks:
            if talk.forgotten:
                continue
            client = self._client(talk, f"{talk.name}z", 1)
            client.go_on()
            self.world.run()
            if not client.answered:
                self.final.append(f"{talk.name} ({talk.kind}) did not go on: {client.attempts[-1]}")

    def outcome(self) -> Outcome:
        """Check what must be true."""
        world = self.world
        assert isinstance(world.store, SQLiteStore)
        erased = {talk.name for talk in self.talks if talk.forgotten}
        attempts = [attempt for client in self.clients for attempt in client.attempts]
        found, turns, answered = problems(world, attempts, erased)
        return Outcome(world.seed, (*self.final, *found), world.faults, turns, answered)


def run_many(seeds: Iterable[int]) -> Iterable[Outcome]:
    """Run the histories of many seeds, one after the other."""
    histories = Histories()
    for seed in seeds:
        yield histories.run(seed)
