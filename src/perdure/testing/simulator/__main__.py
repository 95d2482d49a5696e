"""Run new histories for a while: ``make soak SECONDS=600``, or again the one of a seed."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from os import cpu_count

from perdure.testing.simulator import Outcome, run_many

_CHUNK = 200
_SAY_EVERY_SECONDS = 10.0


def main() -> int:
    """Return 1 where something did not hold."""
    options = argparse.ArgumentParser(prog="python -m perdure.testing.simulator")
    options.add_argument("--seconds", type=float, default=60.0, help="for how long")
    options.add_argument("--seed", type=int, action="append", help="only the history of this seed")
    chosen = options.parse_args()
    try:
        return _again(chosen.seed) if chosen.seed else _soak(chosen.seconds)
    except KeyboardInterrupt:
        return 130


def _again(seeds: list[int]) -> int:
    bad = 0
    for outcome in run_many(seeds):
        bad += _told(outcome)
    return 1 if bad else 0


def _soak(seconds: float) -> int:
    began = said = time.monotonic()
    total: Counter[str] = Counter()
    bad = histories = 0
    workers = cpu_count() or 1
    with ProcessPoolExecutor(workers) as pool:
        chunks = _chunks(random.SystemRandom())
        while time.monotonic() - began < seconds:
            for outcomes in pool.map(_run_chunk, islice(chunks, workers)):
                for outcome in outcomes:
                    histories += 1
                    total.update(outcome.faults)
                    bad += _told(outcome)
            if time.monotonic() - said >= _SAY_EVERY_SECONDS:
                said = time.monotonic()
                _say(f"{said - began:.0f} s: {histories:,} histories, {bad} bad")
    _say(f"{histories:,} histories, {bad} bad; {dict(sorted(total.items()))}")
    return 1 if bad else 0


def _chunks(chance: random.SystemRandom) -> Iterator[range]:
    while True:
        first = chance.randrange(1 << 40)
        yield range(first, first + _CHUNK)


def _run_chunk(seeds: range) -> list[Outcome]:
    return list(run_many(seeds))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _told(outcome: Outcome) -> bool:
    if outcome.problems:
        _say("\n  ".join([f"seed {outcome.seed}:", *outcome.problems]))
    return bool(outcome.problems)


if __name__ == "__main__":
    sys.exit(main())
