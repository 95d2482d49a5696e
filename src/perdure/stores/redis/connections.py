"""Connections: pools of our own or the caller's, each exchange on one for as long as it takes.

The client library repeats a command by itself when a connection breaks. That must not happen here:
a turn taken twice is not taken once. So commands go over connections of its pools, which are
checked before they are used, and what is repeated is decided in ``store.py``.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from perdure.errors import ConfigurationError
from perdure.flow import Op

Command = tuple[Any, ...]

_LARGEST: Final = 16
_CONNECT_SECONDS: Final = 10
_ANSWER_SECONDS: Final = 30
_POOL: Final[dict[str, Any]] = {
    "max_connections": _LARGEST,
    "timeout": _CONNECT_SECONDS,
    "socket_timeout": _ANSWER_SECONDS,
    "protocol": 2,
}
_TCP: Final[dict[str, Any]] = {
    "socket_connect_timeout": _CONNECT_SECONDS,
    "socket_keepalive": True,
}
_SCHEMES: Final = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "valkey": "redis",
    "valkeys": "rediss",
}


class Ask(Op[list[Any]]):
    """Send commands in one round trip; an error of the server's is among the replies."""

    __slots__ = ("commands",)

    def __init__(self, *commands: Command) -> None:
        self.commands = commands


class Lost(Exception):
    """A connection that broke or could not be made; ``sent``: the server may have the commands."""

    def __init__(self, error: Exception, *, sent: bool) -> None:
        self.error = error
        self.sent = sent
        super().__init__(" ".join(str(error).split()).rstrip(".") or type(error).__name__)


class _OfLoop:
    """The pool of one event loop."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool


class Connections:
    """Where a store's connections come from: pools of its own opened on first use, or the caller's.

    Each process has its own pool, and each event loop: neither can cross to another.
    """

    def __init__(self, url: str | None, client: Any) -> None:
        self._url = None if url is None else client_url(url)
        if client is not None and not hasattr(client, "connection_pool"):
            raise ConfigurationError(
                "A RedisStore takes a redis.Redis or a redis.asyncio.Redis (one of a Sentinel's "
                f"too), not a {type(client).__name__}: its scripts need one server."
            )
        is_async = isinstance(client, redis.asyncio.Redis)
        self._pool = client.connection_pool if client is not None and not is_async else None
        self._async_pool = client.connection_pool if is_async else None
        self._lock = threading.Lock()
        self._own: dict[int, Any] = {}
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = WeakKeyDictionary()
        self.where = described(self._pool or self._async_pool or self._made(redis))

    @property
    def can_await(self) -> bool:
        """Whether operations can be awaited without a thread."""
        return self._url is not None or self._async_pool is not None

    def _made(self, library: Any) -> Any:
        options = dict(_POOL) if str(self._url).startswith("unix:") else {**_POOL, **_TCP}
        retry = Retry if library is redis else redis.asyncio.retry.Retry
        try:
            return library.BlockingConnectionPool.from_url(
                self._url, retry=retry(NoBackoff(), 0), **options
            )
        except ValueError as error:
            raise ConfigurationError(f"This is not a Redis URL: {error}") from None

    # -- sync --------------------------------------------------------------------------------

    def ask(self, op: Ask) -> list[Any]:
        """Send commands and read their replies."""
        pool = self._pool or self._own_pool()
        try:
            connection = pool.get_connection()
        except (RedisError, OSError) as error:
            raise Lost(error, sent=False) from error
        try:
            connection.send_packed_command(connection.pack_commands(op.commands))
            return [_replied(connection) for _ in op.commands]
        except (RedisError, OSError) as error:
            connection.disconnect()
            raise Lost(error, sent=True) from error
        except BaseException:  # its replies are still to come
            connection.disconnect()
            raise
        finally:
            pool.release(connection)

    def _own_pool(self) -> Any:
        pid = os.getpid()
        if pid in self._own:
            return self._own[pid]
        if self._url is None:
            raise ConfigurationError(
                "This RedisStore has a redis.asyncio client and is used in sync code. Give it a "
                "redis.Redis or a URL."
            )
        with self._lock:
            if pid not in self._own:
                self._own[pid] = self._made(redis)
        return self._own[pid]

    def close(self) -> None:
        """Close this process's own connections; those of the caller's client are the caller's."""
        with self._lock:
            pool = self._own.pop(os.getpid(), None)
        if pool is not None:
            pool.disconnect()

    # -- async -------------------------------------------------------------------------------

    async def ask_async(self, op: Ask) -> list[Any]:
        """:meth:`ask` on an event loop."""
        pool = self._async_pool or self._own_async_pool()
        try:
            connection = await pool.get_connection()
        except (RedisError, OSError) as error:
            raise Lost(error, sent=False) from error
        try:
            await connection.send_packed_command(connection.pack_commands(op.commands))
            return [await _replied_async(connection) for _ in op.commands]
        except (RedisError, OSError) as error:
            await connection.disconnect()
            raise Lost(error, sent=True) from error
        except BaseException:  # its replies are still to come
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    def _own_async_pool(self) -> Any:
        loop = asyncio.get_running_loop()
        mine = self._loops.get(loop)
        if mine is None:
            mine = self._loops[loop] = _OfLoop(self._made(redis.asyncio))
        return mine.pool

    async def aclose(self) -> None:
        """Close the connections of this event loop, and those of this process."""
        mine = self._loops.pop(asyncio.get_running_loop(), None)
        if mine is not None:
            await mine.pool.disconnect()
        self.close()


def _replied(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


async def _replied_async(connection: Any) -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


def client_url(url: str) -> str:
    """Return a URL as the client library knows it; raises where it is none of ours."""
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(
            f"{parts.scheme}:// is not a scheme of a Redis store. Use redis://host:6379/0, "
            "rediss:// (TLS), unix:///path/to/socket or valkey://."
        )
    return f"{_SCHEMES[parts.scheme]}{url[len(parts.scheme) :]}"


def own_options(url: str, names: Callable[[str], bool]) -> tuple[str, dict[str, str]]:
    """Take perdure's own options out of a URL; what is left is the client library's."""
    base, _, query = url.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    own = {name: value for name, value in options if names(name)}
    rest = urlencode([(name, value) for name, value in options if not names(name)])
    return f"{base}{rest and '?'}{rest}", own


def described(pool: Any) -> str:
    """Return how messages name a server: never with a password."""
    options = pool.connection_kwargs
    place = options.get("path") or ":".join(
        str(options[name]) for name in ("host", "port") if options.get(name)
    )
    service = getattr(pool, "service_name", None)
    return f"The Redis database {options.get('db') or 0} at {place or service or 'localhost:6379'}"
