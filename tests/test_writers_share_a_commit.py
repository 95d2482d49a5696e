"""Writers that meet at one SQLite file share commits, and nothing else."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
from perdure.stores.sqlite.writers import Writers

WRITERS = 24
FACES = {"threads": 1, "tasks": 1, "both": 2}  # of how many writers one is a task
by_faces = pytest.mark.parametrize("faces", FACES)


def accepting(subject: str) -> Accept:
    message = (user_message(f"I am {subject}."),)
    return Accept(
        "t", "u", "responses", "respond", None, "hash", message, "{}", subject=subject
    )  # fmt: skip


def answering(key: TurnKey, **changes: Any) -> Complete:
    items = (user_message("Noted."),)
    return Complete("t", "u", "responses", key, 200, b"{}", "application/json", items, **changes)


@contextmanager
def held(store: Any) -> Iterator[None]:
    """Let a slow writer have the store as long as this lasts."""
    go_on, entered = threading.Event(), threading.Event()

    def slow(tx: Transaction, op: object) -> None:
        del tx, op
        entered.set()
        go_on.wait(10)

    first = threading.Thread(target=store._database.write, args=(slow, None))
    first.start()
    assert entered.wait(10)
    try:
        yield
    finally:
        go_on.set()
        first.join(10)


def all_at_once(store: perdure.stores.Store, ops: list[Any], faces: str = "threads") -> list[Any]:
    """Perform operations in threads, tasks or both, all of them waiting behind one slow writer."""
    results: list[Any] = [None] * len(ops)
    line = store._database._writers._line  # type: ignore[attr-defined]

    def perform(number: int) -> None:
        try:
            results[number] = store.perform(ops[number])
        except Exception as error:  # noqa: BLE001  # the test looks at it
            results[number] = error

    async def perform_all(numbers: list[int]) -> None:
        performing = [store.perform_async(ops[number]) for number in numbers]  # type: ignore[attr-defined]
        ended = await asyncio.gather(*performing, return_exceptions=True)
        for number, result in zip(numbers, ended, strict=True):
            results[number] = result

    by_tasks = [] if faces == "threads" else list(range(len(ops)))[:: FACES[faces]]
    threads = [
        threading.Thread(target=perform, args=(number,))
        for number in range(len(ops))
        if number not in by_tasks
    ]
    threads.append(threading.Thread(target=asyncio.run, args=(perform_all(by_tasks),)))
    with held(store):
        for thread in threads:
            thread.start()
        while len(line) < len(ops):
            threads[0].join(0.001)
    for thread in threads:
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


@by_faces
def test_those_who_wait_together_are_committed_together(
    store: Any, faces: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = commits(monkeypatch)
    subjects = [f"user-{number}" for number in range(WRITERS)]

    accepted = all_at_once(store, [accepting(subject) for subject in subjects], faces)

    assert [1, WRITERS] == sizes
    assert WRITERS == len({one.turn.conversation for one in accepted})
    for subject in subjects:
        (entry,) = store.perform(ReadHistory("t", subject, 10))
        assert f"I am {subject}." == entry.text


@by_faces
def test_one_that_is_taken_back_takes_no_other_with_it(store: Any, faces: str) -> None:
    first, second = store.perform(accepting("first")), store.perform(accepting("second"))
    store.perform(answering(first.turn, response_id="resp_1"))
    stale = answering(first.turn, response_id="resp_2")  # it has its answer
    taken = answering(second.turn, response_id="resp_1")  # the id is another's

    results = all_at_once(store, [accepting("third"), stale, taken, accepting("fourth")], faces)

    assert ["deliver", "fenced", "taken", "deliver"] == [
        getattr(result, "outcome", result) for result in results
    ]
    assert "done" == store.perform(answering(second.turn, response_id="resp_3"))


@by_faces
def test_an_error_is_its_own_writers(
    store: Any, faces: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(tx: Transaction, op: Pin) -> int:
        people.pin(tx, op)
        message = "a bug"
        raise ValueError(message)

    monkeypatch.setitem(perdure.stores.sqlite.store._WRITES, Pin, broken)

    results = all_at_once(
        store, [accepting("first"), Pin("t", "pinned", "x"), accepting("second")], faces
    )

    assert "a bug" == str(results[1])
    assert ["deliver", "deliver"] == [results[0].outcome, results[2].outcome]
    assert () == store.perform(ReadHistory("t", "pinned", 10))


@by_faces
def test_where_the_commit_fails_nobody_is_told_that_it_happened(
    store: Any, faces: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.perform(accepting("before"))
    execute = store._database._transaction.execute

    def failing(statement: str, *values: Any) -> Any:
        if statement == "COMMIT" and store._database._writers._company > 1:
            raise sqlite3.OperationalError("disk I/O error")
        return execute(statement, *values)

    store._database._transaction.execute = failing
    results = all_at_once(store, [accepting(f"user-{number}") for number in range(5)], faces)
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
        while not database._writers._line:
            first.join(0.001)
        threads.extend(join(f"user-{number}") for number in range(WRITERS))
        while len(database._writers._line) < WRITERS + 1:
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


def test_what_a_cancelled_task_has_begun_is_done_all_the_same(store: Any) -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(store.perform_async(accepting("cancelled")))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with held(store):
        asyncio.run(cancelled())

    assert "deliver" == store.perform(accepting("after")).outcome
    assert 1 == len(store.perform(ReadHistory("t", "cancelled", 10)))


def test_a_loop_that_is_closed_leaves_nobody_waiting(store: Any) -> None:
    async def left() -> None:
        await asyncio.wait(
            {asyncio.ensure_future(store.perform_async(accepting("left")))}, timeout=0.01
        )

    async def stays() -> None:
        outcomes.append((await store.perform_async(accepting("stays"))).outcome)

    outcomes: list[str] = []
    other = threading.Thread(target=lambda: asyncio.run(stays()))
    with held(store):
        asyncio.run(left())
        other.start()
        while len(store._database._writers._line) < 2:
            other.join(0.001)
    other.join(10)

    assert ["deliver"] == outcomes
    assert 1 == len(store.perform(ReadHistory("t", "left", 10)))


def test_a_store_that_was_closed_takes_tasks_again(store: Any) -> None:
    async def use() -> list[Any]:
        before = await store.perform_async(accepting("before"))
        await store.aclose()
        return [before, await store.perform_async(accepting("after"))]

    assert ["deliver", "deliver"] == [one.outcome for one in asyncio.run(use())]


def test_tasks_of_several_loops_are_each_told_on_their_own(store: Any) -> None:
    async def use(loop: int) -> list[str]:
        said = [accepting(f"{loop}.{number}") for number in range(WRITERS)]
        told = await asyncio.gather(*map(store.perform_async, said))
        return [one.outcome for one in told]

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda loop: asyncio.run(use(loop)), range(4)))

    assert [["deliver"] * WRITERS] * 4 == outcomes


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_tasks_of_a_forked_worker_have_somebody_who_leads(store: Any) -> None:
    async def use(name: str) -> None:
        assert "deliver" == (await store.perform_async(accepting(name))).outcome

    asyncio.run(use("parent"))
    child = multiprocessing.get_context("fork").Process(target=lambda: asyncio.run(use("child")))
    child.start()
    child.join(10)

    assert 0 == child.exitcode
    asyncio.run(use("parent again"))
    assert 1 == len(store.perform(ReadHistory("t", "child", 10)))


def test_a_leader_that_is_interrupted_before_it_begins_leaves_nobody_waiting(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Writers._take
    interruptions = [KeyboardInterrupt()]

    def interrupted(self: Writers) -> Any:
        if interruptions:
            raise interruptions.pop()
        return take(self)

    monkeypatch.setattr(Writers, "_take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.perform(accepting("interrupted"))

    assert "deliver" == store.perform(accepting("after")).outcome
    assert () == store.perform(ReadHistory("t", "interrupted", 10))


def test_a_leader_that_is_interrupted_as_it_takes_others_leaves_nobody_waiting(
    store: Any,
) -> None:
    interruptions = [KeyboardInterrupt()]

    class Interrupted(deque[Any]):
        def popleft(self) -> Any:
            first = super().popleft()
            if interruptions and len(self) == 1:
                raise interruptions.pop()
            return first

    store._database._writers._line = Interrupted()
    told: list[object] = []

    def write(name: str) -> None:
        try:
            told.append(store.perform(accepting(name)).outcome)
        except KeyboardInterrupt as error:
            told.append(error)

    with held(store):
        threads = [threading.Thread(target=write, args=(f"user-{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        while len(store._database._writers._line) < len(threads):
            time.sleep(0.001)
    for thread in threads:
        thread.join(10)

    assert not any(thread.is_alive() for thread in threads)
    assert 4 == len(told)
    assert not interruptions
    assert "deliver" == store.perform(accepting("after")).outcome


@by_faces
def test_where_no_thread_can_be_had_the_work_is_done_all_the_same(
    store: Any, faces: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while the interpreter comes to its end."""

    def refuse(*_: object) -> None:
        message = "cannot schedule new futures after shutdown"
        raise RuntimeError(message)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)

    results = all_at_once(store, [accepting(f"user-{n}") for n in range(WRITERS)], faces)

    assert ["deliver"] * WRITERS == [result.outcome for result in results]
    assert "deliver" == store.perform(accepting("after")).outcome
