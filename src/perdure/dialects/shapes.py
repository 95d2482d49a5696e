"""What a 2xx has to look like to count as an answer: gateways say 200 to much that is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

#: Says whether the object that a server answered is what was asked for.
Shape: TypeAlias = Callable[[dict[str, Any]], bool]

#: Where a response need not have any output: it is not finished, or it never will be.
_WITHOUT_OUTPUT: Final = frozenset({"queued", "in_progress", "incomplete", "failed", "cancelled"})
#: What an object has instead of an answer where something is wrong.
_OF_ERRORS: Final = frozenset({"error", "detail", "message"})


def is_response(shown: dict[str, Any]) -> bool:
    """Whether an object is a response: with a list of items, or in a state that has none."""
    if not isinstance(shown.get("id"), str | None):
        return False
    output = shown.get("output")
    if isinstance(output, list):
        return all(isinstance(item, dict) for item in output)
    return output is None and shown.get("status") in _WITHOUT_OUTPUT


def is_object(shown: dict[str, Any]) -> bool:
    """Whether an object is one of the provider's, as all that it makes has an id."""
    return isinstance(shown.get("id"), str)


def is_page(shown: dict[str, Any]) -> bool:
    """Whether an object is a page of a list; some servers say null of an empty one."""
    data = shown.get("data", "")
    return data is None or (isinstance(data, list) and all(isinstance(one, dict) for one in data))


def is_made(shown: dict[str, Any]) -> bool:
    """Whether an object is what was made by a create of several: a list of them, or one."""
    return is_object(shown) or (is_page(shown) and all(map(is_object, shown["data"] or ())))


def is_measure(shown: dict[str, Any]) -> bool:
    """Whether an object may be a count or a compaction, of which servers agree on little."""
    return bool(shown) and not shown.get("error")


def tells_an_error(shown: dict[str, Any]) -> bool:
    """Whether an object that is no answer says what is wrong."""
    return not _OF_ERRORS.isdisjoint(shown)
