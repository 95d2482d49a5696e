"""However many workers meet a loss at the same time, one replica takes the lost one's place."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import httpx2
import openai
import pytest

from perdure.engine import ops
from perdure.testing import Fault
from tests.world import App, World

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
WORKERS = 8


def at_once(world: World, work: Any) -> list[Any]:
    """Let workers do the same thing at the same time, each with a store and client of its own."""
    # Real sleep: workers that wait must not turn the clock under the one that works.
    apps = [world.app(sleep=time.sleep) for _ in range(WORKERS)]
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(work, apps))


def created(world: World, path: str) -> int:
    return sum(
        (request.method, request.path) == ("POST", path) for request in world.provider.requests
    )


def test_readers_of_a_lost_conversation(sync_world: World) -> None:
    app = sync_world.app()
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    sync_world.forgets()

    seen = at_once(
        sync_world,
        lambda worker: worker.call("conversations.retrieve", conversation_id=conversation).id,
    )
    sync_world.drain()

    ((live, generation),) = sync_world.rows(
        "SELECT replica_handle, generation FROM perdure_conversation"
    )
    assert 1 == generation
    assert live in seen
    assert [live] == list(sync_world.provider.state.conversations)
    assert created(sync_world, "/v1/conversations") - 1 == len(
        sync_world.rows("SELECT 1 FROM perdure_orphan WHERE deleted_at IS NOT NULL")
    )
    assert FACT in app.respond(QUESTION, conversation=conversation).output_text


@pytest.mark.parametrize("same", [False, True], ids=["different messages", "one message"])
def test_messages_on_a_lost_conversation(sync_world: World, *, same: bool) -> None:
    app = sync_world.app()
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    sync_world.forgets()
    numbers = count()

    def ask(worker: App) -> str:
        message = QUESTION if same else f"{QUESTION} I ask for the {next(numbers)}th time."
        text: str = worker.respond(message, conversation=conversation).output_text
        return text

    said = at_once(sync_world, ask)

    assert WORKERS == sum(FACT in text for text in said)
    assert 1 == created(sync_world, "/v1/conversations")
    assert [(1,)] == sync_world.rows("SELECT generation FROM perdure_conversation")
    asked = sync_world.rows("SELECT count(*) FROM perdure_item WHERE role = 'user'")[0][0]
    assert asked == 1 + WORKERS if not same else 1 < asked <= 1 + WORKERS


@pytest.mark.parametrize("call", ["a message", "a look"])
def test_what_another_worker_made_is_lost_as_well(sync_world: World, call: str) -> None:
    """A call makes one new replica; that of another worker is to it as any that may be lost."""
    conversation = sync_world.app().call("conversations.create").id
    sync_world.app().respond(FACT, conversation=conversation)
    other = sync_world.app()

    def another_is_faster() -> None:
        other.call("conversations.retrieve", conversation_id=conversation)
        sync_world.provider.forget()

    between = Between("/conversations", another_is_faster)
    app = sync_world.app(inner=between)
    sync_world.forgets()

    if call == "a message":
        assert FACT in app.respond(QUESTION, conversation=conversation).output_text
    else:
        assert app.call("conversations.retrieve", conversation_id=conversation).id != conversation
    assert between.happened
    assert [(2,)] == sync_world.rows("SELECT generation FROM perdure_conversation")


def test_what_the_call_itself_made_is_lost_as_well(sync_world: World) -> None:
    """A server that loses everything at once is not given one replica after the other."""
    conversation = sync_world.app().call("conversations.create").id
    sync_world.app().respond(FACT, conversation=conversation)
    between = Between("/responses", sync_world.provider.forget, after=1)
    app = sync_world.app(inner=between)
    sync_world.forgets()

    with pytest.raises(openai.NotFoundError):
        app.respond(QUESTION, conversation=conversation)
    assert between.happened
    assert [(1,)] == sync_world.rows("SELECT generation FROM perdure_conversation")
    assert FACT in app.respond(QUESTION, conversation=conversation).output_text
    assert [(2,)] == sync_world.rows("SELECT generation FROM perdure_conversation")


class Between(httpx2.BaseTransport):
    """A wire on which something happens once, just before a POST to a path is sent."""

    def __init__(self, path: str, what: Callable[[], object], *, after: int = 0) -> None:
        self._inner = httpx2.HTTPTransport()
        self._path, self._what, self._left = path, what, after
        self.happened = False

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST" and request.url.path.endswith(self._path):
            if self._left == 0:
                self.happened = True
                self._what()
            self._left -= 1
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


def test_the_store_binds_one_of_two(sync_world: World) -> None:
    app = sync_world.app()
    conversation = app.call("conversations.create").id
    store = sync_world.store()
    upstream = sync_world.provider.base_url
    found = store.perform(ops.Find("default", upstream, conversation))

    def bind(handle: str) -> str:
        bound: str = store.perform(
            ops.Bind(
                tenant="default",
                upstream=upstream,
                dialect="conversations",
                conversation=found.conversation,
                generation=0,
                handle=handle,
                intent="none",
                primed_through=0,
                lost=conversation,
            )
        )
        return bound

    assert ["bound", "beaten", "taken"] == [bind("conv_a"), bind("conv_b"), bind("conv_a")]
    assert [("conv_b",)] == sync_world.rows("SELECT handle FROM perdure_orphan")
    store.close()


def test_a_call_that_is_overtaken_is_made_again(sync_world: World) -> None:
    """What it was answered from is not what the log says any more: the repeat gets the answer."""
    app = sync_world.app()
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    slow, quick = sync_world.app(sleep=time.sleep), sync_world.app(sleep=time.sleep)
    sync_world.provider.order(Fault("delay", seconds=1.0, match="POST /responses$"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(slow.respond, "My cat is called Tom.", conversation=conversation)
        while not sync_world.rows("SELECT 1 FROM perdure_turn WHERE state = 'delivering'"):
            time.sleep(0.01)
        sync_world.clock.advance(61)
        second = quick.respond("My horse is called Bella.", conversation=conversation)
        with pytest.raises(openai.ConflictError) as overtaken:
            waiting.result(timeout=30)

    assert "turn_overtaken" == overtaken.value.code
    assert "true" == overtaken.value.response.headers["x-should-retry"]
    first = slow.respond("My cat is called Tom.", conversation=conversation)
    third = app.respond("What are my cat and my horse called?", conversation=conversation)

    assert "Tom" in first.output_text
    assert "Bella" in second.output_text
    assert "Tom" in third.output_text
    assert "Bella" in third.output_text
    replies = sync_world.rows(
        "SELECT turn_seq, count(*) FROM perdure_item WHERE role = 'assistant' GROUP BY turn_seq"
    )
    assert {1} == {count for _, count in replies}
