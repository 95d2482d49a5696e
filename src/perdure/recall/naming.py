"""Naming: which of the two a message names.

Nobody tells us names. But people call each other by them, and hardly ever themselves.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from perdure.recall.lines import Line
from perdure.recall.words import plain, words

_CALLED: Final = re.compile(
    r"(?:^|[,.!?…]\s*|\b(?:hey|hi|hello|thanks|thank you|dear|congrats|so|yes|no|oh|wow),?\s+)"
    r"([A-ZÀ-Þ][\w\u2019']+)(?=\s*(?:[,.!?…]|$))"
)
_CALLS_LEAST: Final = 3


def names_in(lines: Sequence[Line], text: str) -> dict[str, str]:
    """Return whom a message names: for a name, the role of the one who goes by it."""
    asked = {bare(word) for word in words(text) if word[0].isupper()}
    if not asked:
        return {}
    called: dict[str, Counter[str]] = {"user": Counter(), "assistant": Counter()}
    written: dict[str, Counter[str]] = {"user": Counter(), "assistant": Counter()}
    for line in lines:
        low = plain(line.text)
        if line.role in called and any(name in low for name in asked):
            said = {bare(word) for word in words(line.text) if word[0].isupper()} & asked
            if said:
                written[line.role].update(said)
                called[line.role].update(set(map(bare, _CALLED.findall(line.text))) & said)
    return {
        name: other
        for role, other in (("user", "assistant"), ("assistant", "user"))
        for name, times in called[role].items()
        if times >= _CALLS_LEAST
        and times >= written[role][name] / 4
        and written[role][name] >= 4 * written[other][name] + 2
    }


def role_of(names: Mapping[str, str]) -> str | None:
    """Return the role of the one who is named; None where it is both or nobody."""
    roles = set(names.values())
    return roles.pop() if len(roles) == 1 else None


def bare(word: str) -> str:
    """Return a name as it is told from others: without case, accents and a possessive s."""
    return plain(word.removesuffix("'s").removesuffix("\u2019s"))
