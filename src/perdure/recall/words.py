"""Words: what a text is searched by.

A store's own full-text search finds items by words, with its own stemmer. What is found is ranked
here, by the stems below, so that the order is the same on every store.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

_WORD: Final = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
# Scripts written without blanks: each character is searched for by itself.
_UNSPACED: Final = re.compile(r"([\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])")
_POSSESSIVE: Final = re.compile(r"['\u2019]s$")
_APOSTROPHE: Final = re.compile(r"['\u2019]")
_LONG: Final = 4  # letters; a shorter word loses nothing but a plural s
_STEM: Final = 3
_ENDINGS: Final = (
    ("ies", "y"),
    ("ing", ""),
    ("edly", ""),
    ("ed", ""),
    ("es", ""),
    ("ly", ""),
    ("s", ""),
)
#: Words that say nothing about what a text is about. English ones only: in other languages a word
#: that is everywhere weighs nothing because it is everywhere.
EMPTY: Final = frozenset(
    word
    for line in (
        "a about after all also am an and any are as at be been before being but by can could",
        "did do does doing don't down for from had has have having he her here him his how i",
        "i'm if in into is it it's its just m may me might more most must my no not of off on",
        "one or our out over s shall she should so some t than that that's the their them",
        "then there these they this those to up us was we were what when where which who whom",
        "why will with would you your",
    )
    for word in line.split()
)


def spaced(text: str) -> str:
    """Return text in which a search by words can find what is written without blanks."""
    return text if text.isascii() else _UNSPACED.sub(r" \1 ", text)


def words(text: str) -> list[str]:
    """Return the words of a text as they stand there, the empty ones too."""
    return _WORD.findall(spaced(text))


def stems(text: str) -> list[str]:
    """Return the stems of a text's words in their order, without the empty ones."""
    found = map(stem, words(text))
    return [one for one in found if one]


def content_words(text: str) -> dict[str, str]:
    """Return a text's words that say something, in lower case: a word for each stem."""
    found: dict[str, str] = {}
    for word in words(text):
        key = stem(word)
        if key:
            found.setdefault(key, plain(word))
    return found


@lru_cache(maxsize=16_384)
def stem(word: str) -> str:
    """Return what a word has in common with its other forms; empty for a word that says nothing."""
    low = plain(word)
    if low in EMPTY:
        return ""
    low = _APOSTROPHE.sub("", _POSSESSIVE.sub("", low))
    if len(low) < _LONG or not low.isascii():
        return low
    if len(low) == _LONG:
        return low[:-1] if low.endswith("s") and not low.endswith("ss") else low
    return _without_ending(low)


def _without_ending(word: str) -> str:
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _STEM and not word.endswith("ss"):
            word = word[: -len(ending)] + instead
            break
    if len(word) > _STEM and word[-1] == word[-2] and word[-1] not in "ls":
        word = word[:-1]
    if word.endswith("e") and len(word) > _LONG:
        word = word[:-1]
    return f"{word[:-1]}y" if word.endswith("i") else word


def plain(word: str) -> str:
    """Return a word in lower case, without accents."""
    if word.isascii():
        return word.lower()
    parts = unicodedata.normalize("NFKD", word.casefold())
    return "".join(part for part in parts if not unicodedata.combining(part))
