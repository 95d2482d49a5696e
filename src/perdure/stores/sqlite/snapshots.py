"""Snapshots in SQLite: summaries of a log, kept beside it."""

from __future__ import annotations

from perdure.engine.ops import DropSnapshots, KeepSnapshot, Unsummarised
from perdure.model import Snapshot
from perdure.stores.sqlite.rows import belongs, line
from perdure.stores.sqlite.statements import Transaction


def newest_snapshot(
    tx: Transaction, tenant: str, conversation: int, through: int
) -> Snapshot | None:
    """Return the newest summary of what stands through a position, of a branch or its origins."""
    for here, reach, _ in line(tx, tenant, conversation, through):
        row = tx.one("newest_snapshot", conversation=here, through=reach)
        if row is not None:
            return Snapshot(*row)
    return None


def keep_snapshot(tx: Transaction, op: KeepSnapshot) -> None:
    """Keep a summary, unless what it was made from has changed."""
    if not belongs(tx, op):
        return
    new = op.snapshot
    stand = sum(
        tx.one("count_older", tenant=op.tenant, conversation=here, position=reach + 1)[0]
        for here, reach, _ in line(tx, op.tenant, op.conversation, new.through)
    )
    if stand == new.items:
        tx.run(
            "keep_snapshot",
            conversation=op.conversation,
            through=new.through,
            items=new.items,
            text=new.text,
            maker=new.maker,
        )


def drop_snapshots(tx: Transaction, op: DropSnapshots) -> int:
    """Delete summaries."""
    return tx.run("drop_snapshots", conversation=op.conversation) if belongs(tx, op) else 0


def unsummarised(tx: Transaction, op: Unsummarised) -> tuple[tuple[int, int], ...]:
    """Find conversations that have grown since they were summarised."""
    rows = tx.all("unsummarised", tenant=op.tenant, items=op.least, limit=op.limit, after=op.after)
    return tuple((conversation, last) for conversation, last in rows)
