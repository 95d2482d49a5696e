"""Accepting a turn: its place, repeats, waiting in line, branches, deadlines."""

from __future__ import annotations

from typing import Any

from perdure.engine import ops
from perdure.model import Dialect, Remembered
from perdure.testing.conformance.bench import Bench, again, messages, text


class Accepting:
    """What a store promises about :class:`~perdure.engine.ops.Accept`."""

    def test_a_turn_without_a_handle_begins_a_conversation(self, bench: Bench) -> None:
        accepted = bench.accept("Hello.", "Are you there?")

        assert accepted.turn is not None
        assert ("deliver", 0, "none") == (
            accepted.outcome,
            accepted.through,
            accepted.handle_state,
        )
        assert (1, 1) == (accepted.turn.seq, accepted.turn.epoch)
        assert f"{accepted.turn.conversation}.1" == accepted.turn.turn_id
        assert (2, 0, False, False, False) == (
            accepted.accepted_items,
            accepted.known_items,
            accepted.adopting,
            accepted.incomplete,
            accepted.again,
        )
        assert accepted.replica is not None
        assert ("absent", None, 0) == (
            accepted.replica.state,
            accepted.replica.handle,
            accepted.replica.generation,
        )

    def test_the_message_is_in_the_log_before_anything_is_sent(self, bench: Bench) -> None:
        turn = bench.taken("Do not lose me.")

        with bench.another() as other:
            assert ["Do not lose me."] == other.said(turn.conversation)

    def test_a_handle_never_seen_is_adopted(self, bench: Bench) -> None:
        accepted = bench.accept("Hello.", dialect="conversations", handle="conv_old")

        assert accepted.replica is not None
        assert ("deliver", "live", True, True) == (
            accepted.outcome,
            accepted.handle_state,
            accepted.adopting,
            accepted.incomplete,
        )
        assert ("live", "conv_old") == (accepted.replica.state, accepted.replica.handle)
        assert accepted.turn is not None
        assert not bench.history(accepted.turn.conversation).complete

    def test_a_response_never_seen_is_adopted_without_a_head(self, bench: Bench) -> None:
        accepted = bench.accept("Hello.", handle="resp_old")

        assert accepted.replica is not None
        assert (True, None) == (accepted.adopting, accepted.replica.handle)
        assert "live" == bench.found("resp_old").state

    def test_a_handle_leads_to_its_conversation(self, bench: Bench) -> None:
        first = bench.exchange("One.", "Yes.", "resp_1")
        bench.later(5)

        accepted = bench.accept("Two.", handle="resp_1")

        assert accepted.turn is not None
        assert (first.conversation, 2, 2) == (
            accepted.turn.conversation,
            accepted.turn.seq,
            accepted.through,
        )
        assert ("live", 5.0) == (accepted.handle_state, accepted.handle_age_seconds)
        assert accepted.replica is not None
        assert ("live", "resp_1") == (accepted.replica.state, accepted.replica.handle)

    def test_a_lost_handle_says_so(self, bench: Bench) -> None:
        bench.exchange("One.", "Yes.", "resp_1")
        bench.ask(ops.MarkLost(bench.tenant, bench.upstream, "resp_1"))

        accepted = bench.accept("Two.", handle="resp_1")

        assert accepted.replica is not None
        assert ("lost", "lost") == (accepted.handle_state, accepted.replica.state)

    def test_a_retired_handle_is_not_journalled(self, bench: Bench) -> None:
        turn = bench.exchange("One.", "Yes.", "resp_1")
        bench.ask(ops.Retire(bench.tenant, bench.upstream, "resp_1"))

        accepted = bench.accept("Two.", handle="resp_1")

        assert ("retired", None) == (accepted.outcome, accepted.turn)
        assert "Two." not in bench.said(turn.conversation)

    def test_a_users_chain_lacks_a_turn_that_got_no_answer(self, bench: Bench) -> None:
        """What was asked is in the log: the next answer is made from it too."""
        for how in ("failed", "unknown", "crashed", "refused"):
            subject = f"user-{how}"
            bench.exchange("One.", "1", f"{subject}-1", subject=subject)
            turn = bench.taken("Two.", subject=subject, turn_id=subject)
            if how == "crashed":
                bench.later(61.0)
            elif how == "refused":
                bench.fail(turn, withdrawn=True)
            else:
                bench.fail(turn, "unknown" if how == "unknown" else "failed")

            accepted = bench.accept("Three.", subject=subject)

            assert accepted.replica is not None
            assert accepted.turn is not None
            expected = "live" if how == "refused" else "lost"
            assert (expected, expected, f"{subject}-1") == (
                accepted.replica.state,
                accepted.handle_state,
                accepted.replica.handle,
            )
            bench.complete(accepted.turn, "3", response=f"{subject}-3")
            after = bench.accept("Four.", subject=subject)
            assert after.replica is not None
            assert ("live", f"{subject}-3") == (after.replica.state, after.replica.handle)

    def test_a_users_turn_that_is_taken_again_goes_on_from_the_head(self, bench: Bench) -> None:
        bench.exchange("One.", "1", "resp_1", subject="ann")
        bench.fail(bench.taken("Two.", subject="ann", turn_id="two"), "unknown")

        accepted = bench.accept("Two.", subject="ann", turn_id="two")

        assert accepted.replica is not None
        assert ("deliver", "live") == (accepted.outcome, accepted.replica.state)

    def test_a_subject_has_one_conversation(self, bench: Bench) -> None:
        first = bench.taken("One.", subject="ann")
        bench.complete(first, "Yes.", response="resp_1")

        second = bench.accept("Two.", subject="ann")
        other = bench.accept("Three.", subject="bob")

        assert second.turn is not None
        assert other.turn is not None
        assert first.conversation == second.turn.conversation != other.turn.conversation
        assert second.replica is not None
        assert ("live", "resp_1") == (second.replica.state, second.replica.handle)

    # -- the same turn -----------------------------------------------------------------------

    def test_a_named_turn_is_entered_once(self, bench: Bench) -> None:
        first = bench.taken("Hello.", turn_id="my-turn")
        second = bench.accept("Hello.", turn_id="my-turn")

        assert "my-turn" == first.turn_id
        assert ("wait", first) == (second.outcome, second.turn)
        assert ["Hello."] == bench.said(first.conversation)

    def test_a_named_turn_gets_the_answer_that_it_has(self, bench: Bench) -> None:
        turn = bench.taken("Hello.", turn_id="my-turn")
        bench.complete(turn, "Hi.", response="resp_1", status=201, body=b"\x00\xff raw")

        repeated = bench.accept("Hello.", turn_id="my-turn")

        assert repeated.stored is not None
        assert ("answered", 201, b"\x00\xff raw", "application/json") == (
            repeated.outcome,
            repeated.stored.status,
            repeated.stored.body,
            repeated.stored.content_type,
        )

    def test_another_body_under_the_same_name_is_a_mismatch(self, bench: Bench) -> None:
        turn = bench.taken("Hello.", turn_id="my-turn")
        assert "mismatch" == bench.accept("Goodbye.", turn_id="my-turn").outcome
        bench.complete(turn, "Hi.", response="resp_1")
        assert "mismatch" == bench.accept("Goodbye.", turn_id="my-turn").outcome
        assert ["Hello.", "Hi."] == bench.said(turn.conversation)

    def test_a_turn_whose_lease_has_ended_is_taken_under_a_new_epoch(self, bench: Bench) -> None:
        first = bench.taken("Hello.", turn_id="my-turn", lease_seconds=60.0)
        bench.later(59)
        assert "wait" == bench.accept("Hello.", turn_id="my-turn").outcome
        bench.later(2)

        second = bench.accept("Hello.", turn_id="my-turn")

        assert ("deliver", again(first), True) == (second.outcome, second.turn, second.again)
        assert ["Hello."] == bench.said(first.conversation)

    def test_a_failed_turn_is_taken_again_and_its_items_are_back(self, bench: Bench) -> None:
        turn = bench.taken("Hello.", turn_id="my-turn")
        bench.fail(turn, withdrawn=True)
        assert [] == bench.said(turn.conversation)

        second = bench.accept("Hello.", turn_id="my-turn")

        assert ("deliver", again(turn), False, 1) == (
            second.outcome,
            second.turn,
            second.again,
            second.accepted_items,
        )
        assert ["Hello."] == bench.said(turn.conversation)

    def test_the_same_body_on_a_handle_is_a_repeat_until_it_is_handed_over(
        self, bench: Bench
    ) -> None:
        places: tuple[tuple[Dialect, str], ...] = (
            ("responses", "resp_1"),
            ("conversations", "conv_1"),
        )
        for dialect, handle in places:
            if dialect == "responses":
                conversation = bench.exchange("One.", "Yes.", handle).conversation
            else:
                conversation = bench.conversation(handle, "One.", "Yes.")
            first = bench.taken("Two.", handle=handle, dialect=dialect)
            bench.fail(first, "failed")

            repeated = bench.accept("Two.", handle=handle, dialect=dialect)
            assert ("deliver", again(first)) == (repeated.outcome, repeated.turn)
            bench.complete(again(first), "Fine.", dialect=dialect, response=f"resp_{dialect}")

            new = bench.accept("Two.", handle=handle, dialect=dialect)
            assert new.turn is not None
            assert ("deliver", 1) == (new.outcome, new.turn.epoch)
            assert (new.turn.conversation, new.turn.seq) != (conversation, first.seq)

    def test_another_kind_of_call_is_no_repeat(self, bench: Bench) -> None:
        bench.conversation("conv_1")
        first = bench.taken("Two.", handle="conv_1", dialect="conversations")
        bench.fail(first)

        second = bench.accept("Two.", handle="conv_1", dialect="conversations", kind="append")

        assert second.turn is not None
        assert first.seq + 1 == second.turn.seq

    # -- waiting in line ---------------------------------------------------------------------

    def test_turns_on_one_shared_handle_are_delivered_in_the_order_of_their_coming(
        self, bench: Bench
    ) -> None:
        conversation = bench.conversation("conv_1")
        shared: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        first = bench.taken("One.", **shared)
        second = bench.accept("Two.", **shared)
        third = bench.accept("Three.", **shared)

        assert ("wait", "wait") == (second.outcome, third.outcome)
        assert ["One."] == bench.said(conversation), "what waits is nobody's context"
        waiting = bench.accept("Three.", **shared, waiting_for=third.turn)
        assert "wait" == waiting.outcome
        bench.complete(first, "1", dialect="conversations")
        assert "wait" == bench.accept("Three.", **shared, waiting_for=third.turn).outcome
        delivered = bench.accept("Two.", **shared, waiting_for=second.turn)
        assert "deliver" == delivered.outcome
        assert delivered.turn is not None
        bench.complete(delivered.turn, "2", dialect="conversations")
        last = bench.accept("Three.", **shared, waiting_for=third.turn)
        assert "deliver" == last.outcome
        assert ["One.", "1", "Two.", "2", "Three."] == bench.said(conversation)

    def test_turns_on_different_handles_do_not_wait_for_each_other(self, bench: Bench) -> None:
        bench.conversation("conv_1")
        bench.conversation("conv_2")
        bench.taken("One.", handle="conv_1", dialect="conversations")
        bench.taken("Two.", handle="conv_2", dialect="conversations")

    def test_a_turn_waited_for_that_was_erased_is_told(self, bench: Bench) -> None:
        first = bench.taken("One.", subject="ann")
        second = bench.accept("Two.", subject="ann")
        bench.ask(ops.Forget(bench.tenant, "ann"))

        waiting = bench.accept("Two.", subject="ann", waiting_for=second.turn)

        assert ("wait", "erased", second.turn) == (second.outcome, waiting.outcome, waiting.turn)
        assert "fenced" == bench.complete(first, "Yes.", response="resp_1")
        assert bench.ask(ops.FindSubject(bench.tenant, "ann")) is None

    def test_a_turn_left_behind_has_to_be_settled_first(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        shared: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        left = bench.taken("One.", **shared, lease_seconds=30.0)
        bench.later(31)

        second = bench.accept("Two.", **shared)

        assert second.turn is not None
        assert second.replica is not None
        assert ("unsettled", conversation, True) == (
            second.outcome,
            second.turn.conversation,
            second.replica.doubtful,
        )
        assert ["One."] == bench.said(conversation), "nothing is journalled behind it"
        (doubtful,) = bench.unsettled(conversation).turns
        assert (left.seq, ["One."]) == (doubtful.key.seq, list(map(text, doubtful.items)))
        assert "fenced" == bench.complete(left, "Late.", dialect="conversations")

    def test_the_turn_itself_may_be_taken_again_on_a_doubtful_replica(self, bench: Bench) -> None:
        bench.conversation("conv_1")
        shared: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        left = bench.taken("One.", **shared, lease_seconds=30.0)
        bench.later(31)

        second = bench.accept("One.", **shared)

        assert second.replica is not None
        assert ("deliver", again(left), True, True) == (
            second.outcome,
            second.turn,
            second.again,
            second.replica.doubtful,
        )

    def test_a_turn_taken_after_others_stands_behind_them(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        shared: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        first = bench.taken("One.", **shared, turn_id="one")
        bench.fail(first, withdrawn=True)
        second = bench.taken("Two.", **shared)
        bench.complete(second, "2", dialect="conversations")

        taken = bench.accept("One.", **shared, turn_id="one")

        assert ("deliver", 3) == (taken.outcome, taken.through)
        assert ["Two.", "2", "One."] == bench.said(conversation)

    # -- beside a conversation -----------------------------------------------------------------

    def test_a_response_chained_to_one_of_a_conversations_is_no_part_of_it(
        self, bench: Bench
    ) -> None:
        conversation = bench.conversation("conv_1", "One.")
        within: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        bench.complete(
            bench.taken("Two.", **within),
            "2",
            dialect="conversations",
            response="resp_2",
            remembered=Remembered(900, 0, "m"),
        )

        beside = bench.accept("Three.", handle="resp_2")

        assert beside.turn is not None
        assert beside.replica is not None
        assert beside.turn.conversation != conversation
        assert (3, "absent", "responses") == (
            beside.through,
            beside.replica.state,
            beside.replica.dialect,
        )
        assert Remembered(900, 0, "m") == beside.remembered, "the history is the same"
        bench.complete(beside.turn, "3", response="resp_3")
        assert ["One.", "Two.", "2"] == bench.said(conversation)
        assert ["One.", "Two.", "2", "Three.", "3"] == bench.said(beside.turn.conversation)
        replica = bench.found("conv_1").replica
        assert ("conversations", "conv_1") == (replica.dialect, replica.handle)
        onward = bench.accept("Four.", handle="resp_3")
        assert onward.turn is not None
        assert (beside.turn.conversation, 5) == (onward.turn.conversation, onward.through)
        assert conversation == bench.taken("Five.", **within).conversation

    def test_a_retry_of_the_sdk_ends_at_the_deadline(self, bench: Bench) -> None:
        named: dict[str, Any] = {"turn_id": "my-turn", "deadline_seconds": 100.0}
        turn = bench.taken("Hello.", **named)
        bench.fail(turn, "unknown")
        bench.later(60)
        turn = bench.taken("Hello.", **named, retry=True)
        bench.fail(turn, "unknown")
        bench.later(41)

        late = bench.accept("Hello.", **named, retry=True)

        assert ("expired", turn) == (late.outcome, late.turn)

    def test_a_repeat_of_the_apps_own_begins_a_new_deadline(self, bench: Bench) -> None:
        named: dict[str, Any] = {"turn_id": "my-turn", "deadline_seconds": 100.0}
        bench.fail(bench.taken("Hello.", **named), "unknown")
        bench.later(101)
        bench.fail(bench.taken("Hello.", **named), "unknown")
        bench.later(60)

        assert "deliver" == bench.accept("Hello.", **named, retry=True).outcome

    def test_once_does_not_deliver_what_may_have_been_done(self, bench: Bench) -> None:
        turn = bench.taken("Hello.", turn_id="my-turn")
        bench.fail(turn, "unknown")
        assert "expired" == bench.accept("Hello.", turn_id="my-turn", once=True).outcome
        taken = bench.taken("Hello.", turn_id="my-turn")
        bench.fail(taken, "failed")
        assert "deliver" == bench.accept("Hello.", turn_id="my-turn", once=True).outcome

    # -- what the app sends again ------------------------------------------------------------

    def test_items_that_a_rebuilt_conversation_has_are_not_entered_again(
        self, bench: Bench
    ) -> None:
        conversation = bench.conversation("conv_1")
        shared: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        turn = bench.taken("One.", **shared)
        bench.complete(turn, "1", dialect="conversations", response="resp_1")
        bench.bind(conversation, 0, "conv_2", lost="conv_1")

        accepted = bench.accept(
            items=messages("One.", "1", "Two."), sent_ids=(None, "resp_1-0", None), **shared
        )

        assert (2, 1) == (accepted.known_items, accepted.accepted_items)
        assert ["One.", "1", "Two."] == bench.said(conversation)

    def test_items_are_entered_as_sent_where_nothing_was_rebuilt(self, bench: Bench) -> None:
        bench.conversation("conv_1")
        shared: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        turn = bench.taken("One.", **shared)
        bench.complete(turn, "1", dialect="conversations", response="resp_1")

        accepted = bench.accept(items=messages("Two."), sent_ids=("resp_1-0",), **shared)

        assert (0, 1) == (accepted.known_items, accepted.accepted_items)
