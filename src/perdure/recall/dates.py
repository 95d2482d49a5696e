"""Dates that a message speaks of, as stretches of time.

Whoever asks what was said on a day, or in a month, means the messages of that time and of the days
after it, in which people tell of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final

from perdure.model import value

_MONTHS: Final = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_NUMBER: Final = {
    name[:letters]: number for number, name in enumerate(_MONTHS, 1) for letters in (3, len(name))
} | {"sept": 9}
_NAME: Final = rf"({'|'.join(sorted(_NUMBER, key=len, reverse=True))})\b\.?"
_DAY: Final = r"(\d{1,2})(?:st|nd|rd|th)?"
_YEAR: Final = r"(?:,?\s+(\d{4}))?"
_NAME_DAY: Final = re.compile(rf"\b{_NAME}\s+{_DAY}\b(?!\d){_YEAR}")
_DAY_NAME: Final = re.compile(rf"\b{_DAY}\s+(?:of\s+)?{_NAME}{_YEAR}")
_NAME_YEAR: Final = re.compile(rf"\b{_NAME},?\s+(\d{{4}})\b")
_IN_NAME: Final = re.compile(rf"\b(?:in|during|since|of)\s+{_NAME}")
_ISO: Final = re.compile(r"\b(\d{4})-(\d{2})(?:-(\d{2}))?\b")
_BACK: Final = {
    "today": (0, 1),
    "yesterday": (1, 1),
    "last week": (13, 13),
    "last month": (61, 61),
}
_TOLD_DAYS: Final = 8  # for so long after a day it is told of
_SOON_DAYS: Final = 2


@value
class Stretch:
    """A stretch of time, in seconds since the epoch, and how well an item in it fits (0 to 1)."""

    begin: float
    end: float
    fit: float


def stretches(text: str, now: float, first: float) -> tuple[Stretch, ...]:
    """Return the times that a text speaks of; a day without a year is one between first and now."""
    low = text.lower()
    found: list[Stretch] = []
    for year, month, day in _named(low):
        years = (year,) if year else range(_year(first), _year(now) + 1)
        for one in years:
            found += _around(one, month, day)
    today = datetime.fromtimestamp(now, UTC).date()
    for phrase, (begin, length) in _BACK.items():
        if re.search(rf"\b{phrase}\b", low):
            start = today - timedelta(days=begin)
            found.append(_stretch(start, start + timedelta(days=length), 1.0))
    return tuple(found)


def _named(low: str) -> Iterator[tuple[int | None, int, int | None]]:
    """Yield (year, month, day) of each date in a text; the more exact reading of a place wins."""
    for match in _NAME_DAY.finditer(low):
        yield _whole(match[3]), _NUMBER[match[1]], int(match[2])
    for match in _DAY_NAME.finditer(low):
        yield _whole(match[3]), _NUMBER[match[2]], int(match[1])
    for match in _ISO.finditer(low):
        yield int(match[1]), int(match[2]), _whole(match[3])
    rest = _DAY_NAME.sub(" ", _NAME_DAY.sub(" ", low))
    for match in _NAME_YEAR.finditer(rest):
        yield int(match[2]), _NUMBER[match[1]], None
    for match in _IN_NAME.finditer(_NAME_YEAR.sub(" ", rest)):
        yield None, _NUMBER[match[1]], None


def _whole(digits: str | None) -> int | None:
    return int(digits) if digits else None


def _year(seconds: float) -> int:
    return datetime.fromtimestamp(seconds, UTC).year


def _around(year: int, month: int, day: int | None) -> list[Stretch]:
    try:
        begin = date(year, month, day or 1)
    except ValueError:  # the 31st of June
        return []
    if day is None:
        end = date(year + month // 12, month % 12 + 1, 1)
        return [_stretch(begin, end, 0.7)]
    soon, told = (begin + timedelta(days=days) for days in (_SOON_DAYS, _TOLD_DAYS))
    return [_stretch(begin, soon, 1.0), _stretch(soon, told, 0.5)]


def _stretch(begin: date, end: date, fit: float) -> Stretch:
    return Stretch(_seconds(begin), _seconds(end), fit)


def _seconds(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def fit(found: tuple[Stretch, ...], at: float) -> float:
    """Return how well a time fits the stretches: 0 outside all of them."""
    return max((one.fit for one in found if one.begin <= at < one.end), default=0.0)
