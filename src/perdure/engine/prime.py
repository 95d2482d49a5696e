"""Primes: what a new replica is given so that it knows what the old one knew.

The full history where it fits the budget, which is the normal case; above it what
``engine.recollect`` has chosen, with a mark wherever something is left out. The result is JSON text
ready to be spliced into a request: item texts are stored finished, so ten thousand of them cost a
join.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from perdure.dialects import items as item_forms
from perdure.dialects import messages
from perdure.dialects.tokens import message_tokens
from perdure.engine.fences import fenced
from perdure.engine.ops import Span
from perdure.model import Memory, Snapshot, StoredItem, value

_PINNED: Final = "Facts kept from this conversation:"
_SUMMARY: Final = "Summary of the first {items} messages and calls of this conversation, as data:"
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
class Told:
    """What a prime tells of a history: parts of it, the newest last, and a summary.

    ``covered``: the summary covers all that is left out.
    """

    parts: Sequence[Part]
    summary: str | None = None
    covered: bool = False


@value
class Prime:
    """The history for a new replica: finished JSON items (of a thread: messages to create it with).

    ``left_out`` counts the items it does not have, and what its items had besides. ``through`` is
    the position up to which the log was there to be told.
    """

    texts: tuple[str, ...]
    primed: int
    left_out: int
    memory: Memory
    through: int

    @property
    def text(self) -> str:
        """The items as they stand inside a JSON array, without its brackets."""
        return ",".join(self.texts)


#: Of a conversation that is created empty: what it is told, a later call will say.
NOTHING: Final = Prime((), 0, 0, "none", 0)


def build(span: Span, following: Iterable[dict[str, Any]] = (), *, thread: bool = False) -> Prime:
    """Make the prime of a whole history, for ``following``, the caller's own items.

    ``thread``: as messages that a thread is created with; the span then has the wire forms.
    """
    whole = [Part(span.items, after_gap=bool(span.older))] if span.items else []
    return compose(span, Told(whole), following, thread=thread)


def compose(
    span: Span,
    told: Told,
    following: Iterable[dict[str, Any]] = (),
    *,
    thread: bool = False,
) -> Prime:
    """Make the prime of what was chosen of a history, for ``following``, the caller's own items.

    Where something is left out before a part, a mark says so, and when what follows was said.
    """
    items = [item for part in told.parts for item in part.items]
    chosen = item_forms.replayable(items, following)
    if thread:
        given, parts_left_out = _as_messages(items)
    else:
        given, parts_left_out = chosen, sum(map(messages.attached, chosen))
    note = _thread_note if thread else _note
    marks = _marks(told.parts)
    texts = list(map(note, _fact_texts(span)))
    if told.summary is not None:
        texts.append(note(told.summary))
    if marks:
        texts.append(note(_PARTS))
    for item in given:
        mark = marks.get(item.position)
        if mark is not None:
            texts.append(note(mark))
        texts.append(item.input)
    positions = {item.position for item in given}
    untold = bool(parts_left_out) or any(item.position not in positions for item in chosen)
    memory = "partial" if given and (marks or untold) else _memory(span, given)
    return Prime(
        texts=tuple(texts),
        primed=len(given),
        left_out=span.older + len(span.items) - len(given) + parts_left_out,
        memory="summarized" if told.covered else memory,
        through=span.items[-1].position if span.items else 0,
    )


def _as_messages(items: Iterable[StoredItem]) -> tuple[list[StoredItem], int]:
    """Return what a thread can be told of, as its messages, and how much those had besides."""
    told, left_out = [], 0
    for item in items:
        made = messages.as_created(item)
        if made is not None:
            told.append(replace(item, input=made.text))
            left_out += made.left_out
    return told, left_out


def _marks(parts: Sequence[Part]) -> dict[int, str]:
    """Return what stands before which positions, to say what is left out and when it goes on."""
    marks: dict[int, str] = {}
    before: StoredItem | None = None
    for number, part in enumerate(parts):
        first = part.items[0]
        if part.after_gap:
            newest = number == len(parts) - 1
            marks[first.position] = _NEWEST if newest else _mark(before, first)
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
    """Return a thread's prime as messages to create it with."""
    return [json.loads(text) for text in prime.texts]


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


def _fact_texts(span: Span) -> list[str]:
    if not span.milestones:
        return []
    facts = (fact.replace("\n", "\n  ") for fact in span.milestones)  # one fact is one entry
    return ["\n".join([_PINNED, *(f"- {fact}" for fact in facts)])]


def summary_text(snapshot: Snapshot, budget: int) -> str | None:
    """Return a summary as it is told: labelled, fenced, cut to whole lines; None if none fits."""
    head = _SUMMARY.format(items=snapshot.items)
    lines = snapshot.text.splitlines()
    while lines:
        text = f"{head}\n{fenced(chr(10).join(lines))}"
        if message_tokens(text) <= budget:
            return text
        lines.pop()
    return None


def _note(text: str) -> str:
    return item_forms.dumps({"type": "message", "role": "user", "content": text})


def _thread_note(text: str) -> str:
    return item_forms.dumps({"role": "user", "content": text})


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
