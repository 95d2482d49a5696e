"""Lines: items as recall sees them, and what stands beside what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from perdure.model import value

#: What part of an item's score those have that stand one, two … places beside it.
BESIDE: Final = (0.6, 0.4, 0.3, 0.2, 0.1)


@value
class Line:
    """An item: what it says, who said it, when, and what it costs."""

    position: int
    role: str | None
    at: float
    tokens: int
    text: str


def beside(lines: Sequence[Line], scores: Sequence[float]) -> list[float]:
    """Let each line have a part of what the lines next to it have."""
    near = list(scores)
    places = [line.position for line in lines]
    for distance, part in enumerate(BESIDE, 1):
        reach = 2 * distance  # positions have gaps where items were withdrawn
        for one, other in zip(range(len(places)), range(distance, len(places)), strict=False):
            if places[other] - places[one] <= reach:
                near[other] += part * scores[one]
                near[one] += part * scores[other]
    return near
