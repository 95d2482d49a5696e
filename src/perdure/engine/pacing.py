"""How long a server that answers 429 wants to be left alone."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Final

from perdure.engine.ops import Answer

_UNSAID_SECONDS: Final = 1.0
_MOST_SECONDS: Final = 120.0  # the SDK's own bound
_JITTER: Final = 0.25
_HEX_DIGITS: Final = 8


def wait_asked(answer: Answer) -> float:
    """Return the seconds that a 429 asks for: milliseconds, seconds, or a date by its own clock."""
    exact, text = answer.header("retry-after-ms"), answer.header("retry-after")
    try:
        if exact is not None:
            wait = float(exact) / 1000
        elif text is None:
            wait = _UNSAID_SECONDS
        elif text.replace(".", "", 1).isdigit():
            wait = float(text)
        else:
            sent = parsedate_to_datetime(answer.header("date") or "")
            wait = (parsedate_to_datetime(text) - sent).total_seconds()
    except ValueError:
        wait = _UNSAID_SECONDS
    return min(max(wait, 0.0), _MOST_SECONDS)


def spread(seconds: float, chance: str) -> float:
    """Return a wait made a little longer by chance (hex digits), so that not all come at once."""
    share = int(chance[:_HEX_DIGITS], 16) / 16**_HEX_DIGITS
    return seconds * (1 + _JITTER * share)
