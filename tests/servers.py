"""Real servers for tests, from wheels: nothing is installed by hand, nothing is left behind.

A server runs under a keeper (tests/keeper.py), a process that holds one end of a pipe. When the
test process ends, however it ends, the pipe closes; the keeper stops the server by its process id
and removes its folder. Ctrl-C reaches neither of them.
"""

from __future__ import annotations

import atexit
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path

import psycopg
import pytest

from perdure.stores.postgres.schema import script
from perdure.testing.clock import DEFAULT_START_SECONDS, Clock

_KEEPER = Path(__file__).with_name("keeper.py")


class DatabaseClock(Clock):
    """A clock turned by hand that the functions of a database read too."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._connection = psycopg.connect(url, autocommit=True)
        self._turning = threading.Lock()

    def advance(self, by: timedelta | float) -> float:
        """Turn the clock forward, here and in the database."""
        with self._turning:
            now = super().advance(by)
            self._connection.execute("UPDATE perdure.turned_clock SET now = %s", (now,))
        return now

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Postgres:
    """A PostgreSQL server that belongs to this process; it takes settings of PostgreSQL's."""

    def __init__(self, **settings: str) -> None:
        given = [f"{name}={value}" for name, value in settings.items()]
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", _KEEPER, *given],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        self.folder = self._said()
        if not self.folder:
            _, error = self._keeper.communicate()
            raise RuntimeError(f"no PostgreSQL server: {error.strip()[-2000:]}")
        self._owner = os.getpid()
        self._numbers = itertools.count(1)
        self._making = threading.Lock()
        self._has_template = False
        atexit.register(self.stop)

    def _said(self) -> str:
        assert self._keeper.stdout is not None
        return self._keeper.stdout.readline().strip()

    def crash(self, away_seconds: float = 0.0) -> None:
        """Let the server crash, and recover later; returns when it takes connections again."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(f"{away_seconds}\n")
        self._keeper.stdin.flush()
        if self._said() != "ready":
            raise RuntimeError("the server did not come back")

    def stop(self) -> None:
        """Let the keeper stop the server, and wait until it has."""
        if os.getpid() == self._owner and self._keeper.poll() is None:
            self._keeper.communicate()

    def url(self, database: str) -> str:
        """Where a database of the server is."""
        return f"postgresql://perdure@/{database}?host={self.folder}"

    def run(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the owner of everything."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    @contextmanager
    def empty_database(self, options: str = "") -> Iterator[str]:
        """A database with nothing in it; gives its URL."""
        yield from self._database(f"TEMPLATE template0 {options}")

    @contextmanager
    def database(self) -> Iterator[str]:
        """A database with perdure's schema and a clock that a test turns; gives its URL."""
        with self._making:
            if not self._has_template:
                self._make_template()
                self._has_template = True
        yield from self._database("TEMPLATE perdure_template STRATEGY file_copy")

    def _database(self, how: str) -> Iterator[str]:
        name = f"test_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} {how}")
        try:
            yield self.url(name)
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def _make_template(self) -> None:
        self.run("CREATE DATABASE perdure_template TEMPLATE template0")
        self.run(
            script(),
            "CREATE TABLE perdure.turned_clock (now double precision NOT NULL)",
            f"INSERT INTO perdure.turned_clock VALUES ({DEFAULT_START_SECONDS})",  # noqa: S608
            "CREATE OR REPLACE FUNCTION perdure.perdure_now() RETURNS double precision "
            "LANGUAGE sql AS 'SELECT now FROM perdure.turned_clock'",
            database="perdure_template",
        )


@cache
def _postgres(**settings: str) -> Postgres | str:
    try:
        return Postgres(**settings)
    except (OSError, RuntimeError) as error:
        return str(error)


def postgres(**settings: str) -> Postgres:
    """Return this process's server, one of its own for settings of PostgreSQL's that are given.

    Without one a test fails in CI, and is skipped elsewhere.
    """
    server = _postgres(**settings)
    if isinstance(server, str):
        if os.environ.get("CI"):
            pytest.fail(server)
        pytest.skip(f"NOT TESTED ON POSTGRESQL: {server}")
    return server
