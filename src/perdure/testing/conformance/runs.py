"""Runs: lost with their thread, given what they asked for, and what was shown of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from perdure.engine import ops
from perdure.testing.conformance.bench import Bench, message
from perdure.testing.conformance.threads import (
    POST,
    RUN,
    THREAD,
    begun,
    ended,
    posted,
    said,
    unread,
)


class Runs:
    """What a store promises about runs that go on, are lost or begun again."""

    # -- runs that are gone with their thread ------------------------------------------------

    def test_a_lost_run_is_taken_again_by_one(self, bench: Bench) -> None:
        bench.conversation(**THREAD)
        turn = begun(bench)
        lost: dict[str, Any] = {**RUN, "waiting_for": turn, "lost": "run_1", "body_hash": "other"}
        taken = bench.accept(**lost)
        assert taken.turn is not None
        assert ("deliver", 2, False) == (taken.outcome, taken.turn.epoch, taken.again)
        assert "wait" == bench.accept(**lost).outcome
        bench.underway(taken.turn, "run_2", generation=0, body=b"again")
        after = bench.accept(**lost)
        assert "answered" == after.outcome
        assert after.stored is not None
        assert b"again" == after.stored.body

    def test_a_run_that_was_started_again_goes_by_both_ids(self, bench: Bench) -> None:
        bench.conversation(**THREAD)
        turn = bench.taken(**RUN, waiting_for=begun(bench), lost="run_1")
        assert bench.underway(turn, "run_2", generation=0)

        assert "run_2" == bench.found("run_1").replaced_by
        assert bench.found("run_2").replaced_by is None
        assert ("run_2", False) == unread(bench)
        assert "done" == ended(bench, turn, "run_2")

    def test_runs_are_listed_as_they_were_last_seen(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        for number in (1, 2):
            turn = bench.taken(**RUN, request=str(number))
            bench.underway(turn, f"run_{number}", generation=0, body=b"begun")
            ended(bench, turn, f"run_{number}", body=b"over", unread=False)
            posted(bench, f"Message {number}.")
        turn = bench.taken(**RUN, request="3")
        bench.underway(turn, "run_3", generation=0, body=b"begun")

        def listed(**values: Any) -> list[str]:
            values = {"newest_first": True, "limit": 9, **values}
            op = ops.Runs(bench.tenant, bench.upstream, conversation, **values)
            return [run.run_id for run in bench.ask(op)]

        assert ["run_3", "run_2", "run_1"] == listed()
        assert ["run_1", "run_2"] == listed(newest_first=False, limit=2)
        assert ["run_3", "run_2"] == listed(limit=2)
        second = bench.found("run_2").turn
        assert second is not None
        assert ["run_1"] == listed(below=second.seq)
        assert ["run_3"] == listed(newest_first=False, above=second.seq)
        every = ops.Runs(bench.tenant, bench.upstream, conversation, newest_first=True, limit=9)
        assert [(False, b"begun"), (True, b"over"), (True, b"over")] == [
            (run.ended, run.body) for run in bench.ask(every)
        ]
        with bench.another(tenant="another") as other:
            assert () == other.ask(replace(every, tenant=other.tenant))

    def test_a_run_that_was_started_again_is_listed_once(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        turn = bench.taken(**RUN, waiting_for=begun(bench), lost="run_1")
        bench.underway(turn, "run_2", generation=0)
        every = ops.Runs(bench.tenant, bench.upstream, conversation, newest_first=True, limit=9)
        assert ["run_2"] == [run.run_id for run in bench.ask(every)]

    def test_a_run_is_kept_as_it_was_changed(self, bench: Bench) -> None:
        bench.conversation(**THREAD)
        turn = begun(bench)
        bench.ask(ops.Refresh(bench.tenant, bench.upstream, "run_1", b"changed"))
        answer = bench.found("run_1").answer
        assert answer is not None
        assert b"changed" == answer.body

        ended(bench, turn, "run_1", body=b"over")
        answer = bench.found("run_1").answer
        assert answer is not None
        assert b"over" == answer.body

        bench.ask(ops.Refresh(bench.tenant, bench.upstream, "run_1", b"changed again"))
        answer = bench.found("run_1").answer
        assert answer is not None
        assert (b"changed again", True) == (answer.body, bench.found("run_1").ended)

    def test_a_run_is_not_taken_for_another_that_goes_on(self, bench: Bench) -> None:
        bench.conversation(**THREAD)
        turn = begun(bench)
        assert not bench.underway(turn, "run_2", generation=0)
        assert bench.found("run_1").replaced_by is None

    def test_what_a_run_said_that_is_begun_again_comes_too_late(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        turn = begun(bench)
        taken = bench.taken(**RUN, waiting_for=turn, lost="run_1")
        bench.learn(conversation, said(1), said_by=("run_1",), generation=0)
        assert [] == bench.said(conversation)
        bench.underway(taken, "run_2", generation=0)
        bench.learn(conversation, said(2), said_by=("run_2",), generation=0)
        assert ["A2"] == bench.said(conversation)

    def test_a_lost_run_has_all_that_was_said_before_it(self, bench: Bench) -> None:
        bench.conversation(**THREAD)
        turn = begun(bench)
        bench.fail(bench.taken("Two.", **POST, looked="run_1"))
        taken = bench.accept(**RUN, waiting_for=turn, lost="run_1")
        assert 1 == taken.through

    def test_a_lost_run_that_has_spoken_is_over(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        turn = begun(bench)
        bench.learn(conversation, said(1), said_by=("run_1",))
        lost: dict[str, Any] = {**RUN, "waiting_for": turn, "lost": "run_1"}
        assert "spoken" == bench.accept(**lost).outcome
        assert "deliver" == bench.accept(**lost, interim=True).outcome

    def test_what_a_run_said_before_it_got_its_outputs_is_no_answer(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        turn = begun(bench)
        bench.learn(conversation, said(1), said_by=("run_1",))
        lost: dict[str, Any] = {**RUN, "waiting_for": turn, "lost": "run_1"}
        bench.underway(turn, "run_1", body=b'{"asks":1}', waits_for="call_1")

        bench.underway(turn, "run_1", body=b'{"given":1}', outputs_of="call_1")

        bench.underway(turn, "run_1", body=b'{"asks":2}', waits_for="call_1")
        assert b'{"given":1}' == shown(bench, "run_1"), "they may be on their way"
        bench.learn(conversation, said(2), said_by=("run_1",))
        assert "spoken" == bench.accept(**lost).outcome
        bench.underway(turn, "run_1", body=b'{"asks":3}', waits_for="call_2")
        assert b'{"asks":3}' == shown(bench, "run_1")
        bench.underway(turn, "run_1", outputs_of="call_2")
        assert "deliver" == bench.accept(**lost).outcome
        assert ["A1", "A2"] == bench.said(conversation)

    def test_outputs_for_an_older_run_say_nothing_about_a_newer_one(self, bench: Bench) -> None:
        bench.conversation(**THREAD)
        first = begun(bench)
        bench.underway(bench.taken(**RUN, looked="run_1"), "run_2", generation=0)
        bench.underway(first, "run_1", generation=0, outputs_of="call_1")
        assert ("run_2", False) == unread(bench)

    def test_what_a_run_says_after_its_outputs_comes_behind_what_it_said_before(
        self, bench: Bench
    ) -> None:
        conversation = bench.conversation(**THREAD)
        turn = begun(bench)
        bench.underway(turn, "run_1", generation=0, outputs_of="call_1")
        since: dict[str, Any] = {"said_by": ("run_1",), "since_outputs": "run_1", "read": "run_1"}

        assert "apart" == bench.learn(conversation, said(2), **since), "A1 is not read yet"

        assert (("run_1", False), []) == (unread(bench), bench.said(conversation))
        bench.learn(conversation, said(1), said_by=("run_1",), read="run_1")
        assert (None, False) == unread(bench), "it waited for its outputs"
        bench.underway(turn, "run_1", generation=0, outputs_of="call_2")
        assert ("run_1", False) == unread(bench), "it goes on"
        assert "done" == bench.learn(conversation, said(2), **since)
        assert ((None, False), ["A1", "A2"]) == (unread(bench), bench.said(conversation))

    def test_a_run_that_was_given_up_can_still_end(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        turn = begun(bench)
        other = bench.taken("Two.", **POST, looked="run_1")
        for key in (turn, other):
            bench.fail(key)
        bench.learn(conversation, said(1), said_by=("run_1",))

        assert "done" == ended(bench, turn)
        assert "fenced" == bench.complete(other, dialect="threads"), "nothing came of a message"
        assert bench.found("run_1").ended

    # -- what was shown of a run -------------------------------------------------------------

    def test_what_was_shown_of_a_run_makes_room_for_the_whole_message(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        turn = begun(bench)
        shown = (message("A", role="assistant"),)
        bench.underway(turn, "run_1", partial=shown, partial_of=("msg_a1",))
        assert ["A"] == bench.said(conversation)
        bench.learn(conversation, said(1), said_by=("run_1",))
        assert ["A1"] == bench.said(conversation)
        bench.underway(turn, "run_1", partial=shown, partial_of=("msg_a1",))
        assert ["A1"] == bench.said(conversation), "the whole of it is there"

    def test_what_was_shown_of_one_message_stays_when_another_comes(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        turn = begun(bench)
        parts = tuple(message(part, role="assistant") for part in ("A", "B"))
        bench.underway(turn, "run_1", partial=parts, partial_of=("msg_a1", "msg_a2"))
        more = (message("B-", role="assistant"), message("C", role="assistant"))
        bench.underway(turn, "run_1", partial=more, partial_of=("msg_a2", "msg_a3"))
        assert ["A", "B-", "C"] == bench.said(conversation)

        bench.learn(conversation, said(2), said_by=("run_1",))

        assert ["A", "C", "A2"] == bench.said(conversation)
        bench.underway(turn, "run_1", partial=parts, partial_of=("msg_a1", "msg_a2"))
        assert ["C", "A2", "A"] == bench.said(conversation), "A2 is there"
        bench.learn(conversation, (*said(1), *said(3)), said_by=("run_1", "run_1"))
        assert ["A2", "A1", "A3"] == bench.said(conversation)

    def test_what_was_shown_of_a_lost_run_goes_part_by_part(self, bench: Bench) -> None:
        """What stands before another's message stays: that may have been answered from it."""
        conversation = bench.conversation(**THREAD)
        turn = begun(bench)
        for part, of in (("A", "msg_a1"), ("B", "msg_a2")):
            shown = (message(part, role="assistant"),)
            bench.underway(turn, "run_1", partial=shown, partial_of=(of,))
            if part == "A":
                posted(bench, "Two.", looked="run_1")
        assert ["A", "Two.", "B"] == bench.said(conversation)
        bench.ask(ops.MarkLost(bench.tenant, bench.upstream, "thread_1"))

        assert "deliver" == bench.accept(**RUN, waiting_for=turn, lost="run_1").outcome

        assert ["A", "Two."] == bench.said(conversation)

    def test_outputs_are_not_noted_where_somebody_starts_the_run_again(self, bench: Bench) -> None:
        bench.conversation(**THREAD)
        turn = begun(bench)
        bench.ask(ops.MarkLost(bench.tenant, bench.upstream, "thread_1"))
        taken = bench.taken(**RUN, waiting_for=turn, lost="run_1")

        assert not bench.underway(taken, "run_1", outputs_of="call_1")

        assert "wait" == bench.accept(**RUN, waiting_for=taken, lost="run_1").outcome
        assert bench.underway(taken, "run_2")

    def test_outputs_that_were_refused_leave_what_was_read_as_read(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        turn = begun(bench)
        bench.learn(conversation, said(1), said_by=("run_1",), read="run_1")
        for what, of in (("outputs_of", "run_1"), ("refused", None), ("outputs_of", "run_1")):
            assert bench.underway(turn, "run_1", generation=0, **{what: "call_1"})
            assert (of, False) == unread(bench)
        since: dict[str, Any] = {"said_by": ("run_1",), "since_outputs": "run_1", "read": "run_1"}
        assert "done" == bench.learn(conversation, said(2), **since)
        assert ["A1", "A2"] == bench.said(conversation)

    def test_outputs_that_nobody_asked_for_leave_the_last_ones(self, bench: Bench) -> None:
        """It has answered since those; others can only be refused."""
        conversation = bench.conversation(**THREAD)
        turn = begun(bench)
        assert bench.underway(turn, "run_1", outputs_of="call_1", unasked=True), "the first ones"
        bench.learn(conversation, said(1), said_by=("run_1",))
        assert not bench.underway(turn, "run_1", outputs_of="call_2", unasked=True)
        assert "spoken" == bench.accept(**RUN, waiting_for=turn, lost="run_1").outcome
        assert bench.underway(turn, "run_1", outputs_of="call_1", unasked=True), "the same again"
        assert bench.underway(turn, "run_1", outputs_of="call_2"), "it was seen to ask for them"

    def test_outputs_that_two_gave_are_not_taken_back(self, bench: Bench) -> None:
        """Whose were taken is not known: one is refused because the other was faster."""
        conversation = bench.conversation(**THREAD)
        turn = begun(bench)
        for _ in range(2):
            bench.underway(turn, "run_1", body=b'{"given":1}', outputs_of="call_1", generation=0)
        bench.learn(conversation, said(1), said_by=("run_1",))

        assert not bench.underway(turn, "run_1", body=b'{"asks":1}', refused="call_1", generation=0)

        assert b'{"given":1}' == shown(bench, "run_1")
        assert ("run_1", False) == unread(bench)
        assert "spoken" == bench.accept(**RUN, waiting_for=turn, lost="run_1").outcome

    def test_outputs_are_taken_back_only_where_they_are_the_last_ones(self, bench: Bench) -> None:
        bench.conversation(**THREAD)
        turn = begun(bench)
        assert not bench.underway(turn, "run_1", refused="call_1"), "nothing was given"
        for call in ("call_1", "call_1", "call_2"):
            bench.underway(turn, "run_1", outputs_of=call)
        assert not bench.underway(turn, "run_1", refused="call_1")
        assert bench.underway(turn, "run_1", refused="call_2")
        assert not bench.underway(turn, "run_1", refused="call_2"), "they are taken back"

    def test_what_was_shown_of_a_lost_run_goes_unless_a_thread_has_it(self, bench: Bench) -> None:
        for number, primed_through in enumerate((0, 1)):
            handle = f"thread_{number}"
            at = {**RUN, "handle": handle}
            conversation = bench.conversation(handle, dialect="threads")
            turn = bench.taken(**at)
            bench.underway(turn, f"run_{number}", generation=0)
            shown = (message("A", role="assistant"),)
            bench.underway(turn, f"run_{number}", partial=shown, generation=0)
            bench.bind(
                conversation,
                0,
                f"{handle}-new",
                dialect="threads",
                primed_through=primed_through,
                turn=turn,
            )
            taken = bench.taken(**at, waiting_for=turn, lost=f"run_{number}")
            assert ["A"][:primed_through] == bench.said(conversation)
            bench.underway(taken, f"run_{number}-again", generation=1)
            items = said(1)
            bench.learn(conversation, items, said_by=(f"run_{number}-again",))
            assert [*["A"][:primed_through], "A1"] == bench.said(conversation)

    def test_what_was_shown_of_a_lost_run_stays_where_something_follows(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        turn = bench.taken(**RUN)
        shown = (message("A", role="assistant"),)
        bench.underway(turn, "run_1", partial=shown, generation=0)
        bench.complete(bench.taken("Two.", **POST, looked="run_1"), dialect="threads")
        bench.ask(ops.MarkLost(bench.tenant, bench.upstream, "thread_1"))
        bench.taken(**RUN, waiting_for=turn, lost="run_1")
        assert ["A", "Two."] == bench.said(conversation)

    def test_a_run_whose_messages_are_gone_is_read_also_while_older_ones_are_adopted(
        self, bench: Bench
    ) -> None:
        """Whoever waited for them would wait for ever."""
        turn = bench.taken("One.", **RUN)
        assert bench.underway(turn, "run_1", generation=0)
        ended(bench, turn)

        learnt = bench.learn(turn.conversation, (), said_by=(), read="run_1")

        assert ("done", (None, False)) == (learnt, unread(bench))


def shown(bench: Bench, run_id: str) -> bytes:
    """Return a run as the app was shown it last."""
    answer = bench.found(run_id).answer
    assert answer is not None
    return answer.body
