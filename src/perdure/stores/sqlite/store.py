"""The SQLite store: which function carries out which operation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from perdure.engine import ops
from perdure.flow import Op
from perdure.stores.sqlite import endings, people, reading, replicas, turns
from perdure.stores.sqlite.connection import Database, Transaction

_WRITES: Final[dict[type[Op[Any]], Callable[[Transaction, Any], Any]]] = {
    ops.Accept: turns.accept,
    ops.Complete: endings.complete,
    ops.Underway: endings.underway,
    ops.Fail: endings.fail,
    ops.Renew: endings.renew,
    ops.Settle: endings.settle,
    ops.Intend: replicas.intend,
    ops.CallOff: replicas.call_off,
    ops.Bind: replicas.bind,
    ops.BindNew: replicas.bind_new,
    ops.Discard: replicas.discard,
    ops.Refresh: replicas.refresh,
    ops.MarkLost: replicas.mark_lost,
    ops.Retire: replicas.retire,
    ops.Tombstone: replicas.tombstone,
    ops.OrphanGone: replicas.orphan_gone,
    ops.Learn: reading.learn,
    ops.Adopted: reading.adopted,
    ops.Adopting: reading.adopting,
    ops.Pin: people.pin,
    ops.Forget: people.forget,
    ops.Throttle: replicas.throttle,
    ops.Unused: people.unused,
}
_READS: Final[dict[type[Op[Any]], Callable[[Transaction, Any], Any]]] = {
    ops.Find: reading.find,
    ops.History: reading.history,
    ops.Page: reading.page,
    ops.OneItem: reading.one_item,
    ops.Orphans: replicas.orphans,
    ops.Leftovers: replicas.leftovers,
    ops.Throttled: replicas.throttled,
    ops.Unsettled: endings.unsettled,
    ops.FindSubject: people.find_subject,
    ops.ReadHistory: people.read_history,
    ops.ReadRecovery: people.read_recovery,
    ops.ReadTurn: people.read_turn,
}


class SQLiteStore:
    """Conversations in one SQLite file; safe for the threads and processes of one machine."""

    def __init__(
        self,
        path: Path | None,
        *,
        synchronous: str = "FULL",
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._database = Database(path, synchronous, clock)
        # With FULL each commit waits for the disk: too long for an event loop's thread.
        self.fast = path is None or synchronous == "NORMAL"

    def perform(self, op: Op[Any]) -> Any:
        """Carry out one store operation."""
        write = _WRITES.get(type(op))
        if write is not None:
            return self._database.write(write, op)
        return self._database.read(_READS[type(op)], op)

    def close(self) -> None:
        """Close the connection; the next operation opens another."""
        self._database.close()
