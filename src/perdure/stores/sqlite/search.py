"""Full-text search in SQLite: FTS5, entered in portions and not with every turn.

An entry costs several pages of log, so the index lags behind by design: whoever searches lets it
catch up first, and in between a thread of the store does it every so many items. The row of an
item in the index has the item's own key, so that a search is confined to a conversation by a range
of keys inside the index.
"""

from __future__ import annotations

import re
from typing import Final

from perdure.dialects.items import said
from perdure.engine.ops import Excerpts, Index, Matches, Search
from perdure.model import StoredItem
from perdure.recall.words import spaced
from perdure.stores.sqlite.rows import belongs, line, stored_item
from perdure.stores.sqlite.statements import Transaction

_FURTHEST: Final = 2**31 - 1
_PART: Final = re.compile(r"[^\W_]+")  # what the index's tokenizer takes for a word


def index(tx: Transaction, op: Index) -> bool:
    """Enter what the index does not have, newest first."""
    if op.conversation is None:
        rows = tx.all("unindexed", tenant=op.tenant, limit=op.limit)
        behind = [row[0] for row in rows]
    elif belongs(tx, op):  # type: ignore[arg-type]
        behind = [one for one, _, _ in line(tx, op.tenant, op.conversation, _FURTHEST)]
    else:
        return True
    left = op.limit
    for conversation in behind:
        left -= _entered(tx, conversation, left)
        if left <= 0:
            return False
    return True


def _entered(tx: Transaction, conversation: int, limit: int) -> int:
    """Enter the items on both sides of those that are in the index; return how many were read."""
    low, high = tx.one("indexed", conversation=conversation) or (1, 0)
    newer = tx.all("items_after", conversation=conversation, position=high, limit=limit)
    older = tx.all(
        "items_before", conversation=conversation, position=low, limit=limit - len(newer)
    )
    for key, _, form in (*newer, *older):
        text = spaced(said(form))
        if text:
            tx.run("enter", key=key, text=text)
    if newer or older:
        tx.run(
            "set_indexed",
            conversation=conversation,
            low=older[-1][1] if older else low,
            high=newer[-1][1] if newer else high,
        )
    return len(newer) + len(older)


def leave(tx: Transaction, conversation: int, first: int, last: int, *, withdrawn: bool) -> int:
    """Take items out of the index before they are erased; return how many were in it.

    The index holds no text: to find an entry again it wants the very text that was entered.
    ``withdrawn``: only those that are.
    """
    row = tx.one("indexed", conversation=conversation)
    if row is None:
        return 0
    low, high = max(first, row[0]), min(last, row[1])
    count = 0
    rows = tx.all("forms", conversation=conversation, first=low, last=high, withdrawn=withdrawn)
    for key, form in rows:
        text = spaced(said(form))
        if text:
            tx.run("leave", key=key, text=text)
            count += 1
    return count


def search(tx: Transaction, op: Search) -> Matches:
    """Find where words stand, newest first."""
    if not belongs(tx, op):
        return Matches(0, tuple(0 for _ in op.words), tuple(() for _ in op.words))
    places = [row[:2] for row in line(tx, op.tenant, op.conversation, op.through)]
    counts, positions = [], []
    for word in op.words:
        found: list[int] = []
        terms = " AND ".join(f'"{part}"' for part in _PART.findall(word))
        for conversation, through in places if terms else ():
            if len(found) > op.most:
                break
            rows = tx.all(
                "search",
                terms=terms,
                conversation=conversation,
                through=through,
                limit=op.most + 1 - len(found),
            )
            base = (conversation << 32) + 2**31
            found += [key - base for (key,) in rows]
        counts.append(len(found))
        positions.append(tuple(found[: op.most]))
    size = sum(
        tx.one("count_older", tenant=op.tenant, conversation=one, position=through + 1)[0]
        for one, through in places
    )
    return Matches(size, tuple(counts), tuple(positions))


def excerpts(tx: Transaction, op: Excerpts) -> tuple[StoredItem, ...]:
    """Read the items in ranges of positions."""
    if not belongs(tx, op):
        return ()
    found: list[StoredItem] = []
    places = list(line(tx, op.tenant, op.conversation, op.through))
    ranges = op.ranges
    if op.oldest:
        places.reverse()
    else:
        ranges = tuple(reversed(ranges))
    for conversation, through, _ in places:
        for first, last in ranges:
            rows = tx.all(
                "excerpt_oldest" if op.oldest else "excerpt_newest",
                conversation=conversation,
                first=first,
                last=min(last, through),
                wire=op.wire,
                limit=op.limit - len(found),
            )
            found += [stored_item(row) for row in rows]
    return tuple(found if op.oldest else reversed(found))
