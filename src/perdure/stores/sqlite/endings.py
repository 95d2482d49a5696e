"""The end of a turn in SQLite: its one answer, work that goes on elsewhere, or a failure."""

from __future__ import annotations

import json
from itertools import zip_longest
from typing import Any

from perdure.engine.ops import (
    Complete,
    Completed,
    Discard,
    Doubt,
    Fail,
    Renew,
    Settle,
    Underway,
    Unsettled,
    UnsettledTurn,
)
from perdure.model import Dialect, NewItem, TurnKey
from perdure.stores.sqlite.replicas import discard, mark
from perdure.stores.sqlite.rows import (
    TurnRow,
    belongs,
    history_values,
    recovery_values,
    stored_item,
)
from perdure.stores.sqlite.statements import Transaction, Undo
from perdure.stores.sqlite.turns import append_items, at_the_end


def complete(tx: Transaction, op: Complete) -> Completed:
    """Store a turn's answer and its items, and what it did to the replica, in one commit."""
    key = op.turn
    at = {"tenant": op.tenant, "conversation": key.conversation}
    answer = tx.add("insert_answer", status=op.status, content_type=op.content_type, body=op.body)
    own = tx.one(
        "complete_turn",
        **at,
        seq=key.seq,
        epoch=key.epoch,
        answer=answer,
        handle_kind=op.handle_kind,
        response_id=op.response_id,
        model=op.model,
        input_tokens=op.input_tokens,
    )
    if own is None:
        raise Undo("fenced")
    if (key.epoch > 1 or op.settles) and op.handle_kind != "run":
        tx.run("withdraw_shown", **at, seq=key.seq, message_id=None)
    if op.dialect == "threads" and op.primed is not None:
        _on_thread(tx, op, op.primed)
    lacking = _lacking(tx, op)
    overtaken = lacking if op.head is not None else None
    last, generation, rebuilt_with = tx.one(
        "complete_conversation",
        **at,
        seq=key.seq,
        added=len(op.items),
        head=op.head if overtaken is None else None,
        dialect=op.dialect if overtaken is None else overtaken[0],
        upstream=op.upstream,
        response_id=op.response_id,
        rebuilt=op.recovery is not None and op.head is not None,
        primed=op.primed if op.dialect != "threads" else None,
        measured_on=op.primed,
        unread=op.unread,
        **history_values(op.remembered),
    )
    if op.items:
        first = last - len(op.items) + 1
        append_items(tx, key.conversation, first, key.seq, op.items)
    if op.head is not None and not op.settles and last - len(op.items) > own[0]:
        lacking = tx.one("overtakes", **at, seq=key.seq, own_last=own[0])
    if op.own:
        _learn_own_ids(tx, op)
    if op.response_id is not None:
        goes_on_from = rebuilt_with if overtaken is None else overtaken[2]
        _enter_handle(tx, op, op.response_id, last, goes_on_from)
    _note_rebuild(tx, op, generation)
    _give_up(tx, op, lacking)
    return "done"


def _lacking(tx: Transaction, op: Complete) -> Any:
    """Return the replica that lacks an answer: what is ended, or what was answered meanwhile."""
    at = {"tenant": op.tenant, "conversation": op.turn.conversation, "seq": op.turn.seq}
    if op.dialect == "conversations" and op.primed:
        return tx.one("lacks_another", **at, primed=op.primed)
    if op.settles and op.head is not None:
        return tx.one("overtaken", **at, upstream=op.upstream, head=op.head)
    return None


def _give_up(tx: Transaction, op: Complete, lacking: Any) -> None:
    """Let nobody go on from what lacks an answer, or was answered from without the history."""
    if lacking is not None and lacking[0] == "responses":
        at = {"tenant": op.tenant, "conversation": op.turn.conversation}
        tx.run("lose_head", **at)  # others may go on from the response itself
    elif lacking is not None:
        _leave(tx, op, lacking[0], lacking[1])
    if op.forgot is not None:
        _leave(tx, op, op.dialect, op.forgot)
        if op.head is not None:
            mark(tx, op.tenant, op.upstream, op.head, "lost")


def _leave(tx: Transaction, op: Complete, dialect: Dialect, handle: str) -> None:
    """Leave a replica; a shared one is to be deleted, a response is a link of other lines."""
    if dialect == "responses":
        mark(tx, op.tenant, op.upstream, handle, "lost")
    else:
        at = (op.tenant, op.upstream, dialect, op.turn.conversation)
        discard(tx, Discard(*at, handle, replica=True))


def _note_rebuild(tx: Transaction, op: Complete | Underway, generation: int) -> None:
    """Record what a turn has rebuilt, and what became of the replica that was lost."""
    at = {"tenant": op.tenant, "conversation": op.turn.conversation}
    if op.recovery is not None:
        tx.run("insert_recovery", **at, generation=generation, **recovery_values(op.recovery))
    if op.lost is not None:
        tx.run("mark_handle", tenant=op.tenant, upstream=op.upstream, handle=op.lost, state="lost")


def _on_thread(tx: Transaction, op: Complete, generation: int) -> None:
    """See to what a turn's end means on a thread whose place another may have taken."""
    at = {"tenant": op.tenant, "conversation": op.turn.conversation}
    if op.handle_kind == "run":
        if tx.one("find_conversation", **at)[2] != generation:
            raise Undo("replaced")
    elif op.response_id is None:
        _stands_on_thread(tx, op.tenant, op.turn, generation)


def _enter_handle(
    tx: Transaction, op: Complete, response_id: str, position: int, rebuilt_with: int | None
) -> None:
    """Bind the id of an answer, unless it is that of another."""
    entered = tx.run(
        "insert_handle",
        tenant=op.tenant,
        conversation=op.turn.conversation,
        upstream=op.upstream,
        handle=response_id,
        kind=op.handle_kind,
        position=position,
        turn_seq=op.turn.seq,
        body=None,
    )
    if not entered and not _is_ours(tx, op, response_id):
        raise Undo("taken")
    if op.handle_kind == "response" and (not entered or rebuilt_with is not None):
        names = {"tenant": op.tenant, "upstream": op.upstream, "handle": response_id}
        tx.run("place_response", **names, position=position, rebuilt_with=rebuilt_with)


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
    row = tx.one("known_turn", **at, seq=key.seq)
    before = None if row is None else TurnRow(*row)
    known_as = None if before is None else before.response_id
    row = tx.one(
        "underway_turn",
        **at,
        seq=key.seq,
        epoch=key.epoch,
        response_id=op.response_id,
        outputs_of=op.outputs_of,
        refused=op.refused,
        unasked=op.unasked,
    )
    if row is None or before is None:
        return False
    if known_as is None and op.generation is not None:
        _stands_on_thread(tx, op.tenant, key, op.generation)
    known = {one for one in op.partial_of if tx.one("item_position", **at, provider_id=one)}
    shown = zip_longest(op.partial, op.partial_of[: len(op.partial)])
    _keep_shown(tx, op.tenant, key, [one for one in shown if one[1] not in known])
    is_run = op.response_id.startswith("run_")
    runs = {
        "begins": is_run and known_as != op.response_id,
        "goes_on": is_run and op.outputs_of is not None,
        "read_before": op.refused is not None and not row[1],  # it says no more
    }
    position = tx.one("settle", **at, seq=key.seq, generation=op.generation, **runs)[0]
    names = {"upstream": op.upstream, "handle": op.response_id, "body": op.body}
    entered = tx.run(
        "insert_handle",
        **at,
        **names,
        kind="run" if is_run else "response",
        position=position,
        turn_seq=key.seq,
    )
    if entered and not is_run:
        _in_the_background(tx, op, before.dialect, position)
    if not entered and (op.waits_for is None or op.waits_for != row[0]):
        tx.run("show_handle", **at, **names, turn_seq=key.seq)
    if known_as is not None and known_as != op.response_id:
        tx.run(
            "replace_handle",
            tenant=op.tenant,
            upstream=op.upstream,
            handle=known_as,
            new=op.response_id,
        )
    return True


def _in_the_background(tx: Transaction, op: Underway, dialect: str, position: int) -> None:
    """Note what a response that is being made goes on from, or was given as a rebuild."""
    at = {"tenant": op.tenant, "conversation": op.turn.conversation}
    on = {"upstream": op.upstream, "rebuilt": op.recovery is not None}
    rebuilt_with = tx.one("goes_on_from", **at, **on, seq=op.turn.seq)[0]
    names = {"tenant": op.tenant, "upstream": op.upstream, "handle": op.response_id}
    tx.run("place_response", **names, position=position, rebuilt_with=rebuilt_with)
    tx.run("comes_first", **at, seq=op.turn.seq, dialect=dialect)
    if op.recovery is not None:
        generation = tx.one("rebuild_underway", **at, dialect=dialect)[0]
        _note_rebuild(tx, op, generation)


def fail(tx: Transaction, op: Fail) -> bool:
    """End a turn without an answer; keep what was shown of one."""
    key = op.turn
    at = {"tenant": op.tenant, "conversation": key.conversation}
    row = tx.one("fail_turn", **at, seq=key.seq, epoch=key.epoch, state=op.state, reason=op.reason)
    if row is None:
        return False
    first, dialect, shown_of = row
    if op.withdrawn and shown_of is None and not _is_given(tx, at, dialect, first):
        tx.run("withdraw_items", **at, seq=key.seq, first_position=first)
    _keep_shown(tx, op.tenant, key, [(item, None) for item in op.partial])
    if op.state == "unknown" and dialect != "responses":
        tx.run("doubt_replica", **at)
    return True


def _keep_shown(
    tx: Transaction, tenant: str, key: TurnKey, partial: list[tuple[NewItem, str | None]]
) -> None:
    """Put what was shown of messages before they were cut at the end of the log, by their ids.

    What was shown of the same ones before makes room; without ids, all that was.
    """
    if not partial:
        return
    at = {"tenant": tenant, "conversation": key.conversation}
    conversation = tx.one("find_conversation", **at)
    begin = conversation[10] + 1
    earlier = tx.one("shown_of", **at, seq=key.seq)[0]
    for _, message_id in partial:
        tx.run("withdraw_shown", **at, seq=key.seq, message_id=message_id)
    items = tuple(item for item, _ in partial)
    last = append_items(tx, key.conversation, begin, key.seq, items)
    parts = [[begin + number, message_id] for number, (_, message_id) in enumerate(partial)]
    shown_of = json.dumps([*json.loads(earlier or "[]"), *parts])
    tx.run("shown", **at, seq=key.seq, shown_of=shown_of)
    tx.run("advance", **at, last_position=last, last_seq=conversation[11], open_from=None)


def _stands_on_thread(tx: Transaction, tenant: str, key: TurnKey, generation: int) -> None:
    """Note that a turn's own items stand at the end of the thread of a generation.

    A thread that was created with them has them where they are.
    """
    at = {"tenant": tenant, "conversation": key.conversation}
    turn = TurnRow(*tx.one("known_turn", **at, seq=key.seq))
    given = _is_given(tx, at, "threads", turn.first_position)
    if turn.last_position >= turn.first_position and not given:
        turn = at_the_end(tx, tenant, turn, heard=False)
        end = turn.last_position
        tx.run("doubt_thread_without", **at, generation=generation, position=end)


def _is_given(tx: Transaction, at: dict[str, Any], dialect: str, first: int) -> bool:
    """Whether a thread that was created meanwhile has a turn's items."""
    if dialect != "threads":
        return False
    row = tx.one("find_conversation", **at)
    return bool(row[2] > 0 and row[5] >= first)


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
