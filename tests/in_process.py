"""The embedded provider without a socket: its own app, called by the transport's inner end."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import httpx2

from perdure.testing import State
from perdure.testing.provider import create_app


class InProcess(httpx2.BaseTransport):
    """Answers requests from a provider's app, at once and in the same thread."""

    def __init__(self, state: State) -> None:
        self._app = create_app(state)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        body, sent = request.read(), [False]
        heads: list[Any] = []
        pieces: list[bytes] = []

        async def receive() -> dict[str, Any]:
            sent[0] = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                heads.append(message)
            else:
                pieces.append(message.get("body", b""))

        path, _, query = request.url.raw_path.partition(b"?")
        scope = {
            "type": "http",
            "method": request.method,
            "path": path.decode(),
            "query_string": query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
        }
        _finish(self._app(scope, receive, send))
        (head,) = heads
        return httpx2.Response(
            head["status"],
            headers=head["headers"],
            stream=httpx2.ByteStream(b"".join(pieces)),
            request=request,
        )


def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise RuntimeError("the provider waits for something, which it cannot do in this thread")
