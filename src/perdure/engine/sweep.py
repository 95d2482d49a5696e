"""Sweeping: deleting remote objects that are no longer wanted, until each delete is confirmed."""

from __future__ import annotations

from typing import Final

from perdure.dialects.verdicts import fault_of, judge
from perdure.engine.ops import NewId, OrphanGone, Orphans, Send, SendFailed, Sleep, Throttle
from perdure.engine.pacing import spread, wait_asked
from perdure.engine.wire import REPLICA_PATH
from perdure.flow import Flow
from perdure.model import value

_BATCH: Final = 50
_TOO_MANY: Final = 429
_PATIENCE: Final = 5


@value
class Swept:
    """What one batch came to; ``refused`` are kept for the next time."""

    deleted: int
    refused: int

    @property
    def seen(self) -> int:
        """How many orphans there were."""
        return self.deleted + self.refused


def sweep(tenant: str, upstream: str, limit: int = _BATCH) -> Flow[Swept]:
    """Delete this upstream's oldest orphans; one request each, what fails is kept.

    Ends early where the server cannot be reached. A server that asks for time gets it.
    """
    deleted = refused = 0
    for orphan in (yield from Orphans(tenant, upstream, limit)):
        path = f"{REPLICA_PATH[orphan.dialect]}/{orphan.handle}"
        try:
            answer = yield from Send("DELETE", path, None, own=True)
            for _ in range(_PATIENCE):
                if answer.status != _TOO_MANY:
                    break
                wait = wait_asked(answer)
                yield from Throttle(tenant, upstream, wait)
                yield from Sleep(spread(wait, (yield from NewId())))
                answer = yield from Send("DELETE", path, None, own=True)
        except SendFailed:
            return Swept(deleted, refused + 1)
        verdict = judge(fault_of(answer.status, answer.body), orphan.dialect, orphan.handle)
        if answer.ok or verdict.verdict == "gone" or verdict.retired:
            yield from OrphanGone(tenant, orphan.key)
            deleted += 1
        else:
            refused += 1
    return Swept(deleted, refused)


def sweep_quietly(tenant: str, upstream: str) -> Flow[None]:
    """:func:`sweep` as background work."""
    yield from sweep(tenant, upstream)
