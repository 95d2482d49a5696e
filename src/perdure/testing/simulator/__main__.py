"""Run new histories for a while: ``make soak SECONDS=600``, or again the one of a seed."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from os import cpu_count

from perdure.model import value
from perdure.testing.simulator import MIXES, Mix, Outcome, run_many, site

_CHUNK = 200
_SAY_EVERY_SECONDS = 10.0


def main() -> int:
    """Return 1 where something did not hold."""
    options = argparse.ArgumentParser(prog="python -m perdure.testing.simulator")
    options.add_argument("--seconds", type=float, default=60.0, help="for how long")
    options.add_argument("--seed", type=int, action="append", help="only the history of this seed")
    options.add_argument("--mix", choices=MIXES, help="what histories are made of")
    options.add_argument("--store", help="on the store of a URL instead of SQLite in memory")
    chosen = options.parse_args()
    where = _Where(chosen.mix, chosen.store)
    try:
        return _again(chosen.seed, where) if chosen.seed else _soak(chosen.seconds, where)
    except KeyboardInterrupt:
        return 130


@value
class _Where:
    mix: Mix | None
    store: str | None

    def run(self, seeds: Iterable[int]) -> list[Outcome]:
        """Run the histories of seeds, here or in a process of their own."""
        if self.store is None:
            return list(run_many(seeds, self.mix))
        there = site(self.store)
        try:
            return list(run_many(seeds, self.mix, there))
        finally:
            there.close()


def _again(seeds: list[int], where: _Where) -> int:
    bad = 0
    for outcome in where.run(seeds):
        bad += _told(outcome)
        _say(f"seed {outcome.seed} ({outcome.mix}): {dict(sorted(outcome.faults.items()))}")
    return 1 if bad else 0


def _soak(seconds: float, where: _Where) -> int:
    began = said = time.monotonic()
    total: Counter[str] = Counter()
    bad = histories = 0
    # The one clock of a server cannot be turned by two.
    workers = 1 if where.store is not None else cpu_count() or 1
    with ProcessPoolExecutor(workers) as pool:
        chunks = _chunks(random.SystemRandom())
        while time.monotonic() - began < seconds:
            for outcomes in pool.map(where.run, islice(chunks, workers)):
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


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _told(outcome: Outcome) -> bool:
    if outcome.problems:
        _say("\n  ".join([f"seed {outcome.seed} ({outcome.mix}):", *outcome.problems]))
    return bool(outcome.problems)


if __name__ == "__main__":
    sys.exit(main())
