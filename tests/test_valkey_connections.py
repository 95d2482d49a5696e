"""What a Redis store says about a server that it cannot use, and does when one goes away."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

import perdure
from perdure.engine import ops
from perdure.errors import (
    ConfigurationError,
    SchemaForeign,
    SchemaTooNew,
    StoreError,
    StoreUnavailable,
)
from perdure.model import Dialect, Snapshot
from perdure.stores.redis import RedisStore
from perdure.stores.redis.connections import Ask
from perdure.stores.redis.scripts import OPERATIONS
from perdure.testing import Provider
from perdure.testing.conformance import Bench, Site
from perdure.testing.conformance.bench import message
from tests.valkey_server import Valkey, valkey

PAGE = (Path(__file__).resolve().parent.parent / "docs/redis.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ANY = ops.FindSubject("default", "ann")


@pytest.fixture
def url() -> str:
    return f"{valkey().url}?prefix={uuid.uuid4().hex}"


@pytest.fixture
def client() -> Iterator[Any]:
    with redis.Redis(unix_socket_path=valkey().socket) as client:
        yield client


@pytest.fixture
def own(request: pytest.FixtureRequest) -> Iterator[Valkey]:
    """A server with settings of its own."""
    server = valkey(*request.param)
    yield server
    server.stop()


def refused(url: str, error: type[Exception], said: str, op: Any = ANY) -> None:
    """Both faces refuse an operation, and say why."""
    with closing(RedisStore(url)) as store, pytest.raises(error, match=said):
        store.perform(op)

    async def ask() -> None:
        store = RedisStore(url)
        try:
            await store.perform_async(op)
        finally:
            await store.aclose()

    with pytest.raises(error, match=said):
        asyncio.run(ask())


# -- opening ---------------------------------------------------------------------------------


def test_each_scheme_opens_a_redis_store() -> None:
    for scheme in ("redis", "rediss", "valkey", "valkeys"):
        store: Any = perdure.open_store(f"{scheme}://db.example:6380/2?prefix=mine")
        assert isinstance(store, RedisStore)
        assert "The Redis database 2 at db.example:6380" == store._where
    assert isinstance(perdure.open_store("unix:///run/it.sock"), RedisStore)


def test_a_missing_extra_is_named() -> None:
    script = """
import sys
sys.modules["redis"] = None
import perdure
try:
    perdure.open_store("redis://localhost")
except perdure.errors.ConfigurationError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "" == done.stderr
    assert "pip install 'perdure[redis]'" in done.stdout


def test_what_cannot_work_is_said_at_once() -> None:
    ways: list[Callable[[], Any]] = [
        RedisStore,
        lambda: RedisStore("redis://a", client=redis.Redis()),
        lambda: RedisStore("http://a"),
        lambda: RedisStore("redis://a?prefix={x}"),
        lambda: RedisStore("redis://a/not-a-number?db=x"),
        lambda: RedisStore(client=object()),
    ]
    for make in ways:
        with pytest.raises(ConfigurationError):
            make()


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    refused(f"unix://{tmp_path}/none", StoreUnavailable, "cannot be used: .*No such file")
    refused("redis://127.0.0.1:1/0", StoreUnavailable, "at 127.0.0.1:1 cannot be used: Error 111")


@pytest.mark.parametrize("own", [["requirepass secret"]], indirect=True)
def test_a_wrong_password(own: Valkey) -> None:
    refused(own.url, StoreError, "Authentication required")
    refused(f"{own.url}?password=wrong", StoreUnavailable, "cannot be used: .*(?i:password)")
    with closing(RedisStore(f"{own.url}?password=secret")) as store:
        assert store.perform(ANY) is None


@pytest.mark.parametrize("own", [["maxmemory-policy allkeys-lru"]], indirect=True)
def test_a_server_that_throws_keys_away(own: Valkey) -> None:
    refused(own.url, StoreError, "maxmemory-policy allkeys-lru.*Set maxmemory-policy noeviction")
    with redis.Redis(unix_socket_path=own.socket) as client:
        assert 0 == client.dbsize()
        client.config_set("maxmemory-policy", "volatile-lru")
    with closing(RedisStore(own.url)) as store:
        assert store.perform(ANY) is None


@pytest.mark.parametrize("own", [["replicaof 127.0.0.1 1"]], indirect=True)
def test_a_replica(own: Valkey) -> None:
    refused(own.url, StoreUnavailable, "is a replica, which takes no writes")


@pytest.mark.parametrize("own", [["cluster-enabled yes"]], indirect=True)
def test_a_cluster(own: Valkey) -> None:
    refused(own.url, StoreError, "is a node of a cluster")


def test_data_of_a_newer_perdure_and_of_others(client: Any, url: str) -> None:
    prefix = url.partition("=")[2]
    client.set(f"{prefix}:format", 2)
    refused(url, SchemaTooNew, "was written by a newer perdure")
    client.set(f"{prefix}:format", "theirs")
    refused(url, SchemaForeign, f"{prefix}:format")
    client.delete(f"{prefix}:format")
    client.rpush(f"{prefix}:format", "theirs")
    refused(url, SchemaForeign, f"{prefix}:format")


def fill(bench: Bench) -> None:
    for number in range(100):
        bench.taken("x" * 500_000, subject=f"s{number}")


@pytest.mark.parametrize("own", [["maxmemory 12mb"]], indirect=True)
def test_a_full_server_refuses_writes_whole_and_goes_on_reading(own: Valkey) -> None:
    bench = Bench(Site(lambda: RedisStore(own.url), lambda seconds: None))
    with closing(bench):
        turn = bench.taken("Hello.", subject="ann")
        with pytest.raises(StoreUnavailable, match="cannot be used: .*memory"):
            fill(bench)
        assert ["Hello."] == bench.said(turn.conversation)
        found = [
            bench.ask(ops.FindSubject(bench.tenant, f"s{number}")) is not None
            for number in range(100)
        ]
        said = bench.ask(ops.FindSubject(bench.tenant, f"s{found.index(False) - 1}"))
        assert said is not None
        assert 1 == len(bench.said(said.conversation)), "what was stored was stored whole"


# -- going on --------------------------------------------------------------------------------


def test_a_server_without_the_scripts_gets_them(client: Any, url: str) -> None:
    with closing(RedisStore(url)) as store:
        assert 1 == store.perform(ops.Pin("default", "ann", "a"))
        client.script_flush()
        assert 2 == store.perform(ops.Pin("default", "ann", "b"))


def test_connections_that_the_server_has_closed_are_replaced(client: Any, url: str) -> None:
    with closing(RedisStore(url)) as store:
        assert 1 == store.perform(ops.Pin("default", "ann", "a"))
        client.client_kill_filter(_type="normal", skipme=True)
        assert 2 == store.perform(ops.Pin("default", "ann", "b"))


def test_a_write_on_a_connection_that_breaks_is_not_sent_twice(url: str) -> None:
    with closing(RedisStore(url)) as store:
        store.perform(ANY)
        pool = store._connections._own_pool()
        connection = pool.get_connection()
        pool.release(connection)
        read = connection.read_response

        def broken(*args: Any, **values: Any) -> Any:
            connection.read_response = read
            read(*args, **values)
            raise redis.ConnectionError("broken by the test")

        connection.read_response = broken
        with pytest.raises(StoreUnavailable, match="may have been stored or not"):
            store.perform(ops.Pin("default", "ann", "a"))
        assert 2 == store.perform(ops.Pin("default", "ann", "b"))
        connection.read_response = broken
        assert store.perform(ANY) is not None, "reading is done again"


def test_a_child_has_connections_of_its_own(url: str) -> None:
    with closing(RedisStore(url)) as store:
        assert 1 == store.perform(ops.Pin("default", "ann", "a"))
        child = os.fork()
        if child == 0:
            try:
                os._exit(int(store.perform(ops.Pin("default", "ann", "b"))))
            except BaseException:  # noqa: BLE001  # a child never goes on with the tests
                os._exit(99)
        assert 2 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert 3 == store.perform(ops.Pin("default", "ann", "c"))


def test_the_callers_own_client_is_used(url: str) -> None:
    prefix = url.partition("=")[2]
    # Texts instead of bytes: the store reads bytes all the same.
    with redis.Redis(unix_socket_path=valkey().socket, decode_responses=True) as client:
        store = RedisStore(client=client, prefix=prefix)
        assert 1 == store.perform(ops.Pin("default", "ann", "a"))
        assert 2 == asyncio.run(store.perform_async(ops.Pin("default", "ann", "b")))
        store.close()
        assert client.ping(), "closing the store leaves it open"

    async def ask() -> Any:
        async with redis.asyncio.Redis(unix_socket_path=valkey().socket) as client:
            store = RedisStore(client=client, prefix=prefix)
            with pytest.raises(ConfigurationError, match="is used in sync code"):
                store.perform(ANY)
            return await store.perform_async(ops.Pin("default", "ann", "c"))

    assert 3 == asyncio.run(ask())


def test_a_write_that_no_replica_has_is_not_confirmed(url: str) -> None:
    with closing(RedisStore(f"{url}&replicas=1")) as store:
        assert store.perform(ANY) is None, "reading waits for nobody"
        with pytest.raises(StoreUnavailable, match="0 replicas have it and 1 were asked for"):
            store.perform(ops.Pin("default", "ann", "a"))


# -- cost ------------------------------------------------------------------------------------


class Counting(RedisStore):
    """A store that counts its round trips."""

    trips = 0

    def _step(self, step: Any) -> Any:
        self.trips += isinstance(step, Ask)
        return super()._step(step)


def test_every_operation_is_one_round_trip(url: str) -> None:
    with closing(Counting(url)) as store:
        bench = Bench(Site(lambda: store, lambda seconds: None))
        asked = set()
        for again in (False, True):
            for op in one_of_each(bench, "again" if again else "first"):
                before = store.trips
                store.perform(op)
                asked.add(type(op))
                if again:
                    assert 1 == store.trips - before, type(op).__name__
        assert set(OPERATIONS) == asked


def one_of_each(bench: Bench, name: str) -> Iterator[Any]:
    """One operation of each kind, on a conversation of its own."""
    conversation = bench.conversation(f"conv_{name}", "One.", subject=name)
    turn = bench.taken("Two.", handle=f"conv_{name}", dialect="conversations")
    tenant, upstream = bench.tenant, bench.upstream
    at: tuple[str, str, Dialect] = (tenant, upstream, "conversations")
    items = (message("x", provider_id=f"msg_{name}"),)
    yield ops.Accept(*at, "respond", None, "h", items, "{}", handle=f"conv_{name}")
    yield ops.Underway(tenant, upstream, turn, f"run_{name}", b"{}")
    yield ops.Renew(tenant, (turn,), 60.0)
    yield ops.Complete(*at, turn, 200, b"{}", "application/json", items)
    yield ops.Fail(tenant, turn, "failed", "because")
    yield ops.Unsettled(tenant, conversation, 0)
    yield ops.Settle(tenant, conversation, 0)
    yield ops.Intend(*at, conversation, f"intent_{name}")
    yield ops.CallOff(tenant, f"intent_{name}")
    yield ops.Bind(*at, conversation, 0, f"conv_{name}_2", "none", 0, lost=f"conv_{name}")
    yield ops.BindNew(*at, f"conv_{name}_3", items, b"{}", "none")
    yield ops.Refresh(tenant, upstream, f"conv_{name}_2", b"{}")
    yield ops.MarkLost(tenant, upstream, f"conv_{name}_2")
    yield ops.Discard(*at, conversation, f"conv_{name}_4")
    yield ops.Retire(tenant, upstream, f"conv_{name}_3")
    yield ops.Tombstone(tenant, upstream, conversation, f"msg_{name}")
    yield ops.Orphans(tenant, upstream, 10)
    yield ops.OrphanGone(tenant, 1)
    yield ops.Leftovers(tenant)
    yield ops.Throttle(tenant, "https://quiet.example", 1.0)
    yield ops.Throttled(tenant, "https://quiet.example")
    yield ops.Find(tenant, upstream, f"conv_{name}")
    yield ops.History(tenant, conversation, 100, 100)
    yield ops.Page(tenant, conversation, newest_first=True, limit=10)
    yield ops.OneItem(tenant, None, f"msg_{name}")
    yield ops.Runs(tenant, upstream, conversation, newest_first=True, limit=10)
    yield ops.Learn(tenant, conversation, items, whole=True)
    yield ops.BringIn(tenant, upstream, "threads", f"thread_{name}", items, 0, f"b_{name}", ("A",))
    yield ops.Adopted(tenant, conversation, items, done=True)
    yield ops.Adopting(tenant, conversation)
    yield ops.FindSubject(tenant, name)
    yield ops.Pin(tenant, name, "a fact")
    yield ops.ReadHistory(tenant, name, 10)
    yield ops.ReadRecovery(tenant, conversation, 1)
    yield ops.ReadTurn(tenant, turn.turn_id)
    yield ops.Conversations(tenant, None, 0, 10)
    yield ops.Index(tenant, conversation, 10)
    yield ops.Search(tenant, conversation, 9, ("fact",), 9)
    yield ops.Excerpts(tenant, conversation, 9, ((1, 9),), 9)
    yield ops.KeepSnapshot(tenant, conversation, Snapshot(1, 1, "a summary", "extractive"))
    yield ops.DropSnapshots(tenant, conversation)
    yield ops.Unsummarised(tenant, 1, 10)
    yield ops.Unused(tenant, upstream, 1000.0, 10)
    yield ops.Forget(tenant, name)


def commands(client: Any) -> int:
    """How many commands the server has carried out, those of scripts included."""
    stats = client.info("commandstats")
    return sum(one["calls"] for name, one in stats.items() if name != "cmdstat_info")


def test_no_operation_costs_more_on_a_longer_log(client: Any, url: str) -> None:
    """Counted in commands on the server, where nothing but the work makes a difference."""

    def cost(length: int) -> dict[str, int]:
        with closing(RedisStore(url)) as store:
            bench = Bench(Site(lambda: store, lambda seconds: None))
            items = tuple(message(f"{n:05}", provider_id=f"msg_{n}") for n in range(length))
            conversation = bench.conversation("conv_1", items=items, subject="ann")
            shared: Any = {"handle": "conv_1", "dialect": "conversations"}
            spent = {}

            def counted(name: str, work: Any) -> Any:
                work()  # the script is there, the connection too
                before = commands(client)
                result = work()
                spent[name] = commands(client) - before
                return result

            def exchange() -> None:
                turn = bench.taken(f"Hello {uuid.uuid4().hex}.", **shared)
                bench.complete(
                    turn, "Yes.", dialect="conversations", response=f"resp_{uuid.uuid4().hex}"
                )

            counted("accept and complete", exchange)
            counted("find", lambda: bench.found("conv_1"))
            counted("history", lambda: bench.history(conversation, budget=100))
            counted("page", lambda: bench.page(conversation, limit=5, newest_first=True))
            counted("page after", lambda: bench.page(conversation, limit=5, after="msg_3"))
            counted("one item", lambda: bench.ask(ops.OneItem(bench.tenant, None, "msg_5")))
            counted("read", lambda: bench.ask(ops.ReadHistory(bench.tenant, "ann", 5)))
            counted("tombstone", lambda: bench.ask(
                ops.Tombstone(bench.tenant, bench.upstream, conversation, "msg_1")
            ))  # fmt: skip
            counted("learn", lambda: bench.ask(
                ops.Learn(bench.tenant, conversation, items[-1:], whole=False)
            ))  # fmt: skip
            return spent

    assert cost(200) == cost(5_000)


@pytest.mark.slow
@pytest.mark.parametrize("code", EXAMPLES, ids=range(len(EXAMPLES)))
def test_a_copy_of_the_docs_code_runs(code: str) -> None:
    server = valkey("maxmemory-policy noeviction")  # one of its own: it is written to
    own = code.replace("redis://127.0.0.1:6379/0", server.url)
    own = own.replace('host="127.0.0.1"', f'unix_socket_path="{server.socket}"')
    own += '\nclient.responses.create(model="gpt-5.6", input="Hello.")\n'
    try:
        with Provider() as provider:
            done = subprocess.run(
                [sys.executable, "-c", own],
                env={
                    **os.environ,
                    "OPENAI_BASE_URL": provider.base_url,
                    "OPENAI_API_KEY": "sk-test",
                },
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        assert ("", 0) == (done.stderr, done.returncode)
        with redis.Redis(unix_socket_path=server.socket) as client:
            assert 1 == len(list(client.scan_iter(match="{perdure:default}:c:*:t:1")))
    finally:
        server.stop()
