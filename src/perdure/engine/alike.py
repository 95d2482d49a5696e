"""Likeness: items that are about the next message, whether or not they share a word with it.

The owner's embeddings are asked when a prime is made, about the items of that moment. No vector is
kept, in the store or in memory: so none outlives the text it was made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from perdure.dialects.items import said
from perdure.engine.ops import Excerpts, Liken
from perdure.flow import Flow
from perdure.model import StoredItem, value
from perdure.recall.lines import Line
from perdure.recall.meaning import by_likeness, wanted
from perdure.recall.searching import APART, FURTHEST

_LOOKED_AT: Final = 2_000  # of the newest items of a longer log, besides those that a search finds
_FOUND: Final = 100  # items taken of those that no search has found
_AROUND: Final = 2
_CHARS: Final = 2_000  # of an item: where it begins it says what it is about


@value
class Alike:
    """Items to choose from, and how much each is about the message; None: nobody can say."""

    items: Sequence[StoredItem]
    worth: Sequence[float] | None


def lines_of(items: Sequence[StoredItem]) -> list[Line]:
    """Return items as recall sees them."""
    return [
        Line(item.position, item.role, item.created_at, item.tokens, said(item.input))
        for item in items
    ]


def alike(
    embed: Callable[[list[str]], Any],
    tenant: str,
    conversation: int,
    found: Sequence[StoredItem],
    asked: str,
    older: int,
    *,
    wire: str | None = None,
) -> Flow[Alike]:
    """Add to the items that words have found those that embeddings find.

    ``older`` is how many items the log has before ``found``'s newest. Costs no call to the
    provider; what the embeddings cost is their owner's.
    """
    items = list(found)
    if items and len(items) < older:
        last = items[-1].position
        newest = yield from Excerpts(
            tenant, conversation, last, ((-FURTHEST, last),), _LOOKED_AT, wire=wire
        )
        items = sorted(
            {item.position: item for item in (*items, *newest)}.values(),
            key=lambda item: item.position,
        )
    lines = lines_of(items)
    message = wanted(lines, asked)
    told = [index for index, line in enumerate(lines) if line.text.strip()]
    if not message or not told:
        return Alike(found, None)
    likeness = yield from Liken(embed, message, tuple(lines[index].text[:_CHARS] for index in told))
    if likeness is None:
        return Alike(found, None)
    like = [0.0] * len(lines)
    for index, one in zip(told, likeness, strict=True):
        like[index] = one
    worth = by_likeness(lines, like, asked)
    kept = _kept(items, worth, {item.position for item in found})
    return Alike([items[index] for index in kept], [worth[index] for index in kept])


def _kept(items: Sequence[StoredItem], worth: Sequence[float], found: set[int]) -> list[int]:
    """Return which items stay: the found ones, the best of the others, and what is around those."""
    kept = {index for index, item in enumerate(items) if item.position in found}
    others = sorted(set(range(len(items))) - kept, key=lambda index: (-worth[index], -index))
    for best in others[:_FOUND]:
        kept.update(range(max(0, best - _AROUND), min(len(items), best + _AROUND + 1)))
    whole: list[int] = []
    for index in sorted(kept):  # what lies closely between two that are kept stays too
        if whole and items[index].position - items[whole[-1]].position <= APART:
            whole += range(whole[-1] + 1, index)
        whole.append(index)
    return whole
