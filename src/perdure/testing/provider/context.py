"""What of a history reaches the model: cut to fit, compacted, and counted as a provider counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from perdure.testing.provider import errors, items, models, text
from perdure.testing.provider.model import Prompt
from perdure.testing.provider.state import Item, State
from perdure.testing.provider.wire import Json

CACHED_FROM_TOKENS = 1024
CACHED_STEP_TOKENS = 128
"""Prompt caching begins at 1,024 tokens and goes on in steps of 128 (OpenAI's guide)."""


def since_compaction(history: Sequence[Item]) -> tuple[Item, ...]:
    """Return a history from the newest compaction that the server has made in it."""
    for position in range(len(history) - 1, -1, -1):
        if history[position].cuts:
            return tuple(history[position:])
    return tuple(history)


def prompt(state: State, shown: Sequence[Item], body: Json) -> Prompt:
    """Return what the model is shown of these items, under a request's own settings."""
    return Prompt(
        items=items.opened(state, shown),
        instructions=body.get("instructions"),
        tools=body.get("tools") or (),
        tool_choice=body.get("tool_choice", "auto"),
        hidden_tokens=_hidden_tokens(shown),
    )


def _hidden_tokens(shown: Sequence[Item]) -> int:
    """Count the reasoning that is still in the context: that of a run of calls which goes on."""
    hidden = 0
    for item in reversed(shown):
        if item.body["type"] == "message" and item.body.get("role") == "user":
            break
        hidden += item.hidden_tokens
    return hidden


def fitted(state: State, wanted: Prompt, body: Json) -> Prompt:
    """Return a prompt that fits the model: refused, or without its oldest items under "auto"."""
    limit, name = state.max_context_tokens, str(body["model"])
    if models.weigh(name, wanted.tokens()) <= limit:
        return wanted
    if body.get("truncation") == "auto":
        for first in range(1, len(wanted.items)):
            shorter = replace(wanted, items=wanted.items[first:])
            if models.weigh(name, shorter.tokens()) <= limit:
                return shorter
    raise errors.CONTEXT_TOO_LONG.error()


def compaction(
    state: State, project: str, body: Json, wanted: Prompt, shown: Sequence[Item]
) -> Item | None:
    """Return the item that a server puts in the place of a context over its threshold."""
    thresholds = [
        one.get("compact_threshold")
        for one in body.get("context_management") or ()
        if one.get("type") == "compaction"
    ]
    limit = next((one for one in thresholds if isinstance(one, int)), None)
    if limit is None or models.weigh(str(body["model"]), wanted.tokens()) <= limit:
        return None
    said = "\n".join(text.text_of_item(one) for one in items.opened(state, shown))
    blob = state.seal(project, said)
    made = items.fresh(state, project, {"type": "compaction", "encrypted_content": blob})
    made.cuts = True
    return made


def cached_tokens(state: State, body: Json, history: Sequence[Item]) -> int:
    """Count what of an input the provider has seen just before, and so has cached."""
    seen = models.weigh(str(body["model"]), text.count_items(items.opened(state, history)))
    return seen // CACHED_STEP_TOKENS * CACHED_STEP_TOKENS if seen >= CACHED_FROM_TOKENS else 0
