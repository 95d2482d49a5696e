"""Replicas in SQLite: intents, binding by compare-and-swap, retiring, orphans."""

from __future__ import annotations

from typing import Any

from perdure.engine.ops import (
    Bind,
    BindNew,
    Bound,
    CallOff,
    Discard,
    Intend,
    LeftBehind,
    Leftovers,
    MarkLost,
    Orphan,
    OrphanGone,
    Orphans,
    Refresh,
    Removed,
    Retire,
    Throttle,
    Throttled,
    Tombstone,
)
from perdure.model import NewItem, TurnKey
from perdure.stores.sqlite.places import enter_handle, new_conversation
from perdure.stores.sqlite.rows import belongs, buried, item_row, recovery_values
from perdure.stores.sqlite.statements import Transaction


def intend(tx: Transaction, op: Intend) -> None:
    """Write down that a create is about to be sent."""
    tx.run(
        "intend",
        tenant=op.tenant,
        conversation=op.conversation,
        upstream=op.upstream,
        dialect=op.dialect,
        intent=op.intent,
    )


def call_off(tx: Transaction, op: CallOff) -> None:
    """Take an intent back."""
    tx.run("drop_intent", tenant=op.tenant, intent=op.intent)


def bind(tx: Transaction, op: Bind) -> Bound:
    """Make a created object the next generation's replica, if nobody was faster."""
    at = {"tenant": op.tenant, "conversation": op.conversation}
    tx.run("drop_intent", tenant=op.tenant, intent=op.intent)
    if _is_taken(tx, op):
        return "taken"
    if op.turn is not None and not _holds(tx, op.turn):
        enter_orphan(tx, at, op.upstream, op.dialect, op.handle, "another worker has the turn")
        return "fenced"
    if _is_behind(tx, op, at):
        enter_orphan(tx, at, op.upstream, op.dialect, op.handle, "the log had gone on")
        return "behind"
    row = tx.one(
        "bind_replica",
        **at,
        handle=op.handle,
        generation=op.generation,
        primed_through=op.primed_through,
        dialect=op.dialect,
        doubtful=op.doubtful,
    )
    if row is None:
        enter_orphan(tx, at, op.upstream, op.dialect, op.handle, "another worker was faster")
        return "beaten"
    enter_handle(tx, at, op.upstream, op.dialect, op.handle, row[0], op.body)
    tx.run("abandon_unknown", **at)
    if op.lost is not None:
        tx.run("mark_handle", tenant=op.tenant, upstream=op.upstream, handle=op.lost, state="lost")
        if op.orphan:
            enter_orphan(tx, at, op.upstream, op.dialect, op.lost, "given up")
    if op.recovery is not None:
        tx.run(
            "insert_recovery",
            **at,
            generation=op.recovery.generation,
            **recovery_values(op.recovery),
        )
    return "bound"


def _is_behind(tx: Transaction, op: Bind, at: dict[str, Any]) -> bool:
    """Whether the log has more than a thread was given and its turn brings."""
    if op.dialect != "threads":
        return False
    seq = 0 if op.turn is None else op.turn.seq
    given = {"primed_from": op.primed_from, "primed_through": op.primed_through}
    return bool(tx.one("more_than_primed", **at, **given, seq=seq))


def _holds(tx: Transaction, key: TurnKey) -> bool:
    """Whether a turn is still that of the worker who has this key."""
    at = {"conversation": key.conversation, "seq": key.seq, "epoch": key.epoch}
    return tx.one("held_turn", **at) is not None


def _is_taken(tx: Transaction, op: Bind | BindNew) -> bool:
    """Whether a created object has the id of another; it is not deleted under that id."""
    found = tx.one("find_handle", tenant=op.tenant, upstream=op.upstream, handle=op.handle)
    return found is not None


def bind_new(tx: Transaction, op: BindNew) -> Bound:
    """Enter a replica that the app created, with its first items."""
    tx.run("drop_intent", tenant=op.tenant, intent=op.intent)
    if _is_taken(tx, op):
        return "taken"
    if op.subject is not None:
        row = tx.one("find_subject", tenant=op.tenant, subject=op.subject)
        if row is not None:
            return _bind_to_subject(tx, op, row)
    conversation = new_conversation(
        tx, (op.tenant, op.upstream, op.dialect), "live", op.handle, subject=op.subject
    )
    at = {"tenant": op.tenant, "conversation": conversation}
    enter_handle(tx, at, op.upstream, op.dialect, op.handle, 0, op.body)
    if op.items:
        rows = [
            item_row(conversation, number, None, item)
            for number, item in enumerate(op.items, start=1)
        ]
        tx.many("insert_item", rows)
        tx.run("advance", **at, last_position=len(rows), last_seq=0, open_from=None)
    return "bound"


def _bind_to_subject(tx: Transaction, op: BindNew, row: Any) -> Bound:
    """Give a subject's conversation its replica of this dialect, unless it has a live one."""
    conversation, dialect, generation, state = row[:4]
    at = {"tenant": op.tenant, "conversation": conversation}
    if state == "live" and dialect == op.dialect:
        enter_orphan(tx, at, op.upstream, op.dialect, op.handle, "the subject has a replica")
        return "beaten"
    tx.run(
        "set_subject_replica",
        **at,
        upstream=op.upstream,
        handle=op.handle,
        dialect=op.dialect,
        generation=generation + 1,
        primed_through=op.primed_through,
    )
    enter_handle(tx, at, op.upstream, op.dialect, op.handle, row[10], op.body)
    if op.recovery is not None:
        tx.run("insert_recovery", **at, generation=generation + 1, **recovery_values(op.recovery))
    return "bound"


def enter_orphan(
    tx: Transaction, at: dict[str, Any], upstream: str, dialect: str, handle: str, reason: str
) -> None:
    """Note a remote object that is to be deleted."""
    tx.one("insert_orphan", **at, upstream=upstream, dialect=dialect, handle=handle, reason=reason)


def discard(tx: Transaction, op: Discard) -> None:
    """Note an object that nobody wants."""
    at = {"tenant": op.tenant, "conversation": op.conversation}
    if op.replica:
        row = tx.one("find_handle", tenant=op.tenant, upstream=op.upstream, handle=op.handle)
        if row is None or row[5] != "live":
            return
        mark(tx, op.tenant, op.upstream, op.handle, "lost")
    enter_orphan(tx, at, op.upstream, op.dialect, op.handle, "answered without the history")


def refresh(tx: Transaction, op: Refresh) -> None:
    """Keep an object as it was shown."""
    at = {"tenant": op.tenant, "upstream": op.upstream, "handle": op.handle}
    tx.run("refresh_handle", **at, body=op.body)
    tx.run("refresh_answer", **at, body=op.body)


def mark_lost(tx: Transaction, op: MarkLost) -> None:
    """Note that a handle is dead."""
    mark(tx, op.tenant, op.upstream, op.handle, "lost")


def retire(tx: Transaction, op: Retire) -> None:
    """Take a handle out of use; a response's own output goes with it."""
    row = tx.one("find_handle", tenant=op.tenant, upstream=op.upstream, handle=op.handle)
    if row is None:
        return
    mark(tx, op.tenant, op.upstream, op.handle, "retired")
    if row[2] == "response" and row[4] is not None:
        tx.run("tombstone_turn_output", tenant=op.tenant, conversation=row[1], seq=row[4])
        tx.run("drop_snapshots", conversation=row[1])
    elif row[2] != "response" and row[12] not in {None, op.handle}:
        if row[11] == "live":  # nobody could name it to delete it again if that fails now
            at = {"tenant": op.tenant, "conversation": row[1]}
            enter_orphan(tx, at, op.upstream, row[9], row[12], "given up")
        mark(tx, op.tenant, op.upstream, row[12], "retired")


def mark(tx: Transaction, tenant: str, upstream: str, handle: str, state: str) -> None:
    """Say what became of a handle, and of the replica where it is that of its conversation."""
    at = {"tenant": tenant, "upstream": upstream, "handle": handle}
    tx.run("mark_handle", **at, state=state)
    tx.run("mark_replica", **at, state=state)


def tombstone(tx: Transaction, op: Tombstone) -> Removed:
    """Mark one item as deleted; a replica that has it under an id of its own is given up."""
    if not belongs(tx, op):
        return "unknown"
    at = {"tenant": op.tenant, "conversation": op.conversation}
    known = tx.all("tombstone", conversation=op.conversation, provider_id=op.provider_id)
    # Also where the log does not have it: it is deleted at the provider.
    tx.run("history_shrinks", conversation=op.conversation)
    if not known and op.gone is None:
        place = {"conversation": op.conversation, "provider_id": op.provider_id}
        if tx.one("item_position", **place):
            return "before"
        if tx.one("find_conversation", **at)[9] is not None:  # a page read before may bring it yet
            _bury(tx, op, at)
        return "unknown"
    for position, seq in known:
        tx.run("tombstone_elsewhere", conversation=op.conversation, position=position, seq=seq)
    tx.run("drop_snapshots", conversation=op.conversation)
    _, dialect, generation, state, handle, *_ = tx.one("find_conversation", **at)
    if generation == 0 and state == "live" and handle != op.gone:
        if dialect == "threads":  # one that is being made with the item is behind now
            _bury(tx, op, at)
        return "there"
    if state == "live" and handle is not None:
        mark(tx, op.tenant, op.upstream, handle, "lost")
        if handle != op.gone and dialect != "responses":
            enter_orphan(tx, at, op.upstream, dialect, handle, "has what was deleted")
    tx.run("pass_generation", **at)
    return "replaced"


def _bury(tx: Transaction, op: Tombstone, at: dict[str, Any]) -> None:
    """Note a deleted id in a hidden place in front of the log, once."""
    note = buried(op.provider_id)
    place = {"conversation": op.conversation, "provider_id": note}
    if tx.one("item_position", **place):
        return
    position = min(tx.one("first_position", **at)[0], 1) - 1
    nothing = NewItem("", "", "", provider_id=note)
    tx.many("insert_item", [item_row(op.conversation, position, None, nothing)])
    tx.run("tombstone", **place)
    tx.run("begin_at", **at, first_position=position)


def orphans(tx: Transaction, op: Orphans) -> tuple[Orphan, ...]:
    """Read what is still to be deleted."""
    rows = tx.all(
        "orphans",
        tenant=op.tenant,
        upstream=op.upstream,
        limit=op.limit,
        settled_seconds=op.settled_seconds,
    )
    return tuple(Orphan(*row) for row in rows)


def orphan_gone(tx: Transaction, op: OrphanGone) -> None:
    """Note a confirmed delete."""
    tx.run("orphan_gone", tenant=op.tenant, key=op.key)


def leftovers(tx: Transaction, op: Leftovers) -> LeftBehind:
    """Count what is still to be deleted."""
    return LeftBehind(*tx.one("leftovers", tenant=op.tenant, upstream=op.upstream))


def throttle(tx: Transaction, op: Throttle) -> None:
    """Note until when an upstream wants to be left alone."""
    tx.run("throttle", tenant=op.tenant, upstream=op.upstream, seconds=op.seconds)


def throttled(tx: Transaction, op: Throttled) -> float:
    """Read for how long an upstream still wants to be left alone."""
    row = tx.one("throttled", tenant=op.tenant, upstream=op.upstream)
    return 0.0 if row is None else max(0.0, row[0])
