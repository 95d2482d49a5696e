"""One call of the app, from its request to the answer it gets.

Theory of operation. Below the SDK every call that carries a conversation passes through
:func:`exchange`. What the app sent is written to the store before it is sent on, so a message
cannot be lost; what the provider answers is written before the app gets it, so a reply cannot be
given twice. In between lies everything that can go wrong, and one rule: what a store operation has
made durable is enough for any other worker to go on from.

A turn (`respond`, `threads`) is accepted in one statement, delivered, and completed in one. Where
its replica is known to be dead the history goes along at once; where the provider says so
(`wire.judge`), the replica is rebuilt and the call is made again, once. What can be forked (a
response) is rebuilt by the very call that needed it; what is shared (a conversation, a thread)
gets a new object first, bound by compare-and-swap on its generation, so that however many workers
meet the loss one of their objects becomes the replica and the others become orphans.

Everything that is not a turn (`read`) leads, when it meets a loss, to the new object without its
history, and the next model call brings that along.

Faults of our own are answers too: under the SDK an exception would be retried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from perdure.dialects.items import dumps
from perdure.engine import read, runs, threads
from perdure.engine.create import create
from perdure.engine.ops import Answer, SendFailed
from perdure.engine.respond import respond
from perdure.engine.wire import JSON, Call, Wire
from perdure.errors import PerdureError, StoreError, TooLarge
from perdure.flow import Flow

_Handler = Callable[[Wire], Flow[Answer]]

_NOT_CALLED: Final = "The provider was not called."
_CALLED: Final = "The provider has been called; send the same again to learn what came of it."

_FLOWS: Final[dict[tuple[str, str], _Handler]] = {
    ("responses", "respond"): respond,
    ("responses", "measure"): respond,
    ("conversations", "create"): create,
    ("conversations", "append"): read.append,
    ("threads", "create"): create,
    ("threads", "append"): threads.append,
    ("threads", "run"): runs.begin_run,
    ("threads", "create_run"): runs.create_run,
}


def exchange(call: Call) -> Flow[Answer]:
    """Carry out one call; the answer is the provider's unless something had to be repaired.

    Raises only what the inner transport raised, and :class:`~perdure.errors.CutStream` from the
    body of a stream that ended early.
    """
    wire = Wire(call)
    try:
        limit = call.policy.max_body_bytes
        if len(call.content) > limit:
            raise TooLarge(len(call.content), limit)
        flow = _FLOWS.get((call.route.dialect, call.route.action), read.existing)
        return (yield from flow(wire))
    except SendFailed as failure:  # nothing of a turn was under way
        failure.raise_cause()
    except StoreError as fault:
        return fault_answer(fault, _CALLED if wire.requests else _NOT_CALLED)
    except PerdureError as fault:
        if fault.code == "cut_stream":
            raise
        return fault_answer(fault)


def fault_answer(fault: PerdureError, *more: str) -> Answer:
    """Return one of our faults as an HTTP answer that the SDK does not retry."""
    message = " ".join([str(fault), *more])
    error = {"type": "perdure_error", "code": fault.code, "message": message, "param": None}
    retry = "true" if fault.retry else "false"
    headers = (*JSON, ("x-should-retry", retry))
    return Answer(fault.status, headers, dumps({"error": error}).encode())
