"""Every method of the SDK: with nothing wrong, both sides see what they see without perdure."""

from __future__ import annotations

import asyncio
import collections.abc
import dataclasses
import inspect
import io
import json
import re
import threading
import types
import typing
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import attrgetter
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
import typing_extensions
from openai import HttpxBinaryResponseContent
from openai._resource import AsyncAPIResource, SyncAPIResource
from openai._types import NotGiven, Omit

import perdure
from perdure.dialects.routes import route
from perdure.testing import Clock, Provider

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SDK_MAJOR = openai.__version__.partition(".")[0]
#: How many methods there were when this was written.
METHODS = {"2": 320, "3": 436}[SDK_MAJOR]
WEBSOCKET = "a WebSocket: does not pass http_client"
LOCAL = "makes no request"
NOT_CALLED = {
    "beta.agents.sessions.artifacts.for_result": LOCAL,
    "beta.realtime.connect": WEBSOCKET,
    "beta.responses.connect": WEBSOCKET,
    "live.connect": WEBSOCKET,
    "live.forks.connect": WEBSOCKET,
    "live.sideband.connect": WEBSOCKET,
    "realtime.connect": WEBSOCKET,
    "realtime.translations.connect": WEBSOCKET,
    "responses.connect": WEBSOCKET,
    "webhooks.unwrap": LOCAL,
    "webhooks.verify_signature": LOCAL,
}
#: Resources that carry a conversation; what they are sent is told by `conversing`.
CARRIERS = ("beta.responses.", "beta.threads.", "conversations.", "responses.")
A_FILE = Path(__file__).with_name("conftest.py")
#: What a parameter's type does not say.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "beta.agents.environments.files.prepare": {"files": {"/workspace/a.py": A_FILE}},
    "beta.agents.environments.files.prepare_directory": {
        "root": A_FILE.parent,
        "destination": "/workspace",
        "include": [A_FILE.name],
    },
    "beta.agents.environments.files.upload": {"path": "/workspace/a.py"},
    "beta.agents.sessions.stream": {"idempotency_key": "key-1"},
    "uploads.upload_file_chunked": {"file": A_FILE},
}
EXTRA = {
    "extra_headers": {"X-App": "its own", "OpenAI-Project": "proj_1"},
    "extra_query": {"q": "a b&é"},
    "timeout": 7.5,
}


# -- what there is to call -----------------------------------------------------------------------


def methods_of(resource: Any, path: str = "") -> Iterator[str]:
    """The dotted names of the methods below a client or one of its resources."""
    for name in dir(type(resource)):
        if name.startswith("_") or name in {"with_raw_response", "with_streaming_response"}:
            continue
        member = getattr(resource, name)
        dotted = f"{path}{name}"
        if isinstance(member, SyncAPIResource | AsyncAPIResource):
            yield from methods_of(member, f"{dotted}.")
        elif path and callable(member):
            yield dotted


SDK = openai.OpenAI(api_key="unused")
NAMES = sorted(methods_of(SDK))
CARRYING = [name for name in NAMES if name.startswith(CARRIERS) and name not in NOT_CALLED]
OTHERS = [name for name in NAMES if not name.startswith(CARRIERS) and name not in NOT_CALLED]


@cache
def arguments_of(name: str) -> dict[str, Any]:
    """Arguments for what the method (or its first overload) requires, and what any may take."""
    function = inspect.unwrap(attrgetter(name)(SDK).__func__)
    function = next(iter(typing.get_overloads(function)), function)
    hints = typing.get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    chosen = ARGUMENTS.get(name, {})
    required = {
        one.name: synthesised(hints[one.name], one.name)
        for one in parameters
        if one.default is one.empty and one.kind is not one.VAR_KEYWORD and one.name not in chosen
    }
    return (
        required | chosen | {one.name: EXTRA[one.name] for one in parameters if one.name in EXTRA}
    )


_PLAIN: dict[Any, Any] = {
    bool: True,
    int: 3,
    float: 1.5,
    bytes: b"bytes\x00\xff",
    object: {"any": 1},
    typing.IO[bytes]: b"bytes\x00\xff",
    io.IOBase: b"bytes\x00\xff",
}
_LISTS = {list, collections.abc.Sequence, collections.abc.Iterable}


def synthesised(hint: Any, name: str) -> Any:
    """A value of a parameter's type, told by its name where it is a text."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is str or hint in _PLAIN:
        return _PLAIN.get(hint, f"{name} é")
    if origin is typing.Literal:
        return inner[0]
    if origin in {typing.Union, types.UnionType}:
        kinds = [one for one in inner if one not in {type(None), Omit, NotGiven}]
        return synthesised(str if str in kinds else kinds[0], name)
    if origin in _LISTS or getattr(origin, "__name__", "") == "SequenceNotStr":
        return [synthesised(inner[0], name)]
    if origin in {dict, collections.abc.Mapping}:
        return {"key": synthesised(inner[1], name)}
    if typing_extensions.is_typeddict(hint):
        members = typing.get_type_hints(hint)
        return {key: synthesised(members[key], key) for key in sorted(hint.__required_keys__)}
    if isinstance(hint, typing_extensions.TypeAliasType):
        return synthesised(hint.__value__, name)
    if inner:  # Required, Annotated
        return synthesised(inner[0], name)
    raise LookupError(hint)


# -- both sides ----------------------------------------------------------------------------------


class Recorder(ThreadingHTTPServer):
    """A server on the loopback that notes what arrives and gives one fixed answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.base_url = f"http://127.0.0.1:{self.server_port}/v1"
        self.seen: list[tuple[str, str, list[tuple[str, str]], bytes]] = []
        self.status = 200
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, path: str, *, events: bool) -> tuple[str, bytes]:
        """The answer's content type and bytes."""
        if self.status != 200:
            error = {"message": "Not so.", "type": "an_error", "param": "x", "code": "c"}
            return "application/json", json.dumps({"error": error}).encode()
        members = dict(_ANSWER)
        for part, more in _PLAUSIBLE.items():
            members |= more if part in path else {}
        if not events:
            return "application/json", json.dumps(members).encode()
        return "text/event-stream", f"data: {json.dumps(members)}\n\ndata: [DONE]\n\n".encode()

    def server_close(self) -> None:
        self.shutdown()
        super().server_close()


_ANSWER: dict[str, Any] = {
    "id": "thing_1", "object": "thing", "created_at": 1, "has_more": False, "data": [],
    "choices": [], "status": "completed", "file_counts": {"in_progress": 0},
    "unknown_to_the_sdk": {"é": [1.50, None]},
}  # fmt: skip
_PLAUSIBLE: dict[str, dict[str, Any]] = {
    "/embeddings": {"data": [{"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}]},
    "/v1/files/": {"status": "processed"},
    "/agents/sessions/": {"status": "idle", "type": "agent.session.failed", "event_id": "e_1"},
}


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Recorder

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        server.seen.append((self.command, self.path, self.headers.items(), body))
        accepts = self.headers.get("accept")
        events = b'"stream":true' in body or accepts == "text/event-stream"
        kind, data = server.answer(self.path, events=events)
        self.send_response_only(server.status)
        self.send_header("Content-Type", kind)
        self.send_header("content-length", str(len(data)))
        self.send_header("X-Request-ID", "req_1")
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    do_GET = do_DELETE = do_PATCH = do_PUT = do_POST  # noqa: N815 - named by the library


class Side:
    """One SDK client, what passed below it, and what its caller got."""

    def __init__(self, colour: str, base_url: str, *, ours: bool) -> None:
        self.runner = asyncio.Runner() if colour == "async" else None
        options: dict[str, Any] = {}
        if ours and colour == "sync":
            options["http_client"] = perdure.http_client("sqlite://")
        elif ours:
            options["http_client"] = perdure.async_http_client("sqlite://")
        kind: Any = openai.OpenAI if colour == "sync" else openai.AsyncOpenAI
        self.sdk = kind(
            api_key="sk-test",
            admin_api_key="sk-admin",
            base_url=base_url,
            max_retries=0,
            timeout=9,
            **options,
        )
        self.passed: list[Any] = []
        hook = self._note if colour == "sync" else self._note_async
        self.sdk._client.event_hooks["response"].append(hook)

    def _note(self, response: Any) -> None:
        timeout = response.request.extensions["timeout"]
        self.passed.append((timeout, response.status_code, response.headers.multi_items()))

    async def _note_async(self, response: Any) -> None:
        self._note(response)

    def call(self, name: str, arguments: dict[str, Any]) -> tuple[Any, Any]:
        """Call a method and read what it gives to the end: the value, and what is to be told."""
        if self.runner is None:
            value = attrgetter(name)(self.sdk)(**arguments)
            if not hasattr(value, "__enter__"):
                return value, told(value)
            with value as opened:
                if hasattr(opened, "iter_bytes"):
                    return None, (told(opened), b"".join(opened.iter_bytes()))
                events = list(opened)
            return events, [told(event) for event in events]
        return self.runner.run(self._call(name, arguments))

    async def _call(self, name: str, arguments: dict[str, Any]) -> tuple[Any, Any]:
        value = attrgetter(name)(self.sdk)(**arguments)
        if inspect.isawaitable(value):
            value = await value
        if not hasattr(value, "__aenter__"):
            return value, told(value)
        async with value as opened:
            if hasattr(opened, "iter_bytes"):
                return None, (told(opened), b"".join([one async for one in opened.iter_bytes()]))
            events = [event async for event in opened]
        return events, [told(event) for event in events]

    def close(self) -> None:
        closed = self.sdk.close()
        if self.runner is not None:
            self.runner.run(closed)
            self.runner.close()


def told(value: Any) -> Any:
    """What a method gave, as plain values."""
    if isinstance(value, pydantic.BaseModel):
        request_id = getattr(value, "_request_id", None)
        return type(value).__name__, value.model_dump(mode="json", warnings="none"), request_id
    if isinstance(value, HttpxBinaryResponseContent):
        return value.content
    if hasattr(value, "http_response"):
        return value.status_code, value.headers.multi_items(), value.http_version
    if dataclasses.is_dataclass(value):
        return type(value).__name__, [told(one) for one in vars(value).values()]
    assert value is None or isinstance(value, str | dict | list | tuple), type(value)
    return value


def told_error(error: Exception) -> tuple[Any, ...]:
    """What a caller can see of an exception."""
    response = getattr(error, "response", None)
    return (
        type(error),
        str(error),
        getattr(error, "body", None),
        response and (response.status_code, response.headers.multi_items(), response.content),
        type(error.__cause__),
    )


def comparable(method: str, path: str, headers: Any, body: bytes) -> tuple[Any, ...]:
    """A request without the only thing that the SDK draws by lot, the boundary of a form."""
    found = re.search(r"boundary=(\w+)", dict(headers).get("Content-Type", ""))
    boundary = found.group(1) if found else "no boundary"
    headers = [(name, value.replace(boundary, "drawn")) for name, value in headers]
    return method, path, headers, body.replace(boundary.encode(), b"drawn")


# -- routes that carry no handle -----------------------------------------------------------------


class Site:
    """A recording server, the bare SDK, and the SDK over perdure, in one colour."""

    def __init__(self, colour: str) -> None:
        self.server = Recorder()
        self.bare = Side(colour, self.server.base_url, ours=False)
        self.ours = Side(colour, self.server.base_url, ours=True)

    def observe(self, side: Side, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call a method; what the server saw, what came back, what the caller got."""
        side.passed.clear()
        self.server.seen.clear()
        result = raised = None
        try:
            _, result = side.call(name, arguments)
        except Exception as error:  # noqa: BLE001 - both sides must raise the same
            raised = told_error(error)
        return {
            "requests": [comparable(*one) for one in self.server.seen],
            "passed": list(side.passed),
            "result": result,
            "raised": raised,
        }

    def close(self) -> None:
        self.bare.close()
        self.ours.close()
        self.server.server_close()


@pytest.fixture(scope="module", params=["sync", "async"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with closing(Site(request.param)) as made:
        yield made


def test_no_method_is_left_out(site: Site) -> None:
    assert sorted(methods_of(site.ours.sdk)) == NAMES
    assert len(NAMES) >= METHODS
    assert set(NAMES) <= NOT_CALLED.keys() | set(CARRYING) | set(OTHERS)
    if SDK_MAJOR == "3":  # which has all that there is
        assert NOT_CALLED.keys() <= set(NAMES)
        assert ARGUMENTS.keys() <= set(OTHERS)


@pytest.mark.parametrize("name", OTHERS)
def test_a_method_without_a_handle_is_untouched(site: Site, name: str) -> None:
    arguments = arguments_of(name)
    for status in (200, 404, 500):
        site.server.status = status
        bare = site.observe(site.bare, name, arguments)
        ours = site.observe(site.ours, name, arguments)

        assert bare == ours
        assert bare["requests"]
        assert (status == 200) == (bare["raised"] is None)
        assert not [one for one in bare["requests"] if route(one[0], one[1].partition("?")[0])]


# -- routes that carry a handle, and succeed -----------------------------------------------------


class Play:
    """An app's calls at a provider that issues the same ids each time it is started."""

    def __init__(self, colour: str, *, ours: bool) -> None:
        self.provider = Provider(clock=Clock(), seed="the same").start()
        self.side = Side(colour, self.provider.base_url, ours=ours)
        self.called: list[tuple[str, Any]] = []

    def __call__(self, name: str, **arguments: Any) -> Any:
        value, shown = self.side.call(name, arguments)
        self.called.append((name, shown))
        return value

    def close(self) -> None:
        self.side.close()
        self.provider.close()

    def seen(self) -> list[Any]:
        """What the provider received, the port left out."""
        return [
            (one.method, one.path, one.query, one.body, dict(one.headers) | {"host": ""})
            for one in self.provider.requests
        ]


class Dog(pydantic.BaseModel):
    name: str


MODEL = "gpt-5.6"
FACT = "My dog is called Rex."
LOOK: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def responses(play: Play) -> None:
    asked: dict[str, Any] = {"model": MODEL, "input": FACT}
    first = play("responses.create", **asked).id
    asked |= {"previous_response_id": first, "extra_headers": {"X-App": "its own"}}
    second = play("responses.create", **asked, stream=True)[-1].response.id
    play.provider.script('{"name": "Rex"}', '{"name": "Rex"}')
    play("responses.parse", **asked, text_format=Dog)
    play("responses.stream", **asked, text_format=Dog)
    play("responses.with_raw_response.create", **asked)
    play("responses.with_streaming_response.create", **asked)
    play("responses.with_streaming_response.create", **asked, stream=True)
    play("responses.input_tokens.count", **asked)
    play("responses.compact", model=MODEL, previous_response_id=second)
    conversation = play("conversations.create").id
    play("responses.create", model=MODEL, input=FACT, conversation=conversation, background=False)
    play("responses.retrieve", response_id=first, include=["reasoning.encrypted_content"])
    play("responses.with_raw_response.retrieve", response_id=first)
    play("responses.input_items.list", response_id=second, limit=1, order="asc")
    slow = play("responses.create", model=MODEL, input=FACT, background=True).id
    play("responses.retrieve", response_id=slow, stream=True)
    slow = play("responses.create", model=MODEL, input=FACT, background=True).id
    play("responses.cancel", response_id=slow)
    play("responses.delete", response_id=second)


def beta_responses(play: Play) -> None:
    first = play("beta.responses.create", model=MODEL, input=FACT).id
    asked = {"model": MODEL, "input": FACT, "previous_response_id": first}
    play("beta.responses.create", **asked, stream=True)
    play("beta.responses.input_tokens.count", **asked)
    play("beta.responses.compact", model=MODEL, previous_response_id=first)
    play("beta.responses.retrieve", response_id=first)
    play("beta.responses.input_items.list", response_id=first)
    slow = play("beta.responses.create", model=MODEL, input=FACT, background=True).id
    play("beta.responses.cancel", response_id=slow)
    play("beta.responses.delete", response_id=first)


def conversations(play: Play) -> None:
    item = {"type": "message", "role": "user", "content": FACT}
    made = play("conversations.create", items=[item], metadata={"topic": "dogs"}).id
    more = play("conversations.items.create", conversation_id=made, items=[item, item]).data
    play("conversations.items.list", conversation_id=made, limit=2)
    play("conversations.items.retrieve", conversation_id=made, item_id=more[0].id)
    play("conversations.items.delete", conversation_id=made, item_id=more[0].id)
    play("conversations.update", conversation_id=made, metadata={"topic": "cats"})
    play("conversations.retrieve", conversation_id=made)
    play("conversations.with_raw_response.retrieve", conversation_id=made)
    play("conversations.delete", conversation_id=made)


def threads(play: Play) -> None:
    assistant = play("beta.assistants.create", model=MODEL, tools=[LOOK]).id
    whole: dict[str, Any] = {
        "assistant_id": assistant,
        "thread": {"messages": [{"role": "user", "content": FACT}]},
    }
    play("beta.threads.create_and_run", **whole)
    play("beta.threads.create_and_run_poll", **whole, poll_interval_ms=1)
    play("beta.threads.create_and_run_stream", **whole)
    made = play("beta.threads.create", messages=whole["thread"]["messages"]).id
    play("beta.threads.update", thread_id=made, metadata={"topic": "dogs"})
    play("beta.threads.retrieve", thread_id=made)
    here, of = {"thread_id": made}, {"thread_id": made, "assistant_id": assistant}

    def read() -> None:
        play("beta.threads.messages.list", thread_id=made)

    for name in ("runs.create_and_poll", "runs.stream", "runs.create_and_stream"):
        play(f"beta.threads.{name}", **of)
        read()
    run = play("beta.threads.runs.create", **of, metadata={"a": "b"}).id
    play("beta.threads.runs.poll", **here, run_id=run, poll_interval_ms=1)
    play("beta.threads.runs.update", **here, run_id=run, metadata={"a": "c"})
    play("beta.threads.runs.retrieve", **here, run_id=run)
    steps = play("beta.threads.runs.steps.list", **here, run_id=run).data
    play("beta.threads.runs.steps.retrieve", **here, run_id=run, step_id=steps[0].id)
    play("beta.threads.runs.list", **here)
    read()
    for name in ("submit_tool_outputs", "submit_tool_outputs_and_poll"):
        said = play("beta.threads.messages.create", **here, role="user", content="call look {}").id
        tools(play, name, of)
        read()
    play("beta.threads.messages.update", **here, message_id=said, metadata={"a": "b"})
    play("beta.threads.messages.retrieve", **here, message_id=said)
    play("beta.threads.messages.delete", **here, message_id=said)
    run = play("beta.threads.runs.create", **of).id
    play("beta.threads.runs.cancel", **here, run_id=run)
    play("beta.threads.delete", **here)


def tools(play: Play, name: str, of: dict[str, Any]) -> None:
    here = {"thread_id": of["thread_id"]}
    run = play("beta.threads.runs.create_and_poll", **of, poll_interval_ms=1)
    call = run.required_action.submit_tool_outputs.tool_calls[0].id
    outputs = [{"tool_call_id": call, "output": "seen"}]
    play(f"beta.threads.runs.{name}", **here, run_id=run.id, tool_outputs=outputs)
    play("beta.threads.runs.poll", **here, run_id=run.id, poll_interval_ms=1)


def streamed_tools(play: Play) -> None:
    assistant = play("beta.assistants.create", model=MODEL, tools=[LOOK]).id
    asked = [{"role": "user", "content": "call look {}"}]
    made = play("beta.threads.create", messages=asked).id
    of = {"thread_id": made, "assistant_id": assistant}
    tools(play, "submit_tool_outputs_stream", of)
    play("beta.threads.messages.list", thread_id=made)


STORIES = (responses, beta_responses, conversations, threads, streamed_tools)


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("story", STORIES)
def test_a_method_that_carries_a_handle_is_untouched(colour: str, story: Any) -> None:
    with closing(Play(colour, ours=False)) as bare:
        story(bare)
    with closing(Play(colour, ours=True)) as ours:
        story(ours)

    assert bare.called == ours.called
    assert bare.side.passed == ours.side.passed
    assert bare.seen() == ours.seen()


def test_no_method_that_carries_a_handle_is_left_out() -> None:
    called = set()
    for story in STORIES:
        with closing(Play("sync", ours=False)) as play:
            story(play)
        called |= {name for name, _ in play.called}

    assert set(CARRYING) <= called
