"""A provider that takes no time, in a process of its own.

HTTP/1.1 with keep-alive on a loopback port, one thread per connection, nothing in between. It
answers ``POST /v1/responses`` and ends when its standard input does, so it cannot outlive the
process that started it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.wire import Provider

_ENDING_SECONDS: Final = 20.0
# What OpenAI's answers carry besides their length, without the cookies that not every answer sets.
_HEADERS: Final = b"""\
date: Fri, 10 Oct 2025 10:10:10 GMT
content-type: application/json
connection: keep-alive
access-control-expose-headers: X-Request-ID
openai-organization: made-up-organization
openai-processing-ms: 0
openai-project: proj_0123456789abcdefghijklmn
openai-version: 2020-10-01
x-ratelimit-limit-requests: 10000
x-ratelimit-limit-tokens: 2000000
x-ratelimit-remaining-requests: 9999
x-ratelimit-remaining-tokens: 1998800
x-ratelimit-reset-requests: 6ms
x-ratelimit-reset-tokens: 36ms
x-request-id: req_0123456789abcdef0123456789abcdef
strict-transport-security: max-age=31536000; includeSubDomains; preload
cf-cache-status: DYNAMIC
x-content-type-options: nosniff
server: cloudflare
cf-ray: 0123456789abcdef-AMS
alt-svc: h3=":443"; ma=86400
""".replace(b"\n", b"\r\n")


# -- in its own process ----------------------------------------------------------------------


class _Counter:
    """What was asked for, so that the benchmark can check that nothing else was."""

    def __init__(self) -> None:
        self.turns = 0
        self.other = 0


def _serve(connection: socket.socket, provider: Provider, counter: _Counter) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    received = b""
    with connection:
        while True:
            while (end := received.find(b"\r\n\r\n")) < 0:
                if not (more := connection.recv(65536)):
                    return
                received += more
            head, received = received[:end].lower(), received[end + 4 :]
            length = int(head.partition(b"content-length:")[2].partition(b"\r")[0] or 0)
            while len(received) < length:
                received += connection.recv(65536)
            content, received = received[:length], received[length:]
            connection.sendall(_answer(head, content, provider, counter))


def _answer(head: bytes, content: bytes, provider: Provider, counter: _Counter) -> bytes:
    status, body = b"200 OK", b""
    if head.startswith(b"post /v1/responses "):
        counter.turns += 1
        body = provider.response(content)
    elif head.startswith(b"get /served "):
        body = json.dumps([counter.turns, counter.other]).encode()
    else:
        counter.other += 1
        status, body = b"404 Not Found", b'{"error":{"message":"not served here"}}'
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n%s\r\n%s" % (status, len(body), _HEADERS, body)


def _accept(listener: socket.socket) -> None:
    provider, counter = Provider(), _Counter()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection, provider, counter), daemon=True).start()


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that measures
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    sys.stdin.buffer.read()
    os._exit(0)


# -- in the process that measures ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Upstream:
    """A running upstream."""

    port: int

    @property
    def base_url(self) -> str:
        """The address that an SDK is given."""
        return f"http://127.0.0.1:{self.port}/v1"

    def served(self) -> tuple[int, int]:
        """Return how many turns and how many other requests have been answered."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}/served") as answer:
            turns, other = json.load(answer)
        return turns, other


@contextmanager
def running() -> Iterator[Upstream]:
    """Run an upstream in a process of its own for the length of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.upstream"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parent.parent,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("The upstream did not start; its error stands above.")
        yield Upstream(int(line))
    finally:
        process.kill()  # this process, by its id; it holds nothing worth a farewell
        process.wait(_ENDING_SECONDS)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


if __name__ == "__main__":
    main()
