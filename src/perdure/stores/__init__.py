"""Stores: the durable side, and the contract that every one of them keeps.

A store performs the store operations of :mod:`perdure.engine.ops`, each atomic and durable:

- An operation takes effect whole or not at all. What it returned has happened, also for a process
  that dies in the next instant; what raised :class:`~perdure.errors.StoreError` has not happened.
- No transaction, lock or connection is held between two operations. A worker that stops leaves
  nothing that another one must wait for longer than a lease.
- Safety comes from compare-and-swap: a turn is ended only under its newest epoch, a replica is
  replaced only from the generation that was read. Leases only save money.
- Time is the store's own, read through ``perdure_now()``; workers' clocks are never compared.
- Everything is confined to the operation's tenant. The one exception is the question whether a
  handle that this tenant does not have belongs to another, which is answered yes or no.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from perdure.errors import UnknownStore
from perdure.flow import Op
from perdure.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore", "Store", "open_store"]


class Store(Protocol):
    """What a transport needs of a store."""

    #: Whether operations are short enough to run on an event loop's thread.
    fast: bool

    def perform(self, op: Op[Any]) -> Any:
        """Carry out one store operation."""

    def close(self) -> None:
        """Give connections back; the store opens again when it is used again."""


def open_store(url: str, *, clock: Callable[[], float] | None = None) -> Store:
    """Return the store that a URL names; nothing is opened before its first use.

    ``sqlite:///relative.db``, ``sqlite:////absolute/path.db``, ``sqlite://`` (in memory); with
    ``?synchronous=normal`` a power cut may lose the newest commits, a killed process none. Raises
    :class:`~perdure.errors.UnknownStore`.
    """
    parts = urlsplit(url)
    if parts.scheme != "sqlite" or parts.netloc:
        raise UnknownStore(url)
    options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    synchronous = options.pop("synchronous", "full").upper()
    if options or synchronous not in {"FULL", "NORMAL"}:
        raise UnknownStore(url)
    path = unquote(parts.path).removeprefix("/")
    return SQLiteStore(Path(path) if path else None, synchronous=synchronous, clock=clock)
