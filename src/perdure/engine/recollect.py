"""What a new replica is told: everything where it fits the budget, else what matters.

The parts, in the order in which they survive a small budget: pinned facts, the newest exchange, a
summary where there is one, older turns that matter to the next message. All of them are plain
items in the order of the log; where something is left out, a mark says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from perdure.dialects import messages
from perdure.dialects.items import said, said_in
from perdure.dialects.tokens import message_tokens
from perdure.engine import prime as primes
from perdure.engine.alike import Alike, alike, lines_of
from perdure.engine.budget import budget_tokens
from perdure.engine.ops import ANY, Excerpts, History, Index, Search, Span
from perdure.engine.summarise import Summariser, roll, summariser
from perdure.engine.wire import Wire
from perdure.flow import Flow
from perdure.model import Snapshot, StoredItem, value
from perdure.recall.choosing import Candidate, choose, turns
from perdure.recall.meaning import merged
from perdure.recall.ranking import Asked, rank
from perdure.recall.searching import APART, FURTHEST, Found, ranges
from perdure.recall.words import content_words, stems

_TAIL: Final = 0.04  # of the budget; the newest exchange is given in any case
_SUMMARY: Final = 0.1  # of the budget
_ROLLED_MOST: Final = 400  # items
_ITEMS_READ: Final = 500  # of what is older than the span, for any budget
_READ_FOR_EACH: Final = 3  # items read for each that will fit
_PORTION: Final = 500
_NAMED_MOST: Final = 400
_WORDS_MOST: Final = 24
_ITEM_TOKENS: Final = 40


@value
class Next:
    """The turn that the prime is for: whose it is, what it says, and the items it brings."""

    conversation: int
    through: int
    items: tuple[dict[str, Any], ...] = ()
    after: int = 0
    model: str | None = None

    @property
    def text(self) -> str:
        """What the next message says."""
        return "\n".join(map(said_in, self.items))


@value
class Helpers:
    """What the caller's policy has others do: write summaries, turn texts into vectors."""

    writer: Summariser | None = None
    embed: Callable[[list[str]], Any] | None = None


def model_of(members: dict[str, Any]) -> str | None:
    """Return the model that a call names."""
    model = members.get("model")
    return model if isinstance(model, str) else None


def recollect(
    wire: Wire, turn: Next, *, thread: bool = False, most: int | None = None
) -> Flow[primes.Prime]:
    """Read the history before a call's turn and make its prime, inside the policy's budget.

    ``most`` may make that smaller. Costs no call to the provider, unless the policy's summariser
    asks one. ``thread``: of messages only. What the replica already has, up to ``turn.after``, is
    left out.
    """
    call = wire.call
    budget = budget_tokens(call.policy, turn.model, turn.text)
    if most is not None:
        budget = min(budget, most)
    helpers = Helpers(summariser(call.policy, wire), call.policy.embeddings)
    return (yield from remember(call.tenant, turn, budget, helpers, thread=thread))


def remember(
    tenant: str,
    turn: Next,
    budget: int,
    helpers: Helpers | None = None,
    *,
    thread: bool = False,
) -> Flow[primes.Prime]:
    """Read the history before a turn and make its prime, ``budget`` tokens at most."""
    helpers = helpers or Helpers()
    # Items have no attachments: those of messages that were a thread's are read, to be counted.
    wire = ANY if thread else messages.ATTACHED
    span = yield from History(tenant, turn.conversation, turn.through, budget, wire=wire)
    if turn.after:
        kept = tuple(item for item in span.items if item.position > turn.after)
        return primes.build(replace(span, items=kept), turn.items, thread=thread)
    room = budget - primes.facts_tokens(span)
    if not span.older and sum(item.tokens for item in span.items) <= room:
        return primes.build(span, turn.items, thread=thread)
    room -= primes.FRAME_TOKENS
    tail = _tail(span.items, room)
    room -= sum(item.tokens for item in tail)
    first = tail[0].position if tail else turn.through + 1
    near = [item for item in span.items if item.position < first]
    asked = turn.text
    if not content_words(asked):
        asked = _last_said(span.items)
    older = yield from _older(tenant, turn, span, asked, budget, wire=wire)
    summary = yield from _summary(tenant, turn, span, len(near), first - 1, helpers.writer)
    label = primes.summary_text(summary, int(budget * _SUMMARY)) if summary else None
    if label is not None:
        room -= message_tokens(label)
    known = Alike([*older, *near], None)
    if helpers.embed is not None:
        known = yield from alike(
            helpers.embed,
            tenant,
            turn.conversation,
            known.items,
            asked,
            span.older + len(near),
            wire=wire,
        )
    parts = _chosen(known, asked, room, tail)
    covered = summary is not None and label is not None and summary.through >= first - 1
    told = primes.Told(parts, label, covered=covered)
    return primes.compose(span, told, turn.items, thread=thread)


def _summary(
    tenant: str,
    turn: Next,
    span: Span,
    near: int,
    through: int,
    writer: Summariser | None,
) -> Flow[Snapshot | None]:
    """Return the newest summary, brought up to a position where that takes little."""
    known = span.snapshot
    if writer is None or (known is not None and known.through >= through):
        return known
    new = span.older + near - (known.items if known else 0)
    if new > _ROLLED_MOST:  # what was not done ahead of time is not done while somebody waits
        return known
    return (yield from roll(tenant, turn.conversation, through, known, writer))


def _tail(items: Sequence[StoredItem], room: int) -> list[StoredItem]:
    """Return the newest exchanges: the last one if it fits at all, more within their share."""
    tail: list[StoredItem] = []
    used = 0
    for group in reversed(turns(items)):
        cost = sum(item.tokens for item in group)
        if used + cost > (room * _TAIL if tail else room):
            break
        tail = [*group, *tail]
        used += cost
    if not tail:  # an exchange larger than the budget: as much of its end as fits
        for item in reversed(items):
            used += item.tokens
            if used > room:
                break
            tail.insert(0, item)
    return tail


def _last_said(items: Sequence[StoredItem]) -> str:
    """Return the newest message of the user that says something."""
    for item in reversed(items):
        if item.role == "user" and content_words(text := said(item.input)):
            return text
    return ""


def search(tenant: str, conversation: int, query: str, limit: int) -> Flow[tuple[StoredItem, ...]]:
    """Find the items of a log that a query is about, best first."""
    items = yield from _relevant(tenant, conversation, FURTHEST, query, _ITEMS_READ)
    lines = lines_of(items)
    wanted = content_words(query).keys()
    worth = rank(lines, Asked(query, lines[-1].at)) if lines else []
    found = [
        (-value, item)
        for value, item, line in zip(worth, items, lines, strict=True)
        if wanted & set(stems(line.text))
    ]
    found.sort(key=lambda one: one[0])
    return tuple(item for _, item in found[:limit])


def _older(
    tenant: str, turn: Next, span: Span, asked: str, budget: int, *, wire: str
) -> Flow[tuple[StoredItem, ...]]:
    """Read what may matter of what is older than the span: all of it, or what a search finds."""
    before = span.items[0].position if span.items else turn.through + 1
    wanted = max(_ITEMS_READ, _READ_FOR_EACH * budget // _ITEM_TOKENS - len(span.items))
    if span.older <= wanted:
        places = ((-FURTHEST, before - 1),)
        return (
            yield from Excerpts(tenant, turn.conversation, before - 1, places, wanted, wire=wire)
        )
    return (yield from _relevant(tenant, turn.conversation, before - 1, asked, wanted, wire=wire))


def _relevant(
    tenant: str,
    conversation: int,
    through: int,
    asked: str,
    wanted: int,
    *,
    wire: str | None = None,
) -> Flow[tuple[StoredItem, ...]]:
    """Read the items that a search for a message's words finds, with those around them.

    Without an index, or anything to look for, the newest are looked at.
    """
    while not (yield from Index(tenant, conversation, _PORTION)):
        pass
    words = tuple(content_words(asked).values())[:_WORDS_MOST]
    matches = yield from Search(tenant, conversation, through, words, _NAMED_MOST)
    found = [
        Found(count, positions)
        for count, positions in zip(matches.counts, matches.positions, strict=True)
    ]
    places = ranges(found, matches.size or 0, wanted) or ((-FURTHEST, through),)
    return (yield from Excerpts(tenant, conversation, through, places, wanted, wire=wire))


def _candidates(items: Sequence[StoredItem]) -> list[primes.Part]:
    """Group items into whole turns; those cut off at the edges of what was read are let be."""
    found: list[primes.Part] = []
    stretches = _stretches(items)
    for number, stretch in enumerate(stretches):
        groups = turns(stretch)
        if len(groups) > 1 and number < len(stretches) - 1:
            groups.pop()
        if len(groups) > 1 and groups[0][0].role == "assistant":
            groups.pop(0)
        found += [primes.Part(tuple(group), not place) for place, group in enumerate(groups)]
    return found


def _stretches(items: Sequence[StoredItem]) -> list[list[StoredItem]]:
    """Part items where some between them were not read."""
    found: list[list[StoredItem]] = []
    for item in items:
        if not found or item.position - found[-1][-1].position > APART:
            found.append([])
        found[-1].append(item)
    return found


def _chosen(known: Alike, asked: str, room: int, tail: Sequence[StoredItem]) -> list[primes.Part]:
    """Return the parts that are told: the turns that matter most, and the tail."""
    groups = _candidates(known.items)
    lines = lines_of(known.items)
    worth = rank(lines, Asked(asked, lines[-1].at)) if lines else []
    if known.worth is not None:
        worth = merged(worth, known.worth)
    of_item = dict(zip((line.position for line in lines), worth, strict=True))
    candidates = [
        Candidate(
            number=number,
            worth=max(of_item[item.position] for item in group.items),
            tokens=sum(item.tokens for item in group.items) or 1,
            detached=group.after_gap,
        )
        for number, group in enumerate(groups)
    ]
    told: list[primes.Part] = []
    before = -1
    for number in choose(candidates, room, primes.MARK_TOKENS):
        group = groups[number]
        told.append(replace(group, after_gap=group.after_gap or number != before + 1))
        before = number
    if tail:
        told.append(primes.Part(tuple(tail), after_gap=before != len(groups) - 1))
    return told
