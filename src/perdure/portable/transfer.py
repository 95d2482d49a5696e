"""Moving conversations in and out of a store, as flows: a portion is one operation.

An export reads a log in portions, so its size does not matter. An import enters a portion at a
time, and only where the log ends behind the portion before it: done again, after it was broken off
or for no reason, or by two at the same time, it goes on behind what is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from perdure.engine.ops import ANY, BringIn, Excerpts, History, Listed
from perdure.errors import BadInput
from perdure.flow import Flow
from perdure.model import value
from perdure.portable.formats import Carried, end_line, head_line, item_line
from perdure.recall.searching import FURTHEST

_PORTION: Final = 200


@value
class Imported:
    """What an import came to: items that are new here, and those that were here already.

    ``left_out``: those that came too late, since the conversation has gone on here.
    """

    items: int
    known: int
    left_out: int = 0
    subject_taken: bool = False


def export(tenant: str, listed: Listed, write: Callable[[str], object]) -> Flow[int]:
    """Write a conversation's lines; returns the number of items. Deleted items stay out."""
    about = yield from History(tenant, listed.conversation, FURTHEST, 1)
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
    count, first = 0, -FURTHEST
    while True:
        items = yield from Excerpts(
            tenant,
            listed.conversation,
            FURTHEST,
            ((first, FURTHEST),),
            _PORTION,
            oldest=True,
            wire=ANY,
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

    Its replica counts as lost, so the first turn rebuilds it at no failing call. Whoever brings the
    same one in at the same time enters the portions that this one does not. ``told`` hears how many
    items have been entered. Raises :class:`~perdure.errors.BadInput` where its id belongs to
    another tenant.
    """
    handle, everything = carried.bound_to, len(carried.items)
    entered = here = 0
    taken = False
    while True:
        portion = carried.items[here : here + _PORTION]
        brought = yield from BringIn(
            tenant=tenant,
            upstream=upstream,
            dialect=carried.dialect,
            handle=handle,
            items=portion,
            behind=here,
            subject=carried.subject,
            facts=carried.facts,
        )
        if brought.outcome == "foreign":
            raise BadInput(f"{carried.name}: its id {handle} belongs to another tenant here.")
        taken = taken or brought.subject_taken
        before = here
        if brought.outcome == "entered":
            entered += len(portion)
            here += len(portion)
            told(len(portion))
        else:
            here = min(max(brought.items, here), everything)
        if here in (before, everything):
            return Imported(entered, here - entered, everything - here, taken)
