"""The SQLite store: which function carries out which operation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from perdure.engine import ops
from perdure.flow import Op
from perdure.stores.sqlite import (
    endings,
    people,
    reading,
    replicas,
    search,
    snapshots,
    transfer,
    turns,
)
from perdure.stores.sqlite.connection import Database
from perdure.stores.sqlite.indexing import Indexer
from perdure.stores.sqlite.statements import Transaction

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
    ops.BringIn: transfer.bring_in,
    ops.Adopted: reading.adopted,
    ops.Adopting: reading.adopting,
    ops.Pin: people.pin,
    ops.Forget: people.forget,
    ops.Throttle: replicas.throttle,
    ops.Unused: people.unused,
    ops.Index: search.index,
    ops.KeepSnapshot: snapshots.keep_snapshot,
    ops.DropSnapshots: snapshots.drop_snapshots,
}
_READS: Final[dict[type[Op[Any]], Callable[[Transaction, Any], Any]]] = {
    ops.Find: reading.find,
    ops.History: reading.history,
    ops.Page: reading.page,
    ops.OneItem: reading.one_item,
    ops.Runs: reading.runs,
    ops.Orphans: replicas.orphans,
    ops.Leftovers: replicas.leftovers,
    ops.Throttled: replicas.throttled,
    ops.Unsettled: endings.unsettled,
    ops.FindSubject: people.find_subject,
    ops.ReadHistory: people.read_history,
    ops.ReadRecovery: people.read_recovery,
    ops.ReadTurn: people.read_turn,
    ops.Conversations: people.conversations,
    ops.Search: search.search,
    ops.Excerpts: search.excerpts,
    ops.Unsummarised: snapshots.unsummarised,
}
_ENDING_SECONDS: Final = 30.0


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
        # What lives in memory is small, and a simulation has no thread beside it.
        self._indexer = Indexer(self.perform) if path is not None else None

    def perform(self, op: Op[Any]) -> Any:
        """Carry out one store operation."""
        write = _WRITES.get(type(op))
        if write is None:
            return self._database.read(_READS[type(op)], op)
        result = self._database.write(write, op)
        if self._indexer is not None:
            self._note(self._indexer, op, result)
        if isinstance(op, ops.Forget):
            self._database.scrub()
        return result

    async def perform_async(self, op: Op[Any]) -> Any:
        """Carry out one store operation beside an event loop."""
        write = _WRITES.get(type(op))
        if write is None:
            return await self._database.beside(self._database.read, _READS[type(op)], op)
        result = await self._database.write_later(write, op)
        if self._indexer is not None:
            self._note(self._indexer, op, result)
        if isinstance(op, ops.Forget):
            await self._database.beside(self._database.scrub)
        return result

    @staticmethod
    def _note(indexer: Indexer, op: Op[Any], result: Any) -> None:
        """Tell the indexer what an operation has written."""
        match op:
            case ops.Complete():
                indexer.note(op.tenant, op.turn.conversation, len(op.items) + 1)
            case ops.Learn() | ops.Adopted():
                indexer.note(op.tenant, op.conversation, len(op.items))
            case ops.BringIn():
                indexer.note(op.tenant, result.conversation, len(op.items))

    def close(self) -> None:
        """Close the connection; the next operation opens another."""
        if self._indexer is not None:
            self._indexer.close(_ENDING_SECONDS)
        self._database.close()

    async def aclose(self) -> None:
        """Close the connection beside an event loop."""
        await asyncio.to_thread(self.close)
