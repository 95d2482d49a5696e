"""Words, sentences and tokens, counted the same way every time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

TOKEN = re.compile(r"\w+|[^\w\s]")
PIECE = re.compile(r"\s*(?:\w+|[^\w\s])|\s+\Z")
WORD = re.compile(r"[^\W_]+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
TOKENS_PER_ITEM = 4
"""What the envelope of one item costs, besides its words."""
LOW_IMAGE_TOKENS = 85
IMAGE_TOKENS = 765
"""What an image costs, in low detail and otherwise (1,024 pixels square, OpenAI's vision guide)."""
COMPACTED = 8
"""How many times shorter than the history a compaction of it is."""

_STOP_WORDS = """
    a about above after again all also am an and any are as ask asked at be because been before
    being but by can could d did do does doing don done each else ever for from get give given go
    had has have having he her here hers him his how i if in into is it its just kindly know ll
    let m made make many may me might mine more most much must my need no not now of off on
    once one only or other our ours out over own please put re really remember remind s said say
    says she should so some such t tell than thank thanks that the their theirs them then there
    these they thing this those to too told up us use used ve very was we were what whats when
    where which while who whom whose why will with would you your yours
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

_ASKING = """
    what whats which who whom whose where when why how do does did is are was were am can could
    will would should shall may might have has had
"""
ASKING = frozenset(_ASKING.split())
ASKING_PHRASES = ("tell me what", "tell me where", "tell me who", "tell me when", "remind me")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence and the stems it can be found by."""

    text: str
    stems: frozenset[str]
    is_question: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of one text: its sentences and all their stems."""

    sentences: tuple[Sentence, ...]
    stems: frozenset[str]


ENDINGS = (("ies", "y"), ("ing", ""), ("ed", ""), ("ss", "ss"), ("s", ""))
MIN_STEM_CHARS = 3


def stem(word: str) -> str:
    """Cut the commonest English endings, so that `dogs` finds `dog`."""
    for ending, put in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= MIN_STEM_CHARS:
            word = word[: -len(ending)] + put
            break
    return word.rstrip("e") if len(word) > MIN_STEM_CHARS + 1 else word


def stems(text: str) -> frozenset[str]:
    """Return the stems of the content words of `text`."""
    words = (word for word in WORD.findall(text.lower()) if word not in STOP_WORDS)
    return frozenset(stem(word) for word in words)


def is_question(sentence: str) -> bool:
    """Tell whether a sentence asks something."""
    if sentence.rstrip().endswith("?"):
        return True
    lowered = sentence.lower().strip()
    first = WORD.search(lowered)
    if first is None or not lowered.startswith(first.group()):
        return False
    asks = first.group() in ASKING and not sentence.rstrip().endswith((".", "!"))
    return asks or lowered.startswith(ASKING_PHRASES)


@lru_cache(maxsize=1 << 17)
def read(text: str) -> Reading:
    """Split a text into sentences; cached, since a context is read again on every turn."""
    found = []
    for part in SENTENCE_END.split(text):
        stripped = part.strip()
        if stripped:
            found.append(Sentence(stripped, stems(stripped), is_question(stripped)))
    every: frozenset[str] = frozenset().union(*(sentence.stems for sentence in found))
    return Reading(tuple(found), every)


@lru_cache(maxsize=1 << 17)
def count_tokens(text: str) -> int:
    """Count words and punctuation marks; cached per text."""
    return len(TOKEN.findall(text))


def cut_tokens(text: str, limit_tokens: int) -> str:
    """Return the first `limit_tokens` tokens of `text`, blanks between them kept."""
    for number, match in enumerate(TOKEN.finditer(text), start=1):
        if number == limit_tokens:
            return text[: match.end()]
    return text


def pieces(text: str) -> list[str]:
    """Cut a text into the deltas of a stream; joined they are the text again."""
    return PIECE.findall(text) if text else []


def text_of_content(content: object) -> str:
    """Return the words of a message's content, whatever its form."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(text for text in map(_text_of_part, content) if text)


def _text_of_part(part: Any) -> str:
    if not isinstance(part, dict):
        return ""
    text = part.get("text", part.get("refusal"))
    if isinstance(text, dict):
        text = text.get("value")
    return text if isinstance(text, str) else ""


def text_of_item(item: dict[str, Any]) -> str:
    """Return everything an item says, for counting and for recalling."""
    kind = item.get("type", "message")
    if kind == "message":
        return text_of_content(item.get("content"))
    if kind in {"function_call_output", "custom_tool_call_output"}:
        return text_of_content(item.get("output"))
    if kind == "function_call":
        return f"{item.get('name')} {item.get('arguments')}"
    if kind == "reasoning":
        return text_of_content(item.get("summary"))
    return ""


def count_items(items: Iterable[dict[str, Any]]) -> int:
    """Count the tokens of a context."""
    return sum(map(_count_item, items))


def _count_item(item: dict[str, Any]) -> int:
    said = count_tokens(text_of_item(item))
    if item.get("compacted"):
        return said // COMPACTED + TOKENS_PER_ITEM
    content = item.get("content")
    images = [
        LOW_IMAGE_TOKENS if part.get("detail") == "low" else IMAGE_TOKENS
        for part in (content if isinstance(content, list) else ())
        if part.get("type") == "input_image"
    ]
    return said + TOKENS_PER_ITEM + sum(images)


def count_json(value: object) -> int:
    """Count the tokens of a tool definition or a schema."""
    return count_tokens(json.dumps(value, ensure_ascii=False)) if value else 0
