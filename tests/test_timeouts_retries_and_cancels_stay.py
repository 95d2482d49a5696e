"""Timeouts, retries, exceptions, streams and cancellations are those of the bare SDK."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from operator import attrgetter
from typing import Any

import openai
import openai._base_client
import pytest

import perdure
from perdure.testing import Fault, Provider

#: The HTTP library that the SDK sits on: httpx2, or httpx under openai 2.
HTTP: Any = importlib.import_module(openai.DefaultHttpxClient.__mro__[-2].__module__.split(".")[0])
MODEL = "gpt-5.6"
FACT = "My dog is called Rex."
ASKED = {"model": MODEL, "input": FACT}
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": FACT}]}
#: No body, a form; then what perdure journals.
CALLS: dict[str, dict[str, Any]] = {
    "models.list": {},
    "files.create": {"file": b"bytes", "purpose": "assistants"},
    "responses.create": ASKED,
    "conversations.create": {"metadata": {"topic": "dogs"}},
    "beta.threads.create": {},
}
EVENTS: list[dict[str, Any]] = [
    {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
    {"type": "response.output_text.delta", "delta": "Hello."},
    {"type": "response.completed", "response": {"id": "resp_1", "status": "completed"}},
]
SSE = [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in EVENTS]
STREAMED: dict[str, dict[str, Any]] = {
    "chat.completions.create": CHAT | {"stream": True},
    "responses.create": ASKED | {"stream": True},
}

each_call = pytest.mark.parametrize("name", CALLS)


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the SDK try again at once; how long it waits is not ours."""
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.0)


Outcome = type[Exception] | Callable[[int], Any]


class Inner(HTTP.BaseTransport, HTTP.AsyncBaseTransport):  # type: ignore[misc]
    """What an SDK sends through: notes each request and does what it was told to do."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.seen: list[Any] = []

    def handle_request(self, request: Any) -> Any:
        return self._outcome(request, request.read())

    async def handle_async_request(self, request: Any) -> Any:
        return self._outcome(request, await request.aread())

    def _outcome(self, request: Any, body: bytes) -> Any:
        drawn = request.headers.get("content-type", "").partition("boundary=")[2].encode() or b"-"
        headers = {name: value.replace(drawn, b"-") for name, value in request.headers.raw}
        sent = (request.method, str(request.url), headers, body.replace(drawn, b"-"))
        self.seen.append((*sent, request.extensions))
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, type):
            raise outcome("from the inner transport")
        return outcome(len(self.seen))


def answer(status: int = 200, *headers: tuple[str, str]) -> Outcome:
    """A JSON answer, about another object each time."""
    head = [("Content-Type", "application/json"), *headers]

    def give(count: int) -> Any:
        body = b'{"id": "thing_%d", "object": "thing", "data": []}' % count
        return HTTP.Response(status, headers=head, stream=HTTP.ByteStream(body))

    return give


def compressed(kind: str, body: bytes) -> Outcome:
    head = [("Content-Type", kind), ("Content-Encoding", "gzip"), ("X-Two", "1"), ("X-Two", "2")]
    data = gzip.compress(body)
    return lambda _: HTTP.Response(200, headers=head, stream=HTTP.ByteStream(data))


class Caller:
    """An app on one SDK client, whose calls block in either colour."""

    def __init__(self, colour: str, http_client: Any, **options: Any) -> None:
        self.runner = asyncio.Runner() if colour == "async" else None
        kind: Any = openai.OpenAI if self.runner is None else openai.AsyncOpenAI
        self.sdk = kind(
            **{"api_key": "sk-test", "timeout": 30, "http_client": http_client} | options
        )

    def outcome(self, name: str, **arguments: Any) -> Any:
        """What a method gives, or the exception that it raises, as plain values."""
        try:
            value = attrgetter(name)(self.sdk)(**arguments)
            return told(value) if self.runner is None else self.runner.run(_told(value))
        except openai.APIError as error:
            response = getattr(error, "response", None)
            seen = response and (response.status_code, response.headers.raw, response.content)
            return type(error), str(error), error.body, seen, type(error.__cause__)

    def close(self) -> None:
        closed = self.sdk.close()
        if self.runner is not None:
            self.runner.run(closed)
            self.runner.close()


def told(value: Any) -> Any:
    """A result as plain values."""
    if isinstance(value, openai.Stream):
        with value as events:
            return [event.model_dump(warnings="none") for event in events]
    if hasattr(value, "http_response"):
        return value.status_code, value.headers.multi_items(), value.content
    return type(value), value.model_dump(mode="json", warnings="none")


async def _told(value: Any) -> Any:
    value = await value
    if isinstance(value, openai.AsyncStream):
        async with value as events:
            return [event.model_dump(warnings="none") async for event in events]
    return told(value)


class Pair:
    """The bare SDK and the SDK over perdure, each on an inner transport of its own."""

    def __init__(self, colour: str, *outcomes: Outcome, **options: Any) -> None:
        self.inner = [Inner(*outcomes), Inner(*outcomes)]
        bare: Any = openai.DefaultHttpxClient
        ours: Any = perdure.http_client
        if colour == "async":
            bare, ours = openai.DefaultAsyncHttpxClient, perdure.async_http_client
        self.callers = [
            Caller(colour, bare(transport=self.inner[0]), **options),
            Caller(colour, ours("sqlite://", inner=self.inner[1]), **options),
        ]

    def same(self, name: str, **arguments: Any) -> list[Any]:
        """Call a method on both sides, see that nothing differs; return what was sent."""
        bare, ours = [one.outcome(name, **arguments) for one in self.callers]
        assert bare == ours
        sent, sent_by_us = [inner.seen for inner in self.inner]
        assert sent == sent_by_us
        return sent


@pytest.fixture
def pair(colour: str) -> Iterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def make(*outcomes: Outcome, **options: Any) -> Pair:
        made.append(Pair(colour, *outcomes, **options))
        return made[-1]

    yield make
    for one in made:
        for caller in one.callers:
            caller.close()


# -- what is sent, and how often -----------------------------------------------------------------


@each_call
def test_a_timeout_reaches_the_inner_transport(pair: Callable[..., Pair], name: str) -> None:
    both = pair(answer())
    for timeout in (0.25, 7, None, HTTP.Timeout(1, connect=2.5, read=3, write=None, pool=4)):
        sent = both.same(name, **CALLS[name], timeout=timeout)

        asked = timeout if isinstance(timeout, HTTP.Timeout) else HTTP.Timeout(timeout)
        assert asked.as_dict() == sent[-1][-1]["timeout"]


@each_call
def test_the_default_timeout_is_the_sdks(pair: Callable[..., Pair], name: str) -> None:
    (sent,) = pair(answer(), timeout=openai.not_given).same(name, **CALLS[name])

    assert 600 == sent[-1]["timeout"]["read"]


TIMES: dict[str, tuple[int, Any]] = {
    "400": (1, answer(400)),
    "401": (1, answer(401)),
    "404": (1, answer(404)),
    "408": (3, answer(408)),
    "409": (3, answer(409)),
    "429": (3, answer(429, ("retry-after-ms", "1"))),
    "500": (3, answer(500)),
    "503": (3, answer(503, ("Retry-After", "0.001"))),
    "not to be retried": (1, answer(500, ("x-should-retry", "false"))),
    "to be retried": (3, answer(400, ("x-should-retry", "true"))),
    "connect": (3, HTTP.ConnectError),
    "connect timeout": (3, HTTP.ConnectTimeout),
    "pool timeout": (3, HTTP.PoolTimeout),
    "read timeout": (3, HTTP.ReadTimeout),
    "write timeout": (3, HTTP.WriteTimeout),
    "reset": (3, HTTP.ReadError),
    "cut": (3, HTTP.RemoteProtocolError),
}


@pytest.mark.usefixtures("no_backoff")
@each_call
@pytest.mark.parametrize("failure", TIMES)
def test_retries_and_the_exception_at_their_end_are_the_sdks(
    pair: Callable[..., Pair], name: str, failure: str
) -> None:
    times, outcome = TIMES[failure]

    assert times == len(pair(outcome).same(name, **CALLS[name]))


@pytest.mark.usefixtures("no_backoff")
@each_call
@pytest.mark.parametrize("failure", ["429", "500", "connect", "read timeout", "reset"])
def test_a_retry_that_succeeds_is_all_that_the_caller_sees(
    pair: Callable[..., Pair], name: str, failure: str
) -> None:
    sent = pair(TIMES[failure][1], answer()).same(name, **CALLS[name])

    assert [b"0", b"1"] == [one[2][b"x-stainless-retry-count"] for one in sent]


#: Routes that read, change or measure what an earlier call has made, which perdure does not know.
OTHERS: dict[str, dict[str, Any]] = {
    "responses.create": ASKED | {"store": False},
    "responses.compact": {"model": MODEL, "previous_response_id": "resp_1"},
    "responses.retrieve": {"response_id": "resp_1"},
    "responses.input_items.list": {"response_id": "resp_1"},
    "conversations.retrieve": {"conversation_id": "conv_1"},
    "conversations.items.list": {"conversation_id": "conv_1"},
    "conversations.delete": {"conversation_id": "conv_1"},
    "beta.threads.update": {"thread_id": "thread_1", "metadata": {}},
    "beta.threads.create_and_run": {"assistant_id": "asst_1"},
    "beta.threads.runs.retrieve": {"thread_id": "thread_1", "run_id": "run_1"},
    "beta.threads.runs.cancel": {"thread_id": "thread_1", "run_id": "run_1"},
}


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("failure", ["500", "connect", "read timeout"])
def test_what_is_no_turn_is_tried_as_often(
    pair: Callable[..., Pair], name: str, failure: str
) -> None:
    assert 3 == len(pair(TIMES[failure][1]).same(name, **OTHERS[name]))


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("previous", [False, True], ids=["first", "next"])
def test_a_breaking_socket_is_tried_as_often(colour: str, *, previous: bool) -> None:
    fault = Fault("answer_lost", timing="before", times=None)
    outcomes, counts = _both(colour, fault, previous=previous)

    assert outcomes[0] == outcomes[1]
    assert [["0", "1", "2"]] * 2 == counts


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("previous", [False, True], ids=["first", "next"])
def test_a_silent_socket_is_given_its_time_once(colour: str, *, previous: bool) -> None:
    """The one difference: a turn has a deadline in all, not one for each of the SDK's repeats."""
    fault = Fault("delay", seconds=0.16, times=None)
    outcomes, counts = _both(colour, fault, previous=previous)

    assert "APITimeoutError" in str(outcomes[0])
    assert "turn_expired" in str(outcomes[1])
    assert [["0", "1", "2"], ["0"]] == counts


def _both(
    colour: str, fault: Fault, *, previous: bool
) -> tuple[list[tuple[str, Any]], list[list[str]]]:
    """What becomes of a turn without and with perdure, and the attempts that were seen."""
    timeout = HTTP.Timeout(30, read=fault.seconds / 2 or 30)
    outcomes, counts = [], []
    for client in (None, clients(colour)("sqlite://")):
        with (
            Provider() as provider,
            closing(Caller(colour, client, base_url=provider.base_url)) as app,
        ):
            asked = dict(ASKED)
            if previous:
                _, first = app.outcome("responses.create", **ASKED)
                asked["previous_response_id"] = first["id"]
            provider.clear_requests()
            provider.order(fault)
            outcomes.append(app.outcome("responses.create", **asked, timeout=timeout))
            counts.append([one.headers["x-stainless-retry-count"] for one in provider.requests])

    return outcomes, counts


def clients(colour: str) -> Any:
    return perdure.http_client if colour == "sync" else perdure.async_http_client


@each_call
def test_a_redirect_is_followed_as_the_sdk_follows_it(pair: Callable[..., Pair], name: str) -> None:
    elsewhere = answer(307, ("Location", "/elsewhere/v1/thing"))

    assert 2 == len(pair(elsewhere, answer()).same(name, **CALLS[name]))


# -- what comes back -----------------------------------------------------------------------------


@each_call
def test_a_compressed_answer_is_untouched(pair: Callable[..., Pair], name: str) -> None:
    resource, _, method = name.rpartition(".")
    pair(compressed("application/json", b'{"id": "thing_1", "data": []}')).same(
        f"{resource}.with_raw_response.{method}", **CALLS[name]
    )


@pytest.mark.parametrize("name", STREAMED)
def test_a_compressed_stream_is_untouched(pair: Callable[..., Pair], name: str) -> None:
    pair(compressed("text/event-stream", b"".join(SSE))).same(name, **STREAMED[name])


class Peer:
    """A server of one call: the first piece at once, the rest when the gate opens.

    Without a rest it waits for its caller to leave.
    """

    def __init__(self, kind: str, first: bytes | None, rest: bytes | None = None) -> None:
        self.head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        self.first, self.rest = first, rest
        self.arrived, self.gate, self.left = (threading.Event() for _ in range(3))
        self.in_time = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        connection.settimeout(5)
        with connection:
            while b"\r\n\r\n" not in connection.recv(65536):
                pass
            if self.first is not None:
                connection.sendall(self.head.encode() + _chunk(self.first))
            self.arrived.set()
            if self.rest is not None:
                self.in_time = self.gate.wait(5)
                connection.sendall(_chunk(self.rest) + _chunk(b""))
            try:
                while connection.recv(65536):
                    pass
            except TimeoutError:
                return
            except ConnectionError:
                pass
            self.left.set()

    def close(self) -> None:
        self._thread.join(6)
        self._listening.close()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture(params=["bare", "ours"])
def calling(colour: str, request: pytest.FixtureRequest) -> Iterator[Callable[[Peer], Caller]]:
    """Make an app that calls a peer, with and without perdure."""
    made: list[Any] = []

    def make(peer: Peer) -> Caller:
        # What may be a loss is held back; nothing here may be, however long the hold.
        policy = perdure.Policy(hold=timedelta(minutes=1))
        client = clients(colour)("sqlite://", policy=policy) if request.param == "ours" else None
        app = Caller(colour, client, base_url=peer.base_url, max_retries=0)
        made.extend([app, peer])
        return app

    yield make
    for one in made:
        one.close()


LAZY: dict[str, tuple[dict[str, Any], bytes, bytes]] = {
    "chat.completions.create": (
        STREAMED["chat.completions.create"],
        b'data: {"id": "chat_1", "choices": []}\n\n',
        b"data: [DONE]\n\n",
    ),
    "responses.create": (STREAMED["responses.create"], SSE[0], SSE[1] + SSE[2]),
    "audio.speech.with_streaming_response.create": (
        {"input": FACT, "model": MODEL, "voice": "coral"}, b"one", b"two",
    ),
    "files.with_streaming_response.content": ({"file_id": "file-1"}, b"one", b"two"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAZY)
def test_a_stream_is_passed_on_as_it_comes(calling: Callable[[Peer], Caller], name: str) -> None:
    arguments, first, rest = LAZY[name]
    peer = Peer("text/event-stream" if "stream" in arguments else "audio/mpeg", first, rest)
    app = calling(peer)
    value = attrgetter(name)(app.sdk)(**arguments)

    async def read() -> None:
        opened = value if hasattr(value, "__aenter__") else await value
        async with opened as stream:
            pieces = aiter(stream.iter_bytes() if hasattr(stream, "iter_bytes") else stream)
            await anext(pieces)
            peer.gate.set()
            assert [piece async for piece in pieces] or b"[DONE]" in rest

    if app.runner is not None:
        app.runner.run(read())
    else:
        with value as stream:
            pieces = iter(stream.iter_bytes() if hasattr(stream, "iter_bytes") else stream)
            next(pieces)
            peer.gate.set()
            assert list(pieces) or b"[DONE]" in rest
    assert peer.in_time


@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_that_is_closed_is_closed_at_the_provider(
    calling: Callable[[Peer], Caller], name: str
) -> None:
    peer = Peer("text/event-stream", LAZY[name][1])
    app = calling(peer)

    async def read() -> None:
        stream = await attrgetter(name)(app.sdk)(**STREAMED[name])
        await anext(aiter(stream))
        await stream.close()

    if app.runner is not None:
        app.runner.run(read())
    else:
        stream = attrgetter(name)(app.sdk)(**STREAMED[name])
        next(iter(stream))
        stream.close()
    assert peer.left.wait(5)


@pytest.mark.parametrize("colour", ["async"], indirect=True)
@pytest.mark.parametrize("name", [*CALLS, "chat.completions.create"])
@pytest.mark.parametrize("begun", [False, True], ids=["unanswered", "begun"])
def test_a_cancelled_call_leaves_the_provider(
    calling: Callable[[Peer], Caller], name: str, begun: bool
) -> None:
    """``begun``: while the body of the answer, or its stream, is being read."""
    arguments = STREAMED.get(name, {}) if begun else {}
    kind = "text/event-stream" if arguments else "application/json"
    peer = Peer(kind, (SSE[0] if arguments else b"{") if begun else None)
    app = calling(peer)

    async def call() -> None:
        value = await attrgetter(name)(app.sdk)(**CALLS.get(name, CHAT) | arguments)
        async for _ in value:
            pass

    async def cancel() -> None:
        task = asyncio.ensure_future(call())
        assert await asyncio.to_thread(peer.arrived.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(peer.left.wait, 5)

    assert app.runner is not None
    app.runner.run(cancel())


# -- our own faults ------------------------------------------------------------------------------

TURN = {"extra_headers": {"Perdure-Turn": "turn-1"}}
#: Status and code, the client's options, calls that go well before it, the call.
FAULTS: dict[tuple[int, str], tuple[dict[str, Any], list[Any], str, dict[str, Any]]] = {
    (503, "store_unavailable"): (
        {"store": "sqlite:////nonexistent/folder/chat.db"}, [], "responses.create", ASKED,
    ),
    (409, "turn_mismatch"): (
        {}, [ASKED | TURN], "responses.create", ASKED | TURN | {"input": "Hello."},
    ),
    (413, "request_too_large"): (
        {"policy": perdure.Policy(max_body_bytes=10)}, [], "responses.create", ASKED,
    ),
    (400, "bad_input"): (
        {}, [], "post", {"path": "/responses", "cast_to": object, "content": b"{"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault[1])
def test_a_fault_of_ours_is_an_answer_that_is_not_retried(
    colour: str, fault: tuple[int, str]
) -> None:
    options, before, name, arguments = FAULTS[fault]
    inner, met = Inner(answer()), []
    client = clients(colour)(**{"store": "sqlite://", "inner": inner} | options)

    async def note(request: Any) -> None:
        met.append(request)

    client.event_hooks["request"].append(met.append if colour == "sync" else note)
    with closing(Caller(colour, client)) as app:
        for one in before:
            app.outcome("responses.create", **one)
        kind, _, body, seen, _ = app.outcome(name, **arguments)

    assert len(before) == len(inner.seen)
    assert len(before) + 1 == len(met)
    assert issubclass(kind, openai.APIStatusError)
    assert fault == (seen[0], body["code"])
    assert "perdure_error" == body["type"]
    assert (b"x-should-retry", b"false") in seen[1]
