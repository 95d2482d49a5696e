"""How many tokens an item counts for, where no provider has said: the same in every store."""

from __future__ import annotations

from typing import Final

from perdure.model import NewItem

_BYTES_PER_TOKEN: Final = 4 / 1.1
_TOKENS_PER_ITEM: Final = 4


def estimated_tokens(item: NewItem) -> int:
    """Return an upper estimate of an item's tokens: bytes / 4 x 1.1 + 4; 0 if never primed."""
    text = item.wire if item.input is None else item.input
    if not text:
        return 0
    size = len(text) if text.isascii() else len(text.encode())
    return int(size / _BYTES_PER_TOKEN) + _TOKENS_PER_ITEM
