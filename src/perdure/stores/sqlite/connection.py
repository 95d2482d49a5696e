"""One SQLite database: opening it, checking that it is ours, migrating it, running a script."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from perdure.errors import SchemaForeign, SchemaTooNew, StoreError, StoreUnavailable
from perdure.stores.queries import load, migrations
from perdure.stores.sqlite.statements import Query, Transaction
from perdure.stores.sqlite.writers import Batch, Writers

_BUSY_SECONDS: Final = 30.0
_BUSY_AGAIN_SECONDS: Final = 0.005
# SQLite copies its log back inside a commit, which makes that commit tens of times slower. So a
# thread of our own does it every so many commits, and the built-in limit is only a safety net.
_COMMITS_PER_CHECKPOINT: Final = 512
_WAL_PAGES: Final = 8000
# Many conversations are in use at once, and each has pages of its own.
_CACHE_KIB: Final = 32_768
_PACKAGE: Final = "perdure.stores.sqlite"
_MADE_BY_US: Final = (
    "CREATE TABLE perdure_migration (name TEXT PRIMARY KEY, applied_at REAL NOT NULL)"
)


_DATABASES: Final[weakref.WeakSet[Database]] = weakref.WeakSet()
_PAUSED: Final[list[Database]] = []


def _before_fork() -> None:
    _PAUSED[:] = list(_DATABASES)
    for database in _PAUSED:
        database.pause()


def _after_fork_in_parent() -> None:
    for database in _PAUSED:
        database.go_on()
    _PAUSED.clear()


def _after_fork_in_child() -> None:
    for database in _PAUSED:
        database.begin_anew()
    _PAUSED.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


class Database:
    """A SQLite file (or memory) shared by the threads of a process; opened on first use.

    SQLite's connections must not cross a fork: the locks of a file are the process's, so the parent
    would delete the log under the child. So there is none while one forks.
    """

    def __init__(
        self, path: Path | None, synchronous: str, clock: Callable[[], float] | None
    ) -> None:
        self._path = path
        self._synchronous = synchronous
        self._clock = clock or time.time
        queries = load(_PACKAGE, "queries.sql")
        self._queries = {name: Query(named) for name, named in queries.items()}
        self._lock = threading.Lock()
        self._writers = Writers(self._take_turn)
        self._transaction: Transaction | None = None
        self._pid = 0
        self._since_checkpoint = 0
        self._checkpointer: threading.Thread | None = None
        _DATABASES.add(self)

    @property
    def where(self) -> str:
        """How messages name the database."""
        return str(self._path) if self._path else "the in-memory database"

    def write(self, work: Callable[[Transaction, Any], Any], op: Any) -> Any:
        """Run ``work`` durably: alone in a transaction, or in one with whoever waits as well."""
        return self._writers.write(work, op)

    async def write_later(self, work: Callable[[Transaction, Any], Any], op: Any) -> Any:
        """Run ``work`` durably, as :meth:`write` does, beside the event loop."""
        return await self._writers.write_later(work, op)

    async def beside(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call something that uses the database beside the event loop."""
        return await asyncio.wrap_future(self._writers.beside(function, *arguments))

    def read(self, work: Callable[[Transaction, Any], Any], op: Any) -> Any:
        """Run ``work`` on one consistent view of the database."""
        try:
            with self._lock:
                transaction = self._open()
                transaction.execute("BEGIN")
                try:
                    return work(transaction, op)
                finally:
                    transaction.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._refusal(error) from error

    def _take_turn(self, take: Callable[[], Batch]) -> None:
        """Let a batch of writers have what they wait for, or an error each."""
        with self._lock:
            batch = take()
            try:
                self._carry_out(batch)
            except BaseException as error:  # noqa: BLE001  # each writer raises it
                refusal = self._refusal(error) if isinstance(error, sqlite3.Error) else error
                for write in batch:
                    write.fails(refusal)

    def _carry_out(self, batch: Batch) -> None:
        """Do a batch's work in one commit; where one of it fails, the others must not.

        That is rare, and to be able to take one back costs more than many a statement: so the
        batch is tried without, and done again with a savepoint around each where that failed.
        """
        transaction = self._open()
        transaction.execute("BEGIN IMMEDIATE")
        try:
            whole = all(write.carry_out(transaction) for write in batch)
            if not whole and len(batch) > 1:
                transaction.execute("ROLLBACK")
                transaction.execute("BEGIN IMMEDIATE")
                for write in batch:
                    transaction.execute("SAVEPOINT one")
                    if not write.carry_out(transaction):
                        transaction.execute("ROLLBACK TO one")
                    transaction.execute("RELEASE one")
                whole = True
            transaction.execute("COMMIT" if whole else "ROLLBACK")
        except BaseException:
            if transaction.open:
                transaction.execute("ROLLBACK")
            raise
        self._since_checkpoint += len(batch)
        if self._since_checkpoint >= _COMMITS_PER_CHECKPOINT:
            self._checkpoint()

    def _refusal(self, error: sqlite3.Error) -> StoreError:
        if _is_busy(error):
            return StoreUnavailable(
                f"The store at {self.where} cannot be used: {error}. Another program has held it "
                f"for {_BUSY_SECONDS:.0f} seconds."
            )
        if isinstance(error, sqlite3.OperationalError):
            return StoreUnavailable(
                f"The store at {self.where} cannot be used: {error}. Check that the folder exists, "
                "is writable and has free space."
            )
        return StoreError(f"The store at {self.where} refused: {error}.")

    def scrub(self) -> None:
        """Copy the log back and cut it: what was erased stands in it as it was before.

        Another process that is reading puts this off until the log is next copied back.
        """
        if self._path is None:
            return
        with suppress(sqlite3.Error), self._lock:
            self._open().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        self._writers.close()
        if self._checkpointer is not None and self._pid == os.getpid():
            self._checkpointer.join(_BUSY_SECONDS)
        with self._lock:
            if self._transaction is not None and self._pid == os.getpid():
                self._transaction.close()
            self._transaction = None

    def pause(self) -> None:
        """Let no work be under way and no connection be open, until :meth:`go_on`."""
        if self._checkpointer is not None:
            self._checkpointer.join(_BUSY_SECONDS)
        self._lock.acquire()
        if self._transaction is not None and self._path is not None:
            self._transaction.close()
            self._transaction = None

    def go_on(self) -> None:
        """End a pause."""
        self._lock.release()

    def begin_anew(self) -> None:
        """Forget what other threads, which a fork leaves behind, were at."""
        self._lock = threading.Lock()
        self._writers = Writers(self._take_turn)
        self._checkpointer = None

    def _checkpoint(self) -> None:
        """Let a thread copy the log back into the database, unless one is at it."""
        self._since_checkpoint = 0
        running = self._checkpointer is not None and self._checkpointer.is_alive()
        if self._path is None or running:
            return
        self._checkpointer = threading.Thread(
            target=_copy_log_back, args=(self._path,), name="perdure-checkpoint", daemon=True
        )
        self._checkpointer.start()

    def _open(self) -> Transaction:
        if self._transaction is not None and self._pid == os.getpid():
            return self._transaction
        connection = sqlite3.connect(
            self._path or ":memory:",
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._transaction, self._pid = Transaction(connection, self._queries), os.getpid()
        return self._transaction

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.create_function("perdure_now", 0, self._clock)
        self._check_ours(connection)
        if self._path is not None:
            _write_ahead(connection)
            connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        # What is deleted is overwritten, so that nothing that was forgotten stays in the file.
        connection.execute("PRAGMA secure_delete = ON")
        if not self._applied(connection):
            self._migrate(connection)

    def _check_ours(self, connection: sqlite3.Connection) -> None:
        """Refuse, before anything is written, a database with tables under our names."""
        found = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name LIKE 'perdure~_%' "
            "ESCAPE '~' ORDER BY name"
        ).fetchall()
        tables = dict(found)
        marker = tables.pop("perdure_migration", None)
        if marker is not None and marker != _MADE_BY_US:
            raise SchemaForeign(self.where, "perdure_migration")
        if marker is None and tables:
            raise SchemaForeign(self.where, next(iter(tables)))
        if marker is None:
            return
        known = {name for name, _ in migrations(f"{_PACKAGE}.migrations")}
        applied = self._applied_names(connection)
        if unknown := tuple(name for name in applied if name not in known):
            raise SchemaTooNew(self.where, unknown)
        self._check_columns(connection)

    def _check_columns(self, connection: sqlite3.Connection) -> None:
        """Refuse a table of ours that somebody has replaced: a missing column fails half-way."""
        wanted = sqlite3.connect(":memory:")
        try:
            applied = set(self._applied_names(connection))
            for name, script in migrations(f"{_PACKAGE}.migrations"):
                if name in applied:
                    wanted.executescript(script)
            tables = [
                row[0]
                for row in wanted.execute("SELECT name FROM sqlite_master WHERE type='table'")
            ]
            for table in tables:
                query = "SELECT name FROM pragma_table_info(?)"
                columns = {row[0] for row in connection.execute(query, (table,))}
                if not {row[0] for row in wanted.execute(query, (table,))} <= columns:
                    raise SchemaForeign(self.where, table)
        finally:
            wanted.close()

    @staticmethod
    def _applied_names(connection: sqlite3.Connection) -> list[str]:
        return [
            row[0] for row in connection.execute("SELECT name FROM perdure_migration ORDER BY name")
        ]

    def _applied(self, connection: sqlite3.Connection) -> bool:
        has = connection.execute(
            "SELECT 1 FROM sqlite_master WHERE name = 'perdure_migration'"
        ).fetchone()
        names = [name for name, _ in migrations(f"{_PACKAGE}.migrations")]
        return bool(has) and self._applied_names(connection) == names

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Apply what is missing, in one transaction; a second process waits and finds it done."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(_MADE_BY_US.replace("TABLE", "TABLE IF NOT EXISTS", 1))
            applied = set(self._applied_names(connection))
            for name, script in migrations(f"{_PACKAGE}.migrations"):
                if name not in applied:
                    for statement in _statements(script):
                        connection.execute(statement)
                    connection.execute(
                        "INSERT INTO perdure_migration VALUES (?, perdure_now())", (name,)
                    )
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def _is_busy(error: sqlite3.Error) -> bool:
    """Whether it says that another connection holds the file."""
    code: int = getattr(error, "sqlite_errorcode", 0)  # none where Python itself refused
    return code & 0xFF == sqlite3.SQLITE_BUSY  # the other bits say how


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Let a file have a log; a new one gets it while others may be opening it as well.

    SQLite waits for a lock only where that cannot be a deadlock, and here it does not.
    """
    until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > until:
                raise
            time.sleep(_BUSY_AGAIN_SECONDS)
        else:
            return


def _statements(script: str) -> Iterator[str]:
    """Split a script: ``executescript`` would commit the transaction around it."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _copy_log_back(path: Path) -> None:
    """Checkpoint a database without making anybody wait; what fails is done by the next one."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
