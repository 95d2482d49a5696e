"""Sweeping: deleting remote objects that are no longer wanted, until each delete is confirmed."""

from __future__ import annotations

import json
from typing import Any, Final

from perdure.dialects.routes import escaped, path_to
from perdure.dialects.verdicts import fault_of, judge
from perdure.engine.ops import (
    Answer,
    NewId,
    Orphan,
    OrphanGone,
    Orphans,
    Send,
    SendFailed,
    Sleep,
    Throttle,
)
from perdure.engine.pacing import spread, wait_asked
from perdure.engine.wire import NOT_THERE
from perdure.flow import Flow
from perdure.model import value

_REQUESTS: Final = 50
# A worker that was asleep may still take for whole what is being emptied.
_SETTLED_SECONDS: Final = 600.0
_PAGE: Final = 100
_TOO_MANY: Final = 429
_NO_LIST: Final = NOT_THERE | {400}
_PATIENCE: Final = 5


@value
class Swept:
    """What one batch came to; ``refused`` are kept for the next time.

    ``more``: it got on, and used its requests up before there was nothing left.
    """

    deleted: int
    refused: int
    more: bool = False


class _Spent(Exception):
    """The requests of a batch are used up."""


def sweep(tenant: str, upstream: str, requests: int = _REQUESTS) -> Flow[Swept]:
    """Delete this upstream's oldest orphans by so many requests at most; what fails is kept.

    A conversation's items are deleted before it, one request each: OpenAI keeps them when it is
    deleted (docstring of ``conversations.delete`` in openai 3.52), and nobody could name them any
    more. That is begun ten minutes after the conversation was given up, if it was in use. Ends
    early where the server cannot be reached. A server that asks for time gets it.
    """
    batch = _Batch(tenant, upstream, requests)
    deleted = refused = 0
    try:
        for orphan in (yield from Orphans(tenant, upstream, requests, _SETTLED_SECONDS)):
            if (yield from batch.delete(orphan)):
                yield from OrphanGone(tenant, orphan.key)
                deleted += 1
            else:
                refused += 1
    except SendFailed:
        refused += 1
    except _Spent:
        return Swept(deleted, refused, more=batch.gets_on)
    return Swept(deleted, refused, more=batch.gets_on and deleted + refused == requests)


def sweep_quietly(tenant: str, upstream: str) -> Flow[None]:
    """:func:`sweep` as background work."""
    yield from sweep(tenant, upstream)


class _Batch:
    """The requests of one batch."""

    def __init__(self, tenant: str, upstream: str, requests: int) -> None:
        self._tenant = tenant
        self._upstream = upstream
        self._left = requests
        self.gets_on = False

    def delete(self, orphan: Orphan) -> Flow[bool]:
        """Delete an object, and what would stay behind; whether that is confirmed."""
        path = path_to(orphan.dialect, orphan.handle)
        if orphan.dialect == "conversations" and not (yield from self._empty(path)):
            return False
        answer = yield from self._send("DELETE", path)
        verdict = judge(fault_of(answer.status, answer.body), orphan.dialect, orphan.handle)
        confirmed = answer.ok or verdict.verdict == "gone" or verdict.retired
        self.gets_on = self.gets_on or confirmed
        return confirmed

    def _empty(self, path: str) -> Flow[bool]:
        """Delete a conversation's items; False: not now. A server that cannot has none to leave."""
        deleted: set[str] = set()
        missing: set[str] = set()
        while True:
            listed = yield from self._send("GET", f"{path}/items?limit={_PAGE}")
            if listed.status in _NO_LIST:
                return True
            page = _page(listed)
            if page is None:
                return False
            items = [item for row in page["data"] if (item := str(row.get("id"))) not in deleted]
            if not missing.isdisjoint(items):
                return True  # it lists them, and has no way to delete one
            for item in items:
                answer = yield from self._send("DELETE", f"{path}/items/{escaped(item)}")
                if answer.status in NOT_THERE:
                    missing.add(item)
                    break  # somebody else has deleted it, or nobody can: the list tells
                if not answer.ok:
                    return False
                deleted.add(item)
                self.gets_on = True
            else:
                if not page.get("has_more"):
                    return True
                if not items:
                    return False  # the list lags behind

    def _send(self, method: str, path: str) -> Flow[Answer]:
        for _ in range(_PATIENCE):
            if self._left == 0:
                raise _Spent
            self._left -= 1
            answer = yield from Send(method, path, None, own=True)
            if answer.status != _TOO_MANY:
                break
            wait = wait_asked(answer)
            yield from Throttle(self._tenant, self._upstream, wait)
            yield from Sleep(spread(wait, (yield from NewId())))
        return answer


def _page(answer: Answer) -> dict[str, Any] | None:
    """Return a page of a list; None where it is none."""
    try:
        page = json.loads(answer.body) if answer.ok else None
    except ValueError:
        return None
    rows = page.get("data") if isinstance(page, dict) else None
    return page if isinstance(rows, list) and all(isinstance(row, dict) for row in rows) else None
