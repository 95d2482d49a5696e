"""Whatever a 2xx says: the app sees what it sees without us, and no conversation is locked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from perdure.dialects.sse import Event
from perdure.dialects.streams import ResponseReader, RunReader
from perdure.engine import amnesia
from tests.gateway import JSON, Gateway, Own
from tests.world import LONG, MODEL, App, World, recovered

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
ITEMS = [{"type": "message", "role": "user", "content": "My cat is called Tom."}]
JUNK: dict[str, Own] = {
    "an error": (200, JSON, b'{"error": {"message": "upstream overloaded"}}'),
    "a page": (200, "text/html", b"<html>Please log in</html>"),
    "nothing": (200, "", b""),
    "a list": (200, JSON, b"[]"),
    "null": (200, JSON, b"null"),
    "a text": (200, JSON, b'"ok"'),
    "a text for a list": (200, JSON, b'{"object": "list", "data": "x", "has_more": false}'),
    "a list of texts": (200, JSON, b'{"object": "list", "data": ["x"], "has_more": false}'),
    "items without ids": (200, JSON, b'{"object": "list", "data": [{}], "has_more": false}'),
    "a number for an id": (200, JSON, b'{"id": 5, "object": "thing", "usage": "x"}'),
}
junk = pytest.mark.parametrize("own", JUNK.values(), ids=JUNK)


@pytest.fixture
def app(world: World, gateway: Gateway) -> App:
    """Give an app over perdure, with the gateway in front of its provider."""
    made = world.app()
    made.sdk.base_url = gateway.base_url
    return made


def states(world: World) -> list[str]:
    return [row[0] for row in world.rows("SELECT state FROM perdure_turn ORDER BY seq")]


# -- the app's own requests -----------------------------------------------------------------------


class Places:
    """What an app has at its provider."""

    def __init__(self, app: App) -> None:
        self.conversation = app.call("conversations.create").id
        app.respond(FACT, conversation=self.conversation)
        self.response = app.respond(FACT).id
        self.thread, self.assistant = app.thread()
        app.say(self.thread, self.assistant, FACT)
        self.run = app.call("beta.threads.runs.list", thread_id=self.thread).data[0].id
        listed = app.call("conversations.items.list", conversation_id=self.conversation)
        self.item = listed.data[0].id


Asking = Callable[[Places], tuple[str, dict[str, Any]]]
ROUTES: dict[str, Asking] = {
    "POST /conversations": lambda _: ("conversations.{}.create", {}),
    "POST /conversations/[^/]+/items": lambda at: (
        "conversations.items.{}.create",
        {"conversation_id": at.conversation, "items": ITEMS},
    ),
    "GET /conversations/[^/]+/items": lambda at: (
        "conversations.items.{}.list",
        {"conversation_id": at.conversation},
    ),
    "GET /conversations/[^/]+/items/[^/]+": lambda at: (
        "conversations.items.{}.retrieve",
        {"conversation_id": at.conversation, "item_id": at.item},
    ),
    "GET /conversations/[^/]+": lambda at: (
        "conversations.{}.retrieve",
        {"conversation_id": at.conversation},
    ),
    "GET /responses/[^/]+": lambda at: ("responses.{}.retrieve", {"response_id": at.response}),
    "GET /responses/[^/]+/input_items": lambda at: (
        "responses.input_items.{}.list",
        {"response_id": at.response},
    ),
    "POST /responses/input_tokens": lambda at: (
        "responses.input_tokens.{}.count",
        {"model": MODEL, "input": "Hi.", "conversation": at.conversation},
    ),
    "POST /threads": lambda _: ("beta.threads.{}.create", {}),
    "GET /threads/[^/]+": lambda at: ("beta.threads.{}.retrieve", {"thread_id": at.thread}),
    "POST /threads/[^/]+/messages": lambda at: (
        "beta.threads.messages.{}.create",
        {"thread_id": at.thread, "role": "user", "content": "Hi."},
    ),
    "GET /threads/[^/]+/messages": lambda at: (
        "beta.threads.messages.{}.list",
        {"thread_id": at.thread},
    ),
    "POST /threads/[^/]+/runs": lambda at: (
        "beta.threads.runs.{}.create",
        {"thread_id": at.thread, "assistant_id": at.assistant},
    ),
    "GET /threads/[^/]+/runs": lambda at: ("beta.threads.runs.{}.list", {"thread_id": at.thread}),
    "GET /threads/[^/]+/runs/[^/]+": lambda at: (
        "beta.threads.runs.{}.retrieve",
        {"thread_id": at.thread, "run_id": at.run},
    ),
    "POST /threads/runs": lambda at: (
        "beta.threads.{}.create_and_run",
        {"assistant_id": at.assistant, "thread": {"messages": []}},
    ),
}


@pytest.mark.parametrize("route", ROUTES)
def test_the_sdk_gets_the_very_bytes(world: World, gateway: Gateway, app: App, route: str) -> None:
    places = Places(app)
    method, values = ROUTES[route](places)
    raw = method.format("with_raw_response")
    for own in JUNK.values():
        gateway.order(route, own)

        answer = app.call(raw, **values).http_response

        assert not gateway.waits
        assert (own[0], own[2]) == (answer.status_code, answer.content)
        assert "delivering" not in states(world)
        if (
            route.startswith("POST") and "[" in route
        ):  # a turn whose outcome is unknown: the next looks first
            places = Places(app)
            values = ROUTES[route](places)[1]
    assert FACT in app.respond(QUESTION, conversation=places.conversation).output_text
    assert FACT in app.say(places.thread, places.assistant, QUESTION)


@junk
def test_items_that_may_have_been_added_are_not_lost(
    world: World, gateway: Gateway, app: App, own: Own
) -> None:
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    gateway.order("POST /conversations/[^/]+/items", own)
    raw = "conversations.items.with_raw_response.create"
    app.call(raw, conversation_id=conversation, items=ITEMS)

    answer = app.respond("What is my cat called?", conversation=conversation)

    assert "My cat is called Tom." in answer.output_text


@junk
def test_what_shows_no_list_is_no_collapse(
    world: World, gateway: Gateway, app: App, own: Own
) -> None:
    places = Places(app)
    for route in ("GET /conversations/[^/]+/items", "GET /threads/[^/]+/messages"):
        method, values = ROUTES[route](places)
        gateway.order(route, own)
        app.call(method.format("with_raw_response"), **values)

    assert recovered(app.respond(QUESTION, conversation=places.conversation)) is None
    assert FACT in app.say(places.thread, places.assistant, QUESTION)
    assert [] == world.recoveries


@junk
def test_what_an_object_had_stays_known(world: World, gateway: Gateway, app: App, own: Own) -> None:
    conversation = app.call("conversations.create", metadata={"topic": "dogs"}).id
    gateway.order("GET /conversations/[^/]+", own)
    app.call("conversations.with_raw_response.retrieve", conversation_id=conversation)
    world.forgets(conversation)

    anew = app.call("conversations.retrieve", conversation_id=conversation)

    assert {"topic": "dogs"} == anew.metadata


# -- our own requests -----------------------------------------------------------------------------


@junk
def test_a_replica_that_was_not_made_is_made_by_the_repeat(
    world: World, gateway: Gateway, app: App, own: Own
) -> None:
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    world.forgets(conversation)
    gateway.order("POST /conversations", own)
    app.sdk = app.sdk.with_options(max_retries=1)

    answer = app.respond(QUESTION, conversation=conversation)

    assert not gateway.waits
    assert FACT in answer.output_text
    assert "full" == (recovered(answer) or {})["memory"]


@junk
def test_a_thread_that_was_not_made_is_made_by_the_repeat(
    world: World, gateway: Gateway, app: App, own: Own
) -> None:
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    world.forgets(thread)
    gateway.order("POST /threads", own)
    app.sdk = app.sdk.with_options(max_retries=1)

    assert FACT in app.say(thread, assistant, QUESTION)


@junk
def test_what_a_run_has_said_is_read_by_the_repeat(
    world: World, gateway: Gateway, app: App, own: Own
) -> None:
    thread, assistant = app.thread()
    app.call("beta.threads.messages.create", thread_id=thread, role="user", content=FACT)
    app.call("beta.threads.runs.create_and_poll", thread_id=thread, assistant_id=assistant)
    gateway.order("GET /threads/[^/]+/messages", own)  # which nobody has read
    app.sdk = app.sdk.with_options(max_retries=1)

    reply = app.say(thread, assistant, QUESTION)

    assert FACT in reply
    if own is not JUNK["items without ids"]:
        assert ["user", "assistant"] * 2 == [
            row[0] for row in world.rows("SELECT role FROM perdure_item ORDER BY position")
        ]


@junk
def test_a_history_that_could_not_be_copied_is_copied_later(
    world: World, gateway: Gateway, app: App, own: Own
) -> None:
    plain = world.plain()
    conversation = plain.call("conversations.create").id
    plain.respond(FACT, conversation=conversation)
    gateway.order("GET /conversations/[^/]+/items", own)
    app.respond("Hi.", conversation=conversation)
    world.drain()
    world.clock.advance(LONG)  # for as long as that, one worker is at it
    app.respond("Hi again.", conversation=conversation)
    world.drain()
    world.forgets(conversation)

    if own is not JUNK["items without ids"]:
        assert FACT in app.respond(QUESTION, conversation=conversation).output_text


# -- streams --------------------------------------------------------------------------------------


def event(name: str, **members: Any) -> Event:
    return Event(name, json.dumps({"type": name, **members}), b"")


def test_a_stream_of_odd_events_is_read_for_what_it_is() -> None:
    reader = ResponseReader()
    for odd in (
        event("response.created", response="x"),
        event("response.output_item.done", item="x"),
        event("response.output_text.delta", delta=["x"]),
        event("response.completed", response="x"),
        Event("response.completed", "[1]", b""),
    ):
        reader.observe(odd)

    assert reader.terminal
    assert [{}] == reader.response["output"]


def test_a_run_of_odd_events_is_read_for_what_it_is() -> None:
    reader = RunReader()
    for odd in (
        event("thread.message.delta", delta="x"),
        event("thread.message.delta", delta={"content": ["x", {"text": "x"}]}),
        event("thread.message.completed", content="x", id=5),
        event("thread.run.completed"),
    ):
        reader.observe(odd)

    assert [{"id": 5, "role": "assistant", "content": "x"}] == reader.partial()


@pytest.mark.parametrize("response", ["x", None, {"id": 5, "output": []}, {"id": "r", "usage": 3}])
def test_a_stream_that_ends_oddly_locks_nothing(
    world: World, gateway: Gateway, app: App, response: Any
) -> None:
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    world.forgets(conversation)  # its news travels in the events
    begun = event("response.created", response="x").data
    ended = event("response.completed", response=response).data
    text = f"event: response.created\ndata: {begun}\n\nevent: response.completed\ndata: {ended}\n\n"
    app.call("conversations.retrieve", conversation_id=conversation)
    gateway.order("POST /responses", (200, "text/event-stream", text.encode()))

    events = app.events("responses.create", model=MODEL, input="Hi.", conversation=conversation)

    assert ["response.created", "response.completed"] == [one.type for one in events]
    assert "delivering" not in states(world)


@pytest.mark.parametrize("usage", ["x", 5, [], {"input_tokens": "5", "output_tokens": None}])
def test_odd_counts_are_none(usage: Any) -> None:
    counts = amnesia.counts_of({"model": ["m"], "usage": usage}, [])

    assert (None, None, 0) == (counts.model, counts.input_tokens, counts.visible_tokens)
