"""What is learnt from a provider: the newest of what it shows, and older history."""

from __future__ import annotations

import pytest

from perdure.engine import ops
from perdure.testing.conformance.bench import Bench, message, numbered, recovery, shown


class Learning:
    """What a store promises about entering what others have said."""

    # -- learn -------------------------------------------------------------------------------

    def test_what_follows_a_known_item_is_learnt(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", items=numbered(1, 2))
        assert "done" == bench.learn(conversation, numbered(2, 4), whole=False)
        assert ["1", "2", "3", "4"] == bench.said(conversation)
        assert "done" == bench.learn(conversation, numbered(1, 4), whole=False)
        assert ["1", "2", "3", "4"] == bench.said(conversation), "nothing is learnt twice"

    def test_what_does_not_join_on_is_not_learnt(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", items=numbered(1, 2))
        assert "apart" == bench.learn(conversation, numbered(5, 6), whole=False)
        assert ["1", "2"] == bench.said(conversation)
        assert "done" == bench.learn(conversation, numbered(5, 6))
        assert ["1", "2", "5", "6"] == bench.said(conversation)

    def test_items_that_the_log_has_get_the_ids_under_which_they_are_shown(
        self, bench: Bench
    ) -> None:
        conversation = bench.conversation("conv_1", "One.", "Two.")
        named = ((2, "msg_2", message("Two.", provider_id="msg_2").wire),)

        learnt = bench.learn(conversation, numbered(3, 3), whole=False, named=named)

        assert "done" == learnt
        assert ["One.", "Two.", "3"] == bench.said(conversation)
        assert [None, "msg_2", "msg_3"] == shown(bench.page(conversation))
        assert named[0][2] == bench.page(conversation).items[1].wire

    def test_what_lies_before_a_known_item_is_left_alone(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", items=numbered(3, 3))
        bench.learn(conversation, numbered(1, 4))
        assert ["3", "4"] == bench.said(conversation)

    # -- adopt -------------------------------------------------------------------------------

    def test_older_history_goes_in_front(self, bench: Bench) -> None:
        turn = bench.taken("Now.", handle="conv_old", dialect="conversations")
        at = (bench.tenant, turn.conversation)

        bench.ask(ops.Adopted(*at, numbered(3, 4)[::-1], done=False))
        assert not bench.history(turn.conversation).complete
        bench.ask(ops.Adopted(*at, numbered(1, 3)[::-1], done=True))

        assert ["1", "2", "3", "4", "Now."] == bench.said(turn.conversation)
        assert bench.history(turn.conversation).complete
        positions = [item.position for item in bench.history(turn.conversation).items]
        assert sorted(positions) == positions
        assert (positions[-2] < 1, positions[-1]) == (True, 1)
        assert ["msg_1", "msg_2", "msg_3", "msg_4", None] == shown(bench.page(turn.conversation))

    def test_a_replica_that_was_rebuilt_before_older_history_came_is_doubtful(
        self, bench: Bench
    ) -> None:
        turn = bench.taken("Now.", handle="conv_old", dialect="conversations")
        conversation = turn.conversation
        bench.bind(conversation, 0, "conv_new", lost="conv_old", turn=turn)
        assert not bench.found("conv_old").replica.doubtful

        bench.ask(ops.Adopted(bench.tenant, conversation, numbered(1, 2)[::-1], done=False))

        bench.ask(ops.Settle(bench.tenant, conversation, 1))
        assert bench.found("conv_old").replica.doubtful, "whatever is settled besides"
        bench.bind(conversation, 1, "conv_newer", lost="conv_new", turn=turn)
        bench.ask(ops.Adopted(bench.tenant, conversation, numbered(1, 2)[::-1], done=True))
        assert not bench.found("conv_old").replica.doubtful, "it has all that is known"

    def test_a_replica_on_another_api_has_what_the_one_before_it_lacked(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", subject="ann")
        bench.bind(conversation, 0, "conv_2", lost="conv_1")
        bench.ask(ops.Adopted(bench.tenant, conversation, numbered(1, 2)[::-1], done=True))
        bench.conversation("thread_1", dialect="threads", subject="ann")
        assert not bench.found("thread_1").replica.doubtful
        on_thread = {"handle": "thread_1", "dialect": "threads"}
        turn = bench.taken("One.", **on_thread, kind="append")
        bench.fail(turn, "unknown")
        assert bench.found("thread_1").replica.doubtful

        bench.complete(turn, dialect="threads", settles=True)
        bench.ask(ops.Settle(bench.tenant, conversation, 2))

        assert not bench.found("thread_1").replica.doubtful

    def test_a_response_that_was_primed_before_older_history_came_is_lost(
        self, bench: Bench
    ) -> None:
        turn = bench.taken("Now.", handle="resp_old")
        told = recovery(turn.conversation)
        bench.complete(turn, "Yes.", response="resp_new", recovery=told)
        assert "live" == bench.found("resp_new").state

        bench.ask(ops.Adopted(bench.tenant, turn.conversation, numbered(1, 2)[::-1], done=True))

        assert "lost" == bench.found("resp_new").state

    @pytest.mark.parametrize("begun", ["rebuilt before", "being rebuilt"])
    def test_a_response_that_is_made_while_older_history_comes_is_lost(
        self, bench: Bench, begun: str
    ) -> None:
        """It was asked for before that, on a replica that lacks it."""
        head = "resp_0"
        if begun == "rebuilt before":
            first = bench.taken("One.", handle=head)
            bench.complete(first, "1", response="resp_1", recovery=recovery(first.conversation))
            head = "resp_1"
        turn = bench.taken("Two.", handle=head)
        old = (message("Older.", provider_id="msg_0"),)
        bench.ask(ops.Adopted(bench.tenant, turn.conversation, old, done=False))
        again = recovery(turn.conversation) if begun == "being rebuilt" else None

        bench.complete(turn, "2", response="resp_2", recovery=again)

        assert ("lost", "lost") == (
            bench.found("resp_2").state,
            bench.found("resp_2").replica.state,
        )
        last = bench.taken("Three.", handle="resp_2")
        bench.complete(last, "3", response="resp_3", recovery=recovery(turn.conversation))
        assert "live" == bench.found("resp_3").replica.state

    def test_every_response_that_goes_on_from_a_partial_prime_is_lost(self, bench: Bench) -> None:
        """On the line, on branches from it and on theirs; what was never rebuilt is whole."""
        trunk = bench.exchange("One.", "1", "resp_1", handle="resp_old").conversation
        bench.exchange("Two.", "2", "resp_2", handle="resp_1")
        made = [("resp_3", "resp_2", True), ("resp_4", "resp_3", False)]  # rebuilt, and on from it
        made += [("resp_b1", "resp_1", False), ("resp_b2", "resp_b1", True)]  # a branch
        made += [("resp_c1", "resp_b1", False), ("resp_c2", "resp_b2", False)]  # its own, rebuilt
        made += [("resp_d1", "resp_3", False), ("resp_d2", "resp_d1", False)]  # from one rebuilt
        for name, handle, again in made:
            turn = bench.taken("More.", handle=handle)
            told = recovery(turn.conversation) if again else None
            bench.complete(turn, "Yes.", response=name, recovery=told)
        open_turns = [bench.taken("More.", handle=name) for name in ("resp_b2", "resp_c1")]

        bench.ask(ops.Adopted(bench.tenant, trunk, numbered(1, 2)[::-1], done=True))

        for number, turn in enumerate(open_turns):
            bench.complete(turn, "Yes.", response=f"resp_e{number}")
        names = ["resp_1", "resp_2", *(name for name, _, _ in made), "resp_e0", "resp_e1"]
        whole = [name for name in names if bench.found(name).state == "live"]
        assert ["resp_1", "resp_2", "resp_b1", "resp_c1", "resp_e1"] == whole
        assert "lost" == bench.accept("More.", handle="resp_d2").handle_state
        turn = bench.taken("More.", handle="resp_c2")
        bench.complete(turn, "Yes.", response="resp_new", recovery=recovery(turn.conversation))
        assert "live" == bench.found("resp_new").state, "it has all that is known"

    def test_a_response_in_a_conversation_that_lacks_older_history_is_lost(
        self, bench: Bench
    ) -> None:
        """A chain may go on from it."""
        at = {"handle": "conv_old", "dialect": "conversations"}
        turn = bench.taken("Now.", **at)
        conversation = turn.conversation
        bench.complete(turn, "Yes.", dialect="conversations", response="resp_1")
        bench.bind(conversation, 0, "conv_new", lost="conv_old")
        bench.complete(
            bench.taken("More.", **at), "Yes.", dialect="conversations", response="resp_2"
        )
        bench.exchange("Beside.", "Yes.", "resp_3", handle="resp_2")

        bench.ask(ops.Adopted(bench.tenant, conversation, numbered(1, 2)[::-1], done=True))

        states = [bench.found(f"resp_{number}").state for number in (1, 2, 3)]
        assert ["live", "lost", "lost"] == states

    def test_a_subjects_chain_that_lacks_older_history_is_lost(self, bench: Bench) -> None:
        turn = bench.taken("One.", handle="resp_old", subject="ann")
        told = recovery(turn.conversation)
        bench.complete(turn, "1", response="resp_1", recovery=told)
        bench.exchange("Two.", "2", "resp_2", subject="ann")
        assert "live" == state_of(bench, "ann")

        bench.ask(ops.Adopted(bench.tenant, turn.conversation, numbered(1, 2)[::-1], done=True))

        assert "lost" == state_of(bench, "ann")
        assert "lost" == bench.accept("Three.", subject="ann").handle_state

    def test_nothing_is_learnt_from_before_the_log_while_that_is_to_be_adopted(
        self, bench: Bench
    ) -> None:
        turn = bench.taken("Now.", handle="thread_old", dialect="threads", kind="run")
        bench.underway(turn, "run_1", generation=0)
        of_a_run = (None, None, "run_1")

        assert "apart" == bench.learn(turn.conversation, numbered(1, 2), whole=True)
        learnt = bench.learn(turn.conversation, numbered(1, 3), whole=True, said_by=of_a_run)

        assert ("done", ["Now.", "3"]) == (learnt, bench.said(turn.conversation))

    def test_an_adoption_is_taken_up_by_one_at_a_time(self, bench: Bench) -> None:
        turn = bench.taken("Now.", handle="conv_old", dialect="conversations")
        take = ops.Adopting(bench.tenant, turn.conversation, lease_seconds=30.0)

        assert ["conv_old", None] == [bench.ask(take), bench.ask(take)]
        bench.later(31)
        assert "conv_old" == bench.ask(take), "whoever was at it is gone"
        bench.later(20)
        bench.ask(
            ops.Adopted(
                bench.tenant, turn.conversation, numbered(1, 1), done=False, lease_seconds=30.0
            )
        )
        bench.later(20)
        assert bench.ask(take) is None, "somebody is still at it"

    def test_an_adoption_that_is_given_back_is_taken_up_at_once(self, bench: Bench) -> None:
        turn = bench.taken("Now.", handle="conv_old", dialect="conversations")
        at = (bench.tenant, turn.conversation)
        assert "conv_old" == bench.ask(ops.Adopting(*at))

        bench.ask(ops.Adopted(*at, (), done=False, lease_seconds=0.0))

        assert ["conv_old", None] == [bench.ask(ops.Adopting(*at)) for _ in range(2)]
        assert ["Now."] == bench.said(turn.conversation)
        assert not bench.history(turn.conversation).complete

    @pytest.mark.parametrize("end", ["done", "given_up"])
    def test_an_adoption_that_has_ended_is_not_taken_up(self, bench: Bench, end: str) -> None:
        turn = bench.taken("Now.", handle="conv_old", dialect="conversations")
        values: dict[str, bool] = {"done": False, end: True}
        bench.ask(ops.Adopted(bench.tenant, turn.conversation, (), **values))
        bench.complete(turn, "Yes.", dialect="conversations")
        bench.later(10_000)

        again = bench.accept("More.", handle="conv_old", dialect="conversations")

        assert (False, end != "done") == (again.adopting, again.incomplete)
        assert bench.ask(ops.Adopting(bench.tenant, turn.conversation)) is None
        assert (end == "done") == bench.history(turn.conversation).complete

    def test_what_is_deleted_while_it_is_adopted_is_not_adopted(self, bench: Bench) -> None:
        """A page that was read before brings it afterwards."""
        turn = bench.taken("Now.", handle="conv_old", dialect="conversations")
        log = turn.conversation
        bench.ask(ops.Adopted(bench.tenant, log, numbered(4, 4), done=False))

        removed = [bench.removed(log, one) for one in ("msg_4", "msg_2", "msg_2", "msg_9")]
        bench.ask(ops.Adopted(bench.tenant, log, numbered(1, 3)[::-1], done=True))

        assert ["there", "unknown", "unknown", "unknown"] == removed
        assert ["1", "3", "Now."] == bench.said(log)
        assert 0 == bench.history(log).older
        assert 2 == bench.history(log, budget=1).older
        assert ["msg_1", "msg_3"] == [
            item.provider_id for item in bench.page(log, newest_first=False).items[:2]
        ]
        assert "unknown" == bench.removed(log, "msg_8"), "it has been adopted"

    def test_what_is_deleted_while_it_is_adopted_is_no_older_history(self, bench: Bench) -> None:
        """What was rebuilt lacks nothing by that."""
        turn = bench.taken("Now.", handle="conv_old", dialect="conversations")
        log = turn.conversation
        bench.bind(log, 0, "conv_new", lost="conv_old", turn=turn)
        bench.complete(turn, "Yes.", dialect="conversations", response="resp_1")
        assert "unknown" == bench.removed(log, "msg_9")

        bench.ask(ops.Adopted(bench.tenant, log, (), done=True))

        assert "live" == bench.found("resp_1").state
        assert not bench.found("conv_new").replica.doubtful

    def test_what_was_deleted_while_it_was_adopted_is_not_learnt_either(self, bench: Bench) -> None:
        """The provider may not have been reached: what was written down counts."""
        turn = bench.taken("Now.", handle="thread_old", dialect="threads")
        log = turn.conversation
        bench.removed(log, "msg_2")
        bench.ask(ops.Adopted(bench.tenant, log, (*numbered(3, 3), *numbered(1, 1)), done=True))

        bench.ask(ops.Learn(bench.tenant, log, numbered(1, 4), whole=True))

        assert ["1", "3", "Now.", "4"] == bench.said(log)

    def test_what_is_deleted_while_it_is_adopted_is_no_place_to_go_on_from(
        self, bench: Bench
    ) -> None:
        """A list that was read before shows it, and what followed it."""
        turn = bench.taken("Now.", handle="thread_old", dialect="threads")
        assert "unknown" == bench.removed(turn.conversation, "msg_1")

        shown = numbered(1, 2)
        learnt = bench.ask(ops.Learn(bench.tenant, turn.conversation, shown, whole=True))

        assert ("apart", ["Now."]) == (learnt, bench.said(turn.conversation))
        assert bench.page(turn.conversation, after="msg_1").cursor_found is False

    def test_an_adoption_goes_on_from_the_handle_that_it_began_with(self, bench: Bench) -> None:
        bench.exchange("One.", "1", "resp_2", handle="resp_old")
        turn = bench.exchange("Two.", "2", "resp_3", handle="resp_2")
        assert "resp_old" == bench.ask(ops.Adopting(bench.tenant, turn.conversation))
        own = bench.exchange("Three.", "3", "resp_4")
        assert bench.ask(ops.Adopting(bench.tenant, own.conversation)) is None


def state_of(bench: Bench, subject: str) -> str:
    """Return the state of a subject's replica."""
    found = bench.ask(ops.FindSubject(bench.tenant, subject))
    assert found is not None
    return found.replica.state
