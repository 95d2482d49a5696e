"""Runs that say something before they ask for their tools' outputs: that is not their answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import openai
import pytest

from perdure.testing import Fault
from perdure.transport import client as clients
from tests.world import MODEL, App, World, recovered

ASKED = 'say Let me look.\ncall get_weather {"location": "Porto"}'
WORDS = "Let me look."
WEATHER = "Sunny, 21 degrees."
RUN_SECONDS = 6.0  # the provider's run has come on by then
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}
NOBODYS = {"tool_call_id": "call_of_nobody", "output": "?"}
LIST = "beta.threads.messages.list"
SUBMIT = "beta.threads.runs.submit_tool_outputs"


class Talk:
    """A thread whose assistant looks something up, after a word."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.app = world.app()
        self.thread = self.app.call("beta.threads.create").id
        self.assistant = self.app.call("beta.assistants.create", model=MODEL, tools=[TOOL]).id
        self.post(ASKED)
        self.on = {"thread_id": self.thread}

    def post(self, message: str) -> Any:
        return self.app.call(
            "beta.threads.messages.create", thread_id=self.thread, role="user", content=message
        )

    def run(self) -> Any:
        """Begin the run, and poll it until it asks."""
        run = self.app.call(
            "beta.threads.runs.create_and_poll", **self.on, assistant_id=self.assistant
        )
        assert "requires_action" == run.status
        return run

    def outputs(self, run: Any) -> dict[str, Any]:
        (call,) = run.required_action.submit_tool_outputs.tool_calls
        made = [{"tool_call_id": call.id, "output": WEATHER}]
        return {**self.on, "run_id": run.id, "tool_outputs": made}

    def retrieve(self, run: Any) -> Any:
        return self.app.call("beta.threads.runs.retrieve", **self.on, run_id=run.id)

    def told_after_a_loss(self) -> list[str]:
        """Return what the next thread is told before the next message."""
        self.world.forgets(self.thread)
        posted = self.post("Thank you.")
        assert "full" == (recovered(posted) or {})["memory"]
        return self.told(posted)

    def told(self, posted: Any) -> list[str]:
        told = self.world.provider.messages(posted.thread_id)
        return [message["content"][0]["text"]["value"] for message in told][:-1]

    def reads(self) -> int:
        return sum(request.startswith("GET") for request, _ in self.world.asked())

    def runs(self) -> int:
        return self.world.asked().count(("POST threads/thread/runs", 200))


@pytest.mark.parametrize("reader", ["the app", "the next write", "nobody"])
def test_a_polled_run_that_ends_in_a_stream_costs_nothing_extra(world: World, reader: str) -> None:
    """The stream shows what it says since it got the outputs, and not what it said before."""
    talk = Talk(world)
    run = talk.run()
    world.provider.clear_requests()

    events = talk.app.events(SUBMIT, **talk.outputs(run))

    assert "thread.run.completed" == events[-1].event
    assert 0 == talk.reads()
    if reader == "the app":
        talk.app.call(LIST, **talk.on)
        talk.post("Well.")
        assert 1 == talk.reads()
    elif reader == "the next write":
        talk.post("Well.")
        assert 1 == talk.reads()
    world.forgets(talk.thread)
    posted = talk.post("Thank you.")
    told = talk.told(posted)
    if reader == "nobody":  # what it said before is gone with its thread
        assert "partial" == (recovered(posted) or {})["memory"]
        assert ASKED == told[0]
        assert WEATHER in told[1], "the app has seen it"
    else:
        assert [ASKED, WORDS] == told[:2]
        assert WEATHER in told[2]
        assert ["Well."] == told[3:]


def test_a_run_that_is_streamed_from_end_to_end_costs_nothing_extra(world: World) -> None:
    talk = Talk(world)
    events = talk.app.events("beta.threads.runs.create", **talk.on, assistant_id=talk.assistant)
    assert "thread.run.requires_action" == events[-1].event
    talk.app.events(SUBMIT, **talk.outputs(events[-1].data))
    talk.post("Thank you.")

    assert 0 == talk.reads()
    assert [ASKED, WORDS] == talk.told_after_a_loss()[:2]


def test_a_run_that_is_polled_to_its_end_and_listed_costs_nothing_extra(world: World) -> None:
    talk = Talk(world)
    run = talk.run()
    talk.app.call("beta.threads.runs.submit_tool_outputs_and_poll", **talk.outputs(run))
    talk.app.call(LIST, **talk.on)
    world.provider.clear_requests()
    talk.post("Thank you.")

    assert [("POST threads/thread/messages", 200)] == world.asked()
    assert [ASKED, WORDS] == talk.told_after_a_loss()[:2]


def test_a_word_before_the_outputs_is_no_answer(world: World) -> None:
    """Its thread is lost while it works on what it was given."""
    talk = Talk(world)
    run = talk.run()
    assert WORDS in str(talk.app.call(LIST, **talk.on))
    talk.app.call(SUBMIT, **talk.outputs(run))
    world.forgets(talk.thread)

    again = talk.retrieve(run)

    assert again.status != "completed"
    assert 1 == talk.runs(), "once more"
    world.clock.advance(RUN_SECONDS)
    again = talk.retrieve(run)
    assert "requires_action" == again.status
    done = talk.app.call("beta.threads.runs.submit_tool_outputs_and_poll", **talk.outputs(again))
    assert "completed" == done.status


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("later", [False, True], ids=["at once", "once it has answered"])
def test_outputs_whose_answer_was_lost_are_taken_once(
    world: World, *, later: bool, stream: bool
) -> None:
    """The provider refuses them when they are sent again: it has them."""
    talk = Talk(world)
    outputs = talk.outputs(talk.run())
    world.provider.order(Fault("answer_lost", match=r"POST .*/submit_tool_outputs"))
    with pytest.raises(openai.APIConnectionError):
        talk.app.call(SUBMIT, **outputs)
    if later:
        world.clock.advance(RUN_SECONDS)

    if stream:
        assert "thread.run.completed" in [one.event for one in talk.app.events(SUBMIT, **outputs)]
    else:
        assert talk.app.call(SUBMIT, **outputs).status in {"in_progress", "completed"}
    world.clock.advance(RUN_SECONDS)
    assert WEATHER in str(talk.app.call(LIST, **talk.on).data[0].content)
    assert 1 == talk.runs()


def test_outputs_of_calls_that_nobody_asked_for_are_refused(world: World) -> None:
    talk = Talk(world)
    outputs = talk.outputs(talk.run())
    talk.app.call(SUBMIT, **outputs)
    other = {**outputs, "tool_outputs": [{"tool_call_id": "call_other", "output": "x"}]}

    with pytest.raises(openai.BadRequestError):
        talk.app.call(SUBMIT, **other)


def test_a_part_of_the_outputs_that_a_run_waits_for_is_refused(world: World) -> None:
    """Taken for a repeat, they would be answered as if it had got them."""
    app = world.app()
    thread, _ = app.thread()
    assistant = app.call("beta.assistants.create", model=MODEL, tools=[TOOL]).id
    app.call("beta.threads.messages.create", thread_id=thread, role="user", content="Look.")
    calls = [
        {"type": "function_call", "call_id": one, "name": "get_weather", "arguments": "{}"}
        for one in ("call_1", "call_2")
    ]
    world.provider.script(calls)
    run = app.call("beta.threads.runs.create", thread_id=thread, assistant_id=assistant)
    world.clock.advance(RUN_SECONDS)  # it asks, and nobody has seen it through us
    at = {"thread_id": thread, "run_id": run.id}
    outputs = [{"tool_call_id": call["call_id"], "output": WEATHER} for call in calls]

    for _ in range(2):
        with pytest.raises(openai.BadRequestError):
            app.call(SUBMIT, tool_outputs=outputs[:1], **at)

    assert "queued" == app.call(SUBMIT, tool_outputs=outputs, **at).status


@pytest.mark.parametrize("then", ["retrieve", "submit"])
def test_outputs_that_come_late_are_answered_once(world: World, then: str) -> None:
    """The app hears that they did not get through, and sees it ask for them once more."""
    talk = Talk(world)
    run = talk.run()
    world.provider.order(Fault("status", status=500, match=r"POST .*/submit_tool_outputs"))
    with pytest.raises(openai.InternalServerError):
        talk.app.call(SUBMIT, **talk.outputs(run))
    assert "requires_action" == talk.retrieve(run).status
    world.plain().call(SUBMIT, **talk.outputs(run))  # they were on their way
    world.clock.advance(RUN_SECONDS)
    assert WEATHER in str(talk.app.call(LIST, **talk.on))
    world.forgets(talk.thread)

    if then == "retrieve":
        assert "completed" == talk.retrieve(run).status
    else:
        assert "completed" == talk.app.call(SUBMIT, **talk.outputs(run)).status

    assert 0 == talk.runs()
    said = [one.run_id for one in talk.app.call(LIST, **talk.on).data if one.run_id]
    assert [run.id] * 2 == said


def test_outputs_that_are_refused_leave_a_run_asking(world: World) -> None:
    talk = Talk(world)
    run = talk.run()
    with pytest.raises(openai.BadRequestError):
        talk.app.call(SUBMIT, **{**talk.outputs(run), "tool_outputs": [NOBODYS]})
    assert "requires_action" == talk.retrieve(run).status
    talk.app.call(LIST, **talk.on)
    world.forgets(talk.thread)

    assert talk.retrieve(run).status != "completed"

    assert 1 == talk.runs(), "once more"


def test_outputs_that_are_given_again_after_a_429_cost_nothing_extra(world: World) -> None:
    talk = Talk(world)
    events = talk.app.events("beta.threads.runs.create", **talk.on, assistant_id=talk.assistant)
    outputs = talk.outputs(events[-1].data)
    world.provider.order(Fault("status", status=429, match=r"POST .*/submit_tool_outputs"))
    with pytest.raises(openai.RateLimitError):
        talk.app.events(SUBMIT, **outputs)

    talk.app.events(SUBMIT, **outputs)
    talk.post("Well.")

    assert 0 == talk.reads()
    told = talk.told_after_a_loss()
    assert [ASKED, WORDS] == told[:2]
    assert WEATHER in told[2]


def test_outputs_that_nobody_asked_for_do_not_begin_it_again(world: World) -> None:
    """It has answered; what comes for other calls then is refused."""
    talk = Talk(world)
    run = talk.run()
    talk.app.call(SUBMIT, **talk.outputs(run))
    world.clock.advance(RUN_SECONDS)
    assert WEATHER in str(talk.app.call(LIST, **talk.on))
    with pytest.raises(openai.BadRequestError):
        talk.app.call(SUBMIT, **{**talk.outputs(run), "tool_outputs": [NOBODYS]})
    world.forgets(talk.thread)

    assert "completed" == talk.retrieve(run).status

    assert 0 == talk.runs()


@pytest.mark.parametrize("first", ["refused", "taken"])
def test_outputs_that_two_give_at_once_are_answered_once(sync_world: World, first: str) -> None:
    """One is refused because the other was faster: that says nothing about the run."""
    on_its_way = OnItsWay()
    talk = Talk(sync_world)
    run = talk.run()
    outputs = talk.outputs(run)
    slow = sync_world.app(inner=on_its_way)
    other = {"refused": on_its_way.before, "taken": on_its_way.after}[first]
    other.append(lambda: gives(talk.app, outputs))

    taken = gives(slow, outputs)

    assert (first == "taken") == taken
    sync_world.clock.advance(RUN_SECONDS)
    assert WEATHER in str(talk.app.call(LIST, **talk.on))
    sync_world.forgets(talk.thread)

    assert "completed" == talk.retrieve(run).status

    assert 0 == talk.runs()


def gives(app: App, outputs: dict[str, Any]) -> bool:
    """Whether a run takes the outputs that an app gives it."""
    try:
        app.call(SUBMIT, **outputs)
    except openai.BadRequestError:
        return False
    return True


class OnItsWay:
    """A transport that lets others be faster before outputs reach the provider, or an answer us."""

    def __init__(self) -> None:
        self.inner: Any = clients._library(None, None).HTTPTransport()
        self.before: list[Callable[[], object]] = []
        self.after: list[Callable[[], object]] = []

    def handle_request(self, request: Any) -> Any:
        gives = request.url.path.endswith("/submit_tool_outputs")
        for one in self.before if gives else ():
            one()
        response = self.inner.handle_request(request)
        for one in self.after if gives else ():
            one()
        return response

    def close(self) -> None:
        self.inner.close()


@pytest.mark.parametrize("nothing", [[], 5])
def test_a_run_that_is_given_nothing_is_not_over(world: World, nothing: object) -> None:
    """What it said before it asked would be taken for its answer."""
    talk = Talk(world)
    run = talk.run()
    talk.app.call(LIST, **talk.on)
    world.forgets(talk.thread)

    again = talk.app.call(SUBMIT, **{**talk.outputs(run), "tool_outputs": nothing})

    assert "queued" == again.status
    assert 1 == talk.runs()


def test_a_run_that_was_seen_to_ask_in_a_list_is_known_by_its_outputs(world: World) -> None:
    talk = Talk(world)
    begun = talk.app.call("beta.threads.runs.create", **talk.on, assistant_id=talk.assistant)
    world.clock.advance(RUN_SECONDS)
    (run,) = talk.app.call("beta.threads.runs.list", **talk.on).data
    assert (begun.id, "requires_action") == (run.id, run.status)

    talk.app.events(SUBMIT, **talk.outputs(run))
    talk.app.call(LIST, **talk.on)

    told = talk.told_after_a_loss()
    assert [ASKED, WORDS] == told[:2]
    assert WEATHER in told[2]


def test_what_a_run_said_that_came_to_nothing_is_read_by_the_next_write(world: World) -> None:
    talk = Talk(world)
    run = talk.run()
    world.clock.advance(timedelta(minutes=11).total_seconds())
    assert "expired" == talk.retrieve(run).status

    talk.post("Well.")

    assert [ASKED, WORDS, "Well."] == talk.told_after_a_loss()


# -- streamed where the run is not any more -----------------------------------------------------


def words_in(events: list[Any]) -> list[str]:
    """The messages that a stream of events tells whole."""
    return [
        one.data.content[0].text.value for one in events if one.event == "thread.message.completed"
    ]


@pytest.mark.parametrize("met", ["by the outputs", "before"])
def test_outputs_that_are_streamed_after_a_loss_show_the_run_that_is_begun_again(
    world: World, met: str
) -> None:
    talk = Talk(world)
    run = talk.run()
    world.forgets(talk.thread)
    if met == "before":
        talk.app.call("beta.threads.update", **talk.on, metadata={})

    events = talk.app.events(SUBMIT, **talk.outputs(run))

    assert "thread.run.created" == events[0].event
    assert "thread.run.requires_action" == events[-1].event
    assert [WORDS] == words_in(events)
    again = events[-1].data
    assert run.id != again.id
    assert 1 == talk.runs()
    if met == "by the outputs":
        assert "partial" == (recovered(events[0].data) or {})["memory"], "nobody had read it"
        assert recovered(events[0].data) == recovered(again)
        assert [None] * 2 == [recovered(one.data) for one in events[1:3]]

    events = talk.app.events(SUBMIT, **talk.outputs(again))

    assert "thread.run.completed" == events[-1].event
    assert WEATHER in words_in(events)[-1]


def test_a_run_that_answers_as_it_is_begun_again_is_streamed_to_its_end(world: World) -> None:
    talk = Talk(world)
    run = talk.run()
    world.forgets(talk.thread)
    world.provider.script("It needs no tools.")

    events = talk.app.events(SUBMIT, **talk.outputs(run))

    assert "thread.run.completed" == events[-1].event
    assert ["It needs no tools."] == words_in(events)
    world.forgets()
    assert "It needs no tools." in str(talk.app.call(LIST, **talk.on))


@pytest.mark.parametrize("ended", ["streamed", "polled"])
@pytest.mark.parametrize("met", ["by the outputs", "before"])
def test_outputs_that_are_streamed_again_after_a_loss_show_the_answer(
    world: World, ended: str, met: str
) -> None:
    talk = Talk(world)
    run = talk.run()
    if ended == "streamed":
        answer = words_in(talk.app.events(SUBMIT, **talk.outputs(run)))[-1]
    else:
        talk.app.call(f"{SUBMIT}_and_poll", **talk.outputs(run))
        answer = talk.app.call(LIST, **talk.on).data[0].content[0].text.value
    world.forgets(talk.thread)
    if met == "before":
        talk.post("Thank you.")

    events = talk.app.events(SUBMIT, **talk.outputs(run))

    assert ("thread.run.completed", run.id) == (events[-1].event, events[-1].data.id)
    assert answer == words_in(events)[-1]
    assert 0 == talk.runs()


def test_the_helper_of_the_sdk_reads_outputs_that_are_streamed_after_a_loss(
    sync_world: World,
) -> None:
    talk = Talk(sync_world)
    run = talk.run()
    sync_world.forgets(talk.thread)

    with (
        pytest.warns(DeprecationWarning, match="Assistants API"),
        talk.app.call(f"{SUBMIT}_stream", **talk.outputs(run)) as stream,
    ):
        assert WORDS == "".join(stream.text_deltas)

    assert "requires_action" == stream.get_final_run().status
