"""Subjects: what Chat is made of. And tenants, which know nothing of each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from perdure.engine import ops
from perdure.testing.conformance.bench import BODY, Bench, message, messages, recovery

SHARED: Final[dict[str, Any]] = {"handle": "conv_1", "dialect": "conversations"}


class People:
    """What a store promises about subjects and forgetting them."""

    def test_a_subject_never_seen_is_not_found(self, bench: Bench) -> None:
        assert bench.ask(ops.FindSubject(bench.tenant, "nobody")) is None
        assert () == bench.ask(ops.ReadHistory(bench.tenant, "nobody", 10))
        assert bench.ask(ops.ReadTurn(bench.tenant, "nothing")) is None
        assert bench.ask(ops.ReadRecovery(bench.tenant, 1, 99)) is None

    def test_a_subject_is_found_with_its_replica(self, bench: Bench) -> None:
        turn = bench.exchange("Hello.", "Hi.", "resp_1", subject="ann")
        bench.later(4)
        subject = bench.ask(ops.FindSubject(bench.tenant, "ann"))
        assert subject is not None
        assert (turn.conversation, 2, "live", "resp_1", 4.0) == (
            subject.conversation,
            subject.last_position,
            subject.replica.state,
            subject.replica.handle,
            subject.replica.age_seconds,
        )

    def test_facts_are_counted(self, bench: Bench) -> None:
        numbers = [bench.ask(ops.Pin(bench.tenant, "ann", fact)) for fact in ("a", "b", "a")]
        assert [1, 2, 3] == numbers
        assert 1 == bench.ask(ops.Pin(bench.tenant, "bob", "c"))
        turn = bench.taken("Hello.", subject="ann")
        assert ("a", "b", "a") == bench.history(turn.conversation).milestones

    def test_history_reads_as_it_was_said(self, bench: Bench) -> None:
        first = bench.exchange("Hello.", "Hi.", "resp_1", subject="ann", turn_id="t1")
        bench.later(60)
        second = bench.taken("Again.", subject="ann", turn_id="t2")
        rebuilt = recovery(first.conversation, turn_id="t2")
        bench.complete(second, "Yes.", response="resp_2", recovery=rebuilt)

        entries = bench.ask(ops.ReadHistory(bench.tenant, "ann", 10))

        assert [
            (1, "t1", 1, "user", "Hello.", "answered"),
            (2, "t1", 1, "assistant", "Hi.", "answered"),
            (3, "t2", 2, "user", "Again.", "answered"),
            (4, "t2", 2, "assistant", "Yes.", "answered"),
        ] == [(e.position, e.turn_id, e.seq, e.role, e.text, e.state) for e in entries]
        assert [None, None, rebuilt, rebuilt] == [entry.recovery for entry in entries]
        assert 60.0 == entries[2].at - entries[0].at
        page = bench.ask(ops.ReadHistory(bench.tenant, "ann", 2, before=4))
        assert [2, 3] == [entry.position for entry in page]
        onward = bench.ask(ops.ReadHistory(bench.tenant, "ann", 2, after=1))
        assert [2, 3] == [entry.position for entry in onward]
        assert () == bench.ask(ops.ReadHistory(bench.tenant, "ann", 2, after=4))
        between = bench.ask(ops.ReadHistory(bench.tenant, "ann", 9, after=1, before=3))
        assert [2] == [entry.position for entry in between]
        assert all(entry.tokens > 0 for entry in entries)

    def test_a_reply_that_was_shown_in_part_is_told_once(self, bench: Bench) -> None:
        shown = (message("I was abo", role="assistant"),)
        turn = bench.taken("Hello.", turn_id="t1", subject="ann")
        bench.fail(turn, "unknown", partial=shown)
        assert ["Hello.", "I was abo"] == told(bench)

        bench.complete(turn, "I was about to.", response="resp_1", settles=True)

        assert ["Hello.", "I was about to."] == told(bench)
        assert ["Hello.", "I was about to."] == told(bench, limit=2)
        assert ["I was about to."] == told(bench, after=1, limit=1)

    def test_a_message_of_a_run_that_was_shown_in_part_is_told_once(self, bench: Bench) -> None:
        """The run may go on: what it has said stands there all the same."""
        thread = {"handle": "thread_1", "dialect": "threads"}
        conversation = bench.conversation("thread_1", dialect="threads", subject="ann")
        turn = bench.taken(**thread, kind="run")
        shown = (message("I was abo", role="assistant"),)
        bench.underway(turn, "run_1", partial=shown, partial_of=("msg_1",), generation=0)
        assert ["I was abo"] == told(bench)

        whole = (message("I was about to.", role="assistant", provider_id="msg_1"),)
        bench.learn(conversation, whole, said_by=("run_1",))

        assert ["I was about to."] == told(bench)
        assert ["I was about to."] == told(bench, after=0)

    @pytest.mark.parametrize("state", ["failed", "unknown"])
    def test_a_message_that_was_refused_is_told_with_its_state(
        self, bench: Bench, state: str
    ) -> None:
        turn = bench.taken("Hello.", turn_id="t1", subject="ann")

        bench.fail(turn, state, withdrawn=True)

        (entry,) = bench.ask(ops.ReadHistory(bench.tenant, "ann", 10))
        assert ("Hello.", state) == (entry.text, entry.state)

    def test_conversations_are_listed_page_by_page(self, bench: Bench) -> None:
        for name in ("ann", "bob"):
            bench.exchange("Hello.", "Hi.", f"resp_{name}", subject=name)

        def page(after: int = 0, limit: int = 1, **values: Any) -> tuple[ops.Listed, ...]:
            subject = values.get("subject")
            return bench.ask(ops.Conversations(bench.tenant, subject, after, limit))

        first = page()
        second = page(after=first[0].conversation)
        assert {"ann", "bob"} == {one.subject for one in (*first, *second)}
        assert () == page(after=second[0].conversation)
        assert ["bob"] == [one.subject for one in page(limit=9, subject="bob")]
        assert () == page(subject="nobody")
        (bob,) = page(subject="bob")
        assert ("responses", "resp_bob", "live", 2) == (
            bob.dialect,
            bob.handle,
            bob.state,
            bob.last_position,
        )

    def test_an_item_may_be_older_than_its_entry(self, bench: Bench) -> None:
        old = replace(message("Long ago."), created_at=1_600_000_000.5)
        conversation = bench.conversation("conv_1", items=(old,))
        bench.ask(ops.Learn(bench.tenant, conversation, (old, message("Now.")), whole=True))
        bench.ask(ops.Adopted(bench.tenant, conversation, (old,), done=True))

        times = [item.created_at for item in bench.history(conversation).items]

        assert [1_600_000_000.5] * 3 == times[:3]
        assert times[3] > 1_600_000_001

    def test_what_became_of_a_turn_is_told(self, bench: Bench) -> None:
        turn = bench.taken("Hello.", turn_id="t")
        assert ops.TurnInfo(1, "delivering", None, None) == bench.ask(
            ops.ReadTurn(bench.tenant, "t")
        )
        bench.fail(turn, "unknown")
        assert ops.TurnInfo(1, "unknown", None, None) == bench.ask(ops.ReadTurn(bench.tenant, "t"))

    # -- forgetting --------------------------------------------------------------------------

    def test_forgetting_erases_all_and_says_how_much(self, bench: Bench) -> None:
        turn = bench.exchange("One.", "1", "resp_1", subject="ann", turn_id="t")
        bench.exchange("Two.", "2", "resp_2", subject="ann")
        bench.exchange("Three.", "3", "resp_3", handle="resp_1")
        bench.ask(ops.Pin(bench.tenant, "ann", "Fact."))
        kept = bench.exchange("Mine.", "4", "resp_4", subject="bob")

        forgotten = bench.ask(ops.Forget(bench.tenant, "ann"))

        assert (2, 6, 3, 1) == (
            forgotten.conversations,
            forgotten.items,
            forgotten.turns,
            forgotten.milestones,
        )
        assert ["resp_1", "resp_2", "resp_3"] == sorted(one.handle for one in forgotten.orphans)
        assert sorted(bench.orphaned()) == sorted(one.handle for one in forgotten.orphans)
        assert bench.ask(ops.FindSubject(bench.tenant, "ann")) is None
        assert [None] * 3 == [bench.find(f"resp_{number}") for number in (1, 2, 3)]
        assert bench.ask(ops.ReadTurn(bench.tenant, "t")) is None
        assert bench.ask(ops.OneItem(bench.tenant, None, "resp_1-0")) is None
        assert [] == bench.said(turn.conversation)
        assert ["Mine.", "4"] == bench.said(kept.conversation)

    def test_forgetting_leaves_no_replica_behind(self, bench: Bench) -> None:
        """Also one that another dialect's has taken the place of, and that nobody has lost."""
        conversation = bench.conversation("thread_1", dialect="threads", subject="ann")
        bench.conversation("conv_1", subject="ann")
        bench.bind(conversation, 1, "conv_2", lost="conv_1")

        forgotten = bench.ask(ops.Forget(bench.tenant, "ann"))

        assert [
            ("conv_1", "conversations"),
            ("conv_2", "conversations"),
            ("thread_1", "threads"),
        ] == sorted((one.handle, one.dialect) for one in forgotten.orphans)
        assert bench.find("thread_1") is None

    def test_what_was_lost_may_still_hold_what_was_said(self, bench: Bench) -> None:
        """Not what the app has deleted; what was to be deleted before is named once."""
        conversation = bench.conversation("conv_1", subject="ann")
        bench.bind(conversation, 0, "conv_2", lost="conv_1")
        bench.bind(conversation, 1, "conv_3", lost="conv_2", orphan=True)
        bench.ask(ops.Retire(bench.tenant, bench.upstream, "conv_3"))
        forgotten = bench.ask(ops.Forget(bench.tenant, "ann"))
        assert ["conv_1", "conv_2"] == sorted(one.handle for one in forgotten.orphans)
        assert ["conv_1", "conv_2"] == sorted(bench.orphaned())

    def test_nobody_to_forget(self, bench: Bench) -> None:
        assert ops.Forgotten(0, 0, 0, 0, ()) == bench.ask(ops.Forget(bench.tenant, "nobody"))

    def test_a_forgotten_subject_may_come_back(self, bench: Bench) -> None:
        old = bench.exchange("One.", "1", "resp_1", subject="ann")
        bench.ask(ops.Forget(bench.tenant, "ann"))
        new = bench.taken("Two.", subject="ann")
        assert old.conversation != new.conversation
        assert ["Two."] == bench.said(new.conversation)


class Tenants:
    """What a store promises about tenants: none sees or changes what is another's."""

    def test_the_same_names_are_different_things(self, bench: Bench) -> None:
        with bench.another("other-" + bench.tenant) as other:
            mine = bench.taken("Mine.", subject="ann", turn_id="t")
            theirs = other.taken("Theirs.", subject="ann", turn_id="t")
            assert mine.conversation != theirs.conversation
            bench.ask(ops.Forget(bench.tenant, "ann"))
            assert ["Theirs."] == other.said(theirs.conversation)

    def test_anothers_handle_is_foreign(self, bench: Bench) -> None:
        bench.exchange("One.", "1", "resp_1")
        with bench.another("other-" + bench.tenant) as other:
            accepted = other.accept("Two.", handle="resp_1")
            assert ("foreign", None) == (accepted.outcome, accepted.turn)
            found = other.found("resp_1")
            assert (True, None, None) == (found.foreign, found.answer, found.replica.handle)
        assert not bench.found("resp_1").foreign

    def test_anothers_conversation_is_out_of_reach(self, bench: Bench) -> None:
        items = (message("One.", provider_id="msg_1"),)
        conversation = bench.conversation("conv_1", items=items)
        turn = bench.taken("Two.", **SHARED)
        with bench.another("other-" + bench.tenant) as other:
            assert [] == other.said(conversation)
            assert () == other.page(conversation).items
            assert other.ask(ops.OneItem(other.tenant, None, "msg_1")) is None
            assert () == other.unsettled(conversation, asking=turn.seq).turns
            assert "fenced" == other.complete(turn, "2", dialect="conversations")
            assert not other.fail(turn)
            assert "beaten" == other.bind(conversation, 0, "conv_x")
            other.ask(ops.Tombstone(other.tenant, other.upstream, conversation, "msg_1"))
            other.ask(ops.Learn(other.tenant, conversation, messages("Learnt."), whole=True))
            other.ask(ops.Adopted(other.tenant, conversation, messages("Adopted."), done=True))
            other.ask(ops.Retire(other.tenant, other.upstream, "conv_1"))
            other.ask(ops.Renew(other.tenant, (turn,), 9999.0))
            assert "erased" == other.accept("Two.", **SHARED, waiting_for=turn).outcome
        assert ["One.", "Two."] == bench.said(conversation)
        assert ("live", 0) == (
            bench.found("conv_1").state,
            bench.found("conv_1").replica.generation,
        )
        bench.later(61)
        assert "deliver" == bench.accept("Two.", **SHARED).outcome

    def test_anothers_orphans_are_not_ours_to_delete(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        bench.ask(ops.Discard(bench.tenant, bench.upstream, "conversations", conversation, "x"))
        (orphan,) = bench.orphans()
        with bench.another("other-" + bench.tenant) as other:
            assert () == other.orphans()
            other.ask(ops.OrphanGone(other.tenant, orphan.key))
            other.ask(ops.Throttle(other.tenant, other.upstream, 60.0))
        assert ["x"] == bench.orphaned()
        assert 0.0 == bench.ask(ops.Throttled(bench.tenant, bench.upstream))

    def test_ids_of_one_tenant_do_not_bind_anothers(self, bench: Bench) -> None:
        bench.conversation("conv_1")
        with bench.another("other-" + bench.tenant) as other:
            entered = other.ask(
                ops.BindNew(other.tenant, other.upstream, "conversations", "conv_1", (), BODY, "")
            )
            assert "bound" == entered
            assert not other.found("conv_1").foreign
        assert not bench.found("conv_1").foreign


def told(bench: Bench, limit: int = 10, after: int | None = None) -> list[str]:
    """Return what the history tells."""
    entries = bench.ask(ops.ReadHistory(bench.tenant, "ann", limit, after=after))
    return [entry.text for entry in entries]
