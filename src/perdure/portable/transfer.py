"""Moving conversations in and out of a store, as flows: a portion is one operation.

An export reads a log in portions, so its size does not matter. An import enters a portion at a
time; done again, after it was broken off or for no reason, it goes on behind what is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from perdure.engine.ops import (
    BindNew,
    Excerpts,
    Find,
    FindSubject,
    History,
    Learn,
    Listed,
    MarkLost,
    Pin,
)
from perdure.flow import Flow
from perdure.model import value
from perdure.portable.formats import Carried, end_line, head_line, item_line

_PORTION: Final = 200
_FURTHEST: Final = 2**31 - 1


@value
class Imported:
    """What an import came to: items that are new here, and those that were here already."""

    items: int
    known: int
    subject_taken: bool = False


def export(tenant: str, listed: Listed, write: Callable[[str], object]) -> Flow[int]:
    """Write a conversation's lines; returns the number of items. Deleted items stay out."""
    about = yield from History(tenant, listed.conversation, _FURTHEST, 1)
    write(
        head_line(
            about.milestones,
            tenant=tenant,
            conversation=listed.conversation,
            subject=listed.subject,
            upstream=listed.upstream,
            dialect=listed.dialect,
            handle=listed.handle,
            created_at=listed.created_at,
            complete=about.complete,
        )
    )
    count, first = 0, -_FURTHEST
    while True:
        items = yield from Excerpts(
            tenant,
            listed.conversation,
            _FURTHEST,
            ((first, _FURTHEST),),
            _PORTION,
            oldest=True,
            wire=True,
        )
        for item in items:
            write(item_line(item.wire, item.created_at, item.provider_id))
        count += len(items)
        if len(items) < _PORTION:
            write(end_line(count))
            return count
        first = items[-1].position + 1


def bring_in(
    tenant: str, upstream: str, carried: Carried, told: Callable[[int], object]
) -> Flow[Imported]:
    """Enter a conversation; it is live under its old id, and its subject's, from its next turn on.

    Its replica counts as lost, so the first turn rebuilds it at no failing call. ``told`` hears how
    many items have been entered.
    """
    handle = carried.bound_to
    found = yield from Find(tenant, upstream, handle)
    subject, taken = carried.subject, False
    if found is None and subject is not None:
        taken = (yield from FindSubject(tenant, subject)) is not None
        subject = None if taken else subject
    if found is None:
        yield from BindNew(
            tenant=tenant,
            upstream=upstream,
            dialect=carried.dialect,
            handle=handle,
            items=carried.items[:_PORTION],
            body=b"",
            intent="",
            subject=subject,
        )
        told(min(_PORTION, len(carried.items)))
        found = yield from Find(tenant, upstream, handle)
        assert found is not None
        for fact in carried.facts if subject is not None else ():
            yield from Pin(tenant, subject or "", fact)
        known = 0
    else:
        known = min(found.last_position, len(carried.items))
    if found.replica.generation == 0:
        yield from MarkLost(tenant, upstream, handle)
    for start in range(found.last_position, len(carried.items), _PORTION):
        portion = carried.items[start : start + _PORTION]
        yield from Learn(tenant, found.conversation, portion, whole=True)
        told(len(portion))
    return Imported(len(carried.items) - known, known, taken)
