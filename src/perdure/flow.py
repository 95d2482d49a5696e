"""Flows: the part of perdure that decides, apart from the part that does.

A *flow* is a generator. It yields *ops*, plain values that say what should happen next (send this
request, run this store operation, sleep), receives each result, and returns its own. Whoever
drives it performs the ops: :func:`run` blocks, :func:`run_async` awaits, a test or the simulator
steps by hand. So nothing in a flow opens a socket, takes a lock or reads a clock, no decision is
written twice for sync and async, and every point between two ops is a point at which a process
may die: a flow must leave a state there from which another one can continue.

    def greet(name: str) -> Flow[str]:
        answer = yield from Ask(name)     # an op's type says what its result is
        return answer.upper()

Errors travel both ways: an exception raised while an op is performed is raised inside the flow at
that op, and an exception that leaves the flow leaves the driver.

Two things besides a result can come out of a flow. A :class:`Handover` op (the head of a streamed
answer, a piece of its body) is not performed: the driver returns it, and the holder resumes the
same flow later. The body of a streamed answer is therefore simply the rest of its flow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeAlias, TypeVar

R = TypeVar("R")
T = TypeVar("T")


class Op(Generic[R]):
    """One thing for a driver to do, as data; ``R`` is the type of its result."""

    __slots__ = ()

    def __iter__(self) -> Generator[Op[Any], Any, R]:
        """Let a flow write ``result = yield from op``, with the result's type known."""
        result: R = yield self
        return result


class Handover(Op[None]):
    """An op that the driver hands to its caller instead of performing it."""

    __slots__ = ()


Flow: TypeAlias = Generator[Op[Any], Any, T]


class Done(Generic[T]):
    """The flow has returned; ``value`` is what."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value


def run(
    flow: Flow[T], perform: Callable[[Op[Any]], Any], error: BaseException | None = None
) -> Done[T] | Handover:
    """Drive ``flow`` until it returns or hands something over; ``error`` is raised in it first."""
    try:
        op = next(flow) if error is None else flow.throw(error)
        while not isinstance(op, Handover):
            try:
                result = perform(op)
            except BaseException as failure:  # noqa: BLE001  # the flow decides what it means
                op = flow.throw(failure)
            else:
                op = flow.send(result)
    except StopIteration as stop:
        return Done(stop.value)
    return op


async def run_async(
    flow: Flow[T],
    perform: Callable[[Op[Any]], Awaitable[Any]],
    error: BaseException | None = None,
) -> Done[T] | Handover:
    """:func:`run` for ops whose performing is awaited."""
    try:
        op = next(flow) if error is None else flow.throw(error)
        while not isinstance(op, Handover):
            try:
                result = await perform(op)
            except BaseException as failure:  # noqa: BLE001  # the flow decides what it means
                op = flow.throw(failure)
            else:
                op = flow.send(result)
    except StopIteration as stop:
        return Done(stop.value)
    return op
