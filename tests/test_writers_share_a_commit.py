"""Writers that meet at one SQLite file share commits, and nothing else."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure.dialects.items import user_message
from perdure.engine.ops import Accept, Complete, Pin, ReadHistory
from perdure.errors import StoreError
from perdure.model import TurnKey
from perdure.stores.sqlite import people
from perdure.stores.sqlite.connection import Database
from perdure.stores.sqlite.statements import Transaction

WRITERS = 24


def accepting(subject: str) -> Accept:
    message = (user_message(f"I am {subject}."),)
    return Accept(
        "t", "u", "responses", "respond", None, "hash", message, "{}", subject=subject
    )  # fmt: skip


def answering(key: TurnKey, **changes: Any) -> Complete:
    items = (user_message("Noted."),)
    return Complete("t", "u", "responses", key, 200, b"{}", "application/json", items, **changes)


def all_at_once(store: perdure.stores.Store, ops: list[Any]) -> list[Any]:
    """Perform operations in as many threads, all of them waiting behind one slow writer."""
    results: list[Any] = [None] * len(ops)
    entered, go_on = threading.Event(), threading.Event()
    database: Database = store._database  # type: ignore[attr-defined]

    def slow(tx: Transaction, op: object) -> None:
        del tx, op
        entered.set()
        go_on.wait(10)

    def perform(number: int) -> None:
        try:
            results[number] = store.perform(ops[number])
        except Exception as error:  # noqa: BLE001  # the test looks at it
            results[number] = error

    first = threading.Thread(target=database.write, args=(slow, None))
    first.start()
    assert entered.wait(10)
    threads = [threading.Thread(target=perform, args=(number,)) for number in range(len(ops))]
    for thread in threads:
        thread.start()
    while len(database._queue) < len(ops):
        threads[0].join(0.001)
    go_on.set()
    for thread in [first, *threads]:
        thread.join(10)
    return results


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = perdure.open_store(f"sqlite:///{tmp_path / 'chat.db'}")
    yield opened
    opened.close()


def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many writers each commit from now on was for."""
    sizes: list[int] = []
    carry_out = Database._carry_out

    def counted(self: Database, batch: list[Any]) -> None:
        sizes.append(len(batch))
        carry_out(self, batch)

    monkeypatch.setattr(Database, "_carry_out", counted)
    return sizes


def test_those_who_wait_together_are_committed_together(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = commits(monkeypatch)
    subjects = [f"user-{number}" for number in range(WRITERS)]

    accepted = all_at_once(store, [accepting(subject) for subject in subjects])

    assert [1, WRITERS] == sizes
    assert WRITERS == len({one.turn.conversation for one in accepted})
    for subject in subjects:
        (entry,) = store.perform(ReadHistory("t", subject, 10))
        assert f"I am {subject}." == entry.text


def test_one_that_is_taken_back_takes_no_other_with_it(store: Any) -> None:
    first, second = store.perform(accepting("first")), store.perform(accepting("second"))
    store.perform(answering(first.turn, response_id="resp_1"))
    stale = answering(first.turn, response_id="resp_2")  # it has its answer
    taken = answering(second.turn, response_id="resp_1")  # the id is another's

    results = all_at_once(store, [accepting("third"), stale, taken, accepting("fourth")])

    assert ["deliver", "fenced", "taken", "deliver"] == [
        getattr(result, "outcome", result) for result in results
    ]
    assert "done" == store.perform(answering(second.turn, response_id="resp_3"))


def test_an_error_is_its_own_writers(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(tx: Transaction, op: Pin) -> int:
        people.pin(tx, op)
        message = "a bug"
        raise ValueError(message)

    monkeypatch.setitem(perdure.stores.sqlite.store._WRITES, Pin, broken)

    results = all_at_once(store, [accepting("first"), Pin("t", "pinned", "x"), accepting("second")])

    assert "a bug" == str(results[1])
    assert ["deliver", "deliver"] == [results[0].outcome, results[2].outcome]
    assert () == store.perform(ReadHistory("t", "pinned", 10))


def test_where_the_commit_fails_nobody_is_told_that_it_happened(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.perform(accepting("before"))
    execute = store._database._transaction.execute

    def failing(statement: str, *values: Any) -> Any:
        if statement == "COMMIT" and store._database._company > 1:
            raise sqlite3.OperationalError("disk I/O error")
        return execute(statement, *values)

    store._database._transaction.execute = failing
    results = all_at_once(store, [accepting(f"user-{number}") for number in range(5)])
    store._database._transaction.execute = execute

    assert [True] * 5 == [isinstance(result, StoreError) for result in results]
    assert () == store.perform(ReadHistory("t", "user-0", 10))
    assert "deliver" == store.perform(accepting("after")).outcome


def test_a_writer_that_is_interrupted_leaves_nobody_waiting(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    database: Database = store._database
    sizes = commits(monkeypatch)
    entered, interrupted, go_on = threading.Event(), threading.Event(), threading.Event()
    results: list[Any] = []

    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        interrupted.set()
        raise Interrupted

    def slow(tx: Transaction, op: object) -> None:
        del tx, op
        entered.set()
        go_on.wait(10)

    def join(subject: str) -> threading.Thread:
        def perform() -> None:
            results.append(store.perform(accepting(subject)).outcome)

        thread = threading.Thread(target=perform, daemon=True)
        thread.start()
        return thread

    def meanwhile() -> None:
        while not database._queue:
            first.join(0.001)
        threads.extend(join(f"user-{number}") for number in range(WRITERS))
        while len(database._queue) < WRITERS + 1:
            first.join(0.001)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        interrupted.wait(10)
        go_on.set()

    before = signal.signal(signal.SIGUSR1, interrupt)
    first = threading.Thread(target=database.write, args=(slow, None))
    first.start()
    assert entered.wait(10)
    threads: list[threading.Thread] = []
    other = threading.Thread(target=meanwhile)
    other.start()
    try:
        with pytest.raises(Interrupted):  # this thread is to lead all of them
            store.perform(accepting("interrupted"))
    finally:
        signal.signal(signal.SIGUSR1, before)
    until = time.monotonic() + 10
    for thread in (first, other, *threads):
        thread.join(max(until - time.monotonic(), 0))

    assert ["deliver"] * WRITERS == results
    assert [1, WRITERS + 1] == sizes
    assert 1 == len(store.perform(ReadHistory("t", "interrupted", 10)))
