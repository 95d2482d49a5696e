"""Reading the log: by handle, for a prime, as a list; and what is learnt from a provider."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from perdure.engine import ops
from perdure.model import NewItem, Remembered
from perdure.testing.conformance.bench import Bench, message, recovery, text


def numbered(first: int, last: int) -> tuple[NewItem, ...]:
    """Return messages that a provider knows as ``msg_<n>``."""
    return tuple(message(str(n), provider_id=f"msg_{n}") for n in range(first, last + 1))


def shown(listing: ops.Listing) -> list[str | None]:
    """Return the ids on a page."""
    return [item.provider_id for item in listing.items]


class Reading:
    """What a store promises about reading, learning and adopting."""

    # -- find --------------------------------------------------------------------------------

    def test_a_handle_never_seen_is_not_found(self, bench: Bench) -> None:
        assert bench.find("resp_unknown") is None

    def test_every_old_handle_keeps_its_position(self, bench: Bench) -> None:
        turn = bench.exchange("One.", "1", "resp_1")
        bench.exchange("Two.", "2", "resp_2", handle="resp_1")
        first, second = bench.found("resp_1"), bench.found("resp_2")
        assert (turn.conversation, 2) == (first.conversation, first.position)
        assert (turn.conversation, 4, 4) == (
            second.conversation,
            second.position,
            second.last_position,
        )

    def test_a_handle_at_the_end_knows_what_the_history_must_amount_to(self, bench: Bench) -> None:
        first, second = Remembered(700, 0, "model"), Remembered(900, 20, "model", "tools")
        turn = bench.taken("One.")
        bench.complete(turn, "1", response="resp_1", remembered=first)
        assert first == bench.found("resp_1").remembered
        turn = bench.taken("Two.", handle="resp_1")
        bench.complete(turn, "2", response="resp_2", remembered=second)
        assert (None, second) == (
            bench.found("resp_1").remembered,
            bench.found("resp_2").remembered,
        )

    def test_a_conversations_handle_knows_it_too(self, bench: Bench) -> None:
        bench.conversation("conv_1", "One.")
        assert bench.found("conv_1").remembered is None
        turn = bench.taken("Two.", handle="conv_1", dialect="conversations")
        known = Remembered(900, 0, "model")
        bench.complete(turn, "2", dialect="conversations", response="resp_1", remembered=known)
        assert known == bench.found("conv_1").remembered

    def test_a_handle_means_something_only_at_its_upstream(self, bench: Bench) -> None:
        bench.exchange("One.", "1", "resp_1")
        elsewhere = ops.Find(bench.tenant, "https://elsewhere.example/v1", "resp_1")
        assert bench.ask(elsewhere) is None

    def test_age_is_counted_by_the_stores_clock(self, bench: Bench) -> None:
        bench.exchange("One.", "1", "resp_1")
        bench.later(40)
        assert (40.0, 40.0) == (
            bench.found("resp_1").age_seconds,
            bench.found("resp_1").replica.age_seconds,
        )

    # -- history -----------------------------------------------------------------------------

    def test_history_is_read_up_to_a_position(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", items=numbered(1, 6))
        assert ["1", "2", "3"] == bench.said(conversation, through=3)
        assert [] == bench.said(conversation, through=0)

    def test_history_takes_the_newest_that_fit(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", items=numbered(1, 40))
        for budget in (40, 100, 200):
            span = bench.history(conversation, budget=budget)
            assert 40 == span.older + len(span.items), budget
            assert [str(n) for n in range(span.older + 1, 41)] == list(map(text, span.items))
            assert 1 < len(span.items) < 40
        assert ["40"] == bench.said(conversation, budget=1), "one is always taken"

    def test_older_counts_what_a_prime_could_have_had(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", items=numbered(1, 10))
        bench.ask(ops.Tombstone(bench.tenant, bench.upstream, conversation, "msg_2"))
        bench.ask(ops.Tombstone(bench.tenant, bench.upstream, conversation, "msg_9"))
        assert 7 == bench.history(conversation, budget=1).older
        bench.ask(ops.Adopted(bench.tenant, conversation, numbered(-3, 0)[::-1], done=True))
        assert 11 == bench.history(conversation, budget=1).older

    def test_older_counts_through_branches(self, bench: Bench) -> None:
        bench.exchange("One.", "1", "resp_1")
        bench.exchange("Two.", "2", "resp_2", handle="resp_1")
        bench.exchange("Three.", "3", "resp_3", handle="resp_1")
        twig = bench.taken("Four.", handle="resp_3")
        span = bench.history(twig.conversation, budget=1)
        assert (["Four."], 4) == (list(map(text, span.items)), span.older)

    def test_pinned_facts_come_with_every_history(self, bench: Bench) -> None:
        turn = bench.exchange("One.", "1", "resp_1", subject="ann")
        bench.ask(ops.Pin(bench.tenant, "ann", "Allergic to penicillin"))
        bench.ask(ops.Pin(bench.tenant, "ann", "Vegetarian"))
        pinned = ("Allergic to penicillin", "Vegetarian")
        assert pinned == bench.history(turn.conversation, budget=1).milestones

    def test_history_brings_what_was_sent_along_only_where_asked(self, bench: Bench) -> None:
        plain = message("One.", provider_id="msg_1")
        rich = NewItem('{"attachments":[]}', message("Two.").wire, "message", "user")
        conversation = bench.conversation("thread_1", dialect="threads", items=(plain, rich))

        whole = bench.history(conversation, wire=ops.ANY)
        bare = bench.history(conversation)

        assert [plain.wire, rich.wire] == [item.wire for item in whole.items]
        assert [plain.wire, rich.input] == [item.input for item in whole.items]
        assert [replace(item, wire="") for item in whole.items] == list(bare.items)

    @pytest.mark.parametrize("wanted", ['"attachments":[{', '"content":"One.', "%", "ö", "none"])
    def test_what_was_sent_comes_along_where_a_text_stands_in_it(
        self, bench: Bench, wanted: str
    ) -> None:
        plain = message("One.", provider_id="msg_1")
        with_file = '{"attachments":[{"file_id":"f"}],"content":"Zwei, schön."}'
        rich = NewItem(with_file, message("Two.").wire, "message", "user")
        none = NewItem('{"attachments":[]}', message("100 %").wire, "message", "user")
        sent = [plain, rich, none]
        conversation = bench.conversation("thread_1", dialect="threads", items=tuple(sent))

        span = bench.history(conversation, wire=wanted)
        found = bench.ask(ops.Excerpts(bench.tenant, conversation, 99, ((1, 99),), 99, wire=wanted))

        expected = [one.wire if wanted in one.wire else "" for one in sent]
        assert expected == [item.wire for item in span.items]
        assert expected == [item.wire for item in found]

    def test_what_was_sent_comes_along_through_branches(self, bench: Bench) -> None:
        bench.exchange("One.", "1", "resp_1")
        bench.exchange("Two.", "2", "resp_2", handle="resp_1")
        bench.exchange("Three.", "3", "resp_3", handle="resp_1")
        twig = bench.taken("Four.", handle="resp_3")

        span = bench.history(twig.conversation, wire=ops.ANY)

        assert ["One.", "1", "Three.", "3", "Four."] == [
            json.loads(item.wire)["content"] for item in span.items
        ]

    def test_an_erased_conversation_has_no_history(self, bench: Bench) -> None:
        turn = bench.exchange("One.", "1", "resp_1", subject="ann")
        bench.ask(ops.Forget(bench.tenant, "ann"))
        assert [] == bench.said(turn.conversation)

    # -- lists -------------------------------------------------------------------------------

    def test_a_list_is_paged_in_both_directions(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", items=numbered(1, 5))
        first = bench.page(conversation, limit=2)
        assert (["msg_1", "msg_2"], True) == (shown(first), first.has_more)
        second = bench.page(conversation, limit=3, after="msg_2")
        assert (["msg_3", "msg_4", "msg_5"], False) == (shown(second), second.has_more)
        newest = bench.page(conversation, limit=2, newest_first=True)
        assert (["msg_5", "msg_4"], True) == (shown(newest), newest.has_more)
        older = bench.page(conversation, limit=9, newest_first=True, after="msg_4")
        assert (["msg_3", "msg_2", "msg_1"], False) == (shown(older), older.has_more)
        between = bench.page(conversation, after="msg_1", before="msg_4")
        assert ["msg_2", "msg_3"] == shown(between)
        assert ["msg_5"] == shown(bench.page(conversation, newest_first=True, before="msg_4"))

    def test_a_cursor_that_names_nothing_says_so(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", items=numbered(1, 2))
        missing = bench.page(conversation, after="msg_9")
        assert (False, (), False) == (missing.cursor_found, missing.items, missing.has_more)
        assert bench.page(conversation, after="msg_2").cursor_found

    def test_a_listed_item_names_its_turn(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", items=numbered(1, 1))
        turn = bench.taken("Hello.", handle="conv_1", dialect="conversations", turn_id="mine")
        bench.complete(turn, "Hi.", dialect="conversations", response="resp_1")
        listed = bench.page(conversation).items
        assert [None, "mine", "mine"] == [item.turn_id for item in listed]

    def test_the_items_of_one_response_are_listed(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        shared: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        for number in (1, 2, 3):
            turn = bench.taken(f"Q{number}", **shared)
            bench.complete(turn, f"A{number}", dialect="conversations", response=f"resp_{number}")
        listed = bench.page(conversation, turn_response="resp_2")
        assert [None, "resp_2-0"] == shown(listed)
        assert () == bench.page(conversation, turn_response="resp_9").items

    def test_an_item_is_read_by_its_id(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", items=numbered(1, 3))
        other = bench.conversation("conv_2")
        anywhere = bench.ask(ops.OneItem(bench.tenant, None, "msg_2"))
        assert anywhere is not None
        assert (2, "msg_2", "2") == (anywhere.position, anywhere.provider_id, text(anywhere))
        assert anywhere == bench.ask(ops.OneItem(bench.tenant, conversation, "msg_2"))
        assert bench.ask(ops.OneItem(bench.tenant, other, "msg_2")) is None
        assert bench.ask(ops.OneItem(bench.tenant, None, "msg_9")) is None

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
