"""A TCP proxy between an app and a provider, that does to one connection what networks do.

Each connection carries one request (the proxy asks the provider to close), so what is done to a
connection is done to a call. Nothing is timed: what has to come after the client's timeout comes
after the client has closed its end.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Self

_GIVES_UP_SECONDS = 5.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time at all: closing sends a RST


@dataclass(frozen=True)
class Wire:
    """What happens to one connection.

    ``request``: when the provider gets it: now, never, once the client has given up, or when
    :meth:`Proxy.release` is called. ``keep``: how much of the answer gets through, as a number of
    bytes (a negative one: all but so many) or as a share of its body. ``end``: what happens then.
    """

    end: Literal["close", "reset", "half-close", "silence", "late", "dribble"]
    keep: float = 0
    request: Literal["now", "never", "given up", "released"] = "now"

    def part(self, answer: bytes) -> bytes:
        """What gets through of an answer."""
        if isinstance(self.keep, int):
            return answer[: self.keep]
        body = answer.index(b"\r\n\r\n") + 4
        return answer[: body + int((len(answer) - body) * self.keep)]


class Proxy:
    """Listens on a port of its own; :meth:`order` says what happens to the next connection."""

    def __init__(self, provider: str) -> None:
        host, _, port = provider.split("/")[2].partition(":")
        self._provider = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._ordered: list[tuple[str, Wire]] = []
        self._released = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.met: list[str] = []
        self.base_url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # shutdown() is what wakes the thread in accept().
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listener.join()
        self._listening.close()
        self.release()

    def order(self, request: str, wire: Wire) -> None:
        """Let the next request whose first line matches meet a fault."""
        self._ordered.append((request, wire))

    def release(self) -> None:
        """Let the provider have what was held back, and wait until every connection has ended."""
        self._released.set()
        for thread in self._threads:
            thread.join(_GIVES_UP_SECONDS)
            assert not thread.is_alive(), "a connection hangs"

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._carry, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _carry(self, client: socket.socket) -> None:
        with client, suppress(ConnectionError):
            client.settimeout(_GIVES_UP_SECONDS)
            request = _read_request(client)
            if request is None:
                return
            wire = self._taken(request)
            if wire is None:
                self._pass(request, client)
            else:
                self._harm(request, client, wire)

    def _taken(self, request: bytes) -> Wire | None:
        line = request.split(b"\r\n", 1)[0].decode()
        for number, (pattern, wire) in enumerate(self._ordered):
            if re.match(pattern, line):
                del self._ordered[number]
                self.met.append(line)
                return wire
        return None

    def _harm(self, request: bytes, client: socket.socket, wire: Wire) -> None:
        answer = b""
        if wire.request == "given up":
            _wait_until_closed(client)
        elif wire.request == "released":
            self._released.wait(_GIVES_UP_SECONDS)
        if wire.request != "never":
            answer = self._ask(request)
        if wire.end == "late":
            _wait_until_closed(client)
        elif wire.end == "dribble":
            size = max(1, len(answer) // 7)
            pieces = [answer[start : start + size] for start in range(0, len(answer), size)]
            for piece in pieces:
                client.sendall(piece)
                self._released.wait(0.01)
            return
        client.sendall(wire.part(answer) if wire.end != "late" else answer)
        if wire.end == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif wire.end == "half-close":
            client.shutdown(socket.SHUT_WR)
            _wait_until_closed(client)
        elif wire.end == "silence":
            _wait_until_closed(client)

    def _pass(self, request: bytes, client: socket.socket) -> None:
        with socket.create_connection(self._provider, timeout=_GIVES_UP_SECONDS) as provider:
            provider.sendall(request)
            while data := provider.recv(65_536):
                client.sendall(data)

    def _ask(self, request: bytes) -> bytes:
        with socket.create_connection(self._provider, timeout=_GIVES_UP_SECONDS) as provider:
            provider.sendall(request)
            answer = bytearray()
            while data := provider.recv(65_536):
                answer += data
        return bytes(answer)


def _read_request(client: socket.socket) -> bytes | None:
    """One whole request, changed only so that its connection ends with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65_536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)^content-length: *(\d+)", head, re.MULTILINE)
    while length and len(body) < int(length[1]):
        body += client.recv(65_536)
    head = re.sub(rb"(?im)^connection: *[^\r]*", b"Connection: close", head)
    return head + b"\r\n\r\n" + body


def _wait_until_closed(client: socket.socket) -> None:
    with suppress(ConnectionError, TimeoutError):
        while client.recv(65_536):
            pass
