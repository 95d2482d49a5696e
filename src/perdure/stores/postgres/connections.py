"""Connections: pools of our own or the caller's, each operation on one for as long as it takes.

A connection is taken for one statement and given back, so none is held while a provider works. It
is put into autocommit for that time, so that the statement is a transaction of its own and its only
round trip; nothing is prepared, set or locked beyond the statement, so it does not matter whether
a pooler hands every statement to another server process.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

import psycopg
from psycopg import AsyncConnection, AsyncCursor, BaseConnection, Connection, Cursor
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolClosed, PoolTimeout

from perdure.errors import ConfigurationError, StoreError, StoreUnavailable
from perdure.stores.postgres import schema as schemas
from perdure.stores.postgres.values import Row

FAILURES: Final = (psycopg.Error, PoolTimeout, PoolClosed, UnicodeEncodeError)

_LARGEST: Final = 10
_CONNECT_SECONDS: Final = 10
_POOL: Final[dict[str, Any]] = {
    "min_size": 1,
    "max_size": _LARGEST,
    "timeout": _CONNECT_SECONDS,
    "name": "perdure",
}
CONNECTION: Final[dict[str, Any]] = {
    "autocommit": True,
    "prepare_threshold": None,
    "connect_timeout": _CONNECT_SECONDS,
    "fallback_application_name": "perdure",
}
# A transaction that lost a race: nothing of it has happened. 23505: two workers entered the same
# handle, subject or turn at once; the second one finds it when it looks again.
_LOST_A_RACE: Final = {"40001", "40P01", "23505"}
_RACES: Final = 12
_BROKEN: Final = 3
_STALE: Final = 64
# What the server says when it ends a connection, or has just taken one that it cannot serve.
_ENDED: Final = {"57P01", "57P02", "57P03"}
_SCHEMA_CHANGED: Final = {"42883", "42P01", "3F000", "42703"}


class Stale(psycopg.OperationalError):
    """A connection that had been closed at its other end before anything was sent."""


class Unreachable(psycopg.OperationalError):
    """No connection could be made, so nothing was sent."""


class Tries:
    """Whether an operation that failed is tried again, and when."""

    def __init__(self, where: str, *, repeatable: bool) -> None:
        self._where = where
        self._repeatable = repeatable
        self._races = 0
        self._broken = 0
        self._stale = 0

    def pause(self, error: Exception) -> float:
        """Return how many seconds to wait before the next try; raises where there is none."""
        state = getattr(error, "sqlstate", None)
        if isinstance(error, Stale) and self._stale < _STALE:
            self._stale += 1
            return 0.0
        if state in _LOST_A_RACE and self._races < _RACES:
            self._races += 1
            return random.uniform(0, 0.001 * 2 ** min(self._races, 7))  # noqa: S311  # spreads tries
        if is_broken(error) and self._repeatable and self._broken < _BROKEN:
            self._broken += 1
            return 0.1 * self._broken
        raise refusal(error, self._where) from error


def is_broken(error: Exception) -> bool:
    """Whether a connection broke, so that nobody knows what became of the statement."""
    if not isinstance(error, psycopg.OperationalError) or isinstance(
        error, Stale | Unreachable | PoolTimeout | PoolClosed
    ):
        return False
    state = error.sqlstate
    return state is None or state in _ENDED or state.startswith("08")


def refusal(error: Exception, where: str) -> StoreError:
    """Return a driver's error as one of ours."""
    said = (" ".join(str(error).split()) or type(error).__name__).rstrip(".?!")
    if isinstance(error, UnicodeEncodeError):
        return StoreError(
            f"{where} cannot store this: it is not Unicode text (half of a surrogate pair)."
        )
    if is_broken(error):
        return StoreUnavailable(
            f"{where} broke the connection: {said}. What was asked may have been stored or not; "
            "asking again is safe."
        )
    if isinstance(error, Unreachable):
        return StoreUnavailable(f"{where} cannot be reached: {said}.")
    read_only = isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
    if read_only or isinstance(error, psycopg.OperationalError):
        return StoreUnavailable(f"{where} cannot be used: {said}.")
    return StoreError(f"{where} refused: {said}.")


class _OfLoop:
    """The pool of one event loop."""

    def __init__(self) -> None:
        self.opening = asyncio.Lock()
        self.pool: AsyncConnectionPool[Any] | None = None


class Connections:
    """Where a store's connections come from: pools of its own opened on first use, or the caller's.

    Each process has its own pool, and each event loop: neither can cross to another.
    """

    def __init__(
        self,
        url: str | None,
        pool: ConnectionPool[Any] | None,
        async_pool: AsyncConnectionPool[Any] | None,
        schema: str,
    ) -> None:
        self._url = url
        self._pool = pool
        self._async_pool = async_pool
        self._schema = schema
        self._lock = threading.Lock()
        self._own: dict[int, ConnectionPool[Any]] = {}
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = WeakKeyDictionary()
        self._checked: WeakSet[Any] = WeakSet()
        self.where = described(url if url is not None else (pool or async_pool).conninfo)  # type: ignore[union-attr]

    @property
    def can_await(self) -> bool:
        """Whether operations can be awaited without a thread."""
        return self._url is not None or self._async_pool is not None

    def failed(self, error: Exception) -> None:
        """Look at the schema again before the next operation, if it may have been changed."""
        if getattr(error, "sqlstate", None) in _SCHEMA_CHANGED:
            self._checked.clear()

    # -- sync --------------------------------------------------------------------------------

    @contextmanager
    def taken(self) -> Iterator[Connection[Any]]:
        """Take a connection for one statement."""
        pool = self._pool or self._own_pool()
        with pool.connection() as connection:
            if is_dead(connection):
                connection.close()
                raise Stale("the server had closed it")
            theirs = connection.autocommit
            if not theirs:
                connection.autocommit = True
            try:
                if pool not in self._checked:
                    state = looked_at(connection, self._schema, self.where)
                    schemas.check(state, self._schema, self.where)
                    self._checked.add(pool)
                yield connection
            finally:
                if not theirs and not connection.closed:
                    connection.autocommit = theirs

    def _own_pool(self) -> ConnectionPool[Any]:
        pid = os.getpid()
        if pid in self._own:
            return self._own[pid]
        if self._url is None:
            raise ConfigurationError(
                "This PostgresStore has an AsyncConnectionPool and is used in sync code. Give it "
                "a ConnectionPool or a URL."
            )
        with self._lock:
            if pid not in self._own:
                # A pool connects in the background, and keeps to itself why it could not.
                connected(self._url).close()
                pool = ConnectionPool(self._url, kwargs=CONNECTION, open=False, **_POOL)
                pool.open()
                self._own[pid] = pool
        return self._own[pid]

    def close(self) -> None:
        """Close this process's own connections; those of the caller's pool are the caller's."""
        with self._lock:
            pool = self._own.pop(os.getpid(), None)
        if pool is not None:
            pool.close()

    # -- async -------------------------------------------------------------------------------

    @asynccontextmanager
    async def awaited(self) -> AsyncIterator[AsyncConnection[Any]]:
        """:meth:`taken` on an event loop."""
        pool = self._async_pool or await self._own_async_pool()
        async with pool.connection() as connection:
            if is_dead(connection):
                await connection.close()
                raise Stale("the server had closed it")
            theirs = connection.autocommit
            if not theirs:
                await connection.set_autocommit(True)
            try:
                if pool not in self._checked:
                    state = await looked_at_async(connection, self._schema, self.where)
                    schemas.check(state, self._schema, self.where)
                    self._checked.add(pool)
                yield connection
            finally:
                if not theirs and not connection.closed:
                    await connection.set_autocommit(theirs)

    async def _own_async_pool(self) -> AsyncConnectionPool[Any]:
        mine = self._loops.setdefault(asyncio.get_running_loop(), _OfLoop())
        if mine.pool is not None:
            return mine.pool
        assert self._url is not None
        async with mine.opening:
            if mine.pool is None:
                await (await connected_async(self._url)).close()
                pool = AsyncConnectionPool(self._url, kwargs=CONNECTION, open=False, **_POOL)
                await pool.open()
                mine.pool = pool
        return mine.pool

    async def aclose(self) -> None:
        """Close the connections of this event loop, and those of this process."""
        mine = self._loops.pop(asyncio.get_running_loop(), None)
        if mine is not None and mine.pool is not None:
            await mine.pool.close()
        self.close()


def is_dead(connection: BaseConnection[Any]) -> bool:
    """Whether the other end has closed an idle connection; reads what has arrived, never waits.

    An idle server says next to nothing. What it says last is why it goes, and then comes the end.
    """
    try:
        if not _has_something(connection):
            return False
        connection.pgconn.consume_input()
        return connection.closed or _has_something(connection)
    except (psycopg.OperationalError, OSError, ValueError):
        return True


def _has_something(connection: BaseConnection[Any]) -> bool:
    """Whether reading from a connection would return at once."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([connection.fileno()], [], [], 0)[0])
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def connected(url: str) -> Connection[Any]:
    """Connect; raises :class:`Unreachable`."""
    try:
        return Connection.connect(url, **CONNECTION)
    except psycopg.OperationalError as error:
        raise Unreachable(str(error)) from error


async def connected_async(url: str) -> AsyncConnection[Any]:
    """:func:`connected` on an event loop."""
    try:
        return await AsyncConnection.connect(url, **CONNECTION)
    except psycopg.OperationalError as error:
        raise Unreachable(str(error)) from error


def looked_at(connection: Connection[Any], schema: str, where: str) -> schemas.State:
    """Return what the database that a connection leads to has of the schema."""
    looking = schemas.look(schema, where)
    cursor = Cursor(connection, row_factory=tuple_row)
    rows: list[Row] | None = None
    try:
        while True:
            query, values = next(looking) if rows is None else looking.send(rows)
            rows = cursor.execute(query.encode(), values, prepare=False).fetchall()
    except StopIteration as stop:
        state: schemas.State = stop.value
        return state


async def looked_at_async(
    connection: AsyncConnection[Any], schema: str, where: str
) -> schemas.State:
    """:func:`looked_at` on an event loop."""
    looking = schemas.look(schema, where)
    cursor = AsyncCursor(connection, row_factory=tuple_row)
    rows: list[Row] | None = None
    try:
        while True:
            query, values = next(looking) if rows is None else looking.send(rows)
            rows = await (await cursor.execute(query.encode(), values, prepare=False)).fetchall()
    except StopIteration as stop:
        state: schemas.State = stop.value
        return state


def described(conninfo: Any) -> str:
    """Return how messages name a database: never with a password."""
    if not isinstance(conninfo, str):  # a pool may make it up for each connection
        return "The PostgreSQL database"
    parts = conninfo_to_dict(conninfo)
    place = ":".join(str(parts[name]) for name in ("host", "port") if parts.get(name))
    return f"The PostgreSQL database {parts.get('dbname', '')!r}{place and ' at '}{place}"
