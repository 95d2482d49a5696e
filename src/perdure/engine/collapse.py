"""Collapse: a conversation or thread that is there, but has lost most of what was in it.

Its items show it, wherever they are read: by the app, or by us for another reason. Only a list
that is complete can be judged, and only by ids that this very replica has given out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal

from perdure.engine.forgetful import forgotten, give_up
from perdure.engine.ops import Find, Page, Report
from perdure.engine.wire import Call
from perdure.flow import Flow
from perdure.model import Recovery, Replica

_LEAST_KNOWN: Final = 2  # one missing item may have been deleted by hand
_MISSING: Final = 0.5
_NEWEST: Final = 100


def collapse_of(
    call: Call,
    conversation: int,
    replica: Replica,
    listed: Iterable[dict[str, Any]],
    *,
    requests: int,
) -> Flow[Recovery | Literal["replaced"] | None]:
    """Return what is to be told where a whole list lacks more than half; None: it does not.

    "replaced": another has taken the replica's place meanwhile, so what it lacks tells nothing.
    """
    if call.policy.on_amnesia == "off" or replica.handle is None:
        return None
    known = yield from _given_out(call, conversation, replica)
    missing = known - {str(item.get("id")) for item in listed}
    if len(known) < _LEAST_KNOWN or len(missing) <= _MISSING * len(known):
        return None
    now = yield from Find(call.tenant, call.upstream, replica.handle)
    if now is None or now.replica.generation != replica.generation:
        return "replaced"
    return forgotten(conversation, None, replica, requests)


def tell_of_collapse(call: Call, replica: Replica, told: Recovery) -> Flow[None]:
    """Tell of a collapse; the next turn starts from a new replica, unless the policy only warns."""
    yield from Report(told)
    if call.policy.on_amnesia == "rebuild" and replica.handle is not None:
        yield from give_up(call, told.conversation, replica.dialect, replica.handle)


def _given_out(call: Call, conversation: int, replica: Replica) -> Flow[set[str]]:
    """Return the newest ids that the replica itself has given out, as far as the log has them."""
    page = yield from Page(call.tenant, conversation, newest_first=True, limit=_NEWEST)
    since = None
    if replica.generation > 0:  # what it was created with, or given, has other ids there
        since = replica.primed_through
        if replica.dialect == "conversations":
            found = yield from Find(call.tenant, call.upstream, replica.handle or "")
            since = found.position if found is not None else since
    return {
        item.provider_id
        for item in page.items
        if item.provider_id is not None and (since is None or item.position > since)
    }
