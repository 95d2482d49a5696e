"""What is answered to a request of ours: decoded once, and a failure where it is something else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from perdure.dialects.body import object_in
from perdure.dialects.shapes import Shape
from perdure.engine.ops import Answer

_BAD_GATEWAY: Final = 502


def decoded(answer: Answer, shape: Shape) -> tuple[Answer, dict[str, Any]]:
    """Return an answer with the object that it is; none where it is a refusal.

    The app has not made the request, so a success that is not what was asked for must not reach it
    as one: it becomes the failure of a gateway, which is judged and repeated as any other.
    """
    shown = object_in(answer.body) if answer.ok else {}
    if not answer.ok or shape(shown):
        return answer, shown
    return replace(answer.edited(), status=_BAD_GATEWAY), {}
