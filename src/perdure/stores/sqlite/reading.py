"""Reading the journal in SQLite, and what is learnt from what a provider shows."""

from __future__ import annotations

from typing import Any, Final

from perdure.engine.ops import (
    Adopted,
    Adopting,
    Find,
    Found,
    History,
    Learn,
    Learnt,
    Listing,
    OneItem,
    Page,
    Runs,
    SeenRun,
    Span,
)
from perdure.model import NewItem, Replica, StoredAnswer, StoredItem, TurnKey
from perdure.stores.sqlite.rows import (
    belongs,
    buried,
    item_row,
    line,
    remembered_from,
    replica_of,
    stored_answer,
    stored_item,
    unread_run,
)
from perdure.stores.sqlite.snapshots import newest_snapshot
from perdure.stores.sqlite.statements import Transaction

_FURTHEST: Final = 2**31 - 1
_FOREIGN: Final = Found(
    0, 0, "live", 0.0, Replica("absent", None, 0, 0, 0.0, "responses"), foreign=True
)


def find(tx: Transaction, op: Find) -> Found | None:
    """Look a handle up, with its conversation's replica and, for a response or run, its turn."""
    row = tx.one("find_handle", tenant=op.tenant, upstream=op.upstream, handle=op.handle)
    if row is None:
        if tx.one("foreign_handle", upstream=op.upstream, handle=op.handle):
            return _FOREIGN
        return None
    turn, ended, request, answer = None, False, "", None
    if row[4] is not None:
        found = tx.one("turn_of_handle", tenant=row[0], conversation=row[1], seq=row[4])
        turn = TurnKey(row[1], found[1], found[2], found[0])
        ended, request = found[3] == "answered", found[4]
        answer = stored_answer(tx, found[5])
    if answer is None and row[7] is not None:
        answer = StoredAnswer(200, row[7], "application/json")
    unread = unread_run(tx, row[1], row[16])
    return Found(
        conversation=row[1],
        position=row[3],
        state=row[5],
        age_seconds=row[8],
        replica=replica_of((row[1], *row[9:16])),
        turn=turn,
        ended=ended,
        request=request,
        answer=answer,
        replaced_by=row[6],
        first_position=row[21],
        last_position=row[18],
        unread=unread[0],
        unread_ended=unread[1],
        remembered=remembered_from(row, op.handle),
    )


def history(tx: Transaction, op: History) -> Span:
    """Read the newest items that fit the budget, through the origins of a branch."""
    if not belongs(tx, op):
        return Span((), 0, (), complete=True)
    newest_first: list[StoredItem] = []
    left = op.budget_tokens
    older = 0
    complete = True
    for conversation, through, adopting in line(tx, op.tenant, op.conversation, op.through):
        at = {"tenant": op.tenant, "conversation": conversation}
        complete = complete and not adopting
        if older:
            older += tx.one("count_older", **at, position=through + 1)[0]
            continue
        for row in tx.rows("history", **at, through=through, wire=op.wire):
            left -= row[8]
            if left < 0 and newest_first:
                older += tx.one("count_older", **at, position=row[0] + 1)[0]
                break
            newest_first.append(stored_item(row))
    return Span(
        items=tuple(reversed(newest_first)),
        older=older,
        milestones=tuple(
            row[0] for row in tx.all("milestones", tenant=op.tenant, conversation=op.conversation)
        ),
        complete=complete,
        snapshot=newest_snapshot(tx, op.tenant, op.conversation, op.through) if older else None,
    )


def page(tx: Transaction, op: Page) -> Listing:
    """Read one page in either direction, from a cursor on."""
    if not belongs(tx, op):
        return Listing((), has_more=False)
    at = {"tenant": op.tenant, "conversation": op.conversation}
    low = -_FURTHEST if op.above is None else op.above
    high = _FURTHEST if op.below is None else op.below
    if op.after is not None:
        row = tx.one("item_position", **at, provider_id=op.after)
        if row is None:
            return Listing((), has_more=False, cursor_found=False)
        if op.newest_first:
            high = min(high, row[0])
        else:
            low = max(low, row[0])
    seq = None
    if op.turn_response is not None:
        # Items of the turn whose answer it is; there are none before that turn's own.
        turn = tx.one("turn_of_response", **at, response=op.turn_response)
        if turn is None:
            return Listing((), has_more=False)
        seq, low = turn[0], max(low, turn[1] - 1)
        high = min(high, turn[2] + 1) if op.inputs else high
    rows = tx.all(
        "page_newest" if op.newest_first else "page_oldest",
        **at,
        low=low,
        high=high,
        seq=seq,
        limit=op.limit + 1,
    )
    return Listing(
        tuple(stored_item(row) for row in rows[: op.limit]), has_more=len(rows) > op.limit
    )


def one_item(tx: Transaction, op: OneItem) -> StoredItem | None:
    """Read an item by its provider's id."""
    row = tx.one(
        "one_item",
        tenant=op.tenant,
        conversation=op.conversation,
        provider_id=op.provider_id,
    )
    return None if row is None else stored_item(row)


def runs(tx: Transaction, op: Runs) -> tuple[SeenRun, ...]:
    """Read runs by the order of their turns."""
    rows = tx.all(
        "runs_newest" if op.newest_first else "runs_oldest",
        tenant=op.tenant,
        upstream=op.upstream,
        conversation=op.conversation,
        above=0 if op.above is None else op.above,
        below=_FURTHEST if op.below is None else op.below,
        limit=op.limit,
    )
    return tuple(SeenRun(run_id, bool(ended), body) for run_id, ended, body in rows)


def learn(tx: Transaction, op: Learn) -> Learnt:
    """Append what follows the newest known item; what lies before it is adoption's business."""
    at = {"tenant": op.tenant, "conversation": op.conversation}
    conversation = tx.one("find_conversation", **at)
    if conversation is None:
        return "apart"
    if op.generation not in {None, conversation[2]}:
        return "replaced"
    if op.since_outputs is not None and _is_unread_before(tx, op, op.since_outputs):
        return "apart"
    for position, provider_id, wire in op.named:
        tx.run("set_provider_id", **at, position=position, provider_id=provider_id, wire=wire)
    known = [
        tx.one("item_position", **at, provider_id=item.provider_id) is not None for item in op.items
    ]
    of_runs = [number for number in range(len(op.items)) if _is_a_runs(tx, op, number)]
    start = _start(op, known, of_runs, adopting=conversation[9] is not None)
    if start is None:
        return "apart"
    fresh = [
        number
        for number, item in enumerate(op.items)
        if (number >= start or number in of_runs)
        and not known[number]
        and not _is_buried(tx, at, item)
    ]
    last, seq = conversation[10], conversation[11]
    rows = _learnt_rows(tx, op, last, fresh)
    if rows:
        tx.many("insert_item", rows)
        tx.run("advance", **at, last_position=last + len(rows), last_seq=seq, open_from=None)
    if op.read is not None and len(rows) == len(fresh):
        tx.run("nothing_unread", **at, seq=_turn_of_run(tx, op, op.read))
    return "done"


def _start(op: Learn, known: list[bool], of_runs: list[int], *, adopting: bool) -> int | None:
    """Return the place of the first item that is not older than the log; None: cannot be told."""
    places = [number for number, is_known in enumerate(known) if is_known]
    if op.named:
        places.append(op.older)
    if not places and not op.whole:
        return None
    if not places and adopting and op.items:
        return min(of_runs, default=None)
    return min(places, default=0)


def _is_unread_before(tx: Transaction, op: Learn, run_id: str) -> bool:
    """Whether what a run said before it got the outputs of its tools is still to be read."""
    seq = _turn_of_run(tx, op, run_id)
    at = {"tenant": op.tenant, "conversation": op.conversation}
    return seq is not None and bool(tx.one("is_apart", **at, seq=seq)[0])


def _is_a_runs(tx: Transaction, op: Learn, number: int) -> bool:
    """Whether a run of this log said an item: nothing else tells it from what is older."""
    run_id = op.said_by[number] if op.said_by else None
    return run_id is not None and _turn_of_run(tx, op, run_id) is not None


def _learnt_rows(tx: Transaction, op: Learn, last: int, fresh: list[int]) -> list[tuple[Any, ...]]:
    """Return the rows of what is new, up to what a run said whose turn is not settled."""
    rows: list[tuple[Any, ...]] = []
    for number in fresh:
        run_id = op.said_by[number] if op.said_by else None
        at = {"tenant": op.tenant, "conversation": op.conversation}
        seq = None if run_id is None else _turn_of_run(tx, op, run_id)
        if run_id is not None and (
            tx.one("run_of_unknown_id", **at) if seq is None else tx.one("taken", **at, seq=seq)
        ):
            break
        if seq is not None:
            tx.run("withdraw_shown", **at, seq=seq, message_id=op.items[number].provider_id)
        rows.append(item_row(op.conversation, last + len(rows) + 1, seq, op.items[number]))
    return rows


def _turn_of_run(tx: Transaction, op: Learn, run_id: str) -> int | None:
    """Return the number of the turn that a run belongs to."""
    row = tx.one(
        "turn_of_run", tenant=op.tenant, conversation=op.conversation, run_id=run_id
    )  # fmt: skip
    return None if row is None else row[0]


def adopted(tx: Transaction, op: Adopted) -> None:
    """Put older history in front of the log, at positions that run downwards."""
    if not belongs(tx, op):
        return
    at = {"tenant": op.tenant, "conversation": op.conversation}
    position = min(tx.one("first_position", **at)[0], 1)
    rows = []
    for item in op.items:
        known = item.provider_id and tx.one("item_position", **at, provider_id=item.provider_id)
        if known or _is_buried(tx, at, item):
            continue
        position -= 1
        rows.append(item_row(op.conversation, position, None, item))
    if rows:
        tx.many("insert_item", rows)
    tx.run(
        "adopted",
        **at,
        first_position=position,
        added=len(rows),
        done=op.done,
        given_up=op.given_up,
        lease_seconds=op.lease_seconds,
    )


def _is_buried(tx: Transaction, at: dict[str, Any], item: NewItem) -> bool:
    """Whether an item was deleted before it was in the log."""
    if not item.provider_id:
        return False
    return tx.one("item_position", **at, provider_id=buried(item.provider_id)) is not None


def adopting(tx: Transaction, op: Adopting) -> str | None:
    """Take up an adoption that nobody is at."""
    at = {"tenant": op.tenant, "conversation": op.conversation}
    row = tx.one("adopting", **at, lease_seconds=op.lease_seconds)
    return None if row is None else row[0]
