"""Where a framework runs: the embedded provider behind a socket, the real SDK, SQLite in a file."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import openai

import perdure
from perdure.testing import Provider

_T = TypeVar("_T")
MODEL = "gpt-5.6"
LATER = timedelta(seconds=90)  # older than the age in which a response may still be invisible


class Site:
    """A provider, a store and the HTTP clients that a framework is given."""

    def __init__(
        self, folder: Path, loop: asyncio.AbstractEventLoop, *, perdure_under_it: bool
    ) -> None:
        self.provider = Provider()
        self.recoveries: list[perdure.Recovery] = []
        self._database = folder / "chat.db"
        self._loop = loop
        self._perdure = perdure_under_it
        self._clients: list[Any] = []

    # -- what the frameworks are given: these two clients are all that perdure adds ------------

    def http_client(self) -> Any:
        """A client for ``http_client=``; None is the SDK's own."""
        return self._made(perdure.http_client)

    def async_http_client(self) -> Any:
        """A client for ``AsyncOpenAI(http_client=…)``; None is the SDK's own."""
        return self._made(perdure.async_http_client)

    @cached_property
    def sdk(self) -> openai.AsyncOpenAI:
        """The SDK client that most frameworks can be handed."""
        http = self.async_http_client()
        client = openai.AsyncOpenAI(
            api_key="sk-test", base_url=self.provider.base_url, http_client=http
        )
        if http is None:
            self._clients.append(client)
        return client

    def _made(self, kind: Any) -> Any:
        if not self._perdure:
            return None
        store = perdure.open_store(f"sqlite:///{self._database}", clock=self.provider.clock.now)
        client = kind(store, on_recovery=self.recoveries.append)
        self._clients.append(client)
        return client

    # -- doing ---------------------------------------------------------------------------------

    def wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run to the end."""
        return self._loop.run_until_complete(work)

    def conversation(self) -> str:
        """An app's own ``conversations.create``."""

        async def create() -> str:
            return (await self.sdk.conversations.create()).id

        return self.wait(create())

    def loses(self, handle: str | None) -> None:
        """Let the provider lose one object, or with None all of them, some time later."""
        self.provider.clock.advance(LATER)
        self.provider.forget(handle)
        self.provider.clear_requests()

    # -- seeing --------------------------------------------------------------------------------

    def answers(self) -> int:
        """How many times the provider's model has answered since the loss."""
        return sum(
            request.method == "POST" and request.path == "/v1/responses" and request.status == 200
            for request in self.provider.requests
        )

    def transcript(self, handle: str) -> list[tuple[str, str]]:
        """What the database holds of one conversation, as anybody can read it: (role, text)."""
        with closing(sqlite3.connect(self._database)) as connection:
            rows = connection.execute(
                "SELECT wire FROM perdure_item WHERE tombstoned_at IS NULL AND withdrawn = 0"
                " AND conversation = (SELECT conversation FROM perdure_handle WHERE handle = ?)"
                " ORDER BY key",
                (handle,),
            ).fetchall()
        return [_said(json.loads(wire)) for (wire,) in rows]

    def unanswered(self) -> list[tuple[Any, ...]]:
        """Every turn in the database that has not got its reply."""
        with closing(sqlite3.connect(self._database)) as connection:
            return connection.execute(
                "SELECT conversation, seq, state, reason FROM perdure_turn"
                " WHERE state <> 'answered'"
            ).fetchall()

    def close(self) -> None:
        """Close the clients, then the provider."""
        for client in self._clients:
            closing_it = client.aclose() if hasattr(client, "aclose") else client.close()
            if closing_it is not None:
                self.wait(closing_it)
        self.provider.close()


def _said(item: dict[str, Any]) -> tuple[str, str]:
    """One item as (role, text); a tool's call and output by their type."""
    if item.get("type", "message") != "message":
        return item["type"], str(item.get("arguments") or item.get("output") or "")
    content = item["content"]
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    return item["role"], text
