"""Bringing conversations into SQLite from elsewhere."""

from __future__ import annotations

from perdure.engine.ops import BringIn, BroughtIn
from perdure.stores.sqlite.places import enter_handle, new_conversation
from perdure.stores.sqlite.statements import Transaction
from perdure.stores.sqlite.turns import append_items


def bring_in(tx: Transaction, op: BringIn) -> BroughtIn:
    """Enter a portion where the log ends behind the one before it, and nothing else is there."""
    at = {"tenant": op.tenant, "upstream": op.upstream, "handle": op.handle}
    row = tx.one("find_handle", **at)
    if row is None:
        if tx.one("foreign_handle", upstream=op.upstream, handle=op.handle):
            return BroughtIn("foreign")
        return _begun(tx, op) if op.behind == 0 else BroughtIn("known")
    conversation, state, last, last_seq = row[1], row[5], row[18], row[19]
    first = tx.one("first_position", tenant=op.tenant, conversation=conversation)[0]
    if state == "retired" or last_seq or last != op.behind or not op.items:
        return BroughtIn("known", conversation, last - first + 1)
    last = _append(tx, op, conversation)
    if row[10] == 0:  # of a later generation it knows how far the replica was told
        tx.run("mark_handle", **at, state="lost")
        tx.run("mark_replica", **at, state="lost")
    return BroughtIn("entered", conversation, last - first + 1)


def _begun(tx: Transaction, op: BringIn) -> BroughtIn:
    of_subject = {"tenant": op.tenant, "subject": op.subject}
    taken = op.subject is not None and tx.one("find_subject", **of_subject) is not None
    subject = None if taken else op.subject
    conversation = new_conversation(
        tx, (op.tenant, op.upstream, op.dialect), "lost", op.handle, subject=subject
    )
    at = {"tenant": op.tenant, "conversation": conversation}
    enter_handle(tx, at, op.upstream, op.dialect, op.handle, 0)
    tx.run("mark_handle", tenant=op.tenant, upstream=op.upstream, handle=op.handle, state="lost")
    for fact in op.facts:
        tx.one("pin", **at, text=fact)
    return BroughtIn("entered", conversation, _append(tx, op, conversation), taken)


def _append(tx: Transaction, op: BringIn, conversation: int) -> int:
    last = append_items(tx, conversation, op.behind + 1, None, op.items)
    at = {"tenant": op.tenant, "conversation": conversation}
    tx.run("advance", **at, last_position=last, last_seq=0, open_from=None)
    return last
