"""Keys, projects, base paths, unknown routes, and the controls over HTTP."""

import threading
from collections.abc import Callable
from datetime import timedelta

import httpx2
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from perdure.testing import Clock, Fault, Provider, State
from perdure.testing.provider import create_app

BETA = {"openai-beta": "assistants=v2"}


@pytest.fixture
def control(provider: Provider) -> Callable[..., httpx2.Response]:
    root = provider.base_url.removesuffix("/v1")

    def send(method: str, path: str, body: object = None) -> httpx2.Response:
        return httpx2.request(method, f"{root}/_provider{path}", json=body)

    return send


def test_no_key(provider: Provider) -> None:
    answer = httpx2.post(f"{provider.base_url}/responses", json={})
    error = answer.json()["error"]
    assert (401, "invalid_request_error", None, None) == (
        answer.status_code,
        error["type"],
        error["param"],
        error["code"],
    )
    assert error["message"].startswith("You didn't provide an API key.")


def test_another_project_sees_nothing(
    client: OpenAI, client_for: Callable[[str], OpenAI], http: httpx2.Client
) -> None:
    other = client_for("key-two")
    response = client.responses.create(model="gpt-4o", input="Hello.")
    conversation = client.conversations.create()
    thread = http.post("/threads", json={}, headers=BETA).json()["id"]
    with pytest.raises(NotFoundError, match=f"Response with id '{response.id}' not found"):
        other.responses.retrieve(response.id)
    with pytest.raises(BadRequestError) as caught:
        other.responses.create(model="gpt-4o", input="x", previous_response_id=response.id)
    assert "previous_response_not_found" == caught.value.code
    with pytest.raises(NotFoundError, match=f"Conversation with id '{conversation.id}' not"):
        other.conversations.retrieve(conversation.id)
    theirs = {"authorization": "Bearer key-two", **BETA}
    answer = http.get(f"/threads/{thread}", headers=theirs)
    expected = f"No thread found with id '{thread}'."
    assert (404, expected) == (answer.status_code, answer.json()["error"]["message"])
    reference = {"type": "item_reference", "id": response.output[0].id}
    with pytest.raises(NotFoundError):
        other.responses.create(model="gpt-4o", input=[reference])  # type: ignore[list-item]
    assert "Noted: Hello." == client.responses.retrieve(response.id).output_text


def test_second_base_path(provider: Provider) -> None:
    base = provider.base_url.removesuffix("/v1") + "/openai/v1"
    with OpenAI(base_url=base, api_key="key-one", max_retries=0) as client:
        response = client.responses.create(model="gpt-4o", input="Hello.")
        assert response.id == client.responses.retrieve(response.id).id
    assert "/openai/v1/responses" == provider.requests[0].path


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/conversations/conv_1/messages", 404, "Invalid URL (POST /v1{path})"),
        ("GET", "/nothing", 404, "Invalid URL (GET /v1{path})"),
        ("PUT", "/responses", 405, "Not allowed to PUT on /v1{path}."),
    ],
)
def test_unknown_route(
    http: httpx2.Client, method: str, path: str, status: int, message: str
) -> None:
    answer = http.request(method, path)
    error = answer.json()["error"]
    assert (status, "invalid_request_error") == (answer.status_code, error["type"])
    assert error["message"].startswith(message.format(path=path))


def test_requests_are_recorded(client: OpenAI, provider: Provider, clock: Clock) -> None:
    client.responses.create(model="gpt-4o", input="Hello.", extra_query={"a": "1"})
    clock.advance(timedelta(minutes=1))
    with pytest.raises(NotFoundError):
        client.responses.retrieve("resp_gone")
    first, second = provider.requests
    assert ("POST", "/v1/responses", {"a": ["1"]}, 200) == (
        first.method,
        first.path,
        first.query,
        first.status,
    )
    assert {"input": "Hello.", "model": "gpt-4o"} == first.json
    assert "Bearer key-one" == first.headers["authorization"]
    assert (404, 60.0, None) == (second.status, second.at - first.at, second.json)
    provider.clear_requests()
    assert [] == provider.requests


def test_controls(
    control: Callable[..., httpx2.Response], client: OpenAI, provider: Provider, clock: Clock
) -> None:
    start = clock.now()
    assert {"now": start + 5} == control("POST", "/clock", {"advance_seconds": 5}).json()
    control("POST", "/script", {"outputs": ["Scripted."]})
    response = client.responses.create(model="gpt-4o", input="Hello.")
    assert "Scripted." == response.output_text
    control("POST", "/faults", {"kind": "status", "status": 418})
    assert 1 == len(control("GET", "/faults").json()["faults"])
    control("DELETE", "/faults")
    control("POST", "/expire", {"kind": "responses", "seconds": 10})
    client.responses.retrieve(response.id)
    control("POST", "/clock", {"advance_seconds": 10})
    with pytest.raises(NotFoundError):
        client.responses.retrieve(response.id)
    conversation = client.conversations.create().id
    control("POST", "/forget", {"handle": conversation})
    with pytest.raises(NotFoundError):
        client.conversations.retrieve(conversation)
    shown = control("GET", "/requests").json()["requests"]
    assert [one.path for one in provider.requests] == [one["path"] for one in shown]
    assert {"model": "gpt-4o", "input": "Hello."} == provider.requests[0].json


def test_wrong_controls(control: Callable[..., httpx2.Response]) -> None:
    assert 404 == control("POST", "/forget", {"handle": "conv_unknown"}).status_code
    assert 400 == control("POST", "/faults", {"kind": "flood"}).status_code
    assert 400 == control("POST", "/faults", {"kind": "status", "colour": "red"}).status_code
    assert 400 == control("POST", "/expire", {"kind": "models", "seconds": 1}).status_code
    assert 404 == control("POST", "/nothing", {}).status_code


def test_forget_everything_keeps_assistants(http: httpx2.Client, provider: Provider) -> None:
    assistant = http.post("/assistants", json={"model": "gpt-4o"}, headers=BETA).json()["id"]
    thread = http.post("/threads", json={}, headers=BETA).json()["id"]
    provider.forget()
    assert 404 == http.get(f"/threads/{thread}", headers=BETA).status_code
    assert 200 == http.get(f"/assistants/{assistant}", headers=BETA).status_code
    with pytest.raises(LookupError):
        provider.forget(thread)


@pytest.mark.parametrize("kind", ["responses", "conversations", "threads"])
def test_idle_retention(http: httpx2.Client, provider: Provider, clock: Clock, kind: str) -> None:
    provider.expire_after(kind, timedelta(days=30))
    body = {"model": "gpt-4o", "input": "Hello."} if kind == "responses" else {}
    handle = http.post(f"/{kind}", json=body, headers=BETA).json()["id"]
    path = f"/{kind}/{handle}"
    for _use in range(2):
        clock.advance(timedelta(days=29))
        assert 200 == http.get(path, headers=BETA).status_code
    clock.advance(timedelta(days=30))
    assert 404 == http.get(path, headers=BETA).status_code


def test_using_a_chain_keeps_all_of_it(client: OpenAI, provider: Provider, clock: Clock) -> None:
    provider.expire_after("responses", timedelta(days=30))
    head = client.responses.create(model="gpt-4o", input="My dog is Rex.").id
    for _turn in range(3):
        clock.advance(timedelta(days=20))
        response = client.responses.create(
            model="gpt-4o", input="Who is my dog?", previous_response_id=head
        )
        head = response.id
        assert "My dog is Rex." == response.output_text


def test_close_really_stops(clock: Clock) -> None:
    before = threading.active_count()
    provider = Provider(clock).start()
    url = provider.base_url
    httpx2.get(f"{url}/models", headers={"authorization": "x"})
    provider.close()
    provider.close()
    assert before == threading.active_count()
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/models")


def test_close_ends_a_stream_in_flight(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    provider = Provider(clock).start()
    provider.order(Fault("slow_events", seconds=60))
    body = {"model": "gpt-4o", "input": "Hello.", "stream": True}
    url, headers = f"{provider.base_url}/responses", {"authorization": "x"}
    with httpx2.stream("POST", url, json=body, headers=headers) as answer:
        parts = answer.iter_bytes()
        assert b"response.created" in next(parts)
        provider.close()
        with pytest.raises(httpx2.TransportError):
            next(parts)
    assert [] == [record for record in caplog.records if record.levelname == "ERROR"]


def test_restart_keeps_the_port_and_the_state(clock: Clock) -> None:
    provider = Provider(clock).start()
    url = provider.base_url
    with OpenAI(base_url=url, api_key="k", max_retries=0) as client:
        response = client.responses.create(model="gpt-4o", input="Hello.")
        provider.close()
        provider.start()
        assert url == provider.base_url
        assert response.id == client.responses.retrieve(response.id).id
    provider.close()


async def _ask_in_process(state: State) -> httpx2.Response:
    transport = httpx2.ASGITransport(create_app(state))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test/v1") as client:
        return await client.get("/models", headers={"authorization": "Bearer k"})


def test_app_without_a_socket() -> None:
    import asyncio  # noqa: PLC0415 - only this test runs a loop of its own

    answer = asyncio.run(_ask_in_process(State(Clock())))
    assert (200, "list") == (answer.status_code, answer.json()["object"])


def test_clock() -> None:
    clock = Clock(100.0)
    clock.sleep(5)
    assert (105.0, 105.0) == (clock.now(), clock.monotonic())
    assert 165.0 == clock.advance(timedelta(minutes=1))
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-1)
    running = Clock(100.0, running=True)
    first = running.now()
    assert first <= running.now()
    assert 3700.0 <= running.advance(3600)


def test_fault_survives_json() -> None:
    fault = Fault("status", status=503, match="POST /responses", timing="after")
    assert fault == Fault.from_json(fault.to_json())
