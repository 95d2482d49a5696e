"""Operations to arguments, replies to results.

An operation travels as one JSON record and texts of any size beside it, to which the record
refers by their place; a reply the same way. Numbers of conversations are text in it, since Lua's
JSON keeps 14 digits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
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

Texts = Sequence[bytes]

_dump: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
# The places 1 and 2 are the record's and that of what all tenants' keys begin with.
_FIRST_PLACE: Final = 3


# -- arguments -------------------------------------------------------------------------------


class _Texts:
    """Texts that travel beside the record."""

    def __init__(self) -> None:
        self.all: list[bytes] = []

    def place(self, text: str | bytes) -> int:
        """Add one and return its place among the script's arguments."""
        self.all.append(text.encode() if isinstance(text, str) else text)
        return len(self.all) + _FIRST_PLACE - 1


def arguments(op: Op[Any], fresh: int) -> tuple[bytes, list[bytes]]:
    """Return an operation's record and texts; ``fresh`` numbers the conversation it may begin."""
    texts = _Texts()
    record = {name: _argument(name, getattr(op, name), texts) for name in _names(type(op))}
    record["fresh"] = str(fresh)
    return _dump(record).encode(), texts.all


_NAMES: dict[type[Any], tuple[str, ...]] = {}


def _names(kind: type[Any]) -> tuple[str, ...]:
    if kind not in _NAMES:
        _NAMES[kind] = tuple(field.name for field in fields(kind))
    return _NAMES[kind]


def _argument(name: str, value: Any, texts: _Texts) -> Any:
    if name in _BESIDE:
        return _BESIDE[name](value, texts)
    if value is None:
        return None
    if name in _REWRITTEN:
        return _REWRITTEN[name](value)
    if isinstance(value, Recovery | Remembered):
        record = {part: getattr(value, part) for part in _names(type(value))}
        record.pop("conversation", None)  # that of the operation
        return record
    return value


def _key(key: TurnKey) -> dict[str, Any]:
    return {
        "conversation": str(key.conversation),
        "seq": key.seq,
        "epoch": key.epoch,
        "turn_id": key.turn_id,
    }


def _item(item: NewItem, texts: _Texts) -> tuple[int, str | None, int, int | None, float | None]:
    """Return an item's tokens, its provider's id, the places of its form and its wire, its time."""
    form = item.wire if item.input is None else item.input
    head = _dump((item.kind, item.role, item.call_id))
    wire = None if form == item.wire else texts.place(item.wire)
    place = texts.place(f"{head}\n{form}")
    return tokens_of(item), item.provider_id, place, wire, item.created_at


def _last_first(sent_ids: tuple[str | None, ...]) -> list[tuple[int, str]]:
    numbered = [(number, one) for number, one in enumerate(sent_ids, start=1) if one is not None]
    return numbered[::-1]


_BESIDE: Final[dict[str, Callable[[Any, _Texts], Any]]] = {
    "items": lambda items, texts: [_item(item, texts) for item in items],
    "partial": lambda items, texts: [_item(item, texts) for item in items],
    "own": lambda own, texts: [(one, texts.place(wire)) for one, wire in own],
    "snapshot": lambda snapshot, texts: {
        "through": snapshot.through,
        "items": snapshot.items,
        "maker": snapshot.maker,
        "text": texts.place(snapshot.text),
    },
    "named": lambda named, texts: [(at, one, texts.place(wire)) for at, one, wire in named],
    "request": lambda text, texts: texts.place(text),
    "body": lambda text, texts: texts.place(text),
}
_REWRITTEN: Final[dict[str, Callable[[Any], Any]]] = {
    "turn": _key,
    "waiting_for": _key,
    "turns": lambda keys: [_key(key) for key in keys],
    "sent_ids": _last_first,
    "primed": int,
    "conversation": str,
    "after_conversation": str,
}


# -- replies ---------------------------------------------------------------------------------


def _replica(record: dict[str, Any]) -> Replica:
    return Replica(
        state=record["state"],
        handle=record.get("handle"),
        generation=record["generation"],
        primed_through=record["primed"],
        age_seconds=float(record["age"]),
        dialect=record["dialect"],
        doubtful=record["doubtful"],
    )


def _turn(record: dict[str, Any] | None) -> TurnKey | None:
    if record is None:
        return None
    return TurnKey(int(record["conversation"]), record["seq"], record["epoch"], record["turn_id"])


def _remembered(record: dict[str, Any] | None) -> Remembered | None:
    return None if record is None else Remembered(**record)


def _items(heads: Any, joined: bytes, wired: str | None = "") -> list[StoredItem]:
    """Return the items in the heads and the one text of a reply; ``wired`` as reading has it."""
    found = []
    at = 0
    for position, created_at, provider_id, turn_id, size, wire_size, tokens in heads or ():
        head, _, form = joined[at : at + size].partition(b"\n")
        at += size
        wire = form if wired is not None and wired.encode() in form else b""
        if wire_size >= 0:
            wire = joined[at : at + wire_size]
            at += wire_size
        kind, role, call_id = json.loads(head)
        found.append(
            StoredItem(
                position=position,
                kind=kind,
                role=role,
                call_id=call_id,
                provider_id=provider_id,
                wire=wire.decode(),
                input=form.decode(),
                created_at=float(created_at),
                turn_id=turn_id,
                tokens=tokens,
            )
        )
    return found


def _recovery(text: bytes) -> Recovery:
    record = json.loads(text)
    record["conversation"] = int(record["conversation"])
    return Recovery(**{name: record.get(name) for name in _names(Recovery)})


def nothing(_op: Any, _record: Any, _texts: Texts) -> None:
    """Return what an operation without a result returns."""


def result(_op: Any, record: Any, _texts: Texts) -> Any:
    """Return the one value of a reply."""
    return record["result"]


def optional(_op: Any, record: Any, _texts: Texts) -> Any:
    """Return the one value of a reply that may have none."""
    return record.get("result") if record else None


def accepted(op: ops.Accept, record: Any, texts: Texts) -> ops.Accepted:
    """Return what accepting a turn found."""
    outcome = record["outcome"]
    if outcome == "unsettled":
        key = TurnKey(int(record["conversation"]), 0, 0, "")
        found = _replica(record["replica"])
        return ops.Accepted(outcome, turn=key, through=record["through"], replica=found)
    if outcome == "unread":
        return ops.Accepted(
            outcome,
            turn=TurnKey(int(record["conversation"]), 0, 0, ""),
            replica=_replica(record["replica"]),
            unread=record["unread"],
            unread_ended=record["ended"],
        )
    if outcome == "erased":
        return ops.Accepted(outcome, turn=op.waiting_for)
    turn = _turn(record.get("turn"))
    if outcome == "answered":
        content_type, body = texts
        answer = StoredAnswer(record["status"], body, content_type.decode())
        return ops.Accepted(outcome, turn=turn, stored=answer)
    if outcome != "deliver":
        return ops.Accepted(outcome, turn=turn)
    return ops.Accepted(
        outcome,
        turn=turn,
        through=record["through"],
        handle_state=record["handle_state"],
        handle_age_seconds=float(record["handle_age"]),
        replica=_replica(record["replica"]),
        adopting=record["adopting"],
        incomplete=record["incomplete"],
        accepted_items=record["accepted_items"],
        known_items=record["known_items"],
        again=record["again"],
        remembered=_remembered(record.get("remembered")),
        unread=record.get("unread"),
    )


def doubt(_op: Any, record: Any, texts: Texts) -> ops.Doubt:
    """Return turns whose outcome is unknown, each with its items."""
    turns = []
    for number, one in enumerate(record["turns"] or ()):
        request, joined = texts[2 * number : 2 * number + 2]
        key = _turn(one["turn"])
        assert key is not None
        items = tuple(_items(one["items"], joined))
        turns.append(ops.UnsettledTurn(key, one["kind"], request.decode(), items))
    return ops.Doubt(tuple(turns), record.get("after"), record.get("skip"))


def orphans(_op: Any, record: Any, _texts: Texts) -> tuple[ops.Orphan, ...]:
    """Return orphans, each with its number."""
    return tuple(ops.Orphan(int(key), *rest) for key, *rest in record["orphans"] or ())


def left_behind(_op: Any, record: Any, _texts: Texts) -> ops.LeftBehind:
    """Return how much is left behind."""
    return ops.LeftBehind(record["orphans"], record["creates"])


def throttled(_op: Any, record: Any, _texts: Texts) -> float:
    """Return for how long an upstream is to be left alone."""
    return float(record["seconds"])


_FOREIGN: Final = ops.Found(
    0, 0, "live", 0.0, Replica("absent", None, 0, 0, 0.0, "responses"), foreign=True
)


def brought_in(_op: Any, record: Any, _texts: Texts) -> ops.BroughtIn:
    """Return what bringing a portion in came to."""
    return ops.BroughtIn(
        record["outcome"], int(record["conversation"]), record["items"], record["taken"]
    )


def found(_op: Any, record: Any, texts: Texts) -> ops.Found | None:
    """Return what a handle points to."""
    if "conversation" not in record:
        return _FOREIGN if record["foreign"] else None
    request, content_type, body = texts
    status = record.get("status")
    return ops.Found(
        conversation=int(record["conversation"]),
        position=record["position"],
        state=record["state"],
        age_seconds=float(record["age"]),
        replica=_replica(record["replica"]),
        turn=_turn(record.get("turn")),
        ended=record["ended"],
        request=request.decode(),
        answer=None if status is None else StoredAnswer(status, body, content_type.decode()),
        replaced_by=record.get("replaced_by"),
        first_position=record["first_position"],
        last_position=record["last_position"],
        unread=record.get("unread"),
        unread_ended=record["unread_ended"],
        remembered=_remembered(record.get("remembered")),
    )


def span(op: ops.History, record: Any, texts: Texts) -> ops.Span:
    """Return a stretch of the log, oldest first."""
    newest_first = _items(record["items"], texts[0], op.wire)
    return ops.Span(
        items=tuple(reversed(newest_first)),
        older=record["older"],
        milestones=tuple(record["milestones"] or ()),
        complete=record["complete"],
        snapshot=_snapshot(record["covered"], texts[1]) if "covered" in record else None,
    )


def _snapshot(through: int, kept: bytes) -> Snapshot:
    head, _, said = kept.partition(b"\n")
    items, maker, at = json.loads(head)
    return Snapshot(through, items, said.decode(), maker, float(at))


def matches(op: ops.Search, _record: Any, _texts: Texts) -> ops.Matches:
    """Return that there is no index."""
    return ops.Matches(None, tuple(0 for _ in op.words), tuple(() for _ in op.words))


def excerpts(op: ops.Excerpts, record: Any, texts: Texts) -> tuple[StoredItem, ...]:
    """Return items in the order of the log."""
    found = _items(record["items"], texts[0], op.wire)
    return tuple(found if op.oldest else reversed(found))


def no_conversations(
    _op: ops.Unsummarised, _record: Any, _texts: Texts
) -> tuple[tuple[int, int], ...]:
    """Return none: conversations are not listed."""
    return ()


def listing(_op: Any, record: Any, texts: Texts) -> ops.Listing:
    """Return one page."""
    items = _shown(record, texts)
    return ops.Listing(items, record.get("more", False), record["cursor_found"])


def _shown(record: Any, texts: Texts) -> tuple[StoredItem, ...]:
    """Return items as a provider would show them: their finished form is not part of that."""
    items = _items(record["items"], texts[0] if texts else b"")
    return tuple(
        StoredItem(
            item.position, item.kind, item.role, item.call_id, item.provider_id, item.wire, "",
            item.created_at, item.turn_id, item.tokens,
        )
        for item in items
    )  # fmt: skip


def item(_op: Any, record: Any, texts: Texts) -> StoredItem | None:
    """Return one item."""
    return next(iter(_shown(record, texts)), None)


def runs(_op: Any, record: Any, texts: Texts) -> tuple[ops.SeenRun, ...]:
    """Return runs."""
    return tuple(
        ops.SeenRun(run_id, ended, body)
        for (run_id, ended), body in zip(record["runs"] or (), texts, strict=True)
    )


def subject(_op: Any, record: Any, _texts: Texts) -> ops.Subject | None:
    """Return a subject's conversation."""
    if not record:
        return None
    return ops.Subject(
        int(record["conversation"]), _replica(record["replica"]), record["last_position"]
    )


def entries(op: ops.ReadHistory, record: Any, texts: Texts) -> tuple[ops.Entry, ...]:
    """Return a page of what was said, oldest first."""
    if not record["items"]:
        return ()
    joined, *rebuilt = texts
    of_turn = {one.turn_id: one for one in _rebuilt(rebuilt) if one.turn_id is not None}
    found = []
    items = _items(record["items"], joined)
    for item, (seq, state) in zip(items, record["turns"], strict=True):
        found.append(
            ops.Entry(
                position=item.position,
                turn_id=item.turn_id,
                seq=seq,
                role=item.role or "",
                kind=item.kind,
                text=said_in(json.loads(item.wire)),
                at=item.created_at,
                state=state,
                recovery=of_turn.get(item.turn_id or ""),
                tokens=item.tokens,
            )
        )
    return tuple(reversed(found) if op.after is None else found)


def listed(_op: ops.Conversations, record: Any, _texts: Texts) -> tuple[ops.Listed, ...]:
    """Return a page of conversations."""
    found = []
    for row in record["listed"] or ():
        number, subject, upstream, dialect, handle, state, last, created_at = row
        created_at = float(created_at)
        found.append(
            ops.Listed(int(number), subject, upstream, dialect, handle, state, last, created_at)
        )
    return tuple(found)


def _rebuilt(texts: Texts) -> list[Recovery]:
    return sorted(map(_recovery, texts), key=lambda one: one.generation)


def recovery(_op: Any, _record: Any, texts: Texts) -> Recovery | None:
    """Return the record of one rebuild."""
    return _recovery(texts[0]) if texts else None


def turn(op: ops.ReadTurn, record: Any, texts: Texts) -> ops.TurnInfo | None:
    """Return the outcome of a turn, with its newest rebuild."""
    if not record:
        return None
    of_turn = [one for one in _rebuilt(texts) if one.turn_id == op.turn_id]
    return ops.TurnInfo(
        record["seq"], record["state"], record.get("response_id"), of_turn[-1] if of_turn else None
    )


def forgotten(op: ops.Forget, record: Any, texts: Texts) -> ops.Forgotten:
    """Return what was erased."""
    return ops.Forgotten(
        record["conversations"],
        record["items"],
        record["turns"],
        record["milestones"],
        orphans(op, record, texts),
        record["snapshots"],
    )
