"""The transport: perdure's place under the official SDK.

The SDK builds a request, the transport lets the engine decide what it becomes, an inner transport
(or the app's own HTTP client) sends it. A request that carries no conversation is handed to the
inner one as it is.

One class per colour serves both families of HTTP library, httpx2 (openai 3) and httpx (openai 2):
requests and responses are made of whatever family the SDK's own request is.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Any, Final, cast
from urllib.parse import unquote

import httpx2

from perdure.dialects.routes import route
from perdure.dialects.streams import is_event_stream
from perdure.engine import ops
from perdure.engine.exchange import exchange
from perdure.engine.ops import Answer, Closed, Emit, SendFailed, Start
from perdure.engine.wire import Call
from perdure.errors import CutStream
from perdure.flow import Done, Flow, Op, run, run_async
from perdure.model import Policy, Recovery
from perdure.stores import Store, open_store

log = logging.getLogger("perdure")

#: Headers for perdure itself; they never reach the provider.
TURN_HEADER: Final = "perdure-turn"
SUBJECT_HEADER: Final = "perdure-subject"
_OURS: Final = "perdure-"
_NOT_COPIED: Final = frozenset(
    {
        "content-length",
        "content-type",
        "transfer-encoding",
        "x-stainless-retry-count",
        "x-stainless-raw-response",
        "x-stainless-read-timeout",
        "x-stainless-timeout",
    }
)
_DEFAULT_DEADLINE_SECONDS: Final = 600.0
_POOL: Final = "PoolTimeout"
_DEFINITE: Final = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        _POOL,
        "ProxyError",
        "UnsupportedProtocol",
        "LocalProtocolError",
    }
)


class Core:
    """What the transports of both colours share: configuration, and what needs no waiting."""

    def __init__(
        self,
        store: str | Store,
        *,
        tenant: str = "default",
        policy: Policy | None = None,
        on_recovery: Callable[[Recovery], object] | None = None,
        sleep: Callable[[float], object] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = open_store(store) if isinstance(store, str) else store
        self.tenant = tenant
        self.policy = policy or Policy()
        self._on_recovery = on_recovery
        self._sleep = sleep
        self._monotonic = monotonic

    def call(self, request: Any) -> Call | None:
        """Return what a request is about, or None for one that carries no conversation."""
        path = request.url.path
        recognised = route(request.method, path)
        if recognised is None:
            return None
        headers = request.headers
        port = f":{request.url.port}" if request.url.port else ""
        subject = headers.get(SUBJECT_HEADER)
        timeout = (request.extensions.get("timeout") or {}).get("read")
        return Call(
            tenant=self.tenant,
            policy=self.policy,
            route=recognised,
            upstream=f"{request.url.scheme}://{request.url.host}{port}{recognised.base}",
            method=request.method,
            path=path[len(recognised.base) :],
            query=request.url.query.decode("ascii"),
            content=b"",
            turn_id=headers.get(TURN_HEADER),
            subject=unquote(subject) if subject is not None else None,
            deadline_seconds=timeout if timeout is not None else _DEFAULT_DEADLINE_SECONDS,
        )

    def perform(self, op: Op[Any]) -> Any:
        """Perform an op that neither waits nor sends."""
        match op:
            case ops.NewId():
                return uuid.uuid4().hex
            case ops.Elapsed():
                return self._monotonic()
            case ops.Report(recovery):
                return self._report(recovery)
            case _:
                return self.store.perform(op)

    def _report(self, recovery: Recovery) -> None:
        log.warning(
            "recovered %s: %s -> %s, generation %d, memory %s, reason %s, %d requests",
            recovery.conversation,
            recovery.lost_handle,
            recovery.new_handle,
            recovery.generation,
            recovery.memory,
            recovery.reason,
            recovery.requests,
        )
        if self._on_recovery is None:
            return
        try:
            self._on_recovery(recovery)
        except Exception:  # a listener's mistake must not fail the call that was just repaired
            log.exception("on_recovery failed")


# -- requests and answers of either family ----------------------------------------------------


def _family(request: object) -> Any:
    """Return the HTTP library that a request belongs to."""
    return sys.modules[type(request).__module__.partition(".")[0]]


def _outgoing(request: Any, call: Call, op: ops.Send, family: Any) -> Any:
    """Return the request to send for an op: the app's own where nothing differs, else a clone."""
    target = f"{call.route.base}{op.path}"
    headers = request.headers
    ours = [key for key in headers if key.startswith(_OURS)]
    same_path = target.encode() == request.url.raw_path
    if not op.own and same_path and (op.body is call.content or op.body == (call.content or None)):
        for key in ours:
            del headers[key]
        return request
    dropped = {*ours, *(_NOT_COPIED if op.own else ("content-length", "transfer-encoding"))}
    kept = [(key, value) for key, value in headers.multi_items() if key not in dropped]
    if op.own and op.body is not None:
        kept.append(("content-type", "application/json"))
    return family.Request(
        op.method,
        request.url.copy_with(raw_path=target.encode()),
        headers=kept,
        content=op.body,
        extensions=dict(request.extensions),
    )


def _answer(response: Any, raw: bytes | None, stream: Any) -> Answer:
    """Return a response as the engine sees it."""
    body = b"" if raw is None else raw
    if raw and "content-encoding" in response.headers:
        family = _family(response)
        body = family.Response(response.status_code, headers=response.headers, content=raw).content
    original = None if raw is None else (response, raw)
    return Answer(
        response.status_code, tuple(response.headers.multi_items()), body, original, stream
    )


def _failed(error: BaseException) -> SendFailed:
    """Return an inner transport's exception as a fact about the request."""
    return SendFailed(error, definite=type(error).__name__ in _DEFINITE)


def _whole_response(answer: Answer, request: Any, family: Any) -> Any:
    """Return a whole answer as a response; one that was not changed in its very bytes."""
    if answer.original is not None:
        response, raw = answer.original
        return family.Response(
            response.status_code,
            headers=response.headers,
            stream=family.ByteStream(raw),
            extensions=response.extensions,
            request=request,
        )
    return family.Response(
        answer.status, headers=list(answer.headers), content=answer.body, request=request
    )


def _cut(error: CutStream, request: Any, family: Any) -> BaseException:
    failure: BaseException = family.RemoteProtocolError(str(error), request=request)
    return failure


# -- sync ------------------------------------------------------------------------------------


class _Reading:
    """An open body being read by a flow, with a limit in time where one is asked for."""

    def __init__(self, response: Any) -> None:
        self.response = response
        encoded = "content-encoding" in response.headers
        self._chunks: Iterator[bytes] = response.iter_bytes() if encoded else response.iter_raw()
        self._waiting: Any = None

    def pull(self, seconds: float | None) -> bytes | None:
        """Return the next chunk, None at the end, empty when the time is over first."""
        if self._waiting is None:
            if seconds is None:
                return next(self._chunks, None)
            # A thread per held stream: a socket has no other way to be read for a second only.
            executor = ThreadPoolExecutor(1, thread_name_prefix="perdure-hold")
            self._waiting = executor.submit(next, self._chunks, None)
            executor.shutdown(wait=False)
        try:
            chunk: bytes | None = self._waiting.result(seconds)
        except FutureTimeout:
            return b""
        except BaseException:
            self._waiting = None
            raise
        self._waiting = None
        return chunk

    def close(self) -> None:
        self.response.close()


class _Exchange:
    """The driver of one call in sync code."""

    def __init__(self, transport: Transport, request: Any, call: Call) -> None:
        self._transport = transport
        self._request = request
        self._call = call
        self._family = _family(request)

    def perform(self, op: Op[Any]) -> Any:
        """Perform one op of the call's flow."""
        match op:
            case ops.Send():
                return self._send(op)
            case ops.Pull(stream, seconds):
                try:
                    return stream.pull(seconds)
                except BaseException as error:
                    raise _failed(error) from error
            case ops.Release(stream):
                with suppress(Exception):
                    stream.close()
                return None
            case ops.Sleep(seconds):
                return self._transport.sleep(seconds)
            case ops.Spawn(name, flow):
                return self._transport.background(name, flow, self)
            case _:
                return self._transport.perform(op)

    def _send(self, op: ops.Send) -> Answer:
        request = _outgoing(self._request, self._call, op, self._family)
        try:
            response = self._transport.send(request)
            if (
                op.stream
                and response.status_code < 300
                and is_event_stream(response.headers.get("content-type"))
            ):
                return _answer(response, None, _Reading(response))
            try:
                raw = b"".join(response.iter_raw())
            finally:
                response.close()
        except BaseException as error:
            raise _failed(error) from error
        return _answer(response, raw, None)


def _byte_stream(
    family: Any, iterate: Callable[[], Any], close: Callable[[], Any], *, is_async: bool
) -> Any:
    """Return a body of a family's own type around two functions."""
    if is_async:
        names = {"__aiter__": lambda _self: iterate(), "aclose": lambda _self: close()}
        return type("Body", (family.AsyncByteStream,), names)()
    names = {"__iter__": lambda _self: iterate(), "close": lambda _self: close()}
    return type("Body", (family.SyncByteStream,), names)()


class Transport(httpx2.BaseTransport):
    """A transport for the sync SDK: stores every conversation, rebuilds lost replicas.

    ``store`` is a store or its URL; ``inner`` the transport, or the whole HTTP client, that does
    the sending (None: a default transport of the family of the first request). All keys that
    pass one transport are one trust domain: an app whose customers bring their own keys builds
    one transport per tenant on a shared store.
    """

    def __init__(
        self,
        store: str | Store,
        *,
        inner: Any = None,
        tenant: str = "default",
        policy: Policy | None = None,
        on_recovery: Callable[[Recovery], object] | None = None,
        sleep: Callable[[float], object] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.core = Core(
            store,
            tenant=tenant,
            policy=policy,
            on_recovery=on_recovery,
            monotonic=monotonic,
        )
        self.sleep = sleep
        self.perform = self.core.perform
        self._inner = inner
        self._jobs: queue.SimpleQueue[tuple[str, Flow[None], _Exchange] | None] = (
            queue.SimpleQueue()
        )
        self._worker: threading.Thread | None = None
        self._idle = threading.Condition()
        self._pending = 0

    @property
    def store(self) -> Store:
        """The store under this transport."""
        return self.core.store

    def send(self, request: Any) -> Any:
        """Send a request through the inner transport or client; the body is not read."""
        if self._inner is None:
            self._inner = _family(request).HTTPTransport()
        if hasattr(self._inner, "handle_request"):
            return self._inner.handle_request(request)
        return self._inner.send(request, stream=True)

    def handle_request(self, request: Any) -> Any:
        """Carry out one request of the SDK (or of any client of either family)."""
        call = self.core.call(request)
        if call is None:
            return self.send(request)
        call = _with_content(call, request.read())
        driver = _Exchange(self, request, call)
        flow = exchange(call)
        family = _family(request)
        outcome = run(flow, driver.perform)
        if isinstance(outcome, Done):
            return _whole_response(outcome.value, request, family)
        head = cast("Start", outcome).answer
        return family.Response(
            head.status,
            headers=list(head.headers),
            stream=self._body(flow, driver, request, family),
            extensions=head.stream.response.extensions,
            request=request,
        )

    def _body(self, flow: Flow[Answer], driver: _Exchange, request: Any, family: Any) -> Any:
        """Return the rest of a streaming flow as a response body."""
        state = {"open": True}

        def pieces() -> Iterator[bytes]:
            try:
                while isinstance(outcome := run(flow, driver.perform), Emit):
                    yield outcome.data
                state["open"] = False
            except CutStream as error:
                state["open"] = False
                raise _cut(error, request, family) from error

        def close() -> None:
            if state["open"]:
                state["open"] = False
                with suppress(Closed, StopIteration):
                    run(flow, driver.perform, Closed())

        return _byte_stream(family, pieces, close, is_async=False)

    def background(self, name: str, flow: Flow[None], driver: _Exchange) -> None:
        """Queue a job for the one background thread; :meth:`drain` waits for it."""
        with self._idle:
            self._pending += 1
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(
                    target=self._work, name="perdure-background", daemon=True
                )
                self._worker.start()
        self._jobs.put((name, flow, driver))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            name, flow, driver = job
            try:
                run(flow, driver.perform)
            except Exception:  # a job is taken up again by the next call that needs it
                log.warning("background job %s failed", name, exc_info=True)
            with self._idle:
                self._pending -= 1
                self._idle.notify_all()

    def drain(self, seconds: float = 10.0) -> None:
        """Wait until the background work is done, ``seconds`` at most."""
        with self._idle:
            self._idle.wait_for(lambda: self._pending == 0, timeout=seconds)

    def close(self) -> None:
        """Finish background work, close the inner transport and the store's connections."""
        self.drain()
        if self._worker is not None:
            self._jobs.put(None)
            self._worker.join(timeout=1.0)
            self._worker = None
        if self._inner is not None:
            self._inner.close()
        self.core.store.close()


def _with_content(call: Call, content: bytes) -> Call:
    """Return the call with its body (read only once it is known to be needed)."""
    return Call(
        tenant=call.tenant,
        policy=call.policy,
        route=call.route,
        upstream=call.upstream,
        method=call.method,
        path=call.path,
        query=call.query,
        content=content,
        turn_id=call.turn_id,
        subject=call.subject,
        deadline_seconds=call.deadline_seconds,
    )


# -- async -----------------------------------------------------------------------------------


class _AsyncReading:
    """:class:`_Reading` on an event loop."""

    def __init__(self, response: Any) -> None:
        self.response = response
        encoded = "content-encoding" in response.headers
        self._chunks: AsyncIterator[bytes] = (
            response.aiter_bytes() if encoded else response.aiter_raw()
        )
        self._waiting: asyncio.Future[bytes | None] | None = None

    async def pull(self, seconds: float | None) -> bytes | None:
        """Return the next chunk, None at the end, empty when the time is over first."""
        if self._waiting is None:
            if seconds is None:
                return await anext(self._chunks, None)
            self._waiting = asyncio.ensure_future(_next(self._chunks))
        try:
            chunk = await asyncio.wait_for(asyncio.shield(self._waiting), seconds)
        except TimeoutError:
            if not self._waiting.done():
                return b""
            raise
        except BaseException:
            self._waiting = None
            raise
        self._waiting = None
        return chunk

    async def close(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._waiting
        await self.response.aclose()


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(chunks, None)


class _AsyncExchange:
    """The driver of one call in async code."""

    def __init__(self, transport: AsyncTransport, request: Any, call: Call) -> None:
        self._transport = transport
        self._request = request
        self._call = call
        self._family = _family(request)

    async def perform(self, op: Op[Any]) -> Any:
        """Perform one op of the call's flow."""
        match op:
            case ops.Send():
                return await self._send(op)
            case ops.Pull(stream, seconds):
                try:
                    return await stream.pull(seconds)
                except BaseException as error:
                    raise _failed(error) from error
            case ops.Release(stream):
                with suppress(Exception):
                    await stream.close()
                return None
            case ops.Sleep(seconds):
                return await self._transport.sleep(seconds)
            case ops.Spawn(name, flow):
                return self._transport.background(name, flow, self)
            case _:
                return await self._transport.perform(op)

    async def _send(self, op: ops.Send) -> Answer:
        request = _outgoing(self._request, self._call, op, self._family)
        try:
            response = await self._transport.send(request)
            if (
                op.stream
                and response.status_code < 300
                and is_event_stream(response.headers.get("content-type"))
            ):
                return _answer(response, None, _AsyncReading(response))
            try:
                raw = b"".join([chunk async for chunk in response.aiter_raw()])
            finally:
                await response.aclose()
        except BaseException as error:
            raise _failed(error) from error
        return _answer(response, raw, None)


class AsyncTransport(httpx2.AsyncBaseTransport):
    """:class:`Transport` for the async SDK."""

    def __init__(
        self,
        store: str | Store,
        *,
        inner: Any = None,
        tenant: str = "default",
        policy: Policy | None = None,
        on_recovery: Callable[[Recovery], object] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.core = Core(
            store,
            tenant=tenant,
            policy=policy,
            on_recovery=on_recovery,
            monotonic=monotonic,
        )
        self.sleep = sleep
        self._inner = inner
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer: ThreadPoolExecutor | None = None

    @property
    def store(self) -> Store:
        """The store under this transport."""
        return self.core.store

    async def perform(self, op: Op[Any]) -> Any:
        """Perform an op of the store or the worker; a slow commit leaves the event loop free."""
        if self.core.store.fast or isinstance(op, ops.NewId | ops.Elapsed | ops.Report):
            return self.core.perform(op)
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="perdure-writer")
        work = asyncio.get_running_loop().run_in_executor(self._writer, self.core.perform, op)
        # A commit that has begun is finished even if its caller is cancelled meanwhile.
        return await asyncio.shield(work)

    async def send(self, request: Any) -> Any:
        """Send a request through the inner transport or client; the body is not read."""
        if self._inner is None:
            self._inner = _family(request).AsyncHTTPTransport()
        if hasattr(self._inner, "handle_async_request"):
            return await self._inner.handle_async_request(request)
        return await self._inner.send(request, stream=True)

    async def handle_async_request(self, request: Any) -> Any:
        """Carry out one request of the SDK (or of any client of either family)."""
        call = self.core.call(request)
        if call is None:
            return await self.send(request)
        call = _with_content(call, await request.aread())
        driver = _AsyncExchange(self, request, call)
        flow = exchange(call)
        family = _family(request)
        outcome = await run_async(flow, driver.perform)
        if isinstance(outcome, Done):
            return _whole_response(outcome.value, request, family)
        head = cast("Start", outcome).answer
        return family.Response(
            head.status,
            headers=list(head.headers),
            stream=self._body(flow, driver, request, family),
            extensions=head.stream.response.extensions,
            request=request,
        )

    def _body(self, flow: Flow[Answer], driver: _AsyncExchange, request: Any, family: Any) -> Any:
        """Return the rest of a streaming flow as a response body."""
        state = {"open": True}

        async def pieces() -> AsyncIterator[bytes]:
            try:
                while isinstance(outcome := await run_async(flow, driver.perform), Emit):
                    yield outcome.data
                state["open"] = False
            except CutStream as error:
                state["open"] = False
                raise _cut(error, request, family) from error

        async def close() -> None:
            if state["open"]:
                state["open"] = False
                with suppress(Closed, StopIteration):
                    await run_async(flow, driver.perform, Closed())

        return _byte_stream(family, pieces, close, is_async=True)

    def background(self, name: str, flow: Flow[None], driver: _AsyncExchange) -> None:
        """Start a job as a task; :meth:`drain` waits for it."""

        async def work() -> None:
            try:
                await run_async(flow, driver.perform)
            except Exception:  # a job is taken up again by the next call that needs it
                log.warning("background job %s failed", name, exc_info=True)

        task = asyncio.get_running_loop().create_task(work(), name=f"perdure-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, seconds: float = 10.0) -> None:
        """Wait until the background work is done, ``seconds`` at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    async def aclose(self) -> None:
        """Finish background work, close the inner transport and the store's connections."""
        await self.drain()
        if self._inner is not None:
            await self._inner.aclose()
        if self._writer is not None:
            self._writer.shutdown()
        self.core.store.close()
