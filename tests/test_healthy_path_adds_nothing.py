"""With nothing wrong the provider sees the app's requests, and the app the provider's answers."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from perdure.testing import Fault
from tests.world import MODEL, App, World

FACT = "My dog is called Rex."
_OF_THE_LIBRARY = {"host", "accept-encoding", "connection", "user-agent"}


def responses(app: App) -> list[Any]:
    first = app.respond(FACT)
    second = app.respond("Hello again.", previous_response_id=first.id, temperature=0.5)
    app.respond("And again.", previous_response_id=second.id, store=False)
    app.stream("Once more.", previous_response_id=second.id)
    app.call("responses.retrieve", response_id=first.id)
    app.call("responses.input_items.list", response_id=first.id)
    app.call("responses.delete", response_id=second.id)
    return []


def conversations(app: App) -> list[Any]:
    conversation = app.call("conversations.create", metadata={"topic": "dogs"}).id
    item = {"type": "message", "role": "user", "content": FACT}
    made = app.call("conversations.items.create", conversation_id=conversation, items=[item])
    app.respond("Hello.", conversation=conversation)
    app.respond("Hello.", conversation={"id": conversation})
    app.stream("Hello.", conversation=conversation)
    app.call("conversations.items.list", conversation_id=conversation)
    first = made.data[0].id
    app.call("conversations.items.retrieve", conversation_id=conversation, item_id=first)
    app.call("conversations.update", conversation_id=conversation, metadata={"topic": "cats"})
    app.call("conversations.retrieve", conversation_id=conversation)
    app.call("conversations.items.delete", conversation_id=conversation, item_id=first)
    app.call("conversations.delete", conversation_id=conversation)
    return []


def threads(app: App) -> list[Any]:
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    app.call("beta.threads.messages.create", thread_id=thread, role="user", content="Hello.")
    app.events("beta.threads.runs.create", thread_id=thread, assistant_id=assistant)
    run = app.call("beta.threads.runs.list", thread_id=thread).data[0]
    app.call("beta.threads.runs.retrieve", thread_id=thread, run_id=run.id)
    app.call("beta.threads.runs.steps.list", thread_id=thread, run_id=run.id)
    app.call("beta.threads.update", thread_id=thread, metadata={"topic": "dogs"})
    app.call("beta.threads.retrieve", thread_id=thread)
    app.call("beta.threads.delete", thread_id=thread)
    return []


def others(app: App) -> list[Any]:
    app.call("models.list")
    app.call(
        "chat.completions.create", model=MODEL, messages=[{"role": "user", "content": "Hello."}]
    )
    app.events(
        "chat.completions.create", model=MODEL, messages=[{"role": "user", "content": "Hello."}]
    )
    app.respond("Hello.", store=False)
    return []


def shape(value: Any, seen: dict[str, str]) -> Any:
    """A request with ids and times replaced by the order of their first appearance."""
    if isinstance(value, dict):
        return {key: shape(inner, seen) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner, seen) for inner in value]
    if isinstance(value, str) and value.partition("_")[0] in {
        "resp", "conv", "msg", "thread", "run", "asst", "step",
    }:  # fmt: skip
        return seen.setdefault(value, f"{value.partition('_')[0]}-{len(seen)}")
    return value


def sent(world: World) -> list[Any]:
    """What the provider received: method, path, query, body, and the headers that matter."""
    seen: dict[str, str] = {}
    return [
        (
            request.method,
            [shape(part, seen) for part in request.path.split("/")],
            request.query,
            shape(request.json if request.body else None, seen),
            len(request.body) if "resp" not in str(request.body) else None,
            sorted(
                (name, value)
                for name, value in request.headers.items()
                if name not in _OF_THE_LIBRARY and name != "content-length"
            ),
        )
        for request in world.provider.requests
    ]


@pytest.mark.parametrize("story", [responses, conversations, threads, others])
def test_the_provider_sees_what_the_bare_sdk_sends(world: World, story: Any) -> None:
    story(world.plain())
    bare = sent(world)
    world.provider.clear_requests()

    story(world.app())

    assert bare == sent(world)
    assert [] == world.recoveries


def test_the_bytes_of_a_request_pass_untouched(world: World) -> None:
    app = world.app()
    first = app.respond(FACT)
    world.provider.clear_requests()
    body = (
        '{ "model":"gpt-5.6","input" : "caf\\u00e9",\n "temperature":1.0e0, '
        f'"previous_response_id": "{first.id}" , "x_unknown": [1, 2.50] }}'
    ).encode()

    with pytest.raises(openai.BadRequestError):  # the provider does not know x_unknown
        app.call(
            "post",
            path="/responses",
            cast_to=object,
            content=body,
            options={"headers": {"Content-Type": "application/json"}},
        )

    assert body == world.provider.requests[0].body


def test_an_answer_passes_untouched(world: World) -> None:
    plain, app = world.plain(), world.app()
    asked = {"model": MODEL, "input": FACT}
    bare = plain.call("responses.with_raw_response.create", **asked).http_response
    ours = app.call("responses.with_raw_response.create", **asked).http_response

    assert bare.headers.keys() == ours.headers.keys()
    assert bare.json().keys() == ours.json().keys()
    assert bare.http_version == ours.http_version
    assert ours.elapsed.total_seconds() >= 0


def test_a_rate_limit_is_the_sdks_own_business(world: World) -> None:
    app = world.app()
    app.sdk = app.sdk.with_options(max_retries=1)
    world.provider.order(Fault("status", status=429, retry_after=0.01))

    assert FACT in app.respond(FACT).output_text
    assert [("POST responses", 429), ("POST responses", 200)] == world.asked()
    assert [(1,)] == world.rows("SELECT count(*) FROM perdure_turn WHERE state = 'answered'")


def test_a_timeout_is_raised_as_the_bare_sdk_raises_it(world: World) -> None:
    app = world.app()
    world.provider.order(Fault("delay", seconds=0.3))

    with pytest.raises(openai.APITimeoutError):
        app.respond(FACT, timeout=0.05)

    assert [("unknown",)] == world.rows("SELECT state FROM perdure_turn")
    assert [(FACT,)] == world.rows("SELECT json_extract(wire, '$.content') FROM perdure_item")


def test_an_answer_that_was_lost_on_the_way_is_not_a_second_turn(world: World) -> None:
    app = world.app()
    first = app.respond(FACT)
    app.sdk = app.sdk.with_options(max_retries=2)
    world.provider.order(Fault("answer_lost"))

    answer = app.respond("What is my dog called?", previous_response_id=first.id)

    assert FACT in answer.output_text
    assert [("user",), ("assistant",)] * 2 == world.rows(
        "SELECT role FROM perdure_item ORDER BY position"
    )


def test_a_message_is_stored_before_it_is_sent(world: World) -> None:
    app = world.app()
    world.provider.order(Fault("answer_lost", timing="before"))

    with pytest.raises(openai.APIConnectionError):
        app.respond(FACT)

    assert [(FACT,)] == world.rows("SELECT json_extract(wire, '$.content') FROM perdure_item")


def test_a_stream_arrives_piece_by_piece(world: World) -> None:
    app = world.app()
    first = app.respond(FACT)
    world.provider.order(Fault("slow_events", seconds=0.05))
    asked = {
        "model": MODEL,
        "input": "What is my dog called?",
        "previous_response_id": first.id,
        "stream": True,
    }

    async def states() -> list[str]:
        stream = await app.sdk.responses.create(**asked)
        async for event in stream:
            if event.type == "response.output_text.delta":
                break
        found = [row[0] for row in world.rows("SELECT state FROM perdure_turn WHERE seq = 2")]
        await stream.close()
        return found

    if world.colour == "async":
        assert ["delivering"] == world.wait(states())
        return
    stream = app.sdk.responses.create(**asked)
    for event in stream:
        if event.type == "response.output_text.delta":
            break
    assert [("delivering",)] == world.rows("SELECT state FROM perdure_turn WHERE seq = 2")
    stream.close()


def test_a_stream_that_is_closed_loses_neither_question_nor_text(world: World) -> None:
    test_a_stream_arrives_piece_by_piece(world)

    assert [
        ("user", "What is my dog called?"),
        ("assistant", "My"),
    ] == world.rows(
        "SELECT role, json_extract(wire, '$.content') FROM perdure_item "
        "WHERE turn_seq = 2 ORDER BY position"
    )
    assert [("failed", "closed by the caller")] == world.rows(
        "SELECT state, reason FROM perdure_turn WHERE seq = 2"
    )


def test_a_stream_cut_on_the_way_is_an_error(world: World) -> None:
    errors = []
    for app in (world.plain(), world.app()):
        first = app.respond(FACT)
        world.provider.order(Fault("cut_stream", events=6))
        with pytest.raises(Exception, match=r"incomplete|peer closed|Connection error") as caught:
            app.stream("What is my dog called?", previous_response_id=first.id)
        errors.append((type(caught.value), str(caught.value), type(caught.value.__cause__)))

    assert errors[0] == errors[1]
    assert [("failed",)] == world.rows("SELECT state FROM perdure_turn WHERE seq = 2")
