"""Answers as the simulated provider writes them."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from perdure.dialects.items import dumps

HEADERS: Final = (("content-type", "application/json"),)
STREAM_HEADERS: Final = (("content-type", "text/event-stream; charset=utf-8"),)

#: A status and a body.
Whole: TypeAlias = tuple[int, bytes]


class Refused(Exception):
    """A request that the provider does not take; ``answer`` says why."""

    def __init__(self, answer: Whole) -> None:
        self.answer = answer
        super().__init__(answer[1].decode())


def ok(value: dict[str, Any]) -> Whole:
    """Return a 200."""
    return 200, dumps(value).encode()


def refusal(status: int, message: str, code: str | None = None) -> Whole:
    """Return an error."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return status, dumps({"error": error}).encode()


def one_of(rows: list[dict[str, Any]], row_id: str) -> dict[str, Any]:
    """Return the row of an id; raises :class:`Refused`."""
    for row in rows:
        if row["id"] == row_id:
            return row
    raise Refused(refusal(404, f"No message found with id '{row_id}'."))


def listing(rows: list[dict[str, Any]], query: dict[str, str]) -> Whole:
    """Return one page of rows (given oldest first), newest first unless asked otherwise."""
    rows = rows if query.get("order") == "asc" else rows[::-1]
    ids = [row["id"] for row in rows]
    if (after := query.get("after")) is not None:
        if after not in ids:
            raise Refused(refusal(404, f"No message found with id '{after}'."))
        rows = rows[ids.index(after) + 1 :]
    if (before := query.get("before")) in ids:
        rows = rows[: [row["id"] for row in rows].index(before)]
    limit = int(query.get("limit", "20"))
    data = rows[:limit]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return ok({"object": "list", "data": data, **ends, "has_more": len(rows) > len(data)})
