"""A clock that is turned by hand, so that no test sleeps."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

DEFAULT_START_SECONDS = 1_790_000_000.0


class Clock:
    """Tell a time that only the test moves, or real time plus what was advanced.

    A standing clock (the default) starts at a fixed second of September 2026; a running one starts
    now. Sleeping on either advances it and returns at once.
    """

    def __init__(self, start: float | None = None, *, running: bool = False) -> None:
        self.running = running
        self._lock = threading.Lock()
        if start is None:
            start = time.time() if running else DEFAULT_START_SECONDS
        self._turned = start
        self._born = time.monotonic()

    def now(self) -> float:
        """Return the seconds since the epoch."""
        with self._lock:
            passed = time.monotonic() - self._born if self.running else 0.0
            return self._turned + passed

    def monotonic(self) -> float:
        """Return the same turned time; it never goes back."""
        return self.now()

    def advance(self, by: timedelta | float) -> float:
        """Turn the clock forward and return the new time; ValueError on a negative step."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else float(by)
        if seconds < 0:
            message = f"a clock is only turned forward, not by {seconds} seconds"
            raise ValueError(message)
        with self._lock:
            self._turned += seconds
        return self.now()

    def sleep(self, seconds: float) -> None:
        """Advance the clock by `seconds` without waiting."""
        self.advance(max(0.0, seconds))

    async def async_sleep(self, seconds: float) -> None:
        """Advance the clock by `seconds` without waiting."""
        self.advance(max(0.0, seconds))
