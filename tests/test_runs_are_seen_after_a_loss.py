"""Runs of a lost thread: listed, read, looked into and changed as the app saw them."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.world import App, World

DOG = "My dog is called Rex."
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"}
RUNS = "beta.threads.runs"


def runs_of(app: App, thread: str, size: int = 100, **values: Any) -> list[dict[str, Any]]:
    """Everything that a list of runs has, page by page."""
    page = app.call(f"{RUNS}.list", thread_id=thread, limit=size, **values)
    found = list(page.data)
    while page.has_more:
        page = app.world.wait(page.get_next_page())
        found += page.data
    return [run.to_dict() for run in found]


def spoken(world: World, count: int = 3) -> tuple[App, str, str]:
    """A thread on which some runs have ended."""
    app = world.app()
    thread, assistant = app.thread()
    for number in range(count):
        app.say(thread, assistant, f"Fact {number}.")
    return app, thread, assistant


@pytest.mark.parametrize("when", ["met by the list", "known before"])
def test_runs_are_listed_as_they_were_seen(world: World, when: str) -> None:
    app, thread, assistant = spoken(world)
    seen = [
        app.call(f"{RUNS}.retrieve", thread_id=thread, run_id=run["id"]).to_dict()
        for run in runs_of(app, thread)
    ]
    world.forgets()
    if when == "known before":
        app.say(thread, assistant, "Hello.")

    listed = runs_of(app, thread)

    assert seen == listed[-3:]
    assert 3 + (when == "known before") == len(listed)
    assert all(
        run == app.call(f"{RUNS}.retrieve", thread_id=thread, run_id=run["id"]).to_dict()
        for run in listed
    )


def test_a_list_of_runs_that_meets_the_loss_makes_no_new_thread(world: World) -> None:
    app, thread, _ = spoken(world)
    world.forgets()

    for _ in range(2):
        runs_of(app, thread)

    assert [("GET threads/thread/runs", 404)] == world.asked()


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_runs_are_paged_in_both_directions(world: World, order: str) -> None:
    app, thread, _ = spoken(world, 4)
    world.forgets()
    whole = [run["id"] for run in runs_of(app, thread, order=order)]
    assert 4 == len(whole)

    for size in (1, 2, 3):
        assert whole == [run["id"] for run in runs_of(app, thread, size, order=order)], size
        for cursor in range(4):
            values = {"order": order, "limit": size, "before": whole[cursor]}
            page = app.call(f"{RUNS}.list", thread_id=thread, **values)
            assert whole[max(0, cursor - size) : cursor] == [run.id for run in page.data]
    with pytest.raises(openai.NotFoundError):
        app.call(f"{RUNS}.list", thread_id=thread, after="run_of_nobody")


def test_a_run_that_goes_on_is_listed_as_it_is(world: World) -> None:
    app, thread, assistant = spoken(world)
    world.forgets()
    app.call("beta.threads.messages.create", thread_id=thread, role="user", content="Hello.")
    run = app.call(f"{RUNS}.create", thread_id=thread, assistant_id=assistant)
    assert "queued" == run.status
    live = next(iter(world.provider.state.threads.values()))
    while live.runs[run.id].body["status"] != "completed":
        world.plain().call(f"{RUNS}.retrieve", thread_id=live.id, run_id=run.id)

    assert "completed" == runs_of(app, thread)[0]["status"]

    world.forgets()
    assert "completed" == runs_of(app, thread)[0]["status"], "it was seen to have ended"


@pytest.mark.parametrize("how", ["retrieve", "list", "next page", "update"])
def test_a_run_that_was_seen_to_have_ended_is_not_begun_again(world: World, how: str) -> None:
    app, thread, assistant = spoken(world, 1)
    app.call("beta.threads.messages.create", thread_id=thread, role="user", content="Hello.")
    at = {"thread_id": thread}
    run = app.call(f"{RUNS}.create", assistant_id=assistant, **at).id
    for _ in range(2):  # it ends, and nobody sees it through us
        world.clock.advance(6.0)
        world.plain().call(f"{RUNS}.retrieve", run_id=run, **at)
    world.provider.clear_requests()
    match how:
        case "retrieve":
            seen = app.call(f"{RUNS}.retrieve", run_id=run, **at)
        case "list":
            seen = app.call(f"{RUNS}.list", **at).data[0]
        case "next page":
            first = app.call(f"{RUNS}.list", order="asc", limit=1, **at)
            (seen,) = app.world.wait(first.get_next_page()).data
        case _:
            seen = app.call(f"{RUNS}.update", run_id=run, metadata={"a": "b"}, **at)
    assert (run, "completed") == (seen.id, seen.status)
    assert 1 + (how == "next page") == len(world.asked()), "it costs no request"
    world.forgets()

    assert seen == app.call(f"{RUNS}.retrieve", run_id=run, **at)

    assert [("GET threads/thread/runs/run", 404)] == world.asked()


def test_a_run_that_was_seen_to_ask_in_a_list_is_seen_to_ask_after_it(world: World) -> None:
    app, thread, _ = spoken(world, 1)
    assistant = app.call("beta.assistants.create", model="gpt-5.6", tools=[TOOL]).id
    app.call("beta.threads.messages.create", thread_id=thread, role="user", content="Weather?")
    world.provider.script([CALL])
    run = app.call(f"{RUNS}.create", thread_id=thread, assistant_id=assistant)
    world.clock.advance(6.0)

    (seen,) = app.call(f"{RUNS}.list", thread_id=thread, limit=1).data

    assert "requires_action" == seen.status
    kept = world.rows("select body from perdure_handle where handle = ?", run.id)
    assert "requires_action" in str(kept)


def test_the_steps_of_a_run_that_has_stayed_behind_are_none(world: World) -> None:
    app, thread, assistant = spoken(world)
    run = runs_of(app, thread)[0]["id"]
    at = {"thread_id": thread, "run_id": run}
    (step,) = app.call(f"{RUNS}.steps.list", **at).data
    world.forgets()

    for _ in range(2):
        assert [] == app.call(f"{RUNS}.steps.list", **at).data
        with pytest.raises(openai.NotFoundError):
            app.call(f"{RUNS}.steps.retrieve", step_id=step.id, **at)
        with pytest.raises(openai.NotFoundError):
            app.call(f"{RUNS}.steps.list", thread_id=thread, run_id="run_of_nobody")
        app.say(thread, assistant, "Hello.")
    newest = runs_of(app, thread)[0]["id"]
    assert 1 == len(app.call(f"{RUNS}.steps.list", thread_id=thread, run_id=newest).data)


def test_a_run_of_a_lost_thread_is_changed_where_it_is_kept(world: World) -> None:
    app, thread, assistant = spoken(world)
    runs = runs_of(app, thread)
    at = {"thread_id": thread, "run_id": runs[0]["id"]}
    changed = app.call(f"{RUNS}.update", metadata={"a": "b"}, **at)
    world.forgets()
    assert changed == app.call(f"{RUNS}.retrieve", **at), "as it was changed before the loss"

    for number in range(2):
        changed = app.call(f"{RUNS}.update", metadata={"a": str(number)}, **at)
        assert {"a": str(number)} == changed.metadata
        assert changed == app.call(f"{RUNS}.retrieve", **at)
        app.say(thread, assistant, "Hello.")
    assert {"a": "1"} == runs_of(app, thread)[-3]["metadata"]
    with pytest.raises(openai.BadRequestError):
        app.call(f"{RUNS}.update", metadata={"a": 1}, **at)


def test_tool_outputs_that_come_after_the_loss_lead_to_a_reply(world: World) -> None:
    assistant = world.plain().call("beta.assistants.create", model="gpt-5.6", tools=[TOOL]).id
    chat = world.chat(via="threads", assistant_id=assistant)
    chat.send("user-42", DOG)
    world.provider.script([CALL])
    reply = chat.send("user-42", "How is the weather?")
    (asked,) = reply.tool_calls
    world.forgets()
    world.provider.script([CALL])  # it is begun again, and asks again
    reply = chat.send("user-42", asked.output("21 C"))
    (asked,) = reply.tool_calls

    assert chat.send("user-42", asked.output("21 C")).text

    assert DOG in chat.send("user-42", "What is my dog called?").text


def test_a_lost_run_that_waited_is_found_by_its_list(world: World) -> None:
    app, thread, _ = spoken(world)
    assistant = app.call("beta.assistants.create", model="gpt-5.6", tools=[TOOL]).id
    app.call("beta.threads.messages.create", thread_id=thread, role="user", content="Weather?")
    world.provider.script([CALL])
    app.call(f"{RUNS}.create_and_poll", thread_id=thread, assistant_id=assistant)
    world.forgets()
    world.provider.script([CALL])  # it is begun again, and asks again

    run = runs_of(app, thread)[0]
    assert "requires_action" == run["status"]
    outputs = [{"tool_call_id": "call_1", "output": "21 C"}]
    at = {"thread_id": thread, "run_id": run["id"]}
    ended = app.call(f"{RUNS}.submit_tool_outputs_and_poll", tool_outputs=outputs, **at)

    assert "requires_action" == ended.status
    assert ended.id == runs_of(app, thread)[0]["id"]


@pytest.mark.parametrize("losses", [1, 2])
def test_what_a_run_that_was_started_again_has_said_is_listed_by_its_old_id(
    world: World, losses: int
) -> None:
    app, thread, assistant = spoken(world, 1)
    at = {"thread_id": thread}
    app.call("beta.threads.messages.create", role="user", content="Hello.", **at)
    old = app.call(f"{RUNS}.create", assistant_id=assistant, **at).id
    for _loss in range(losses):
        world.forgets()
        app.call(f"{RUNS}.retrieve", run_id=old, **at)
    new = app.call(f"{RUNS}.poll", run_id=old, poll_interval_ms=1, **at).id
    assert new != old

    listed = app.call("beta.threads.messages.list", run_id=old, **at).data

    assert [(new, "assistant")] == [(message.run_id, message.role) for message in listed]
    assert listed == app.call("beta.threads.messages.list", run_id=new, **at).data
    assert [] == app.call("beta.threads.messages.list", run_id="run_of_nobody", **at).data
