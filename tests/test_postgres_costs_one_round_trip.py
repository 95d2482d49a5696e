"""An operation is one round trip, behind a pooler too, and costs the same at any length."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx2
import openai
import psycopg
import pytest
from psycopg_pool import ConnectionPool

import perdure
from perdure.engine import ops
from perdure.model import Snapshot
from perdure.stores.postgres import PostgresStore, statements
from perdure.stores.postgres.schema import queries
from perdure.stores.postgres.values import parameters
from perdure.testing import Provider
from perdure.testing.conformance import Awaited, Bench, Site, StoreConformance
from perdure.testing.conformance.bench import message
from tests.pooler import Pooler
from tests.servers import DatabaseClock, postgres

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
LONG = 50_000
MANY = 300
ROUNDS = 8  # a plan is made for good at the sixth


@pytest.fixture(scope="module")
def database() -> Iterator[tuple[str, DatabaseClock]]:
    with postgres().database() as url, closing(DatabaseClock(url)) as clock:
        yield url, clock


@pytest.fixture(scope="module")
def pooler(database: tuple[str, DatabaseClock]) -> Iterator[Pooler]:
    url, _ = database
    name = url.rpartition("/test_")[2].partition("?")[0]
    with Pooler(f"{postgres().folder}/.s.PGSQL.5432", f"test_{name}") as pooler:
        yield pooler


def through(pooler: Pooler) -> str:
    return f"postgresql://perdure@127.0.0.1:{pooler.port}/any?sslmode=disable&gssencmode=disable"


@pytest.mark.slow
class TestBehindAPooler(StoreConformance):
    """The whole contract, where every statement may go to another server process."""

    @pytest.fixture(params=["sync", "async"])
    def site(
        self, request: pytest.FixtureRequest, pooler: Pooler, database: tuple[str, DatabaseClock]
    ) -> Site:
        _, clock = database
        url = through(pooler)
        if request.param == "sync":
            return Site(lambda: perdure.open_store(url), clock.advance)
        return Site(lambda: Awaited(PostgresStore(url)), clock.advance)


class Trips:
    """Counts what goes to the server while a block runs."""

    def __init__(self, pooler: Pooler) -> None:
        self._pooler = pooler
        self._before = pooler.round_trips

    @property
    def count(self) -> int:
        return self._pooler.round_trips - self._before


@pytest.mark.parametrize("kind", ["sync", "async", "the caller's pool"])
def test_every_operation_is_one_round_trip(pooler: Pooler, kind: str) -> None:
    """With the caller's pool as well, whose connections open a transaction by themselves."""
    url = through(pooler)
    pool = ConnectionPool(url, min_size=1, max_size=2, open=True) if "pool" in kind else None
    bare = PostgresStore(url) if pool is None else PostgresStore(pool=pool)
    store: Any = Awaited(bare) if kind == "async" else bare
    bench = Bench(Site(lambda: store, lambda seconds: None))
    bench.ask(ops.Leftovers(bench.tenant))  # opens the pool, looks at the schema

    asked: list[type] = []
    perform = store.perform

    def counted(op: Any) -> Any:
        trips = Trips(pooler)
        result = perform(op)
        assert 1 == trips.count, op
        asked.append(type(op))
        return result

    store.perform = counted
    everything(bench)
    assert set(statements.STATEMENTS) == set(asked)
    store.perform = perform
    store.close()
    if pool is not None:
        with pool.connection() as connection:
            assert not connection.autocommit, "a connection goes back as it came"
        pool.close()


def everything(bench: Bench) -> None:
    """Each operation at least once."""
    at = (bench.tenant, bench.upstream)
    ask = bench.ask
    conversation = bench.conversation("conv_1", items=(message("One.", provider_id="msg_1"),))
    turn = bench.taken("Two.", handle="conv_1", dialect="conversations", turn_id="t")
    ask(ops.Renew(bench.tenant, (turn,), 60.0))
    ask(ops.Underway(*at, turn, "resp_1", b"{}"))
    bench.complete(turn, "2", dialect="conversations", response="resp_1")
    bench.fail(bench.taken("Three.", handle="conv_1", dialect="conversations"), "unknown")
    bench.unsettled(conversation)
    ask(ops.Settle(bench.tenant, conversation, 0))
    ask(ops.Intend(*at, "conversations", conversation, "intent"))
    ask(ops.CallOff(bench.tenant, "intent"))
    bench.bind(conversation, 0, "conv_2", lost="conv_1")
    ask(ops.Refresh(*at, "conv_2", b"{}"))
    ask(ops.MarkLost(*at, "conv_1"))
    ask(ops.Discard(*at, "conversations", conversation, "conv_3"))
    (orphan,) = bench.orphans()
    ask(ops.OrphanGone(bench.tenant, orphan.key))
    ask(ops.Leftovers(bench.tenant))
    ask(ops.Throttle(*at, 1.0))
    ask(ops.Throttled(*at))
    ask(ops.Unused(*at, 60.0, 10))
    bench.find("conv_2")
    bench.history(conversation)
    bench.page(conversation)
    ask(ops.OneItem(bench.tenant, None, "msg_1"))
    ask(ops.Runs(bench.tenant, bench.upstream, conversation, newest_first=True, limit=5))
    ask(ops.Learn(bench.tenant, conversation, (message("L"),), whole=True))
    ask(ops.Adopted(bench.tenant, conversation, (message("A"),), done=True))
    ask(ops.Adopting(bench.tenant, conversation))
    ask(ops.BringIn(*at, "threads", "thread_1", (message("B"),), 0, "eve", ("A fact.",)))
    ask(ops.Tombstone(bench.tenant, bench.upstream, conversation, "msg_1"))
    ask(ops.Retire(*at, "conv_2"))
    ask(ops.Pin(bench.tenant, "ann", "Fact."))
    ask(ops.FindSubject(bench.tenant, "ann"))
    ask(ops.ReadHistory(bench.tenant, "ann", 10))
    ask(ops.ReadRecovery(bench.tenant, conversation, 1))
    ask(ops.ReadTurn(bench.tenant, "t"))
    ask(ops.Conversations(bench.tenant, None, 0, 10))
    ask(ops.Index(bench.tenant, conversation, 10))
    ask(ops.Search(bench.tenant, conversation, 9, ("fact",), 9))
    ask(ops.Excerpts(bench.tenant, conversation, 9, ((1, 9),), 9))
    ask(ops.KeepSnapshot(bench.tenant, conversation, Snapshot(1, 1, "a summary", "extractive")))
    ask(ops.DropSnapshots(bench.tenant, conversation))
    ask(ops.Unsummarised(bench.tenant, 1, 10))
    ask(ops.Forget(bench.tenant, "ann"))


def test_a_healthy_turn_is_two_round_trips_and_holds_no_connection(
    pooler: Pooler, database: tuple[str, DatabaseClock]
) -> None:
    _, clock = database
    pool = ConnectionPool(through(pooler), min_size=1, max_size=1, open=True)
    idle_while_sending: list[int] = []

    class Watching(httpx2.HTTPTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            idle_while_sending.append(pool.get_stats()["pool_available"])
            return super().handle_request(request)

    with Provider(clock=clock) as provider:
        transport = perdure.Transport(PostgresStore(pool=pool), inner=Watching())
        client = openai.OpenAI(
            api_key="k",
            base_url=provider.base_url,
            http_client=httpx2.Client(transport=transport),
            max_retries=0,
        )
        conversation = client.conversations.create().id
        client.responses.create(model="gpt-5.6", conversation=conversation, input=FACT)
        idle_while_sending.clear()
        trips = Trips(pooler)

        client.responses.create(model="gpt-5.6", conversation=conversation, input=QUESTION)

        assert 2 == trips.count
        assert [1] == idle_while_sending
        client.close()
    pool.close()


# -- flat ------------------------------------------------------------------------------------


class Costed:
    """Performs operations and notes how many pages of 8 kB each one touched."""

    fast = False

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True, prepare_threshold=None)
        self.pages: dict[str, list[int]] = {}

        self.counts = True

    def perform(self, op: Any) -> Any:
        statement = statements.STATEMENTS[type(op)]
        query, values = queries("perdure")[statement.name].encode(), parameters(op)
        with psycopg.Cursor(self.connection) as cursor:
            before = self._touched() if self.counts else 0
            cursor.execute(query, values)
            rows = cursor.fetchall() if cursor.description else []
            if self.counts:
                self.pages.setdefault(statement.name, []).append(self._touched() - before)
        return statement.result(op, rows)

    @contextmanager
    def filled(self) -> Iterator[None]:
        """Perform operations in one transaction, uncounted."""
        self.counts = False
        with self.connection.transaction():
            yield
        self.counts = True

    def _touched(self) -> int:
        """Pages that sessions have read, in memory or not; this is the only one at work."""
        self.connection.execute("SELECT pg_stat_force_next_flush()")
        (count,) = self.connection.execute(
            "SELECT sum(hits + reads) FROM pg_stat_io WHERE backend_type = 'client backend' "
            "AND object = 'relation'"
        ).fetchone() or (0,)
        return int(count)

    def close(self) -> None:
        self.connection.close()


# What the planner believes while a log or a tenant is large: nothing yet; that each is small, as
# most are; that the tables are all but empty, as in the middle of the write that fills them.
BELIEFS = ["nothing", "small", "empty"]


@pytest.mark.slow
@pytest.mark.parametrize("belief", BELIEFS)
def test_an_operation_touches_no_more_of_a_long_history_than_of_a_short_one(belief: str) -> None:
    """Also with the plans that were made when there was next to nothing in the tables."""
    with postgres().database() as url, closing(Costed(url)) as store:
        leave_statistics_alone(store)
        bench = Bench(Site(lambda: store, lambda seconds: None))
        few = work_on(bench, store, "conv_few", 10)
        if belief == "small":
            with store.filled():
                for number in range(MANY):
                    bench.conversation(f"conv_{number}", "Hello.")
                    bench.exchange("Question.", "Answer.", f"resp_{number}")
        store.connection.execute("VACUUM ANALYZE")
        few_again = work_on(bench, store, "conv_few_again", 10)
        many = work_on(bench, store, "conv_many", LONG, analysed=url if belief == "empty" else None)
    assert few.keys() == many.keys()
    for name, pages in many.items():
        assert pages <= 2 * max(few[name], few_again[name]) + 20, (name, few, few_again, many)


def leave_statistics_alone(store: Costed) -> None:
    for table in ("conversation", "turn", "item", "handle", "orphan", "recovery"):
        store.connection.execute(
            f"ALTER TABLE perdure.{table} SET (autovacuum_enabled = off)".encode()
        )


def work_on(
    bench: Bench, store: Costed, handle: str, length: int, analysed: str | None = None
) -> dict[str, int]:
    """Let operations run on a conversation of so many items, and a hundredth as many turns.

    Returns the most pages that each one touched.

    The first round is left out: it reads what the server knows of its own tables.
    """
    items = tuple(message(f"Item {n}.", provider_id=f"{handle}-{n}") for n in range(length))
    with store.filled():
        conversation = bench.conversation(handle, items=items, subject=handle)
        if analysed is not None:
            with psycopg.connect(analysed, autocommit=True) as another:
                another.execute("ANALYZE")
    # As autovacuum does: what was entered last stands in a list that is read whole, 4 MB at most.
    store.connection.execute("SELECT gin_clean_pending_list('perdure.item_said')")
    with store.filled():
        for number in range(length // 100):
            turn = bench.taken("Before.", handle=handle, dialect="conversations")
            bench.complete(turn, "Answer.", dialect="conversations", response=f"{handle}-b{number}")
    for number in range(ROUNDS):
        if number == 1:
            store.pages.clear()
        turn = bench.taken("Question.", handle=handle, dialect="conversations")
        response = f"{handle}-r{number}"
        bench.complete(turn, "Answer.", dialect="conversations", response=response)
        bench.found(handle)
        bench.found(response)
        assert len(bench.history(conversation, budget=200).items) > 1
        bench.page(conversation, limit=20, newest_first=True)
        bench.page(conversation, limit=2, after=f"{handle}-3")
        bench.page(conversation, turn_response=response)
        bench.ask(ops.OneItem(bench.tenant, None, f"{handle}-5"))
        bench.unsettled(conversation)
        through = bench.found(handle).last_position
        bench.ask(ops.Search(bench.tenant, conversation, through, ("7",), 9))
        bench.ask(ops.Excerpts(bench.tenant, conversation, through, ((6, 9),), 9))
        assert bench.ask(ops.ReadHistory(bench.tenant, handle, 20))[-1].turn_id
        left = bench.taken("Refused.", handle=handle, dialect="conversations")
        bench.fail(left, withdrawn=True)
        learnt = (items[-1], message("Learnt.", provider_id=f"{handle}-l{number}"))
        bench.ask(ops.Learn(bench.tenant, conversation, learnt, whole=False))
        bench.ask(ops.Tombstone(bench.tenant, bench.upstream, conversation, f"{handle}-{number}"))
    return {name: max(pages) for name, pages in store.pages.items()}


@pytest.mark.slow
@pytest.mark.parametrize("belief", BELIEFS)
def test_an_operation_touches_no_more_of_many_conversations_than_of_few(belief: str) -> None:
    """With the plans that were made when there was nothing, and no statistics since."""
    with postgres().database() as url, closing(Costed(url)) as store:
        leave_statistics_alone(store)
        if belief == "small":
            with store.filled():
                for _ in range(MANY):
                    another = Bench(Site(lambda: store, lambda seconds: None))
                    work_on_another(another, 0)
                    work_on_another(another, 1)
            store.connection.execute("VACUUM ANALYZE")
        bench = Bench(Site(lambda: store, lambda seconds: None))
        for number in range(10):
            work_on_another(bench, number)
        few = {name: max(pages[-4:]) for name, pages in store.pages.items()}
        with store.filled():
            for number in range(10, MANY):
                work_on_another(bench, number)
            for number in range(5 * MANY):
                bench.conversation(f"more_{number}", "Hello.", subject=f"more-{number}")
                bench.exchange("Question.", "Answer.", f"m_{number}", turn_id=f"more-{number}")
                for place in range(2):  # the second one is a branch
                    bench.exchange(
                        f"{place}", "Answer.", f"m_{number}_{place}", handle=f"m_{number}"
                    )
            if belief == "empty":
                with psycopg.connect(url, autocommit=True) as other:
                    other.execute("ANALYZE")
        for number in range(MANY, MANY + 10):
            work_on_another(bench, number)
    for name, pages in store.pages.items():
        assert max(pages[-4:]) <= 2 * few[name] + 20, (name, few[name], pages[-4:])


def work_on_another(bench: Bench, number: int) -> None:
    """Let operations run on conversations of their own."""
    handle, subject = f"conv_{number}", f"user-{number}"
    conversation = bench.conversation(handle, "Hello.")
    shared: dict[str, Any] = {"handle": handle, "dialect": "conversations"}
    turn = bench.taken("Question.", **shared, turn_id=f"turn-{number}")
    bench.complete(turn, "Answer.", dialect="conversations", response=f"shared_{number}")
    assert "bound" == bench.bind(conversation, 0, f"new_{number}", lost=handle, orphan=True)
    bench.exchange("Question.", "Answer.", f"resp_{number}", turn_id=f"chain-{number}")
    bench.exchange("Question.", "Answer.", f"next_{number}", handle=f"resp_{number}")
    bench.exchange("Another.", "Answer.", f"branch_{number}", handle=f"resp_{number}")
    bench.exchange("Question.", "Answer.", f"chat_{number}", subject=subject)
    under_way = bench.taken("Question.", subject=subject)
    at = (bench.tenant, bench.upstream)
    bench.ask(ops.Underway(*at, under_way, f"later_{number}", b"{}"))
    bench.fail(under_way)
    bench.found(handle)
    assert bench.find(f"nothing_{number}") is None
    bench.page(conversation, turn_response=f"shared_{number}")
    bench.ask(ops.OneItem(bench.tenant, None, f"shared_{number}-0"))
    bench.ask(ops.ReadTurn(bench.tenant, f"turn-{number}"))
    bench.ask(ops.FindSubject(bench.tenant, subject))
    bench.ask(ops.MarkLost(*at, f"new_{number}"))
    bench.ask(ops.Retire(*at, f"next_{number}"))
    bench.ask(ops.DropSnapshots(bench.tenant, conversation))
    bench.ask(ops.Forget(bench.tenant, subject))
