"""The Redis store keeps the contract of engine/ops on Valkey, and carries whole conversations."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

import perdure
from perdure.engine import ops
from perdure.stores.redis import RedisStore
from perdure.testing import Clock
from perdure.testing.conformance import Awaited, Bench, Site, StoreConformance
from tests.test_every_store_keeps_the_contract import BOTH_FACES
from tests.valkey_server import valkey
from tests.world import MODEL, World, recovered

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
WORKERS = 8


class TestValkey(StoreConformance):
    @pytest.fixture(params=BOTH_FACES)
    def site(self, request: pytest.FixtureRequest) -> Site:
        clock, url = Clock(), valkey().url
        face: Callable[[Any], Any] = Awaited if request.param == "async" else lambda store: store
        return Site(lambda: face(perdure.open_store(url, clock=clock.now)), clock.advance)


def test_a_refused_message_that_is_sent_again_later_is_kept_once() -> None:
    clock = Clock()
    bench = Bench(Site(lambda: perdure.open_store(valkey().url, clock=clock.now), clock.advance))
    shared: Any = {"subject": "ann", "dialect": "conversations"}
    with closing(bench):
        bench.fail(bench.taken("One.", **shared, turn_id="one"), withdrawn=True)
        bench.complete(bench.taken("Two.", **shared), "2", dialect="conversations")
        bench.taken("One.", **shared, turn_id="one")
        entries = bench.ask(ops.ReadHistory(bench.tenant, "ann", 10))
        assert ["Two.", "2", "One."] == [entry.text for entry in entries]
        assert 3 == bench.ask(ops.Forget(bench.tenant, "ann")).items


class ValkeyWorld(World):
    """A world whose store is on Valkey, under keys of its own."""

    def __init__(self, colour: Any, folder: Path) -> None:
        super().__init__(colour, folder)
        self.prefix = uuid.uuid4().hex

    def store(self) -> Any:
        """A store on this world's keys and clock, as another process would open it."""
        return RedisStore(valkey().url, prefix=self.prefix, clock=self.clock.now)

    def ask(self, op: Any) -> Any:
        """What the store says to one operation."""
        store = self.store()
        try:
            return store.perform(op)
        finally:
            store.close()

    def find(self, handle: str) -> ops.Found:
        """What the store knows of a handle."""
        found = self.ask(ops.Find("default", self.provider.base_url, handle))
        assert found is not None
        return found  # type: ignore[no-any-return]


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ValkeyWorld]:
    world = ValkeyWorld(request.param, tmp_path)
    world.provider.start()
    yield world
    world.close()


@pytest.fixture
def sync_world(tmp_path: Path) -> Iterator[ValkeyWorld]:
    world = ValkeyWorld("sync", tmp_path)
    world.provider.start()
    yield world
    world.close()


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("via", ["responses", "conversations"])
def test_a_lost_replica_recovers(world: ValkeyWorld, via: str, *, streamed: bool) -> None:
    app = world.app()
    ask = app.stream if streamed else app.respond
    if via == "responses":
        lost = ask(FACT).id
        handle = {"previous_response_id": lost}
    else:
        lost = app.call("conversations.create").id
        handle = {"conversation": lost}
        ask(FACT, **handle)
    world.forgets(lost)

    answer = ask(QUESTION, **handle)

    assert FACT in answer.output_text
    assert {"memory": "full", "lost_handle": lost}.items() <= (recovered(answer) or {}).items()
    found = world.find(lost)
    assert ("lost", 1) == (found.state, found.replica.generation)
    kept = world.ask(ops.ReadRecovery("default", found.conversation, 1))
    assert ("full", lost) == (kept.memory, kept.lost_handle)


def test_a_lost_thread_recovers(world: ValkeyWorld) -> None:
    app = world.app()
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    world.forgets(thread)

    assert FACT in app.say(thread, assistant, QUESTION)

    found = world.find(thread)
    assert ("lost", 1, "live") == (found.state, found.replica.generation, found.replica.state)


def test_many_workers_meet_one_loss(sync_world: ValkeyWorld) -> None:
    app = sync_world.app()
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    sync_world.forgets()
    # Real sleep: workers that wait must not turn the clock under the one that works.
    apps = [sync_world.app(sleep=time.sleep) for _ in range(WORKERS)]

    def ask(number: int) -> str:
        answer = apps[number].respond(f"{QUESTION} (worker {number})", conversation=conversation)
        text: str = answer.output_text
        return text

    with ThreadPoolExecutor(WORKERS) as pool:
        said = list(pool.map(ask, range(WORKERS)))

    assert [FACT in text for text in said] == [True] * WORKERS
    creates = [
        request
        for request in sync_world.provider.requests
        if (request.method, request.path) == ("POST", "/v1/conversations")
    ]
    assert 1 == len(creates)
    found = sync_world.find(conversation)
    assert 1 == found.replica.generation
    span = sync_world.ask(ops.History("default", found.conversation, 10**9, 10**9))
    assert 2 * (1 + WORKERS) == len(span.items)


def test_chat_talks_pins_recovers_and_forgets(world: ValkeyWorld) -> None:
    chat = world.chat()
    first = chat.send("ann", FACT)
    chat.pin("ann", "Allergic to penicillin.")
    world.forgets(first.response.id)

    reply = chat.send("ann", QUESTION)

    assert FACT in reply.text
    assert reply.recovery is not None
    assert "full" == reply.recovery.memory
    assert [FACT, QUESTION] == [entry.text for entry in chat.history("ann") if entry.role == "user"]
    chat.forget("ann")
    world.drain()
    assert [] == list(chat.history("ann"))
    with redis.Redis(unix_socket_path=valkey().socket) as client:
        kept = sorted(key.decode() for key in client.scan_iter(match=f"*{world.prefix}*"))
        values = [client.dump(key) for key in kept]
    assert not any(b"Rex" in value for value in values)
    # The format, and the number of the newest orphan: nothing of a conversation.
    assert [f"{world.prefix}:format", f"{{{world.prefix}:default}}:on"] == kept


def test_chat_streams(world: ValkeyWorld) -> None:
    chat = world.chat(model=MODEL)
    pieces, reply = chat.stream("ann", FACT)
    assert reply.text == "".join(pieces)
    assert FACT in chat.send("ann", QUESTION).text
