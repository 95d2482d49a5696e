"""How likely each thing is in a history."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

#: What a history is made of: calls with whole answers, calls with streamed ones, threads and runs.
Mix: TypeAlias = Literal["calls", "streams", "threads"]
MIXES: Final[tuple[Mix, ...]] = get_args(Mix)
_SHARES: Final[tuple[Mix, ...]] = ("calls", "calls", "streams", "threads", "threads")


def mix_of(seed: int) -> Mix:
    """Return what the history of a seed is made of."""
    return random.Random(f"mix {seed}").choice(_SHARES)  # noqa: S311  # a history, not a secret


@dataclass(slots=True)
class Odds:
    """How likely each thing is, at each op, each request, each stream or each run."""

    crash: float = 0.0
    stall: float = 0.0
    lost_before: float = 0.0
    lost_after: float = 0.0
    slow: float = 0.0
    error: float = 0.0
    forget: float = 0.0
    cut: float = 0.0
    closed: float = 0.0
    failed: float = 0.0
    error_in_stream: float = 0.0
    store: float = 0.0
    empty: float = 0.0
    interim: float = 0.0

    @classmethod
    def drawn(cls, chance: random.Random, mix: Mix) -> Odds:
        """Return odds for one history; some faults are absent from some histories."""
        odds = cls(
            crash=chance.choice((0.08, 0.12, 0.16, 0.2)),
            stall=chance.choice((0.0, 0.02, 0.05)),
            lost_before=chance.choice((0.0, 0.05, 0.1)),
            lost_after=chance.choice((0.0, 0.1, 0.2)),
            slow=chance.choice((0.0, 0.1)),
            error=chance.choice((0.0, 0.05, 0.1)),
            forget=chance.choice((0.0, 0.05, 0.15)),
            store=chance.choice((0.0, 0.02, 0.05)),
        )
        if mix != "calls":
            odds.crash /= chance.choice((2, 3, 4))  # these histories have more ops
            odds.cut = chance.choice((0.0, 0.1, 0.25))
            odds.closed = chance.choice((0.0, 0.02, 0.06))
            odds.failed = chance.choice((0.0, 0.05, 0.15))
            odds.error_in_stream = chance.choice((0.0, 0.5))
            odds.interim = chance.choice((0.0, 0.5))
        return odds
