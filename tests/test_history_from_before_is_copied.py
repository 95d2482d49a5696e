"""What was said before a handle was first used through us is copied, whatever it is first used by.

A run and a response in the background have no answer yet when their turn begins, so nothing in the
log has an id by which older history is told from it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from perdure.dialects.items import text_of
from perdure.testing import Fault
from perdure.transport import client as clients
from tests.world import LONG, App, World, recovered

DOG = "My dog is called Rex."
HELLO = "Hello."
QUESTION = "What is my dog called?"
RUNS = "beta.threads.runs"
LIST = "beta.threads.messages.list"
USE = ["a run", "a streamed run", "a run that nobody polls"]


def from_before(world: World, *said: str) -> tuple[str, str]:
    """A thread on which something was said without us, and an assistant."""
    plain = world.plain()
    thread, assistant = plain.thread()
    for message in said:
        plain.say(thread, assistant, message)
    return thread, assistant


def use(app: App, how: str, thread: str, assistant: str, *messages: str) -> None:
    """Begin a run with messages of its own."""
    asked: dict[str, Any] = {"thread_id": thread, "assistant_id": assistant}
    if messages:
        asked["additional_messages"] = [{"role": "user", "content": one} for one in messages]
    if how == "a streamed run":
        app.events(f"{RUNS}.create", **asked)
    elif how == "a run":
        app.call(f"{RUNS}.create_and_poll", **asked)
    else:
        app.call(f"{RUNS}.create", **asked)


def log(world: World) -> list[str]:
    """What the log says, oldest first."""
    rows = world.rows(
        "SELECT json_extract(wire, '$.content') FROM perdure_item WHERE withdrawn = 0 "
        "ORDER BY position"
    )
    return [text_of({"content": json.loads(one) if "[" in one else one}) for (one,) in rows]


def on_thread(world: World, thread: str) -> list[str]:
    return [text_of(message) for message in world.provider.messages(thread)]


@pytest.mark.parametrize("read", [False, True], ids=["unread", "read"])
@pytest.mark.parametrize("how", USE)
def test_a_thread_that_is_first_used_by_a_run_has_its_history(
    world: World, how: str, *, read: bool
) -> None:
    thread, assistant = from_before(world, DOG)
    app = world.app()
    use(app, how, thread, assistant, HELLO)
    if read:
        world.clock.advance(LONG)
        app.call(LIST, thread_id=thread)
    world.drain()
    has_reply = read or how == "a streamed run"
    assert on_thread(world, thread)[: 4 if has_reply else 3] == log(world)
    world.forgets(thread)

    assert DOG in app.say(thread, assistant, QUESTION)

    known_to_end = has_reply and how != "a run that nobody polls"
    assert ("full" if known_to_end else "partial") == world.recoveries[-1].memory


@pytest.mark.parametrize("how", USE)
@pytest.mark.parametrize("messages", [(), (HELLO, "And again.")], ids=["none", "two"])
def test_nothing_of_it_stands_twice_or_behind_what_was_said_through_us(
    world: World, how: str, messages: tuple[str, ...]
) -> None:
    """The same was said before."""
    thread, assistant = from_before(world, HELLO, DOG, HELLO)
    app = world.app()

    for _turn in range(2):
        use(app, how, thread, assistant, *messages)
        world.clock.advance(LONG)
        app.call(LIST, thread_id=thread, limit=1)
        world.drain()

    assert on_thread(world, thread) == log(world)
    assert 6 + 2 * (len(messages) + 1) == len(log(world))


def test_a_run_that_is_read_before_its_history_is_copied_has_it_in_front(world: World) -> None:
    """The provider fails when that is asked for first."""
    thread, assistant = from_before(world, DOG)
    app = world.app()
    world.provider.order(Fault("status", status=500, match=r"GET /threads/[^/]+$"))
    use(app, "a run", thread, assistant, HELLO)
    world.drain()
    assert [HELLO] == log(world)
    world.clock.advance(LONG)

    app.call(LIST, thread_id=thread)
    world.drain()

    assert on_thread(world, thread) == log(world)


def test_what_others_have_said_meanwhile_is_not_taken_for_older(sync_world: World) -> None:
    """It stands in front of what the log has no id for, until somebody knows that."""
    world = sync_world
    thread, assistant = from_before(world, DOG)
    said = {"thread_id": thread, "role": "user", "content": "From elsewhere."}

    def others_speak() -> None:
        world.clock.advance(LONG)
        world.plain().call(f"{RUNS}.list", thread_id=thread)  # the run has ended
        world.plain().call("beta.threads.messages.create", **said)

    app = world.app(inner=OnItsWay(f"/{thread}/messages", others_speak))
    use(app, "a run that nobody polls", thread, assistant, HELLO)
    world.drain()
    assert [HELLO] == log(world)

    app.call(LIST, thread_id=thread)
    world.drain()

    assert on_thread(world, thread) == log(world)
    assert "From elsewhere." == log(world)[-1]


@pytest.mark.parametrize("how", ["polled", "streamed", "resumed"])
def test_a_conversation_that_is_first_used_in_the_background_has_its_history(
    world: World, how: str
) -> None:
    plain, app = world.plain(), world.app()
    conversation = plain.call("conversations.create").id
    plain.respond(DOG, conversation=conversation)
    said = {"conversation": conversation, "background": True}
    if how == "streamed":
        app.stream(HELLO, **said)
    else:
        begun = app.respond(HELLO, **said).id
        world.drain()
        if how == "polled":
            polled(app, begun)
        else:
            plain_end(world, begun)
            app.events("responses.retrieve", response_id=begun)
    world.drain()
    assert [text_of(item) for item in world.provider.items(conversation)] == log(world)
    world.forgets(conversation)

    answer = app.respond(QUESTION, conversation=conversation)

    assert DOG in answer.output_text
    assert {"memory": "full", "items_primed": 4}.items() <= (recovered(answer) or {}).items()


def polled(app: App, response: str) -> None:
    while "completed" != app.call("responses.retrieve", response_id=response).status:
        pass


def plain_end(world: World, response: str) -> None:
    polled(world.plain(), response)


def test_what_the_first_turn_could_not_copy_the_next_one_does_at_once(world: World) -> None:
    """Nobody is at it any more."""
    plain, app = world.plain(), world.app()
    conversation = plain.call("conversations.create").id
    plain.respond(DOG, conversation=conversation)
    app.respond(HELLO, conversation=conversation, background=True)
    world.drain()

    app.respond("Well.", conversation=conversation)
    world.drain()

    assert [text_of(item) for item in world.provider.items(conversation)] == log(world)
    assert 6 == len(log(world))


def test_what_is_entered_while_somebody_looks_is_looked_at_again(sync_world: World) -> None:
    """Whoever enters it finds that somebody is at it."""
    world = sync_world
    plain, other = world.plain(), world.app()
    conversation = plain.call("conversations.create").id
    plain.respond(DOG, conversation=conversation)
    looking, entered = threading.Event(), threading.Event()

    def waits() -> None:
        looking.set()
        assert entered.wait(10)

    app = world.app(inner=OnItsWay(f"/{conversation}/items", waits))
    begun = app.respond(HELLO, conversation=conversation, background=True)
    assert looking.wait(10)

    polled(other, begun.id)
    other_asked = [request.path for request in world.provider.requests]
    entered.set()
    world.drain()

    assert not any(path.endswith("/items") for path in other_asked)
    assert [text_of(item) for item in world.provider.items(conversation)] == log(world)


class OnItsWay:
    """A transport on which something happens before a list is first asked for."""

    def __init__(self, path: str, happens: Callable[[], object]) -> None:
        self.inner: Any = clients._library(None, None).HTTPTransport()
        self.path = path
        self.happens = [happens]

    def handle_request(self, request: Any) -> Any:
        asked = request.method == "GET" and request.url.path.endswith(self.path)
        if asked and self.happens:
            self.happens.pop()()
        return self.inner.handle_request(request)

    def close(self) -> None:
        self.inner.close()
