"""Where histories take place: a store, the clock that it reads, its journal read from outside."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perdure.errors import ConfigurationError
from perdure.flow import Op
from perdure.stores import SQLiteStore, Store, open_store
from perdure.testing.simulator.clock import Clock
from perdure.testing.simulator.journal import Journal
from perdure.testing.simulator.journal_of_postgres import read_postgres
from perdure.testing.simulator.journal_of_sqlite import read_sqlite

_REAL_TIME = """\
The clock of this database is the real one, and a history turns it. Make a database for the purpose,
run `perdure schema apply` on it, and then, as its owner:
    CREATE TABLE perdure.turned_clock (now double precision NOT NULL);
    INSERT INTO perdure.turned_clock VALUES (0);
    CREATE OR REPLACE FUNCTION perdure.perdure_now() RETURNS double precision
        LANGUAGE sql AS 'SELECT now FROM perdure.turned_clock';\
"""


@dataclass(slots=True)
class Site:
    """A store, the clock that it reads, how its journal is read; ``name`` begins its tenants."""

    store: Store
    clock: Clock
    read: Callable[[str], Journal]
    close: Callable[[], None]
    name: str = "tenant"


def memory(clock: Clock) -> Site:
    """Return a SQLite store in memory."""
    store = SQLiteStore(None, clock=clock.now)
    return Site(store, clock, lambda tenant: read_sqlite(store, tenant), store.close)


def site(url: str) -> Site:
    """Return the store of a URL; what histories leave in it is theirs alone.

    Raises :class:`~perdure.errors.ConfigurationError` for a database that has the real clock.
    """
    clock, name = Clock(), uuid.uuid4().hex
    if url.startswith(("postgresql:", "postgres:")):
        return _on_postgres(url, clock, name)
    if url.startswith("sqlite:"):
        file = open_store(url, clock=clock.now)
        assert isinstance(file, SQLiteStore)
        return Site(file, clock, lambda tenant: read_sqlite(file, tenant), file.close, name)
    from perdure.testing.simulator.journal_of_redis import read_redis  # noqa: PLC0415  # an extra

    store = open_store(url, clock=clock.now)
    return Site(store, clock, lambda tenant: read_redis(url, tenant), store.close, name)


class _Turned:
    """A store on a database whose clock is turned before each operation."""

    fast = False

    def __init__(self, store: Store, clock: Clock, connection: Any) -> None:
        self._store = store
        self._clock = clock
        self._connection = connection
        self._told: float | None = None

    def perform(self, op: Op[Any]) -> Any:
        """Carry out one store operation."""
        if self._told != self._clock.time:
            self._told = self._clock.time
            self._connection.execute("UPDATE perdure.turned_clock SET now = %s", (self._told,))
        return self._store.perform(op)

    def close(self) -> None:
        """Close both connections."""
        self._store.close()
        self._connection.close()


def _on_postgres(url: str, clock: Clock, name: str) -> Site:
    import psycopg  # noqa: PLC0415  # an extra

    connection = psycopg.connect(url, autocommit=True)
    found = connection.execute("SELECT to_regclass('perdure.turned_clock')").fetchone()
    if found is None or found[0] is None:
        connection.close()
        raise ConfigurationError(_REAL_TIME)
    store = _Turned(open_store(url), clock, connection)
    return Site(store, clock, lambda tenant: read_postgres(connection, tenant), store.close, name)
