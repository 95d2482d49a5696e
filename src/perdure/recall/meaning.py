"""Meaning: what embeddings say of how much an item matters, merged with what words say.

An item can be about the next message and share no word with it. Vectors know that, but not which
of many items alike is meant; words do. So neither's numbers are compared with the other's: an item
gains by its place in both orders (reciprocal rank fusion).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from perdure.recall.lines import Line, beside
from perdure.recall.naming import bare, names_in, role_of
from perdure.recall.words import stem, words

_EVEN: Final = 30  # places that count about as much as the first
_WEIGHT: Final = 0.5  # of the order by likeness; of the order by words it is 1
_OF_THE_OTHER: Final = 0.5  # for what was said by the one whom the message does not name


def wanted(lines: Sequence[Line], text: str) -> str:
    """Return what a message is about, to be compared: its words that say something, no names.

    A name is said to somebody, not of them, so it only likens the message to greetings.
    """
    names = names_in(lines, text)
    return " ".join(word for word in words(text) if stem(word) and bare(word) not in names)


def by_likeness(lines: Sequence[Line], likeness: Sequence[float], text: str) -> list[float]:
    """Return how much each line matters by its likeness to a message (from -1 to 1) alone."""
    named = role_of(names_in(lines, text))
    scores = [
        max(0.0, like) ** 2 * (1.0 if named in {None, line.role} else _OF_THE_OTHER)
        for line, like in zip(lines, likeness, strict=True)
    ]
    return beside(lines, scores)


def merged(by_words: Sequence[float], by_meaning: Sequence[float]) -> list[float]:
    """Return one worth for each item from its places in both orders."""
    return [
        1 / (_EVEN + one) + _WEIGHT / (_EVEN + other)
        for one, other in zip(_places(by_words), _places(by_meaning), strict=True)
    ]


def _places(scores: Sequence[float]) -> list[int]:
    places = [0] * len(scores)
    for place, index in enumerate(sorted(range(len(scores)), key=lambda one: -scores[one])):
        places[index] = place
    return places
