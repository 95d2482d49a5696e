"""A store that fails when the answer is there already: the caller gets it, and knows."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from perdure.engine import ops
from perdure.errors import StoreUnavailable
from perdure.flow import Op
from tests.world import MODEL, App, World, recovered

DOG = "My dog is called Rex."
WHOSE = "What is my dog called?"
TURN = {"Perdure-Turn": "turn-2"}
LEASE_SECONDS = 61.0
ENDS = {ops.Complete, ops.Underway}


class Refusing:
    """A store that cannot carry out some operations just now."""

    fast = True

    def __init__(self, store: Any) -> None:
        self.store = store
        self.refused: set[type[Op[Any]]] = set()
        self.recovers = False  # as soon as it has refused one

    def perform(self, op: Op[Any]) -> Any:
        if type(op) in self.refused:
            if self.recovers:
                self.refused = set()
            raise StoreUnavailable("The disk is full.")
        return self.store.perform(op)

    def close(self) -> None:
        self.store.close()


@pytest.fixture
def store(world: World) -> Refusing:
    return Refusing(world.store())


@pytest.fixture
def app(world: World, store: Refusing) -> App:
    return world.app(store=store)


def talking(app: App) -> dict[str, Any]:
    conversation = app.call("conversations.create").id
    app.respond(DOG, conversation=conversation)
    return {"conversation": conversation, "extra_headers": TURN}


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
def test_an_answer_that_is_not_stored_says_so(
    world: World, store: Refusing, app: App, streamed: bool
) -> None:
    at = talking(app)
    ask = app.stream if streamed else app.respond
    store.refused = ENDS

    answer = ask(WHOSE, **at)

    assert DOG in answer.output_text
    assert {"stored": False} == recovered(answer)
    store.refused = set()
    world.clock.advance(LEASE_SECONDS)
    again = ask(WHOSE, **at)
    assert answer.output_text == again.output_text
    assert "stored" not in (recovered(again) or {})
    assert [] == world.recoveries


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
def test_so_does_one_that_was_recovered(
    world: World, store: Refusing, app: App, streamed: bool
) -> None:
    first = app.respond(DOG)
    world.forgets(first.id)
    store.refused = ENDS

    answer = (app.stream if streamed else app.respond)(WHOSE, previous_response_id=first.id)

    told = recovered(answer) or {}
    assert DOG in answer.output_text
    assert (True, "full", False) == (told["recovered"], told["memory"], told["stored"])


def test_so_does_a_response_in_the_background(store: Refusing, app: App) -> None:
    store.refused = ENDS
    begun = app.respond(DOG, background=True)
    assert ("queued", {"stored": False}) == (begun.status, recovered(begun))


def test_so_do_items(world: World, store: Refusing, app: App) -> None:
    at = talking(app)
    item = {"type": "message", "role": "user", "content": WHOSE}
    store.refused = ENDS
    call = {"conversation_id": at["conversation"], "items": [item]}

    listed = app.call("conversations.items.create", **call, extra_headers=TURN)

    assert {"stored": False} == recovered(listed)
    store.refused = set()
    world.clock.advance(LEASE_SECONDS)
    app.call("conversations.items.create", **call, extra_headers=TURN)
    said = [item["content"][0]["text"] for item in world.provider.items(at["conversation"])]
    assert 1 == said.count(WHOSE)


@pytest.mark.parametrize("what", ["message", "run", "streamed run"])
def test_so_does_what_happens_on_a_thread(
    world: World, store: Refusing, app: App, what: str
) -> None:
    thread, assistant = app.thread()
    app.say(thread, assistant, DOG)
    at = {"thread_id": thread}
    store.refused = ENDS

    if what == "message":
        said = app.call("beta.threads.messages.create", role="user", content=WHOSE, **at)
    elif what == "run":
        said = app.call("beta.threads.runs.create", assistant_id=assistant, **at)
    else:
        said = app.events("beta.threads.runs.create", assistant_id=assistant, **at)[-1].data

    assert {"stored": False} == recovered(said)
    store.refused = set()
    world.clock.advance(LEASE_SECONDS)
    assert DOG in app.say(thread, assistant, WHOSE)
    assert [] == world.recoveries


def test_a_streamed_run_is_stored_by_its_end(world: World, store: Refusing, app: App) -> None:
    """The store fails as the run begins and is back as it ends: nobody has to ask again."""
    thread, assistant = app.thread()
    app.say(thread, assistant, DOG)
    asked = {"thread_id": thread, "assistant_id": assistant, "extra_headers": TURN}
    app.call("beta.threads.messages.create", thread_id=thread, role="user", content=WHOSE)
    store.refused, store.recovers = {ops.Underway}, True

    begun, *_, ended = app.events("beta.threads.runs.create", **asked)

    assert ({"stored": False}, None) == (recovered(begun.data), recovered(ended.data))
    world.forgets(thread)
    listed = app.call("beta.threads.messages.list", thread_id=thread)
    assert DOG in listed.data[0].content[0].text.value
    assert [("answered",)] == world.rows("SELECT DISTINCT state FROM perdure_turn")


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
def test_so_does_a_thread_made_with_its_run(
    world: World, store: Refusing, app: App, streamed: bool
) -> None:
    assistant = app.call("beta.assistants.create", model=MODEL).id
    asked: dict[str, Any] = {
        "assistant_id": assistant,
        "thread": {"messages": [{"role": "user", "content": DOG}]},
    }
    store.refused = ENDS
    if streamed:
        run = app.events("beta.threads.create_and_run", **asked)[-1].data
    else:
        run = app.call("beta.threads.create_and_run", **asked)
    assert {"stored": False} == recovered(run)


def test_a_fault_says_whether_the_provider_was_called(
    world: World, store: Refusing, app: App
) -> None:
    at = talking(app)
    store.refused = {ops.Accept}
    with pytest.raises(openai.InternalServerError, match="full. The provider was not called."):
        app.respond(WHOSE, **at)
    world.forgets(at["conversation"])
    store.refused = {ops.Bind}
    with pytest.raises(openai.InternalServerError, match="full. The provider has been called;"):
        app.respond(WHOSE, **at)


# -- overtaken -------------------------------------------------------------------------------


def test_a_stream_that_was_overtaken_does_not_end_well(sync_world: World) -> None:
    """What it shows is not what the log says: its reader must not take it for the answer."""
    app = sync_world.app()
    asked: dict[str, Any] = {"model": MODEL, "input": WHOSE, "stream": True, **talking(app)}
    with app.sdk.responses.create(**asked) as stream:
        events = iter(stream)
        next(events)
        sync_world.clock.advance(LEASE_SECONDS)

        answer = list(app.sdk.responses.create(**asked))

        with pytest.raises(openai.APIConnectionError) as cut:
            list(events)
    assert "has taken turn 'turn-2' over" in str(cut.value.__cause__)
    assert [("answered", 2)] == sync_world.rows(
        "SELECT state, epoch FROM perdure_turn WHERE turn_id = 'turn-2'"
    )
    assert len(answer) > 1


def begun(app: App) -> tuple[str, dict[str, Any]]:
    """A thread on which a run can be streamed, and what to ask for."""
    thread, assistant = app.thread()
    app.say(thread, assistant, DOG)
    return thread, {"thread_id": thread, "assistant_id": assistant, "extra_headers": TURN}


def test_a_repeat_joins_the_run_that_is_streamed(sync_world: World) -> None:
    app = sync_world.app()
    _, asked = begun(app)
    sync_world.provider.clear_requests()
    with app.sdk.beta.threads.runs.create(**asked, stream=True) as stream:
        events = iter(stream)
        next(events)
        sync_world.clock.advance(LEASE_SECONDS)

        joined = list(app.sdk.beta.threads.runs.create(**asked, stream=True))
        rest = list(events)

    ends = [[e.data for e in told if e.event == "thread.run.completed"] for told in (joined, rest)]
    assert ends[0][0].id == ends[1][0].id
    assert 1 == sync_world.asked().count(("POST threads/thread/runs", 200))


def test_a_run_on_a_thread_that_was_replaced_does_not_end_well(sync_world: World) -> None:
    app = sync_world.app()
    thread, asked = begun(app)
    with app.sdk.beta.threads.runs.create(**asked, stream=True) as stream:
        events = iter(stream)
        next(events)
        sync_world.forgets(thread)
        app.call("beta.threads.messages.create", thread_id=thread, role="user", content=WHOSE)

        with pytest.raises(openai.APIConnectionError):
            list(events)
