"""The end of a turn in SQLite: its one answer, work that goes on elsewhere, or a failure."""

from __future__ import annotations

from perdure.engine.ops import (
    Complete,
    Completed,
    Doubt,
    Fail,
    Renew,
    Settle,
    Underway,
    Unsettled,
    UnsettledTurn,
)
from perdure.model import TurnKey
from perdure.stores.sqlite.connection import Transaction, Undo
from perdure.stores.sqlite.rows import belongs, recovery_values, stored_item
from perdure.stores.sqlite.turns import TurnRow, append_items


def complete(tx: Transaction, op: Complete) -> Completed:
    """Store a turn's answer and its items, and what it did to the replica, in one commit."""
    key = op.turn
    at = {"tenant": op.tenant, "conversation": key.conversation}
    answer = tx.add("insert_answer", status=op.status, content_type=op.content_type, body=op.body)
    changed = tx.run(
        "complete_turn",
        **at,
        seq=key.seq,
        epoch=key.epoch,
        answer=answer,
        response_id=op.response_id,
        model=op.model,
        input_tokens=op.input_tokens,
    )
    if not changed:
        raise Undo("fenced")
    if key.epoch > 1 or op.settles:
        tx.run("withdraw_shown", **at, seq=key.seq)
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
        history_fixed=op.remembered.fixed if op.remembered else None,
    )
    if op.items:
        first = last - len(op.items) + 1
        append_items(tx, key.conversation, first, key.seq, op.items)
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
    first = TurnRow(*turn).first_position
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
        body=op.body,
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
        shown = conversation[10] + 1
        tx.run("withdraw_shown", **at, seq=key.seq)
        last = append_items(tx, key.conversation, shown, key.seq, op.partial)
        tx.run("shown", **at, seq=key.seq, shown_from=shown, shown_to=last)
        tx.run("advance", **at, last_position=last, last_seq=conversation[11], open_from=None)
    if op.state == "unknown" and dialect != "responses":
        tx.run("doubt_replica", **at)
    return True


def renew(tx: Transaction, op: Renew) -> None:
    """Put off the end of leases."""
    for key in op.turns:
        tx.run(
            "renew",
            tenant=op.tenant,
            conversation=key.conversation,
            seq=key.seq,
            epoch=key.epoch,
            lease_seconds=op.lease_seconds,
        )


def settle(tx: Transaction, op: Settle) -> None:
    """End the doubt about a replica."""
    tx.run(
        "settle_replica",
        tenant=op.tenant,
        conversation=op.conversation,
        generation=op.generation,
    )


def unsettled(tx: Transaction, op: Unsettled) -> Doubt:
    """Read the turns whose outcome is unknown."""
    at = {"tenant": op.tenant, "conversation": op.conversation}
    rows = tx.all("unsettled", **at, asking=op.asking) if belongs(tx, op) else []
    if not rows:
        return Doubt((), None, None)
    turns = []
    for seq, epoch, turn_id, kind, request, first, last in rows:
        items = tx.all("own_items", **at, first_position=first, last_position=last)
        key = TurnKey(op.conversation, seq, epoch, turn_id)
        turns.append(UnsettledTurn(key, kind, request, tuple(map(stored_item, items))))
    first = rows[0][5]
    newest = tx.one("newest_id_before", **at, position=first)
    conversation = tx.one("find_conversation", **at)
    whole = conversation[2] == 0 and conversation[9] is None
    return Doubt(
        turns=tuple(turns),
        after=newest[0] if newest is not None else None,
        skip=first - 1 if newest is None and whole else None,
    )
