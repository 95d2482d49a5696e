"""Threads: runs that outlive their thread, reads after a loss, and the one extra healthy call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import openai
import pytest

import perdure
from perdure.testing import Fault
from perdure.transport import client as clients
from tests.world import MODEL, World, recovered

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
RUN_SECONDS = 6.0  # the provider's run has ended by then
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string"}},
            "required": ["location"],
        },
    },
}


def texts(listed: object) -> list[str]:
    return [message.content[0].text.value for message in listed.data]  # type: ignore[attr-defined]


def post(app: object, thread: str, message: str) -> object:
    return app.call(  # type: ignore[attr-defined]
        "beta.threads.messages.create", thread_id=thread, role="user", content=message
    )


def test_a_thread_lost_between_message_and_run(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    post(app, thread, QUESTION)
    world.forgets(thread)

    run = app.call("beta.threads.runs.create", thread_id=thread, assistant_id=assistant)

    assert [
        ("POST threads/thread/runs", 404),
        ("POST threads", 200),
        ("POST threads/thread/runs", 200),
    ] == world.asked()
    assert "full" == (recovered(run) or {})["memory"]
    new = run.thread_id
    assert [FACT, f"Noted: {FACT}", QUESTION] == [
        message["content"][0]["text"]["value"] for message in world.provider.messages(new)
    ][:3]


def test_a_run_lost_while_running_is_started_again(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    post(app, thread, FACT)
    run = app.call(
        "beta.threads.runs.create",
        thread_id=thread,
        assistant_id=assistant,
        instructions="Be brief.",
    )
    world.forgets(thread)

    again = app.call("beta.threads.runs.retrieve", run_id=run.id, thread_id=thread)

    assert [
        ("GET threads/thread/runs/run", 404),
        ("POST threads", 200),
        ("POST threads/thread/runs", 200),
    ] == world.asked()
    assert again.id != run.id
    assert "Be brief." == again.instructions
    assert 3 == (recovered(again) or {})["requests"]
    world.provider.clear_requests()
    # The id that the app stored goes on working, and reaches the run that took its place.
    for _poll in range(3):
        ended = app.call("beta.threads.runs.retrieve", run_id=run.id, thread_id=thread)
    assert "completed" == ended.status
    assert again.id == ended.id
    assert [f"Noted: {FACT}", FACT] == texts(
        app.call("beta.threads.messages.list", thread_id=thread)
    )


def test_a_run_is_started_again_whoever_met_the_loss(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    post(app, thread, FACT)
    at = {"thread_id": thread}
    run = app.call("beta.threads.runs.create", assistant_id=assistant, **at)
    world.forgets(thread)
    app.call("beta.threads.messages.list", **at)
    world.provider.clear_requests()

    for _poll in range(3):
        ended = app.call("beta.threads.runs.retrieve", run_id=run.id, **at)

    assert [
        ("POST threads/thread/runs", 200),
        ("GET threads/thread/runs/run", 200),
        ("GET threads/thread/runs/run", 200),
    ] == world.asked()
    assert "completed" == ended.status


def test_a_run_whose_thread_is_lost_twice_is_started_again(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    post(app, thread, FACT)
    at = {"thread_id": thread}
    run = app.call("beta.threads.runs.create", assistant_id=assistant, **at)
    for _loss in range(2):
        world.forgets()
        app.call("beta.threads.update", metadata={}, **at)
    world.forgets()

    ended = app.call("beta.threads.runs.poll", run_id=run.id, poll_interval_ms=1, **at)

    assert "completed" == ended.status


@pytest.mark.parametrize("before", [False, True], ids=["just now", "before"])
def test_a_run_is_started_again_once(world: World, *, before: bool) -> None:
    """The answer to its second beginning is lost as well."""
    app = world.app()
    thread, assistant = app.thread()
    post(app, thread, FACT)
    at = {"thread_id": thread}
    run = app.call("beta.threads.runs.create", assistant_id=assistant, **at)
    world.forgets(thread)
    if before:
        app.call("beta.threads.messages.list", **at)
    world.provider.order(Fault("answer_lost", match=r"POST /threads/[^/]+/runs$"))
    with pytest.raises(openai.APIConnectionError):
        app.call("beta.threads.runs.retrieve", run_id=run.id, **at)

    ended = app.call("beta.threads.runs.poll", run_id=run.id, poll_interval_ms=1, **at)

    ((_, new),) = world.provider.state.threads.items()
    assert [ended.id] == list(new.runs)
    assert "completed" == ended.status


def test_a_run_that_is_not_wanted_any_more_is_not_started_again(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    post(app, thread, FACT)
    at = {"thread_id": thread}
    run = app.call("beta.threads.runs.create", assistant_id=assistant, **at)
    world.forgets(thread)

    cancelled = app.call("beta.threads.runs.cancel", run_id=run.id, **at)

    assert ("cancelled", run.id) == (cancelled.status, cancelled.id)
    assert [("POST threads/thread/runs/run/cancel", 404)] == world.asked()
    post(app, thread, QUESTION)
    again = app.call("beta.threads.runs.retrieve", run_id=run.id, **at)
    assert cancelled.to_dict() == again.to_dict()


def test_a_streamed_run_that_is_repeated_says_all_of_it_again(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    post(app, thread, FACT)
    asked = {
        "thread_id": thread,
        "assistant_id": assistant,
        "extra_headers": {"Perdure-Turn": "turn-1"},
    }
    first = app.events("beta.threads.runs.create", **asked)
    world.provider.clear_requests()

    again = app.events("beta.threads.runs.create", **asked)

    said = [event.data for event in first if event.event == "thread.message.completed"]
    assert said == [event.data for event in again if event.event == "thread.message.completed"]
    assert (first[-1].event, first[-1].data) == (again[-1].event, again[-1].data)
    assert [] == world.asked()


def test_a_run_that_goes_on_is_read_when_it_has_ended(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    post(app, thread, FACT)
    app.call("beta.threads.runs.create", thread_id=thread, assistant_id=assistant)
    with pytest.raises(openai.BadRequestError, match="is active"):
        post(app, thread, "Too early.")
    world.clock.advance(6)

    post(app, thread, "Hello again.")

    assert [FACT, f"Noted: {FACT}", "Hello again."] == [
        text
        for (text,) in world.rows(
            "SELECT json_extract(input, '$.content') FROM perdure_item "
            "WHERE withdrawn = 0 ORDER BY position"
        )
    ]


def test_a_run_already_seen_to_end_is_answered_from_the_journal(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    post(app, thread, FACT)
    run = app.call("beta.threads.runs.create_and_poll", thread_id=thread, assistant_id=assistant)
    world.forgets(thread)
    post(app, thread, "Hello again.")
    world.provider.clear_requests()

    again = app.call("beta.threads.runs.retrieve", run_id=run.id, thread_id=thread)

    assert run.to_dict() == again.to_dict()
    assert [] == world.asked()


def test_an_ended_run_is_not_started_again_for_a_loss_known_before(world: World) -> None:
    app = world.app(policy=perdure.Policy(retention={"threads": timedelta(days=1)}))
    thread, assistant = app.thread()
    post(app, thread, FACT)
    run = app.call("beta.threads.runs.create_and_poll", thread_id=thread, assistant_id=assistant)
    world.clock.advance(timedelta(days=2))
    world.provider.clear_requests()

    again = app.call("beta.threads.runs.retrieve", run_id=run.id, thread_id=thread)

    assert run.to_dict() == again.to_dict()
    assert [] == world.asked()


def test_what_the_app_has_not_read_is_fetched_by_its_next_write(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    post(app, thread, FACT)
    app.call("beta.threads.runs.create_and_poll", thread_id=thread, assistant_id=assistant)
    world.provider.clear_requests()

    post(app, thread, "Hello again.")

    assert [
        ("GET threads/thread/messages", 200),
        ("POST threads/thread/messages", 200),
    ] == world.asked()
    assert [
        ("user", FACT),
        ("assistant", f"Noted: {FACT}"),
        ("user", "Hello again."),
    ] == world.rows(
        "SELECT role, json_extract(input, '$.content') FROM perdure_item ORDER BY position"
    )


@pytest.mark.parametrize("when", ["afterwards", "meanwhile"])
def test_a_reply_that_was_read_by_itself_is_not_lost_with_its_thread(
    world: World, when: str
) -> None:
    app = world.app()
    thread, assistant = app.thread()
    post(app, thread, FACT)
    app.call("beta.threads.runs.create_and_poll", thread_id=thread, assistant_id=assistant)
    world.provider.clear_requests()
    if when == "meanwhile":
        world.provider.order(
            Fault("forget", match=r"GET /threads/[^/]+/messages", handle=thread, timing="after")
        )
    (reply,) = app.call("beta.threads.messages.list", thread_id=thread, limit=1).data
    assert 2 == len(world.asked())
    if when == "afterwards":
        world.forgets(thread)

    posted = post(app, thread, QUESTION)

    assert (2, "full") == (
        (recovered(posted) or {})["items_primed"],
        (recovered(posted) or {})["memory"],
    )
    listed = app.call("beta.threads.messages.list", thread_id=thread, order="asc")
    assert [FACT, reply.content[0].text.value, QUESTION] == texts(listed)


def test_an_app_that_reads_its_replies_costs_nothing_extra(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    world.provider.clear_requests()
    for number in range(3):
        app.say(thread, assistant, f"Fact number {number} is noted.")

    plain = [
        ("POST threads/thread/messages", 200),
        ("POST threads/thread/runs", 200),
        ("GET threads/thread/runs/run", 200),
        ("GET threads/thread/runs/run", 200),
        ("GET threads/thread/messages", 200),
    ]
    assert plain * 3 == world.asked()


@pytest.mark.parametrize(
    "query", [{"order": "asc", "limit": 1}, {"order": "asc", "limit": 2}, {"run_id": "run_0"}]
)
def test_a_list_that_does_not_show_the_reply_leaves_it_to_be_read(
    world: World, query: dict[str, Any]
) -> None:
    app = world.app()
    thread, assistant = app.thread()
    app.say(thread, assistant, "One fact.")
    post(app, thread, FACT)
    app.call("beta.threads.runs.create_and_poll", thread_id=thread, assistant_id=assistant)
    app.call("beta.threads.messages.list", thread_id=thread, **query)
    post(app, thread, "Hello again.")
    world.forgets(thread)

    posted = post(app, thread, QUESTION)

    assert {"items_primed": 5, "memory": "full"}.items() <= (recovered(posted) or {}).items()


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_list_of_what_is_older_leaves_the_reply_to_be_read(world: World, order: str) -> None:
    app = world.app()
    thread, assistant = app.thread()
    facts = [post(app, thread, f"Fact {number}.").id for number in range(3)]  # type: ignore[attr-defined]
    app.call("beta.threads.runs.create_and_poll", thread_id=thread, assistant_id=assistant)
    after = facts[1] if order == "desc" else facts[2]
    page = app.call("beta.threads.messages.list", thread_id=thread, order=order, after=after)
    assert 1 == len(page.data)
    assert 1 == [request for request, _ in world.asked()].count("GET threads/thread/messages")
    world.forgets(thread)

    posted = post(app, thread, QUESTION)

    memory = {"items_primed": 3, "memory": "partial"}
    if order == "asc":  # that is the reply itself
        memory = {"items_primed": 4, "memory": "full"}
    assert memory.items() <= (recovered(posted) or {}).items()


def test_lists_after_a_loss_show_the_apps_own_messages(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    before = app.call("beta.threads.messages.list", thread_id=thread)
    world.forgets(thread)

    after = app.call("beta.threads.messages.list", thread_id=thread)

    assert [message.to_dict() for message in before.data] == [
        message.to_dict() for message in after.data
    ]
    one = app.call("beta.threads.messages.retrieve", thread_id=thread, message_id=before.data[0].id)
    assert before.data[0].to_dict() == one.to_dict()


def test_a_streamed_run_on_a_lost_thread(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    post(app, thread, QUESTION)
    world.forgets(thread)

    events = app.events("beta.threads.runs.create", thread_id=thread, assistant_id=assistant)

    assert "thread.run.created" == events[0].event
    assert "thread.run.completed" == [event.event for event in events if event.event != "done"][-1]
    assert recovered(events[0].data) is not None
    listed = app.call("beta.threads.messages.list", thread_id=thread)
    assert [FACT, QUESTION] == texts(listed)[:2]


def test_a_reply_that_somebody_reads_before_its_stream_ends_is_kept_once(
    sync_world: World,
) -> None:
    app = sync_world.app()
    thread, assistant = app.thread()
    post(app, thread, FACT)
    asked = {"thread_id": thread, "assistant_id": assistant}
    with app.sdk.beta.threads.runs.create(**asked, stream=True) as events:
        next(iter(events))
        sync_world.app().call("beta.threads.messages.list", thread_id=thread)
        list(events)

    assert [(FACT,), (f"Noted: {FACT}",)] == sync_world.rows(
        "SELECT json_extract(input, '$.content') FROM perdure_item ORDER BY position"
    )


def test_a_reply_that_nobody_knows_the_end_of_is_not_kept_beside_another(
    sync_world: World,
) -> None:
    """Somebody else sees it, whoever had asked dies, and its thread is lost."""
    app = sync_world.app()
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    post(app, thread, QUESTION)
    asked = {"thread_id": thread, "assistant_id": assistant}
    turn = {"extra_headers": {"Perdure-Turn": "turn-1"}}
    with app.sdk.beta.threads.runs.create(**asked, **turn, stream=True) as events:
        next(iter(events))
        seen = sync_world.app().call("beta.threads.messages.list", thread_id=thread)
        assert 4 == len(seen.data)
        sync_world.forgets(thread)
        list(sync_world.app().events("beta.threads.runs.create", **asked, **turn))

    assert [("user", 2), ("assistant", 2)] == sync_world.rows(
        "SELECT role, count(*) FROM perdure_item WHERE withdrawn = 0 GROUP BY role "
        "ORDER BY min(position)"
    )


def test_a_list_from_before_a_run_says_nothing_of_what_it_said(sync_world: World) -> None:
    app = sync_world.app()
    thread, assistant = app.thread()
    post(app, thread, FACT)
    listing = r"GET /threads/[^/]+/messages"
    sync_world.provider.order(Fault("delay", seconds=1.0, match=listing))
    with ThreadPoolExecutor(1) as pool:
        reader = sync_world.app()
        old = pool.submit(reader.call, "beta.threads.messages.list", thread_id=thread)
        while not any(request.method == "GET" for request in sync_world.provider.requests):
            time.sleep(0.01)
        run = app.call(
            "beta.threads.runs.create_and_poll", thread_id=thread, assistant_id=assistant
        )
        assert [FACT] == texts(old.result(timeout=30))

    assert "completed" == run.status
    post(app, thread, QUESTION)
    assert 3 == len(app.call("beta.threads.messages.list", thread_id=thread).data)
    assert [(FACT,), (f"Noted: {FACT}",), (QUESTION,)] == sync_world.rows(
        "SELECT json_extract(input, '$.content') FROM perdure_item ORDER BY position"
    )


@pytest.mark.slow
@pytest.mark.parametrize("meets_it", ["message", "run", "list"])
def test_a_reply_that_comes_while_a_thread_is_created_is_on_the_one_in_use(
    sync_world: World, meets_it: str
) -> None:
    """Its stream goes on although the thread is lost; what follows must be made from it too."""
    app, other = sync_world.app(), sync_world.app()
    thread, assistant = app.thread()
    asked = {"thread_id": thread, "assistant_id": assistant}
    post(app, thread, FACT)

    def meet_loss() -> Any:
        if meets_it == "message":
            return post(other, thread, QUESTION)
        if meets_it == "list":
            return other.call("beta.threads.messages.list", thread_id=thread)
        more = [{"role": "user", "content": QUESTION}]
        return other.call("beta.threads.runs.create", **asked, additional_messages=more)

    with ThreadPoolExecutor(1) as pool, app.sdk.beta.threads.runs.create(**asked, stream=True) as s:
        events = iter(s)
        next(events)
        sync_world.forgets(thread)
        sync_world.provider.order(Fault("delay", seconds=3.0, match=r"POST /threads$"))
        told = pool.submit(meet_loss)
        while ("POST", "/v1/threads") not in [
            (request.method, request.path) for request in sync_world.provider.requests
        ]:
            time.sleep(0.01)
        assert "thread.run.completed" == list(events)[-1].event
        answer = told.result(timeout=30)

    assert 2 == sync_world.asked().count(("POST threads", 200))
    ((new,),) = sync_world.rows("SELECT replica_handle FROM perdure_conversation")
    shown = [
        message["content"][0]["text"]["value"] for message in sync_world.provider.messages(new)
    ]
    said = [FACT, f"Noted: {FACT}"] if meets_it == "list" else [FACT, f"Noted: {FACT}", QUESTION]
    assert said == shown[: len(said)]
    if meets_it == "list":
        assert said == list(reversed(texts(answer)))
    (orphan,) = sync_world.rows("SELECT reason FROM perdure_orphan WHERE handle <> ?", new)
    assert ("the log had gone on",) == orphan


class Meanwhile:
    """A transport that lets something happen before runs are created, and after."""

    def __init__(self) -> None:
        self.inner: Any = clients._library(None, None).HTTPTransport()
        self.before: Callable[[], object] = list
        self.after: Callable[[], object] = list

    def handle_request(self, request: Any) -> Any:
        begins = request.method == "POST" and request.url.path.endswith("/runs")
        if begins:
            self.before()
        response = self.inner.handle_request(request)
        if begins:
            self.after()
        return response

    def close(self) -> None:
        self.inner.close()


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
def test_what_was_made_from_a_reply_that_is_lost_is_not_told(
    sync_world: World, *, streamed: bool
) -> None:
    """The run before ends as the next one begins, and the thread is gone before that is read."""
    meanwhile = Meanwhile()
    app = sync_world.app(inner=meanwhile)
    thread, assistant = app.thread()
    post(app, thread, FACT)
    asked = {"thread_id": thread, "assistant_id": assistant}
    app.call("beta.threads.runs.create", **asked)

    def vanishes() -> None:
        meanwhile.before = meanwhile.after = list
        sync_world.provider.forget(thread)

    meanwhile.before = lambda: sync_world.clock.advance(RUN_SECONDS)
    meanwhile.after = vanishes
    more = {"additional_messages": [{"role": "user", "content": QUESTION}]}
    if streamed:
        run = app.events("beta.threads.runs.create", **asked, **more)[0].data
    else:
        run = app.call("beta.threads.runs.create", **asked, **more)

    assert run.thread_id != thread
    assert "partial" == (recovered(run) or {})["memory"], "nobody has read what was said there"
    shown = sync_world.provider.messages(run.thread_id)
    assert [FACT, QUESTION] == [one["content"][0]["text"]["value"] for one in shown][:2]


@pytest.mark.parametrize("limit", [1, 2])
def test_a_reply_that_came_before_a_message_is_not_lost_by_a_short_page(
    sync_world: World, limit: int
) -> None:
    """It is not there when the next message is sent; who sends that is slow to hear of it."""
    begun, shown = threading.Event(), threading.Event()
    meanwhile = Meanwhile()
    app, slow = sync_world.app(), sync_world.app(inner=meanwhile)
    thread, assistant = app.thread()
    asked = {"thread_id": thread, "assistant_id": assistant}
    for fact in (FACT, "It is two years old."):
        post(app, thread, fact)
    run = app.call("beta.threads.runs.create", **asked)
    more = {"additional_messages": [{"role": "user", "content": QUESTION}]}
    meanwhile.before = lambda: sync_world.clock.advance(RUN_SECONDS)

    def waits() -> None:
        begun.set()
        shown.wait(30)

    meanwhile.after = waits

    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(slow.call, "beta.threads.runs.create", **asked, **more)
        assert begun.wait(30)
        app.call("beta.threads.runs.retrieve", run_id=run.id, thread_id=thread)
        page = app.call("beta.threads.messages.list", thread_id=thread, limit=limit)
        sync_world.forgets(thread)
        shown.set()
        second.result(timeout=30)

    assert QUESTION == texts(page)[0]
    whole = app.call("beta.threads.messages.list", thread_id=thread).data
    assert run.id in [message.run_id for message in whole]


def test_tool_outputs_for_a_lost_run_start_it_again(world: World) -> None:
    app = world.app()
    thread = app.call("beta.threads.create").id
    assistant = app.call("beta.assistants.create", model=MODEL, tools=[TOOL]).id
    post(app, thread, "What is the weather in Porto?")
    run = app.call("beta.threads.runs.create_and_poll", thread_id=thread, assistant_id=assistant)
    assert "requires_action" == run.status
    world.forgets(thread)
    (call,) = run.required_action.submit_tool_outputs.tool_calls

    again = app.call(
        "beta.threads.runs.submit_tool_outputs_and_poll",
        run_id=run.id,
        thread_id=thread,
        tool_outputs=[{"tool_call_id": call.id, "output": "Sunny, 21 degrees."}],
    )

    assert "requires_action" == again.status
    (call,) = again.required_action.submit_tool_outputs.tool_calls
    done = app.call(
        "beta.threads.runs.submit_tool_outputs_and_poll",
        run_id=again.id,
        thread_id=thread,
        tool_outputs=[{"tool_call_id": call.id, "output": "Sunny, 21 degrees."}],
    )
    assert "completed" == done.status
    listed = app.call("beta.threads.messages.list", thread_id=thread)
    assert "Sunny, 21 degrees." in texts(listed)[0]


def test_an_active_run_is_the_providers_own_error(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    post(app, thread, FACT)
    app.call("beta.threads.runs.create", thread_id=thread, assistant_id=assistant)

    with pytest.raises(openai.BadRequestError, match="while a run .* is active"):
        post(app, thread, "Too early.")

    assert [(FACT,)] == world.rows(
        "SELECT json_extract(wire, '$.content[0].text.value') FROM perdure_item WHERE withdrawn = 0"
    )


def test_create_and_run_is_remembered(world: World) -> None:
    app = world.app()
    assistant = app.call("beta.assistants.create", model=MODEL).id
    run = app.call(
        "beta.threads.create_and_run_poll",
        assistant_id=assistant,
        thread={"messages": [{"role": "user", "content": FACT}]},
    )
    app.call("beta.threads.messages.list", thread_id=run.thread_id)
    world.forgets(run.thread_id)

    assert FACT in app.say(run.thread_id, assistant, QUESTION)


def test_a_streamed_create_and_run_is_remembered(world: World) -> None:
    app = world.app()
    assistant = app.call("beta.assistants.create", model=MODEL).id
    events = app.events(
        "beta.threads.create_and_run",
        assistant_id=assistant,
        thread={"messages": [{"role": "user", "content": FACT}]},
    )
    thread = events[0].data.id
    world.forgets(thread)

    assert FACT in app.say(thread, assistant, QUESTION)


def test_metadata_of_a_lost_thread_is_not_lost(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    world.forgets(thread)

    updated = app.call("beta.threads.update", thread_id=thread, metadata={"topic": "dogs"})

    assert {"topic": "dogs"} == updated.metadata
    assert FACT in app.say(thread, assistant, QUESTION)


@pytest.mark.parametrize("streamed", [False, True], ids=["polled", "streamed"])
def test_what_the_app_sent_along_stands_in_the_log_once(world: World, streamed: bool) -> None:
    app = world.app()
    assistant = app.call("beta.assistants.create", model=MODEL).id
    thread = app.call("beta.threads.create", messages=[{"role": "user", "content": FACT}]).id
    asked = {
        "thread_id": thread,
        "assistant_id": assistant,
        "additional_messages": [{"role": "user", "content": QUESTION}],
    }
    if streamed:
        app.events("beta.threads.runs.create", **asked)
    else:
        app.call("beta.threads.runs.create_and_poll", **asked)
    listed = app.call("beta.threads.messages.list", thread_id=thread, order="asc")
    world.forgets(thread)

    posted = post(app, thread, "And now?")

    assert 3 == (recovered(posted) or {})["items_primed"]
    again = app.call("beta.threads.messages.list", thread_id=thread, order="asc")
    assert [message.id for message in listed.data] == [message.id for message in again.data][:3]


def test_a_reply_that_was_lost_before_anybody_read_it_is_no_full_memory(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    post(app, thread, FACT)
    app.call("beta.threads.runs.create_and_poll", thread_id=thread, assistant_id=assistant)
    world.forgets(thread)

    posted = post(app, thread, QUESTION)

    told = recovered(posted) or {}
    assert (1, "partial") == (told["items_primed"], told["memory"])


def test_what_a_thread_cannot_hold_is_counted(world: World) -> None:
    """A chat with a tool behind it goes on as a thread, which has no calls outside a run."""
    app = world.app()
    subject = {"Perdure-Subject": "user-1"}
    tool = {"type": "function", "name": "tell", "parameters": {}, "strict": False}
    asked = app.respond("call tell", tools=[tool], extra_headers=subject)
    call = next(item for item in asked.output if item.type == "function_call")
    output = {"type": "function_call_output", "call_id": call.call_id, "output": FACT}
    app.respond([output], extra_headers=subject)
    assistant = app.call("beta.assistants.create", model=MODEL).id
    thread = app.call("beta.threads.create", extra_headers=subject).id
    world.forgets(thread)

    run = app.call("beta.threads.runs.create", thread_id=thread, assistant_id=assistant)

    told = recovered(run) or {}
    assert (2, 2, "partial") == (
        told["items_primed"],
        told["items_left_out"],
        told["memory"],
    )
