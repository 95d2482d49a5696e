"""Where a new turn goes in SQLite: its conversation, the position it continues from, its branch."""

from __future__ import annotations

from typing import Any, Final

from perdure.engine.ops import Accept, Accepted
from perdure.model import Dialect, Remembered, Replica, ReplicaState, value
from perdure.stores.sqlite.rows import (
    TurnRow,
    history_values,
    remembered_from,
    remembered_of,
    replica_of,
)
from perdure.stores.sqlite.statements import Transaction

_KIND_OF: Final = {"responses": "response", "conversations": "conversation", "threads": "thread"}


@value
class Place:
    """Where a new turn goes: its conversation and the position that it continues from.

    ``newest``: the turn of the response that it continues, ``made_by`` if that was made in the
    background.
    """

    conversation: int
    parent: int
    last_position: int
    last_seq: int
    replica: Replica
    handle_state: str
    handle_age: float
    adopting: bool
    incomplete: bool = False
    open_from: int | None = None
    unread: int | None = None
    remembered: Remembered | None = None
    made_by: int | None = None
    newest: int = 0

    def beside(self, op: Accept) -> bool:
        """Whether a chain of responses begins beside the conversation that it continues from."""
        return not op.shared and self.replica.dialect != "responses"


def place_of(tx: Transaction, op: Accept) -> Place | Accepted:
    """Return where a new turn goes, or why it goes nowhere."""
    if op.handle is not None:
        row = tx.one("find_handle", tenant=op.tenant, upstream=op.upstream, handle=op.handle)
        if row is None:
            if op.looked is not None:
                return Accepted("erased")
            if tx.one("foreign_handle", upstream=op.upstream, handle=op.handle):
                return Accepted("foreign")
            if tx.one("is_orphan", tenant=op.tenant, upstream=op.upstream, handle=op.handle):
                return Accepted("retired")
            return _new_place(tx, op, adopting=True)
        replica = replica_of((row[1], *row[9:16]))
        linear = op.dialect != "responses"
        deleted = linear and replica.state == "retired" and replica.dialect != "responses"
        if row[5] == "retired" or deleted:
            return Accepted("retired")
        return Place(
            conversation=row[1],
            parent=row[18] if linear else row[3],
            last_position=row[18],
            last_seq=row[19],
            replica=replica,
            handle_state="lost" if row[5] == "lost" else "live",
            handle_age=row[8],
            adopting=row[17] is not None and row[19] == 0,
            incomplete=row[17] is not None,
            open_from=row[20],
            unread=row[16],
            remembered=remembered_from(row, op.handle),
            # Only what was made in the background has been shown before its turn had an answer.
            made_by=row[4] if not linear and row[7] is not None else None,
            newest=row[19] if linear else row[4] or 0,
        )
    row = None
    if op.subject is not None:
        row = tx.one("find_subject", tenant=op.tenant, subject=op.subject)
    if row is None:
        forgotten = op.looked is not None
        return Accepted("erased") if forgotten else _new_place(tx, op, adopting=False)
    replica = replica_of(row)
    return Place(
        conversation=row[0],
        parent=row[10],
        last_position=row[10],
        last_seq=row[11],
        replica=replica,
        handle_state=replica.state,
        handle_age=row[6],
        adopting=False,
        incomplete=row[9] is not None,
        open_from=row[12],
        unread=row[8],
        remembered=remembered_of(row),
    )


def _new_place(tx: Transaction, op: Accept, *, adopting: bool) -> Place:
    """Open a conversation: for a handle never seen, for a subject, or for a call without either."""
    shared = op.dialect != "responses"
    known = op.handle if adopting and shared else None
    state: ReplicaState = "live" if adopting else "absent"
    at = (op.tenant, op.upstream, op.dialect)
    conversation = new_conversation(tx, at, state, known, subject=op.subject, adopting=adopting)
    if adopting:
        own = {"tenant": op.tenant, "conversation": conversation}
        enter_handle(tx, own, op.upstream, op.dialect, op.handle or "", 0)
    replica = Replica(
        state=state,
        handle=known,
        generation=0,
        primed_through=0,
        age_seconds=0.0,
        dialect=op.dialect,
    )
    handle_state = "live" if adopting else "none"
    return Place(conversation, 0, 0, 0, replica, handle_state, 0.0, adopting, adopting)


def repeated(tx: Transaction, op: Accept, place: Place) -> TurnRow | None:
    """Return the turn that this request repeats, if it is one: same body, not handed over."""
    if op.handle is None:
        return None
    turn: TurnRow | None = None
    if place.beside(op):
        turn = _on_newest_branch(tx, op, place)
    elif not op.shared and place.newest != place.last_seq:
        turn = _newest_child(tx, op, place)
    elif op.shared and place.open_from is not None:
        turn = TurnRow(*tx.one("newest_turn", tenant=op.tenant, conversation=place.conversation))
    if turn is None or turn.handed:
        return None
    return turn if (turn.body_hash, turn.kind) == (op.body_hash, op.kind) else None


def _newest_child(tx: Transaction, op: Accept, place: Place) -> TurnRow | None:
    """Return the newest turn that continues from a response, here or on a branch from it."""
    newest = None
    for row in tx.rows(
        "turns_after", tenant=op.tenant, conversation=place.conversation, seq=place.newest
    ):
        turn = TurnRow(*row)
        if turn.handle != op.handle:
            break  # all but the last have failed
        newest = turn
    on_branch = _on_newest_branch(tx, op, place)
    if on_branch is None:
        return newest
    if newest is None or on_branch.accepted_at >= newest.accepted_at:
        return on_branch
    return newest


def _on_newest_branch(tx: Transaction, op: Accept, place: Place) -> TurnRow | None:
    branch = tx.one(
        "newest_branch", tenant=op.tenant, conversation=place.conversation, parent=place.parent
    )
    if branch is None:
        return None
    return TurnRow(*tx.one("known_turn", tenant=op.tenant, conversation=branch[0], seq=1))


def branched(tx: Transaction, op: Accept, place: Place) -> Place:
    """Open a branch where the line has gone on already: both keep what they know."""
    if not place.beside(op):
        if op.shared or place.newest == place.last_seq:
            return place
        at = {"tenant": op.tenant, "conversation": place.conversation}
        if not tx.one("has_gone_on", **at, seq=place.newest):
            return place
    branch = new_conversation(
        tx,
        (op.tenant, op.upstream, op.dialect),
        "absent",
        origin=(place.conversation, place.parent),
    )
    at = {"tenant": op.tenant, "conversation": branch}
    tx.run("remember", **at, **history_values(place.remembered))
    # Positions go on from the origin's, so that a position names one place on every line.
    return Place(
        branch,
        place.parent,
        place.parent,
        0,
        Replica("absent", None, 0, 0, 0.0, op.dialect),
        place.handle_state,
        place.handle_age,
        adopting=False,
        remembered=place.remembered,
    )


def new_conversation(
    tx: Transaction,
    at: tuple[str, str, Dialect],
    replica_state: ReplicaState,
    replica_handle: str | None = None,
    *,
    subject: str | None = None,
    adopting: bool = False,
    origin: tuple[int | None, int | None] = (None, None),
) -> int:
    """Open a conversation of a tenant's, at an upstream and in a dialect, and return its number.

    ``origin``: the conversation and the position that a branch continues from.
    """
    tenant, upstream, dialect = at
    number: int = tx.one(
        "insert_conversation",
        tenant=tenant,
        subject=subject,
        upstream=upstream,
        dialect=dialect,
        origin_conversation=origin[0],
        origin_position=origin[1],
        adopting=adopting,
        replica_state=replica_state,
        replica_handle=replica_handle,
    )[0]
    return number


def enter_handle(
    tx: Transaction,
    at: dict[str, Any],
    upstream: str,
    dialect: str,
    handle: str,
    position: int,
    body: bytes | None = None,
) -> None:
    """Enter the id of an object that is a replica."""
    tx.run(
        "insert_handle",
        **at,
        upstream=upstream,
        handle=handle,
        kind=_KIND_OF[dialect],
        position=position,
        turn_seq=None,
        body=body or None,
    )
