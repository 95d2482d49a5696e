"""One model turn: what is scripted or recalled, given ids and cut to its limit."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from perdure.testing.provider import items, model, text
from perdure.testing.provider.state import Item, State
from perdure.testing.provider.wire import Json


@dataclass(frozen=True, slots=True)
class Turned:
    """The outcome of one turn."""

    output: list[Item]
    status: str
    output_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True)
class Wish:
    """How the output of a turn is to be made."""

    limit_tokens: int | None = None
    reasons: bool = False
    seal_reasoning: bool = False


def speak(state: State, prompt: model.Prompt) -> list[Json]:
    """Return the next scripted output, or what the model says, without ids."""
    if not state.scripted:
        return model.reply(prompt)
    scripted = state.scripted.popleft()
    return [model.message(scripted)] if isinstance(scripted, str) else [*map(dict, scripted)]


def take_turn(state: State, project: str, prompt: model.Prompt, wish: Wish) -> Turned:
    """Produce the output items of one turn, not yet kept."""
    scripted = bool(state.scripted)
    said = speak(state, prompt)
    if wish.reasons and not scripted:
        said = [{"type": "reasoning", "summary": []}, *said]
    was_cut, said = cut(said, wish.limit_tokens)
    output = [_output_item(state, project, raw, wish) for raw in said]
    for item in output:
        if item.body["type"] == "reasoning":
            item.hidden_tokens = state.reasoning_tokens
    _link(output)
    status = "incomplete" if was_cut or _any_incomplete(output) else "completed"
    hidden = sum(item.hidden_tokens for item in output)
    counted = text.count_items(item.body for item in output) + hidden
    shells = sum(text.TOKENS_PER_ITEM for item in output if item.body["type"] == "reasoning")
    return Turned(output, status, counted, shells + hidden)


def _output_item(state: State, project: str, raw: Json, wish: Wish) -> Item:
    kind = raw.get("type", "message")
    handle = items.new_id(state, kind)
    if kind == "function_call":
        raw = {
            "type": kind,
            "status": raw.get("status"),
            "arguments": _packed(raw.get("arguments", "{}")),
            "call_id": raw.get("call_id") or state.ids.short("call"),
            "name": raw["name"],
        }
    elif kind == "message":
        raw = {"role": "assistant", **raw}
    elif kind == "reasoning":
        raw = {"summary": [], **raw}
        if wish.seal_reasoning:
            raw["encrypted_content"] = state.seal(project, "")
    return Item(handle, items.stored_form(raw, handle), project)


def _packed(arguments: object) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _link(output: Sequence[Item]) -> None:
    for first, second in itertools.pairwise(output):
        if first.body["type"] == "reasoning":
            first.follower_id = second.id
            second.reasoning_id = first.id


def _any_incomplete(output: Sequence[Item]) -> bool:
    return any(item.body.get("status") == "incomplete" for item in output)


def cut(said: list[Json], limit_tokens: int | None) -> tuple[bool, list[Json]]:
    """Cut the first message that is longer than the limit; what follows is never said."""
    if limit_tokens is None:
        return False, said
    left = limit_tokens
    for index, raw in enumerate(said):
        spoken = text.text_of_item(raw)
        cost = text.count_tokens(spoken)
        if cost > left and raw.get("type", "message") == "message" and _is_plain(raw):
            part = {"type": "output_text", "text": text.cut_tokens(spoken, max(left, 1))}
            short = raw | {"content": [part], "status": "incomplete"}
            return True, [*said[:index], short]
        left -= cost
    return False, said


def _is_plain(raw: Json) -> bool:
    content = raw.get("content")
    return isinstance(content, list) and len(content) == 1 and "text" in content[0]
