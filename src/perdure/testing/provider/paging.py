"""List pages: `limit`, `order`, `after`, `before`, and their errors."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.testing.provider import errors
from perdure.testing.provider.wire import Json, Request

MAX_LIMIT = 100
DEFAULT_LIMIT = 20


def limit_of(request: Request) -> int:
    """Return the page size asked for."""
    raw = request.asked("limit")
    if raw is None:
        return DEFAULT_LIMIT
    try:
        limit = int(raw)
    except ValueError:
        raise errors.INVALID_TYPE.error(
            param="limit", expected="an integer", got="a string"
        ) from None
    if limit > MAX_LIMIT:
        raise errors.INTEGER_TOO_BIG.error(param="limit", limit=MAX_LIMIT, value=limit)
    if limit < 1:
        raise errors.INTEGER_TOO_SMALL.error(param="limit", limit=1, value=limit)
    return limit


def descends(request: Request) -> bool:
    """Tell whether the newest comes first, which is the default everywhere."""
    order = request.asked("order") or "desc"
    if order not in {"asc", "desc"}:
        raise errors.INVALID_VALUE.error(param="order", value=order, supported="'asc' and 'desc'")
    return order == "desc"


def page(request: Request, rows: Sequence[Json]) -> Json:
    """Return one page of `rows`, which are given oldest first."""
    limit = limit_of(request)
    ordered = list(reversed(rows)) if descends(request) else list(rows)
    after, before = request.asked("after"), request.asked("before")
    if after is not None:
        ordered = ordered[_index(ordered, after, "after") + 1 :]
    elif before is not None:
        ordered = ordered[: _index(ordered, before, "before")]
    shown = ordered[:limit] if before is None else ordered[-limit:]
    return listed(shown, has_more=len(ordered) > len(shown))


def listed(rows: Sequence[Json], *, has_more: bool) -> Json:
    """Return rows as a list object."""
    return {
        "object": "list",
        "data": list(rows),
        "first_id": rows[0]["id"] if rows else None,
        "has_more": has_more,
        "last_id": rows[-1]["id"] if rows else None,
    }


def _index(rows: Sequence[Json], cursor: str, param: str) -> int:
    for index, row in enumerate(rows):
        if row["id"] == cursor:
            return index
    error = errors.CURSOR_NOT_FOUND.error(id=cursor)
    error.body["error"]["param"] = param
    raise error
