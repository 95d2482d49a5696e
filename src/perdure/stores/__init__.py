"""Stores: the durable side, and the contract that every one of them keeps.

A store performs the store operations of :mod:`perdure.engine.ops`, each atomic and durable:

- An operation takes effect whole or not at all. What it returned has happened, also for a process
  that dies in the next instant; what raised :class:`~perdure.errors.StoreError` has not happened,
  unless its message says that this is not known (a server's connection broke in the middle).
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
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import parse_qs, unquote, urlsplit

from perdure.errors import ConfigurationError, UnknownStore
from perdure.flow import Op
from perdure.stores.sqlite.store import SQLiteStore

if TYPE_CHECKING:
    from perdure.stores.postgres.store import PostgresStore
    from perdure.stores.redis.store import RedisStore

__all__ = ["AsyncStore", "SQLiteStore", "Store", "open_store"]


class Store(Protocol):
    """What a transport needs of a store."""

    #: Whether operations are short enough to run on an event loop's thread.
    fast: bool

    def perform(self, op: Op[Any]) -> Any:
        """Carry out one store operation."""

    def close(self) -> None:
        """Give connections back; the store opens again when it is used again."""


@runtime_checkable
class AsyncStore(Protocol):
    """What a store has besides if it can be awaited, instead of keeping a thread waiting."""

    async def perform_async(self, op: Op[Any]) -> Any:
        """Carry out one store operation."""

    async def aclose(self) -> None:
        """Give back this event loop's connections, and those that :meth:`Store.close` does."""


def open_store(url: str, *, clock: Callable[[], float] | None = None) -> Store:
    """Return the store that a URL names; nothing is opened before its first use.

    ``sqlite:///relative.db``, ``sqlite:////absolute/path.db``, ``sqlite://`` (in memory); with
    ``?synchronous=normal`` a power cut may lose the newest commits, a killed process none.
    ``postgresql://user@host/database`` with PostgreSQL's own options (``postgres://`` too) needs
    the extra ``postgres`` and a database that ``perdure schema apply`` has been run on;
    ``?schema=`` names another schema than ``perdure``. ``redis://host:6379/0``, ``rediss://`` (TLS)
    and ``unix:///path/to/socket`` (``valkey://`` and ``valkeys://`` too) need the extra ``redis``;
    ``?prefix=`` names other keys than ``perdure``. Raises
    :class:`~perdure.errors.UnknownStore` and :class:`~perdure.errors.ConfigurationError`.
    """
    parts = urlsplit(url)
    if parts.scheme in {"postgresql", "postgres"}:
        return _postgres(url, clock)
    if parts.scheme in {"redis", "rediss", "unix", "valkey", "valkeys"}:
        return _redis(url, clock)
    if parts.scheme != "sqlite" or parts.netloc:
        raise UnknownStore(url)
    options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    synchronous = options.pop("synchronous", "full").upper()
    if options or synchronous not in {"FULL", "NORMAL"}:
        raise UnknownStore(url)
    path = unquote(parts.path).removeprefix("/")
    return SQLiteStore(Path(path) if path else None, synchronous=synchronous, clock=clock)


def _postgres(url: str, clock: Callable[[], float] | None) -> PostgresStore:
    if clock is not None:
        raise ConfigurationError(
            "A PostgreSQL store reads the database's clock. A test that turns it replaces the "
            "function perdure.perdure_now() in its database."
        )
    try:
        # An extra, and slow to import: only for those who use it.
        from perdure.stores.postgres.store import PostgresStore  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] == "perdure":
            raise
        raise ConfigurationError(
            f"A PostgreSQL store needs {missing.name}, which is not installed. "
            "Run: pip install 'perdure[postgres]'"
        ) from None
    return PostgresStore(url)


def _redis(url: str, clock: Callable[[], float] | None) -> RedisStore:
    try:
        from perdure.stores.redis.store import RedisStore  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] == "perdure":
            raise
        raise ConfigurationError(
            f"A Redis or Valkey store needs {missing.name}, which is not installed. "
            "Run: pip install 'perdure[redis]'"
        ) from None
    return RedisStore(url, clock=clock)
