"""How many tokens text and items count for, where no provider has said: the same everywhere."""

from __future__ import annotations

import re
from typing import Final

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


def estimated_tokens(item: NewItem) -> int:
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
