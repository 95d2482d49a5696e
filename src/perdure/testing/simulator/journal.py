"""The journal of one tenant, read as it stands in the database."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from perdure.dialects.items import text_of
from perdure.model import value


@lru_cache(maxsize=1_000)  # the checks of a history look at each item many times
def _object(wire: str) -> tuple[dict[str, Any], str]:
    """Return an item's wire form, decoded, and what it says."""
    found: dict[str, Any] = json.loads(wire)
    return found, text_of(found)


@value
class Item:
    """One entry of the log."""

    conversation: int
    position: int
    seq: int | None
    role: str
    wire: str
    withdrawn: bool

    def __str__(self) -> str:
        return f"{self.conversation}@{self.position} {self.text!r}"

    @property
    def text(self) -> str:
        """What it says."""
        return _object(self.wire)[1]

    @property
    def mark(self) -> str:
        """The word that no other message begins with."""
        return self.text.split(" ", 1)[0]

    @property
    def id(self) -> str | None:
        """The id under which the provider shows it; what was shown before a cut has none."""
        found: str | None = _object(self.wire)[0].get("id")
        return found

    @property
    def run_id(self) -> str | None:
        """The run that said it."""
        found: str | None = _object(self.wire)[0].get("run_id")
        return found


@value
class Turn:
    """One turn; ``answer`` is its answer, empty where there is none."""

    conversation: int
    seq: int
    turn_id: str | None
    kind: str
    state: str
    first: int
    last: int
    runs: tuple[str, ...]
    answer: dict[str, Any]

    @property
    def output(self) -> list[str | None]:
        """The ids of what the answer says."""
        return [item.get("id") for item in self.answer.get("output") or ()]

    def __str__(self) -> str:
        return f"{self.kind} {self.conversation}.{self.seq} ({self.turn_id})"

    def owns(self, item: Item) -> bool:
        """Whether an item is one that this turn brought."""
        inside = self.first <= item.position <= self.last
        return item.conversation == self.conversation and inside


@value
class Conversation:
    """One conversation and its replica."""

    number: int
    dialect: str
    origin: int | None
    origin_position: int | None
    replica: str | None
    unread: int | None


class Journal:
    """All that a store holds of a tenant."""

    def __init__(
        self,
        conversations: list[Conversation],
        turns: list[Turn],
        items: list[Item],
        *,
        live: list[tuple[int, str]],
        handles: set[str],
        intents: int,
        stray: set[int],
    ) -> None:
        self.conversations = {one.number: one for one in conversations}
        self.turns = turns
        self.everything = items
        self.items = [item for item in items if not item.withdrawn]
        #: The live replicas, each with its conversation.
        self.live = live
        #: Every remote object that is bound or an orphan.
        self.handles = handles
        #: Creates of which it was never learnt what came of them.
        self.intents = intents
        #: Conversations of which there are items and nothing else.
        self.stray = stray

    def before(self, conversation: int, position: int) -> list[Item]:
        """Return what stands before a position, through the origins of a branch."""
        found = self.conversations[conversation]
        inherited = (
            []
            if found.origin is None
            else self.before(found.origin, (found.origin_position or 0) + 1)
        )
        own = [
            item
            for item in self.items
            if item.conversation == conversation and item.position < position
        ]
        return [*inherited, *own]
