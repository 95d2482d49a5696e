"""Server-sent events: bytes in, events out, with each event's own bytes kept for passing on."""

from __future__ import annotations

import json
from typing import Any

from perdure.model import value


@value
class Event:
    """One event: its name, its data as text, and the bytes it arrived in (blank line included)."""

    name: str
    data: str
    raw: bytes

    def json(self) -> dict[str, Any]:
        """Return the data as an object; empty where it is none (``[DONE]``)."""
        try:
            value = json.loads(self.data)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def replaced(self, data: str) -> bytes:
        """Return the event's bytes with other data, its remaining fields as they were."""
        kept = [
            line for line in self.raw.decode().splitlines() if line and not line.startswith("data:")
        ]
        return "\n".join([*kept, f"data: {data}", "", ""]).encode()


class Parser:
    """Splits a byte stream into events.

    Lines end in LF, CRLF or CR as the specification allows; a piece of an event stays inside
    until its blank line has arrived.
    """

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes and return the events they complete."""
        self._pending += chunk
        events: list[Event] = []
        while True:
            end = _event_end(self._pending)
            if end is None:
                return events
            raw, self._pending = self._pending[:end], self._pending[end:]
            events.append(_event(raw))

    @property
    def rest(self) -> bytes:
        """The bytes of an event that has not ended."""
        return self._pending


def _event_end(pending: bytes) -> int | None:
    """Return where the first event ends, or None.

    A CR at the very end is not decided yet: the LF that belongs to it may follow.
    """
    ends = [
        at + len(mark)
        for mark in (b"\n\n", b"\r\n\r\n", b"\r\r")
        if (at := pending.find(mark)) >= 0
    ]
    return min(ends) if ends else None


def _event(raw: bytes) -> Event:
    name, data = "", []
    for line in raw.decode("utf-8", "replace").splitlines():
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
    text = "\n".join(data)
    if not name and text.startswith("{"):  # some servers name the event in its data only
        name = _type_of(text)
    return Event(name, text, raw)


def _type_of(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return ""
    return str(value.get("type") or ("error" if "error" in value else ""))


def encode(name: str, data: str) -> bytes:
    """Return one event in the form OpenAI writes."""
    return f"event: {name}\ndata: {data}\n\n".encode()
