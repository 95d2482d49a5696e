"""Sending a model call until an answer stands: what is waited for, what is sent instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from perdure.dialects.shapes import Shape, is_response
from perdure.dialects.streams import ResponseReader
from perdure.dialects.verdicts import Judgement
from perdure.engine.delivery import Delivery
from perdure.engine.streaming import Attempt, attempt
from perdure.engine.wire import Wire
from perdure.flow import Flow
from perdure.model import Dialect, value

#: Decides what is sent after a definite loss; None where it is the caller's to know of.
Renewal: TypeAlias = Callable[[Delivery, Judgement], Flow[Delivery | None]]

_LOCK_STEP: Final = 1.0


@value
class Manner:
    """How a call is sent: ``stream`` as events, ``young`` on a handle that may not be seen yet.

    ``shape``: what its answer has to look like.
    """

    dialect: Dialect
    stream: bool
    young: bool
    shape: Shape = is_response


@value
class Sent:
    """What was sent last, and what came of it."""

    delivery: Delivery
    attempt: Attempt


def send(wire: Wire, manner: Manner, delivery: Delivery, renewal: Renewal) -> Flow[Sent]:
    """Send until an answer stands: waiting where that helps, renewing what is sent."""
    waited = 0.0
    while True:
        tried = yield from _tried(wire, manner, delivery)
        match tried.judgement.verdict:
            case "gone" if (step := _visibility_step(wire, manner, delivery, waited)) > 0 and (
                yield from wire.pause(step)
            ):
                waited += step
            case "gone" | "item_gone" | "file_gone" | "too_long" if (
                renewed := (yield from renewal(delivery, tried.judgement))
            ) is not None:
                delivery = renewed
            case "foreign" if delivery.recovery is not None and (
                yield from wire.waited_for(tried.answer)
            ):
                continue
            case "locked" if (yield from wire.pause(_LOCK_STEP)):
                continue
            case _:
                return Sent(delivery, tried)


def _tried(wire: Wire, manner: Manner, delivery: Delivery) -> Flow[Attempt]:
    """Send once; what a recovery sends again waits while the server wants to be left alone."""
    if delivery.recovery is not None:
        yield from wire.hold()
    reader = ResponseReader() if manner.stream else None
    return (
        yield from attempt(
            wire,
            delivery.content,
            reader=reader,
            dialect=manner.dialect,
            handle=delivery.handle,
            shape=manner.shape,
        )
    )


def _visibility_step(wire: Wire, manner: Manner, delivery: Delivery, waited: float) -> float:
    """Return how long to wait for a fresh response to become readable; 0: no longer."""
    left = wire.call.policy.visibility_wait.total_seconds() - waited
    if not manner.young or left <= 0 or delivery.rebuilt:
        return 0.0
    return min(left, 0.25 if waited == 0 else waited + 0.25)
