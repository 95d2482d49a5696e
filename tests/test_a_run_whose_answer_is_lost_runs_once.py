"""A run that was begun and never told of: it is looked for on its thread before anything else."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

import perdure
from perdure.dialects.items import text_of
from perdure.testing import Fault
from tests.world import MODEL, App, World, recovered

DOG = "My dog is called Rex."
CAT = "My cat is called Tom."
WHOSE = "What is my dog called?"
AGAIN = {"x-stainless-retry-count": "1"}  # what the SDK says when it repeats a call by itself
NEVER_DONE: dict[str, Any] = {"timing": "before"}
RUNS = r"POST /threads/[^/]+/runs$"
ENDS_SECONDS = 6.0  # later than this the provider's run has ended by itself
LOST_AND_FOUND = [("POST threads/thread/runs", None), ("GET threads/thread/runs", 200)]
TOOL = {"type": "function", "function": {"name": "tell", "parameters": {"type": "object"}}}


class Talk:
    """A thread with one exchange behind it and a question on it."""

    def __init__(self, world: World, app: App, **assistant: Any) -> None:
        self.world = world
        self.app = app
        self.assistant = app.call("beta.assistants.create", model=MODEL, **assistant).id
        self.thread = app.call("beta.threads.create").id
        app.say(self.thread, self.assistant, DOG)
        self.post(WHOSE)
        world.provider.clear_requests()

    def post(self, message: str) -> Any:
        return self.app.call(
            "beta.threads.messages.create", thread_id=self.thread, role="user", content=message
        )

    def run(self, **values: Any) -> Any:
        at = {"thread_id": self.thread, "assistant_id": self.assistant}
        return self.app.call("beta.threads.runs.create", **{**at, **values})

    def loses(self, *, streamed: bool = False, **fault: Any) -> None:
        """Begin a run whose answer is lost, after the work or (timing="before") without any."""
        self.world.provider.order(Fault("answer_lost", match=RUNS, **fault))
        with pytest.raises(openai.APIConnectionError):
            self.run(stream=True) if streamed else self.run()

    def ends(self) -> None:
        """The provider's run comes to its end."""
        self.world.clock.advance(ENDS_SECONDS)

    def goes_on(self) -> None:
        """The run of a stream that was lost, which the test provider has done already, goes on."""
        thread = self.world.provider.state.threads[self.thread]
        run = list(thread.runs.values())[-1]
        run.body |= {"status": "queued", "completed_at": None, "usage": None}
        run.since = self.world.clock.now()
        thread.messages.popitem()

    def poll(self, run_id: str) -> Any:
        return self.app.call(
            "beta.threads.runs.poll", run_id=run_id, thread_id=self.thread, poll_interval_ms=1
        )

    def begun(self) -> list[str]:
        """The runs that the provider has had on this thread, and on any that replaced it."""
        threads = self.world.provider.state.threads.values()
        return [run for thread in threads for run in thread.runs]

    def shown(self) -> list[str]:
        """What the thread shows to an app without perdure, oldest first."""
        messages = self.world.provider.messages(self.thread)
        return [message["content"][0]["text"]["value"] for message in messages]

    def logged(self) -> list[str]:
        """What stands in the log, oldest first."""
        found = self.world.rows(
            "SELECT COALESCE(input, wire) FROM perdure_item WHERE withdrawn = 0 ORDER BY position"
        )
        return [text_of(json.loads(item)) for (item,) in found]


@pytest.fixture
def talk(world: World) -> Talk:
    return Talk(world, world.app())


def test_the_sdks_own_repeat_gets_the_run_that_goes_on(world: World, talk: Talk) -> None:
    talk.loses()

    run = talk.run(extra_headers=AGAIN)

    assert LOST_AND_FOUND == world.asked()
    assert ("queued", talk.begun()[-1], 2) == (run.status, run.id, len(talk.begun()))
    assert "completed" == talk.poll(run.id).status
    listed = talk.app.call("beta.threads.messages.list", thread_id=talk.thread)
    assert DOG in listed.data[0].content[0].text.value
    assert 4 == len(talk.shown())
    assert [] == world.recoveries


def test_a_run_that_has_ended_is_the_answer(world: World, talk: Talk) -> None:
    talk.loses()
    talk.ends()

    run = talk.run(extra_headers=AGAIN)

    assert LOST_AND_FOUND == world.asked()
    assert ("completed", talk.begun()[-1]) == (run.status, run.id)
    talk.post(CAT)
    assert talk.shown() == talk.logged()
    assert 5 == len(talk.logged())


def test_what_was_never_begun_is_begun_on_a_new_thread(world: World, talk: Talk) -> None:
    talk.loses(**NEVER_DONE)

    run = talk.run(extra_headers=AGAIN)

    told = recovered(run) or {}
    assert ("ambiguous", "full") == (told["reason"], told["memory"])
    assert 2 == len(talk.begun())
    talk.poll(run.id)
    listed = talk.app.call("beta.threads.messages.list", thread_id=talk.thread)
    assert DOG in listed.data[0].content[0].text.value


@pytest.mark.parametrize("ended", [False, True], ids=["goes on", "ended"])
def test_the_next_message_settles_the_run_before_it(
    world: World, talk: Talk, *, ended: bool
) -> None:
    talk.loses()
    if ended:
        talk.ends()
    else:  # as the bare SDK would see it; the run is known from now on
        with pytest.raises(openai.BadRequestError, match="is active"):
            talk.post(CAT)
        looked = [*LOST_AND_FOUND, ("GET threads/thread/messages", 200)]
        assert [*looked, ("POST threads/thread/messages", 400)] == world.asked()
        talk.ends()

    talk.post(CAT)

    assert 2 == len(talk.begun())
    assert talk.shown() == talk.logged()
    assert [DOG, WHOSE, CAT] == talk.logged()[::2]
    assert [] == world.recoveries
    assert [] == world.rows("SELECT 1 FROM perdure_turn WHERE kind = 'run' AND state = 'unknown'")


def test_no_thread_is_replaced_on_the_word_of_a_failing_server(world: World, talk: Talk) -> None:
    talk.loses()
    looking = r"GET /threads/[^/]+/runs$"
    world.provider.order(Fault("status", status=503, match=looking, times=2))

    with pytest.raises(openai.InternalServerError):
        talk.run(extra_headers=AGAIN)
    with pytest.raises(openai.InternalServerError):
        talk.post(CAT)
    run = talk.run(extra_headers={"x-stainless-retry-count": "2"})

    assert talk.begun()[-1] == run.id
    assert 2 == len(talk.begun())
    assert [] == world.recoveries


@pytest.mark.parametrize("another", ["one of another assistant", "two of this one"])
def test_a_run_of_somebody_elses_is_not_taken(world: World, talk: Talk, another: str) -> None:
    talk.loses(**NEVER_DONE)
    plain = Talk.__new__(Talk)
    plain.app, plain.thread, plain.assistant = world.plain(), talk.thread, talk.assistant
    if another == "one of another assistant":
        other = talk.app.call("beta.assistants.create", model=MODEL).id
        plain.poll(plain.run(assistant_id=other).id)
    else:
        plain.poll(plain.run().id)
        plain.poll(plain.run().id)
    theirs = talk.begun()

    run = talk.run(extra_headers=AGAIN)

    assert "ambiguous" == (recovered(run) or {})["reason"]
    assert run.id not in theirs


def test_an_earlier_run_on_a_thread_from_elsewhere_is_not_taken(world: World) -> None:
    elsewhere = Talk(world, world.plain())
    app = world.app(policy=perdure.Policy(on_unknown="fresh"))
    theirs = elsewhere.begun()
    elsewhere.app = app
    elsewhere.loses(**NEVER_DONE)

    run = elsewhere.run(extra_headers=AGAIN)

    assert run.id not in theirs


@pytest.mark.parametrize("ended", [False, True], ids=["goes on", "ended"])
def test_streamed_the_run_comes_as_events(world: World, talk: Talk, *, ended: bool) -> None:
    talk.loses(streamed=True)
    if not ended:
        talk.goes_on()

    events = talk.app.events(
        "beta.threads.runs.create",
        thread_id=talk.thread,
        assistant_id=talk.assistant,
        extra_headers=AGAIN,
    )

    assert ["thread.run.created", "thread.run.completed"] == [events[0].event, events[-1].event]
    said = [event.data for event in events if event.event == "thread.message.completed"]
    pieces = [event.data for event in events if event.event == "thread.message.delta"]
    assert DOG in said[0].content[0].text.value
    assert said[0].content[0].text.value == pieces[0].delta.content[0].text.value
    assert 2 == len(talk.begun())
    assert talk.shown() == talk.logged()


def test_a_stream_that_was_cut_before_it_told_of_its_run(world: World, talk: Talk) -> None:
    world.provider.order(Fault("cut_stream", events=0, match=RUNS))
    with pytest.raises(openai.APIError):
        talk.app.events(
            "beta.threads.runs.create", thread_id=talk.thread, assistant_id=talk.assistant
        )

    talk.post(CAT)

    assert 2 == len(talk.begun())
    assert [DOG, WHOSE, CAT] == talk.logged()[::2]
    assert [] == world.recoveries


def test_a_run_that_waits_for_its_tools_is_served(world: World) -> None:
    talk = Talk(world, world.app(), tools=[TOOL])
    talk.post("call tell")
    talk.loses()

    run = talk.run(extra_headers=AGAIN)
    asked = talk.poll(run.id)
    (call,) = asked.required_action.submit_tool_outputs.tool_calls
    done = talk.app.call(
        "beta.threads.runs.submit_tool_outputs_and_poll",
        run_id=run.id,
        thread_id=talk.thread,
        tool_outputs=[{"tool_call_id": call.id, "output": "Told."}],
        poll_interval_ms=1,
    )

    assert "completed" == done.status
    assert 2 == len(talk.begun())


def test_one_call_can_be_enough(world: World) -> None:
    talk = Talk(world, world.app(policy=perdure.Policy(on_ambiguous="raise")))
    talk.loses()
    world.provider.clear_requests()

    with pytest.raises(openai.InternalServerError) as refused:
        talk.run(extra_headers=AGAIN)

    assert "turn_expired" == refused.value.code
    assert [] == world.asked()


def test_the_sdk_itself_gets_its_run(world: World, talk: Talk) -> None:
    world.provider.order(Fault("answer_lost", match=RUNS))
    talk.app = App(world, talk.app.sdk.with_options(max_retries=2))

    assert talk.run().id == talk.begun()[-1]

    assert 2 == len(talk.begun())


# -- an app that looks itself ----------------------------------------------------------------


def test_an_app_that_looks_for_its_run_sees_it(world: World, talk: Talk) -> None:
    talk.loses()
    talk.ends()

    runs = talk.app.call("beta.threads.runs.list", thread_id=talk.thread)
    messages = talk.app.call("beta.threads.messages.list", thread_id=talk.thread)

    assert list(reversed(talk.begun())) == [run.id for run in runs.data]
    assert talk.shown() == [one.content[0].text.value for one in reversed(messages.data)]
    assert talk.shown() == talk.logged()
    assert [] == world.recoveries
    assert [("answered",)] == world.rows("SELECT DISTINCT state FROM perdure_turn")


def test_an_app_that_looks_for_its_answer_sees_it(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(DOG, conversation=conversation)
    world.provider.order(Fault("answer_lost", match="POST /responses"))
    with pytest.raises(openai.APIConnectionError):
        app.respond(WHOSE, conversation=conversation)

    listed = app.call("conversations.items.list", conversation_id=conversation)

    assert DOG in listed.data[0].content[0].text
    assert [] == world.recoveries
    assert [("answered",)] == world.rows("SELECT DISTINCT state FROM perdure_turn")
