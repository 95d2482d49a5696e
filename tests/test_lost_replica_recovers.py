"""A lost replica is rebuilt in the same call, at the promised number of requests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import openai
import pytest

import perdure
from perdure.testing import Fault
from tests.world import LONG, MODEL, World, recovered

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
def test_a_lost_response_costs_two_requests(world: World, *, streamed: bool) -> None:
    app = world.app()
    ask = app.stream if streamed else app.respond
    first = ask(FACT)
    world.forgets(first.id)

    answer = ask(QUESTION, previous_response_id=first.id)

    assert FACT in answer.output_text
    assert [("POST responses", 400), ("POST responses", 200)] == world.asked()
    assert {
        "reason": "gone",
        "memory": "full",
        "lost_handle": first.id,
        "new_handle": answer.id,
        "requests": 2,
        "generation": 1,
    }.items() <= (recovered(answer) or {}).items()


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
def test_a_lost_conversation_costs_three_requests(world: World, *, streamed: bool) -> None:
    app = world.app()
    ask = app.stream if streamed else app.respond
    conversation = app.call("conversations.create").id
    ask(FACT, conversation=conversation)
    world.forgets(conversation)

    answer = ask(QUESTION, conversation=conversation)

    assert FACT in answer.output_text
    assert [
        ("POST responses", 404),
        ("POST conversations", 200),
        ("POST responses", 200),
    ] == world.asked()
    assert {"memory": "full", "lost_handle": conversation, "requests": 3}.items() <= (
        recovered(answer) or {}
    ).items()


def test_a_lost_conversation_costs_three_requests_at_any_length(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    for page in range(4):
        app.call(
            "conversations.items.create",
            conversation_id=conversation,
            items=[
                {"type": "message", "role": "user", "content": f"Note {page}.{n}."}
                for n in range(20)
            ],
        )
    world.forgets(conversation)

    answer = app.respond(QUESTION, conversation=conversation)

    assert FACT in answer.output_text
    assert 3 == len(world.asked())
    assert 82 == (recovered(answer) or {})["items_primed"]


def test_a_lost_thread_costs_three_requests(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    world.forgets(thread)

    message = app.call(
        "beta.threads.messages.create", thread_id=thread, role="user", content=QUESTION
    )

    assert [
        ("POST threads/thread/messages", 404),
        ("POST threads", 200),
        ("POST threads/thread/messages", 200),
    ] == world.asked()
    assert {"memory": "full", "lost_handle": thread, "requests": 3}.items() <= (
        recovered(message) or {}
    ).items()
    run = app.call("beta.threads.runs.create_and_poll", thread_id=thread, assistant_id=assistant)
    assert "completed" == run.status
    listed = app.call("beta.threads.messages.list", thread_id=thread)
    assert FACT in listed.data[0].content[0].text.value


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
def test_the_next_use_of_a_dead_handle_costs_nothing_extra(world: World, *, streamed: bool) -> None:
    app = world.app()
    ask = app.stream if streamed else app.respond
    conversation = app.call("conversations.create").id
    ask(FACT, conversation=conversation)
    world.forgets(conversation)
    ask("Hello again.", conversation=conversation)
    world.provider.clear_requests()

    answer = ask(QUESTION, conversation=conversation)

    assert FACT in answer.output_text
    assert [("POST responses", 200)] == world.asked()
    assert recovered(answer) is None


def test_the_next_use_of_a_dead_response_is_primed_at_once(world: World) -> None:
    app = world.app()
    first = app.respond(FACT)
    world.forgets(first.id)
    app.respond("Hello again.", previous_response_id=first.id)
    world.provider.clear_requests()

    answer = app.respond(QUESTION, previous_response_id=first.id)

    assert FACT in answer.output_text
    assert [("POST responses", 200)] == world.asked()


def test_the_new_handle_works_like_any_other(world: World) -> None:
    app = world.app()
    first = app.respond(FACT)
    world.forgets(first.id)
    second = app.respond("Hello again.", previous_response_id=first.id)
    world.provider.clear_requests()

    answer = app.respond(QUESTION, previous_response_id=second.id)

    assert FACT in answer.output_text
    assert recovered(answer) is None
    assert [("POST responses", 200)] == world.asked()


@pytest.mark.parametrize("kind", ["responses", "conversations", "threads"])
def test_a_replica_past_its_retention_costs_no_failing_call(world: World, kind: str) -> None:
    app = world.app(policy=perdure.Policy(retention={kind: timedelta(days=30)}))
    world.provider.expire_after(kind, timedelta(days=30))
    thread, assistant = app.thread()
    conversation = app.call("conversations.create").id
    app.say(thread, assistant, FACT)
    app.respond(FACT, conversation=conversation)
    response = app.respond(FACT).id
    world.clock.advance(timedelta(days=31))
    assistant = app.call("beta.assistants.create", model=MODEL).id
    world.provider.clear_requests()

    if kind == "threads":
        answer = app.say(thread, assistant, QUESTION)
    elif kind == "conversations":
        answer = app.respond(QUESTION, conversation=conversation).output_text
    else:
        answer = app.respond(QUESTION, previous_response_id=response).output_text

    assert FACT in answer
    assert [] == [asked for asked in world.asked() if asked[1] != 200]


def test_a_young_response_is_waited_for_two_seconds_at_most(world: World) -> None:
    app = world.app()
    first = app.respond(FACT)
    world.provider.order(Fault("not_visible", seconds=1.0, times=None))
    second = app.respond("Hello again.", previous_response_id=first.id)
    began = world.clock.now()

    answer = app.respond(QUESTION, previous_response_id=second.id)

    assert FACT in answer.output_text
    assert recovered(answer) is None
    assert 1.0 <= world.clock.now() - began <= 2.0


def test_a_response_that_stays_invisible_is_rebuilt(world: World) -> None:
    app = world.app()
    first = app.respond(FACT)
    world.provider.forget(first.id)
    began = world.clock.now()

    answer = app.respond(QUESTION, previous_response_id=first.id)

    assert FACT in answer.output_text
    assert "not_visible" == (recovered(answer) or {})["reason"]
    assert 2.0 == pytest.approx(world.clock.now() - began)


def test_a_loss_inside_a_stream_is_repaired_before_a_byte_is_seen(world: World) -> None:
    app = world.app()
    first = app.respond(FACT)
    world.clock.advance(timedelta(minutes=2))
    world.provider.order(Fault("loss_in_200"))

    events = app.events(
        "responses.create", model=MODEL, input=QUESTION, previous_response_id=first.id
    )

    assert "response.created" == events[0].type
    assert "response.completed" == events[-1].type
    assert 1 == sum(event.type == "response.created" for event in events)
    assert FACT in events[-1].response.output_text
    assert recovered(events[0].response) is not None


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("form", ["failed", "erased"])
def test_a_failed_response_is_a_loss_where_its_handle_is_gone(
    world: World, form: str, streamed: bool
) -> None:
    app = world.app()
    first = app.respond(FACT)
    world.forgets()
    world.provider.order(Fault("loss_in_200", form=form))

    ask = app.stream if streamed else app.respond
    answer = ask(QUESTION, previous_response_id=first.id)

    assert FACT in answer.output_text
    assert "gone" == (recovered(answer) or {})["reason"]
    probed = [("GET responses/resp", 404)] if form == "erased" else []
    assert [("POST responses", 200), *probed, ("POST responses", 200)] == world.asked()


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
def test_a_failed_response_on_a_living_handle_is_passed_on(world: World, streamed: bool) -> None:
    app = world.app()
    first = app.respond(FACT)
    world.clock.advance(LONG)
    world.provider.order(Fault("loss_in_200", form="erased"))

    ask = app.stream if streamed else app.respond
    answer = ask(QUESTION, previous_response_id=first.id)

    assert ("failed", None) == (answer.status, recovered(answer))
    assert FACT in app.respond(QUESTION, previous_response_id=first.id).output_text


def test_each_recovery_is_told_and_recorded_once(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    world.forgets(conversation)

    answer = app.respond(QUESTION, conversation=conversation)

    assert 1 == len(world.recoveries)
    assert world.recoveries[0].as_member() == recovered(answer)
    assert [(1, "gone", conversation, "full")] == world.rows(
        "SELECT generation, reason, lost_handle, memory FROM perdure_recovery"
    )


def test_an_api_that_is_gone_for_good_answers_once(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    world.provider.order(Fault("api_off", prefix="/threads", times=None))
    world.provider.clear_requests()

    with pytest.raises(Exception, match="retired|Invalid URL") as caught:
        app.call("beta.threads.messages.create", thread_id=thread, role="user", content="Hi.")

    assert getattr(caught.value, "status_code", None) in {404, 410}
    assert 1 == len(world.asked())


GONE_STORE = "No vector store found with id 'vs_1'."


@pytest.mark.parametrize(("words", "retired"), [("Not here.", "true"), (GONE_STORE, None)])
def test_an_api_that_does_not_create_either_is_gone(
    world: World, words: str, retired: str | None
) -> None:
    app = world.app()
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    world.forgets()
    body = {"error": {"message": words}}
    world.provider.order(Fault("status", status=404, body=body, match="POST /threads$", times=None))

    with pytest.raises(openai.NotFoundError, match=words) as caught:
        app.call("beta.threads.messages.create", thread_id=thread, role="user", content="Hi.")

    assert retired == caught.value.response.headers.get("perdure-api-retired")
    assert [
        ("POST threads/thread/messages", 404),
        ("POST threads", 404),
    ] == world.asked()


EXPIRED = {
    "error": {
        "message": "Container is expired.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("via", ["conversation", "response"])
def test_what_an_expired_container_has_broken_is_rebuilt(
    world: World, via: str, *, stream: bool
) -> None:
    """It is there, and nothing can go on from it: what a conversation still holds is deleted."""
    app = world.app()
    at: dict[str, Any] = {}
    if via == "conversation":
        at["conversation"] = app.call("conversations.create").id
    first = app.respond(FACT, **at)
    at = at or {"previous_response_id": first.id}
    (handle,) = at.values()
    world.clock.advance(LONG)
    world.provider.order(
        Fault(
            "status", status=400, body=EXPIRED, match="POST /responses", handle=handle, times=None
        )
    )

    answer = app.stream(QUESTION, **at) if stream else app.respond(QUESTION, **at)

    assert FACT in answer.output_text
    assert {"reason": "broken", "memory": "full"}.items() <= (recovered(answer) or {}).items()
    assert FACT in app.respond(QUESTION, **at).output_text
    orphans = world.rows("SELECT handle FROM perdure_orphan WHERE deleted_at IS NULL")
    assert ([(handle,)] if via == "conversation" else []) == orphans
