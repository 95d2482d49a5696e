"""A request and an answer as data, between the socket and the routes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from perdure.testing.provider import errors
from perdure.testing.provider.faults import Fault

Json = dict[str, Any]
Event = tuple[str | None, Any]
"""One server-sent event: its name, or None for a bare data line, and its data."""


@dataclass
class Request:
    """One API request; `path` is what follows the base path."""

    method: str
    path: str
    base: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    faults: list[Fault] = field(default_factory=list)

    @property
    def project(self) -> str:
        """Return what owns the objects made by this request: its key."""
        return self.headers.get("authorization", "")

    @cached_property
    def peeked(self) -> Json:
        """Return the body's members, empty when it is no JSON object."""
        try:
            parsed = json.loads(self.body)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}

    def json(self) -> Json:
        """Return the body's members, or refuse it as the recorded traffic does."""
        if not self.body.strip():
            return {}
        try:
            parsed = json.loads(self.body)
        except ValueError:
            raise errors.INVALID_JSON.error() from None
        if not isinstance(parsed, dict):
            raise errors.INVALID_JSON.error()
        return parsed

    def asked(self, name: str) -> str | None:
        """Return the last value of a query parameter."""
        values = self.query.get(name)
        return values[-1] if values else None

    def fault(self, kind: str) -> Fault | None:
        """Return the fault of that kind which this request meets."""
        return next((fault for fault in self.faults if fault.kind == kind), None)


@dataclass
class Answer:
    """One answer: a JSON body or a stream of events.

    The work of a turn is kept by `settle`, which the server calls just before the answer is sent;
    a stream settles itself at its terminal event. So a turn shows nothing before it is complete.
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    events: Iterator[Event] | None = None
    settle: Callable[[], None] | None = None

    @classmethod
    def of_error(cls, error: errors.ApiError) -> Answer:
        """Return an error as an answer."""
        return cls(error.body, error.status, dict(error.headers))


def encode(body: Any) -> bytes:
    """Return a JSON body's bytes."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def encode_event(event: Event) -> bytes:
    """Return an event's bytes as the recorded streams have them."""
    name, data = event
    line = data if isinstance(data, str) else encode(data).decode()
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {line}\n\n".encode()
