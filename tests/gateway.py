"""A gateway between an app and its provider: it may answer a request itself, and with anything."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What a gateway answers itself: a status, a content type and a body.
Own = tuple[int, str, bytes]
JSON = "application/json"
_OF_THE_CONNECTION = {
    "host",
    "content-length",
    "connection",
    "accept-encoding",
    "transfer-encoding",
    "date",
    "server",
}


class Gateway:
    """Passes requests on to ``upstream``, but for those that it was told to answer."""

    def __init__(self, upstream: str) -> None:
        self.base_url = ""
        self._upstream = upstream.removesuffix("/v1")
        self._order: tuple[str, Own] | None = None
        self._once = True

    def order(self, asked: str, own: Own, *, once: bool = True) -> None:
        """Answer the next request (or all) of a method and path, a pattern, with something else."""
        self._order, self._once = (asked, own), once

    @property
    def waits(self) -> bool:
        """Whether what was ordered has not been asked for."""
        return self._order is not None

    def own(self, method: str, path: str) -> Own | None:
        """Return what the gateway answers to a request itself; None: it passes it on."""
        asked = f"{method} {path.removeprefix('/v1').partition('?')[0]}"
        if self._order is None or not re.fullmatch(self._order[0], asked):
            return None
        own = self._order[1]
        if self._once:
            self._order = None
        return own

    def passed(self, method: str, path: str, headers: Any, body: bytes) -> Any:
        """Return the provider's answer to a request."""
        request = urllib.request.Request(  # noqa: S310  # to a provider of ours
            self._upstream + path, body or None, dict(_lasting(headers)), method=method
        )
        try:
            return urllib.request.urlopen(request)  # noqa: S310
        except urllib.error.HTTPError as error:
            return error


def _lasting(headers: Any) -> list[tuple[str, str]]:
    return [(key, one) for key, one in headers.items() if key.lower() not in _OF_THE_CONNECTION]


@contextmanager
def gateway_to(upstream: str) -> Iterator[Gateway]:
    """Run a gateway to an API."""
    gateway = Gateway(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            own = gateway.own(self.command, self.path)
            if own is not None:
                status, kind, content = own
                self._tell(status, [("content-type", kind)] if kind else [], content)
                return
            with gateway.passed(self.command, self.path, self.headers, body) as answer:
                self._tell(answer.status, _lasting(answer.headers), answer.read())

        do_GET = do_DELETE = do_POST  # noqa: N815  # named by the library

        def _tell(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response(status)
            for key, one in headers:
                self.send_header(key, one)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: Any) -> None:
            """Write no log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        gateway.base_url = f"http://127.0.0.1:{server.server_port}/v1"
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
