"""Whether what the SDK hands over is what was asked for: it takes any success for an answer."""

from __future__ import annotations

from typing import Any

from perdure.errors import NoAnswer


def response_in(answer: Any) -> Any:
    """Return a response; raises :class:`~perdure.errors.NoAnswer` where it is none."""
    output = getattr(answer, "output", None)
    if not isinstance(output, list) or not all(hasattr(item, "type") for item in output):
        raise NoAnswer("a response", _kind_of(answer))
    return answer


def object_in(answer: Any, wanted: str) -> Any:
    """Return an object that has an id; raises :class:`~perdure.errors.NoAnswer` for another."""
    if not isinstance(getattr(answer, "id", None), str):
        raise NoAnswer(wanted, _kind_of(answer))
    return answer


def page_in(answer: Any) -> list[Any]:
    """Return what a list shows; raises :class:`~perdure.errors.NoAnswer` where it is none."""
    data = getattr(answer, "data", None)
    if not isinstance(data, list):
        raise NoAnswer("a list", _kind_of(answer))
    return data


def _kind_of(answer: Any) -> str:
    """Say what kind of thing was answered, and nothing of what it says."""
    if answer is None or answer == "":
        return "nothing"
    if isinstance(answer, str):
        return "a text"
    if isinstance(answer, list):
        return "a list"
    if getattr(answer, "error", None):
        return "an error"
    return "another object" if hasattr(answer, "model_extra") else "a single value"
