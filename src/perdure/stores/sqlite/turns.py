"""Turns in SQLite: accept, complete, note as underway, fail."""

from __future__ import annotations

from dataclasses import replace

from perdure.engine.ops import Accept, Accepted, Complete, Completed, Fail, Underway
from perdure.model import NewItem, Remembered, Replica, TurnKey, value
from perdure.stores.sqlite.connection import Transaction, Undo
from perdure.stores.sqlite.rows import (
    item_row,
    recovery_values,
    remembered_of,
    replica_of,
    stored_answer,
)


@value
class _Row:
    """A turn as ``find_turn`` and its sisters return it."""

    conversation: int
    seq: int
    turn_id: str
    kind: str
    state: str
    body_hash: str
    epoch: int
    handed: int
    status: int | None
    content_type: str | None
    body: bytes | None
    response_id: str | None
    parent: int
    first_position: int
    handle: str | None
    dialect: str
    leased: int
    accepted_at: float


@value
class _Place:
    """Where a new turn goes: its conversation and the position that it continues from."""

    conversation: int
    parent: int
    last_position: int
    last_seq: int
    replica: Replica
    handle_state: str
    handle_age: float
    adopting: bool
    open_from: int | None = None
    remembered: Remembered | None = None


# -- accept ----------------------------------------------------------------------------------


def accept(tx: Transaction, op: Accept) -> Accepted:
    """Find or open the turn's place, journal its items, take it if it is first in line."""
    known = _known(tx, op)
    if known is not None:
        return _again(tx, op, known)
    place = _place(tx, op)
    if isinstance(place, Accepted):
        return place
    repeat = None if op.turn_id else _repeated(tx, op, place)
    if repeat is not None:
        return _again(tx, op, repeat)
    return _opened(tx, op, _branched(tx, op, place))


def _known(tx: Transaction, op: Accept) -> _Row | None:
    """Return the turn that the caller names, by its own id for it or as one it waits for."""
    if op.waiting_for is not None:
        key = op.waiting_for
        return _Row(
            *tx.one("known_turn", tenant=op.tenant, conversation=key.conversation, seq=key.seq)
        )
    if op.turn_id is None:
        return None
    row = tx.one("find_turn", tenant=op.tenant, turn_id=op.turn_id)
    return None if row is None else _Row(*row)


def _place(tx: Transaction, op: Accept) -> _Place | Accepted:
    if op.handle is not None:
        row = tx.one("find_handle", tenant=op.tenant, upstream=op.upstream, handle=op.handle)
        if row is None:
            if tx.one("foreign_handle", upstream=op.upstream, handle=op.handle):
                return Accepted("foreign")
            return _new_place(tx, op, adopting=True)
        if row[5] == "retired":
            return Accepted("retired")
        replica = replica_of((row[1], *row[9:16]))
        linear = op.dialect != "responses"
        return _Place(
            conversation=row[1],
            parent=row[18] if linear else row[3],
            last_position=row[18],
            last_seq=row[19],
            replica=replica,
            handle_state="lost" if row[5] == "lost" else "live",
            handle_age=row[8],
            adopting=bool(row[17]) and row[19] == 0,
            open_from=row[20],
            remembered=remembered_of(row) if linear or row[3] == row[18] else None,
        )
    row = None
    if op.subject is not None:
        row = tx.one("find_subject", tenant=op.tenant, subject=op.subject)
    if row is None:
        return _new_place(tx, op, adopting=False)
    replica = replica_of(row)
    return _Place(
        conversation=row[0],
        parent=row[10],
        last_position=row[10],
        last_seq=row[11],
        replica=replica,
        handle_state=replica.state,
        handle_age=row[6],
        adopting=False,
        open_from=row[12],
        remembered=remembered_of(row),
    )


def _new_place(tx: Transaction, op: Accept, *, adopting: bool) -> _Place:
    """Open a conversation: for a handle never seen, for a subject, or for a call without either."""
    shared = op.dialect != "responses"
    known = op.handle if adopting and shared else None
    conversation = tx.one(
        "insert_conversation",
        tenant=op.tenant,
        subject=op.subject,
        upstream=op.upstream,
        dialect=op.dialect,
        origin_conversation=None,
        origin_position=None,
        adopting=adopting,
        replica_state="live" if adopting else "absent",
        replica_handle=known,
        generation=0,
    )[0]
    if adopting:
        kind = {"responses": "response", "conversations": "conversation"}.get(op.dialect, "thread")
        tx.run(
            "insert_handle",
            tenant=op.tenant,
            conversation=conversation,
            upstream=op.upstream,
            handle=op.handle,
            kind=kind,
            position=0,
            turn_seq=None,
            body=None,
        )
    replica = Replica(
        state="live" if adopting else "absent",
        handle=known,
        generation=0,
        primed_through=0,
        age_seconds=0.0,
        dialect=op.dialect,
    )
    state = "live" if adopting else "none"
    return _Place(conversation, 0, 0, 0, replica, state, 0.0, adopting)


def _repeated(tx: Transaction, op: Accept, place: _Place) -> _Row | None:
    """Return the turn that this request repeats, if it is one: same body, not handed over."""
    if op.handle is None:
        return None
    turn: _Row | None = None
    if not op.shared and place.parent != place.last_position:
        turn = _newest_child(tx, op, place)
    elif op.shared and place.open_from is not None:
        turn = _Row(*tx.one("newest_turn", tenant=op.tenant, conversation=place.conversation))
    if turn is None or turn.handed:
        return None
    return turn if (turn.body_hash, turn.kind) == (op.body_hash, op.kind) else None


def _newest_child(tx: Transaction, op: Accept, place: _Place) -> _Row | None:
    """Return the newest turn that continues from a position, here or on a branch from it."""
    children = _children(tx, op, place.conversation, place)
    newest = children[-1] if children else None
    branch = tx.one(
        "newest_branch", tenant=op.tenant, conversation=place.conversation, parent=place.parent
    )
    if branch is None:
        return newest
    on_branch = _Row(*tx.one("known_turn", tenant=op.tenant, conversation=branch[0], seq=1))
    if newest is None or on_branch.accepted_at >= newest.accepted_at:
        return on_branch
    return newest


def _children(tx: Transaction, op: Accept, conversation: int, place: _Place) -> list[_Row]:
    """Return the turns of a line that continue from a position: all but the last have failed."""
    found = []
    at = {"tenant": op.tenant, "conversation": conversation}
    for row in tx.rows("turns_from", **at, parent=place.parent, last_seq=place.last_seq):
        turn = _Row(*row)
        if turn.parent != place.parent:
            break
        found.append(turn)
    return found


def _branched(tx: Transaction, op: Accept, place: _Place) -> _Place:
    """Open a branch where the position already has a child: both lines keep what they know."""
    if op.shared or place.parent == place.last_position:
        return place
    if all(turn.state == "failed" for turn in _children(tx, op, place.conversation, place)):
        return place
    branch = tx.one(
        "insert_conversation",
        tenant=op.tenant,
        subject=None,
        upstream=op.upstream,
        dialect=op.dialect,
        origin_conversation=place.conversation,
        origin_position=place.parent,
        adopting=False,
        replica_state="absent",
        replica_handle=None,
        generation=0,
    )[0]
    # Positions go on from the origin's, so that a position names one place on every line.
    return _Place(
        branch,
        place.parent,
        place.parent,
        0,
        Replica("absent", None, 0, 0, 0.0, op.dialect),
        place.handle_state,
        place.handle_age,
        adopting=False,
    )


def _opened(tx: Transaction, op: Accept, place: _Place) -> Accepted:
    seq = place.last_seq + 1
    first = place.last_position + 1
    behind = op.shared and place.open_from is not None
    waiting = behind and _must_wait(tx, op, place.conversation, seq)
    tx.run(
        "insert_turn",
        tenant=op.tenant,
        conversation=place.conversation,
        seq=seq,
        turn_id=op.turn_id,
        kind=op.kind,
        state="pending" if waiting else "delivering",
        dialect=op.dialect,
        handle=op.handle,
        parent=place.parent,
        first_position=first,
        body_hash=op.body_hash,
        request=op.request,
        lease_seconds=op.lease_seconds,
    )
    last = _append(tx, place.conversation, first, seq, op.items)
    tx.run(
        "advance",
        tenant=op.tenant,
        conversation=place.conversation,
        last_position=last,
        last_seq=seq,
        open_from=seq,
    )
    key = TurnKey(place.conversation, seq, 1, op.turn_id or f"{place.conversation}.{seq}")
    if waiting:
        return Accepted("wait", turn=key)
    replica = place.replica
    if behind and _crashed_ahead(tx, op, place.conversation, seq):
        replica = replace(replica, doubtful=replica.state == "live")
    return Accepted(
        "deliver",
        turn=key,
        through=first - 1,
        handle_state=place.handle_state,  # type: ignore[arg-type]
        handle_age_seconds=place.handle_age,
        replica=replica,
        adopting=place.adopting,
        accepted_items=len(op.items),
        remembered=place.remembered,
    )


def _append(
    tx: Transaction,
    conversation: int,
    first: int,
    seq: int | None,
    items: tuple[NewItem, ...],
) -> int:
    """Append items to the log and return its last position."""
    rows = [item_row(conversation, first + number, seq, item) for number, item in enumerate(items)]
    if rows:
        tx.many("insert_item", rows)
    return first + len(rows) - 1


def _must_wait(tx: Transaction, op: Accept, conversation: int, seq: int) -> bool:
    return bool(tx.one("turn_ahead", tenant=op.tenant, conversation=conversation, seq=seq))


def _crashed_ahead(tx: Transaction, op: Accept, conversation: int, seq: int) -> bool:
    """Whether a worker died on a turn ahead; the turn is given up, its question stays."""
    if not tx.one("crashed_ahead", tenant=op.tenant, conversation=conversation, seq=seq):
        return False
    tx.run("abandon_crashed", tenant=op.tenant, conversation=conversation, seq=seq)
    tx.run("doubt_replica", tenant=op.tenant, conversation=conversation)
    return True


# -- the same turn again ---------------------------------------------------------------------


def _again(tx: Transaction, op: Accept, turn: _Row) -> Accepted:
    if turn.body_hash != op.body_hash:
        return Accepted("mismatch")
    key = TurnKey(turn.conversation, turn.seq, turn.epoch, turn.turn_id)
    if turn.state == "answered":
        stored = stored_answer(turn.status, turn.body, turn.content_type)
        return Accepted("answered", turn=key, stored=stored)
    if turn.state == "delivering" and turn.leased:
        return Accepted("wait", turn=key)
    shared = op.shared or turn.dialect != "responses"
    if shared and _must_wait(tx, op, turn.conversation, turn.seq):
        tx.run(
            "keep_waiting",
            tenant=op.tenant,
            conversation=turn.conversation,
            seq=turn.seq,
            lease_seconds=op.lease_seconds,
        )
        return Accepted("wait", turn=key)
    return _retaken(tx, op, turn, shared=shared)


def _retaken(tx: Transaction, op: Accept, turn: _Row, *, shared: bool) -> Accepted:
    """Take a turn that an earlier attempt left: under a new epoch, on a replica of no doubt."""
    at = {"tenant": op.tenant, "conversation": turn.conversation}
    epoch = tx.one("take_turn", **at, seq=turn.seq, lease_seconds=op.lease_seconds)[0]
    tx.run("restore_items", **at, seq=turn.seq, first_position=turn.first_position)
    again = turn.state in {"unknown", "delivering"}
    crashed = shared and _crashed_ahead(tx, op, turn.conversation, turn.seq)
    row = tx.one("find_conversation", **at)
    replica = replica_of(row)
    if shared and (again or crashed):
        tx.run("doubt_replica", **at)
        replica = replace(replica, doubtful=replica.state == "live")
    handle_state, age = replica.state, replica.age_seconds
    if turn.handle is not None:
        found = tx.one("find_handle", tenant=op.tenant, upstream=op.upstream, handle=turn.handle)
        if found is not None:
            handle_state, age = found[5], found[8]
    count = tx.one("count_items", **at, seq=turn.seq, first_position=turn.first_position)[0]
    return Accepted(
        "deliver",
        turn=TurnKey(turn.conversation, turn.seq, epoch, turn.turn_id),
        through=turn.first_position - 1,
        handle_state=handle_state if turn.handle or op.subject else "none",  # type: ignore[arg-type]
        handle_age_seconds=age,
        replica=replica,
        adopting=bool(row[9]) and turn.seq == 1,
        accepted_items=count,
        again=again,
    )


# -- the end of a turn -----------------------------------------------------------------------


def complete(tx: Transaction, op: Complete) -> Completed:
    """Store a turn's answer and its items, and what it did to the replica, in one commit."""
    key = op.turn
    at = {"tenant": op.tenant, "conversation": key.conversation}
    changed = tx.run(
        "complete_turn",
        **at,
        seq=key.seq,
        epoch=key.epoch,
        status=op.status,
        content_type=op.content_type,
        body=op.body,
        response_id=op.response_id,
        model=op.model,
        input_tokens=op.input_tokens,
    )
    if not changed:
        return "fenced"
    last, generation = tx.one(
        "complete_conversation",
        **at,
        seq=key.seq,
        added=len(op.items),
        head=op.head,
        dialect=op.dialect,
        rebuilt=op.recovery is not None and op.head is not None,
        primed=op.primed,
        unread=op.unread,
        history_tokens=op.remembered.tokens if op.remembered else None,
        history_reasoning=op.remembered.reasoning_tokens if op.remembered else None,
        history_model=op.remembered.model if op.remembered else None,
    )
    if op.items:
        first = last - len(op.items) + 1
        _append(tx, key.conversation, first, key.seq, op.items)
    if op.own:
        _learn_own_ids(tx, op)
    if op.response_id is not None:
        entered = tx.run(
            "insert_handle",
            **at,
            upstream=op.upstream,
            handle=op.response_id,
            kind=op.handle_kind,
            position=last,
            turn_seq=key.seq,
            body=None,
        )
        if not entered and not _is_ours(tx, op, op.response_id):
            raise Undo("taken")
    if op.recovery is not None:
        tx.run("insert_recovery", **at, generation=generation, **recovery_values(op.recovery))
    if op.lost is not None:
        tx.run("mark_handle", tenant=op.tenant, upstream=op.upstream, handle=op.lost, state="lost")
        if op.orphan:
            tx.one(
                "insert_orphan",
                **at,
                upstream=op.upstream,
                dialect=op.dialect,
                handle=op.lost,
                reason="predicted lost",
            )
    return "done"


def _is_ours(tx: Transaction, op: Complete, response_id: str) -> bool:
    """Whether an id that is bound already was bound by this very turn, while it was underway."""
    row = tx.one("find_handle", tenant=op.tenant, upstream=op.upstream, handle=response_id)
    return row is not None and (row[1], row[4]) == (op.turn.conversation, op.turn.seq)


def _learn_own_ids(tx: Transaction, op: Complete) -> None:
    """Give the turn's own items the ids under which the provider shows them."""
    at = {"tenant": op.tenant, "conversation": op.turn.conversation}
    turn = tx.one("known_turn", **at, seq=op.turn.seq)
    first = _Row(*turn).first_position
    for number, (provider_id, wire) in enumerate(op.own):
        tx.run("set_provider_id", **at, position=first + number, provider_id=provider_id, wire=wire)


def underway(tx: Transaction, op: Underway) -> bool:
    """Note the provider's id of work that goes on; the lease is free, the turn still open."""
    key = op.turn
    at = {"tenant": op.tenant, "conversation": key.conversation}
    row = tx.one(
        "underway_turn",
        **at,
        seq=key.seq,
        epoch=key.epoch,
        response_id=op.response_id,
        body=op.body,
        replaces=op.replaces,
    )
    if row is None:
        return False
    is_run = op.response_id.startswith("run_")
    position = tx.one("settle", **at, seq=key.seq, is_run=is_run)[0]
    tx.run(
        "insert_handle",
        **at,
        upstream=op.upstream,
        handle=op.response_id,
        kind="run" if is_run else "response",
        position=position,
        turn_seq=key.seq,
        body=None,
    )
    if op.replaces is not None:
        tx.run(
            "replace_handle",
            tenant=op.tenant,
            upstream=op.upstream,
            handle=op.replaces,
            new=op.response_id,
        )
    return True


def fail(tx: Transaction, op: Fail) -> bool:
    """End a turn without an answer; keep what was shown of one."""
    key = op.turn
    at = {"tenant": op.tenant, "conversation": key.conversation}
    row = tx.one("fail_turn", **at, seq=key.seq, epoch=key.epoch, state=op.state, reason=op.reason)
    if row is None:
        return False
    first, dialect = row
    if op.withdrawn:
        tx.run("withdraw_items", **at, seq=key.seq, first_position=first)
    if op.partial:
        conversation = tx.one("find_conversation", **at)
        last = _append(tx, key.conversation, conversation[10] + 1, key.seq, op.partial)
        tx.run("advance", **at, last_position=last, last_seq=conversation[11], open_from=None)
    if op.state == "unknown" and dialect != "responses":
        tx.run("doubt_replica", **at)
    return True
