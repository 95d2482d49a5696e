"""Operations to parameters, rows to results.

PostgreSQL's text holds every character but NUL. A NUL can stand in what a caller names things by
(a subject, a pinned fact, an id in a request), so it is stored as two characters, behind an escape
character that is itself stored twice; JSON escapes both, so in an item's text there is neither.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, Final

from perdure.dialects.items import said_in
from perdure.dialects.tokens import tokens_of
from perdure.engine import ops
from perdure.flow import Op
from perdure.model import (
    NewItem,
    Recovery,
    Remembered,
    Replica,
    Snapshot,
    StoredAnswer,
    StoredItem,
    TurnKey,
)

Row = tuple[Any, ...]

_ESCAPE: Final = "\x1a"
_ESCAPED: Final = re.compile(f"{_ESCAPE}(.)", re.DOTALL)
_PLAIN: Final = {"0": "\0", _ESCAPE: _ESCAPE}
_dump: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def stored(value: Any) -> Any:
    """Return a value as a column holds it."""
    if type(value) is str and ("\0" in value or _ESCAPE in value):
        return value.replace(_ESCAPE, _ESCAPE * 2).replace("\0", f"{_ESCAPE}0")
    return value


def restored(values: Sequence[Any]) -> Row:
    """Return a row's values as they were before they were stored."""
    return tuple(
        _ESCAPED.sub(_unescaped, value) if type(value) is str and _ESCAPE in value else value
        for value in values
    )


def _unescaped(found: re.Match[str]) -> str:
    return _PLAIN[found[1]]


# -- parameters ------------------------------------------------------------------------------


def parameters(op: Op[Any]) -> dict[str, Any]:
    """Return an operation's fields as the parameters of its statement."""
    values: dict[str, Any] = {}
    for name in _names(type(op)):
        value = getattr(op, name)
        flatten = _FLAT.get(name)
        if flatten is None:
            values[name] = stored(value)
        else:
            values.update(flatten(value))
    return values


_NAMES: dict[type[Any], tuple[str, ...]] = {}


def _names(kind: type[Any]) -> tuple[str, ...]:
    if kind not in _NAMES:
        _NAMES[kind] = tuple(field.name for field in fields(kind))
    return _NAMES[kind]


def _items(items: tuple[NewItem, ...]) -> str:
    return _dump(
        [
            {
                "kind": stored(item.kind),
                "role": stored(item.role),
                "call_id": stored(item.call_id),
                "provider_id": stored(item.provider_id),
                "wire": stored(item.wire),
                "input": stored(item.input),
                "tokens": tokens_of(item),
                "created_at": item.created_at,
            }
            for item in items
        ]
    )


def _recovery(recovery: Recovery | None) -> str | None:
    if recovery is None:
        return None
    return _dump({name: stored(getattr(recovery, name)) for name in _names(Recovery)})


def _turn(key: TurnKey | None) -> dict[str, Any]:
    return {
        "turn_conversation": key.conversation if key else None,
        "turn_seq": key.seq if key else None,
        "turn_epoch": key.epoch if key else None,
    }


def _waiting(key: TurnKey | None) -> dict[str, Any]:
    return {
        "waiting_conversation": key.conversation if key else None,
        "waiting_seq": key.seq if key else None,
    }


def _remembered(remembered: Remembered | None) -> dict[str, Any]:
    return {
        "history_tokens": remembered.tokens if remembered else None,
        "history_reasoning": remembered.reasoning_tokens if remembered else None,
        "history_model": stored(remembered.model) if remembered else None,
        "history_fixed": stored(remembered.fixed) if remembered else None,
    }


_FLAT: Final[dict[str, Callable[[Any], dict[str, Any]]]] = {
    "items": lambda items: {"items": _items(items)},
    "partial": lambda items: {"partial": _items(items)},
    "turn": _turn,
    "waiting_for": _waiting,
    "remembered": _remembered,
    "recovery": lambda recovery: {"recovery": _recovery(recovery)},
    "partial_of": lambda ids: {"partial_of": [stored(one) for one in ids]},
    "said_by": lambda ids: {"said_by": [stored(one) for one in ids]},
    "sent_ids": lambda ids: {"sent_ids": [stored(one) for one in ids]},
    "facts": lambda facts: {"facts": [stored(one) for one in facts]},
    "runs": lambda runs: {"runs": [stored(one) for one in runs]},
    "own": lambda own: {
        "own_ids": [stored(one) for one, _ in own],
        "own_wires": [stored(wire) for _, wire in own],
    },
    "named": lambda named: {
        "named_positions": [position for position, _, _ in named],
        "named_ids": [stored(one) for _, one, _ in named],
        "named_wires": [stored(wire) for _, _, wire in named],
    },
    "words": lambda words: {"words": [stored(word) for word in words]},
    "ranges": lambda ranges: {
        "firsts": [first for first, _ in ranges],
        "lasts": [last for _, last in ranges],
    },
    "snapshot": lambda snapshot: {
        f"snapshot_{name}": stored(getattr(snapshot, name)) for name in _names(Snapshot)
    },
    "turns": lambda keys: {
        "conversations": [key.conversation for key in keys],
        "seqs": [key.seq for key in keys],
        "epochs": [key.epoch for key in keys],
    },
}


# -- results ---------------------------------------------------------------------------------


def nothing(_op: Any, _rows: list[Row]) -> None:
    """Return what an operation without a result returns."""


def single(_op: Any, rows: list[Row]) -> Any:
    """Return the one value of the one row."""
    return rows[0][0]


def accepted(op: ops.Accept, rows: list[Row]) -> ops.Accepted:
    """Return what accepting a turn found."""
    outcome, conversation, seq, epoch, turn_id, through, state, age, *replica = rows[0][:15]
    adopting, incomplete, entered, known, again, *history = rows[0][15:]
    tokens, reasoning, model, fixed, *answer, unread, ended = history
    key = None if seq is None else TurnKey(conversation, seq, epoch, turn_id)
    if outcome == "mismatch":
        return ops.Accepted(outcome)
    if outcome == "erased":
        return ops.Accepted(outcome, turn=op.waiting_for)
    if outcome == "unsettled":
        return ops.Accepted(outcome, turn=key, through=through, replica=_replica(*replica))
    if outcome == "unread":
        return ops.Accepted(
            outcome, turn=key, replica=_replica(*replica), unread=unread, unread_ended=ended
        )
    if outcome != "deliver":
        return ops.Accepted(outcome, turn=key, stored=_answer(*answer))
    return ops.Accepted(
        outcome,
        turn=key,
        through=through,
        handle_state=state,
        handle_age_seconds=age,
        replica=_replica(*replica),
        adopting=adopting,
        incomplete=incomplete,
        accepted_items=entered,
        known_items=known,
        again=again,
        remembered=_bound(tokens, reasoning, model, fixed),
        unread=unread,
    )


def _replica(
    dialect: Any,
    generation: int,
    state: Any,
    handle: str | None,
    primed_through: int,
    age: float,
    doubtful: bool,  # noqa: FBT001  # a column among columns
) -> Replica:
    return Replica(state, handle, generation, primed_through, age, dialect, doubtful)


def _bound(
    tokens: int | None, reasoning: int | None, model: Any, fixed: str | None
) -> Remembered | None:
    return None if tokens is None else Remembered(tokens, reasoning or 0, model, fixed or "")


def _answer(status: int | None, body: bytes, content_type: str) -> StoredAnswer | None:
    return None if status is None else StoredAnswer(status, body, content_type)


def doubt(op: ops.Unsettled, rows: list[Row]) -> ops.Doubt:
    """Return turns whose outcome is unknown, each with its items."""
    if not rows:
        return ops.Doubt((), None, None)
    turns: dict[int, ops.UnsettledTurn] = {}
    for seq, epoch, turn_id, kind, request, position, *item in rows:
        before = turns[seq].items if seq in turns else ()
        own = () if position is None else (_counted((position, *item[:8])),)
        key = TurnKey(op.conversation, seq, epoch, turn_id)
        turns[seq] = ops.UnsettledTurn(key, kind, request, before + own)
    return ops.Doubt(tuple(turns.values()), *rows[0][-2:])


def orphans(_op: ops.Orphans, rows: list[Row]) -> tuple[ops.Orphan, ...]:
    """Return orphans."""
    return tuple(ops.Orphan(*row) for row in rows)


def left_behind(_op: ops.Leftovers, rows: list[Row]) -> ops.LeftBehind:
    """Return how much is left behind."""
    return ops.LeftBehind(*rows[0])


def throttled(_op: ops.Throttled, rows: list[Row]) -> float:
    """Return for how long an upstream is to be left alone."""
    return max(0.0, rows[0][0]) if rows else 0.0


_FOREIGN: Final = ops.Found(
    0, 0, "live", 0.0, Replica("absent", None, 0, 0, 0.0, "responses"), foreign=True
)


def brought_in(_op: Any, rows: list[Row]) -> ops.BroughtIn:
    """Return what bringing a portion in came to."""
    return ops.BroughtIn(*rows[0])


def found(_op: ops.Find, rows: list[Row]) -> ops.Found | None:
    """Return what a handle points to."""
    if not rows:
        return None
    foreign, conversation, position, state, age, *replica = rows[0][:12]
    seq, epoch, turn_id, ended, request, *answer, replaced_by = rows[0][12:-8]
    first, last, unread, over = rows[0][-8:-4]
    if foreign:
        return _FOREIGN
    return ops.Found(
        conversation=conversation,
        position=position,
        state=state,
        age_seconds=age,
        replica=_replica(*replica),
        turn=None if seq is None else TurnKey(conversation, seq, epoch, turn_id),
        ended=ended,
        request=request,
        answer=_answer(*answer),
        replaced_by=replaced_by,
        first_position=first,
        last_position=last,
        unread=unread,
        unread_ended=bool(over),
        remembered=_bound(*rows[0][-4:]),
    )


def span(_op: ops.History, rows: list[Row]) -> ops.Span:
    """Return a stretch of the log, oldest first; the last row is about all of it."""
    *newest_first, about = rows
    older, complete, milestones, *snapshot = about[9:]
    return ops.Span(
        items=tuple(_counted(row) for row in reversed(newest_first)),
        older=older,
        milestones=restored(milestones or ()),
        complete=complete,
        snapshot=None if snapshot[0] is None else Snapshot(*snapshot),
    )


def _counted(row: Row) -> StoredItem:
    """Return an item from its columns, the last of which is its number of tokens."""
    return replace(StoredItem(*row[:8]), tokens=row[8])


def matches(op: ops.Search, rows: list[Row]) -> ops.Matches:
    """Return where words stand; the row of the number 0 says how large the log is."""
    found: list[list[int]] = [[] for _ in op.words]
    size = 0
    for word, position in rows:
        if word:
            found[word - 1].append(position)
        else:
            size = position
    return ops.Matches(
        size=size,
        counts=tuple(map(len, found)),
        positions=tuple(tuple(one[: op.most]) for one in found),
    )


def excerpts(op: ops.Excerpts, rows: list[Row]) -> tuple[StoredItem, ...]:
    """Return items in the order of the log."""
    return tuple(_counted(row) for row in (rows if op.oldest else reversed(rows)))


def stretches(_op: ops.Unsummarised, rows: list[Row]) -> tuple[tuple[int, int], ...]:
    """Return conversations, each with a position."""
    return tuple((conversation, position) for conversation, position in rows)


def listing(op: ops.Page, rows: list[Row]) -> ops.Listing:
    """Return one page; a row without a position says that the cursor names nothing."""
    if rows and rows[0][0] is None:
        return ops.Listing((), has_more=False, cursor_found=False)
    return ops.Listing(
        tuple(StoredItem(*row) for row in rows[: op.limit]), has_more=len(rows) > op.limit
    )


def item(_op: ops.OneItem, rows: list[Row]) -> StoredItem | None:
    """Return one item."""
    return StoredItem(*rows[0]) if rows else None


def runs(_op: ops.Runs, rows: list[Row]) -> tuple[ops.SeenRun, ...]:
    """Return runs."""
    return tuple(ops.SeenRun(*row) for row in rows)


def subject(_op: ops.FindSubject, rows: list[Row]) -> ops.Subject | None:
    """Return a subject's conversation."""
    if not rows:
        return None
    conversation, state, handle, generation, primed_through, age, dialect, doubtful, last = rows[0]
    replica = Replica(state, handle, generation, primed_through, age, dialect, doubtful)
    return ops.Subject(conversation, replica, last)


def entries(_op: ops.ReadHistory, rows: list[Row]) -> tuple[ops.Entry, ...]:
    """Return a page of what was said, oldest first."""
    found = []
    for *row, tokens in reversed(rows):
        position, turn_id, seq, role, kind, wire, at, state, *rebuilt = row
        found.append(
            ops.Entry(
                position=position,
                turn_id=turn_id,
                seq=seq or 0,
                role=role or "",
                kind=kind,
                text=said_in(json.loads(wire)),
                at=at,
                state=state or "answered",
                recovery=_rebuilt(rebuilt),
                tokens=tokens,
            )
        )
    return tuple(found)


def listed(_op: ops.Conversations, rows: list[Row]) -> tuple[ops.Listed, ...]:
    """Return a page of conversations."""
    return tuple(ops.Listed(*row) for row in rows)


def _rebuilt(columns: Sequence[Any]) -> Recovery | None:
    return None if columns[0] is None else Recovery(*columns)


def recovery(_op: ops.ReadRecovery, rows: list[Row]) -> Recovery | None:
    """Return the record of one rebuild."""
    return _rebuilt(rows[0]) if rows else None


def turn(_op: ops.ReadTurn, rows: list[Row]) -> ops.TurnInfo | None:
    """Return the outcome of a turn."""
    if not rows:
        return None
    seq, state, response_id, *rebuilt = rows[0]
    return ops.TurnInfo(seq, state, response_id, _rebuilt(rebuilt))


def forgotten(_op: ops.Forget, rows: list[Row]) -> ops.Forgotten:
    """Return what was erased."""
    conversations, items, turns, milestones, snapshots, keys, *columns = rows[0]
    upstreams, dialects, handles = map(restored, columns)
    return ops.Forgotten(
        conversations,
        items,
        turns,
        milestones,
        tuple(map(ops.Orphan, keys, upstreams, dialects, handles)),
        snapshots,
    )
