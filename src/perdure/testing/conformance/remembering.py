"""What the next turn's history must amount to, however that turn comes to be delivered."""

from __future__ import annotations

from typing import Any

from perdure.model import Remembered
from perdure.testing.conformance.bench import Bench, numbered


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

    def test_what_is_deleted_is_no_part_of_it(self, bench: Bench) -> None:
        """Nor of what a turn has measured that was accepted before; of the next one's it is."""
        shared: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        bound = Remembered(900, 0, "model")
        conversation = bench.conversation("conv_1")
        bench.learn(conversation, numbered(1, 2))
        bench.complete(bench.taken("One.", **shared), dialect="conversations", remembered=bound)
        asked = bench.taken("Two.", **shared)

        assert "there" == bench.removed(conversation, "msg_1")
        assert None is bench.found("conv_1").remembered
        bench.complete(asked, dialect="conversations", remembered=bound)
        asked = bench.taken("Three.", **shared)
        assert None is bench.found("conv_1").remembered
        bench.complete(asked, dialect="conversations", remembered=bound)
        assert bound == bench.found("conv_1").remembered
        assert "unknown" == bench.removed(conversation, "msg_9")
        assert None is bench.found("conv_1").remembered, (
            "the log does not have it, the provider has"
        )

    def test_what_is_deleted_is_no_part_of_what_branches_go_on_from(self, bench: Bench) -> None:
        bound = Remembered(900, 0, "model")
        conversation = bench.conversation("conv_1")
        bench.learn(conversation, numbered(1, 2))
        turn = bench.taken("One.", handle="conv_1", dialect="conversations")
        bench.complete(
            turn, "1", dialect="conversations", response="resp_1", remembered=bound, primed=0
        )
        beside = bench.taken("Two.", handle="resp_1")
        bench.complete(beside, "2", response="resp_2", remembered=bound)
        assert bound == bench.found("resp_2").remembered
        asked = bench.taken("Three.", handle="resp_2")

        bench.removed(conversation, "msg_1")

        assert None is bench.found("resp_2").remembered
        bench.complete(asked, "3", response="resp_3", remembered=bound)
        assert None is bench.found("resp_3").remembered

    def test_what_was_measured_on_another_replica_is_no_part_of_it(self, bench: Bench) -> None:
        shared: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        conversation = bench.conversation("conv_1")
        asked = bench.taken("One.", **shared)
        bench.bind(conversation, 0, "conv_2")

        bench.complete(
            asked, dialect="conversations", primed=0, remembered=Remembered(900, 0, "model")
        )

        assert None is bench.found("conv_1").remembered

    def test_nobody_goes_on_from_an_answer_from_nothing(self, bench: Bench) -> None:
        """Nor from the response that it was made from; that is a link of what others continue."""
        bench.exchange("One.", "1", "resp_1", subject="ann")
        turn = bench.taken("Two.", subject="ann")

        bench.complete(turn, "2", response="resp_2", forgot="resp_1")

        assert {"lost"} == {bench.found(one).state for one in ("resp_1", "resp_2")}
        replica = bench.accept("Three.", subject="ann").replica
        assert replica is not None
        assert ("lost", "resp_2") == (replica.state, replica.handle)
        assert () == bench.orphans()

    def test_a_conversation_that_forgot_is_deleted(self, bench: Bench) -> None:
        bench.conversation("conv_1")
        turn = bench.taken("One.", handle="conv_1", dialect="conversations")

        bench.complete(turn, "1", dialect="conversations", response="resp_1", forgot="conv_1")

        assert "lost" == bench.found("conv_1").state
        assert "lost" == bench.found("conv_1").replica.state
        assert ["conv_1"] == bench.orphaned()
