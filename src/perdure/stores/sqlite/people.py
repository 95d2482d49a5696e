"""Subjects in SQLite: their conversation, pinned facts, history, and forgetting them."""

from __future__ import annotations

import json
from typing import Any, Final

from perdure.dialects.items import said_in
from perdure.engine.ops import (
    Conversations,
    Entry,
    FindSubject,
    Forget,
    Forgotten,
    Listed,
    Orphan,
    Pin,
    ReadHistory,
    ReadRecovery,
    ReadTurn,
    Subject,
    TurnInfo,
    Unused,
)
from perdure.model import Dialect, Recovery
from perdure.stores.sqlite.places import new_conversation
from perdure.stores.sqlite.rows import recovery_of, replica_of
from perdure.stores.sqlite.search import leave
from perdure.stores.sqlite.statements import Transaction

_FURTHEST: Final = 2**31 - 1
_TABLES: Final = (
    *("indexed", "snapshot", "item", "answer", "turn", "milestone", "recovery"),
    "conversation",
)
_DIALECTS: Final[dict[str, Dialect]] = {
    "response": "responses",
    "conversation": "conversations",
    "thread": "threads",
}


def find_subject(tx: Transaction, op: FindSubject) -> Subject | None:
    """Look a subject's conversation up."""
    row = tx.one("find_subject", tenant=op.tenant, subject=op.subject)
    return None if row is None else Subject(row[0], replica_of(row), row[10])


def pin(tx: Transaction, op: Pin) -> int:
    """Keep a fact; a subject without a conversation gets one."""
    row = tx.one("find_subject", tenant=op.tenant, subject=op.subject)
    if row is None:
        at: tuple[str, str, Dialect] = (op.tenant, "", "responses")
        conversation = new_conversation(tx, at, "absent", subject=op.subject)
    else:
        conversation = row[0]
    number: int = tx.one("pin", tenant=op.tenant, conversation=conversation, text=op.text)[0]
    return number


def read_history(tx: Transaction, op: ReadHistory) -> tuple[Entry, ...]:
    """Read a page of what was said, oldest first, with the recoveries where they happened."""
    row = tx.one("find_subject", tenant=op.tenant, subject=op.subject)
    if row is None:
        return ()
    at = {"tenant": op.tenant, "conversation": row[0]}
    recoveries = {
        recovery.turn_id: recovery
        for recovery in map(recovery_of, tx.all("recoveries", **at))
        if recovery.turn_id is not None
    }
    rows = tx.all(
        "newest_entries" if op.after is None else "oldest_entries",
        **at,
        after=-_FURTHEST if op.after is None else op.after,
        before=_FURTHEST if op.before is None else op.before,
        limit=op.limit,
    )
    entries = []
    for row in reversed(rows) if op.after is None else rows:
        position, kind, role, wire, at_time, turn_id, seq, state, tokens = row
        entries.append(
            Entry(
                position=position,
                turn_id=turn_id,
                seq=seq or 0,
                role=role or "",
                kind=kind,
                text=said_in(json.loads(wire)),
                at=at_time,
                state=state or "answered",
                recovery=recoveries.get(turn_id),
                tokens=tokens,
            )
        )
    return tuple(entries)


def conversations(tx: Transaction, op: Conversations) -> tuple[Listed, ...]:
    """List conversations, a page at a time."""
    rows = tx.all(
        "conversations",
        tenant=op.tenant,
        subject=op.subject,
        after_conversation=op.after_conversation,
        limit=op.limit,
    )
    return tuple(Listed(*row) for row in rows)


def read_recovery(tx: Transaction, op: ReadRecovery) -> Recovery | None:
    """Read one rebuild."""
    row = tx.one(
        "read_recovery",
        tenant=op.tenant,
        conversation=op.conversation,
        generation=op.generation,
    )
    return None if row is None else recovery_of(row)


def read_turn(tx: Transaction, op: ReadTurn) -> TurnInfo | None:
    """Look a turn up, with its recovery if it had one."""
    row = tx.one("read_turn", tenant=op.tenant, turn_id=op.turn_id)
    if row is None:
        return None
    recovery = recovery_of(row[3:]) if row[3] is not None else None
    return TurnInfo(row[0], row[1], row[2], recovery)


def forget(tx: Transaction, op: Forget) -> Forgotten:
    """Erase a subject's conversation and its branches; replicas become orphans.

    Lost ones too: what cannot be continued, or has forgotten, may still hold what was said.
    """
    family = [row[0] for row in tx.all("family", tenant=op.tenant, subject=op.subject)]
    counts = {"item": 0, "turn": 0, "milestone": 0, "snapshot": 0}
    indexed = 0
    orphans: list[Orphan] = []
    for conversation in family:
        at = {"tenant": op.tenant, "conversation": conversation}
        for upstream, kind, handle, state in _handles(tx, conversation):
            names = {"tenant": op.tenant, "upstream": upstream, "handle": handle}
            if state != "retired" and kind in _DIALECTS and not tx.one("is_orphan", **names):
                tx.run(
                    "insert_orphan",
                    **at,
                    upstream=upstream,
                    dialect=_DIALECTS[kind],
                    handle=handle,
                    reason="forgotten",
                )
            tx.run("erase_handle", conversation=conversation, handle=handle)
        orphans += [Orphan(*row) for row in tx.all("orphans_of", **at)]
        for table in counts:
            counts[table] += tx.one(f"count_{table}s_of", **at)[0]
        indexed += _erase(tx, op.tenant, conversation)
    if indexed:
        tx.run("merge_index")
    return Forgotten(
        conversations=len(family),
        items=counts["item"],
        turns=counts["turn"],
        milestones=counts["milestone"],
        orphans=tuple(orphans),
        snapshots=counts["snapshot"],
        indexed=indexed,
    )


def unused(tx: Transaction, op: Unused) -> int:
    """Erase conversations of one turn that nobody continued."""
    rows = tx.all(
        "unused",
        tenant=op.tenant,
        upstream=op.upstream,
        idle_seconds=op.idle_seconds,
        limit=op.limit,
    )
    for (conversation,) in rows:
        for _, _, handle, _ in _handles(tx, conversation):
            tx.run("erase_handle", conversation=conversation, handle=handle)
        _erase(tx, op.tenant, conversation)
    return len(rows)


def _erase(tx: Transaction, tenant: str, conversation: int) -> int:
    """Erase a conversation; return how many items were in the search index."""
    indexed = leave(tx, conversation, -_FURTHEST, _FURTHEST, withdrawn=False)
    for table in _TABLES:
        tx.run(f"erase_{table}", tenant=tenant, conversation=conversation)
    return indexed


def _handles(tx: Transaction, conversation: int) -> list[Any]:
    """Return the rows of every id that points to a conversation."""
    ids = {one for (one,) in tx.all("ids_of", conversation=conversation) if one is not None}
    return [
        row
        for handle in sorted(ids)
        for row in tx.all("handle_of", handle=handle, conversation=conversation)
    ]
