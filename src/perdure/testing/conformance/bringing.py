"""Conversations that come from elsewhere, a portion at a time."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.engine import ops
from perdure.model import NewItem
from perdure.testing.conformance.bench import WORKERS, Bench, counted, message, messages


def bring_in(bench: Bench, *texts: str, behind: int = 0, **values: Any) -> ops.BroughtIn:
    """Bring a portion in, of a conversation that is not named."""
    items: tuple[NewItem, ...] = messages(*texts)
    return bench.ask(
        ops.BringIn(
            **{
                "tenant": bench.tenant,
                "upstream": bench.upstream,
                "dialect": "threads",
                "handle": "thread_1",
                "items": items,
                "behind": behind,
                **values,
            }
        )
    )


class Bringing:
    """What a store promises to an import."""

    def test_the_first_portion_begins_a_conversation(self, bench: Bench) -> None:
        facts = ("Allergic to cats", "Lives in Ulm")
        brought = bring_in(bench, "One.", "Two.", subject="ann", facts=facts)

        assert ("entered", 2, False) == (brought.outcome, brought.items, brought.subject_taken)
        found = bench.found("thread_1")
        assert brought.conversation == found.conversation
        assert ("lost", "lost", "thread_1", 0, "threads") == (
            found.state,
            found.replica.state,
            found.replica.handle,
            found.replica.generation,
            found.replica.dialect,
        )
        assert ["One.", "Two."] == bench.said(brought.conversation)
        assert facts == bench.history(brought.conversation).milestones
        subject = bench.ask(ops.FindSubject(bench.tenant, "ann"))
        assert subject is not None
        assert brought.conversation == subject.conversation

    def test_a_portion_is_entered_behind_the_one_before_it_and_once(self, bench: Bench) -> None:
        conversation = bring_in(bench, "One.", "Two.").conversation
        for portion, behind, expected in (
            (("One.", "Two."), 0, "known"),
            (("Four.",), 3, "known"),
            (("Three.", "Four."), 2, "entered"),
            (("Three.", "Four."), 2, "known"),
            ((), 4, "known"),
        ):
            brought = bring_in(bench, *portion, behind=behind, facts=("Not again",))
            assert (expected, conversation) == (brought.outcome, brought.conversation)
        assert 4 == brought.items
        assert ["One.", "Two.", "Three.", "Four."] == bench.said(conversation)
        assert () == bench.history(conversation).milestones

    def test_a_later_portion_begins_nothing(self, bench: Bench) -> None:
        assert ops.BroughtIn("known") == bring_in(bench, "Three.", behind=2)
        assert bench.find("thread_1") is None

    def test_nothing_is_entered_behind_what_was_said_since(self, bench: Bench) -> None:
        conversation = bring_in(bench, "One.").conversation
        bench.taken("Two.", handle="thread_1", dialect="threads")
        for behind in (1, 2):
            assert "known" == bring_in(bench, "Late.", behind=behind).outcome
        assert ["One.", "Two."] == bench.said(conversation)

    def test_nothing_is_entered_under_a_retired_handle(self, bench: Bench) -> None:
        bring_in(bench, "One.")
        bench.ask(ops.Retire(bench.tenant, bench.upstream, "thread_1"))
        assert "known" == bring_in(bench, "Two.", behind=1).outcome
        assert "retired" == bench.found("thread_1").state

    def test_a_replica_that_does_not_know_what_was_brought_in_is_lost(self, bench: Bench) -> None:
        conversation = bench.conversation("thread_1", "One.", dialect="threads")
        assert "known" == bring_in(bench, "One.").outcome
        assert "live" == bench.found("thread_1").replica.state
        assert "entered" == bring_in(bench, "Two.", behind=1).outcome
        found = bench.found("thread_1")
        assert ("lost", "lost") == (found.state, found.replica.state)
        assert ["One.", "Two."] == bench.said(conversation)

    def test_a_subject_keeps_the_conversation_it_has(self, bench: Bench) -> None:
        first = bring_in(bench, "One.", subject="ann")
        second = bring_in(bench, "Other.", handle="thread_2", subject="ann", facts=("Its own",))

        assert (True, "entered") == (second.subject_taken, second.outcome)
        subject = bench.ask(ops.FindSubject(bench.tenant, "ann"))
        assert subject is not None
        assert first.conversation == subject.conversation
        assert ["Other."] == bench.said(second.conversation)
        assert ("Its own",) == bench.history(second.conversation).milestones
        assert not bring_in(bench, "One.", subject="ann").subject_taken
        assert [] == list(bench.orphans()), "what is at the provider is not ours to delete"

    def test_anothers_handle_is_foreign(self, bench: Bench) -> None:
        bring_in(bench, "One.")
        with bench.another(f"{bench.tenant}-2") as other:
            assert ops.BroughtIn("foreign") == bring_in(other, "One.")
        assert ["One."] == bench.said(bench.found("thread_1").conversation)

    def test_an_empty_conversation_is_a_conversation(self, bench: Bench) -> None:
        brought = bring_in(bench, facts=("A fact",))
        assert ("entered", 0) == (brought.outcome, brought.items)
        assert [] == bench.said(brought.conversation)
        assert "entered" == bring_in(bench, "One.").outcome

    @pytest.mark.parametrize("at", [1_000_000.5, -86_400.5])
    def test_items_keep_their_ids_and_times(self, bench: Bench, at: float) -> None:
        """Also what was said before 1970."""
        item = message("One.", provider_id="msg_1")
        made = NewItem(
            wire=item.wire, input=None, kind="message", role="user", provider_id="msg_1",
            created_at=at,
        )  # fmt: skip
        conversation = bring_in(bench, items=(made,)).conversation
        (only,) = bench.page(conversation).items
        assert ("msg_1", at) == (only.provider_id, only.created_at)
        assert ["One."] == bench.said(conversation)

    def test_many_bring_the_same_in_at_once(self, bench: Bench) -> None:
        portions = [tuple(f"{n}.{k}" for k in range(n % 3 + 1)) for n in range(12)]
        everything = [text for portion in portions for text in portion]

        def work(worker: Bench, _: int) -> int:
            entered = here = 0
            while here < len(everything):
                portion = everything[here : here + 2]
                brought = bring_in(worker, *portion, behind=here, subject="ann", facts=("Once",))
                if brought.outcome == "entered":
                    entered += len(portion)
                    here += len(portion)
                else:
                    assert brought.items > here
                    here = brought.items
            return entered

        entered = bench.at_once(work)

        assert len(everything) == sum(entered)
        found = bench.found("thread_1")
        assert everything == bench.said(found.conversation)
        assert ("Once",) == bench.history(found.conversation).milestones

    def test_one_of_many_begins_a_conversation(self, bench: Bench) -> None:
        begun = bench.at_once(lambda worker, _: bring_in(worker, "One."))
        assert {"entered": 1, "known": WORKERS - 1} == counted(one.outcome for one in begun)
        assert 1 == len({one.conversation for one in begun})

    def test_one_of_many_is_its_subjects(self, bench: Bench) -> None:
        begun = bench.at_once(
            lambda worker, n: bring_in(worker, "One.", handle=f"thread_{n}", subject="ann")
        )
        assert {"entered": WORKERS} == counted(one.outcome for one in begun)
        assert WORKERS - 1 == sum(one.subject_taken for one in begun)
