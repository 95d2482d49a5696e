"""The one clock of a history: it jumps to what happens next."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Clock:
    """The store's clock, and everybody's."""

    time: float = 1_800_000_000.0

    def now(self) -> float:
        """Return the time."""
        return self.time
