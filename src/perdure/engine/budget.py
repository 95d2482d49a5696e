"""How many tokens a prime may have: what the caller says, or what the model's window leaves."""

from __future__ import annotations

from typing import Final

from perdure.dialects import windows
from perdure.dialects.tokens import message_tokens
from perdure.model import Policy

#: Of a window whose size is known: the rest is for the answer and for the turns that follow.
_SHARE: Final = 0.5
#: More than that is dear and slow, and answers get no better.
_MOST: Final = 100_000
_LEAST: Final = 500


def budget_tokens(policy: Policy, model: str | None, following: str) -> int:
    """Return how many tokens a prime in front of ``following`` may have."""
    if policy.budget_tokens is not None:
        return policy.budget_tokens
    window = windows.tokens(model)
    if window is None:
        return _MOST
    return max(_LEAST, min(_MOST, int(window * _SHARE) - message_tokens(following)))
