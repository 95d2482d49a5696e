"""Histories put in through perdure itself, each turn journalled as it would have been.

The requests go through the real transport; only the provider behind it is a function here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import httpx2

import perdure
from benchmarks.wire import Provider

Handle: TypeAlias = Literal["conversation", "previous_response_id"]
HANDLES: Final[tuple[Handle, ...]] = ("conversation", "previous_response_id")
ITEMS_PER_TURN: Final = 2
MOST_OUTGROWN: Final = 0.065
MODEL: Final = "gpt-5.1"


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing that is measured: turns on a kind of handle, with so many items of history."""

    handle: Handle
    items: int

    @property
    def turns_per_line(self) -> int:
        """How many turns one conversation serves before it has outgrown its size by 6.5 %."""
        return max(1, int(self.items * MOST_OUTGROWN) // ITEMS_PER_TURN)


def question(number: int) -> str:
    """Return what a user says; the length is always the same."""
    return f"Question {number:09d}: which of the two orders was the one that came back damaged?"


class _Local(httpx2.BaseTransport):
    """The provider as a function."""

    def __init__(self) -> None:
        self._provider = Provider()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/conversations"):
            body = self._provider.conversation()
        else:
            body = self._provider.response(request.read())
        return httpx2.Response(
            200,
            headers={"content-type": "application/json", "content-length": str(len(body))},
            stream=httpx2.ByteStream(body),
        )


def fill(database: Path, base_url: str, lines: dict[Cell, int]) -> Iterator[tuple[Cell, str]]:
    """Yield, for every conversation asked for, the handle under which it goes on.

    Each is one turn short of its cell's size.
    """
    store = f"sqlite:///{database}?synchronous=normal"
    transport = perdure.Transport(store, inner=_Local())
    try:
        for cell, count in lines.items():
            for _ in range(count):
                yield cell, _conversation(transport, base_url, cell)
    finally:
        transport.close()


def _conversation(transport: perdure.Transport, base_url: str, cell: Cell) -> str:
    handle = None
    if cell.handle == "conversation":
        handle = _post(transport, f"{base_url}/conversations", {})
    for number in range(cell.items // ITEMS_PER_TURN - 1):
        body = {"input": question(number), "model": MODEL}
        if handle is not None:
            body[cell.handle] = handle
        answered = _post(transport, f"{base_url}/responses", body)
        if cell.handle == "previous_response_id":
            handle = answered
    assert handle is not None
    return handle


def _post(transport: perdure.Transport, url: str, body: dict[str, str]) -> str:
    """Return the id in the answer."""
    content = json.dumps(body, separators=(",", ":")).encode()
    headers = {"content-type": "application/json", "content-length": str(len(content))}
    request = httpx2.Request("POST", url, headers=headers, content=content)
    response = transport.handle_request(request)
    assert response.status_code == 200, response.read()
    return str(json.loads(response.read())["id"])
