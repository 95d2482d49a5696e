"""The Redis store: each operation one script, in one round trip."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote

from redis.exceptions import NoScriptError, ResponseError

from perdure.engine.ops import Sleep
from perdure.errors import (
    ConfigurationError,
    SchemaForeign,
    SchemaTooNew,
    StoreError,
    StoreUnavailable,
)
from perdure.flow import Done, Flow, Op, run, run_async
from perdure.stores.redis.connections import Ask, Command, Connections, Lost, own_options
from perdure.stores.redis.scripts import OPERATIONS, Operation, script
from perdure.stores.redis.values import arguments

log = logging.getLogger("perdure")

#: The arrangement of keys that this version reads and writes.
FORMAT: Final = 1
_LARGEST_NUMBER: Final = 2**48
_REPEATS: Final = 3
# Errors with which a server refuses before it has begun, and that pass.
_NOT_NOW: Final = {
    "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY",
    "TRYAGAIN", "UNBLOCKED",
}  # fmt: skip


class UnsuitableServer(StoreError):
    """A server that works in a way in which conversations would get lost."""

    code = "store_unsuitable"


class RedisStore:
    """Conversations in Redis or Valkey; safe for many processes and machines, as the server is.

    ``client`` is the caller's own ``redis.Redis`` or ``redis.asyncio.Redis``; otherwise pools are
    opened from ``url`` on first use, a sync one in each process and an async one in each event
    loop. Every key begins with ``prefix`` (``?prefix=`` in a URL). With ``replicas``
    (``?replicas=``) a write has happened when so many replicas have it too; one that they do not
    confirm within ``replicas_wait`` raises :class:`~perdure.errors.StoreUnavailable`. What a
    failover can lose is on the page ``docs/redis.md``. ``clock`` is for tests.
    """

    #: An operation waits for the network: too long for an event loop's thread.
    fast = False

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Any = None,
        prefix: str = "perdure",
        replicas: int = 0,
        replicas_wait: timedelta = timedelta(seconds=1),
        clock: Callable[[], float] | None = None,
    ) -> None:
        if (url is None) == (client is None):
            raise ConfigurationError("A RedisStore takes either a URL or a client.")
        if url is not None:
            url, options = own_options(url, {"prefix", "replicas"}.__contains__)
            prefix = options.get("prefix", prefix)
            replicas = int(options.get("replicas", replicas))
        if not prefix or set(prefix) & set("{}"):
            raise ConfigurationError("The prefix of a RedisStore is not empty and has no braces.")
        self._prefix = prefix
        self._connections = Connections(url, client)
        self._where = self._connections.where
        self._clock = clock
        self._wait: tuple[Command, ...] = ()
        if replicas:
            self._wait = (("WAIT", replicas, int(replicas_wait.total_seconds() * 1000)),)
        self._checked_in = 0
        self._number = _made_up

    def perform(self, op: Op[Any]) -> Any:
        """Carry out one store operation."""
        outcome = run(self._carried_out(op), self._step)
        assert isinstance(outcome, Done)
        return outcome.value

    async def perform_async(self, op: Op[Any]) -> Any:
        """Carry out one store operation on an event loop."""
        if not self._connections.can_await:
            return await asyncio.to_thread(self.perform, op)
        outcome = await run_async(self._carried_out(op), self._step_async)
        assert isinstance(outcome, Done)
        return outcome.value

    def close(self) -> None:
        """Close this process's own connections; the next operation opens others."""
        self._connections.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop too."""
        await self._connections.aclose()

    # -- one body for both faces -------------------------------------------------------------

    def _step(self, step: Op[Any]) -> Any:
        if isinstance(step, Sleep):
            return time.sleep(step.seconds)
        assert isinstance(step, Ask)
        return self._connections.ask(step)

    async def _step_async(self, step: Op[Any]) -> Any:
        if isinstance(step, Sleep):
            return await asyncio.sleep(step.seconds)
        assert isinstance(step, Ask)
        return await self._connections.ask_async(step)

    def _carried_out(self, op: Op[Any]) -> Flow[Any]:
        operation = OPERATIONS[type(op)]
        key, values = self._arguments(op)
        repeats = 0
        while True:
            try:
                if self._checked_in != os.getpid():
                    yield from self._check()
                reply, *rest = yield from self._asked(operation, key, values)
            except Lost as lost:
                self._checked_in = 0
                # What was not sent is not sent again either: a server that is away stays away
                # for longer than a caller waits, and the SDK repeats its call by itself.
                if not (lost.sent and operation.repeatable and repeats < _REPEATS):
                    raise self._broken(lost) from lost.error
                repeats += 1
                yield from Sleep(0.1 * repeats)
                continue
            if isinstance(reply, ResponseError):
                self._checked_in = 0
                raise self._refused(reply) from reply
            if rest and rest[0] < self._wait[0][1]:
                raise StoreUnavailable(
                    f"{self._where} has stored this, but {rest[0]} replicas have it and "
                    f"{self._wait[0][1]} were asked for. Asking again is safe."
                )
            return operation.result(op, json.loads(reply[0]), reply[1:])

    def _arguments(self, op: Op[Any]) -> tuple[bytes, list[bytes]]:
        """Return what a tenant's keys begin with, and the arguments of an operation's script."""
        tenant: Any = getattr(op, "tenant")  # noqa: B009  # every store operation has one
        try:
            key = f"{{{self._prefix}:{quote(tenant, safe='')}}}:".encode()
            record, texts = arguments(op, self._number())
        except UnicodeEncodeError as error:
            raise StoreError(
                f"{self._where} cannot store this: it is not Unicode text (half of a surrogate "
                "pair)."
            ) from error
        values = [record, f"{self._prefix}:g:".encode(), *texts]
        if self._clock is not None:
            values.append(repr(self._clock()).encode())
        return key, values

    def _asked(self, operation: Operation, key: bytes, values: list[bytes]) -> Flow[list[Any]]:
        """Send a script by its name, or whole to a server that does not have it yet."""
        wanted = script(operation.name, "clock" if self._clock is None else "clock_given")
        wait = self._wait if operation.writes else ()
        replies = yield from Ask(("EVALSHA", wanted.sha, 1, key, *values), *wait)
        if isinstance(replies[0], NoScriptError):
            replies = yield from Ask(("EVAL", wanted.text, 1, key, *values), *wait)
        return replies

    def _check(self) -> Flow[None]:
        """Look at the server, before the first operation and after each that failed."""
        name = f"{self._prefix}:format"
        said, found = yield from Ask(("INFO",), ("GET", name))
        if isinstance(said, ResponseError):
            log.warning("%s does not let us look at its settings: %s", self._where, said)
        else:
            self._check_settings(dict(_lines(said)))
        if found is None:
            entered, found = yield from Ask(("SETNX", name, FORMAT), ("GET", name))
            if isinstance(entered, ResponseError):
                raise self._refused(entered) from entered
        if isinstance(found, ResponseError) and not str(found).startswith("WRONGTYPE"):
            raise self._refused(found) from found
        if isinstance(found, ResponseError) or not found.isdigit():
            raise SchemaForeign(self._where, name)
        if int(found) > FORMAT:
            raise SchemaTooNew(self._where, (f"format {int(found)}",))
        self._checked_in = os.getpid()

    def _check_settings(self, settings: dict[str, str]) -> None:
        policy = settings.get("maxmemory_policy", "noeviction")
        if policy.startswith("allkeys-"):
            raise UnsuitableServer(
                f"{self._where} throws keys away when its memory is full (maxmemory-policy "
                f"{policy}): conversations would get lost piece by piece. Set maxmemory-policy "
                "noeviction, or use a server of its own. Nothing was stored."
            )
        if settings.get("cluster_enabled") == "1":
            raise UnsuitableServer(
                f"{self._where} is a node of a cluster. perdure needs a single server, or one "
                "with replicas behind Sentinel. Nothing was stored."
            )
        if settings.get("role") == "slave":
            raise StoreUnavailable(
                f"{self._where} is a replica, which takes no writes. Use the primary's address, or "
                "a client of Sentinel's master_for()."
            )

    def _broken(self, lost: Lost) -> StoreError:
        if lost.sent:
            return StoreUnavailable(
                f"The connection to {self._where} broke: {lost}. What was asked may have been "
                "stored or not; asking again is safe."
            )
        return StoreUnavailable(f"{self._where} cannot be used: {lost}.")

    def _refused(self, error: ResponseError) -> StoreError:
        said = " ".join(str(error).split()).rstrip(".")
        # The client library takes the code off the errors that it knows.
        code = getattr(error, "status_code", None) or said.partition(" ")[0]
        if code in _NOT_NOW or type(error).__name__ in {"OutOfMemoryError", "ReadOnlyError"}:
            return StoreUnavailable(f"{self._where} cannot be used: {said}.")
        return StoreError(f"{self._where} refused: {said}.")


def _made_up() -> int:
    """Return a number for a conversation that nobody else makes up."""
    return secrets.randbelow(_LARGEST_NUMBER) + 1


def _lines(said: bytes) -> list[tuple[str, str]]:
    """Return the names and values of an INFO reply."""
    return [
        (name, value.strip())
        for name, colon, value in (
            line.partition(":") for line in said.decode(errors="replace").splitlines()
        )
        if colon
    ]
