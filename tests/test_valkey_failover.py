"""A failover that loses the newest writes puts no answer where it does not belong."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from perdure.engine import ops
from perdure.errors import StoreUnavailable
from perdure.stores.redis import RedisStore
from perdure.testing.conformance import Bench, Site
from tests.valkey_server import Valkey, valkey

SECONDS = 20.0


@pytest.fixture
def pair() -> Iterator[tuple[Valkey, Valkey]]:
    """A primary and its replica, in step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    primary = valkey(f"port {port}", "bind 127.0.0.1", "repl-diskless-sync-delay 0")
    replica = valkey(f"replicaof 127.0.0.1 {port}")
    with redis.Redis(unix_socket_path=replica.socket) as client:
        until = time.monotonic() + SECONDS
        while client.info("replication")["master_link_status"] != "up":
            assert time.monotonic() < until, "the replica does not follow"
            time.sleep(0.02)
    yield primary, replica
    replica.stop()
    primary.stop()


def bench_on(server: Valkey, tenant: str | None = None) -> Bench:
    return Bench(Site(lambda: RedisStore(f"{server.url}?replicas=0"), lambda _: None), tenant)


def test_a_worker_from_before_writes_to_nothing(pair: tuple[Valkey, Valkey]) -> None:
    primary, replica = pair
    with closing(RedisStore(f"{primary.url}?replicas=1")) as careful:
        assert 1 == careful.perform(ops.Pin("default", "ann", "kept"))  # the replica has it
    with (
        closing(bench_on(primary)) as before,
        redis.Redis(unix_socket_path=replica.socket) as promoted,
    ):
        promoted.replicaof("NO", "ONE")
        lost = before.taken("My secret.")
        with closing(bench_on(replica, before.tenant)) as after:
            after.upstream = before.upstream
            assert 2 == after.ask(ops.Pin("default", "ann", "more"))
            stranger = after.taken("Hello.")
            assert (lost.seq, lost.epoch) == (stranger.seq, stranger.epoch)
            assert "fenced" == after.complete(lost, "For your secret: …", response="resp_1")
            assert ["Hello."] == after.said(stranger.conversation)
    with (
        closing(RedisStore(f"{primary.url}?replicas=1")) as careful,
        pytest.raises(StoreUnavailable, match="0 replicas have it"),
    ):
        careful.perform(ops.Pin("default", "ann", "alone"))


def test_a_named_turn_at_the_same_place_is_another(pair: tuple[Valkey, Valkey]) -> None:
    primary, replica = pair
    with closing(bench_on(primary)) as before:
        with closing(RedisStore(f"{primary.url}?replicas=1")) as careful:
            first = before.exchange("One.", "1", "resp_1", subject="ann", turn_id="one")
            careful.perform(ops.Pin("default", "bob", "and all before it"))
        with redis.Redis(unix_socket_path=replica.socket) as promoted:
            promoted.replicaof("NO", "ONE")
        lost = before.taken("Two.", subject="ann", turn_id="two")
        with closing(bench_on(replica, before.tenant)) as after:
            after.upstream = before.upstream
            other = after.taken("Three.", subject="ann", turn_id="three")
            assert (first.conversation, lost.seq) == (other.conversation, other.seq)
            assert "fenced" == after.complete(lost, "2", response="resp_2")
            assert "done" == after.complete(other, "3", response="resp_3")
            assert ["One.", "1", "Three.", "3"] == after.said(other.conversation)
