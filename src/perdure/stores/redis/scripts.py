"""Which script carries out which operation: one, in one round trip.

``repeatable``: done twice it leaves what it leaves when done once, so it may be sent again over a
new connection when the old one broke and nobody knows whether it took effect.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from perdure.engine import ops
from perdure.flow import Op
from perdure.stores.redis import values


@dataclass(frozen=True, slots=True)
class Operation:
    """The name of a script, how its reply is read, whether it may be repeated, if it writes."""

    name: str
    result: Callable[[Any, Any, values.Texts], Any]
    repeatable: bool = False
    writes: bool = True


@dataclass(frozen=True, slots=True)
class Script:
    """A script as it is sent, and the name under which the server keeps it."""

    text: str
    sha: str


def _reads(name: str, result: Callable[[Any, Any, values.Texts], Any]) -> Operation:
    return Operation(name, result, repeatable=True, writes=False)


OPERATIONS: Final[dict[type[Op[Any]], Operation]] = {
    ops.Accept: Operation("accept", values.accepted),
    ops.Complete: Operation("complete", values.result),
    ops.Underway: Operation("underway", values.result),
    ops.Fail: Operation("fail", values.result),
    ops.Renew: Operation("renew", values.nothing, repeatable=True),
    ops.Unsettled: _reads("unsettled", values.doubt),
    ops.Settle: Operation("settle", values.nothing, repeatable=True),
    ops.Intend: Operation("intend", values.nothing, repeatable=True),
    ops.CallOff: Operation("call_off", values.nothing, repeatable=True),
    ops.Bind: Operation("bind", values.result),
    ops.BindNew: Operation("bind_new", values.result),
    ops.Refresh: Operation("refresh", values.nothing, repeatable=True),
    ops.MarkLost: Operation("mark_lost", values.nothing, repeatable=True),
    ops.Discard: Operation("discard", values.nothing),
    ops.Retire: Operation("retire", values.nothing, repeatable=True),
    ops.Tombstone: Operation("tombstone", values.result),
    ops.Orphans: _reads("orphans", values.orphans),
    ops.OrphanGone: Operation("orphan_gone", values.nothing, repeatable=True),
    ops.Leftovers: _reads("leftovers", values.left_behind),
    ops.Throttle: Operation("throttle", values.nothing, repeatable=True),
    ops.Throttled: _reads("throttled", values.throttled),
    ops.Unused: Operation("unused", values.result),
    ops.Find: _reads("find", values.found),
    ops.History: _reads("history", values.span),
    ops.Page: _reads("page", values.listing),
    ops.OneItem: _reads("one_item", values.item),
    ops.Runs: _reads("runs", values.runs),
    ops.Learn: Operation("learn", values.result),
    ops.BringIn: Operation("bring_in", values.brought_in, repeatable=True),
    ops.Adopted: Operation("adopted", values.nothing),
    ops.Adopting: Operation("adopting", values.optional),
    ops.FindSubject: _reads("find_subject", values.subject),
    ops.Pin: Operation("pin", values.result),
    ops.ReadHistory: _reads("read_history", values.entries),
    ops.ReadRecovery: _reads("read_recovery", values.recovery),
    ops.ReadTurn: _reads("read_turn", values.turn),
    ops.Conversations: _reads("conversations", values.listed),
    ops.Forget: Operation("forget", values.forgotten),
    ops.Index: _reads("index", values.result),
    ops.Search: _reads("search", values.matches),
    ops.Excerpts: _reads("excerpts", values.excerpts),
    ops.KeepSnapshot: Operation("keep_snapshot", values.nothing, repeatable=True),
    ops.DropSnapshots: Operation("drop_snapshots", values.result),
    ops.Unsummarised: _reads("unsummarised", values.no_conversations),
}


@cache
def script(name: str, clock: str) -> Script:
    """Return an operation's script, with what it is made of in front."""
    folder = files("perdure.stores.redis").joinpath("scripts")
    text = "\n".join(
        folder.joinpath(f"{part}.lua").read_text(encoding="utf-8")
        for part in (clock, "prelude", name)
    )
    # SHA-1 is how EVALSHA names a script.
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
