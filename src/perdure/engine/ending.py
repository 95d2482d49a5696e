"""The end of a turn whose answer is there: what its caller gets where it cannot be kept."""

from __future__ import annotations

from typing import Any, Literal

from perdure.errors import StoreError, TurnOvertaken
from perdure.flow import Flow, Op
from perdure.model import TurnKey


def end(turn: TurnKey, last: Op[Any] | Flow[Any]) -> Flow[Literal["stored", "not stored", "taken"]]:
    """Carry out what ends a turn; a store that fails only now must not lose the answer.

    Raises :class:`TurnOvertaken` where another worker has the turn: what the answer was made from
    is not what the log says any more.
    """
    try:
        result = yield from last
    except StoreError:
        return "not stored"
    if result in {"fenced", False}:
        raise TurnOvertaken(turn.turn_id)
    return "taken" if result == "taken" else "stored"


def kept(last: Flow[None]) -> Flow[bool]:
    """Carry out what follows an answer; False where the store failed only now."""
    try:
        yield from last
    except StoreError:
        return False
    return True
