"""The ASGI face: bytes in and out, and the faults that happen to a connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from perdure.testing.provider import control, errors, routes
from perdure.testing.provider.faults import AFTER, BEFORE, Fault
from perdure.testing.provider.state import Recorded, State
from perdure.testing.provider.wire import Answer, Event, Request, encode, encode_event

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BASES = ("/openai/v1", "/v1")
"""Where the API answers; the second form is a gateway's."""
SERVER_SIDE = 500
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Dropped(Exception):
    """The connection was dropped on purpose; nothing more can be sent."""


class App:
    """The provider as an ASGI application.

    `connections` maps a client's address to its transport; the server fills it, so that a fault
    can drop a connection. Without it (an in-process client) a drop raises ConnectionResetError.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.connections: dict[Any, asyncio.Transport] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = _request(scope, await _read(receive))
        if request.base == control.BASE:
            with self.state.lock:
                answer = control.answer(self.state, request)
            await _send_json(send, answer, {})
            return
        record = self._record(request)
        try:
            await Exchange(self, request, record, scope, send).run()
        except Dropped:
            # Let the transport tell the server that the client is gone.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            # The provider is closing; the connection was dropped before this.
            return

    def _record(self, request: Request) -> Recorded:
        state = self.state
        record = Recorded(
            method=request.method,
            path=request.base + request.path,
            query=request.query,
            headers=dict(request.headers),
            body=request.body,
            status=None,
            at=state.clock.now(),
        )
        with state.lock:
            state.requests.append(record)
            request.faults = state.faults.take(request)
        return record


class Exchange:
    """One request and its answer, with the faults it meets in their order."""

    def __init__(
        self, app: App, request: Request, record: Recorded, scope: Scope, send: Send
    ) -> None:
        self.app = app
        self.state = app.state
        self.request = request
        self.record = record
        self.client = scope.get("client")
        self.send = send

    async def run(self) -> None:
        """Answer, or misbehave as ordered."""
        await self._delay(BEFORE)
        if self._struck("answer_lost", BEFORE):
            self._drop(reset=True)
        ordered = self._ordered_answer()
        if ordered is not None:
            await self._send(ordered)
            return
        with self.state.lock:
            self._forget(BEFORE)
            answer = routes.answer(self.state, self.request)
            self._forget(AFTER)
        await self._delay(AFTER)
        await self._finish(answer)

    async def _finish(self, answer: Answer) -> None:
        status = self._struck("status", AFTER)
        lost = self._struck("answer_lost", AFTER)
        if status or lost:
            self._settle(answer)
            if lost:
                self._drop()
            await self._send(_status_answer(status) if status else answer)
            return
        await self._send(answer)

    def _forget(self, timing: str) -> None:
        forgotten = self._struck("forget", timing)
        if forgotten is not None:
            with contextlib.suppress(LookupError):
                self.state.forget(forgotten.handle)

    def _ordered_answer(self) -> Answer | None:
        """Return the answer a fault gives instead of any work."""
        off = self.request.fault("api_off")
        if off is not None:
            return _off_answer(off, self.request)
        limit = self.request.fault("rate_limit")
        if limit is not None:
            with self.state.lock:
                wait = self.state.faults.over_limit(limit, self.state.clock.now())
            if wait > 0:
                return _status_answer(Fault("status", status=429, retry_after=wait))
        status = self._struck("status", BEFORE)
        return _status_answer(status) if status else None

    def _struck(self, kind: str, timing: str) -> Fault | None:
        fault = self.request.fault(kind)
        return fault if fault is not None and fault.strikes == timing else None

    async def _delay(self, timing: str) -> None:
        fault = self._struck("delay", timing)
        if fault is not None:
            await asyncio.sleep(fault.seconds)

    def _settle(self, answer: Answer) -> None:
        """Keep the work of an answer nobody will see."""
        with self.state.lock:
            for _event in answer.events or ():
                pass
            if answer.settle is not None:
                answer.settle()

    async def _send(self, answer: Answer) -> None:
        headers = self._headers() | answer.headers
        self.record.status = answer.status
        if answer.events is None:
            with self.state.lock:
                if answer.settle is not None:
                    answer.settle()
            await _send_json(self.send, answer, headers)
        else:
            await self._send_events(answer, headers)

    def _headers(self) -> dict[str, str]:
        return {
            "x-request-id": self.state.ids.hexed("req"),
            "openai-version": "2020-10-01",
            "openai-processing-ms": "1",
        }

    async def _send_events(self, answer: Answer, headers: dict[str, str]) -> None:
        """Stream; a client that goes away does not stop the turn (FACTS 0.7)."""
        headers["content-type"] = "text/event-stream; charset=utf-8"
        await self.send(_start(answer.status, headers))
        cut, slow = self.request.fault("cut_stream"), self.request.fault("slow_events")
        sent = 0
        while (event := self._next(answer)) is not None:
            if cut is not None and sent >= cut.events:
                self._cut(answer, cut)
            if slow is not None and sent:
                await asyncio.sleep(slow.seconds)
            await self.send(_body(encode_event(event), more=True))
            sent += 1
        await self.send(_body(b"", more=False))

    def _next(self, answer: Answer) -> Event | None:
        with self.state.lock:
            return next(answer.events, None) if answer.events is not None else None

    def _cut(self, answer: Answer, cut: Fault) -> None:
        if cut.strikes == AFTER:
            self._settle(answer)
        else:
            with self.state.lock:
                close = getattr(answer.events, "close", None)
                if close is not None:
                    close()
        self._drop(flush=True)

    def _drop(self, *, reset: bool = False, flush: bool = False) -> None:
        transport = self.app.connections.get(self.client)
        if transport is None:
            message = "the provider dropped the connection, as ordered"
            raise ConnectionResetError(message)
        if flush:
            transport.close()
        else:
            raw = transport.get_extra_info("socket")
            if reset and raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            transport.abort()
        raise Dropped


def _request(scope: Scope, body: bytes) -> Request:
    path: str = scope["path"]
    base = next(
        (one for one in (control.BASE, *BASES) if path == one or path.startswith(f"{one}/")), ""
    )
    return Request(
        method=scope["method"],
        path=path[len(base) :] or "/",
        base=base,
        query=parse_qs(scope["query_string"].decode(), keep_blank_values=True),
        headers={
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        },
        body=body,
    )


async def _read(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    return b"".join(parts)


def _start(status: int, headers: dict[str, str]) -> dict[str, Any]:
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


def _body(data: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def _send_json(send: Send, answer: Answer, headers: dict[str, str]) -> None:
    data = encode(answer.body)
    own = {"content-type": "application/json", "content-length": str(len(data))}
    await send(_start(answer.status, headers | own))
    await send(_body(data, more=False))


def _status_answer(fault: Fault) -> Answer:
    status = fault.status or errors.SERVER_ERROR.status
    kinds = {429: errors.RATE_LIMITED}
    kind = kinds.get(
        status, errors.SERVER_ERROR if status >= SERVER_SIDE else errors.ORDERED_STATUS
    )
    headers = {}
    if fault.retry_after is not None:
        headers["retry-after"] = f"{fault.retry_after:g}"
    elif status == errors.RATE_LIMITED.status:
        headers["retry-after"] = "0.02"
    return Answer(fault.body or {"error": kind.fields()}, status, headers)


def _off_answer(fault: Fault, request: Request) -> Answer:
    if fault.status == errors.INVALID_URL.status:
        full = request.base + request.path
        return Answer.of_error(errors.INVALID_URL.error(method=request.method, path=full))
    return Answer.of_error(errors.API_RETIRED.error())


def create_app(state: State | None = None) -> App:
    """Return the provider as an ASGI application, without a thread or a socket."""
    return App(state if state is not None else State())
