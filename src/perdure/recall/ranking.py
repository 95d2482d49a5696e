"""Ranking: how much each old item matters to the next message.

What counts, in this order: the words that both share, rare ones more (BM25 on presence, since in a
message a word hardly ever stands twice), and, for less, those of the same family; what stands
beside an item that shares some, because an answer seldom repeats the words of its question; the
words that go with those of the message in this very conversation; who said it, where the message
names one of the two; the time that the message speaks of; and, for all of it, that a text with more
rare words says more.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import log
from typing import Final

from perdure.model import value
from perdure.recall.dates import fit, stretches
from perdure.recall.lines import Line, beside
from perdure.recall.naming import names_in, role_of
from perdure.recall.words import stem, stems

_SATURATION: Final = 1.2  # k1 and b of BM25
_LENGTH: Final = 0.4
_BEGINNING: Final = 4  # letters that the words of a family have in common: collect, collection
_ENDING: Final = 4  # letters at most that they do not
_FAMILY: Final = 0.5
_BEST: Final = 30  # items that further words are taken from
_FURTHER: Final = 45
_FURTHER_WEIGHT: Final = 0.2
_SHORT: Final = 6  # words: a shorter text says no more about each of them
_OF_THE_NAMED: Final = 2.0
_RICHNESS: Final = 0.06
_OF_THE_OTHER: Final = 0.7  # for what was said by the one who is not named, and
_RICH_OF_THE_OTHER: Final = 0.3  # of its richness
_TIME_WEIGHT: Final = 2.0
_TELLS_TIME: Final = 1.5
_ASKS_TIME: Final = re.compile(
    r"\bwhen\b|\bhow long\b|\b(?:what|which) (?:date|day|month|year|time)"
)
_SPEAKS_OF_TIME: Final = re.compile(
    r"\b(?:yesterday|today|tonight|tomorrow|last|next|ago|(?:week|month|year|day)s?|weekend|since|"
    r"recently|just|soon|(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|april|"
    r"may|june|july|august|september|october|november|december|\d{1,4})\b"
)


@value
class Asked:
    """The next message, and what is known of its words in the whole log.

    ``counts`` says, for a stem, how many of ``size`` items have it; left out where the lines that
    are ranked are all there is.
    """

    text: str
    now: float
    counts: Mapping[str, int] | None = None
    size: int = 0


def rank(lines: Sequence[Line], asked: Asked) -> list[float]:
    """Return how much each line matters to the next message; higher is more, 0 is not at all."""
    if not lines:
        return []
    corpus = _Corpus(lines, asked)
    names = names_in(lines, asked.text)
    named = role_of(names)
    # A name is said to somebody, not of them: what they said themselves has it hardly ever.
    calls = set(map(stem, names))
    wanted = {one: corpus.weight(one) for one in stems(asked.text) if one not in calls}
    scores = corpus.scores(wanted | corpus.family(wanted))
    further = corpus.further(beside(lines, scores), wanted)
    for index, gain in enumerate(corpus.scores(further)):
        scores[index] += gain
    asks_time = _ASKS_TIME.search(asked.text.lower()) is not None
    for index, line in enumerate(lines):
        if line.role == named:
            scores[index] *= _OF_THE_NAMED
        if asks_time and scores[index] and _SPEAKS_OF_TIME.search(line.text.lower()):
            scores[index] *= _TELLS_TIME
    scores = beside(lines, scores)
    for index, line in enumerate(lines):
        other = named not in {None, line.role}
        scores[index] += _RICHNESS * (_RICH_OF_THE_OTHER if other else 1.0) * corpus.richness(index)
        scores[index] *= _OF_THE_OTHER if other else 1.0
    times = stretches(asked.text, asked.now, lines[0].at)
    if times:
        for index, line in enumerate(lines):
            scores[index] += _TIME_WEIGHT * corpus.most * fit(times, line.at)
    return scores


class _Corpus:
    """The lines taken apart: which stems each has, and where each stem stands."""

    def __init__(self, lines: Sequence[Line], asked: Asked) -> None:
        self._size = len(lines)
        self._said = [stems(line.text) for line in lines]
        self._distinct = [set(said) for said in self._said]
        self._where: defaultdict[str, list[int]] = defaultdict(list)
        for index, distinct in enumerate(self._distinct):
            for one in distinct:
                self._where[one].append(index)
        self._asked = asked
        mean = sum(line.tokens for line in lines) / len(lines) or 1.0
        self._share = [
            (_SATURATION + 1) / (1 + _SATURATION * (1 - _LENGTH + _LENGTH * line.tokens / mean))
            for line in lines
        ]
        size = len(lines)
        weights = [rarity(count, size) for count in range(size + 1)]
        self._weights = {one: weights[len(places)] for one, places in self._where.items()}
        self.most = max(self._weights.values(), default=0.0)

    def weight(self, one: str) -> float:
        """Return what it means to share a word of the message: the rarer, the more."""
        counts = self._asked.counts
        if counts is None or one not in counts:
            return self._weights.get(one, 0.0)
        return rarity(counts[one], self._asked.size)

    def scores(self, wanted: Mapping[str, float]) -> list[float]:
        """Return each line's score for weighted stems."""
        scores = [0.0] * self._size
        for one, weight in wanted.items():
            for index in self._where.get(one, ()):
                scores[index] += weight * self._share[index]
        return scores

    def family(self, wanted: Mapping[str, float]) -> dict[str, float]:
        """Return words of the same families as weighted stems: they begin alike, but go on."""
        begins: defaultdict[str, list[str]] = defaultdict(list)
        for one in wanted:
            if len(one) >= _BEGINNING:
                begins[one[:_BEGINNING]].append(one)
        alike = (other for other in self._where if other[:_BEGINNING] in begins)
        return {
            other: _FAMILY * self._weights[other]
            for other in alike
            if other not in wanted
            and any(_related(one, other) for one in begins[other[:_BEGINNING]])
        }

    def further(self, scores: list[float], wanted: Mapping[str, float]) -> dict[str, float]:
        """Return words that go with those of the message, by what the best lines say besides."""
        best = sorted(range(len(scores)), key=lambda index: -scores[index])[:_BEST]
        whole = sum(scores[index] for index in best)
        if not whole:
            return {}
        found: Counter[str] = Counter()
        for index in best:
            said = self._said[index]
            part = scores[index] / whole / max(len(said), _SHORT)
            for one in said:
                if one not in wanted and len(self._where[one]) > 1:
                    found[one] += part * self._weights[one]  # type: ignore[assignment]
        chosen = found.most_common(_FURTHER)
        if not chosen or not chosen[0][1]:
            return {}
        scale = _FURTHER_WEIGHT / chosen[0][1]
        return {one: gain * scale * self._weights[one] for one, gain in chosen}

    def richness(self, index: int) -> float:
        """Return how much a line says: the rarity of all that is in it."""
        return sum(map(self._weights.__getitem__, self._distinct[index]))


def _related(one: str, other: str) -> bool:
    """Whether two stems that begin alike differ in their endings alone."""
    same = _BEGINNING
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return max(len(one), len(other)) - same <= _ENDING


def rarity(count: int, size: int) -> float:
    """Return what a word weighs that ``count`` of ``size`` items have: the fewer, the more."""
    return log(1 + (max(size, count) - count + 0.5) / (count + 0.5))
