"""The transport for the async SDK."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, cast

import httpx2

from perdure.dialects.routes import route
from perdure.engine import ops
from perdure.engine.exchange import exchange
from perdure.engine.ops import Answer, Closed, Emit, Start
from perdure.engine.wire import Call
from perdure.errors import CutStream, PerdureError
from perdure.flow import Done, Flow, Handover, Op, run_async
from perdure.model import Policy, Recovery, TurnKey
from perdure.stores import AsyncStore, Store
from perdure.transport.core import Core, log, unforeseen
from perdure.transport.family import (
    answer_of,
    body_stream,
    cut_error,
    failed,
    family_of,
    opens_stream,
    outgoing,
    whole_response,
)
from perdure.transport.likeness import liken_async
from perdure.transport.renewal import AsyncRenewal

_WRITERS: Final = 32  # threads for a store that cannot be awaited


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
        self._family = family_of(request)
        self.turn: TurnKey | None = None
        self.open: TurnKey | None = None  # until the store has taken its end

    async def perform(self, op: Op[Any]) -> Any:
        """Perform one op of the call's flow."""
        performer = _PERFORMERS.get(type(op))
        if performer is None:
            return await self._transport.perform(op)
        return await performer(self, op)

    async def accept(self, op: ops.Accept) -> ops.Accepted:
        """Take a turn, and hold it until it has ended."""
        accepted: ops.Accepted = await self._transport.perform(op)
        if accepted.outcome == "deliver":
            self.turn = self.open = accepted.turn
            self._transport.renewal.watch(self)
        return accepted

    async def end(self, op: ops.Complete | ops.Fail) -> Any:
        """End a turn."""
        self.turn = None
        ended = await self._transport.perform(op)
        self.open = None
        return ended

    async def leave(self, op: ops.Underway) -> Any:
        """Leave a turn to the provider; while that cannot be noted, it is held."""
        noted = await self._transport.perform(op)
        self.turn = self.open = None
        return noted

    async def advance(
        self, flow: Flow[Any], error: BaseException | None = None
    ) -> Done[Any] | Handover:
        """Drive a flow of the call on; what nobody foresaw must not leave its turn held."""
        try:
            return await run_async(flow, self.perform, error)
        except PerdureError:
            raise
        except Exception as fault:
            if self.open is not None:
                with suppress(Exception):  # it is the first fault that tells what went wrong
                    await self.end(unforeseen(self._call, self.open, fault))
            raise

    async def send(self, op: ops.Send) -> Answer:
        """Send a request and read its answer, unless it is a stream."""
        request = outgoing(self._request, self._call, op, self._family)
        try:
            response = await self._transport.send(request)
            if op.stream and opens_stream(response):
                return answer_of(response, None, _AsyncReading(response))
            try:
                raw = b"".join([chunk async for chunk in response.stream])
            finally:
                await response.stream.aclose()
        except BaseException as error:
            raise failed(error) from error
        return answer_of(response, raw, None)

    async def pull(self, op: ops.Pull) -> bytes | None:
        """Read the next piece of a stream."""
        try:
            chunk: bytes | None = await op.stream.pull(op.seconds)
        except BaseException as error:
            raise failed(error) from error
        return chunk

    async def release(self, op: ops.Release) -> None:
        """Close a stream that nobody reads to its end."""
        with suppress(Exception):
            await op.stream.close()

    async def sleep(self, op: ops.Sleep) -> None:
        """Wait."""
        await self._transport.sleep(op.seconds)

    async def spawn(self, op: ops.Spawn) -> None:
        """Leave a job to the background worker."""
        self._transport.background(op.name, op.flow, self)


_PERFORMERS: Final[dict[type[Op[Any]], Callable[[_AsyncExchange, Any], Awaitable[Any]]]] = {
    ops.Accept: _AsyncExchange.accept,
    ops.Complete: _AsyncExchange.end,
    ops.Fail: _AsyncExchange.end,
    ops.Underway: _AsyncExchange.leave,
    ops.Send: _AsyncExchange.send,
    ops.Pull: _AsyncExchange.pull,
    ops.Release: _AsyncExchange.release,
    ops.Sleep: _AsyncExchange.sleep,
    ops.Spawn: _AsyncExchange.spawn,
}


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
        self.renewal = AsyncRenewal(tenant, self.perform)
        self._tasks: set[asyncio.Task[None]] = set()
        self._operations: set[asyncio.Future[Any]] = set()
        used = self.core.store
        self._awaited: AsyncStore | None = used if isinstance(used, AsyncStore) else None
        self._writer: ThreadPoolExecutor | None = None

    @property
    def store(self) -> Store:
        """The store under this transport."""
        return self.core.store

    async def perform(self, op: Op[Any]) -> Any:
        """Perform an op of the store or the worker; a slow commit leaves the event loop free."""
        if isinstance(op, ops.Summarise):
            written = await asyncio.to_thread(self.core.perform, op)
            return await written if inspect.isawaitable(written) else written
        if isinstance(op, ops.Liken):
            return await liken_async(op)
        if self.core.store.fast or isinstance(op, ops.NewId | ops.Elapsed | ops.Report):
            return self.core.perform(op)
        loop = asyncio.get_running_loop()
        work: asyncio.Future[Any]
        if self._awaited is not None:
            work = loop.create_task(self._awaited.perform_async(op))
            self._operations.add(work)
            work.add_done_callback(self._operations.discard)
        else:
            if self._writer is None:
                self._writer = ThreadPoolExecutor(_WRITERS, thread_name_prefix="perdure-writer")
            work = loop.run_in_executor(self._writer, self.core.perform, op)
        # A commit that has begun is finished even if its caller is cancelled meanwhile.
        return await asyncio.shield(work)

    async def send(self, request: Any) -> Any:
        """Send a request through the inner transport or client; the body is not read."""
        if self._inner is None:
            self._inner = family_of(request).AsyncHTTPTransport()
        if hasattr(self._inner, "handle_async_request"):
            return await self._inner.handle_async_request(request)
        return await self._inner.send(request, stream=True)

    async def handle_async_request(self, request: Any) -> Any:
        """Carry out one request of the SDK (or of any client of either family)."""
        recognised = route(request.method, request.url.path)
        if recognised is None:
            return await self.send(request)
        call = self.core.call(request, recognised, await request.aread())
        driver = _AsyncExchange(self, request, call)
        flow = exchange(call)
        family = family_of(request)
        outcome = await driver.advance(flow)
        if isinstance(outcome, Done):
            return whole_response(outcome.value, request, family)
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
                while isinstance(outcome := await driver.advance(flow), Emit):
                    yield outcome.data
                state["open"] = False
            except CutStream as error:
                state["open"] = False
                raise cut_error(error, request, family) from error

        async def close() -> None:
            if state["open"]:
                state["open"] = False
                with suppress(Closed, StopIteration):
                    await driver.advance(flow, Closed())

        return body_stream(family, pieces, close, is_async=True)

    def background(self, name: str, flow: Flow[None], driver: _AsyncExchange) -> None:
        """Start a job as a task; :meth:`drain` waits for it."""

        async def work() -> None:
            try:
                await run_async(flow, driver.perform)
            except Exception:  # noqa: BLE001  # the next call that needs the job takes it up again
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
        self.renewal.close()
        if self._inner is not None:
            await self._inner.aclose()
        if self._writer is not None:
            self._writer.shutdown()
        if self._awaited is not None:
            if self._operations:
                await asyncio.wait(self._operations)
            await self._awaited.aclose()
        else:
            self.core.store.close()
