"""The ids under which the app has seen its own items, learnt from what a live conversation shows.

A conversation gives every item an id, also to those that the app sent along with a model call, and
only a list or a read shows it. From then on the app may name the item by it, so the id has to
outlive the conversation. Which of the log's items an id belongs to is told by what stands next to
it: an item is never named by its text alone where the log has that twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import takewhile
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs

from perdure.dialects import items as item_forms
from perdure.dialects.body import object_in, objects_in
from perdure.dialects.shapes import is_object
from perdure.engine.ops import Answer, Found, History, Learn, OneItem, Page
from perdure.engine.sameness import essence, may_be
from perdure.engine.wire import Call
from perdure.flow import Flow
from perdure.model import StoredItem

_ALONE: Final = 200  # items of a log in which one is looked for by what it says
_MORE: Final = 20  # items of the log that no provider has: of calls that failed
#: What an id alone would not bring back: the log says that it was not understood.
_UNTOLD: Final = {"compaction", "item_reference"}

_Pairs: TypeAlias = list[tuple[StoredItem, dict[str, Any]]]


def note_seen(call: Call, found: Found, answer: Answer) -> Flow[None]:
    """Note the ids of the app's own items in a conversation's answer; costs no request."""
    if call.route.child is not None:
        pairs = yield from _one(call, found, object_in(answer.body))
    else:
        pairs = yield from _listed(call, found, object_in(answer.body))
    yield from _note(call, found, pairs, found.replica.generation)


def note_inputs(call: Call, found: Found, response_id: str, answer: Answer) -> Flow[None]:
    """Note the ids of what a response was asked, as a list of that shows them."""
    pairs = yield from _listed(call, found, object_in(answer.body), asked=response_id)
    yield from _note(call, found, pairs, None)


def _note(call: Call, found: Found, pairs: _Pairs, generation: int | None) -> Flow[None]:
    named = tuple(
        (item.position, str(shown["id"]), item_forms.dumps(shown))
        for item, shown in pairs
        if item.kind not in _UNTOLD and is_object(shown)
    )
    if named:
        yield from Learn(
            tenant=call.tenant,
            conversation=found.conversation,
            items=(),
            whole=False,
            named=named,
            generation=generation,
        )


def _one(call: Call, found: Found, shown: dict[str, Any]) -> Flow[_Pairs]:
    """Return the one item of the log that a single one can be, if it has no id yet.

    Nobody can say in a log of which only a part is read: it may say the same further back. It is
    read for each look at an item that it does not know, so it is not read beyond a part.
    """
    if not is_object(shown):
        return []
    if (yield from OneItem(call.tenant, found.conversation, call.route.child or "")) is not None:
        return []
    log = yield from Page(call.tenant, found.conversation, newest_first=True, limit=_ALONE)
    if log.has_more:
        return []
    same = [item for item in _unnamed(log.items) if may_be(json.loads(item.wire), shown)]
    if len(same) != 1 or not (yield from _is_whole(call, found, None)):
        return []
    return [(same[0], shown)]


def _listed(
    call: Call, found: Found, page: dict[str, Any], asked: str | None = None
) -> Flow[_Pairs]:
    """Return the items of the log that have no id yet, each with how a list shows it.

    ``asked``: the list is of what this response was asked, and so is the log.
    """
    query = parse_qs(call.query)
    data = objects_in(page.get("data"))
    if not data or "before" in query:
        return []
    after = query.get("after", [None])[0]
    newest_first = query.get("order") != ["asc"]
    log = yield from Page(
        tenant=call.tenant,
        conversation=found.conversation,
        newest_first=newest_first,
        limit=len(data) + _MORE,
        after=after,
        turn_response=asked,
        inputs=asked is not None,
    )
    # A list and the log begin at one place behind a cursor; else where the log is whole.
    last = page.get("has_more") is False and not log.has_more
    if newest_first:
        begins = last and (yield from _is_whole(call, found, asked))
        ends = after is not None or asked is not None
        return aligned(data[::-1], log.items[::-1], begins=begins, ends=ends)
    begins = after is not None or (yield from _is_whole(call, found, asked))
    return aligned(data, log.items, begins=begins, ends=last and asked is not None)


def _is_whole(call: Call, found: Found, asked: str | None) -> Flow[bool]:
    """Whether the log begins where what is listed does."""
    if asked is not None:
        return True
    newest = History(call.tenant, found.conversation, found.last_position, budget_tokens=1)
    return (yield from newest).complete


def aligned(
    listed: Iterable[dict[str, Any]], logged: tuple[StoredItem, ...], *, begins: bool, ends: bool
) -> _Pairs:
    """Pair what a provider lists with the log's items that have no id, both oldest first.

    What has an id in the log already ties the one to the other; in between, items are paired from
    such a tie on for as long as they say the same. ``begins``: both begin at the same place;
    ``ends``: both end at the same.
    """
    places = {item.provider_id: place for place, item in enumerate(logged) if item.provider_id}
    pairs: _Pairs = []
    between: list[dict[str, Any]] = []
    at, tied = -1, begins
    for shown in listed:
        place = places.get(str(shown.get("id")))
        if place is None:
            between.append(shown)
            continue
        if place <= at:  # in another order than the log: it tells nothing
            return []
        stretch = logged[at + 1 : place]
        own = _unnamed(stretch) if tied else _unnamed_run(stretch[::-1])[::-1]
        pairs += _paired(between, own, begins=tied, ends=True)
        at, tied, between = place, True, []
    rest = logged[at + 1 :]
    own = _unnamed(rest) if ends else _unnamed_run(rest)
    return pairs + _paired(between, own, begins=tied, ends=ends)


def _paired(
    listed: list[dict[str, Any]], own: list[StoredItem], *, begins: bool, ends: bool
) -> _Pairs:
    """Pair from both ends, the newer first: what failed stands in front of what was sent again.

    Where only the beginning is tied, that cannot be told: what was sent again may stand beyond the
    end of the page.
    """
    pairs: _Pairs = []
    sent = [json.loads(item.wire) for item in own]
    while ends and listed and own and may_be(sent[-1], listed[-1]):
        sent.pop()
        pairs.append((own.pop(), listed.pop()))
    said = Counter(map(essence, sent)) if begins and not ends else Counter()
    while begins and listed and own and may_be(sent[0], listed[0]):
        if said[essence(listed[0])] > 1 and _is_more_often(sent, listed):
            break
        sent.pop(0)
        pairs.append((own.pop(0), listed.pop(0)))
    return pairs


def _is_more_often(sent: list[dict[str, Any]], listed: list[dict[str, Any]]) -> bool:
    """Whether more was sent that could be the first that is listed than the list shows."""
    alike = sum(may_be(one, listed[0]) for one in sent)
    return alike > sum(may_be(sent[0], one) for one in listed)


def _unnamed(items: Iterable[StoredItem]) -> list[StoredItem]:
    return [item for item in items if item.provider_id is None]


def _unnamed_run(items: Iterable[StoredItem]) -> list[StoredItem]:
    return list(takewhile(lambda item: item.provider_id is None, items))
