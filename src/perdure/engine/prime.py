"""Primes: what a new replica is given so that it knows what the old one knew.

The full history where it fits the budget, which is the normal case; above it what
``engine.recollect`` has chosen, with a mark wherever something is left out. The result is JSON text
ready to be spliced into a request: item texts are stored finished, so ten thousand of them cost a
join.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from perdure.dialects import items as item_forms
from perdure.dialects.tokens import message_tokens
from perdure.engine.ops import Span
from perdure.model import Memory, StoredItem, value

_PINNED: Final = "Facts kept from this conversation:"
_PARTS: Final = (
    "[Parts of this conversation, oldest first; […] stands where messages are left out.]"
)
_LEFT_OUT: Final = "[…]"
_LEFT_OUT_DATED: Final = "[… {date:%Y-%m-%d}]"
_NEWEST: Final = "[… the newest messages follow]"
_ANY_DAY: Final = datetime(2026, 1, 1, tzinfo=UTC)
#: What a mark costs at most, and what the words around the parts of a history do.
MARK_TOKENS: Final = message_tokens(_LEFT_OUT_DATED.format(date=_ANY_DAY))
FRAME_TOKENS: Final = message_tokens(_PARTS) + message_tokens(_NEWEST)


@value
class Part:
    """Items that stand together in the log, and whether something is left out before them."""

    items: tuple[StoredItem, ...]
    after_gap: bool


@value
class Prime:
    """The history for a new replica: finished JSON items, and how much of it they are."""

    texts: tuple[str, ...]
    primed: int
    left_out: int
    memory: Memory

    @property
    def text(self) -> str:
        """The items as they stand inside a JSON array, without its brackets."""
        return ",".join(self.texts)


def build(span: Span, following: Iterable[dict[str, Any]] = (), *, thread: bool = False) -> Prime:
    """Make the prime of a whole history, for ``following``, the caller's own items.

    ``thread``: of messages only, since a thread has no calls outside a run.
    """
    whole = [Part(span.items, after_gap=bool(span.older))] if span.items else []
    return compose(span, whole, following, thread=thread)


def compose(
    span: Span,
    parts: Sequence[Part],
    following: Iterable[dict[str, Any]] = (),
    *,
    thread: bool = False,
) -> Prime:
    """Make the prime of parts of a history, in the order of the log; the last are the newest.

    Where something is left out before a part, a mark says so, and when what follows was said.
    """
    chosen = item_forms.replayable([item for part in parts for item in part.items], following)
    told = [item for item in chosen if _told(item)] if thread else chosen
    size = span.older + len(span.items)
    marks = _marks(parts)
    texts = list(_facts(span))
    if marks:
        texts.append(_note(_PARTS))
    for item in told:
        mark = marks.get(item.position)
        if mark is not None:
            texts.append(mark)
        texts.append(item.input)
    return Prime(
        texts=tuple(texts),
        primed=len(told),
        left_out=size - len(told),
        memory="partial" if told and (marks or len(told) < len(chosen)) else _memory(span, told),
    )


def _told(item: StoredItem) -> bool:
    """Whether a thread can be told of an item."""
    return item_forms.to_thread_message(json.loads(item.input)) is not None


def _marks(parts: Sequence[Part]) -> dict[int, str]:
    """Return what stands before which positions, to say what is left out and when it goes on."""
    marks: dict[int, str] = {}
    before: StoredItem | None = None
    for number, part in enumerate(parts):
        first = part.items[0]
        if part.after_gap:
            newest = number == len(parts) - 1
            marks[first.position] = _note(_NEWEST if newest else _mark(before, first))
        before = part.items[-1]
    return marks


def _mark(before: StoredItem | None, first: StoredItem) -> str:
    date = datetime.fromtimestamp(first.created_at, UTC)
    if before is None:
        return _LEFT_OUT_DATED.format(date=date)
    if date.date() == datetime.fromtimestamp(before.created_at, UTC).date():
        return _LEFT_OUT
    return _LEFT_OUT_DATED.format(date=date)


def facts_tokens(span: Span) -> int:
    """Return what the pinned facts cost."""
    return sum(message_tokens(text) for text in _fact_texts(span))


def thread_messages(prime: Prime) -> list[dict[str, Any]]:
    """Return the prime as messages to create a thread with."""
    forms = (item_forms.to_thread_message(json.loads(text)) for text in prime.texts)
    return [form for form in forms if form is not None]


def joined(prime: Prime, raw_input: str | None) -> str:
    """Return the prime followed by the caller's ``input`` (its JSON text) as one JSON array."""
    return f"[{','.join(part for part in (prime.text, _listed(raw_input)) if part)}]"


def _listed(raw_input: str | None) -> str:
    """Return the caller's items without brackets, in the very text in which they were sent."""
    if raw_input is None or raw_input == "null":
        return ""
    if raw_input.startswith("["):
        return raw_input[1:-1].strip()
    return f'{{"type":"message","role":"user","content":{raw_input}}}'


def _facts(span: Span) -> tuple[str, ...]:
    """Return what stands before the items: pinned facts, as user-role data."""
    return tuple(map(_note, _fact_texts(span)))


def _fact_texts(span: Span) -> list[str]:
    if not span.milestones:
        return []
    return ["\n".join([_PINNED, *(f"- {fact}" for fact in span.milestones)])]


def _note(text: str) -> str:
    return item_forms.dumps({"type": "message", "role": "user", "content": text})


def _memory(span: Span, chosen: list[StoredItem]) -> Memory:
    if not chosen:
        return "none" if span.older or span.items or not span.complete else "full"
    given = {item.position for item in chosen}
    untold = any(item.position not in given and _says_something(item) for item in span.items)
    return "partial" if span.older or not span.complete or untold else "full"


def _says_something(item: StoredItem) -> bool:
    """Whether an item holds what the log says nowhere else.

    Reasoning, the work of built-in tools, and calls nobody answered only lead to messages.
    """
    mine = item.provider_id is None  # sent by the app; what a provider condensed is in the log
    return item.kind == "message" or (mine and item.kind in {"compaction", "item_reference"})
