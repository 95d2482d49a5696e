"""The transport for the sync SDK."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Any, Final, cast

import httpx2

from perdure.dialects.routes import route
from perdure.engine import ops
from perdure.engine.exchange import exchange
from perdure.engine.ops import Answer, Closed, Emit, Start
from perdure.engine.wire import Call
from perdure.errors import CutStream, PerdureError
from perdure.flow import Done, Flow, Handover, Op, run
from perdure.model import Policy, Recovery, TurnKey
from perdure.stores import Store
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
from perdure.transport.renewal import Renewal


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
        self._family = family_of(request)
        self.turn: TurnKey | None = None
        self.open: TurnKey | None = None  # until the store has taken its end

    def perform(self, op: Op[Any]) -> Any:
        """Perform one op of the call's flow."""
        performer = _PERFORMERS.get(type(op))
        return self._transport.perform(op) if performer is None else performer(self, op)

    def accept(self, op: ops.Accept) -> ops.Accepted:
        """Take a turn, and hold it until it has ended."""
        accepted: ops.Accepted = self._transport.perform(op)
        if accepted.outcome == "deliver":
            self.turn = self.open = accepted.turn
            self._transport.renewal.watch(self)
        return accepted

    def end(self, op: ops.Complete | ops.Fail) -> Any:
        """End a turn."""
        self.turn = None
        ended = self._transport.perform(op)
        self.open = None
        return ended

    def leave(self, op: ops.Underway) -> Any:
        """Leave a turn to the provider; while that cannot be noted, it is held."""
        noted = self._transport.perform(op)
        self.turn = self.open = None
        return noted

    def advance(self, flow: Flow[Any], error: BaseException | None = None) -> Done[Any] | Handover:
        """Drive a flow of the call on; what nobody foresaw must not leave its turn held."""
        try:
            return run(flow, self.perform, error)
        except PerdureError:
            raise
        except Exception as fault:
            if self.open is not None:
                with suppress(Exception):  # it is the first fault that tells what went wrong
                    self.end(unforeseen(self._call, self.open, fault))
            raise

    def send(self, op: ops.Send) -> Answer:
        """Send a request and read its answer, unless it is a stream."""
        request = outgoing(self._request, self._call, op, self._family)
        try:
            response = self._transport.send(request)
            if op.stream and opens_stream(response):
                return answer_of(response, None, _Reading(response))
            try:
                raw = b"".join(response.stream)
            finally:
                response.stream.close()
        except BaseException as error:
            raise failed(error) from error
        return answer_of(response, raw, None)

    def pull(self, op: ops.Pull) -> bytes | None:
        """Read the next piece of a stream."""
        try:
            chunk: bytes | None = op.stream.pull(op.seconds)
        except BaseException as error:
            raise failed(error) from error
        return chunk

    def release(self, op: ops.Release) -> None:
        """Close a stream that nobody reads to its end."""
        with suppress(Exception):
            op.stream.close()

    def sleep(self, op: ops.Sleep) -> None:
        """Wait."""
        self._transport.sleep(op.seconds)

    def spawn(self, op: ops.Spawn) -> None:
        """Leave a job to the background worker."""
        self._transport.background(op.name, op.flow, self)


_PERFORMERS: Final[dict[type[Op[Any]], Callable[[_Exchange, Any], Any]]] = {
    ops.Accept: _Exchange.accept,
    ops.Complete: _Exchange.end,
    ops.Fail: _Exchange.end,
    ops.Underway: _Exchange.leave,
    ops.Send: _Exchange.send,
    ops.Pull: _Exchange.pull,
    ops.Release: _Exchange.release,
    ops.Sleep: _Exchange.sleep,
    ops.Spawn: _Exchange.spawn,
}


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
        self.renewal = Renewal(tenant, self.perform)
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
            self._inner = family_of(request).HTTPTransport()
        if hasattr(self._inner, "handle_request"):
            return self._inner.handle_request(request)
        return self._inner.send(request, stream=True)

    def handle_request(self, request: Any) -> Any:
        """Carry out one request of the SDK (or of any client of either family)."""
        recognised = route(request.method, request.url.path)
        if recognised is None:
            return self.send(request)
        call = self.core.call(request, recognised, request.read())
        driver = _Exchange(self, request, call)
        flow = exchange(call)
        family = family_of(request)
        outcome = driver.advance(flow)
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

    def _body(self, flow: Flow[Answer], driver: _Exchange, request: Any, family: Any) -> Any:
        """Return the rest of a streaming flow as a response body."""
        state = {"open": True}

        def pieces() -> Iterator[bytes]:
            try:
                while isinstance(outcome := driver.advance(flow), Emit):
                    yield outcome.data
                state["open"] = False
            except CutStream as error:
                state["open"] = False
                raise cut_error(error, request, family) from error

        def close() -> None:
            if state["open"]:
                state["open"] = False
                with suppress(Closed, StopIteration):
                    driver.advance(flow, Closed())

        return body_stream(family, pieces, close, is_async=False)

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
            except Exception:  # noqa: BLE001  # the next call that needs the job takes it up again
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
        self.renewal.close()
        if self._worker is not None:
            self._jobs.put(None)
            self._worker.join(timeout=1.0)
            self._worker = None
        if self._inner is not None:
            self._inner.close()
        self.core.store.close()
