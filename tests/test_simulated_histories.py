"""Thousands of histories of crashes, losses and races, and what must be true after each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import pytest

from perdure.testing.simulator import Histories, Mix, Outcome, run_many
from tests.planted import PLANTED

CHUNK = 3_000
CHUNKS = 10
WITHIN = 2_000
#: In which histories a bug shows that hardly any shows; the others show in any mixture.
SHOWN_BY: dict[str, Mix] = {
    "no compare-and-swap on the generation": "streams",
    "no fence on the answer": "streams",
    "a crashed worker keeps its epoch": "streams",
    "who had to wait is not judged": "streams",
    "only those ahead are waited for": "calls",
    "a rebuilt chain may lack older history": "calls",
    "an error in a stream is a failure": "streams",
    "a run's messages are read some time": "threads",
    "a message stands where it was entered": "threads",
    "any run may be whose it is not": "threads",
    "a run ends unseen": "threads",
    "a run is over before its turn is": "threads",
}
ANY = {
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
    "store down",
    "store silent",
    "had elsewhere",
    "deleted",
}
STREAMED = {
    "streamed",
    "refused in a stream",
    "crash in a stream",
    "cut before its end",
    "cut after its end",
    "closed",
}
FORGOTTEN = {"emptied", "forgetting told"}
RESPONSES = {"branch", "background", "not polled"}
#: What has to happen in the histories of each kind, else they show nothing of it.
FAULTS: dict[Mix, set[str]] = {
    "calls": ANY | FORGOTTEN | RESPONSES,
    "streams": ANY | FORGOTTEN | RESPONSES | STREAMED | {"error in a stream", "failed in a stream"},
    "threads": ANY
    | FORGOTTEN
    | STREAMED
    | {"run active", "run lost", "run failed", "run expired", "tools", "interim", "cancelled"},
}


def hold(outcomes: Iterable[Outcome]) -> dict[Mix, Counter[str]]:
    """See that everything held; return how often each fault happened in each kind of history."""
    faults: defaultdict[Mix, Counter[str]] = defaultdict(Counter)
    answered = turns = 0
    for outcome in outcomes:
        assert () == outcome.problems, f"seed {outcome.seed} ({outcome.mix})"
        faults[outcome.mix].update(outcome.faults)
        answered, turns = answered + outcome.answered, turns + outcome.turns
    assert answered > turns / 2, "histories in which hardly anything is answered show nothing"
    return faults


@pytest.mark.parametrize("mix", FAULTS)
def test_a_history_follows_from_its_seed(mix: Mix) -> None:
    first, second = Histories().run(4711, mix), Histories().run(4711, mix)

    assert (first.faults, first.turns, first.answered) == (
        second.faults,
        second.turns,
        second.answered,
    )


def test_some_histories() -> None:
    faults = hold(run_many(range(10_000_000, 10_000_500)))

    assert FAULTS == {mix: set(found) for mix, found in faults.items()}


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_many_histories(chunk: int) -> None:
    """30,000 of them with 250,000 crashes in all."""
    faults = hold(run_many(range(chunk * CHUNK, (chunk + 1) * CHUNK)))

    assert FAULTS == {mix: set(found) for mix, found in faults.items()}
    assert 25_000 <= sum(found["crash"] for found in faults.values())


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)

    assert seen(WITHIN, SHOWN_BY.get(name)), f"{WITHIN} histories did not show it"


def seen(within: int, mix: Mix | None) -> bool:
    """Whether a history shows that something is wrong, be it by a store that breaks."""
    histories = Histories()
    for seed in range(within):
        try:
            if histories.run(seed, mix).problems:
                return True
        except Exception:  # noqa: BLE001
            return True
    return False
