"""The deterministic model: it knows what its context says, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from perdure.testing.provider import text

KNOWS_NOTHING = "I know nothing about that."
"""What the model says when nothing in its context bears on the question."""
NOTED = "Noted: "
MAX_QUOTES = 3
MAX_NOTED_CHARS = 120

Item = dict[str, Any]
EXPLICIT_CALL = re.compile(r"^\s*call\s+([A-Za-z0-9_-]+)\s*(\{.*\})?\s*$")
EXPLICIT_WORDS = re.compile(r"^\s*say\s+(.+)$")
"""What it is told to say before it calls."""
PLACE = re.compile(r"\b[A-Z][\w'-]*(?:\s+[A-Z][\w'-]*)*")


@dataclass(frozen=True, slots=True)
class Prompt:
    """All that the model is given for one turn."""

    items: Sequence[Item]
    instructions: str | None = None
    tools: Sequence[dict[str, Any]] = field(default=())
    tool_choice: object = "auto"
    hidden_tokens: int = 0

    def tokens(self) -> int:
        """Count the tokens of the whole context."""
        extra = text.count_tokens(self.instructions) if self.instructions else 0
        tools = text.count_json(list(self.tools))
        return text.count_items(self.items) + extra + tools + self.hidden_tokens


def reply(prompt: Prompt) -> list[Item]:
    """Return the output items of one turn, without ids."""
    position = _last_user_position(prompt.items)
    asked = text.text_of_item(prompt.items[position]) if position >= 0 else ""
    after = prompt.items[position + 1 :]
    outputs = [item for item in after if _is_output(item)]
    if outputs:
        return [message(_quote_outputs(outputs))]
    calls = _explicit_calls(asked) or _chosen_calls(prompt, asked)
    return calls or [message(_answer(prompt, asked))]


def message(said: str) -> Item:
    """Return an assistant message without an id."""
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": said}],
    }


def _last_user_position(items: Sequence[Item]) -> int:
    for position in range(len(items) - 1, -1, -1):
        item = items[position]
        if item.get("type", "message") == "message" and item.get("role") == "user":
            return position
    return -1


def _is_output(item: Item) -> bool:
    return item.get("type") in {"function_call_output", "custom_tool_call_output"}


def _quote_outputs(outputs: Sequence[Item]) -> str:
    return "\n".join(text.text_of_item(item) or "(nothing)" for item in outputs)


def _answer(prompt: Prompt, asked: str) -> str:
    sentences = text.read(asked).sentences
    questions = [sentence for sentence in sentences if sentence.is_question]
    if not questions:
        return NOTED + _shortened(asked)
    wanted = frozenset[str]().union(*(sentence.stems for sentence in questions))
    quotes = _recall(prompt, wanted)
    return " ".join(quotes) if quotes else KNOWS_NOTHING


def _shortened(said: str) -> str:
    flat = " ".join(said.split())
    return flat if len(flat) <= MAX_NOTED_CHARS else flat[: MAX_NOTED_CHARS - 1] + "…"


def _recall(prompt: Prompt, wanted: frozenset[str]) -> list[str]:
    found: dict[str, tuple[int, int]] = {}
    for order, (said, reading) in enumerate(_readings(prompt)):
        if wanted.isdisjoint(reading.stems) or said.startswith((KNOWS_NOTHING, NOTED)):
            continue
        for sentence in reading.sentences:
            score = len(wanted & sentence.stems)
            if score and not sentence.is_question and not sentence.text.startswith(NOTED):
                found.setdefault(sentence.text, (-score, order))
    return sorted(found, key=lambda quote: found[quote])[:MAX_QUOTES]


def _readings(prompt: Prompt) -> Iterator[tuple[str, text.Reading]]:
    if prompt.instructions:
        yield prompt.instructions, text.read(prompt.instructions)
    for item in prompt.items:
        if item.get("type", "message") == "message" or _is_output(item):
            said = text.text_of_item(item)
            yield said, text.read(said)


def _explicit_calls(asked: str) -> list[Item]:
    lines = asked.splitlines()
    matches = [match for line in lines if (match := EXPLICIT_CALL.match(line))]
    if not matches:
        return []
    words = [message(match.group(1)) for line in lines if (match := EXPLICIT_WORDS.match(line))]
    return [*words, *(_call(match.group(1), match.group(2) or "{}") for match in matches)]


def _call(name: str, arguments: str) -> Item:
    return {"type": "function_call", "name": name, "arguments": arguments}


def _chosen_calls(prompt: Prompt, asked: str) -> list[Item]:
    functions = [_flat(tool) for tool in prompt.tools if tool.get("type") == "function"]
    if not functions or prompt.tool_choice == "none":
        return []
    best = max(functions, key=lambda tool: _bearing(tool, asked))
    forced = _forced_name(prompt.tool_choice)
    if forced is not None:
        best = next((tool for tool in functions if tool["name"] == forced), best)
    elif prompt.tool_choice != "required" and not _bearing(best, asked):
        return []
    arguments = _arguments(best.get("parameters") or {}, asked)
    packed = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    return [_call(str(best["name"]), packed)]


def _flat(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a function tool in Responses form; Assistants and Chat nest it."""
    nested = tool.get("function")
    return nested if isinstance(nested, dict) else tool


def _forced_name(choice: object) -> str | None:
    if not isinstance(choice, dict) or choice.get("type") != "function":
        return None
    name = _flat(choice).get("name")
    return name if isinstance(name, str) else None


def _bearing(tool: dict[str, Any], asked: str) -> int:
    name = str(tool.get("name", "")).replace("_", " ").replace("-", " ")
    described = f"{name} {tool.get('description') or ''}"
    return len(text.stems(described) & text.read(asked).stems)


def _arguments(schema: dict[str, Any], asked: str) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    return {name: _argument(name, kind, asked) for name, kind in properties.items()}


def _argument(name: str, schema: Any, asked: str) -> Any:
    if not isinstance(schema, dict):
        return name
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    kind = next((one for one in kind if one != "null"), None) if isinstance(kind, list) else kind
    if kind == "object":
        return _arguments(schema, asked)
    plain: dict[object, Any] = {"integer": 1, "number": 1.0, "boolean": True, "array": []}
    return plain[kind] if kind in plain else _capitalised(asked) or name


def _capitalised(asked: str) -> str:
    """Return the longest run of capitalised words that does not open a sentence."""
    runs = []
    for sentence in text.read(asked).sentences:
        runs += [match.group() for match in PLACE.finditer(sentence.text) if match.start()]
    return max(runs, key=len, default="")
