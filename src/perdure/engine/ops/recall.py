"""Store operations that find old items: a full-text search inside one conversation's log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.flow import Op
from perdure.model import StoredItem, value


@value
class Index(Op[bool]):
    """Enter items into the search index that it does not have yet; whether it has all now.

    Of one conversation and the origins of its branch, or (None) of all of the tenant's. ``limit``
    items at most, so that a long log is entered in pieces. A store that indexes as it writes, or
    has no index, has nothing to do.
    """

    tenant: str
    conversation: int | None
    limit: int


@value
class Search(Op["Matches"]):
    """Find where words stand in a conversation's log up to a position, newest first.

    Follows a branch to its origin. Only what :class:`Index` has entered is found; an item that was
    withdrawn or deleted since may still be named. A word that more than ``most`` items have is
    counted only that far, and only the newest of them are named.
    """

    tenant: str
    conversation: int
    through: int
    words: tuple[str, ...]
    most: int


@value
class Matches:
    """What a search found: for each word how many items have it, and their positions.

    ``size`` is how many items the log has; None from a store that has no index.
    """

    size: int | None
    counts: tuple[int, ...]
    positions: tuple[tuple[int, ...], ...]


@value
class Excerpts(Op[tuple[StoredItem, ...]]):
    """Read the items in ranges of positions (both ends belong to it), in the order of the log.

    Follows a branch to its origin; leaves out tombstoned and withdrawn items. ``limit``: no more
    than so many, the newest ones, or (``oldest``) the oldest. ``wire``: as :class:`History` has
    it.
    """

    tenant: str
    conversation: int
    through: int
    ranges: tuple[tuple[int, int], ...]
    limit: int
    oldest: bool = False
    wire: str | None = None


@value
class Liken(Op["tuple[float, ...] | None"]):
    """Let the owner's embeddings say how alike each text is to a message, from -1 to 1.

    None where they fail; that is logged, without what was embedded.
    """

    embed: Callable[[list[str]], Any]
    message: str
    texts: tuple[str, ...]
