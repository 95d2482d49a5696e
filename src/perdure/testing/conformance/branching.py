"""Lines that part: a response that is continued more than once."""

from __future__ import annotations

from typing import Any

from perdure.testing.conformance.bench import Bench, again, recovery


class Branching:
    """What a store promises about branches: both lines keep what they know."""

    def test_a_second_turn_at_one_position_opens_a_branch(self, bench: Bench) -> None:
        trunk = bench.exchange("One.", "1", "resp_1")
        bench.exchange("Two.", "2", "resp_2", handle="resp_1")

        branch = bench.accept("Three.", handle="resp_1")

        assert branch.turn is not None
        assert branch.turn.conversation != trunk.conversation
        assert (1, 2) == (branch.turn.seq, branch.through)
        assert ["One.", "1", "Three."] == bench.said(branch.turn.conversation)
        assert ["One.", "1", "Two.", "2"] == bench.said(trunk.conversation)
        bench.complete(branch.turn, "3", response="resp_3")
        onward = bench.accept("Four.", handle="resp_3")
        assert onward.turn is not None
        assert (branch.turn.conversation, 4) == (onward.turn.conversation, onward.through)

    def test_a_branch_has_a_generation_of_its_own(self, bench: Bench) -> None:
        trunk = bench.exchange("One.", "1", "resp_1")
        bench.exchange("Two.", "2", "resp_2", handle="resp_1")
        branch = bench.taken("Three.", handle="resp_1")
        rebuilt = recovery(branch.conversation)
        bench.complete(branch, "3", response="resp_3", recovery=rebuilt)

        assert 1 == bench.found("resp_3").replica.generation
        assert 0 == bench.found("resp_2").replica.generation
        assert trunk.conversation == bench.found("resp_2").conversation

    def test_a_branch_of_a_branch_has_both_histories(self, bench: Bench) -> None:
        bench.exchange("One.", "1", "resp_1")
        bench.exchange("Two.", "2", "resp_2", handle="resp_1")
        bench.exchange("Three.", "3", "resp_3", handle="resp_1")
        bench.exchange("Four.", "4", "resp_4", handle="resp_3")

        twig = bench.taken("Five.", handle="resp_3")

        assert ["One.", "1", "Three.", "3", "Five."] == bench.said(twig.conversation)

    def test_a_failed_child_opens_no_branch(self, bench: Bench) -> None:
        trunk = bench.exchange("One.", "1", "resp_1")
        failed = bench.taken("Two.", handle="resp_1")
        bench.fail(failed, withdrawn=True)

        second = bench.taken("Three.", handle="resp_1")

        assert trunk.conversation == second.conversation
        assert ["One.", "1", "Three."] == bench.said(trunk.conversation)

    def test_a_repeat_beside_a_conversation_is_the_branch_again(self, bench: Bench) -> None:
        bench.conversation("conv_1")
        turn = bench.taken("One.", handle="conv_1", dialect="conversations")
        bench.complete(turn, "1", dialect="conversations", response="resp_1")
        branch = bench.taken("Two.", handle="resp_1")
        bench.fail(branch, "unknown")

        repeated = bench.accept("Two.", handle="resp_1")
        other = bench.taken("Three.", handle="resp_1")

        assert ("deliver", again(branch)) == (repeated.outcome, repeated.turn)
        assert len({turn.conversation, branch.conversation, other.conversation}) == 3

    def test_a_repeat_on_a_branch_is_the_branch_again(self, bench: Bench) -> None:
        bench.exchange("One.", "1", "resp_1")
        bench.exchange("Two.", "2", "resp_2", handle="resp_1")
        branch = bench.taken("Three.", handle="resp_1")
        bench.fail(branch, "unknown")

        repeated = bench.accept("Three.", handle="resp_1")

        assert ("deliver", again(branch)) == (repeated.outcome, repeated.turn)

    def test_what_was_refused_in_between_hides_no_child(self, bench: Bench) -> None:
        first = bench.exchange("One.", "1", "resp_1", subject="ann")
        bench.fail(bench.taken("Refused.", subject="ann"), withdrawn=True)
        bench.exchange("Two.", "2", "resp_2", subject="ann")

        branch = bench.taken("Again.", handle="resp_1")

        assert first.conversation != branch.conversation
        assert "resp_2" == bench.found("resp_2").replica.handle

    def test_what_was_answered_late_hides_no_child(self, bench: Bench) -> None:
        """An answer in the background that was entered behind a response that went on from it."""
        bench.exchange("One.", "1", "resp_1")
        late = bench.taken("Two.", handle="resp_1")
        bench.underway(late, "resp_2")
        bench.exchange("Three.", "3", "resp_3", handle="resp_2", looked="resp_2")
        bench.complete(late, "2", response="resp_2", settles=True)
        left = bench.taken("Left.", handle="resp_3")

        right = bench.accept("Right.", handle="resp_3")

        assert right.turn is not None
        assert left.conversation != right.turn.conversation
        assert ["One.", "1", "Two.", "Three.", "3"] == bench.said(
            right.turn.conversation, through=right.through
        )
        bench.fail(right.turn, "unknown")
        repeated = bench.accept("Right.", handle="resp_3", retry=True)
        assert ("deliver", True) == (repeated.outcome, repeated.again)

    def test_calls_without_items_part_as_others_do(self, bench: Bench) -> None:
        bench.exchange("One.", "1", "resp_1")
        calls: list[dict[str, Any]] = [
            {"items": (), "body_hash": name, "handle": "resp_1"} for name in ("left", "right")
        ]
        left, right = (bench.taken(**call) for call in calls)

        assert left.conversation != right.conversation
        bench.fail(right, "unknown")
        repeated = bench.accept(retry=True, **calls[1])
        assert (again(right), True) == (repeated.turn, repeated.again)
