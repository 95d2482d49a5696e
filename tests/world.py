"""A world for scenarios: a provider, a store, an app, and one clock for all three.

Everything is real but the clock: the embedded provider behind a socket, the official SDK, SQLite
in a file. One world speaks either the sync or the async SDK, so a scenario is written once.
"""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from contextlib import closing
from datetime import timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import openai

import perdure
from perdure.testing import Clock, Provider
from perdure.transport import client as clients

Colour = Literal["sync", "async"]
MODEL = "gpt-5.6"
LONG = timedelta(seconds=90)  # older than the age in which a response may still be invisible


class World:
    """What a scenario needs; made by the ``world`` fixture."""

    def __init__(self, colour: Colour, folder: Path) -> None:
        self.colour = colour
        self.database = folder / "chat.db"
        self.clock = Clock()
        self.provider = Provider(clock=self.clock)
        self.recoveries: list[perdure.Recovery] = []
        self._runner = asyncio.Runner() if colour == "async" else None
        self._transports: list[Any] = []
        self._clients: list[Any] = []

    # -- making ------------------------------------------------------------------------------

    def store(self) -> Any:
        """A store on this world's database and clock, as another process would open it."""
        return perdure.open_store(f"sqlite:///{self.database}", clock=self.clock.now)

    def transport(self, **options: Any) -> Any:
        """A perdure transport of this world's colour."""
        kind: Any = perdure.Transport if self.colour == "sync" else perdure.AsyncTransport
        sleep = self.clock.sleep if self.colour == "sync" else self.clock.async_sleep
        sleep = options.pop("sleep", sleep)
        transport: Any = kind(
            options.pop("store", None) or self.store(),
            sleep=sleep,
            monotonic=self.clock.monotonic,
            on_recovery=self.recoveries.append,
            **options,
        )
        self._transports.append(transport)
        return transport

    def app(self, **options: Any) -> App:
        """An app on the SDK over perdure."""
        return self.app_on(self.transport(**options))

    def app_on(self, transport: Any) -> App:
        """An app on a transport that the scenario made."""
        library = clients._library(None, None)
        kind = library.Client if self.colour == "sync" else library.AsyncClient
        return App(self, self._sdk(kind(transport=transport)))

    def plain(self) -> App:
        """The same app without perdure."""
        return App(self, self._sdk(None))

    def chat(self, via: str = "responses", policy: Any = None, **options: Any) -> Any:
        """A Chat or AsyncChat of this world, with blocking methods either way."""
        kind: Any = perdure.Chat if self.colour == "sync" else perdure.AsyncChat
        if via != "threads":
            options.setdefault("model", MODEL)
        return Blocking(self, kind(self.app(policy=policy).sdk, via=via, **options))

    def _sdk(self, http_client: Any) -> Any:
        kind: Any = openai.OpenAI if self.colour == "sync" else openai.AsyncOpenAI
        client = kind(
            api_key="sk-test",
            base_url=self.provider.base_url,
            http_client=http_client,
            max_retries=0,
        )
        self._clients.append(client)
        return client

    # -- doing -------------------------------------------------------------------------------

    def wait(self, value: Any) -> Any:
        """Return a value, awaited in an async world."""
        if self._runner is None or not inspect.isawaitable(value):
            return value

        async def awaited() -> Any:
            return await value

        return self._runner.run(awaited())

    def drain(self) -> None:
        """Wait for background work (adoption, deleting orphans)."""
        for transport in self._transports:
            self.wait(transport.drain())

    def forgets(self, handle: str | None = None, *, after: timedelta = LONG) -> None:
        """Let the provider lose one object or everything, some time later."""
        self.clock.advance(after)
        self.provider.forget(handle)
        self.provider.clear_requests()

    def asked(self) -> list[tuple[str, int | None]]:
        """What the provider was asked since it was last cleared, ids left out."""
        kinds = ("thread_", "conv_", "resp_", "run_", "msg_", "asst_")
        return [
            (
                " ".join(
                    [
                        request.method,
                        "/".join(
                            part.partition("_")[0] if part.startswith(kinds) else part
                            for part in request.path.removeprefix("/v1/").split("/")
                        ),
                    ]
                ),
                request.status,
            )
            for request in self.provider.requests
        ]

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What the database says, read as anybody can read it."""
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query, values).fetchall()

    def close(self) -> None:
        """Close clients and transports, then the provider."""
        for client in self._clients:
            self.wait(client.close())
        if self._runner is not None:
            self._runner.close()
        self.provider.close()


class App:
    """An SDK client whose methods block in either colour."""

    def __init__(self, world: World, sdk: Any) -> None:
        self.world = world
        self.sdk = sdk

    def call(self, method: str, **values: Any) -> Any:
        """Call a method of the SDK, ``"responses.create"`` for one."""
        return self.world.wait(attrgetter(method)(self.sdk)(**values))

    def events(self, method: str, **values: Any) -> list[Any]:
        """Call a streaming method and read its events to the end."""
        stream = self.call(method, stream=True, **values)
        if self.world.colour == "sync":
            with stream as events:
                return list(events)

        async def read() -> list[Any]:
            async with stream as events:
                return [event async for event in events]

        read_all: list[Any] = self.world.wait(read())
        return read_all

    def respond(self, message: Any, **values: Any) -> Any:
        """One ``responses.create``."""
        return self.call("responses.create", **{"model": MODEL, "input": message, **values})

    def stream(self, message: Any, **values: Any) -> Any:
        """One streamed ``responses.create``: its final response."""
        events = self.events("responses.create", **{"model": MODEL, "input": message, **values})
        return events[-1].response

    def thread(self) -> tuple[str, str]:
        """A new thread, and an assistant to run on it."""
        assistant = self.call("beta.assistants.create", model=MODEL)
        return self.call("beta.threads.create").id, assistant.id

    def say(self, thread: str, assistant: str, message: str) -> str:
        """Post a message on a thread, run it, read the reply: what every Assistants app does."""
        self.call("beta.threads.messages.create", thread_id=thread, role="user", content=message)
        run = self.call(
            "beta.threads.runs.create_and_poll", thread_id=thread, assistant_id=assistant
        )
        assert run.status == "completed"
        listed = self.call("beta.threads.messages.list", thread_id=thread)
        text: str = listed.data[0].content[0].text.value
        return text


class Blocking:
    """A chat whose methods block in either colour; a stream becomes (pieces, reply)."""

    def __init__(self, world: World, chat: Any) -> None:
        self.world = world
        self.chat = chat

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.chat, name)

        def call(*args: Any, **values: Any) -> Any:
            return self.world.wait(method(*args, **values))

        return call

    def stream(self, subject: str, message: Any) -> tuple[list[str], Any]:
        """Read a streamed reply to its end."""
        stream = self.world.wait(self.chat.stream(subject, message))
        if self.world.colour == "sync":
            return list(stream), stream.reply

        async def read() -> list[str]:
            return [piece async for piece in stream]

        return self.world.wait(read()), stream.reply


def recovered(answer: Any) -> dict[str, Any] | None:
    """The ``perdure`` member of an SDK object, if it has one."""
    member: dict[str, Any] | None = (answer.model_extra or {}).get("perdure")
    return member
