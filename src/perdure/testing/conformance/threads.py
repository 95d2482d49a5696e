"""Threads: the order in which things were said, and threads that take another's place."""

from __future__ import annotations

from typing import Any, Final

from perdure.engine import ops
from perdure.model import NewItem, TurnKey
from perdure.testing.conformance.bench import Bench, message, messages

THREAD: Final[dict[str, Any]] = {"handle": "thread_1", "dialect": "threads"}
POST: Final[dict[str, Any]] = {**THREAD, "kind": "append"}
RUN: Final[dict[str, Any]] = {**THREAD, "kind": "run", "items": ()}


def said(number: int) -> tuple[NewItem, ...]:
    """Return what a run said."""
    return (message(f"A{number}", role="assistant", provider_id=f"msg_a{number}"),)


def begun(bench: Bench, run_id: str = "run_1", **values: Any) -> TurnKey:
    """Begin a run on the thread."""
    turn = bench.taken(**RUN, **values)
    assert bench.underway(turn, run_id, generation=bench.found("thread_1").replica.generation)
    return turn


def ended(bench: Bench, turn: TurnKey, run_id: str = "run_1", **values: Any) -> ops.Completed:
    """End a run whose messages are still to be read."""
    values = {"unread": True, "primed": 0, **values}
    return bench.complete(
        turn, dialect="threads", response=run_id, handle_kind="run", **values
    )  # fmt: skip


def posted(bench: Bench, text: str, **values: Any) -> TurnKey:
    """Post a message."""
    turn = bench.taken(text, **POST, **values)
    assert "done" == bench.complete(turn, dialect="threads", primed=0)
    return turn


class Threads:
    """What a store promises about runs and about the order of a thread."""

    def test_a_run_that_is_unread_says_which(self, bench: Bench) -> None:
        bench.conversation(**THREAD)
        turn = begun(bench)
        assert ("run_1", False) == unread(bench)
        ended(bench, turn)
        assert ("run_1", True) == unread(bench)

    def test_learning_a_runs_messages_ends_its_being_unread(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        turn = begun(bench)
        bench.learn(conversation, said(1), said_by=("run_1",))
        assert ("run_1", False) == unread(bench), "it may say more"
        ended(bench, turn)
        bench.learn(conversation, said(1), said_by=("run_1",), read="run_0")
        assert ("run_1", True) == unread(bench), "that was another one"
        bench.learn(conversation, said(1), said_by=("run_1",), read="run_1")
        assert (None, False) == unread(bench)
        assert ["A1"] == bench.said(conversation)

    def test_an_older_run_says_nothing_about_a_newer_one(self, bench: Bench) -> None:
        bench.conversation(**THREAD)
        first = begun(bench)
        bench.underway(first, "run_1", generation=0)
        second = bench.taken(**RUN, looked="run_1")
        bench.underway(second, "run_2", generation=0)

        ended(bench, first, unread=False)
        assert ("run_2", False) == unread(bench)
        ended(bench, second, "run_2")
        bench.underway(first, "run_1", generation=0)
        assert ("run_2", True) == unread(bench)

    def test_what_a_run_said_comes_before_the_next_message(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        turn = begun(bench)
        first = bench.accept("Two.", **POST)
        assert ("unread", "run_1", False) == (first.outcome, first.unread, first.unread_ended)
        assert first.replica is not None
        assert "thread_1" == first.replica.handle
        looked = bench.accept("Two.", **POST, looked="run_1")
        assert ("deliver", "run_1") == (looked.outcome, looked.unread)
        assert looked.turn is not None
        bench.fail(looked.turn, withdrawn=True)
        ended(bench, turn)

        after = bench.accept("Two.", **POST, looked="run_1")

        assert ("unread", "run_1", True) == (after.outcome, after.unread, after.unread_ended)
        bench.learn(conversation, said(1), said_by=("run_1",), read="run_1")
        assert "deliver" == bench.accept("Two.", **POST).outcome

    def test_what_was_learnt_meanwhile_stands_before_a_message(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        begun(bench)
        turn = bench.taken("Two.", **POST, looked="run_1")
        bench.learn(conversation, said(1), said_by=("run_1",))

        own = (("msg_2", message("Two.", provider_id="msg_2").wire),)
        bench.complete(turn, dialect="threads", primed=0, own=own)

        assert ["A1", "Two."] == bench.said(conversation)
        assert ["msg_a1", "msg_2"] == [one.provider_id for one in bench.page(conversation).items]

    def test_what_was_learnt_meanwhile_stands_before_a_runs_messages(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        begun(bench)
        run = {**RUN, "items": messages("Two.")}
        turn = bench.taken(**run, looked="run_1")
        bench.learn(conversation, said(1), said_by=("run_1",))
        bench.underway(turn, "run_2", generation=0)
        assert ["A1", "Two."] == bench.said(conversation)
        bench.learn(conversation, said(2), said_by=("run_2",))
        bench.underway(turn, "run_2", generation=0)
        assert ["A1", "Two.", "A2"] == bench.said(conversation)

    def test_a_run_that_is_being_started_is_waited_for(self, bench: Bench) -> None:
        bench.conversation(**THREAD)
        turn = bench.taken(**RUN)
        assert "wait" == bench.accept("Two.", **POST, turn_id="two").outcome
        bench.underway(turn, "run_1", generation=0)
        assert "unread" == bench.accept("Two.", **POST, turn_id="two").outcome

    def test_nothing_is_learnt_of_a_run_before_its_id_is_known(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        turn = bench.taken(**RUN)
        both = (message("One.", provider_id="msg_1"), *said(1))
        assert "done" == bench.learn(conversation, both, said_by=(None, "run_1"))
        assert ["One."] == bench.said(conversation)
        bench.fail(turn, "unknown")
        bench.learn(conversation, both, said_by=(None, "run_1"))
        assert ["One."] == bench.said(conversation)
        bench.fail(bench.taken(**RUN))
        bench.learn(conversation, both, said_by=(None, "run_1"))
        assert ["One.", "A1"] == bench.said(conversation), "somebody else's"

    def test_what_a_run_said_may_stand_before_a_message_that_the_log_has(
        self, bench: Bench
    ) -> None:
        """It came after the log was looked at, and before the message was sent."""
        conversation = bench.conversation(**THREAD)
        turn = begun(bench)
        posted(bench, "Two.", looked="run_1")
        posted(bench, "Three.", looked="run_1")
        ended(bench, turn)
        older, more = message("Zero.", provider_id="msg_0"), message("More.", provider_id="msg_m")
        shown = (older, *said(1), *said(2), more)
        by: tuple[str | None, ...] = (None, "run_1", "run_0", None)

        two = ((1, "msg_2", message("Two.", provider_id="msg_2").wire),)
        bench.learn(conversation, shown, said_by=by, named=two, older=3, whole=False, read="run_1")

        assert ["Two.", "Three.", "A1", "More."] == bench.said(conversation)
        three = message("Three.", provider_id="msg_3")
        bench.learn(conversation, (), named=((2, "msg_3", three.wire),))
        turn = begun(bench, "run_3")
        ended(bench, turn, "run_3")
        by = (None, "run_3", None, None)
        bench.learn(conversation, (older, *said(3), three, more), said_by=by, read="run_3")
        assert ["Two.", "Three.", "A1", "More.", "A3"] == bench.said(conversation)
        assert (None, False) == unread(bench)

    def test_what_a_run_said_is_listed_as_its_own(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        begun(bench)
        other = bench.taken("Two.", **POST, looked="run_1")
        bench.learn(conversation, said(1), said_by=("run_1",))
        bench.fail(other, withdrawn=True)
        listed = bench.page(conversation, turn_response="run_1").items
        assert ["msg_a1"] == [item.provider_id for item in listed]

    # -- threads that take another's place ---------------------------------------------------

    def test_nothing_is_learnt_from_a_thread_that_was_replaced(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        turn = begun(bench)
        bench.bind(conversation, 0, "thread_2", dialect="threads")

        learnt = bench.learn(
            conversation, said(1), said_by=("run_1",), read="run_1", generation=0
        )  # fmt: skip

        assert "replaced" == learnt
        assert [] == bench.said(conversation)
        assert "replaced" == ended(bench, turn)
        assert not bench.found("run_1").ended

    def test_a_run_on_a_thread_that_was_replaced_is_not_read(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        turn = bench.taken(**RUN)
        bench.bind(conversation, 0, "thread_2", dialect="threads")
        bench.underway(turn, "run_1", generation=0)
        assert (None, False) == unread(bench)

    def test_a_thread_that_lacks_what_the_old_one_got_is_doubtful(self, bench: Bench) -> None:
        for number, primed_through in enumerate((0, 1)):
            handle = f"thread_{number}"
            at = {**POST, "handle": handle}
            conversation = bench.conversation(handle, dialect="threads")
            turn = bench.taken("One.", **at)
            bench.bind(
                conversation,
                0,
                f"{handle}-new",
                dialect="threads",
                primed_through=primed_through,
                turn=turn,
            )
            bench.complete(turn, dialect="threads", primed=0)
            assert (primed_through == 0) == bench.found(handle).replica.doubtful

    def test_a_thread_that_was_given_less_than_the_log_has_is_behind(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        posted(bench, "One.")
        asking = bench.taken("Two.", **POST)

        def bound(handle: str, primed_through: int, **more: Any) -> str:
            return bench.bind(
                conversation, 0, handle, dialect="threads", primed_through=primed_through, **more
            )

        assert "behind" == bound("thread_2", 0, turn=asking)
        assert "behind" == bound("thread_3", 1), "it lacks what somebody else says"
        assert "thread_1" == bench.found("thread_1").replica.handle
        bench.ask(ops.Adopted(bench.tenant, conversation, said(1), done=True))
        assert "behind" == bound("thread_5", 1, turn=asking, primed_from=1), "and what came before"
        assert bench.found("thread_1").first_position == 0
        assert "bound" == bound("thread_4", 1, turn=asking, primed_from=0)
        assert ("thread_4", 1) == (
            bench.found("thread_1").replica.handle,
            bench.found("thread_1").replica.generation,
        )

    def test_what_a_new_thread_was_given_is_not_withdrawn(self, bench: Bench) -> None:
        conversation = bench.conversation(**THREAD)
        turn = bench.taken("One.", **POST)
        bench.bind(conversation, 0, "thread_2", dialect="threads", primed_through=1)
        bench.fail(turn, withdrawn=True)
        assert ["One."] == bench.said(conversation)

    def test_what_a_new_thread_was_given_stays_before_what_is_said_on_it(
        self, bench: Bench
    ) -> None:
        """A message that was in doubt is on it; a run replies to it; then its call is repeated."""
        for number, run_id in enumerate((None, "run_2")):
            thread: dict[str, Any] = {"handle": f"thread_{number}", "dialect": "threads"}
            kind = "run" if run_id else "append"
            own = {**thread, "items": messages("One."), "kind": kind, "turn_id": f"turn_{number}"}
            conversation = bench.conversation(**thread)
            bench.fail(bench.taken(**own), "unknown")
            bench.bind(conversation, 0, f"new_{number}", dialect="threads", primed_through=1)
            other = f"run_{number}_1"
            bench.underway(bench.taken(**{**RUN, **thread}), other, generation=1)
            again = bench.taken(**own, looked=other)
            bench.learn(conversation, said(number), said_by=(other,), generation=1)

            if run_id:
                assert bench.underway(again, run_id, generation=1)
            else:
                assert "done" == bench.complete(again, dialect="threads", primed=1)

            assert ["One.", f"A{number}"] == bench.said(conversation)
            assert not bench.found(f"new_{number}").replica.doubtful

    # -- orphans -----------------------------------------------------------------------------

    def test_an_orphan_is_not_entered_again(self, bench: Bench) -> None:
        bench.conversation(**THREAD, subject="ann")
        forgotten = bench.ask(ops.Forget(bench.tenant, "ann"))
        assert "retired" == bench.accept("Two.", **POST).outcome
        bench.ask(ops.OrphanGone(bench.tenant, forgotten.orphans[0].key))
        assert "deliver" == bench.accept("Two.", **POST).outcome


def unread(bench: Bench) -> tuple[str | None, bool]:
    """Return the run that is unread, and whether it is known to have ended."""
    found = bench.found("thread_1")
    return found.unread, found.unread_ended
