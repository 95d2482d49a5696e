"""Asking the owner's embeddings, which may fail a prime's quality but never a call."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Sequence
from operator import mul
from typing import Any, Final, TypeAlias

from perdure.engine.ops import Liken

log = logging.getLogger("perdure")

Likeness: TypeAlias = "tuple[float, ...] | None"
# An error's message may have what was embedded in it.
_FAILED: Final = "embeddings failed (%s); items are ranked by their words alone"


def liken(op: Liken) -> Likeness:
    """Return how alike each text is to the message, None where the embeddings fail."""
    try:
        made = op.embed([op.message, *op.texts])
        if inspect.iscoroutine(made):
            made.close()
        return _cosines(made, len(op.texts))
    except Exception as error:  # noqa: BLE001  # the owner's function may raise anything
        log.warning(_FAILED, type(error).__name__)
        return None


async def liken_async(op: Liken) -> Likeness:
    """:func:`liken` off the event loop, for functions of either colour."""
    try:
        made = await asyncio.to_thread(op.embed, [op.message, *op.texts])
        if inspect.isawaitable(made):
            made = await made
        return await asyncio.to_thread(_cosines, made, len(op.texts))
    except Exception as error:  # noqa: BLE001  # the owner's function may raise anything
        log.warning(_FAILED, type(error).__name__)
        return None


def _cosines(made: Any, count: int) -> tuple[float, ...]:
    rows: Sequence[Sequence[float]] = made.tolist() if hasattr(made, "tolist") else list(made)
    if len(rows) != count + 1 or not len(rows[0]):
        raise ValueError("not one vector for each text")
    message, *texts = rows
    size = _length(message)
    return tuple(_cosine(message, size, text) for text in texts)


def _cosine(message: Sequence[float], size: float, text: Sequence[float]) -> float:
    if len(text) != len(message):
        raise ValueError("vectors of different lengths")
    found = sum(map(mul, message, text)) / ((size * _length(text)) or 1.0)
    return found if math.isfinite(found) else 0.0  # a text without a word of the model's


def _length(vector: Sequence[float]) -> float:
    return math.hypot(*vector)
