"""Azure's URLs: another base path, a dated ``api-version``, and the name of a deployment."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx2
import openai
import pytest

from perdure.cli import main
from perdure.cli.upstream import client_of
from perdure.dialects.routes import route
from perdure.dialects.upstreams import retention_seconds
from perdure.model import Policy
from perdure.testing import Fault, State
from perdure.testing.provider import server
from perdure.testing.provider.app import App as ProviderApp
from perdure.testing.provider.app import Receive, Scope, Send
from tests.world import LONG, App, World, recovered

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
DATED = "2025-04-01-preview"
#: What Azure answers at a dated path without its version (MicrosoftDocs/azure-docs#114602).
NOT_FOUND = b'{"error":{"code":"404","message":"Resource not found"}}'

#: How an app addresses Azure: the SDK's client, its options, where it arrives, with which version.
LAYOUTS: dict[str, tuple[str, dict[str, Any], str, str | None]] = {
    "endpoint": (
        "AzureOpenAI",
        {"azure_endpoint": "{origin}", "api_version": DATED, "api_key": "key"},
        "/openai",
        DATED,
    ),
    "endpoint and deployment": (
        "AzureOpenAI",
        {
            "azure_endpoint": "{origin}/",
            "azure_deployment": "gpt-5",
            "api_version": DATED,
            "azure_ad_token": "token",
        },
        "/openai",
        DATED,
    ),
    "deployment in the URL": (
        "AzureOpenAI",
        {
            "base_url": "{origin}/openai/deployments/gpt-5",
            "api_version": DATED,
            "api_key": "key",
        },
        "/openai/deployments/gpt-5",
        DATED,
    ),
    "escaped deployment": (
        "AzureOpenAI",
        {
            "base_url": "{origin}/openai/deployments/gpt%205",
            "api_version": DATED,
            "api_key": "key",
        },
        "/openai/deployments/gpt%205",
        DATED,
    ),
    "v1": (
        "OpenAI",
        {"base_url": "{origin}/openai/v1/", "api_key": "key"},
        "/openai/v1",
        None,
    ),
    "v1 preview": (
        "OpenAI",
        {
            "base_url": "{origin}/openai/v1/",
            "default_query": {"api-version": "preview"},
            "api_key": "key",
        },
        "/openai/v1",
        "preview",
    ),
    "behind a gateway": (
        "OpenAI",
        {"base_url": "{origin}/east/openai/v1", "api_key": "key"},
        "/east/openai/v1",
        None,
    ),
}


class Azure(ProviderApp):
    """The embedded provider at Azure's paths, one resource for each first segment before /openai.

    Resources know nothing of each other, yet issue the same ids, as servers do that count.
    """

    _URL = re.compile(
        r"(?P<resource>(/[a-z]+)?)/openai((?P<v1>/v1)|/deployments/[^/]+)?(?P<rest>/.*)"
    )

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.states: dict[str, State] = {"": state}
        self.asked: list[tuple[str, str, str | None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._URL.fullmatch(scope["path"])
        version = parse_qs(scope["query_string"].decode()).get("api-version", [None])[0]
        self.asked.append((scope["method"], scope["raw_path"].decode(), version))
        if found is None or not (version or found["v1"]):
            head = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 404, "headers": head})
            await send({"type": "http.response.body", "body": NOT_FOUND})
            return
        headers = [  # Azure takes a key in a header of its own
            (b"authorization", value) if name == b"api-key" else (name, value)
            for name, value in scope["headers"]
        ]
        scope = {**scope, "path": f"/v1{found['rest']}", "headers": headers}
        await ProviderApp(self.resource(found["resource"]))(scope, receive, send)

    def resource(self, name: str) -> State:
        """The state of a resource, made when it is first asked for."""
        first = self.states[""]
        return self.states.setdefault(name, State(first.clock, seed=first.ids.seed))


class Cloud:
    """A world whose provider is Azure."""

    def __init__(self, world: World, azure: Azure) -> None:
        self.world = world
        self.azure = azure
        self.origin = f"http://127.0.0.1:{world.provider.port}"

    def app(self, layout: str, transport: Any = None, **changed: Any) -> App:
        """An app that addresses Azure in one of the ways, over perdure or with nothing between."""
        name, options, _, _ = LAYOUTS[layout]
        options = options | changed
        is_async = self.world.colour == "async"
        if transport is not None:
            kind = httpx2.AsyncClient if is_async else httpx2.Client
            options = options | {"http_client": kind(transport=transport)}
        addressed = {
            key: value.format(origin=self.origin) if isinstance(value, str) else value
            for key, value in options.items()
        }
        sdk = getattr(openai, f"Async{name}" if is_async else name)(**addressed, max_retries=0)
        self.world._clients.append(sdk)
        return App(self.world, sdk)

    def perdured(self, layout: str, **options: Any) -> App:
        return self.app(layout, self.world.transport(**options))

    def forgets(self, handle: str, resource: str = "") -> None:
        """Let a resource lose an object; what was asked so far is forgotten too."""
        self.world.clock.advance(LONG)
        self.azure.resource(resource).forget(handle)
        self.azure.asked.clear()

    def asked(self, layout: str) -> list[tuple[str, str]]:
        """What was asked since, below the base path of a layout; everything under its version."""
        _, _, base, version = LAYOUTS[layout]
        assert {version} == {one[2] for one in self.azure.asked}, self.azure.asked
        return [
            (method, re.sub(r"_\w{20,}", "", path.removeprefix(base)))
            for method, path, _ in self.azure.asked
        ]


@pytest.fixture(params=["sync", "async"])
def cloud(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cloud]:
    world = World(request.param, tmp_path)
    azure = Azure(world.provider.state)
    monkeypatch.setattr(server, "create_app", lambda _state: azure)
    world.provider.start()
    yield Cloud(world, azure)
    world.close()


# -- a loss is repaired in the same call ---------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_lost_is_rebuilt_in_the_same_call(cloud: Cloud, layout: str) -> None:
    _, _, base, _ = LAYOUTS[layout]
    resource = base.partition("/openai")[0]
    app = cloud.perdured(layout)

    first = app.respond(FACT)
    cloud.forgets(first.id, resource)
    answer = app.respond(QUESTION, previous_response_id=first.id)
    assert FACT in answer.output_text
    assert "full" == (recovered(answer) or {})["memory"]
    assert [("POST", "/responses")] * 2 == cloud.asked(layout)

    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    cloud.forgets(conversation, resource)
    answer = app.stream(QUESTION, conversation=conversation)
    assert FACT in answer.output_text
    assert "full" == (recovered(answer) or {})["memory"]
    assert [
        ("POST", "/responses"),
        ("POST", "/conversations"),
        ("POST", "/responses"),
    ] == cloud.asked(layout)

    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    cloud.forgets(thread, resource)
    assert FACT in app.say(thread, assistant, QUESTION)
    assert [
        ("POST", "/threads/thread/messages"),
        ("POST", "/threads"),
        ("POST", "/threads/thread/messages"),
        ("POST", "/threads/thread/runs"),
    ] == cloud.asked(layout)[:4]

    assert [(f"{cloud.origin}{base}",)] == cloud.world.rows(
        "SELECT DISTINCT upstream FROM perdure_handle"
    )


# -- the requests that the app did not make ------------------------------------------------------

each_dated_layout = pytest.mark.parametrize("layout", ["endpoint", "v1 preview"])


@each_dated_layout
def test_the_history_of_an_unknown_handle_is_copied(cloud: Cloud, layout: str) -> None:
    earlier = cloud.app(layout).respond(FACT)
    app = cloud.perdured(layout)
    cloud.azure.asked.clear()
    second = app.respond("Hello.", previous_response_id=earlier.id)
    cloud.world.drain()

    assert [
        ("POST", "/responses"),
        ("GET", "/responses/resp"),
        ("GET", "/responses/resp/input_items"),
    ] == cloud.asked(layout)
    cloud.forgets(second.id)
    assert FACT in app.respond(QUESTION, previous_response_id=second.id).output_text


@each_dated_layout
def test_the_reply_of_a_run_is_read_before_the_next_message(cloud: Cloud, layout: str) -> None:
    app = cloud.perdured(layout)
    thread, assistant = app.thread()
    app.call("beta.threads.messages.create", thread_id=thread, role="user", content=FACT)
    app.call("beta.threads.runs.create_and_poll", thread_id=thread, assistant_id=assistant)
    cloud.azure.asked.clear()

    app.call("beta.threads.messages.create", thread_id=thread, role="user", content=QUESTION)

    assert [
        ("GET", "/threads/thread/messages"),
        ("POST", "/threads/thread/messages"),
    ] == cloud.asked(layout)


@each_dated_layout
def test_an_error_that_no_rule_knows_is_probed(cloud: Cloud, layout: str) -> None:
    app = cloud.perdured(layout)
    first = app.respond(FACT)
    cloud.azure.asked.clear()
    odd = {"error": {"message": "Odd.", "type": "odd", "param": None, "code": None}}
    cloud.world.provider.order(Fault("status", status=422, body=odd))

    with pytest.raises(openai.UnprocessableEntityError):
        app.respond(QUESTION, previous_response_id=first.id)

    assert [("POST", "/responses"), ("GET", "/responses/resp")] == cloud.asked(layout)


class Meanwhile(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Sends, but lets something happen before the first POST."""

    def __init__(self, happens: Callable[[], Any]) -> None:
        self.happening = [happens]
        self.blocking = httpx2.HTTPTransport()
        self.awaited = httpx2.AsyncHTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST" and self.happening:
            self.happening.pop()()
        return self.blocking.handle_request(request)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST" and self.happening:
            await self.happening.pop()()
        return await self.awaited.handle_async_request(request)

    def close(self) -> None:
        self.blocking.close()

    async def aclose(self) -> None:
        await self.awaited.aclose()


@each_dated_layout
def test_a_conversation_made_in_vain_is_deleted(cloud: Cloud, layout: str) -> None:
    other = cloud.perdured(layout)
    conversation = other.call("conversations.create").id
    cloud.forgets(conversation)
    app = cloud.perdured(
        layout, inner=Meanwhile(lambda: other.sdk.conversations.retrieve(conversation))
    )

    shown = app.call("conversations.retrieve", conversation_id=conversation)
    cloud.world.drain()

    sweeping = [("GET", "/conversations/conv/items"), ("DELETE", "/conversations/conv")]
    asked = cloud.asked(layout)  # a sweep goes on beside the call
    assert sweeping == [one for one in asked if one in sweeping]
    assert [
        ("GET", "/conversations/conv"),
        ("GET", "/conversations/conv"),
        ("POST", "/conversations"),
        ("POST", "/conversations"),
        ("GET", "/conversations/conv"),
    ] == [one for one in asked if one not in sweeping]
    assert [shown.id] == list(cloud.world.provider.state.conversations)
    assert [(1,)] == cloud.world.rows(
        "SELECT count(*) FROM perdure_orphan WHERE deleted_at IS NOT NULL"
    )
    assert 1 == len(cloud.world.provider.state.conversations)


# -- whose handle it is --------------------------------------------------------------------------


def test_two_resources_that_issue_the_same_ids_do_not_mix(cloud: Cloud) -> None:
    transport = cloud.world.transport()
    apps = {
        name: cloud.app("v1", transport, base_url=f"{cloud.origin}/{name}/openai/v1")
        for name in ("east", "west")
    }
    facts = {"east": FACT, "west": "My cat is called Tom."}
    questions = {"east": QUESTION, "west": "What is my cat called?"}
    said = {name: app.respond(facts[name]) for name, app in apps.items()}
    held = {name: app.call("conversations.create").id for name, app in apps.items()}
    for name, app in apps.items():
        app.respond(facts[name], conversation=held[name])
    assert said["east"].id == said["west"].id
    assert held["east"] == held["west"]
    for name in apps:
        cloud.forgets(said[name].id, f"/{name}")
        cloud.forgets(held[name], f"/{name}")

    for name, app in apps.items():
        for place in (
            {"previous_response_id": said[name].id},
            {"conversation": held[name]},
        ):
            assert facts[name] in app.respond(questions[name], **place).output_text
        received = b"".join(one.body for one in cloud.azure.resource(f"/{name}").requests)
        assert [name] == [one for one, fact in facts.items() if fact.encode() in received]


def test_doctor_asks_azure_as_an_app_does(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"{cloud.origin}/openai/?api-version={DATED}"

    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--base-url", address, "--api-key", "key"])

    assert 0 == ended.value.code
    assert 7 == capsys.readouterr().out.count("verdict  gone (rule ")
    assert {DATED} == {version for _, _, version in cloud.azure.asked}
    assert "/openai/responses" in {path for _, path, _ in cloud.azure.asked}


def test_the_command_line_has_the_key_under_both_its_names() -> None:
    with client_of("http://x/openai?api-version=1", "key", 1.0) as client:
        sent = client.build_request("GET", "http://x/openai/threads")

    assert ("Bearer key", "key") == (sent.headers["authorization"], sent.headers["api-key"])
    assert "http://x/openai/threads?api-version=1" == str(sent.url)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/openai/responses", ("responses", "respond", "/openai", None)),
        ("GET", "/openai/v1/responses/resp_1", ("responses", "read", "/openai/v1", "resp_1")),
        (
            "POST",
            "/openai/deployments/gpt-5/responses",
            ("responses", "respond", "/openai/deployments/gpt-5", None),
        ),
        (
            "GET",
            "/openai/deployments/gpt-5/threads/thread_1",
            ("threads", "read", "/openai/deployments/gpt-5", "thread_1"),
        ),
        (
            "POST",
            "/openai/deployments/threads/conversations/conv_1/items",
            ("conversations", "append", "/openai/deployments/threads", "conv_1"),
        ),
        (
            "POST",
            "/api/projects/p/openai/v1/conversations",
            ("conversations", "create", "/api/projects/p/openai/v1", None),
        ),
        ("POST", "/openai/deployments/threads/completions", None),
        ("POST", "/openai/deployments/conversations/embeddings", None),
        ("POST", "/openai/deployments/responses/chat/completions", None),
        ("POST", "/openai/deployments/threads/chat/completions", None),
        ("GET", "/v1/chatkit/threads/cthr_1", None),
        ("DELETE", "/openai/v1/chatkit/threads/cthr_1", None),
    ],
)
def test_what_a_path_is_about(method: str, path: str, expected: tuple[Any, ...] | None) -> None:
    found = route(method, path)

    assert expected == (found and (found.dialect, found.action, found.base, found.handle))


@pytest.mark.parametrize(
    ("host", "days"),
    [
        ("east.openai.azure.com", 30),
        ("east.services.ai.azure.com", 30),
        ("openai.azure.com.example.org", None),
    ],
)
def test_how_long_azure_keeps_a_response(host: str, days: int | None) -> None:
    for base in ("/openai", "/openai/v1"):
        kept = retention_seconds(Policy(), f"https://{host}{base}", "responses")
        assert kept == (days and timedelta(days=days).total_seconds())
        assert retention_seconds(Policy(), f"https://{host}{base}", "conversations") is None
