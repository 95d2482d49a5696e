"""A transaction-mode pooler, as PgBouncer is one: many clients, a server for each transaction.

A client is given whichever server process has been idle longest, for one transaction; so two
statements of one client hardly ever meet the same process. What a client leaves behind in a session
(a prepared statement, a setting, a lock) it does not find again, and finds others' instead.
"""

from __future__ import annotations

import queue
import socket
import struct
import threading
from types import TracebackType
from typing import Self

_PROTOCOL = 196_608
_NO_TLS = {80_877_103, 80_877_104}  # requests for TLS and for GSSAPI
_ENDS_A_REQUEST = {b"S", b"Q"}


class Wire:
    """One end of a connection, in PostgreSQL's messages."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._file = connection.makefile("rb")

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise ConnectionError("the other end has gone")
        return data

    def message(self) -> tuple[bytes, bytes]:
        """Read a message: its kind, and all of it."""
        head = self.read(5)
        (length,) = struct.unpack("!i", head[1:])
        return head[:1], head + self.read(length - 4)

    def startup(self) -> bytes | None:
        """Read what a connection begins with; None for one that only cancels."""
        while True:
            (length,) = struct.unpack("!i", head := self.read(4))
            body = self.read(length - 4)
            (code,) = struct.unpack("!i", body[:4])
            if code in _NO_TLS:
                self.connection.sendall(b"N")
                continue
            return head + body if code == _PROTOCOL else None

    def until_ready(self) -> tuple[bytes, bytes]:
        """Read messages up to the one that says the server is ready: all of them, and its state."""
        parts = []
        while True:
            kind, whole = self.message()
            parts.append(whole)
            if kind == b"Z":
                return b"".join(parts), whole[5:6]

    def close(self) -> None:
        self._file.close()
        self.connection.close()


class Pooler:
    """Stands between clients and one database of a server, on a socket of its own."""

    def __init__(self, server_socket: str, database: str, *, servers: int = 3) -> None:
        self.round_trips = 0
        self._counting = threading.Lock()
        self._idle: queue.Queue[Wire] = queue.Queue()
        self._greeting = b""
        for _ in range(servers):
            self._idle.put(self._connected(server_socket, database))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _connected(self, server_socket: str, database: str) -> Wire:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(server_socket)
        server = Wire(connection)
        options = {"user": "perdure", "database": database, "client_encoding": "UTF8"}
        body = struct.pack("!i", _PROTOCOL)
        body += b"".join(f"{name}\0{value}\0".encode() for name, value in options.items()) + b"\0"
        connection.sendall(struct.pack("!i", len(body) + 4) + body)
        self._greeting, _ = server.until_ready()
        return server

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._client, args=(Wire(connection),), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _client(self, client: Wire) -> None:
        try:
            if client.startup() is not None:
                client.connection.sendall(self._greeting)
                while self._transaction(client):
                    pass
        except OSError:
            pass
        finally:
            client.close()

    def _transaction(self, client: Wire) -> bool:
        """Pass one transaction through a server; False when the client says goodbye."""
        request = self._request(client)
        if request is None:
            return False
        server = self._idle.get()
        try:
            while True:
                server.connection.sendall(request)
                answer, state = server.until_ready()
                with self._counting:
                    self.round_trips += 1
                client.connection.sendall(answer)
                if state == b"I":
                    return True
                request = self._request(client)
                if request is None:
                    raise ConnectionError("a client left in the middle of a transaction")
        finally:
            self._idle.put(server)

    @staticmethod
    def _request(client: Wire) -> bytes | None:
        parts = []
        while True:
            kind, whole = client.message()
            if kind == b"X":
                return None
            parts.append(whole)
            if kind in _ENDS_A_REQUEST:
                return b"".join(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        while not self._idle.empty():
            self._idle.get().close()
