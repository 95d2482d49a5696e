"""Connections break, workers fork and tasks are cancelled: what has happened is never unclear."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

import perdure
from perdure.engine import ops
from perdure.errors import ConfigurationError, StoreError, StoreUnavailable, UnknownStore
from perdure.stores.postgres import PostgresStore
from perdure.stores.postgres.connections import Tries
from perdure.testing.conformance import Bench, Site
from perdure.transport.aio import AsyncTransport
from tests.servers import postgres

AT = ("tenant", "https://provider.example/v1")


@pytest.fixture
def url() -> Iterator[str]:
    with postgres().database() as url:
        yield url


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    with closing(PostgresStore(url)) as store:
        yield store


def end_sessions(url: str, waiting_for: str | None = None) -> int:
    """End the other sessions of a database, and wait until they have ended; returns how many."""
    query = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND (%(event)s::text IS NULL OR wait_event_type = %(event)s)"  # at work it has none
    )
    with psycopg.connect(url, autocommit=True) as connection:
        return len(connection.execute(query, {"event": waiting_for}).fetchall())


# -- making ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_url_opens_a_postgres_store(url: str, scheme: str) -> None:
    store = perdure.open_store(url.replace("postgresql://", f"{scheme}://"))
    assert isinstance(store, PostgresStore)
    assert 1 == store.perform(ops.Pin("tenant", "ann", "Fact."))
    store.close()


def test_nothing_is_opened_before_the_first_use() -> None:
    perdure.open_store("postgresql://nobody@127.0.0.1:1/nothing").close()


def test_a_clock_of_the_callers_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="perdure_now"):
        perdure.open_store(url, clock=time.time)


def test_a_missing_extra_is_named() -> None:
    script = """
import sys
sys.modules["psycopg"] = None
import perdure
try:
    perdure.open_store("postgresql://host/name")
except perdure.PerdureError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "pip install 'perdure[postgres]'" in done.stdout


def test_other_urls_are_still_unknown() -> None:
    with pytest.raises(UnknownStore, match="postgresql://user@host/database"):
        perdure.open_store("mysql://host/name")


def test_a_store_has_a_url_or_a_pool(url: str) -> None:
    with pytest.raises(ConfigurationError, match="either"):
        PostgresStore()
    with pytest.raises(ConfigurationError, match="either"):
        PostgresStore(url, pool=ConnectionPool(url, open=False))


# -- callers' pools --------------------------------------------------------------------------


def test_a_callers_pool_is_used_and_left_open(url: str) -> None:
    """Whatever it makes of rows, transactions and prepared statements."""
    kwargs = {"row_factory": dict_row, "prepare_threshold": 0}
    with ConnectionPool(url, min_size=1, max_size=1, kwargs=kwargs, open=True) as pool:
        store = PostgresStore(pool=pool)
        for number in range(1, 8):
            assert number == store.perform(ops.Pin("tenant", "ann", "Fact."))
        store.close()
        with pool.connection() as connection:
            rows: list[Any] = connection.execute(
                "SELECT count(*) AS facts FROM perdure.milestone"
            ).fetchall()
            assert [{"facts": 7}] == rows
            assert not connection.autocommit


def test_a_callers_async_pool_is_used_and_left_open(url: str) -> None:
    async def use() -> None:
        async with AsyncConnectionPool(url, min_size=1, max_size=1, open=False) as pool:
            store = PostgresStore(pool=pool)
            assert 1 == await store.perform_async(ops.Pin("tenant", "ann", "Fact."))
            with pytest.raises(ConfigurationError, match="AsyncConnectionPool"):
                store.perform(ops.Pin("tenant", "ann", "Fact."))
            await store.aclose()
            async with pool.connection() as connection:
                assert not connection.autocommit

    asyncio.run(use())


def test_a_callers_sync_pool_does_for_async_code_too(url: str) -> None:
    async def use(store: PostgresStore) -> None:
        assert 1 == await store.perform_async(ops.Pin("tenant", "ann", "Fact."))
        await store.aclose()

    with ConnectionPool(url, min_size=1, max_size=1, open=True) as pool:
        asyncio.run(use(PostgresStore(pool=pool)))


# -- breaking --------------------------------------------------------------------------------


def test_a_connection_that_died_while_idle_costs_nobody_an_error(
    url: str, store: PostgresStore
) -> None:
    """Accepting a turn cannot be sent twice: so it is not sent on a dead connection at all."""
    bench = Bench(Site(lambda: store, lambda seconds: None))
    for number in range(3):
        turn = bench.taken(f"Message {number}.", subject="ann", turn_id=f"t-{number}")
        assert end_sessions(url) >= 1
        assert "done" == bench.complete(turn, "Yes.", response=f"resp_{number}")
        end_sessions(url)


def test_a_connection_that_dies_at_work_is_no_error_where_the_work_can_be_done_again(
    url: str, store: PostgresStore
) -> None:
    assert store.perform(ops.Throttled(*AT)) == 0.0
    with psycopg.connect(url) as blocker:
        blocker.execute("LOCK TABLE perdure.throttle IN ACCESS EXCLUSIVE MODE")
        with closing(Later(lambda: store.perform(ops.Throttle(*AT, 30.0)))) as throttling:
            waiting(url, 1)
            assert 1 == end_sessions(url, "Lock")
            waiting(url, 1)
            blocker.rollback()
            throttling.result()
    assert store.perform(ops.Throttled(*AT)) == 30.0


def test_a_connection_that_dies_at_work_is_told_where_it_cannot(
    url: str, store: PostgresStore
) -> None:
    store.perform(ops.Throttled(*AT))
    with psycopg.connect(url) as blocker:
        blocker.execute("LOCK TABLE perdure.milestone IN ACCESS EXCLUSIVE MODE")
        with closing(Later(lambda: store.perform(ops.Pin("tenant", "ann", "F.")))) as pinning:
            waiting(url, 1)
            assert 1 == end_sessions(url, "Lock")
            with pytest.raises(StoreUnavailable, match="may have been stored or not"):
                pinning.result()
        blocker.rollback()
    assert 1 == store.perform(ops.Pin("tenant", "ann", "F."))


class Later:
    """A call in a thread of its own."""

    def __init__(self, work: Any) -> None:
        self._work = work
        self._outcome: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome = self._work()
        except BaseException as error:  # noqa: BLE001  # raised again by result()
            self._error = error

    def result(self) -> Any:
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        return self._outcome

    def close(self) -> None:
        self._thread.join(30)


def waiting(url: str, count: int) -> None:
    """Wait until so many sessions wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    until = time.monotonic() + 20
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(query).fetchone() != (count,):
            assert time.monotonic() < until
            time.sleep(0.005)


def test_an_operation_that_lost_a_race_is_done_again(url: str, store: PostgresStore) -> None:
    """As a deadlock or a serializable transaction has it: nothing of it has happened."""
    store.perform(ops.Throttled(*AT))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SEQUENCE perdure.losses")
        connection.execute(
            "CREATE FUNCTION perdure.lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF nextval('perdure.losses') <= 3 THEN RAISE SQLSTATE '40001'; END IF; "
            "RETURN new; END $$"
        )
        connection.execute(
            "CREATE TRIGGER lose BEFORE INSERT ON perdure.milestone "
            "FOR EACH ROW EXECUTE FUNCTION perdure.lose()"
        )
    assert 1 == store.perform(ops.Pin("tenant", "ann", "F."))
    assert ("F.",) == history(store, "ann").milestones


def history(store: PostgresStore, subject: str) -> ops.Span:
    found: ops.Subject = store.perform(ops.FindSubject("tenant", subject))
    span: ops.Span = store.perform(ops.History("tenant", found.conversation, 10, 10))
    return span


def test_serializable_transactions_are_no_obstacle(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        (name,) = connection.execute("SELECT current_database()").fetchone() or ("",)
        connection.execute(
            f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'".encode()
        )
    bench = Bench(Site(lambda: PostgresStore(url), lambda seconds: None))
    numbers = bench.at_once(
        lambda worker, n: worker.ask(ops.Pin(worker.tenant, "ann", f"Fact {n}."))
    )
    assert list(range(1, len(numbers) + 1)) == sorted(numbers)
    bench.close()


def test_tries_come_to_an_end() -> None:
    tries = Tries("The database", repeatable=True)
    lost = psycopg.errors.DeadlockDetected("deadlock detected")
    with pytest.raises(StoreError, match="deadlock"):
        sum(tries.pause(lost) for _ in range(100))


@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_server_that_is_down_is_said_at_once(face: str) -> None:
    store = PostgresStore("postgresql://secret:hunter2@127.0.0.1:1/chat")
    op = ops.Leftovers("tenant")
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="cannot be reached.*refused") as caught:
        store.perform(op) if face == "sync" else asyncio.run(store.perform_async(op))
    assert time.monotonic() - began < 5
    assert "'chat' at 127.0.0.1:1" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert 503 == caught.value.status


def test_a_database_that_only_reads_is_unavailable(url: str, store: PostgresStore) -> None:
    store.perform(ops.Throttled(*AT))
    with psycopg.connect(url, autocommit=True) as connection:
        (name,) = connection.execute("SELECT current_database()").fetchone() or ("",)
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    with pytest.raises(StoreUnavailable, match="read-only"):
        keeps_writing(url, store)


def keeps_writing(url: str, store: PostgresStore) -> None:
    """Write in new sessions: one that was just beginning may have heard of nothing."""
    for _ in range(3):
        end_sessions(url)
        store.perform(ops.Pin("tenant", "ann", "F."))


# -- processes and tasks ---------------------------------------------------------------------


def pin_in_child(store: PostgresStore, answers: Any) -> None:
    answers.put((os.getpid(), store.perform(ops.Pin("tenant", "ann", "From the child."))))
    store.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_opens_connections_of_its_own(url: str, store: PostgresStore) -> None:
    assert 1 == store.perform(ops.Pin("tenant", "ann", "From the parent."))
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    children = [context.Process(target=pin_in_child, args=(store, answers)) for _ in range(2)]
    for child in children:
        child.start()
    seen = [answers.get(timeout=30) for _ in children]
    for child in children:
        child.join(30)
        assert 0 == child.exitcode
    assert {2, 3} == {number for _, number in seen}
    assert os.getpid() not in {pid for pid, _ in seen}
    assert 4 == store.perform(ops.Pin("tenant", "ann", "From the parent again."))


def test_each_event_loop_has_a_pool_of_its_own(url: str, store: PostgresStore) -> None:
    async def pin() -> int:
        number: int = await store.perform_async(ops.Pin("tenant", "ann", "F."))
        await store.aclose()
        return number

    assert [1, 2] == [asyncio.run(pin()), asyncio.run(pin())]


def test_a_commit_that_has_begun_is_finished_though_its_caller_is_cancelled(url: str) -> None:
    async def use() -> int:
        transport = AsyncTransport(PostgresStore(url))
        await transport.perform(ops.Leftovers("tenant"))
        with psycopg.connect(url) as blocker:
            blocker.execute("LOCK TABLE perdure.milestone IN ACCESS EXCLUSIVE MODE")
            caller = asyncio.create_task(transport.perform(ops.Pin("tenant", "ann", "F.")))
            await asyncio.to_thread(waiting, url, 1)
            caller.cancel()
            with suppress(asyncio.CancelledError):
                await caller
            blocker.rollback()
        await transport.aclose()
        again = AsyncTransport(PostgresStore(url))
        number: int = await again.perform(ops.Pin("tenant", "ann", "G."))
        await again.aclose()
        return number

    assert 2 == asyncio.run(use())


def test_an_operation_does_not_block_the_event_loop(url: str) -> None:
    async def use() -> int:
        transport = AsyncTransport(PostgresStore(url))
        await transport.perform(ops.Leftovers("tenant"))
        turns = 0
        with psycopg.connect(url) as blocker:
            blocker.execute("LOCK TABLE perdure.milestone IN ACCESS EXCLUSIVE MODE")
            pinning = asyncio.create_task(transport.perform(ops.Pin("tenant", "ann", "F.")))
            for _ in range(100):
                await asyncio.sleep(0)
                turns += not pinning.done()
            blocker.rollback()
        assert 1 == await pinning
        await transport.aclose()
        return turns

    assert 100 == asyncio.run(use())
