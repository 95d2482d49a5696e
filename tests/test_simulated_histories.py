"""Thousands of histories of crashes, losses and races, and what must be true after each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from perdure.testing.simulator import Histories, Outcome, run_many
from tests.planted import PLANTED

CHUNK = 3_000
CHUNKS = 10
WITHIN = 2_000
#: Shown by one history in 2,300: within how many it must have been seen.
RARE = {"no fence on the new replica": 10_000}
FAULTS = {
    "crash",
    "stall",
    "lost before",
    "lost after",
    "slow",
    "500",
    "500 after the work",
    "429",
    "forget",
    "erased",
    "repeat",
    "given up",
}
#: Seeds of histories in which something did not hold once; each was a bug.
FOUND = (28, 50, 65, 67, 71, 81, 101, 103, 198, 249, 380, 800, 2082, 5691)


def hold(outcomes: Iterable[Outcome]) -> Counter[str]:
    """See that everything held; return how often each fault happened."""
    faults: Counter[str] = Counter()
    answered = turns = 0
    for outcome in outcomes:
        assert () == outcome.problems, f"seed {outcome.seed}"
        faults.update(outcome.faults)
        answered, turns = answered + outcome.answered, turns + outcome.turns
    assert answered > turns / 2, "histories in which hardly anything is answered show nothing"
    return faults


def test_what_was_found_once_stays_mended() -> None:
    hold(run_many(FOUND))


def test_a_history_follows_from_its_seed() -> None:
    first, second = Histories().run(4711), Histories().run(4711)

    assert (first.faults, first.turns, first.answered) == (
        second.faults,
        second.turns,
        second.answered,
    )


def test_some_histories() -> None:
    faults = hold(run_many(range(10_000_000, 10_000_300)))

    assert set(faults) == FAULTS


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_many_histories(chunk: int) -> None:
    """30,000 of them with 250,000 crashes in all."""
    faults = hold(run_many(range(chunk * CHUNK, (chunk + 1) * CHUNK)))

    assert set(faults) == FAULTS
    assert 25_000 <= faults["crash"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in RARE)) for name in PLANTED]
)
def test_a_planted_bug_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)

    within = RARE.get(name, WITHIN)
    assert seen(within), f"{within} histories did not show it"


def seen(within: int) -> bool:
    """Whether a history shows that something is wrong, be it by a store that breaks."""
    histories = Histories()
    for seed in range(within):
        try:
            if histories.run(seed).problems:
                return True
        except Exception:  # noqa: BLE001
            return True
    return False
