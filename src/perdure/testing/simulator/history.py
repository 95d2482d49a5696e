"""Histories: what clients do in a simulated world, and what must be true when it is over."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from typing import Final

from perdure.engine.ops import Answer, Find, Forget
from perdure.model import value
from perdure.testing.simulator.checks import problems
from perdure.testing.simulator.clients import Client, Kind, Talk
from perdure.testing.simulator.clock import Clock
from perdure.testing.simulator.odds import Mix, Odds, mix_of
from perdure.testing.simulator.removers import Remover
from perdure.testing.simulator.sites import Site, memory
from perdure.testing.simulator.thread_clients import ThreadClient
from perdure.testing.simulator.worker import Death
from perdure.testing.simulator.world import UPSTREAM, World

_KINDS: Final[dict[Mix, tuple[Kind, ...]]] = {
    "calls": ("conversation", "conversation", "chain", "subject"),
    "streams": ("conversation", "conversation", "chain", "subject"),
    "threads": ("thread",),
}
_LONG: Final = 10_000.0
_ELSEWHERE: Final = 0.1
_REMOVES: Final = 0.6
_SAID_ELSEWHERE: Final = (2, 6, 120)  # messages: the last is more than a page
_MUCH: Final = 8  # items that cannot be forgotten without anybody noticing
_FEW: Final = 100  # a small database is a fast one


class Calm(random.Random):
    """Chance by which nothing out of the way happens."""

    def random(self) -> float:
        """Return what is not below any odds."""
        return 1.0


@value
class Outcome:
    """What one history came to; ``problems`` is empty where everything held."""

    seed: int
    mix: Mix
    problems: tuple[str, ...]
    faults: Counter[str]
    turns: int
    answered: int


class Histories:
    """Runs histories, each in a tenant of its own, on a site or on stores in memory."""

    def __init__(self, site: Site | None = None) -> None:
        self._given = site is not None
        self._site = memory(Clock()) if site is None else site
        self._used = 0

    def run(self, seed: int, mix: Mix | None = None) -> Outcome:
        """Run the history of a seed and look at what it has left."""
        if not self._given and self._used == _FEW:
            self._site = memory(self._site.clock)
            self._used = 0
        self._used += 1
        history = _History(World(seed, mix or mix_of(seed), self._site))
        history.run()
        return history.outcome()


class _History:
    def __init__(self, world: World) -> None:
        self.world = world
        chance = world.chance
        kinds = _KINDS[world.mix]
        self.talks = [Talk(f"t{n}", chance.choice(kinds)) for n in range(chance.choice((1, 1, 2)))]
        self.clients: list[Client | ThreadClient] = []
        self.final: list[str] = []

    def run(self) -> None:
        """Let the talks begin, go wrong, and come to rest."""
        world, chance = self.world, self.world.chance
        odds, world.odds = world.odds, Odds()
        for talk in self.talks:
            talk.moods.seed(f"background {world.seed} {talk.name}")
            self._begin(talk)
        world.run()
        world.odds = odds
        for talk in self.talks:
            for number in range(chance.choice((1, 1, 2)) if talk.kind != "chain" else 1):
                self._client(talk, f"{talk.name}c{number}", chance.randint(3, 6))
            if talk.subject is not None and chance.random() < 0.2:  # noqa: PLR2004
                world.later(chance.uniform(5.0, 60.0), lambda talk=talk: self._erase(talk))  # type: ignore[misc]
            if talk.kind == "chain":
                talk.branches = random.Random(f"branch {world.seed} {talk.name}")  # noqa: S311
        moods = random.Random(f"remove {world.seed}")  # noqa: S311
        for talk in self.talks:
            if talk.kind in {"conversation", "thread"} and moods.random() < _REMOVES:
                world.later(moods.uniform(5.0, 80.0), Remover(world, talk, moods).go_on)
        for client in self.clients:
            world.later(chance.uniform(0.0, 5.0), client.go_on)
        world.run()
        world.odds = Odds()
        world.clock.time += _LONG
        self._come_to_rest()

    def _begin(self, talk: Talk) -> None:
        if talk.kind != "subject" and self.world.chance.random() < _ELSEWHERE:
            said = self.world.chance.choice(_SAID_ELSEWHERE)
            talk.elsewhere = tuple(f"{talk.name}e{number}" for number in range(said))
            talk.handle = self.world.provider.hold(talk.kind, list(talk.elsewhere))
            self.world.faults["had elsewhere"] += 1
            return
        if talk.kind == "subject" or (
            self.world.mix != "calls" and talk.kind != "chain" and self.world.chance.random() < 0.3  # noqa: PLR2004
        ):
            talk.subject = talk.name
        if talk.kind not in {"conversation", "thread"}:
            return
        if talk.kind == "thread" and self.world.chance.random() < 0.3:  # noqa: PLR2004
            return  # its first run makes it

        def begun(answer: Answer | Death | None) -> None:
            assert isinstance(answer, Answer)
            talk.handle = json.loads(answer.body)["id"]

        path = "/threads" if talk.kind == "thread" else "/conversations"
        self.world.request({}, path=path, subject=talk.subject, done=begun)

    def _client(self, talk: Talk, name: str, messages: int) -> Client | ThreadClient:
        named = self.world.chance.random() < 0.5  # noqa: PLR2004
        make = ThreadClient if talk.kind == "thread" else Client
        client = make(self.world, talk, name, messages, named=named)
        self.clients.append(client)
        return client

    def _erase(self, talk: Talk) -> None:
        assert talk.subject is not None
        self.world.faults["erased"] += 1
        talk.forgotten = True
        self.world.store.perform(Forget(self.world.tenant, talk.subject))
        self.world.erased |= set(self.world.accepted.values())

    def _come_to_rest(self) -> None:
        """With nothing going wrong any more, each talk must go on."""
        for talk in self.talks:
            if talk.forgotten or talk.failed:
                continue
            talk.branches = None
            talk.moods = Calm()
            lines = [handle for handle in talk.responses if handle != talk.handle]
            for number, handle in enumerate([talk.handle, *lines]):
                talk.handle = handle
                self._goes_on(talk, f"{talk.name}z{number}")

    def _goes_on(self, talk: Talk, name: str) -> None:
        client = self._client(talk, name, 1)
        if isinstance(client, ThreadClient):
            client.see_out()
            self.world.run()
        known, told = self._known_from_elsewhere(talk), self.world.faults["forgetting told"]
        judged = self._is_judged(talk)
        client.go_on()
        self.world.run()
        if not client.answered and self._never_came_here(talk):
            return
        if not client.answered:
            self.final.append(f"{talk.name} ({talk.kind}) did not go on: {client.attempts[-1]}")
            return
        reply = client.attempts[-1].replies[0]
        lacks = self.world.provider.said_from_nothing.get(reply, 0)
        missing = known - self.world.removing - set(reply.split())
        if missing and not lacks:
            self.final.append(f"{talk.name} ({talk.kind}) went on without {missing}")
        if lacks >= _MUCH and judged and told == self.world.faults["forgetting told"]:
            self.final.append(f"{talk.name} ({talk.kind}) went on from nothing, and nobody noticed")

    def _is_judged(self, talk: Talk) -> bool:
        """Whether it is known what the next answer's history must amount to.

        That is not known of what was said elsewhere, or of an older response that a line goes on
        from, nor for a while where something was deleted.
        """
        if talk.handle is None or talk.kind == "thread" or talk.elsewhere:
            return False
        if self.world.removing or self.world.faults["branch"]:
            return False
        found = self.world.store.perform(Find(self.world.tenant, UPSTREAM, talk.handle))
        return found is not None and found.remembered is not None

    def _never_came_here(self, talk: Talk) -> bool:
        """Whether a talk was lost before any of it was entered: the provider says so itself."""
        entered = self.world.site.read(self.world.tenant).items
        is_there = talk.handle in self.world.provider.handles()
        return bool(talk.elsewhere) and not is_there and not entered

    def _known_from_elsewhere(self, talk: Talk) -> set[str]:
        """Return what the log has of what was said before a talk came here."""
        if not talk.elsewhere:
            return set()
        journal = self.world.site.read(self.world.tenant)
        return {item.mark for item in journal.items} & set(talk.elsewhere)

    def outcome(self) -> Outcome:
        """Check what must be true."""
        world = self.world
        erased = {talk.name for talk in self.talks if talk.forgotten}
        attempts = [attempt for client in self.clients for attempt in client.attempts]
        elsewhere = [talk.elsewhere for talk in self.talks if talk.elsewhere]
        found, turns, answered = problems(world, attempts, erased, elsewhere)
        wrong = (*self.final, *world.seen_amiss, *found)
        return Outcome(world.seed, world.mix, wrong, world.faults, turns, answered)


def run_many(
    seeds: Iterable[int], mix: Mix | None = None, site: Site | None = None
) -> Iterable[Outcome]:
    """Run the histories of many seeds, one after the other."""
    histories = Histories(site)
    for seed in seeds:
        yield histories.run(seed, mix)
