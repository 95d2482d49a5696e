"""Rows to values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

from perdure.dialects.tokens import tokens_of
from perdure.model import NewItem, Recovery, Remembered, Replica, StoredAnswer, StoredItem, value
from perdure.stores.sqlite.statements import Transaction

_POSITION_ZERO: Final = 2**31


@value
class TurnRow:
    """A turn as ``find_turn`` and its sisters return it."""

    conversation: int
    seq: int
    turn_id: str
    kind: str
    state: str
    body_hash: str
    epoch: int
    handed: int
    answer: int | None
    response_id: str | None
    parent: int
    first_position: int
    last_position: int
    handle: str | None
    dialect: str
    leased: int
    late: int
    underway: int
    accepted_at: float


def buried(provider_id: str) -> str:
    """Return what stands for an item that was deleted before it was adopted."""
    return f"deleted {provider_id}"


def item_row(conversation: int, position: int, seq: int | None, item: NewItem) -> tuple[Any, ...]:
    """Return the values of one row of the log; the key is that of the schema's comment."""
    return (
        (conversation << 32) + _POSITION_ZERO + position,
        seq,
        item.kind,
        item.role,
        item.call_id,
        item.provider_id,
        item.wire,
        item.input,
        tokens_of(item),
        item.created_at,
    )


def replica_of(row: Any) -> Replica:
    """Return the replica in a row of conversation columns (see ``find_conversation``)."""
    _, dialect, generation, state, handle, primed_through, age, doubt = row[:8]
    return Replica(
        state=state,
        handle=handle,
        generation=generation,
        primed_through=primed_through,
        age_seconds=age,
        dialect=dialect,
        doubtful=bool(doubt) and state == "live" and dialect != "responses",
    )


def stored_item(row: Any) -> StoredItem:
    """Return an item from a row of the item columns, in the order of ``history``."""
    position, kind, role, call_id, provider_id, wire, form, created_at, tokens, *more = row
    turn_id = more[0] if more else None
    return StoredItem(
        position, kind, role, call_id, provider_id, wire, form, created_at, turn_id, tokens
    )


def line(
    tx: Transaction, tenant: str, conversation: int, through: int
) -> Iterator[tuple[int, int, bool]]:
    """Yield (conversation, through, adopting) of a branch, then of each of its origins."""
    here: int | None = conversation
    while here is not None:
        row = tx.one("origin", tenant=tenant, conversation=here)
        if row is None:  # forgotten since
            return
        origin, position, adopting = row
        yield here, through, adopting is not None
        here = origin
        through = min(through, position) if position is not None else through


def stored_answer(tx: Transaction, answer: int | None) -> StoredAnswer | None:
    """Return a turn's answer, or None while it has none."""
    return None if answer is None else StoredAnswer(*tx.one("read_answer", answer=answer))


def recovery_of(row: Any) -> Recovery:
    """Return a recovery from its row."""
    return Recovery(
        conversation=row[0],
        turn_id=row[1],
        reason=row[2],
        generation=row[3],
        lost_handle=row[4],
        new_handle=row[5],
        memory=row[6],
        primed=row[7],
        left_out=row[8],
        requests=row[9],
    )


def recovery_values(recovery: Recovery) -> dict[str, Any]:
    """Return a recovery's columns, without its conversation and generation."""
    return {
        "turn_id": recovery.turn_id,
        "reason": recovery.reason,
        "lost_handle": recovery.lost_handle,
        "new_handle": recovery.new_handle,
        "memory": recovery.memory,
        "primed": recovery.primed,
        "left_out": recovery.left_out,
        "requests": recovery.requests,
    }


def unread_run(tx: Transaction, conversation: int, seq: int | None) -> tuple[str | None, bool]:
    """Return the provider's id of the run in a conversation's unread turn, and whether it ended."""
    row = None if seq is None else tx.one("turn_of_handle", conversation=conversation, seq=seq)
    return (None, False) if row is None or row[6] is None else (row[6], row[3] != "delivering")


def remembered_of(row: Any) -> Remembered | None:
    """Return the bound in the last four of a conversation's columns, if there is one."""
    tokens, reasoning, model, fixed = row[-4:]
    return None if tokens is None else Remembered(tokens, reasoning or 0, model, fixed or "")


def history_values(remembered: Remembered | None) -> dict[str, Any]:
    """Return a bound as columns of a conversation."""
    return {
        "history_tokens": remembered.tokens if remembered else None,
        "history_reasoning": remembered.reasoning_tokens if remembered else None,
        "history_model": remembered.model if remembered else None,
        "history_fixed": remembered.fixed if remembered else None,
    }


def remembered_from(row: Any, handle: str) -> Remembered | None:
    """Return the bound for what goes on from a handle: its log's, where it is the log's end.

    What has failed behind a chain's head was never part of what the next response is made from.
    """
    at_end = row[2] != "response" or row[3] == row[18] or row[12] == handle
    return remembered_of(row) if at_end else None


class _OfOneConversation(Protocol):
    @property
    def tenant(self) -> str: ...

    @property
    def conversation(self) -> int: ...


def belongs(tx: Transaction, op: _OfOneConversation) -> bool:
    """Whether the conversation that an operation names is its tenant's."""
    return tx.one("is_tenants", tenant=op.tenant, conversation=op.conversation) is not None
