"""Responses in the background: what a store knows of them before they have their answer."""

from __future__ import annotations

from typing import Any, Final

from perdure.engine import ops
from perdure.model import Remembered
from perdure.testing.conformance.bench import Bench, again, message, recovery

SHARED: Final[dict[str, Any]] = {"handle": "conv_1", "dialect": "conversations"}


class Background:
    """What a store promises about responses that are answered later."""

    def test_what_is_said_in_the_background_comes_first(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        turn = bench.taken("One.", **SHARED)
        bench.underway(turn, "resp_1")

        accepted = bench.accept("Two.", **SHARED)

        assert ("unread", "resp_1", False) == (
            accepted.outcome,
            accepted.unread,
            accepted.unread_ended,
        )
        bench.fail(bench.taken("Two.", **SHARED, looked="resp_1"))
        bench.complete(turn, "1", dialect="conversations", response="resp_1")
        bench.taken("Three.", **SHARED)
        assert ["One.", "Two.", "1", "Three."] == bench.said(conversation)

    def test_a_chain_goes_on_from_what_was_said_in_the_background(self, bench: Bench) -> None:
        turn = bench.taken("One.")
        bench.underway(turn, "resp_1")
        accepted = bench.accept("Two.", handle="resp_1")
        assert ("unread", "resp_1") == (accepted.outcome, accepted.unread)
        bench.complete(turn, "1", response="resp_1")
        bench.exchange("Two.", "2", "resp_2", handle="resp_1")
        assert ["One.", "1", "Two.", "2"] == bench.said(turn.conversation)

    def test_what_a_subject_is_told_in_the_background_comes_first(self, bench: Bench) -> None:
        turn = bench.taken("One.", subject="ann")
        bench.underway(turn, "resp_1")
        assert "resp_1" == bench.accept("Two.", subject="ann").unread
        bench.complete(turn, "1", response="resp_1")
        bench.exchange("Two.", "2", "resp_2", subject="ann")
        assert ["One.", "1", "Two.", "2"] == bench.said(turn.conversation)

    def test_a_subject_that_was_forgotten_meanwhile_stays_so(self, bench: Bench) -> None:
        bench.underway(bench.taken("One.", subject="ann"), "resp_1")
        assert "unread" == bench.accept("Two.", subject="ann").outcome
        bench.ask(ops.Forget(bench.tenant, "ann"))
        assert "erased" == bench.accept("Two.", subject="ann", looked="resp_1").outcome

    def test_two_lines_go_on_from_what_was_said_in_the_background(self, bench: Bench) -> None:
        turn = bench.taken("One.")
        bench.underway(turn, "resp_1")
        bench.complete(turn, "1", response="resp_1")
        left = bench.exchange("Left.", "2", "resp_2", handle="resp_1")
        right = bench.exchange("Right.", "3", "resp_3", handle="resp_1")
        assert left.conversation == turn.conversation != right.conversation
        assert ["One.", "1", "Right.", "3"] == bench.said(right.conversation)

    def test_what_goes_on_from_one_that_failed_has_a_line_of_its_own(self, bench: Bench) -> None:
        first = bench.exchange("One.", "1", "resp_1")
        turn = bench.taken("Two.", handle="resp_1")
        bench.underway(turn, "resp_2")
        bench.fail(turn)
        bench.exchange("Three.", "3", "resp_3", handle="resp_2")

        other = bench.exchange("Four.", "4", "resp_4", handle="resp_1")

        assert other.conversation != first.conversation
        assert ["One.", "1", "Four.", "4"] == bench.said(other.conversation)
        assert ["One.", "1", "Two.", "Three.", "3"] == bench.said(first.conversation)

    def test_one_that_failed_in_the_background_is_not_waited_for(self, bench: Bench) -> None:
        bench.conversation("conv_1")
        turn = bench.taken("One.", **SHARED)
        bench.underway(turn, "resp_1")
        bench.fail(turn)
        assert "deliver" == bench.accept("Two.", **SHARED).outcome

    def test_what_is_rebuilt_in_the_background_is_recorded(self, bench: Bench) -> None:
        first = bench.exchange("One.", "1", "resp_1")
        log = first.conversation
        turn = bench.taken("Two.", handle="resp_1")

        bench.underway(turn, "resp_2", recovery=recovery(log), lost="resp_1")
        bench.underway(turn, "resp_2", recovery=recovery(log), lost="resp_1")  # shown again

        assert "lost" == bench.found("resp_1").state
        assert ("live", 1) == (
            bench.found("resp_2").state,
            bench.found("resp_2").replica.generation,
        )
        told = bench.ask(ops.ReadRecovery(bench.tenant, log, 1))
        assert told is not None
        assert ("full", 3) == (told.memory, told.primed)
        bench.complete(turn, "2", response="resp_2")
        assert ("live", 1) == (
            bench.found("resp_2").state,
            bench.found("resp_2").replica.generation,
        )

    def test_what_is_rebuilt_in_the_background_need_not_amount_to_the_history(
        self, bench: Bench
    ) -> None:
        """Its prime may have less."""
        before = Remembered(5_000, 0, "m")
        turn = bench.taken("One.")
        bench.complete(turn, "1", response="resp_1", remembered=before)
        turn = bench.taken("Two.", handle="resp_1")

        bench.underway(turn, "resp_2")

        assert before == bench.found("resp_2").remembered
        bench.fail(turn)
        turn = bench.taken("Two.", handle="resp_1")
        bench.underway(turn, "resp_3", recovery=recovery(turn.conversation), lost="resp_1")
        assert None is bench.found("resp_3").remembered

    def test_a_conversation_that_is_rebuilt_in_the_background_is_recorded(
        self, bench: Bench
    ) -> None:
        log = bench.conversation("conv_1", "One.")
        turn = bench.taken("Two.", **SHARED)
        bench.bind(
            log, 0, "conv_2", lost="conv_1", turn=turn, recovery=recovery(log, memory="none")
        )

        bench.underway(turn, "resp_2", recovery=recovery(log), lost="conv_1")

        told = bench.ask(ops.ReadRecovery(bench.tenant, log, 1))
        assert told is not None
        assert ("full", 1) == (told.memory, bench.found("conv_2").replica.generation)
        assert 0 == bench.found("conv_2").replica.primed_through
        bench.complete(turn, "2", dialect="conversations", response="resp_2", primed=1)
        assert 3 == bench.found("conv_2").replica.primed_through

    def test_what_was_made_in_the_background_from_a_partial_prime_is_lost(
        self, bench: Bench
    ) -> None:
        bench.exchange("One.", "1", "resp_1", handle="resp_old")
        turn = bench.taken("Two.", handle="resp_1")
        log = turn.conversation
        bench.underway(turn, "resp_2", recovery=recovery(log))
        older = (message("Older.", provider_id="msg_0"),)
        bench.ask(ops.Adopted(bench.tenant, log, older, done=True))
        assert "lost" == bench.found("resp_2").state

        bench.complete(turn, "2", response="resp_2")

        assert "lost" == bench.found("resp_2").state
        assert "live" == bench.found("resp_1").state

    def test_a_replica_that_is_asked_while_an_answer_comes_elsewhere_is_given_up(
        self, bench: Bench
    ) -> None:
        """It does not have it; but it has what was made on it."""
        for number, (elsewhere, state) in enumerate(((None, "lost"), (1, "live"))):
            at = {"handle": f"conv_{number}", "dialect": "conversations"}
            log = bench.conversation(f"conv_{number}", "Zero.")
            behind = bench.taken("One.", **at)
            bench.underway(behind, f"resp_{number}")
            bench.bind(log, 0, f"new_{number}", lost=f"conv_{number}")
            asked = bench.taken("Two.", **at)

            bench.complete(
                behind, "1", dialect="conversations", response=f"resp_{number}", primed=elsewhere
            )
            bench.complete(
                asked, "2", dialect="conversations", response=f"other_{number}", primed=1
            )

            assert state == bench.found(f"new_{number}").replica.state
            assert ["Zero.", "One.", "Two.", "1", "2"] == bench.said(log)
        assert ["new_0"] == bench.orphaned()

    def test_what_a_subject_was_answered_meanwhile_is_on_neither_line(self, bench: Bench) -> None:
        """The next turn goes on from no head: it is given the history."""
        bench.exchange("One.", "1", "resp_1", subject="ann")
        asked = bench.taken("Two.", subject="ann")
        bench.underway(asked, "resp_2")
        later = bench.taken("Three.", subject="ann", looked="resp_2")
        bench.complete(later, "3", response="resp_3")

        bench.complete(asked, "2", response="resp_2", settles=True)

        accepted = bench.accept("Four.", subject="ann")
        assert accepted.replica is not None
        assert ("lost", "resp_3") == (accepted.replica.state, accepted.replica.handle)
        assert ["One.", "1", "Two.", "Three.", "3", "2"] == bench.said(
            asked.conversation, through=accepted.through
        )
        assert {"live"} == {bench.found(one).state for one in ("resp_2", "resp_3")}

    def test_a_line_lacks_what_a_subject_was_answered_while_it_was_made(self, bench: Bench) -> None:
        for recovered in (False, True):
            subject = f"ann-{recovered}"
            bench.exchange("One.", "1", f"{subject}_1", subject=subject)
            asked = bench.taken("Two.", subject=subject)
            bench.underway(asked, f"{subject}_2")
            later = bench.taken("Three.", subject=subject, looked=f"{subject}_2")
            bench.complete(asked, "2", response=f"{subject}_2", settles=True)

            told = recovery(later.conversation) if recovered else None
            bench.complete(later, "3", response=f"{subject}_3", recovery=told)

            accepted = bench.accept("Four.", subject=subject)
            assert accepted.replica is not None
            assert ("lost", f"{subject}_3") == (accepted.replica.state, accepted.replica.handle)
            assert ["One.", "1", "Two.", "Three.", "2", "3"] == bench.said(
                asked.conversation, through=accepted.through
            )

    def test_an_answer_of_another_replica_leaves_no_doubt(self, bench: Bench) -> None:
        shared: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        conversation = bench.conversation("conv_1")
        asked = [bench.taken("One.", **shared)]
        bench.underway(asked[0], "resp_1")
        asked.append(bench.taken("Two.", looked="resp_1", **shared))
        bench.underway(asked[1], "resp_2")
        bench.bind(conversation, 0, "conv_2", lost="conv_1")

        for turn, response in zip(asked, ("resp_1", "resp_2"), strict=True):
            done = bench.complete(
                turn, "Yes.", dialect="conversations", response=response, settles=True
            )
            assert "done" == done
        assert not bench.found("conv_1").replica.doubtful

    def test_a_replica_without_an_answer_is_given_up_although_its_doubt_ends(
        self, bench: Bench
    ) -> None:
        """An answer of the replica before was entered while another turn's was looked for."""
        shared: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        conversation = bench.conversation("conv_1")
        asked = bench.taken("One.", **shared)
        bench.underway(asked, "resp_1")
        bench.bind(conversation, 0, "conv_2", lost="conv_1")
        later = bench.taken("Two.", looked="resp_1", turn_id="later", **shared)
        bench.fail(later, "unknown")
        bench.complete(asked, "1", dialect="conversations", response="resp_1", settles=True)

        found = bench.complete(
            later, "2", dialect="conversations", response="resp_2", primed=1, settles=True
        )
        bench.ask(ops.Settle(bench.tenant, conversation, 1))

        assert "done" == found
        assert "lost" == bench.found("conv_1").replica.state
        assert ["conv_2"] == bench.orphaned()

    def test_a_turn_that_is_taken_again_behind_a_late_answer_stands_once(
        self, bench: Bench
    ) -> None:
        """The answer was made before it was asked; what was asked after it was made from it."""
        for asked_later in (False, True):
            handle = f"conv_{asked_later}"
            shared: dict[str, Any] = {"handle": handle, "dialect": "conversations"}
            log = bench.conversation(handle)
            first = bench.taken("One.", **shared)
            bench.underway(first, f"resp_{handle}")
            turn = bench.taken("Two.", looked=f"resp_{handle}", turn_id=f"two{handle}", **shared)
            bench.fail(turn, "unknown", partial=(message("Tw", role="assistant"),))
            if asked_later:
                bench.bind(log, 0, f"new_{handle}", lost=handle)
                later = bench.taken("Three.", looked=f"resp_{handle}", **shared)
                bench.complete(later, "3", dialect="conversations", response=f"{handle}_3")
            bench.complete(
                first, "1", dialect="conversations", response=f"resp_{handle}", settles=True
            )

            accepted = bench.accept("Two.", turn_id=f"two{handle}", **shared)

            assert accepted.outcome == "deliver"
            before = ["One.", "Two.", "Tw", "Three.", "3", "1"] if asked_later else ["One.", "1"]
            assert before == bench.said(log, through=accepted.through)
            assert [*before, "Two."] == bench.said(log)

    def test_a_turn_that_another_was_answered_from_stays_when_it_is_taken_again(
        self, bench: Bench
    ) -> None:
        """The other one was accepted before it, but was taken again behind it."""
        shared: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        log = bench.conversation("conv_1")
        for text in ("One.", "Two."):
            bench.fail(bench.taken(text, turn_id=text, **shared), "unknown")
            generation = bench.generation("conv_1")
            bench.bind(log, generation, f"new_{generation}", lost="conv_1", doubtful=True)
        again_first = bench.taken("One.", turn_id="One.", **shared)
        bench.complete(again_first, "1", dialect="conversations", response="resp_1")

        bench.taken("Two.", turn_id="Two.", **shared)

        assert ["Two.", "One.", "1", "Two."] == bench.said(log)[-4:]

    def test_an_answer_that_comes_late_hides_no_repeat(self, bench: Bench) -> None:
        shared: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        bench.conversation("conv_1")
        asked = bench.taken("One.", **shared)
        bench.underway(asked, "resp_1")
        later = bench.taken("Two.", looked="resp_1", **shared)
        bench.fail(later, "unknown")
        bench.complete(asked, "1", dialect="conversations", response="resp_1", settles=True)

        repeated = bench.accept("Two.", retry=True, **shared)

        assert (again(later), True) == (repeated.turn, repeated.again)
