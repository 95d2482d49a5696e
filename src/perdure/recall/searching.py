"""Searching: where in a long log to look, by what a store's index says of the message's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from perdure.model import value
from perdure.recall.lines import BESIDE
from perdure.recall.ranking import rarity

#: Positions: no log has any beyond, on either side of its beginning.
FURTHEST: Final = 2**31 - 1
#: On each side of what was found, so that whole turns are read with what they are about.
MARGIN: Final = 6
#: Positions: items that are further apart have others between them, and not just withdrawn ones.
APART: Final = 8
_REACH: Final = MARGIN + APART


@value
class Found:
    """A word of the message: how many items have it, and the positions of the newest of them."""

    count: int
    positions: tuple[int, ...]


def ranges(words: Sequence[Found], size: int, items: int) -> tuple[tuple[int, int], ...]:
    """Return the stretches of positions worth reading: about ``items`` in all, in order.

    A word that is too common to be named in full is not looked at, unless all are.
    """
    named = [word for word in words if word.positions]
    rare = [word for word in named if word.count == len(word.positions)]
    scores: dict[int, float] = {}
    for word in rare or named:
        weight = rarity(word.count, size)
        for position in word.positions:
            scores[position] = scores.get(position, 0.0) + weight
    near = dict(scores)
    for position, score in scores.items():
        for distance, part in enumerate(BESIDE, 1):
            for other in (position - distance, position + distance):
                if other in scores:
                    near[other] += part * score
    chosen: set[int] = set()
    for position in sorted(near, key=lambda one: (-near[one], -one)):
        reach = [one for one in range(position - _REACH, position + _REACH + 1) if one in chosen]
        first = min([position - MARGIN, *reach])
        last = max([position + MARGIN, *reach])
        chosen.update(range(first, last + 1))
        if len(chosen) >= items:
            break
    return _joined(sorted(chosen))


def _joined(positions: list[int]) -> tuple[tuple[int, int], ...]:
    """Return the stretches that sorted positions form."""
    found: list[tuple[int, int]] = []
    for position in positions:
        if found and found[-1][1] == position - 1:
            found[-1] = (found[-1][0], position)
        else:
            found.append((position, position))
    return tuple(found)
