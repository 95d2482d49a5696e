"""Which statement carries out which operation: one, in one round trip.

``repeatable``: done twice it leaves what it leaves when done once, so it may be sent again over a
new connection when the old one broke and nobody knows whether it took effect. The others take
something (a turn, an epoch, an id), and a second one would meet what the first one took.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from perdure.engine import ops
from perdure.flow import Op
from perdure.stores.postgres import values


@dataclass(frozen=True, slots=True)
class Statement:
    """A named statement, how its rows are read, and whether it may be sent twice."""

    name: str
    result: Callable[[Any, list[values.Row]], Any]
    repeatable: bool = False


STATEMENTS: Final[dict[type[Op[Any]], Statement]] = {
    ops.Accept: Statement("accept", values.accepted),
    ops.Complete: Statement("complete", values.single),
    ops.Underway: Statement("underway", values.single),
    ops.Fail: Statement("fail", values.single),
    ops.Renew: Statement("renew", values.nothing, repeatable=True),
    ops.Unsettled: Statement("unsettled", values.doubt, repeatable=True),
    ops.Settle: Statement("settle", values.nothing, repeatable=True),
    ops.Intend: Statement("intend", values.nothing, repeatable=True),
    ops.CallOff: Statement("call_off", values.nothing, repeatable=True),
    ops.Bind: Statement("bind", values.single),
    ops.BindNew: Statement("bind_new", values.single),
    ops.Refresh: Statement("refresh", values.nothing, repeatable=True),
    ops.MarkLost: Statement("mark_lost", values.nothing, repeatable=True),
    ops.Discard: Statement("discard", values.nothing),
    ops.Retire: Statement("retire", values.nothing, repeatable=True),
    ops.Tombstone: Statement("tombstone", values.single),
    ops.Orphans: Statement("orphans", values.orphans, repeatable=True),
    ops.OrphanGone: Statement("orphan_gone", values.nothing, repeatable=True),
    ops.Leftovers: Statement("leftovers", values.left_behind, repeatable=True),
    ops.Throttle: Statement("throttle", values.nothing, repeatable=True),
    ops.Throttled: Statement("throttled", values.throttled, repeatable=True),
    ops.Unused: Statement("unused", values.single),
    ops.Find: Statement("find", values.found, repeatable=True),
    ops.History: Statement("history", values.span, repeatable=True),
    ops.Page: Statement("page", values.listing, repeatable=True),
    ops.OneItem: Statement("one_item", values.item, repeatable=True),
    ops.Runs: Statement("runs", values.runs, repeatable=True),
    ops.Learn: Statement("learn", values.single),
    ops.BringIn: Statement("bring_in", values.brought_in, repeatable=True),
    ops.Adopted: Statement("adopted", values.nothing),
    ops.Adopting: Statement("adopting", values.single),
    ops.FindSubject: Statement("find_subject", values.subject, repeatable=True),
    ops.Pin: Statement("pin", values.single),
    ops.ReadHistory: Statement("read_history", values.entries, repeatable=True),
    ops.ReadRecovery: Statement("read_recovery", values.recovery, repeatable=True),
    ops.ReadTurn: Statement("read_turn", values.turn, repeatable=True),
    ops.Conversations: Statement("conversations", values.listed, repeatable=True),
    ops.Forget: Statement("forget", values.forgotten),
    ops.Index: Statement("index", values.single, repeatable=True),
    ops.Search: Statement("search", values.matches, repeatable=True),
    ops.Excerpts: Statement("excerpts", values.excerpts, repeatable=True),
    ops.KeepSnapshot: Statement("keep_snapshot", values.nothing, repeatable=True),
    ops.DropSnapshots: Statement("drop_snapshots", values.single),
    ops.Unsummarised: Statement("unsummarised", values.stretches, repeatable=True),
}
