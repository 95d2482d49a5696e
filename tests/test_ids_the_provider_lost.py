"""Items go by ids of their own, and those can be lost, or repeated after a recovery."""

from __future__ import annotations

from typing import Any

import openai
import pytest

import perdure
from tests.world import App, World, recovered

DOG = "My dog is called Rex."
WHOSE = "What is my dog called?"


def user(text: str) -> dict[str, Any]:
    """A message as an app sends it."""
    return {"type": "message", "role": "user", "content": text}


def shown(answer: Any) -> list[dict[str, Any]]:
    """A response's output as an app sends it on by itself, ids included."""
    return [item.to_dict() for item in answer.output]


def asked_for_a_call(app: App) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What was said up to a tool's call, and what the tool said."""
    tool = {"type": "function", "name": "tell", "parameters": {}, "strict": False}
    answer = app.respond([user("call tell")], tools=[tool])
    said = shown(answer)
    call = next(item for item in said if item["type"] == "function_call")
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": DOG}
    return [user("call tell"), *said], output


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
def test_items_sent_with_lost_ids_go_again_without_them(world: World, streamed: bool) -> None:
    app = world.app()
    history, output = asked_for_a_call(app)
    lost = [item["id"] for item in history if "id" in item]
    world.forgets()

    ask = app.stream if streamed else app.respond
    answer = ask([*history, output, user(WHOSE)])

    assert DOG in answer.output_text
    assert [("POST responses", 404), ("POST responses", 200)] == world.asked()
    told = recovered(answer) or {}
    assert ("gone", "full", True) == (told["reason"], told["memory"], told["lost_handle"] in lost)
    assert [told["lost_handle"]] == [recovery.lost_handle for recovery in world.recoveries]
    assert DOG in app.respond(WHOSE, previous_response_id=answer.id).output_text


def test_an_item_that_was_only_referred_to_comes_from_the_journal(world: World) -> None:
    app = world.app()
    quoted = app.respond([user(DOG), user(WHOSE)])
    reference = {"type": "item_reference", "id": shown(quoted)[-1]["id"]}
    world.forgets()

    answer = app.respond([reference, user(WHOSE)])

    assert DOG in answer.output_text
    assert "full" == (recovered(answer) or {})["memory"]


def test_a_reference_that_nobody_knows_is_told_as_a_gap(world: World) -> None:
    app = world.app()
    known = {"type": "item_reference", "id": shown(app.respond([user(DOG)]))[-1]["id"]}
    world.forgets()
    unknown = {"type": "item_reference", "id": "msg_" + "0" * 40}

    answer = app.respond([known, unknown, user(WHOSE)])

    told = recovered(answer) or {}
    assert ("partial", 1) == (told["memory"], told["items_left_out"])


def test_an_id_never_seen_here_is_the_callers_to_know_of(world: World) -> None:
    said = [{"type": "output_text", "text": DOG, "annotations": []}]
    stranger = {"type": "message", "role": "assistant", "id": "msg_" + "0" * 40, "content": said}

    with pytest.raises(openai.NotFoundError, match="Item with id"):
        world.app().respond([stranger, user(WHOSE)])
    fresh = world.app(policy=perdure.Policy(on_unknown="fresh"))

    assert DOG in fresh.respond([stranger, user(WHOSE)]).output_text


def test_lost_ids_on_a_living_conversation_leave_it_as_it_is(world: World) -> None:
    app = world.app()
    history, output = asked_for_a_call(app)
    world.forgets()
    conversation = app.call("conversations.create").id

    answer = app.respond([*history, output, user(WHOSE)], conversation=conversation)

    assert DOG in answer.output_text
    assert (conversation, None) == (answer.conversation.id, recovered(answer))
    again = app.respond(WHOSE, conversation=conversation)
    assert DOG in again.output_text


def test_what_a_rebuilt_conversation_has_is_not_added_twice(world: World) -> None:
    """An app that looks for the id it knows finds it in no answer, and repeats what followed."""
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(DOG, conversation=conversation)
    world.forgets()
    repeated = app.respond("Hello again.", conversation=conversation)
    world.provider.clear_requests()

    sent = [user("Hello again."), *shown(repeated), user(WHOSE)]
    answer = app.respond(sent, conversation=conversation)

    assert DOG in answer.output_text
    assert [("POST responses", 200)] == world.asked()
    listed = app.call("conversations.items.list", conversation_id=conversation, order="asc")
    assert [DOG, "Hello again.", WHOSE] == [
        item.content[0].text for item in listed.data if item.role == "user"
    ]


def test_a_repeat_on_a_healthy_conversation_is_the_providers_to_refuse(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    first = app.respond(DOG, conversation=conversation)

    with pytest.raises(openai.BadRequestError) as refused:
        app.respond([*shown(first), user(WHOSE)], conversation=conversation)

    assert "item_already_in_conversation" == refused.value.code
