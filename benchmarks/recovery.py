"""What a recovery costs as the history grows: ``make bench-recovery``.

A conversation is lost and used again, through the real SDK, transport and SQLite store; the
provider is a function that answers at once. Compared are a history of 500 items, given whole, and
one of 50,000 under a budget of 4,000 tokens, which is searched. Turn about, median of so many
rounds; and how much memory each took at its peak.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import statistics
import sys
import tempfile
import time
import tracemalloc
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx2
import openai

import perdure
from perdure.dialects.items import new_item
from perdure.engine import ops
from perdure.engine.recollect import Next, remember
from perdure.flow import run
from perdure.stores import SQLiteStore

UPSTREAM: Final = "http://provider.invalid/v1"
SIZES: Final = {500: 100_000, 50_000: 4_000}
_WORDS: Final = 25
_VOCABULARY: Final = 20_000
_PORTION: Final = 1_000
_TENANT: Final = "default"
_INTERRUPTED: Final = 130


class Provider:
    """Answers what a recovery asks; the conversations that are lost are given by id."""

    def __init__(self) -> None:
        self.lost: set[str] = set()

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        body = json.loads(request.content or b"{}")
        if request.url.path.endswith("/conversations"):
            created = {"id": f"conv_{uuid.uuid4().hex}", "object": "conversation", "metadata": {}}
            return httpx2.Response(200, json=created | {"created_at": 0})
        if body.get("conversation") in self.lost:
            message = f"Conversation with id '{body['conversation']}' not found."
            error = {"message": message, "type": "invalid_request_error"}
            return httpx2.Response(404, json={"error": error | {"param": None, "code": None}})
        part = {"type": "output_text", "text": "Yes.", "annotations": []}
        said = {"type": "message", "id": f"msg_{uuid.uuid4().hex}", "role": "assistant"}
        return httpx2.Response(
            200,
            json={
                "id": f"resp_{uuid.uuid4().hex}",
                "object": "response",
                "created_at": 0,
                "status": "completed",
                "model": "gpt-5.6",
                "output": [{**said, "status": "completed", "content": [part]}],
                "parallel_tool_calls": True,
                "tool_choice": "auto",
                "tools": [],
            },
        )


class Case:
    """A conversation of so many items, which can be lost again and again."""

    def __init__(self, folder: Path, items: int, chance: random.Random) -> None:
        self.items, self.provider = items, Provider()
        self._store = SQLiteStore(folder / f"{items}.db", synchronous="NORMAL")
        self._words = [
            "".join(chance.choices("abcdefghijklmnoprstuvw", k=chance.randint(3, 9)))
            for _ in range(_VOCABULARY)
        ]
        self._weights = [1 / place for place in range(1, _VOCABULARY + 1)]
        self._chance = chance
        self.handle = f"conv_{uuid.uuid4().hex}"
        perform = self._store.perform
        perform(
            ops.BindNew(_TENANT, UPSTREAM, "conversations", self.handle, (), b"{}", "", subject="s")
        )
        self._conversation = perform(ops.FindSubject(_TENANT, "s")).conversation
        for start in range(0, items, _PORTION):
            said = tuple(
                new_item({"role": "assistant" if n % 2 else "user", "content": self.text(_WORDS)})
                for n in range(min(_PORTION, items - start))
            )
            perform(ops.Learn(_TENANT, self._conversation, said, whole=True))
        while not perform(ops.Index(_TENANT, self._conversation, _PORTION)):
            pass
        transport = perdure.Transport(
            self._store,
            inner=httpx2.MockTransport(self.provider.answer),
            policy=perdure.Policy(budget_tokens=SIZES.get(items, 4_000)),
        )
        self.sdk = openai.OpenAI(
            api_key="made-up",
            base_url=UPSTREAM,
            max_retries=0,
            http_client=httpx2.Client(transport=transport),
        )

    def text(self, words: int) -> str:
        """Make a text up, of words as unevenly used as those of a language."""
        return " ".join(self._chance.choices(self._words, self._weights, k=words))

    def question(self) -> str:
        """Make a question up, of words that are not everywhere."""
        return " ".join(self._chance.choices(self._words[50:3_000], k=6))

    def recovers(self) -> float:
        """Lose the replica, have a turn, return the seconds that it took."""
        live = self._store.perform(ops.FindSubject(_TENANT, "s")).replica.handle
        self.provider.lost.add(live)
        question = self.question()
        began = time.perf_counter()
        answered: Any = self.sdk.responses.create(
            model="gpt-5.6", conversation=self.handle, input=question
        )
        taken = time.perf_counter() - began
        assert answered.model_extra["perdure"]["recovered"]
        return taken

    def recalls(self) -> float:
        """Make a prime without a provider, return the seconds that it took."""
        asked = ({"role": "user", "content": self.question()},)
        turn = Next(self._conversation, 2**31 - 1, asked)
        began = time.perf_counter()
        run(remember(_TENANT, turn, SIZES.get(self.items, 4_000)), self._store.perform)
        return time.perf_counter() - began

    def peak_bytes(self) -> int:
        """Return the most memory that Python held for one recovery."""
        tracemalloc.start()
        self.recovers()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    def close(self) -> None:
        """Close the client and the store."""
        self.sdk.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs=2, default=list(SIZES))
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    chance = random.Random(chosen.seed)
    log = logging.getLogger("perdure")
    level = log.level
    log.setLevel(logging.ERROR)  # each of these losses is on purpose
    folder = Path(tempfile.mkdtemp(prefix="perdure-bench-", dir="/var/tmp"))
    try:
        cases = [Case(folder, size, chance) for size in chosen.sizes]
        taken: dict[int, list[float]] = {case.items: [] for case in cases}
        recall: dict[int, list[float]] = {case.items: [] for case in cases}
        for number in range(chosen.rounds + 1):
            for case in cases:
                seconds = case.recovers(), case.recalls()
                if number:
                    taken[case.items].append(seconds[0])
                    recall[case.items].append(seconds[1])
        peaks = {case.items: case.peak_bytes() for case in cases}
        for case in cases:
            case.close()
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        log.setLevel(level)
        shutil.rmtree(folder, ignore_errors=True)
    print(f"Recovery of a lost conversation, median (lowest-highest) of {chosen.rounds} rounds")
    for items, seconds_taken in taken.items():
        print(
            f"{items:>8,} items  recovery {_ms(seconds_taken)}  prime alone {_ms(recall[items])}"
            f"  peak memory {peaks[items] / 2**20:.1f} MiB"
        )
    small, large = (statistics.median(taken[size]) for size in chosen.sizes)
    searched = statistics.median(recall[chosen.sizes[1]])
    print(
        f"ratio {(large - searched) / small:.2f} without the recall (to reach: 2), "
        f"{large / small:.2f} with it; recall {searched * 1e3:.1f} ms (to reach: 20)"
    )
    return 0


def _ms(seconds: list[float]) -> str:
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    return f"{middle * 1e3:.1f} ms ({low * 1e3:.1f}-{high * 1e3:.1f})"


if __name__ == "__main__":
    sys.exit(main())
