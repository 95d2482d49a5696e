"""One SQLite database: opening it, checking that it is ours, migrating it, running a script."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from perdure.errors import SchemaForeign, SchemaTooNew, StoreError, StoreUnavailable
from perdure.stores.queries import load, migrations
from perdure.stores.sqlite.statements import Query, Transaction, Undo

_BUSY_SECONDS: Final = 30.0
_BUSY_AGAIN_SECONDS: Final = 0.005
# SQLite copies its log back inside a commit, which makes that commit tens of times slower. So a
# thread of our own does it every so many commits, and the built-in limit is only a safety net.
_COMMITS_PER_CHECKPOINT: Final = 512
_BATCH: Final = 256
_GATHER_SECONDS: Final = 0.0001
_GATHERINGS: Final = 3
_WOKEN_AT_ONCE: Final = 4
_WAL_PAGES: Final = 8000
# Many conversations are in use at once, and each has pages of its own.
_CACHE_KIB: Final = 32_768
_PACKAGE: Final = "perdure.stores.sqlite"
_MADE_BY_US: Final = (
    "CREATE TABLE perdure_migration (name TEXT PRIMARY KEY, applied_at REAL NOT NULL)"
)


class _Write:
    """One writer's work, and what came of it."""

    __slots__ = ("_error", "_interruption", "_result", "_woken", "done", "following", "op", "work")

    def __init__(self, work: Callable[[Transaction, Any], Any], op: Any) -> None:
        self.work = work
        self.op = op
        self.done = False
        self.following: _Write | None = None
        self._result: Any = None
        self._error: BaseException | None = None
        self._interruption: BaseException | None = None
        self._woken: threading.Lock | None = None

    def is_to_wait(self) -> None:
        """Get ready to be woken; a writer that leads at once never is."""
        self._woken = threading.Lock()
        self._woken.acquire()

    def waits(self) -> bool:
        """Wait to be woken; whether the work is done then, or has to be led by this writer.

        An interruption is put off until then: others' work may hang on this writer's.
        """
        assert self._woken is not None
        interruption: BaseException | None = None
        while True:
            try:
                self._woken.acquire()
                break
            except BaseException as error:  # noqa: BLE001  # raised again by outcome()
                interruption = error
        if self.following is not None:
            self.following.wake()
        self._interruption = interruption
        return self.done

    def wake(self) -> None:
        """Wake the writer; its outcome stands, or it is to lead."""
        if self._woken is not None:
            self._woken.release()

    def carry_out(self, transaction: Transaction) -> bool:
        """Do the work; False: it has failed, or wants what it did to be taken back."""
        self._result = self._error = None
        self.done = True
        try:
            self._result = self.work(transaction, self.op)
        except Undo as taken_back:
            self._result = taken_back.result
            return False
        except sqlite3.Error:
            raise
        except UnicodeEncodeError as error:
            self._error = StoreError(
                f"The store takes text, and this has no UTF-8 form ({error.reason} at "
                f"{error.start}): half a character, as a cut text may end with."
            )
            return False
        except BaseException as error:  # noqa: BLE001  # raised again in the writer's thread
            self._error = error
            return False
        return True

    def fails(self, error: BaseException) -> None:
        """Note that nothing of the work has happened."""
        self._error = error
        self.done = True

    def outcome(self) -> Any:
        """Return the result, or raise the error."""
        if self._interruption is not None:
            raise self._interruption
        if self._error is not None:
            raise self._error
        return self._result


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
        self._queue: deque[_Write] = deque()
        self._queue_lock = threading.Lock()
        self._led = False
        self._company = 1
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
        """Run ``work`` durably: alone in a transaction, or in one with whoever waits as well.

        What takes time is the disk. So the first writer that comes leads; those that come while it
        commits wait, and the first of them then carries out the work of all of them in one commit.
        """
        mine = _Write(work, op)
        with self._queue_lock:
            leads = not self._led
            if not leads:
                mine.is_to_wait()
            self._led = True
            self._queue.append(mine)
        if leads or not mine.waits():
            self._lead()
        return mine.outcome()

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

    def _lead(self) -> None:
        """Carry out everything that waits, then let the next one lead."""
        with self._lock:
            self._gather()
            with self._queue_lock:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), _BATCH))]
            self._company = len(batch)
            try:
                self._carry_out(batch)
            except BaseException as error:  # noqa: BLE001  # each writer raises it
                refusal = self._refusal(error) if isinstance(error, sqlite3.Error) else error
                for write in batch:
                    write.fails(refusal)
        with self._queue_lock:
            following = self._queue[0] if self._queue else None
            self._led = following is not None
        # Woken all at once they would get in each other's way, in the interpreter and in the
        # kernel: so each of them wakes another, first thing.
        waiting = batch[1:]
        for write, later in zip(waiting, waiting[_WOKEN_AT_ONCE:], strict=False):
            write.following = later
        for write in waiting[:_WOKEN_AT_ONCE]:
            write.wake()
        if following is not None:
            following.wake()

    def _gather(self) -> None:
        """Give those who shared the last commit a moment to come again; a lone writer none.

        It lasts while they keep coming: whoever runs meanwhile would slow the work itself down.
        """
        come, waited = len(self._queue), 0
        while come < self._company and waited < _GATHERINGS:
            time.sleep(_GATHER_SECONDS)
            come, before = len(self._queue), come
            waited = 0 if come > before else waited + 1

    def _carry_out(self, batch: list[_Write]) -> None:
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
        self._queue_lock = threading.Lock()
        self._queue.clear()
        self._led = False
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
