"""What was said in conversations, as a journal has it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from perdure.dialects.items import text_of


class Spoken(NamedTuple):
    """One turn as the journal has it."""

    conversation: int
    seq: int
    tokens: int | None
    context: list[dict[str, Any]]
    asked: str
    reply: str


def spoken(rows: Iterable[tuple[Any, ...]]) -> list[Spoken]:
    """Every turn in the journal's order, with all that stands before its reply.

    A row is an item: its conversation, turn, position, role and wire form, and its turn's tokens.
    """
    found: list[Spoken] = []
    context: list[dict[str, Any]] = []
    for conversation, seq, position, role, wire, tokens in rows:
        item = json.loads(wire)
        if position == 1:
            context = []
        if role == "assistant":
            asked = text_of(context[-1])
            found.append(Spoken(conversation, seq, tokens, [*context], asked, text_of(item)))
        context.append(item)
    return found
