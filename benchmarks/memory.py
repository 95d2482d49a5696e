"""How much of what matters survives a small budget: ``make bench-memory DATA=folder``.

Each file of the folder is one long conversation with questions, each of which names the messages
that answer it (the form of the LoCoMo data set: ``session_N``, ``session_N_date_time``, ``qa`` with
``evidence``; questions of category 5 have no answer and are left out). The conversation is put into
a real store message by message, at its own times. Then its replica is lost, once for each question,
and a prime is made under a budget with the question as the next message. Counted are the questions
of which *all* evidence stands in the prime.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

from perdure.dialects.items import new_item, text_of
from perdure.dialects.tokens import message_tokens
from perdure.embedding import wordllama
from perdure.engine import ops
from perdure.engine.recollect import Helpers, Next, remember
from perdure.flow import Done, Op, run
from perdure.recall.words import words
from perdure.stores import SQLiteStore
from perdure.transport.likeness import liken

BUDGETS: Final = (1_000, 2_000, 4_000, 8_000)
TARGETS: Final = {1_000: 65.0, 2_000: 75.0, 4_000: 85.0, 8_000: 92.0}
_NO_ANSWER: Final = 5
_INTERRUPTED: Final = 130
_BETWEEN_SECONDS: Final = (
    30.0  # between two messages of a session, which have no times of their own
)
_EVIDENCE: Final = re.compile(r"D\d+:\d+")
_THROUGH: Final = 2**31 - 1
_AT: Final = "%I:%M %p on %d %B, %Y"

Chosen: TypeAlias = "set[str]"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    name: str
    role: str
    text: str
    at: float


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the names of the messages that answer it."""

    text: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A long conversation and questions about it."""

    name: str
    messages: tuple[Message, ...]
    questions: tuple[Question, ...]


def read(path: Path) -> Conversation:
    """Read one file; the first speaker is the user, the other the assistant."""
    content = json.loads(path.read_text(encoding="utf-8"))
    messages = []
    for number in _sessions(content):
        began = datetime.strptime(content[f"session_{number}_date_time"], _AT).replace(tzinfo=UTC)
        for place, turn in enumerate(content[f"session_{number}"]):
            role = "user" if turn["speaker"] == content["speaker_a"] else "assistant"
            at = began.timestamp() + place * _BETWEEN_SECONDS
            messages.append(Message(turn["dia_id"], role, turn["text"], at))
    questions = [
        Question(one["question"], tuple(_EVIDENCE.findall(" ".join(one["evidence"]))))
        for one in content["qa"]
        if one.get("category") != _NO_ANSWER
    ]
    return Conversation(path.stem, tuple(messages), tuple(one for one in questions if one.evidence))


def _sessions(content: dict[str, Any]) -> Iterator[int]:
    number = 1
    while f"session_{number}" in content:
        yield number
        number += 1


# -- the ways to choose ----------------------------------------------------------------------


class Ours:
    """A conversation in a store of ours, primed as after a loss."""

    _helpers = Helpers()

    def __init__(self, conversation: Conversation) -> None:
        self._now = 0.0
        self._store = SQLiteStore(None, clock=lambda: self._now)
        self._perform = self._store.perform
        self._perform(
            ops.BindNew("t", "u", "conversations", "conv_1", (), b"{}", "intent", subject="s")
        )
        found = self._perform(ops.FindSubject("t", "s"))
        self._conversation = found.conversation
        for message in conversation.messages:
            self._now = message.at
            item = new_item({"role": message.role, "content": message.text})
            self._perform(ops.Learn("t", self._conversation, (item,), whole=True))

    def chosen(self, question: str, budget: int) -> Chosen:
        """Return the texts of everything that a prime for this question holds."""
        asked = ({"role": "user", "content": question},)
        turn = Next(self._conversation, _THROUGH, asked)
        outcome = run(remember("t", turn, budget, self._helpers), self._asked)
        assert isinstance(outcome, Done)
        texts = [text_of(json.loads(text)) for text in outcome.value.texts]
        spent = sum(map(message_tokens, texts))
        assert spent <= budget, f"{spent} tokens under a budget of {budget}"
        return set(texts)

    def _asked(self, op: Op[Any]) -> Any:
        return liken(op) if isinstance(op, ops.Liken) else self._perform(op)

    def close(self) -> None:
        """Give the store back."""
        self._store.close()


class OursWithEmbeddings(Ours):
    """The same with the embeddings that the extra brings."""

    def __init__(self, conversation: Conversation) -> None:
        super().__init__(conversation)
        self._helpers = Helpers(embed=_model())


_model = functools.cache(wordllama)


class LastN:
    """The newest messages that fit: what is done everywhere."""

    def __init__(self, conversation: Conversation) -> None:
        self._texts = [message.text for message in conversation.messages]

    def chosen(self, question: str, budget: int) -> Chosen:
        """Return the newest texts that fit."""
        del question
        found: Chosen = set()
        for text in reversed(self._texts):
            budget -= message_tokens(text)
            if budget < 0:
                break
            found.add(text)
        return found

    def close(self) -> None:
        """Nothing to give back."""


class PlainBM25:
    """BM25 over messages, each found one with the messages beside it."""

    _K1: Final = 1.2
    _B: Final = 0.75

    def __init__(self, conversation: Conversation) -> None:
        self._texts = [message.text for message in conversation.messages]
        self._said = [Counter(word.lower() for word in words(text)) for text in self._texts]
        self._mean = statistics.mean(sum(said.values()) for said in self._said)
        self._counts = Counter(word for said in self._said for word in said)

    def chosen(self, question: str, budget: int) -> Chosen:
        """Return the best texts and their neighbours, as many as fit."""
        asked = {word.lower() for word in words(question)}
        scores = [self._score(said, asked) for said in self._said]
        taken: set[int] = set()
        for best in sorted(range(len(scores)), key=lambda index: -scores[index]):
            near = [i for i in (best, best - 1, best + 1) if 0 <= i < len(scores)]
            for index in near:
                cost = message_tokens(self._texts[index])
                if index not in taken and cost <= budget:
                    budget -= cost
                    taken.add(index)
        return {self._texts[index] for index in taken}

    def _score(self, said: Counter[str], asked: set[str]) -> float:
        length = 1 - self._B + self._B * sum(said.values()) / self._mean
        size = len(self._said)
        return sum(
            math.log(1 + (size - self._counts[word] + 0.5) / (self._counts[word] + 0.5))
            * said[word] * (self._K1 + 1) / (said[word] + self._K1 * length)
            for word in asked & said.keys()
        )  # fmt: skip

    def close(self) -> None:
        """Nothing to give back."""


WAYS: Final[dict[str, Callable[[Conversation], Any]]] = {
    "last N": LastN,
    "plain BM25": PlainBM25,
    "perdure": Ours,
    "with embeddings": OursWithEmbeddings,
}


# -- the run ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Score:
    """How many questions kept their evidence under a budget, and how long each prime took."""

    kept: int = 0
    asked: int = 0
    seconds: list[float] | None = None

    @property
    def percent(self) -> float:
        """The share that kept it."""
        return 100 * self.kept / self.asked


def measure(
    conversations: Sequence[Conversation], budgets: Sequence[int]
) -> dict[str, dict[int, Score]]:
    """Ask everything, in every way, under every budget."""
    scores = {name: {budget: Score(seconds=[]) for budget in budgets} for name in WAYS}
    for conversation in conversations:
        _say(f"{conversation.name}: {len(conversation.questions)} questions")
        texts = {message.name: message.text for message in conversation.messages}
        for name, make in WAYS.items():
            way = make(conversation)
            for question in conversation.questions:
                wanted = {texts.get(one, "") for one in question.evidence}
                for budget in budgets:
                    began = time.perf_counter()
                    chosen = way.chosen(question.text, budget)
                    score = scores[name][budget]
                    assert score.seconds is not None
                    score.seconds.append(time.perf_counter() - began)
                    score.asked += 1
                    score.kept += wanted <= chosen
            way.close()
    return scores


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(scores: dict[str, dict[int, Score]], budgets: Sequence[int]) -> str:
    """Return the figures as people read them."""
    asked = next(iter(next(iter(scores.values())).values())).asked
    lines = [
        f"Evidence recall, % of {asked} questions, and milliseconds per prime (median)",
        "",
        f"{'budget in tokens':<18}" + "".join(f"{budget:>16,}" for budget in budgets),
    ]
    for name, row in scores.items():
        cells = [
            f"{row[b].percent:>7.1f}{statistics.median(row[b].seconds or [0]) * 1e3:>6.1f} ms"
            for b in budgets
        ]
        lines.append(f"{name:<18}" + "".join(cells))
    aims = [f"{TARGETS[b]:>7.0f}         " if b in TARGETS else " " * 16 for b in budgets]
    lines.append(f"{'to reach':<18}" + "".join(aims).rstrip())
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("data", type=Path, help="a folder of conversations with questions")
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS))
    chosen = parser.parse_args(arguments)
    files = sorted(chosen.data.glob("*.json"))
    if not files:
        parser.error(f"{chosen.data} has no .json files")
    try:
        scores = measure([read(path) for path in files], chosen.budgets)
    except KeyboardInterrupt:
        return _INTERRUPTED
    print(table(scores, chosen.budgets))
    return 0


if __name__ == "__main__":
    sys.exit(main())
