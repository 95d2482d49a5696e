"""Somebody who deletes single items of a talk through us, as a moderator or an eraser does."""

from __future__ import annotations

import json
import random
from typing import Any, Final

from perdure.dialects.items import text_of
from perdure.engine.ops import Answer
from perdure.testing.simulator.clients import Talk
from perdure.testing.simulator.worker import Death
from perdure.testing.simulator.world import World

_OK: Final = 200
_FAILED: Final = 500
_TRIES: Final = 4
_NEWEST: Final = 3  # those are still being worked on
_PARTS: Final = {"conversation": ("conversations", "items"), "thread": ("threads", "messages")}


class Remover:
    """Lists a talk now and then, and deletes something older that it sees there."""

    def __init__(self, world: World, talk: Talk, chance: random.Random) -> None:
        self._world = world
        self._talk = talk
        self._chance = chance
        self._left = chance.randint(1, 3)

    def go_on(self) -> None:
        """Look at the talk, if it can be looked at."""
        if self._talk.handle is None or self._talk.forgotten or not self._world.odds.crash:
            return

        def listed(answer: Answer | Death | None) -> None:
            if isinstance(answer, Answer) and answer.status == _OK:
                rows = json.loads(answer.body)["data"]
                older = {_mark(row) for row in rows[_NEWEST:]} - {*map(_mark, rows[:_NEWEST])}
                if older:
                    self._delete(self._chance.choice(sorted(older)), rows)
                    return
            self._later()

        self._request("GET", self._path, "limit=100", listed)

    @property
    def _path(self) -> str:
        api, part = _PARTS[self._talk.kind]
        return f"/{api}/{self._talk.handle}/{part}"

    def _request(self, method: str, path: str, query: str, done: Any) -> None:
        self._world.request(None, method=method, path=path, query=query, done=done)

    def _later(self) -> None:
        self._left -= 1
        if self._left > 0:
            self._world.later(self._chance.uniform(1.0, 40.0), self.go_on)

    def _delete(self, mark: str, rows: list[dict[str, Any]]) -> None:
        """Delete a message: what was asked again may stand there more than once."""
        world, ids = self._world, [row["id"] for row in rows if _mark(row) == mark]
        began = world.clock.time
        world.removing.add(mark)

        def next_one(tries: int) -> None:
            if not self._talk.forgotten:
                self._request("DELETE", f"{self._path}/{ids[-1]}", "", lambda it: heard(it, tries))

        def heard(answer: Answer | Death | None, tries: int) -> None:
            status = answer.status if isinstance(answer, Answer) else 0
            if status == _OK:
                ids.pop()
                if ids:
                    next_one(_TRIES)
                    return
                world.faults["deleted"] += 1
                if world.said_at.get(mark, 0.0) < began:
                    world.removed[mark] = world.clock.time
            elif tries > 1 and not _OK < status < _FAILED:
                world.later(self._chance.uniform(0.5, 60.0), lambda: next_one(tries - 1))
                return
            self._later()

        next_one(_TRIES)


def _mark(row: dict[str, Any]) -> str:
    return text_of(row).split(" ", 1)[0]
