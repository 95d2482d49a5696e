"""Turns in SQLite: accepting them, and taking again what an earlier attempt left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from perdure.engine.ops import Accept, Accepted
from perdure.model import NewItem, Replica, StoredAnswer, TurnKey
from perdure.stores.sqlite.places import Place, branched, place_of, repeated
from perdure.stores.sqlite.rows import (
    TurnRow,
    item_row,
    remembered_from,
    remembered_of,
    replica_of,
    stored_answer,
    unread_run,
)
from perdure.stores.sqlite.search import leave
from perdure.stores.sqlite.statements import Transaction

# -- accept ----------------------------------------------------------------------------------


def accept(tx: Transaction, op: Accept) -> Accepted:
    """Find or open the turn's place, journal its items, take it if it is first in line."""
    known = _known(tx, op)
    if known is not None:
        return _again(tx, op, known)
    if op.waiting_for is not None:
        return Accepted("erased", turn=op.waiting_for)
    place = place_of(tx, op)
    if isinstance(place, Accepted):
        return place
    repeat = None if op.turn_id else repeated(tx, op, place)
    if repeat is not None:
        return _again(tx, op, repeat)
    first = _in_the_background(tx, op, place)
    if op.shared and (place.open_from or place.unread or place.replica.doubtful):
        first = first or _first(tx, op, place.conversation, place.last_seq + 1)
    if first is not None:
        return first
    return _opened(tx, op, branched(tx, op, place))


def _in_the_background(tx: Transaction, op: Accept, place: Place) -> Accepted | None:
    """Say that the response comes first that a chain goes on from, where it is still being made."""
    if place.made_by is None or op.looked == op.handle:
        return None
    at = {"tenant": op.tenant, "conversation": place.conversation}
    turn = TurnRow(*tx.one("known_turn", **at, seq=place.made_by))
    return _comes_first(tx, at, op.handle, ended=False) if turn.underway else None


def _known(tx: Transaction, op: Accept) -> TurnRow | None:
    """Return the turn that the caller names, by its own id for it or as one it waits for."""
    if op.waiting_for is not None:
        key = op.waiting_for
        row = tx.one("known_turn", tenant=op.tenant, conversation=key.conversation, seq=key.seq)
        return None if row is None else TurnRow(*row)
    if op.turn_id is None:
        return None
    row = tx.one("find_turn", tenant=op.tenant, turn_id=op.turn_id)
    return None if row is None else TurnRow(*row)


def _opened(tx: Transaction, op: Accept, place: Place) -> Accepted:
    seq = place.last_seq + 1
    first = place.last_position + 1
    known = _known_items(tx, op, place.conversation, place.replica)
    behind = op.shared and place.open_from is not None
    waiting = behind and _must_wait(tx, op, place.conversation, seq)
    mine = op.items[known:]
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
        last_position=first + len(mine) - 1,
        body_hash=op.body_hash,
        request=op.request,
        lease_seconds=op.lease_seconds,
        deadline_seconds=op.deadline_seconds,
    )
    last = append_items(tx, place.conversation, first, seq, mine)
    tx.run(
        "advance",
        tenant=op.tenant,
        conversation=place.conversation,
        last_position=last,
        last_seq=seq,
        open_from=seq,
    )
    key = TurnKey(place.conversation, seq, 1, op.turn_id or f"{place.conversation}.{seq}")
    lacks = _lacks_unanswered(tx, op, place.conversation, place.replica, first - 1)
    if waiting:  # it is no part of what others are answered from until it is delivered
        tx.run("withdraw_items", conversation=place.conversation, seq=seq, first_position=first)
        return Accepted("wait", turn=key)
    return Accepted(
        "deliver",
        turn=key,
        through=first - 1,
        handle_state="lost" if lacks else place.handle_state,  # type: ignore[arg-type]
        handle_age_seconds=place.handle_age,
        replica=replace(place.replica, state="lost") if lacks else place.replica,
        adopting=place.adopting,
        incomplete=place.incomplete,
        accepted_items=len(mine),
        known_items=known,
        remembered=place.remembered,
        unread=_unread(tx, op, place.conversation)[0] if place.unread else None,
    )


def _lacks_unanswered(
    tx: Transaction, op: Accept, conversation: int, replica: Replica, through: int
) -> bool:
    """Whether a user's chain lacks what the log has before a turn.

    A turn that got no answer is no link of it, but has been said.
    """
    if op.subject is None or replica.dialect != "responses" or replica.state != "live":
        return False
    at = {"tenant": op.tenant, "upstream": op.upstream, "conversation": conversation}
    return bool(tx.one("lacks_unanswered", **at, head=replica.handle, through=through))


def _known_items(tx: Transaction, op: Accept, conversation: int, replica: Replica) -> int:
    """Return how many of the items sent, from the first, a rebuilt replica's log has already."""
    if op.dialect != "conversations" or replica.generation == 0:
        return 0
    at = {"tenant": op.tenant, "conversation": conversation}
    for number in range(len(op.sent_ids), 0, -1):
        sent = op.sent_ids[number - 1]
        if sent is not None and tx.one("item_position", **at, provider_id=sent):
            return number
    return 0


def append_items(
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


def _first(tx: Transaction, op: Accept, conversation: int, seq: int) -> Accepted | None:
    """Return what has to be done before a turn that need not wait is delivered, if anything."""
    if _must_wait(tx, op, conversation, seq):
        return None
    return _unread_first(tx, op, conversation) or _doubt(tx, op, conversation, seq)


def _unread_first(tx: Transaction, op: Accept, conversation: int) -> Accepted | None:
    """Say that a run's messages come before a turn on a thread, unless it was just looked for."""
    run_id, ended = _unread(tx, op, conversation)
    if run_id is None or (run_id == op.looked and not ended):
        return None
    at = {"tenant": op.tenant, "conversation": conversation}
    return _comes_first(tx, at, run_id, ended=ended)


def _comes_first(
    tx: Transaction, at: dict[str, Any], unread: str | None, *, ended: bool
) -> Accepted:
    return Accepted(
        "unread",
        turn=TurnKey(at["conversation"], 0, 0, ""),
        replica=replica_of(tx.one("find_conversation", **at)),
        unread=unread,
        unread_ended=ended,
    )


def _unread(tx: Transaction, op: Accept, conversation: int) -> tuple[str | None, bool]:
    """Return the run whose messages come before a turn on a thread, and whether it has ended.

    Or the response that is made in the background, in a conversation or for a subject.
    """
    row = tx.one("find_conversation", tenant=op.tenant, conversation=conversation)
    run_id, ended = unread_run(tx, conversation, row[8])
    chain = op.dialect == "responses"
    is_there = op.shared and row[1] == op.dialect and (row[3] == "live" or chain)
    read = ended and op.dialect != "threads"
    return (run_id, ended) if is_there and not read and run_id != op.lost else (None, False)


def _doubt(tx: Transaction, op: Accept, conversation: int, seq: int) -> Accepted | None:
    """Give up turns that were left behind; return what they make of a replica that is shared.

    A response cannot be changed by them: the chain goes on from the one that is known.
    """
    at = {"tenant": op.tenant, "conversation": conversation}
    for first, last in tx.all("abandon_pending", **at, seq=seq):
        tx.run("restore_items", **at, first_position=first, last_position=last)
    crashed = tx.run("abandon_crashed", **at, seq=seq)
    if op.dialect == "responses":
        return None
    if crashed:
        tx.run("doubt_replica", **at)
    row = tx.one("find_conversation", **at)
    replica = replica_of(row)
    if not replica.doubtful:
        return None
    return Accepted(
        "unsettled", turn=TurnKey(conversation, 0, 0, ""), through=row[10], replica=replica
    )


# -- the same turn again ---------------------------------------------------------------------


def _again(tx: Transaction, op: Accept, turn: TurnRow) -> Accepted:
    if turn.body_hash != op.body_hash and op.lost is None:
        return Accepted("mismatch")
    key = TurnKey(turn.conversation, turn.seq, turn.epoch, turn.turn_id)
    lost = bool(turn.underway) and turn.response_id == op.lost
    stored = _stored(tx, op, turn, lost=lost)
    if stored is not None:
        return Accepted("answered", turn=key, stored=stored)
    if turn.state == "delivering" and turn.leased:
        return Accepted("wait", turn=key)
    if op.lost is not None and not op.interim and _has_spoken(tx, turn):
        return Accepted("spoken", turn=key)
    unknown = turn.state in {"unknown", "delivering"} and not lost
    if (op.retry and turn.late) or (op.once and unknown):
        return Accepted("expired", turn=key)
    shared = op.shared or turn.dialect != "responses"
    if shared and _must_wait(tx, op, turn.conversation, turn.seq):
        _keep_waiting(tx, op, turn)
        return Accepted("wait", turn=key)
    if shared:
        # The only one that is unknown is taken again itself, behind what a run said before it.
        only = unknown and _is_only_unknown(tx, op, turn)
        at = turn.conversation
        first = _unread_first(tx, op, at) if only else _first(tx, op, at, turn.seq)
        if first is not None:
            _keep_waiting(tx, op, turn)
            return first
    return _retaken(tx, op, turn, shared=shared, again=unknown)


def _stored(tx: Transaction, op: Accept, turn: TurnRow, *, lost: bool) -> StoredAnswer | None:
    """Return a turn's answer, or what the app was shown of it while it goes on elsewhere."""
    if turn.state == "answered":
        return stored_answer(tx, turn.answer)
    if not turn.underway or lost:
        return None
    row = tx.one("find_handle", tenant=op.tenant, upstream=op.upstream, handle=turn.response_id)
    return None if row is None or row[7] is None else StoredAnswer(200, row[7], "application/json")


def _has_spoken(tx: Transaction, turn: TurnRow) -> bool:
    """Whether the log has what a run said."""
    at = {"conversation": turn.conversation, "seq": turn.seq}
    return bool(tx.one("has_spoken", **at, last_position=turn.last_position))


def _keep_waiting(tx: Transaction, op: Accept, turn: TurnRow) -> None:
    tx.run("reopen", conversation=turn.conversation, seq=turn.seq)
    tx.run(
        "keep_waiting",
        tenant=op.tenant,
        conversation=turn.conversation,
        seq=turn.seq,
        lease_seconds=op.lease_seconds,
    )


def _is_only_unknown(tx: Transaction, op: Accept, turn: TurnRow) -> bool:
    """Whether no other turn is unknown as well, or was left by a worker that is gone."""
    at = {"tenant": op.tenant, "conversation": turn.conversation}
    return not tx.one("another_unknown", **at, seq=turn.seq)


def _retaken(tx: Transaction, op: Accept, turn: TurnRow, *, shared: bool, again: bool) -> Accepted:
    """Take a turn that an earlier attempt left: under a new epoch, on a replica of no doubt."""
    at = {"tenant": op.tenant, "conversation": turn.conversation}
    epoch = tx.one(
        "take_turn",
        **at,
        seq=turn.seq,
        lease_seconds=op.lease_seconds,
        retry=op.retry,
        deadline_seconds=op.deadline_seconds,
    )[0]
    if shared:
        tx.run("reopen", conversation=turn.conversation, seq=turn.seq)
    if op.lost is not None:
        tx.run("withdraw_unheard", conversation=turn.conversation, seq=turn.seq)
        tx.run("shown", **at, seq=turn.seq, shown_of=None)
    elif shared:
        turn = at_the_end(tx, op.tenant, turn, heard=_was_heard(tx, at, turn))
    own = {"first_position": turn.first_position, "last_position": turn.last_position}
    tx.run("restore_items", **at, **own)
    row = tx.one("find_conversation", **at)
    replica = replica_of(row)
    if again and turn.dialect != "responses":
        tx.run("doubt_replica", **at)
        replica = replica_of(tx.one("find_conversation", **at))
    handle_state, age, remembered = replica.state, replica.age_seconds, remembered_of(row)
    if turn.handle is not None:
        found = tx.one("find_handle", tenant=op.tenant, upstream=op.upstream, handle=turn.handle)
        if found is not None:
            handle_state, age = found[5], found[8]
            if found[1] == turn.conversation:
                remembered = remembered_from(found, turn.handle)
    through = turn.first_position - 1 if op.lost is None else row[10]
    if _lacks_unanswered(tx, op, turn.conversation, replica, through):
        handle_state, replica = "lost", replace(replica, state="lost")
    return Accepted(
        "deliver",
        turn=TurnKey(turn.conversation, turn.seq, epoch, turn.turn_id),
        through=through,
        handle_state=handle_state if turn.handle or op.subject else "none",  # type: ignore[arg-type]
        handle_age_seconds=age,
        replica=replica,
        adopting=row[9] is not None and turn.seq == 1,
        incomplete=row[9] is not None,
        accepted_items=turn.last_position - turn.first_position + 1,
        again=again,
        known_items=_known_items(tx, op, turn.conversation, replica),
        remembered=remembered,
        unread=_unread(tx, op, turn.conversation)[0],
    )


def _was_heard(tx: Transaction, at: dict[str, Any], turn: TurnRow) -> bool:
    """Whether an answer behind a turn's items may have been made from them.

    In a conversation one to a turn that stands before it, which only came late, was not.
    """
    if turn.dialect != "conversations":
        return True
    place = {"first_position": turn.first_position, "last_position": turn.last_position}
    return bool(tx.one("later_behind", conversation=at["conversation"], **place))


def at_the_end(tx: Transaction, tenant: str, turn: TurnRow, *, heard: bool) -> TurnRow:
    """Put a turn's items at the end of the log, where others were entered behind them.

    ``heard``: an answer may have been made from them where they were.
    """
    at = {"tenant": tenant, "conversation": turn.conversation}
    own = {"first_position": turn.first_position, "last_position": turn.last_position}
    behind = "others_behind" if heard else "others_to_be_seen_behind"
    if not tx.one(behind, **at, seq=turn.seq, last_position=turn.last_position):
        return turn
    if not heard:
        tx.run("withdraw_own", **at, **own)
        tx.run("withdraw_shown", **at, seq=turn.seq, message_id=None)
    end = tx.one("find_conversation", **at)[10]
    by = end + 1 - turn.first_position
    tx.run("repeat_items", **at, **own, by=by)
    leave(tx, turn.conversation, turn.first_position, turn.last_position, withdrawn=True)
    tx.run("erase_repeated", **at, **own)
    moved = replace(
        turn,
        parent=end,
        first_position=turn.first_position + by,
        last_position=turn.last_position + by,
    )
    tx.run(
        "move_turn",
        **at,
        seq=turn.seq,
        parent=end,
        first_position=moved.first_position,
        last_position=moved.last_position,
        left=heard,
    )
    tx.run("reach", **at, last_position=moved.last_position)
    return moved
