"""Renewing the leases of turns whose model call takes long.

A lease says to other workers that somebody is at a turn. It is short, because a worker that dies
cannot give it back; so one that lives on puts its end off. Nothing depends on that: a turn whose
lease has run out is protected by its epoch, only work may be done twice.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from perdure.engine import ops
from perdure.errors import StoreError
from perdure.flow import Op
from perdure.model import TurnKey

LEASE_SECONDS: Final = 60.0
_EVERY_SECONDS: Final = LEASE_SECONDS / 3
log = logging.getLogger("perdure")


class Holder(Protocol):
    """Whoever delivers a turn; one that is dropped without ending it does not renew it for ever."""

    turn: TurnKey | None


class _Held:
    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._holders: weakref.WeakSet[Any] = weakref.WeakSet()

    def due(self) -> ops.Renew | None:
        """Return the operation that renews every turn in work, if there is one."""
        turns = tuple(holder.turn for holder in list(self._holders) if holder.turn is not None)
        return ops.Renew(self._tenant, turns, LEASE_SECONDS) if turns else None


class Renewal(_Held):
    """Renewal by a daemon thread, which starts with the first turn."""

    def __init__(self, tenant: str, perform: Callable[[Op[Any]], Any]) -> None:
        super().__init__(tenant)
        self._perform = perform
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, holder: Holder) -> None:
        """Renew the holder's turn for as long as it has one."""
        self._holders.add(holder)
        if self._thread is None or not self._thread.is_alive():
            self._ended.clear()
            self._thread = threading.Thread(
                target=self._work, name="perdure-renewal", daemon=True
            )  # fmt: skip
            self._thread.start()

    def _work(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            op = self.due()
            if op is None:
                continue
            try:
                self._perform(op)
            except StoreError:  # the turn is safe by its epoch; the next round may succeed
                log.warning("leases were not renewed", exc_info=True)

    def close(self) -> None:
        """End the thread."""
        self._ended.set()


class AsyncRenewal(_Held):
    """Renewal by a timer of the event loop, which runs while a turn does."""

    def __init__(self, tenant: str, perform: Callable[[Op[Any]], Awaitable[Any]]) -> None:
        super().__init__(tenant)
        self._perform = perform
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def watch(self, holder: Holder) -> None:
        """Renew the holder's turn for as long as it has one."""
        self._holders.add(holder)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY_SECONDS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        op = self.due()
        if op is None:
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_EVERY_SECONDS, self._tick)
        self._task = loop.create_task(self._renew(op))

    async def _renew(self, op: ops.Renew) -> None:
        try:
            await self._perform(op)
        except StoreError:  # the turn is safe by its epoch; the next round may succeed
            log.warning("leases were not renewed", exc_info=True)

    def close(self) -> None:
        """End the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
