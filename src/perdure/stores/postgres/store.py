"""The PostgreSQL store: each operation one statement, in one round trip."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from psycopg import AsyncCursor, Cursor
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from perdure.errors import ConfigurationError
from perdure.flow import Op
from perdure.stores.postgres import schema as schemas
from perdure.stores.postgres.connections import FAILURES, Connections, Tries
from perdure.stores.postgres.statements import STATEMENTS
from perdure.stores.postgres.values import parameters, restored

_SCHEMA_OPTION: Final = "schema"


class PostgresStore:
    """Conversations in PostgreSQL; safe for any number of processes on any number of machines.

    ``pool`` is the caller's own pool; otherwise small ones are opened from ``url`` on first use, a
    sync one in each process and an async one in each event loop. ``schema`` names the PostgreSQL
    schema (``?schema=`` in a URL does too). The schema is made by ``perdure schema apply``, never
    in passing: an operation on a database without it raises
    :class:`~perdure.errors.SchemaMissing` and its siblings.
    """

    #: An operation waits for the network: too long for an event loop's thread.
    fast = False

    def __init__(
        self,
        url: str | None = None,
        *,
        pool: ConnectionPool[Any] | AsyncConnectionPool[Any] | None = None,
        schema: str = schemas.DEFAULT,
    ) -> None:
        if (url is None) == (pool is None):
            raise ConfigurationError("A PostgresStore takes either a URL or a pool.")
        if url is not None:
            url, schema = split_url(url, schema)
        self._connections = Connections(
            url,
            pool if isinstance(pool, ConnectionPool) else None,
            pool if isinstance(pool, AsyncConnectionPool) else None,
            schema,
        )
        self._queries = {
            name: text.encode()
            for name, text in schemas.queries(schemas.checked_name(schema)).items()
        }

    def perform(self, op: Op[Any]) -> Any:
        """Carry out one store operation."""
        statement = STATEMENTS[type(op)]
        query, values = self._queries[statement.name], parameters(op)
        tries = Tries(self._connections.where, repeatable=statement.repeatable)
        while True:
            try:
                with self._connections.taken() as connection:
                    cursor = Cursor(connection, row_factory=_restoring)
                    cursor.execute(query, values, prepare=False, binary=True)
                    rows = cursor.fetchall() if cursor.description else []
            except FAILURES as error:
                self._connections.failed(error)
                time.sleep(tries.pause(error))
            else:
                return statement.result(op, rows)

    async def perform_async(self, op: Op[Any]) -> Any:
        """Carry out one store operation on an event loop."""
        if not self._connections.can_await:
            return await asyncio.to_thread(self.perform, op)
        statement = STATEMENTS[type(op)]
        query, values = self._queries[statement.name], parameters(op)
        tries = Tries(self._connections.where, repeatable=statement.repeatable)
        while True:
            try:
                async with self._connections.awaited() as connection:
                    cursor = AsyncCursor(connection, row_factory=_restoring)
                    await cursor.execute(query, values, prepare=False, binary=True)
                    rows = await cursor.fetchall() if cursor.description else []
            except FAILURES as error:
                self._connections.failed(error)
                await asyncio.sleep(tries.pause(error))
            else:
                return statement.result(op, rows)

    def close(self) -> None:
        """Close this process's own pool; the next operation opens another."""
        self._connections.close()

    async def aclose(self) -> None:
        """Close the pool of this event loop too."""
        await self._connections.aclose()


def _restoring(_cursor: Any) -> Any:
    """Return what makes rows (a psycopg row factory)."""
    return restored


def split_url(url: str, schema: str = schemas.DEFAULT) -> tuple[str, str]:
    """Take perdure's own option out of a URL; what is left is PostgreSQL's."""
    parts = urlsplit(url)
    options = parse_qsl(parts.query, keep_blank_values=True)
    own = [value for name, value in options if name == _SCHEMA_OPTION]
    rest = [(name, value) for name, value in options if name != _SCHEMA_OPTION]
    return (
        urlunsplit(parts._replace(query=urlencode(rest))) if own else url,
        own[-1] if own else schema,
    )
