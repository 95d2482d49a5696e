"""The end of a turn: its one answer, work that goes on elsewhere, failures, doubt."""

from __future__ import annotations

from typing import Any, Final

from perdure.engine import ops
from perdure.testing.conformance.bench import BODY, Bench, again, message, recovery, text

SHARED: Final[dict[str, Any]] = {"handle": "conv_1", "dialect": "conversations"}


class Ending:
    """What a store promises about completing, failing and settling turns."""

    # -- complete ----------------------------------------------------------------------------

    def test_an_answer_ends_the_turn_and_joins_the_log(self, bench: Bench) -> None:
        turn = bench.taken("Hello.")
        bench.later(3)

        assert "done" == bench.complete(turn, "Hi.", response="resp_1")

        found = bench.found("resp_1")
        assert ["Hello.", "Hi."] == bench.said(turn.conversation)
        assert (2, 2, True, turn) == (
            found.position,
            found.last_position,
            found.ended,
            found.turn,
        )
        assert found.answer is not None
        assert (200, BODY) == (found.answer.status, found.answer.body)
        assert ("live", "resp_1", 0.0) == (
            found.replica.state,
            found.replica.handle,
            found.replica.age_seconds,
        )

    def test_an_answer_comes_once(self, bench: Bench) -> None:
        turn = bench.taken("Hello.")
        bench.complete(turn, "Hi.", response="resp_1")

        assert "fenced" == bench.complete(turn, "Ho.", response="resp_2")

        assert ["Hello.", "Hi."] == bench.said(turn.conversation)
        assert bench.find("resp_2") is None

    def test_only_the_newest_holder_answers(self, bench: Bench) -> None:
        old = bench.taken("Hello.", turn_id="t", lease_seconds=30.0)
        bench.later(31)
        new = bench.taken("Hello.", turn_id="t")

        assert "fenced" == bench.complete(old, "Old.", response="resp_old")
        assert not bench.fail(old)
        assert not bench.ask(ops.Underway(bench.tenant, bench.upstream, old, "resp_old", BODY))
        assert "done" == bench.complete(new, "New.", response="resp_new")
        assert ["Hello.", "New."] == bench.said(new.conversation)
        assert bench.find("resp_old") is None

    def test_an_answer_after_an_unknown_outcome_still_counts(self, bench: Bench) -> None:
        turn = bench.taken("Hello.")
        assert bench.fail(turn, "unknown")
        assert "done" == bench.complete(turn, "Hi.", response="resp_1")

    def test_an_id_that_is_bound_changes_nothing(self, bench: Bench) -> None:
        bench.exchange("One.", "1", "resp_1")
        turn = bench.taken("Two.")

        taken = bench.complete(turn, "2", response="resp_1", lost="resp_1")

        assert "taken" == taken
        assert ["Two."] == bench.said(turn.conversation)
        assert "live" == bench.found("resp_1").state
        assert () == bench.orphans()
        assert "done" == bench.complete(turn, "2", response="resp_2")

    def test_a_rebuild_is_recorded_with_its_answer(self, bench: Bench) -> None:
        first = bench.exchange("One.", "1", "resp_1")
        turn = bench.taken("Two.", handle="resp_1", turn_id="t")
        rebuilt = recovery(first.conversation, turn_id="t", lost_handle="resp_1")

        bench.complete(turn, "2", response="resp_2", recovery=rebuilt, lost="resp_1")

        read = bench.ask(ops.ReadRecovery(bench.tenant, first.conversation, 1))
        assert rebuilt == read
        assert "lost" == bench.found("resp_1").state
        assert ("live", "resp_2", 1) == (
            bench.found("resp_2").replica.state,
            bench.found("resp_2").replica.handle,
            bench.found("resp_2").replica.generation,
        )
        assert () == bench.orphans(), "others may go on from it"
        told = bench.ask(ops.ReadTurn(bench.tenant, "t"))
        assert told == ops.TurnInfo(2, "answered", "resp_2", rebuilt)

    def test_a_lost_handle_is_no_orphan_where_it_is_surely_gone(self, bench: Bench) -> None:
        bench.exchange("One.", "1", "resp_1")
        turn = bench.taken("Two.", handle="resp_1")
        bench.complete(turn, "2", response="resp_2", lost="resp_1")
        assert ("lost", []) == (bench.found("resp_1").state, bench.orphaned())

    def test_own_items_get_the_ids_under_which_they_are_shown(self, bench: Bench) -> None:
        bench.conversation("conv_1")
        turn = bench.taken("One.", "Two.", **SHARED)
        shown = tuple(
            (f"msg_{number}", message(said, provider_id=f"msg_{number}").wire)
            for number, said in enumerate(["One.", "Two."])
        )

        bench.complete(turn, "Yes.", dialect="conversations", own=shown)

        listed = bench.page(turn.conversation).items
        assert ["msg_0", "msg_1", None] == [item.provider_id for item in listed]
        assert [wire for _, wire in shown] == [item.wire for item in listed[:2]]
        assert ["One.", "Two.", "Yes."] == bench.said(turn.conversation)

    def test_what_was_shown_of_a_cut_answer_makes_room_for_the_whole_one(
        self, bench: Bench
    ) -> None:
        for settles in (True, False):
            turn = bench.taken("Hello.", turn_id=f"t-{settles}")
            shown = (message("I was abo", role="assistant"),)
            bench.fail(turn, "unknown", partial=shown)
            assert ["Hello.", "I was abo"] == bench.said(turn.conversation)
            if not settles:
                turn = bench.taken("Hello.", turn_id=f"t-{settles}")
            bench.complete(turn, "I was about to.", response=f"r-{settles}", settles=settles)
            assert ["Hello.", "I was about to."] == bench.said(turn.conversation)

    def test_what_others_were_answered_from_stays(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        bench.fail(
            bench.taken("One.", turn_id="one", **SHARED),
            partial=(message("I was abo", role="assistant"),),
        )
        other = bench.taken("Two.", **SHARED)
        bench.complete(other, "2", dialect="conversations")

        turn = bench.taken("One.", turn_id="one", **SHARED)
        bench.complete(turn, "1", dialect="conversations")

        assert ["One.", "I was abo", "Two.", "2", "One.", "1"] == bench.said(conversation)

    # -- underway ----------------------------------------------------------------------------

    def test_work_that_goes_on_is_found_and_answered_later(self, bench: Bench) -> None:
        turn = bench.taken("Hello.", request='{"model":"m"}')

        noted = bench.ask(
            ops.Underway(bench.tenant, bench.upstream, turn, "resp_1", b'{"status":"queued"}')
        )

        found = bench.found("resp_1")
        assert noted
        assert ('{"model":"m"}', False, turn) == (found.request, found.ended, found.turn)
        assert found.answer is not None
        assert b'{"status":"queued"}' == found.answer.body
        bench.later(10_000)
        assert "done" == bench.complete(turn, "Hi.", response="resp_1")
        after = bench.found("resp_1")
        assert after.answer is not None
        assert (BODY, True) == (after.answer.body, after.ended)

    def test_a_repeat_gets_what_was_shown_of_work_that_goes_on(self, bench: Bench) -> None:
        turn = bench.taken("Hello.", turn_id="t")
        bench.ask(ops.Underway(bench.tenant, bench.upstream, turn, "resp_1", b"queued"))

        repeated = bench.accept("Hello.", turn_id="t")

        assert repeated.stored is not None
        assert ("answered", turn, 200, b"queued") == (
            repeated.outcome,
            repeated.turn,
            repeated.stored.status,
            repeated.stored.body,
        )
        bench.complete(turn, "Hi.", response="resp_1")
        ended = bench.accept("Hello.", turn_id="t").stored
        assert ended is not None
        assert BODY == ended.body

    def test_work_that_goes_on_is_kept_as_it_was_shown_last(self, bench: Bench) -> None:
        turn = bench.taken("Hello.")
        for shown in (b"queued", b"in_progress"):
            assert bench.underway(turn, "resp_1", body=shown)
        answer = bench.found("resp_1").answer
        assert answer is not None
        assert b"in_progress" == answer.body

    def test_what_has_ended_is_under_way_no_more(self, bench: Bench) -> None:
        turn = bench.taken("Hello.")
        bench.underway(turn, "resp_1")
        bench.complete(turn, "Hi.", response="resp_1")
        assert not bench.underway(turn, "resp_1")
        assert bench.found("resp_1").ended

    def test_work_that_is_found_under_way_is_no_doubt_any_more(self, bench: Bench) -> None:
        conversation = bench.conversation("thread_1", dialect="threads")
        asked: dict[str, Any] = {"handle": "thread_1", "dialect": "threads", "kind": "run"}
        turn = bench.taken(**asked, turn_id="t")
        bench.fail(turn, "unknown")

        assert bench.ask(
            ops.Underway(bench.tenant, bench.upstream, turn, "run_1", b"queued", generation=0)
        )

        assert () == bench.unsettled(conversation).turns
        bench.ask(ops.Settle(bench.tenant, conversation, 0))
        assert not bench.found("thread_1").replica.doubtful
        assert "run_1" == bench.found("thread_1").unread
        bench.later(10_000)
        repeated = bench.accept(**asked, turn_id="t")
        assert repeated.stored is not None
        assert ("answered", b"queued") == (repeated.outcome, repeated.stored.body)
        assert "done" == bench.complete(
            turn, "Done.", dialect="threads", response="run_1", handle_kind="run"
        )

    # -- fail --------------------------------------------------------------------------------

    def test_a_failed_turn_keeps_its_question(self, bench: Bench) -> None:
        turn = bench.taken("Hello.", turn_id="t")
        assert bench.fail(turn)
        assert not bench.fail(again(turn))
        assert ["Hello."] == bench.said(turn.conversation)
        told = bench.ask(ops.ReadTurn(bench.tenant, "t"))
        assert told is not None
        assert "failed" == told.state

    def test_a_refused_question_is_withdrawn(self, bench: Bench) -> None:
        turn = bench.taken("Hello.")
        bench.fail(turn, withdrawn=True)
        assert [] == bench.said(turn.conversation)
        assert () == bench.page(turn.conversation).items

    def test_a_question_that_was_answered_in_part_is_not_withdrawn(self, bench: Bench) -> None:
        turn = bench.taken("Hello.", turn_id="t")
        bench.fail(turn, partial=(message("I thi", role="assistant"),))
        bench.fail(bench.taken("Hello.", turn_id="t"), withdrawn=True)
        assert ["Hello.", "I thi"] == bench.said(turn.conversation)

    def test_what_was_shown_before_a_cut_is_kept(self, bench: Bench) -> None:
        turn = bench.taken("Hello.")
        bench.fail(turn, "unknown", partial=(message("I thi", role="assistant"),))
        assert ["Hello.", "I thi"] == bench.said(turn.conversation)

    def test_an_unknown_outcome_makes_a_shared_replica_doubtful(self, bench: Bench) -> None:
        bench.conversation("conv_1")
        bench.fail(bench.taken("One.", **SHARED), "unknown")
        bench.exchange("One.", "1", "resp_1")
        bench.fail(bench.taken("Two.", handle="resp_1"), "unknown")

        assert bench.found("conv_1").replica.doubtful
        assert not bench.found("resp_1").replica.doubtful

    # -- doubt -------------------------------------------------------------------------------

    def test_doubt_names_the_turns_and_where_they_would_stand(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", "Before.")
        turn = bench.taken("One.", "Two.", **SHARED, request='{"asked":1}')
        bench.fail(turn, "unknown")

        doubt = bench.unsettled(conversation)

        (one,) = doubt.turns
        assert (turn, "respond", '{"asked":1}') == (one.key, one.kind, one.request)
        assert ["One.", "Two."] == list(map(text, one.items))
        assert (None, 1) == (doubt.after, doubt.skip)

    def test_doubt_counts_from_the_newest_id_that_is_known(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        first = bench.taken("One.", **SHARED)
        bench.complete(first, "1", dialect="conversations", response="resp_1")
        bench.fail(bench.taken("Two.", **SHARED), "unknown")

        doubt = bench.unsettled(conversation)

        assert ("resp_1-0", None) == (doubt.after, doubt.skip)

    def test_a_turn_taken_again_is_asked_about_by_its_number(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        turn = bench.taken("One.", **SHARED)
        bench.fail(turn, "unknown")
        taken = bench.taken("One.", **SHARED)

        assert () == bench.unsettled(conversation).turns
        (one,) = bench.unsettled(conversation, asking=taken.seq).turns
        assert taken == one.key

    def test_doubt_ends_when_it_is_settled(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        turn = bench.taken("One.", **SHARED)
        bench.fail(turn, "unknown")

        bench.ask(ops.Settle(bench.tenant, conversation, 0))
        assert bench.found("conv_1").replica.doubtful, "a turn's outcome is unknown still"
        bench.complete(turn, "1", dialect="conversations", settles=True)
        bench.ask(ops.Settle(bench.tenant, conversation, 7))
        assert bench.found("conv_1").replica.doubtful, "that is not its generation"
        bench.ask(ops.Settle(bench.tenant, conversation, 0))
        assert not bench.found("conv_1").replica.doubtful
        assert "deliver" == bench.accept("Two.", **SHARED).outcome

    # -- renew -------------------------------------------------------------------------------

    def test_a_lease_is_put_off(self, bench: Bench) -> None:
        turn = bench.taken("Hello.", turn_id="t", lease_seconds=60.0)
        bench.later(50)
        bench.ask(ops.Renew(bench.tenant, (turn,), 60.0))
        bench.later(50)
        assert "wait" == bench.accept("Hello.", turn_id="t").outcome
        bench.later(11)
        assert "deliver" == bench.accept("Hello.", turn_id="t").outcome

    def test_only_its_holder_puts_a_lease_off(self, bench: Bench) -> None:
        old = bench.taken("Hello.", turn_id="t", lease_seconds=60.0)
        bench.later(61)
        bench.taken("Hello.", turn_id="t", lease_seconds=60.0)
        bench.ask(ops.Renew(bench.tenant, (old,), 600.0))
        bench.later(61)
        assert "deliver" == bench.accept("Hello.", turn_id="t").outcome

    def test_an_ended_turn_is_let_be(self, bench: Bench) -> None:
        ended = bench.taken("One.", turn_id="one")
        bench.fail(ended)
        open_one = bench.taken("Two.", turn_id="two", lease_seconds=60.0)
        bench.ask(ops.Renew(bench.tenant, (ended, open_one), 600.0))
        bench.later(100)
        assert "deliver" == bench.accept("One.", turn_id="one").outcome
        assert "wait" == bench.accept("Two.", turn_id="two").outcome
