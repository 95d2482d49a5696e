"""How many tokens text and items count for, where no provider has said: the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from perdure.dialects.items import said
from perdure.model import NewItem

BYTES_PER_TOKEN: Final = 4 / 1.1
TOKENS_PER_ITEM: Final = 4
#: An image, a file or a recording that travels inside an item is not read as text.
_ENCLOSED_TOKENS: Final = 1500
_ENCLOSED: Final = re.compile(
    r'"(?:image_url|file_data|data)":"(?:data:[^"]{0,256};base64,)?[A-Za-z0-9+/=_-]{2000,}"'
)
_PLAIN: Final = re.compile(r'\{"type": ?"message", ?"role": ?"[a-z]+", ?"content": ?"')
_MARKS: Final = '"}'


def tokens_of(item: NewItem) -> int:
    """Return what an item counts for: what was counted, else an estimate; 0 if never primed."""
    if item.tokens is None or item.input == "":
        return _estimated(item)
    return item.tokens


def counted(items: Sequence[NewItem], count: Callable[[str], int]) -> tuple[NewItem, ...]:
    """Return items with their tokens as ``count`` counts them in what each says.

    Those with files in them are left to the estimate: what a file counts for, no text tells.
    """
    found = []
    for item in items:
        form = item.wire if item.input is None else item.input
        if form and not _ENCLOSED.search(form) and '"file_id"' not in form:
            text = said(form)
            item = replace(item, tokens=count(text) + TOKENS_PER_ITEM)  # noqa: PLW2901
        found.append(item)
    return tuple(found)


def shared_out(items: Sequence[NewItem], tokens: int) -> tuple[NewItem, ...]:
    """Return items with the tokens that a provider has counted for all of them together."""
    if len(items) == 1:
        return (replace(items[0], tokens=tokens + TOKENS_PER_ITEM),) if tokens > 0 else tuple(items)
    sizes = [_estimated(item) for item in items]
    whole = sum(sizes)
    if not whole or tokens <= 0:
        return tuple(items)
    return tuple(
        replace(item, tokens=-(-tokens * size // whole) + TOKENS_PER_ITEM)
        for item, size in zip(items, sizes, strict=True)
    )


def _estimated(item: NewItem) -> int:
    """Return an upper estimate of an item's tokens: bytes / 4 x 1.1 + 4; 0 if never primed.

    The bytes are those of what it says; of a call or of several parts, those of its JSON.
    """
    text = item.wire if item.input is None else item.input
    if not text:
        return 0
    enclosed = 0
    if len(text) > _ENCLOSED_TOKENS:
        text, enclosed = _ENCLOSED.subn("", text)
    plain = _PLAIN.match(text)
    frame = plain.end() + len(_MARKS) if plain and text.endswith(_MARKS) else 0
    return (
        int((_size(text) - frame) / BYTES_PER_TOKEN)
        + TOKENS_PER_ITEM
        + (enclosed * _ENCLOSED_TOKENS)
    )


def message_tokens(text: str) -> int:
    """Return an upper estimate of the tokens of a message with this text."""
    return int(_size(text) / BYTES_PER_TOKEN) + TOKENS_PER_ITEM


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
