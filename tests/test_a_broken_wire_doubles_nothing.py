"""Whatever the network does to a call, what was said stands there once, and was answered once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import openai
import openai._base_client
import pytest

import perdure
from perdure.dialects.items import text_of
from perdure.engine.ops import Leftovers
from perdure.transport import client as clients
from tests.proxy import Proxy, Wire
from tests.world import MODEL, App, World

pytestmark = pytest.mark.slow  # a large matrix that waits for its timeouts

DOG = "My dog is called Rex."
CAT = "My cat is called Tom."
WHOSE = "What is my dog called?"
TIMEOUT_SECONDS = 0.2
ANSWERED_IN_SECONDS = 5.0  # three attempts of the SDK's, three of the app's, and a slow machine
ATTEMPTS = 3
A_CREATE_IS_OVER_SECONDS = 601  # until then it is not counted as one whose outcome was never learnt
BROKEN = (openai.APIError, clients._library(None, None).TransportError)

WIRES = {
    "latency": Wire("dribble"),
    "cut before the answer": Wire("close"),
    "cut in the head": Wire("close", 20),
    "cut in the body": Wire("close", 0.5),
    "cut before the last byte": Wire("close", -1),
    "reset before the request": Wire("reset", request="never"),
    "reset before the answer": Wire("reset"),
    "reset in the body": Wire("reset", 0.5),
    "half-closed before the answer": Wire("half-close"),
    "half-closed in the body": Wire("half-close", 0.5),
    "a black hole": Wire("silence", request="never"),
    "silence in the body": Wire("silence", 0.5),
    "an answer after the timeout": Wire("late"),
    "a request after the timeout": Wire("silence", request="given up"),
    "a request after everything": Wire("silence", request="released"),
}
#: Where what came through is shown before the end is known to be missing.
IN_THE_BODY = [name for name in WIRES if name.endswith("in the body")]
each_wire = pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the SDK try again at once; how long it waits is not ours."""
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.0)


@pytest.fixture
def proxy(world: World) -> Iterator[Proxy]:
    with Proxy(world.provider.base_url) as between:
        yield between


@pytest.fixture
def app(world: World, proxy: Proxy) -> App:
    """An app whose calls go through the proxy, impatient, with the SDK's own repeats."""
    sleep = time.sleep if world.colour == "sync" else asyncio.sleep
    # What waits for the disk is not what breaks here.
    store = perdure.open_store(
        f"sqlite:///{world.database}?synchronous=normal", clock=world.clock.now
    )
    sdk = world.app(store=store, sleep=sleep).sdk
    return App(
        world,
        sdk.with_options(base_url=proxy.base_url, timeout=TIMEOUT_SECONDS, max_retries=2),
    )


def talking(app: App) -> str:
    """A conversation with something in it to remember."""
    conversation: str = app.call("conversations.create").id
    app.respond(DOG, conversation=conversation)
    return conversation


def until_it_works(world: World, call: Any) -> Any:
    """Do what an app does: the same again. Nothing hangs meanwhile."""
    began = time.monotonic()
    for attempt in range(ATTEMPTS):
        try:
            answer = call()
        except BROKEN:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            assert time.monotonic() - began < ANSWERED_IN_SECONDS
            return answer
    return None


def log(world: World) -> list[tuple[str, str]]:
    """Who said what, by the journal."""
    return [
        (role, text_of(json.loads(wire)))
        for role, wire in world.rows(
            "SELECT role, wire FROM perdure_item WHERE withdrawn = 0 ORDER BY key"
        )
    ]


def replica(world: World) -> list[tuple[str, str]]:
    """Who said what, by the live replica, of which there is one."""
    ((handle,),) = world.rows(
        "SELECT handle FROM perdure_handle WHERE kind = 'conversation' AND state = 'live'"
    )
    assert [(handle, "live")] == world.rows(
        "SELECT replica_handle, replica_state FROM perdure_conversation"
    )
    return [(item["role"], text_of(item)) for item in world.provider.items(handle)]


def unaccounted(world: World) -> int:
    """Remote conversations that are not bound and not written down as leftovers."""
    world.clock.advance(A_CREATE_IS_OVER_SECONDS)
    known = {handle for (handle,) in world.rows("SELECT handle FROM perdure_handle")}
    known |= {handle for (handle,) in world.rows("SELECT handle FROM perdure_orphan")}
    store = world.store()
    creates: int = store.perform(Leftovers("default")).creates
    store.close()
    return max(0, len(set(world.provider.state.conversations) - known) - creates)


def settled(world: World, app: App, proxy: Proxy, conversation: str, said: list[str]) -> None:
    """Everything was said once, in this order, and is remembered; here and there alike."""
    reply = until_it_works(world, lambda: app.respond(WHOSE, conversation=conversation))
    proxy.release()
    world.drain()

    assert DOG in reply.output_text
    expected = [*said, WHOSE, f"-> {reply.output_text}"]
    assert expected == [text if role == "user" else f"-> {text}" for role, text in log(world)]
    assert log(world) == replica(world)
    assert [("answered",)] == world.rows("SELECT DISTINCT state FROM perdure_turn")
    assert 0 == unaccounted(world)
    assert [("ok",)] == world.rows("PRAGMA integrity_check")


NOTED = [DOG, f"-> Noted: {DOG}"]


@each_wire
def test_a_conversation_is_created(world: World, app: App, proxy: Proxy, wire: Wire) -> None:
    proxy.order("POST /v1/conversations ", wire)

    conversation = until_it_works(world, lambda: app.call("conversations.create")).id

    app.respond(DOG, conversation=conversation)
    assert 1 == len(proxy.met)
    settled(world, app, proxy, conversation, NOTED)


@each_wire
def test_an_item_is_appended(world: World, app: App, proxy: Proxy, wire: Wire) -> None:
    conversation = talking(app)
    proxy.order("POST /v1/conversations/.*/items", wire)
    item = {"type": "message", "role": "user", "content": CAT}

    listed = until_it_works(
        world,
        lambda: app.call(
            "conversations.items.create", conversation_id=conversation, items=[item]
        ),
    )  # fmt: skip

    assert [CAT] == [one.content[0].text for one in listed.data]
    assert 1 == len(proxy.met)
    settled(world, app, proxy, conversation, [*NOTED, CAT])


@each_wire
def test_a_message_is_sent(world: World, app: App, proxy: Proxy, wire: Wire) -> None:
    conversation = talking(app)
    proxy.order("POST /v1/responses ", wire)

    reply = until_it_works(world, lambda: app.respond(CAT, conversation=conversation))

    assert f"Noted: {CAT}" == reply.output_text
    assert 1 == len(proxy.met)
    settled(world, app, proxy, conversation, [*NOTED, CAT, f"-> Noted: {CAT}"])


class Reader:
    """An app that shows a stream while it comes."""

    def __init__(self, app: App, conversation: str) -> None:
        self.app = app
        self.conversation = conversation
        self.shown: list[str] = []

    def read(self) -> str:
        """Show one stream; the whole text, or the error in the middle."""
        self.shown.append("")
        request = {"model": MODEL, "input": CAT, "conversation": self.conversation}
        stream = self.app.call("responses.create", stream=True, **request)
        if self.app.world.colour == "sync":
            with stream:
                for event in stream:
                    self.show(event)
        else:
            self.app.world.wait(self.read_async(stream))
        return self.shown[-1]

    async def read_async(self, stream: Any) -> None:
        async with stream:
            async for event in stream:
                self.show(event)

    def show(self, event: Any) -> None:
        if event.type == "response.output_text.delta":
            self.shown[-1] += event.delta


@pytest.mark.parametrize("name", sorted(set(WIRES) - {"cut before the last byte"}))
def test_a_message_is_answered_in_a_stream(world: World, app: App, proxy: Proxy, name: str) -> None:
    reader = Reader(app, talking(app))
    proxy.order("POST /v1/responses ", WIRES[name])

    assert f"Noted: {CAT}" == until_it_works(world, reader.read)

    assert 1 == len(proxy.met)
    settled(world, app, proxy, reader.conversation, [*NOTED, CAT, f"-> Noted: {CAT}"])


@pytest.mark.parametrize("name", IN_THE_BODY)
def test_a_stream_that_breaks_says_so_and_what_was_shown_stays(
    world: World, app: App, proxy: Proxy, name: str
) -> None:
    reader = Reader(app, talking(app))
    proxy.order("POST /v1/responses ", WIRES[name])

    with pytest.raises(BROKEN):
        reader.read()

    (shown,) = reader.shown
    assert f"Noted: {CAT}".startswith(shown)
    assert shown
    assert [("user", CAT), ("assistant", shown)] == log(world)[2:]
    assert [("unknown",)] == world.rows("SELECT state FROM perdure_turn WHERE seq = 2")


@pytest.mark.parametrize("end", ["close", "reset", "half-close", "silence"])
def test_a_stream_that_breaks_behind_its_terminal_event_is_whole(
    world: World, app: App, proxy: Proxy, end: Any
) -> None:
    reader = Reader(app, talking(app))
    proxy.order("POST /v1/responses ", Wire(end, -1))

    assert f"Noted: {CAT}" == until_it_works(world, reader.read)

    settled(world, app, proxy, reader.conversation, [*NOTED, CAT, f"-> Noted: {CAT}"])


@each_wire
def test_a_conversation_is_deleted(world: World, app: App, proxy: Proxy, wire: Wire) -> None:
    conversation = talking(app)
    proxy.order("DELETE /v1/conversations/", wire)

    with suppress(openai.NotFoundError):  # the SDK's own repeat is told so without perdure as well
        assert until_it_works(
            world, lambda: app.call("conversations.delete", conversation_id=conversation)
        ).deleted

    with pytest.raises(openai.NotFoundError):
        app.respond(WHOSE, conversation=conversation)
    proxy.release()
    world.drain()
    assert 1 == len(proxy.met)
    assert {} == world.provider.state.conversations
    assert [DOG, f"Noted: {DOG}"] == [text for _, text in log(world)]
    assert [("retired",)] == world.rows("SELECT replica_state FROM perdure_conversation")
    assert 0 == unaccounted(world)
