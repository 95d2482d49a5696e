"""Sweeping: deleting remote objects that are no longer wanted, until each delete is confirmed."""

from __future__ import annotations

from perdure.dialects.verdicts import fault_of, judge
from perdure.engine.ops import OrphanGone, Orphans, Send, SendFailed
from perdure.engine.wire import REPLICA_PATH
from perdure.flow import Flow

_BATCH = 50


def sweep(tenant: str, upstream: str) -> Flow[None]:
    """Delete this upstream's orphans; one request each, what fails is kept for the next time."""
    for orphan in (yield from Orphans(tenant, upstream, _BATCH)):
        try:
            answer = yield from Send(
                "DELETE", f"{REPLICA_PATH[orphan.dialect]}/{orphan.handle}", None, own=True
            )
        except SendFailed:
            return
        gone = judge(fault_of(answer.status, answer.body), orphan.dialect, orphan.handle)
        if answer.ok or gone.verdict == "gone":
            yield from OrphanGone(tenant, orphan.key)
