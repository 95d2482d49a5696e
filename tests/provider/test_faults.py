"""Each fault that can be ordered, and that it strikes only what it should."""

import time
from typing import Any

import httpx2
import pytest
from openai import (
    APIConnectionError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
    RateLimitError,
)

from perdure.testing import Clock, Fault, Provider
from perdure.testing.provider import KNOWS_NOTHING

BETA = {"openai-beta": "assistants=v2"}
HELLO: dict[str, Any] = {"model": "gpt-4o", "input": "Hello."}
STREAM = HELLO | {"stream": True}


@pytest.fixture
def conversation(client: OpenAI) -> str:
    return client.conversations.create().id


def say(client: OpenAI, said: str, previous: str | None = None) -> Any:
    return client.responses.create(model="gpt-4o", input=said, previous_response_id=previous)


def test_answer_is_lost_after_the_work(
    client: OpenAI, provider: Provider, conversation: str
) -> None:
    provider.order(Fault("answer_lost", match="POST /responses"))
    with pytest.raises(APIConnectionError):
        client.responses.create(model="gpt-4o", input="Hello.", conversation=conversation)
    assert 2 == len(provider.items(conversation))
    assert provider.requests[-1].status is None
    assert "Noted: Hello." == say(client, "Hello.").output_text


def test_connection_is_reset_before_the_work(
    client: OpenAI, provider: Provider, conversation: str
) -> None:
    provider.order(Fault("answer_lost", timing="before"))
    with pytest.raises(APIConnectionError):
        client.responses.create(model="gpt-4o", input="Hello.", conversation=conversation)
    assert [] == provider.items(conversation)
    assert {} == provider.state.responses


def test_lost_stream_still_completes(
    http: httpx2.Client, provider: Provider, conversation: str
) -> None:
    provider.order(Fault("answer_lost"))
    with pytest.raises(httpx2.TransportError):
        http.post("/responses", json=STREAM | {"conversation": conversation})
    assert 2 == len(provider.items(conversation))


def test_status_before_and_after_the_work(client: OpenAI, provider: Provider) -> None:
    provider.order(Fault("status", status=503), Fault("status", timing="after"))
    for kept in (0, 1):
        with pytest.raises(InternalServerError):
            say(client, "Hello.")
        assert kept == len(provider.state.responses)
    say(client, "Hello.")
    assert [503, 500, 200] == [one.status for one in provider.requests]


def test_rate_limit(client: OpenAI, provider: Provider) -> None:
    provider.order(Fault("status", status=429, retry_after=7))
    with pytest.raises(RateLimitError) as caught:
        say(client, "Hello.")
    assert ("7", "rate_limit_exceeded") == (
        caught.value.response.headers["retry-after"],
        caught.value.code,
    )


def test_requests_over_a_rate_wait_for_the_rest_of_the_time(
    http: httpx2.Client, provider: Provider, clock: Clock
) -> None:
    limit = Fault("rate_limit", requests=2, seconds=10, match="POST /responses")
    provider.order(limit)
    assert limit == Fault.from_json(limit.to_json())
    clock.advance(10 - clock.now() % 10 + 4)
    answers = [http.post("/responses", json=HELLO) for _ in range(4)]
    assert [200, 200, 429, 429] == [one.status_code for one in answers]
    assert "6" == answers[-1].headers["retry-after"]
    assert 404 == http.get("/responses/resp_none").status_code
    clock.advance(6)
    assert 200 == http.post("/responses", json=HELLO).status_code
    with pytest.raises(ValueError, match="needs `requests` and `seconds`"):
        Fault("rate_limit")


def test_the_sdk_outlives_a_default_rate_limit(provider: Provider) -> None:
    provider.order(Fault("status", status=429, times=2))
    with OpenAI(base_url=provider.base_url, api_key="key-one", max_retries=2) as client:
        assert "Noted: Hello." == say(client, "Hello.").output_text
    assert [429, 429, 200] == [one.status for one in provider.requests]


def test_status_with_a_given_body(http: httpx2.Client, provider: Provider) -> None:
    provider.order(Fault("status", status=404, body={"detail": "gone"}))
    answer = http.post("/responses", json=HELLO)
    assert (404, {"detail": "gone"}) == (answer.status_code, answer.json())


def test_match_handle_and_times(http: httpx2.Client, provider: Provider) -> None:
    made = [http.post("/responses", json=HELLO).json()["id"] for _turn in range(2)]
    provider.order(Fault("status", status=500, times=2, match="GET /responses", handle=made[0]))
    asked = [made[1], made[0], made[0], made[0]]
    assert [200, 500, 500, 200] == [http.get(f"/responses/{one}").status_code for one in asked]
    provider.order(Fault("status", times=None, match="* /responses$"))
    assert [500, 500] == [http.post("/responses", json=HELLO).status_code for _turn in range(2)]
    assert 200 == http.get(f"/responses/{made[0]}").status_code
    provider.clear_faults()
    assert 200 == http.post("/responses", json=HELLO).status_code


@pytest.mark.parametrize(("timing", "kept"), [(None, 2), ("before", 0)])
def test_cut_stream(
    http: httpx2.Client, provider: Provider, conversation: str, timing: str | None, kept: int
) -> None:
    provider.order(Fault("cut_stream", events=4, timing=timing))
    body = STREAM | {"conversation": conversation}
    received: list[bytes] = []
    with (
        http.stream("POST", "/responses", json=body) as answer,
        pytest.raises(httpx2.RemoteProtocolError, match="incomplete chunked read"),
    ):
        received.extend(answer.iter_bytes())
    assert 200 == provider.requests[-1].status
    assert 4 == b"".join(received).count(b"event: ")
    assert kept == len(provider.items(conversation))
    assert 200 == http.post("/responses", json=body).status_code


def test_cut_stream_of_a_run(http: httpx2.Client, provider: Provider) -> None:
    assistant = http.post("/assistants", json={"model": "gpt-4o"}, headers=BETA).json()["id"]
    thread = http.post(
        "/threads", json={"messages": [{"role": "user", "content": "Hi."}]}, headers=BETA
    ).json()["id"]
    provider.order(Fault("cut_stream", events=6))
    body = {"assistant_id": assistant, "stream": True}
    with pytest.raises(httpx2.RemoteProtocolError):
        http.post(f"/threads/{thread}/runs", json=body, headers=BETA)
    assert ["user", "assistant"] == [one["role"] for one in provider.messages(thread)]


def test_conversation_is_locked(client: OpenAI, provider: Provider, conversation: str) -> None:
    provider.order(Fault("conversation_locked"))
    say(client, "Not about the conversation.")
    with pytest.raises(BadRequestError) as caught:
        client.responses.create(model="gpt-4o", input="Hello.", conversation=conversation)
    assert "conversation_locked" == caught.value.code
    client.responses.create(model="gpt-4o", input="Hello.", conversation=conversation)


def test_abandoned_turn_keeps_the_lock(
    client: OpenAI, provider: Provider, conversation: str
) -> None:
    """A client timeout leaves the conversation locked and the turn running (FACTS 0.7)."""
    provider.order(Fault("delay", seconds=0.4))
    with pytest.raises(APIConnectionError):
        client.responses.create(
            model="gpt-4o", input="Hello.", conversation=conversation, timeout=0.1
        )
    with pytest.raises(BadRequestError) as caught:
        client.responses.create(model="gpt-4o", input="Again.", conversation=conversation)
    assert "conversation_locked" == caught.value.code
    deadline = time.monotonic() + 5
    while len(provider.items(conversation)) < 2 and time.monotonic() < deadline:
        client.conversations.retrieve(conversation)
    client.responses.create(model="gpt-4o", input="Again.", conversation=conversation)
    assert 4 == len(provider.items(conversation))


def test_fresh_response_is_not_visible(client: OpenAI, provider: Provider, clock: Clock) -> None:
    provider.order(Fault("not_visible", seconds=30))
    first = say(client, "My dog is Rex.")
    for _turn in range(2):
        with pytest.raises(BadRequestError) as caught:
            say(client, "Who is my dog?", first.id)
        assert "previous_response_not_found" == caught.value.code
        assert 404 == _status(client, first.id)
    clock.advance(30)
    assert 200 == _status(client, first.id)
    assert "My dog is Rex." == say(client, "Who is my dog?", first.id).output_text


def _status(client: OpenAI, handle: str) -> int:
    answer = httpx2.get(
        f"{client.base_url}responses/{handle}",
        headers={"authorization": f"Bearer {client.api_key}"},
    )
    return answer.status_code


def test_api_is_off(http: httpx2.Client, provider: Provider) -> None:
    provider.order(Fault("api_off", prefix="/threads"))
    for _turn in range(2):
        answer = http.post("/threads", json={}, headers=BETA)
        expected = {
            "message": "The Assistants API has been retired",
            "type": "invalid_request_error",
            "param": None,
            "code": "assistants_api_deprecated",
        }
        assert (410, {"error": expected}) == (answer.status_code, answer.json())
    assert 200 == http.post("/responses", json=HELLO).status_code
    provider.clear_faults()
    provider.order(Fault("api_off", status=404))
    answer = http.post("/responses", json=HELLO)
    assert (404, "Invalid URL (POST /v1/responses)") == (
        answer.status_code,
        answer.json()["error"]["message"],
    )


def test_amnesia(client: OpenAI, provider: Provider) -> None:
    first = say(client, "My dog is Rex.")
    provider.order(Fault("amnesia"))
    forgot = say(client, "Who is my dog?", first.id)
    assert KNOWS_NOTHING == forgot.output_text
    alone = say(client, "Who is my dog?")
    assert alone.usage.input_tokens == forgot.usage.input_tokens
    again = say(client, "Who is my dog?", first.id)
    assert "My dog is Rex." == again.output_text
    assert again.usage.input_tokens > forgot.usage.input_tokens


def test_amnesia_of_a_run(http: httpx2.Client, provider: Provider) -> None:
    assistant = http.post("/assistants", json={"model": "gpt-4o"}, headers=BETA).json()["id"]
    messages = [{"role": "user", "content": said} for said in ("My dog is Rex.", "Who is my dog?")]
    thread = http.post("/threads", json={"messages": messages}, headers=BETA).json()["id"]
    provider.order(Fault("amnesia"))
    body = {"assistant_id": assistant, "stream": True}
    http.post(f"/threads/{thread}/runs", json=body, headers=BETA)
    assert KNOWS_NOTHING == provider.messages(thread)[-1]["content"][0]["text"]["value"]


@pytest.mark.parametrize("handle", ["previous_response_id", "conversation"])
def test_loss_in_200(client: OpenAI, provider: Provider, handle: str) -> None:
    dead: dict[str, Any] = {
        "previous_response_id": {"previous_response_id": "resp_dead"},
        "conversation": {"conversation": "conv_dead"},
    }[handle]
    message = {
        "previous_response_id": "Previous response with id 'resp_dead' not found.",
        "conversation": "Conversation with id 'conv_dead' not found.",
    }[handle]
    provider.order(Fault("loss_in_200"), Fault("loss_in_200", form="failed"))
    say(client, "Not a stream.")
    events: list[Any] = list(client.responses.create(**STREAM, **dead))
    assert [("error", message)] == [(event.type, event.message) for event in events]
    events = list(client.responses.create(**STREAM, **dead))
    assert ["response.created", "response.failed"] == [event.type for event in events]
    assert message == events[1].response.error.message
    assert 3 == len([one for one in provider.requests if one.status == 200])


def test_forget_is_ordered_for_a_later_request(client: OpenAI, provider: Provider) -> None:
    first = say(client, "My dog is Rex.")
    provider.order(Fault("forget", handle=first.id, match="POST /responses"))
    assert first.id == client.responses.retrieve(first.id).id
    with pytest.raises(BadRequestError) as caught:
        say(client, "Who is my dog?", first.id)
    assert "previous_response_not_found" == caught.value.code


def test_forget_can_wait_until_a_request_was_carried_out(
    client: OpenAI, provider: Provider
) -> None:
    first = say(client, "My dog is Rex.")
    provider.order(Fault("forget", handle=first.id, timing="after"))
    assert first.id == client.responses.retrieve(first.id).id
    with pytest.raises(NotFoundError):
        client.responses.retrieve(first.id)


def test_forgetting_what_is_gone_already_is_no_error(client: OpenAI, provider: Provider) -> None:
    provider.order(Fault("forget", handle="resp_gone"))
    assert "Noted: Hello." == say(client, "Hello.").output_text


def test_unforeseen_request_is_a_server_error(http: httpx2.Client, caplog: Any) -> None:
    answer = http.post("/responses", json=HELLO | {"tools": 1})
    assert (500, "server_error") == (answer.status_code, answer.json()["error"]["type"])
    assert ["the provider failed on POST /responses"] == [one.message for one in caplog.records]


def test_expiry_is_ordered(client: OpenAI, provider: Provider, clock: Clock) -> None:
    provider.order(Fault("expire", what="responses", seconds=60))
    first = say(client, "My dog is Rex.")
    clock.advance(60)
    with pytest.raises(BadRequestError):
        say(client, "Who is my dog?", first.id)


def test_slow_events_arrive_one_by_one(http: httpx2.Client, provider: Provider) -> None:
    provider.order(Fault("slow_events", seconds=0.01))
    with http.stream("POST", "/responses", json=STREAM) as answer:
        parts = [part for part in answer.iter_bytes() if part]
    events = b"".join(parts).count(b"event: ")
    assert 5 < events
    assert events == len(parts)


def test_a_misspelt_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="no fault is called 'amnesai'"):
        Fault("amnesai")
    with pytest.raises(ValueError, match="'before' or 'after'"):
        Fault("status", timing="during")
