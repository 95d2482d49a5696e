"""Fences: where a text of others stands inside one of ours, it cannot say where it ends."""

from __future__ import annotations

import re
from typing import Final

_FENCE: Final = "~"
_LEAST: Final = 3
_RUNS: Final = re.compile(rf"{_FENCE}+")


def fenced(text: str) -> str:
    """Return a text between two lines of a fence that is longer than any that stands in it."""
    longest = max((len(run) for run in _RUNS.findall(text)), default=0)
    fence = _FENCE * max(_LEAST, longest + 1)
    return f"{fence}\n{text}\n{fence}"
