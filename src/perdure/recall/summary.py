"""The built-in summariser: sentences picked from what was said, by how much each says.

It needs no model and invents nothing: every line of its summary stands in the conversation.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from perdure.dialects.tokens import message_tokens
from perdure.recall.ranking import rarity
from perdure.recall.words import stems

#: What a summary may have, in tokens.
MOST_TOKENS: Final = 800
_SENTENCE: Final = re.compile(r"(?<=[.!?…。！？])\s+|\n+")  # noqa: RUF001  # ends of sentences
_LINE: Final = re.compile(r"(?P<head>\d{4}-\d{2}-\d{2} (?P<role>\w+): )(?P<said>.*)", re.DOTALL)
_SHORTEST: Final = 3  # words that say something
_LONGEST_CHARS: Final = 300
_EVEN: Final = 6  # words that a sentence's worth is spread over besides its own
_OF_THE_USER: Final = 1.5
_OF_A_QUESTION: Final = 0.5


def extract(previous: str, transcript: str) -> str:
    """Return the sentences that say most, of an earlier summary and of what came after it.

    Both are lines of the form ``2026-05-08 user: text``; so is the summary, in the same order.
    Costs time in proportion to both.
    """
    sentences = [*previous.splitlines(), *_sentences(transcript)]
    said = [_stems(line) for line in sentences]
    counts = Counter(one for found in said for one in set(found))
    worth = [
        _worth(line, found, counts, len(sentences))
        for line, found in zip(sentences, said, strict=True)
    ]
    chosen: set[int] = set()
    told: set[str] = set()
    left = MOST_TOKENS
    for index in sorted(range(len(sentences)), key=lambda one: (-worth[one], one)):
        fresh = set(said[index]) - told
        if len(said[index]) < _SHORTEST or 2 * len(fresh) < len(set(said[index])):
            continue  # says nothing, or what another one has said
        cost = message_tokens(sentences[index])
        if cost <= left:
            left -= cost
            chosen.add(index)
            told |= fresh
    return "\n".join(sentences[index] for index in sorted(chosen))


def _sentences(transcript: str) -> list[str]:
    """Return a transcript's sentences, each with the date and the speaker of its message."""
    found = []
    head = ""
    for line in transcript.splitlines():
        begins = _LINE.fullmatch(line)
        if begins:
            head, line = begins["head"], begins["said"]  # noqa: PLW2901
        found += [
            f"{head}{sentence.strip()[:_LONGEST_CHARS]}"
            for sentence in _SENTENCE.split(line)
            if sentence.strip()
        ]
    return found


def _stems(line: str) -> list[str]:
    begins = _LINE.fullmatch(line)
    return stems(begins["said"] if begins else line)


def _worth(line: str, said: list[str], counts: Counter[str], size: int) -> float:
    worth = sum(rarity(counts[one], size) for one in set(said)) / (len(said) + _EVEN)
    begins = _LINE.fullmatch(line)
    if begins and begins["role"] == "user":
        worth *= _OF_THE_USER
    return worth * _OF_A_QUESTION if line.rstrip().endswith("?") else worth
