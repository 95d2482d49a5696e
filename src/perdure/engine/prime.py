"""Primes: what a new replica is given so that it knows what the old one knew.

The full history where it fits the budget, which is the normal case; above it the pinned facts and
the newest items, with a marked gap. The result is JSON text ready to be spliced into a request:
item texts are stored finished, so ten thousand of them cost a join.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from perdure.dialects import items as item_forms
from perdure.dialects import messages
from perdure.engine.ops import Span
from perdure.model import Memory, StoredItem, value

_PINNED: Final = "Facts kept from this conversation:"
_GAP: Final = "[{count} earlier messages of this conversation are not included here.]"


@value
class Prime:
    """The history for a new replica: finished JSON items (of a thread: messages to create it with).

    ``left_out`` counts the items it does not have, and what its items had besides.
    """

    texts: tuple[str, ...]
    primed: int
    left_out: int
    memory: Memory

    @property
    def text(self) -> str:
        """The items as they stand inside a JSON array, without its brackets."""
        return ",".join(self.texts)


#: Of a conversation that is created empty: what it is told, a later call will say.
NOTHING: Final = Prime((), 0, 0, "none")


def build(span: Span, following: Iterable[dict[str, Any]] = (), *, thread: bool = False) -> Prime:
    """Make the prime that stands in front of ``following``, the caller's own items.

    ``thread``: as messages that a thread is created with; the span then has the wire forms.
    """
    if thread:
        return _of_thread(span)
    chosen = item_forms.replayable(span.items, following)
    return Prime(
        texts=(*_labels(span), *(item.input for item in chosen)),
        primed=len(chosen),
        left_out=span.older + len(span.items) - len(chosen),
        memory=_memory(span, chosen),
    )


def _of_thread(span: Span) -> Prime:
    """Make the prime of a thread: of messages only, since it has no calls outside a run."""
    told, left_out = [], 0
    for item in span.items:
        made = messages.as_created(item)
        if made is not None:
            told.append(replace(item, input=made.text))
            left_out += made.left_out
    positions = {item.position for item in told}
    replayable = item_forms.replayable(span.items)
    untold = left_out or any(item.position not in positions for item in replayable)
    return Prime(
        texts=(*map(messages.plain_message, _labels(span)), *(item.input for item in told)),
        primed=len(told),
        left_out=span.older + len(span.items) - len(told) + left_out,
        memory="partial" if untold and told else _memory(span, told),
    )


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


def _labels(span: Span) -> tuple[str, ...]:
    """Return what stands before the items: pinned facts and the gap, as user-role data."""
    notes = []
    if span.milestones:
        notes.append("\n".join([_PINNED, *(f"- {fact}" for fact in span.milestones)]))
    if span.older:
        notes.append(_GAP.format(count=span.older))
    return tuple(
        item_forms.dumps({"type": "message", "role": "user", "content": note}) for note in notes
    )


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
