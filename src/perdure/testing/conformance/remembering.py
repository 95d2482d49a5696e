"""What the next turn's history must amount to, however that turn comes to be delivered."""

from __future__ import annotations

from typing import Any

from perdure.model import Remembered
from perdure.testing.conformance.bench import Bench


class Remembering:
    """What a store promises about the bound by which amnesia is judged."""

    def test_the_next_turn_is_told_what_the_history_must_amount_to(self, bench: Bench) -> None:
        bound = Remembered(-300, 20, "model", "tools")
        turn = bench.taken("One.")
        bench.complete(turn, "1", response="resp_1", remembered=bound)

        assert bound == bench.accept("Two.", handle="resp_1").remembered

    def test_a_turn_that_is_taken_again_is_told_so_too(self, bench: Bench) -> None:
        """Also one that had to wait, or that begins a line of its own."""
        bound = Remembered(900, 0, "model")
        bench.complete(bench.taken("One."), "1", response="resp_1", remembered=bound)
        bench.taken("Two.", handle="resp_1", turn_id="on the line")
        beside = bench.taken("Two.", handle="resp_1", turn_id="beside it")
        shared: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        bench.conversation("conv_1")
        first = bench.taken("One.", **shared)
        assert "wait" == bench.accept("Two.", turn_id="waits", **shared).outcome
        bench.complete(first, "1", dialect="conversations", response="resp_2", remembered=bound)
        bench.later(120.0)

        for turn_id in ("on the line", "beside it"):
            again = bench.accept("Two.", handle="resp_1", turn_id=turn_id)
            assert bound == again.remembered, turn_id
        assert again.turn is not None
        assert beside.conversation == again.turn.conversation
        bench.underway(again.turn, "resp_3")
        assert bound == bench.found("resp_3").remembered
        assert bound == bench.accept("Two.", turn_id="waits", **shared).remembered

    def test_what_fails_leaves_what_is_remembered(self, bench: Bench) -> None:
        bound = Remembered(900, 0, "model")
        bench.complete(bench.taken("One."), "1", response="resp_1", remembered=bound)
        bench.fail(bench.taken("Two.", handle="resp_1"), withdrawn=True)

        assert bound == bench.accept("Three.", handle="resp_1").remembered
        assert bound == bench.found("resp_1").remembered

    def test_another_replica_need_not_amount_to_the_history(self, bench: Bench) -> None:
        turn = bench.taken("One.", subject="ann")
        bound = Remembered(900, 0, "model")
        bench.complete(turn, "1", response="resp_1", remembered=bound)

        bench.conversation("conv_1", subject="ann", primed_through=2)

        assert None is bench.found("conv_1").remembered
