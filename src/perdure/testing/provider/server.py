"""The provider on a socket: in a thread for tests, or in the foreground for the command line."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import threading
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from perdure.testing.clock import Clock
from perdure.testing.provider.app import App, create_app
from perdure.testing.provider.faults import Fault
from perdure.testing.provider.state import Recorded, State
from perdure.testing.provider.wire import Json

LOOPBACK = "127.0.0.1"
STOP_SECONDS = 5.0


class Protocol(H11Protocol):
    """An HTTP connection that the app can drop."""

    def __init__(self, *arguments: Any, app: App, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._provider = app

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note the transport under its client's address."""
        super().connection_made(transport)
        self._provider.connections[self.client] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the transport."""
        self._provider.connections.pop(self.client, None)
        super().connection_lost(exc)


def _config(app: App, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=functools.partial(Protocol, app=app),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        **options,
    )


class Provider:
    """An OpenAI-compatible provider on 127.0.0.1, in a daemon thread of this process.

    Use it as a context manager, or call `start` and `close`. Without a clock it has its own, which
    runs with real time plus whatever was advanced. It makes no network call.
    """

    def __init__(
        self, clock: Clock | None = None, port: int = 0, *, seed: str | None = None
    ) -> None:
        self.state = State(clock, seed=seed)
        self._wanted_port = port
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> Self:
        """Listen; returns once connections are accepted."""
        if self._thread is not None:
            return self
        # The protocol is named because asyncio switches Nagle's delay (40 ms) off only then.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOOPBACK, self._wanted_port))
        except OSError:
            listening.close()
            raise
        self._socket = listening
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name="perdure-provider", daemon=True
        )
        self._thread.start()
        ready.wait(STOP_SECONDS)
        return self

    def close(self) -> None:
        """Stop listening, drop every connection and end the thread."""
        if self._thread is None:
            return
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_SECONDS)
        self._thread = self._loop = self._stop = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, ready: threading.Event) -> None:
        asyncio.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        # Not uvicorn's own loop: it looks only every 0.1 s whether it should stop.
        app = create_app(self.state)
        config = _config(app)
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        assert self._socket is not None
        await server.startup(sockets=[self._socket])
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._wanted_port = self.port
        ready.set()
        await self._stop.wait()
        for listener in server.servers:
            listener.close()
        for transport in list(app.connections.values()):
            transport.abort()
        await asyncio.sleep(0)
        for task in list(server.server_state.tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def port(self) -> int:
        """Return the port; known once started, and kept for a restart."""
        if self._socket is None or self._socket.fileno() < 0:
            return self._wanted_port
        return int(self._socket.getsockname()[1])

    @property
    def base_url(self) -> str:
        """Return what an SDK takes as `base_url`."""
        return f"http://{LOOPBACK}:{self.port}/v1"

    @property
    def clock(self) -> Clock:
        """Return the clock that dates and expires everything."""
        return self.state.clock

    @property
    def requests(self) -> list[Recorded]:
        """Return the requests so far, oldest first; controls are not among them."""
        with self.state.lock:
            return list(self.state.requests)

    def clear_requests(self) -> None:
        """Start the list of requests anew."""
        with self.state.lock:
            self.state.requests.clear()

    def forget(self, handle: str | None = None) -> None:
        """Lose one object without a trace, or every conversation, response and thread.

        LookupError if nothing has that id.
        """
        with self.state.lock:
            self.state.forget(handle)

    def expire_after(self, kind: str, idle: timedelta | float | None) -> None:
        """Let "responses", "conversations", "threads" or "vector_stores" vanish once idle."""
        with self.state.lock:
            self.state.expire_after(kind, idle)

    def order(self, *faults: Fault) -> None:
        """Order faults; each is used up by the requests it applies to."""
        with self.state.lock:
            for fault in faults:
                self.state.order(fault)

    def clear_faults(self) -> None:
        """Cancel every order that still stands."""
        with self.state.lock:
            self.state.faults.clear()

    def script(self, *outputs: str | Sequence[Json]) -> None:
        """Say what the next turns answer, one each: a text, or a list of output items."""
        with self.state.lock:
            self.state.scripted.extend(outputs)

    def items(self, handle: str) -> list[Json]:
        """Return the items a conversation holds, or a response continues, oldest first."""
        with self.state.lock:
            if handle in self.state.responses:
                return [one.body for one in self.state.history(self.state.responses[handle])]
            return [one.body for one in self.state.conversations[handle].items]

    def messages(self, handle: str) -> list[Json]:
        """Return the messages a thread holds, oldest first."""
        with self.state.lock:
            return list(self.state.threads[handle].messages.values())


def serve(host: str = LOOPBACK, port: int = 8485) -> None:
    """Serve in the foreground until Ctrl-C."""
    server = uvicorn.Server(_config(create_app(), host=host, port=port))
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
