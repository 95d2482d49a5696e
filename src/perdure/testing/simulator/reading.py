"""The app's side of a streamed answer: what it was shown, and how it ended."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, Final

from perdure.dialects.items import text_of
from perdure.dialects.sse import Event, Parser
from perdure.engine.ops import Answer
from perdure.model import TurnKey
from perdure.testing.simulator.odds import Odds
from perdure.testing.simulator.streams import ENDS

_TELLS: Final = ENDS | {"thread.run.created"}


def is_unsure(told: dict[str, Any]) -> bool:
    """Whether an app is told that the store failed: it asks again, or cannot know."""
    code = (told.get("error") or {}).get("code")
    return code == "store_unavailable" or (told.get("perdure") or {}).get("stored") is False


class Reading:
    """Reads events as an SDK does; may lose interest at any of them."""

    def __init__(self, chance: random.Random, odds: Odds, faults: Counter[str]) -> None:
        self._chance = chance
        self._odds = odds
        self._faults = faults
        self.begin()

    def begin(self) -> None:
        """Get ready for an answer; of one before it nothing is left."""
        self._parser = Parser()
        self._items: list[dict[str, Any]] = []
        self.turn: TurnKey | None = None
        self.started = False
        self.closed = False
        self.unstored = False
        self.shown = ""
        self.end: str | None = None  # the terminal event
        self.object: dict[str, Any] = {}  # the newest response or run
        self.unsure = False  # the last that was told of it: it is not stored

    def start(self, answer: Answer) -> None:
        """Take the head."""
        assert answer.status == 200  # noqa: PLR2004
        self.started = True

    def take(self, data: bytes) -> bool:
        """Take a piece; False: no more of it is wanted."""
        for event in self._parser.feed(data):
            self._observe(event)
        if self._chance.random() < self._odds.closed:
            self._faults["closed"] += 1
            self.closed = True
        return not self.closed

    @property
    def failed(self) -> bool:
        """Whether the stream itself said that there is no answer."""
        return self.end in {"response.failed", "error"}

    def _observe(self, event: Event) -> None:
        value = event.json()
        match event.name:
            case "response.output_text.delta":
                self.shown += value["delta"]
            case "thread.message.delta":
                self.shown += value["delta"]["content"][0]["text"]["value"]
            case "response.output_item.done" | "thread.message.completed":
                self._items.append(value.get("item") or value)
            case name if name.startswith("response."):
                self.object = value.get("response") or self.object
            case name if name.startswith("thread.run."):
                self.object = value
        if event.name in ENDS:
            self.end = event.name
        if event.name in _TELLS:
            self.unsure = is_unsure(self.object)

    def replies(self) -> list[str]:
        """Return the texts of the whole messages in it."""
        return [text_of(item) for item in self.object.get("output") or self._items]
