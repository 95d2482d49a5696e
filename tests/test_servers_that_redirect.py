"""Servers that know a route by one spelling and redirect from the other, as many frameworks do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx2
import openai
import pytest

import perdure
from tests.world import MODEL, World

DOG = "My dog is called Rex."
WHOSE = "What is my dog called?"


class Redirecting(ThreadingHTTPServer):
    """Stands before a provider; some of its routes have a slash at their end."""

    daemon_threads = True

    def __init__(self, behind: str, slashed: tuple[str, ...]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.slashed = behind, slashed
        self.asked: list[tuple[str, str, int]] = []
        self.base_url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self._thread = Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Redirecting

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0)) or None
        status, headers, content = self._answer(body)
        self.server.asked.append((self.command, self.path, status))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _answer(self, body: bytes | None) -> tuple[int, dict[str, str], bytes]:
        path = self.path.removeprefix("/v1").partition("?")[0]
        if path in self.server.slashed:
            return 307, {"location": f"/v1{path}/"}, b""
        kept = {"authorization": "Bearer k", "content-type": "application/json"}
        url = self.server.behind + path.rstrip("/")
        answer = httpx2.request(self.command, url, content=body, headers=kept)
        return answer.status_code, {"content-type": "application/json"}, answer.content

    do_GET = do_DELETE = do_POST  # noqa: N815 - named by the library


@pytest.fixture(params=[("/conversations",), ("/conversations", "/responses")], ids=len)
def server(sync_world: World, request: pytest.FixtureRequest) -> Iterator[Redirecting]:
    with closing(Redirecting(sync_world.provider.base_url, request.param)) as made:
        yield made


@pytest.fixture
def sdk(sync_world: World, server: Redirecting) -> Iterator[Any]:
    http = perdure.http_client(sync_world.store())
    client = openai.OpenAI(api_key="k", base_url=server.base_url, max_retries=0, http_client=http)
    yield client
    client.close()


def test_a_lost_conversation_is_rebuilt(sync_world: World, server: Redirecting, sdk: Any) -> None:
    """The app's call is not led to where ours was to go."""
    handle = sdk.conversations.create().id
    sdk.responses.create(model=MODEL, input=DOG, conversation=handle)
    sync_world.forgets()
    server.asked.clear()

    answer = sdk.responses.create(model=MODEL, input=WHOSE, conversation=handle)

    assert DOG in answer.output_text
    assert [200] == [status for _, path, status in server.asked if path == "/v1/conversations/"]
    (recovery,) = sync_world.rows("SELECT memory, primed FROM perdure_recovery")
    assert ("full", 2) == recovery


def test_a_redirect_that_leads_away_is_not_followed(sync_world: World, server: Redirecting) -> None:
    """Nor is it the app's to follow, whose call is another one."""
    http = perdure.http_client(sync_world.store())
    with closing(openai.OpenAI(api_key="k", base_url=server.base_url, http_client=http)) as sdk:
        handle = sdk.conversations.create().id
        sync_world.forgets()
        server.slashed = ("/conversations",)
        away = _Handler._answer

        def led_away(self: Any, body: bytes | None) -> tuple[int, dict[str, str], bytes]:
            status, headers, content = away(self, body)
            elsewhere = {"location": "https://elsewhere.invalid/v1/conversations"}
            return status, elsewhere if status == 307 else headers, content

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_Handler, "_answer", led_away)
            with pytest.raises(openai.APIStatusError) as raised:
                sdk.responses.create(model=MODEL, input=WHOSE, conversation=handle)

    assert 307 == raised.value.status_code
    assert not [one for one in server.asked if one[1] == "/v1/conversations/" and one[2] != 200]
