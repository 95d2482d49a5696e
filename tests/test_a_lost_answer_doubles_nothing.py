"""An answer that is lost on the way: what was done counts, what was not is done, nothing twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import openai
import pytest

import perdure
from perdure.testing import Fault
from tests.world import App, World, recovered

DOG = "My dog is called Rex."
CAT = "My cat is called Tom."
WHOSE = "What is my dog called?"
AGAIN = {"x-stainless-retry-count": "1"}  # what the SDK says when it repeats a call by itself
NEVER_DONE = {"timing": "before"}


def lost(world: World, match: str = "POST /responses", **options: Any) -> None:
    """The next answer is lost, after the work or (timing="before") without any."""
    world.provider.order(Fault("answer_lost", match=match, **options))


def loses(app: App, message: str, **at: Any) -> None:
    """Say something whose answer is lost."""
    with pytest.raises(openai.APIConnectionError):
        app.respond(message, **at)


def talking(world: World, **options: Any) -> tuple[App, dict[str, Any]]:
    """An app with a conversation behind it."""
    app = world.app(**options)
    at = {"conversation": app.call("conversations.create").id}
    app.respond(DOG, **at)
    world.provider.clear_requests()
    return app, at


def said(app: App, at: dict[str, Any], role: str = "user") -> list[str]:
    """What one side has said, as the conversation is listed, oldest first."""
    listed = app.call(
        "conversations.items.list", conversation_id=at["conversation"], order="asc", limit=100
    )
    return [item.content[0].text for item in listed.data if item.role == role]


def journalled(world: World) -> list[tuple[str]]:
    """The log's items in order, by their text's first word."""
    return world.rows(
        "SELECT role FROM perdure_item WHERE withdrawn = 0 ORDER BY conversation, position"
    )


def test_the_sdks_own_repeat_finds_the_answer_on_the_conversation(world: World) -> None:
    app, at = talking(world)
    lost(world)
    loses(app, WHOSE, **at)

    answer = app.respond(WHOSE, **at, extra_headers=AGAIN)

    assert DOG in answer.output_text
    assert [("POST responses", None), ("GET conversations/conv/items", 200)] == world.asked()
    assert [DOG, WHOSE] == said(app, at)
    assert [DOG, WHOSE] == said(world.plain(), at)
    assert [("user",), ("assistant",)] * 2 == journalled(world)
    assert [] == world.recoveries


def test_what_was_never_done_is_done_on_a_new_conversation(world: World) -> None:
    app, at = talking(world)
    lost(world, **NEVER_DONE)
    loses(app, WHOSE, **at)

    answer = app.respond(WHOSE, **at, extra_headers=AGAIN)

    assert DOG in answer.output_text
    told = recovered(answer) or {}
    assert ("ambiguous", "full") == (told["reason"], told["memory"])
    assert [DOG, WHOSE] == said(app, at)
    world.drain()
    assert [(at["conversation"],)] == world.rows("SELECT handle FROM perdure_orphan")


def test_the_next_message_settles_the_one_before_it(world: World) -> None:
    app, at = talking(world)
    lost(world)
    loses(app, CAT, **at)

    answer = app.respond(WHOSE, **at)

    assert DOG in answer.output_text
    asked = [("POST responses", None), ("GET conversations/conv/items", 200)]
    assert [*asked, ("POST responses", 200)] == world.asked()
    assert [DOG, CAT, WHOSE] == said(app, at)
    assert [("user",), ("assistant",)] * 3 == journalled(world)
    assert [("answered",)] == world.rows("SELECT DISTINCT state FROM perdure_turn")


def test_the_next_message_leaves_a_question_behind_that_was_never_heard(world: World) -> None:
    app, at = talking(world)
    lost(world, **NEVER_DONE)
    loses(app, CAT, **at)

    answer = app.respond("What is my cat called?", **at)

    assert CAT in answer.output_text
    assert "ambiguous" == (recovered(answer) or {})["reason"]
    assert [("failed", "abandoned")] == world.rows(
        "SELECT state, reason FROM perdure_turn WHERE seq = 2"
    )


@pytest.mark.parametrize("status", [408, 409, 425, 503])
def test_no_conversation_is_replaced_on_the_word_of_a_failing_server(
    world: World, status: int
) -> None:
    app, at = talking(world)
    lost(world)
    loses(app, WHOSE, **at)
    world.provider.order(Fault("status", status=status, match="GET /conversations", times=1))

    with pytest.raises(openai.APIStatusError):
        app.respond(WHOSE, **at, extra_headers=AGAIN)
    answer = app.respond(WHOSE, **at, extra_headers={"x-stainless-retry-count": "2"})

    assert DOG in answer.output_text
    assert {"read_back": True}.items() <= (recovered(answer) or {}).items()
    assert [DOG, WHOSE] == said(world.plain(), at)


def test_a_conversation_that_may_not_be_read_is_replaced(world: World) -> None:
    """A key for model calls alone would be refused for ever."""
    app, at = talking(world)
    lost(world)
    loses(app, WHOSE, **at)
    world.provider.order(Fault("status", status=403, match="GET /conversations"))

    answer = app.respond(WHOSE, **at, extra_headers=AGAIN)

    assert DOG in answer.output_text
    told = recovered(answer) or {}
    assert ("ambiguous", "full") == (told["reason"], told["memory"])
    assert [DOG, WHOSE] == said(app, at)


def test_a_repeat_with_the_same_text_is_not_taken_for_the_turn_before(world: World) -> None:
    app, at = talking(world)
    first = app.respond("Yes.", **at)
    lost(world, **NEVER_DONE)
    loses(app, "Yes.", **at)

    second = app.respond("Yes.", **at, extra_headers=AGAIN)

    assert first.id != second.id
    assert [DOG, "Yes.", "Yes."] == said(app, at)


def test_streamed_the_lost_answer_comes_as_events(world: World) -> None:
    app, at = talking(world)
    lost(world)
    loses(app, WHOSE, **at, stream=True)

    events = app.events("responses.create", model="gpt-5.6", input=WHOSE, extra_headers=AGAIN, **at)

    assert "response.completed" == events[-1].type
    assert DOG in events[-1].response.output_text
    assert [DOG, WHOSE] == said(world.plain(), at)


def test_what_was_shown_before_a_cut_gives_way_to_the_whole_answer(world: World) -> None:
    app, at = talking(world)
    world.provider.order(Fault("cut_stream", events=6))
    with pytest.raises(openai.APIError):
        app.events("responses.create", model="gpt-5.6", input=WHOSE, **at)

    answer = app.respond(CAT, **at)

    assert [DOG, WHOSE, CAT] == said(app, at)
    assert [("user",), ("assistant",)] * 3 == journalled(world)
    assert answer.status == "completed"


@pytest.mark.parametrize("attempts", [2, 3])
def test_a_first_message_that_is_repeated_is_one_turn(world: World, attempts: int) -> None:
    app = world.app()
    world.provider.order(Fault("answer_lost", match="POST /responses", times=attempts - 1))
    for attempt in range(attempts - 1):
        loses(app, DOG, extra_headers={"x-stainless-retry-count": str(attempt)})

    app.respond(DOG, extra_headers={"x-stainless-retry-count": str(attempts - 1)})

    assert [(1, "answered", attempts)] == world.rows(
        "SELECT count(*), state, epoch FROM perdure_turn"
    )
    assert [(1,)] == world.rows("SELECT count(*) FROM perdure_conversation")


def test_two_that_could_be_meant_are_not_confused(world: World) -> None:
    app = world.app()
    world.provider.order(Fault("answer_lost", match="POST /responses", times=2))
    loses(app, DOG)
    loses(app, DOG)

    app.respond(DOG, extra_headers=AGAIN)

    assert [("unknown",), ("unknown",), ("answered",)] == world.rows(
        "SELECT state FROM perdure_turn ORDER BY conversation"
    )


def test_a_repeat_under_another_key_is_another_turn(world: World) -> None:
    transport = world.transport()
    app = world.app_on(transport)
    lost(world)
    loses(app, DOG)

    app.respond(DOG, extra_headers={**AGAIN, "Authorization": "Bearer sk-another"})

    assert [(2,)] == world.rows("SELECT count(*) FROM perdure_turn")


def test_a_chain_goes_on_from_the_attempt_that_was_answered(world: World) -> None:
    app = world.app()
    first = app.respond(DOG)
    lost(world)
    loses(app, WHOSE, previous_response_id=first.id)

    answer = app.respond(WHOSE, previous_response_id=first.id, extra_headers=AGAIN)

    assert DOG in answer.output_text
    assert [("user",), ("assistant",)] * 2 == journalled(world)


def test_a_message_on_a_thread_is_posted_once(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    app.say(thread, assistant, DOG)
    lost(world, r"POST /threads/[^/]+/messages")
    post = {"thread_id": thread, "role": "user", "content": WHOSE}
    with pytest.raises(openai.APIConnectionError):
        app.call("beta.threads.messages.create", **post)

    message = app.call("beta.threads.messages.create", **post, extra_headers=AGAIN)

    held = [part["content"][0]["text"]["value"] for part in world.provider.messages(thread)]
    assert 1 == held.count(WHOSE)
    assert message.id in [part["id"] for part in world.provider.messages(thread)]
    assert [] == world.recoveries


def test_items_are_appended_once(world: World) -> None:
    app, at = talking(world)
    lost(world, r"POST /conversations/[^/]+/items")
    items = {
        "conversation_id": at["conversation"],
        "items": [{"type": "message", "role": "user", "content": text} for text in (CAT, WHOSE)],
    }
    with pytest.raises(openai.APIConnectionError):
        app.call("conversations.items.create", **items)

    listed = app.call("conversations.items.create", **items, extra_headers=AGAIN)

    assert [CAT, WHOSE] == [item.content[0].text for item in listed.data]
    assert [DOG, CAT, WHOSE] == said(world.plain(), at)


@pytest.mark.parametrize("kind", ["conversation", "response"])
def test_one_call_can_be_enough(world: World, kind: str) -> None:
    app, at = talking(world, policy=perdure.Policy(on_ambiguous="raise"))
    if kind == "response":
        at = {"previous_response_id": app.respond(DOG).id}
    lost(world)
    loses(app, WHOSE, **at)
    world.provider.clear_requests()

    with pytest.raises(openai.InternalServerError) as refused:
        app.respond(WHOSE, **at, extra_headers=AGAIN)

    assert "turn_expired" == refused.value.code
    assert 'on_ambiguous="raise". Its' in refused.value.message
    assert "deadline" not in refused.value.message
    assert "false" == refused.value.response.headers["x-should-retry"]
    assert [] == world.asked()


def test_a_repeat_after_the_deadline_is_told_so_at_once(world: World) -> None:
    app, at = talking(world)
    lost(world)
    loses(app, WHOSE, **at, timeout=30)
    world.clock.advance(timedelta(seconds=31))
    world.provider.clear_requests()

    with pytest.raises(openai.InternalServerError) as refused:
        app.respond(WHOSE, **at, timeout=30, extra_headers=AGAIN)
    assert "turn_expired" == refused.value.code
    assert "its deadline is over. Its" in refused.value.message
    assert "policy" not in refused.value.message
    assert [] == world.asked()

    assert DOG in app.respond(WHOSE, **at, timeout=30).output_text
    assert [DOG, WHOSE] == said(world.plain(), at)


def test_the_sdk_itself_gets_its_answer(world: World) -> None:
    app, at = talking(world)
    lost(world)
    patient = App(world, app.sdk.with_options(max_retries=2))

    answer = patient.respond(WHOSE, **at)

    assert DOG in answer.output_text
    assert [DOG, WHOSE] == said(world.plain(), at)
