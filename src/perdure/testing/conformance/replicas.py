"""Replicas: bound once per generation; lost, given up, deleted."""

from __future__ import annotations

from typing import Any, Final

import pytest

from perdure.engine import ops
from perdure.model import Dialect
from perdure.testing.conformance.bench import BODY, Bench, message, messages, recovery, text

SHARED: Final[dict[str, Any]] = {"handle": "conv_1", "dialect": "conversations"}


class Replicas:
    """What a store promises about binding and retiring."""

    # -- bind --------------------------------------------------------------------------------

    def test_a_replica_takes_the_place_of_a_lost_one(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", "One.", "Two.")
        rebuilt = recovery(conversation, lost_handle="conv_1", new_handle="conv_2")
        bench.later(9)

        bound = bench.bind(
            conversation, 0, "conv_2", primed_through=2, lost="conv_1", recovery=rebuilt
        )

        replica = bench.found("conv_2").replica
        assert "bound" == bound
        assert ("live", "conv_2", 1, 2, 0.0) == (
            replica.state,
            replica.handle,
            replica.generation,
            replica.primed_through,
            replica.age_seconds,
        )
        assert ("lost", conversation) == (
            bench.found("conv_1").state,
            bench.found("conv_1").conversation,
        )
        assert rebuilt == bench.ask(ops.ReadRecovery(bench.tenant, conversation, 1))
        assert () == bench.orphans()

    def test_a_replica_is_kept_as_it_was_created_and_last_shown(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        bench.bind(conversation, 0, "conv_2", lost="conv_1", body=b'{"id":"conv_2"}')
        bench.ask(ops.Refresh(bench.tenant, bench.upstream, "conv_1", b'{"metadata":{}}'))
        bench.ask(ops.Refresh(bench.tenant, bench.upstream, "never-seen", b"{}"))
        assert [b'{"metadata":{}}', b'{"id":"conv_2"}'] == [
            found.answer.body
            for handle in ("conv_1", "conv_2")
            if (found := bench.found(handle)).answer is not None
        ]
        assert bench.find("never-seen") is None

        bench.bind(conversation, 1, "conv_3", lost="conv_2")
        assert bench.found("conv_3").answer is None, "nothing is known of it"

    def test_an_answer_is_not_refreshed(self, bench: Bench) -> None:
        bench.exchange("One.", "1", "resp_1")
        bench.ask(ops.Refresh(bench.tenant, bench.upstream, "resp_1", b"{}"))
        found = bench.found("resp_1")
        assert found.answer is not None
        assert BODY == found.answer.body

    def test_the_slower_of_two_is_beaten_and_an_orphan(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        assert "bound" == bench.bind(conversation, 0, "conv_a", lost="conv_1")

        assert "beaten" == bench.bind(conversation, 0, "conv_b", lost="conv_1")

        assert ["conv_b"] == bench.orphaned()
        assert bench.find("conv_b") is None
        assert "conv_a" == bench.found("conv_1").replica.handle

    def test_an_id_that_is_bound_is_never_bound_again(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        other = bench.conversation("conv_2")

        assert "taken" == bench.bind(conversation, 0, "conv_2", lost="conv_1", orphan=True)

        assert other == bench.found("conv_2").conversation
        assert ("live", 0) == (
            bench.found("conv_1").state,
            bench.found("conv_1").replica.generation,
        )
        assert () == bench.orphans()

    def test_a_worker_that_was_overtaken_does_not_bind(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        old = bench.taken("One.", **SHARED, lease_seconds=30.0)
        bench.later(31)
        new = bench.taken("One.", **SHARED)

        assert "fenced" == bench.bind(conversation, 0, "conv_old", turn=old)
        assert ["conv_old"] == bench.orphaned()
        assert "bound" == bench.bind(conversation, 0, "conv_new", turn=new)

    def test_what_may_still_exist_becomes_an_orphan(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        bench.bind(conversation, 0, "conv_2", lost="conv_1", orphan=True)
        assert ("lost", ["conv_1"]) == (bench.found("conv_1").state, bench.orphaned())

    def test_a_new_replica_ends_doubt_and_gives_up_what_is_unknown(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        turn = bench.taken("One.", **SHARED, turn_id="t")
        bench.fail(turn, "unknown")

        bench.bind(conversation, 0, "conv_2", lost="conv_1", orphan=True)

        assert not bench.found("conv_2").replica.doubtful
        assert () == bench.unsettled(conversation).turns
        assert "fenced" == bench.complete(turn, "Late.", dialect="conversations")
        told = bench.ask(ops.ReadTurn(bench.tenant, "t"))
        assert told is not None
        assert "failed" == told.state
        assert ["One."] == bench.said(conversation), "the question stays"

    def test_a_second_record_of_a_rebuild_completes_the_first(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        bench.bind(conversation, 0, "conv_2", lost="conv_1", recovery=recovery(conversation))
        turn = bench.taken("One.", handle="conv_2", dialect="conversations", turn_id="t")
        full = recovery(conversation, turn_id="t", memory="partial", primed=9, requests=3)

        bench.complete(turn, "1", dialect="conversations", recovery=full)

        read = bench.ask(ops.ReadRecovery(bench.tenant, conversation, 1))
        assert read is not None
        assert ("t", "partial", 9, 3) == (read.turn_id, read.memory, read.primed, read.requests)

    # -- bind new ----------------------------------------------------------------------------

    def test_an_object_that_the_app_made_is_entered_with_its_items(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", "One.", "Two.")

        found = bench.found("conv_1")
        assert ["One.", "Two."] == bench.said(conversation)
        assert ("live", "conv_1", False, 2) == (
            found.replica.state,
            found.replica.handle,
            found.replica.doubtful,
            found.last_position,
        )
        assert found.answer is not None
        assert (200, BODY) == (found.answer.status, found.answer.body)
        assert bench.history(conversation).complete

    def test_an_id_that_the_provider_issues_again_is_taken(self, bench: Bench) -> None:
        bench.conversation("conv_1", "One.")
        entered = bench.ask(
            ops.BindNew(bench.tenant, bench.upstream, "conversations", "conv_1", (), BODY, "intent")
        )
        assert "taken" == entered
        assert 1 == bench.found("conv_1").last_position

    def test_a_subject_has_one_live_replica(self, bench: Bench) -> None:
        def enter(handle: str, **values: object) -> ops.Bound:
            made: dict[str, object] = {
                "tenant": bench.tenant,
                "upstream": bench.upstream,
                "dialect": "conversations",
                "handle": handle,
                "items": (),
                "body": BODY,
                "intent": "",
                "subject": "ann",
                **values,
            }
            return bench.ask(ops.BindNew(**made))  # type: ignore[arg-type]

        assert "bound" == enter("conv_1")
        assert "beaten" == enter("conv_2")
        assert ["conv_2"] == bench.orphaned()
        assert "bound" == enter("thread_1", dialect="threads", primed_through=4)
        subject = bench.ask(ops.FindSubject(bench.tenant, "ann"))
        assert subject is not None
        assert ("live", "thread_1", 1, 4, "threads") == (
            subject.replica.state,
            subject.replica.handle,
            subject.replica.generation,
            subject.replica.primed_through,
            subject.replica.dialect,
        )

    def test_what_a_subjects_new_replica_was_told_is_recorded(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", subject="ann")
        told = recovery(conversation, turn_id="t", reason="absent", lost_handle=None)

        thread = {"dialect": "threads", "subject": "ann", "recovery": told}
        bench.conversation("thread_1", **thread)
        bench.taken("One.", handle="thread_1", dialect="threads", kind="append", turn_id="t")

        assert told == bench.ask(ops.ReadRecovery(bench.tenant, conversation, 1))
        turn = bench.ask(ops.ReadTurn(bench.tenant, "t"))
        assert turn is not None
        assert told == turn.recovery

    def test_a_replica_that_is_beaten_was_told_nothing(self, bench: Bench) -> None:
        conversation = bench.conversation("thread_1", dialect="threads", subject="ann")
        told = recovery(conversation)

        entered = bench.ask(
            ops.BindNew(
                bench.tenant,
                bench.upstream,
                "threads",
                "thread_2",
                (),
                BODY,
                "",
                subject="ann",
                recovery=told,
            )
        )

        assert "beaten" == entered
        assert bench.ask(ops.ReadRecovery(bench.tenant, conversation, 1)) is None

    # -- lost, retired, deleted --------------------------------------------------------------

    def test_a_dead_handle_is_known_to_be_dead(self, bench: Bench) -> None:
        bench.conversation("conv_1")
        bench.ask(ops.MarkLost(bench.tenant, bench.upstream, "conv_1"))
        bench.ask(ops.MarkLost(bench.tenant, bench.upstream, "never-seen"))
        found = bench.found("conv_1")
        assert ("lost", "lost") == (found.state, found.replica.state)

    def test_only_the_head_takes_the_replica_with_it(self, bench: Bench) -> None:
        bench.exchange("One.", "1", "resp_1")
        bench.exchange("Two.", "2", "resp_2", handle="resp_1")
        bench.ask(ops.MarkLost(bench.tenant, bench.upstream, "resp_1"))
        assert ("lost", "live") == (
            bench.found("resp_1").state,
            bench.found("resp_1").replica.state,
        )

    def test_deleting_a_conversation_retires_it_for_good(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", "One.")
        bench.bind(conversation, 0, "conv_2", lost="conv_1")

        bench.ask(ops.Retire(bench.tenant, bench.upstream, "conv_1"))

        assert ("retired", "retired") == (
            bench.found("conv_1").state,
            bench.found("conv_2").state,
        )
        assert "retired" == bench.found("conv_1").replica.state
        assert ["conv_2"] == bench.orphaned(), "the app has no name for it"
        assert "retired" == bench.accept("Two.", **SHARED).outcome
        bench.ask(ops.MarkLost(bench.tenant, bench.upstream, "conv_2"))
        assert "retired" == bench.found("conv_2").state, "deleted is not lost"
        assert "retired" == bench.found("conv_1").replica.state
        assert ["One."] == bench.said(conversation), "the log stays until it is forgotten"

    def test_deleting_a_response_takes_its_output_along(self, bench: Bench) -> None:
        turn = bench.exchange("One.", "1", "resp_1")
        bench.exchange("Two.", "2", "resp_2", handle="resp_1")
        bench.ask(ops.Retire(bench.tenant, bench.upstream, "resp_1"))
        assert ["One.", "Two.", "2"] == bench.said(turn.conversation)
        assert ("retired", "live") == (bench.found("resp_1").state, bench.found("resp_2").state)

    def test_deleting_a_response_leaves_what_it_was_asked(self, bench: Bench) -> None:
        turn = bench.exchange("One.", "1", "resp_1")
        named = ((1, "msg_1", message("One.", provider_id="msg_1").wire),)
        bench.learn(turn.conversation, (), named=named)
        bench.ask(ops.Retire(bench.tenant, bench.upstream, "resp_1"))
        assert ["One."] == bench.said(turn.conversation)

    def test_deleting_a_response_of_long_ago_leaves_the_newest_one(self, bench: Bench) -> None:
        turn = bench.exchange("One.", "1", "resp_2", handle="resp_old")
        bench.ask(ops.Retire(bench.tenant, bench.upstream, "resp_old"))
        bench.ask(ops.Retire(bench.tenant, bench.upstream, "resp_older"))

        assert ("live", "retired") == (bench.found("resp_2").state, bench.found("resp_old").state)
        assert ("live", []) == (bench.found("resp_2").replica.state, bench.orphaned())
        assert ["One.", "1"] == bench.said(turn.conversation)

    def test_a_deleted_item_is_never_seen_again(self, bench: Bench) -> None:
        items = tuple(message(said, provider_id=f"msg_{said}") for said in "abc")
        conversation = bench.conversation("conv_1", items=items)

        assert "there" == bench.removed(conversation, "msg_b")

        assert "before" == bench.removed(conversation, "msg_b")
        assert "unknown" == bench.removed(conversation, "msg_9")
        assert ("live", 0) == (bench.found("conv_1").replica.state, bench.generation("conv_1"))
        assert ["a", "c"] == bench.said(conversation)
        assert ["msg_a", "msg_c"] == [item.provider_id for item in bench.page(conversation).items]
        assert bench.ask(ops.OneItem(bench.tenant, conversation, "msg_b")) is None

    @pytest.mark.parametrize("dialect", ["conversations", "threads"])
    def test_a_new_replica_that_has_a_deleted_item_is_given_up(
        self, bench: Bench, dialect: Dialect
    ) -> None:
        items = tuple(message(said, provider_id=f"msg_{said}") for said in "abc")
        conversation = bench.conversation("old", dialect=dialect, items=items)
        bench.bind(conversation, 0, "new", lost="old", dialect=dialect, primed_through=3)

        assert "replaced" == bench.removed(conversation, "msg_b")

        assert ("lost", 2) == (bench.found("new").replica.state, bench.generation("old"))
        assert ("lost", ["new"]) == (bench.found("new").state, bench.orphaned())
        assert "replaced" == bench.removed(conversation, "msg_c")
        assert ["new"] == bench.orphaned(), "given up once"
        stale = bench.bind(conversation, 1, "newer", dialect=dialect, primed_through=3)
        assert ("beaten", ["new", "newer"]) == (stale, bench.orphaned())
        generation = bench.generation("old")
        last = bench.bind(conversation, generation, "newest", dialect=dialect, primed_through=3)
        assert ("bound", "live") == (last, bench.found("newest").replica.state)

    def test_what_takes_the_place_of_a_lost_replica_has_no_item_deleted_meanwhile(
        self, bench: Bench
    ) -> None:
        """It was read before the item was deleted: by somebody who knew of the loss, or not yet."""
        items = tuple(message(said, provider_id=f"msg_{said}") for said in "abc")
        known = bench.conversation("known", items=items)
        bench.ask(ops.MarkLost(bench.tenant, bench.upstream, "known"))
        unknown = bench.conversation("unknown", items=items)

        assert "replaced" == bench.removed(known, "msg_b")
        assert "there" == bench.removed(unknown, "msg_b")
        assert "replaced" == bench.removed(unknown, "msg_b", gone="unknown")

        assert ("lost", []) == (bench.found("unknown").state, bench.orphaned())
        assert "beaten" == bench.bind(known, 0, "conv_3")
        assert "beaten" == bench.bind(unknown, 0, "conv_4")

    def test_a_thread_made_with_a_message_that_is_deleted_meanwhile_is_behind(
        self, bench: Bench
    ) -> None:
        """The old thread is there, and is thrown away for another reason than that it is gone."""
        items = tuple(message(said, provider_id=f"msg_{said}") for said in "abc")
        conversation = bench.conversation("thread_1", dialect="threads", items=items)
        made: dict[str, Any] = {"dialect": "threads", "primed_through": 3, "lost": "thread_1"}
        since = bench.found("thread_1").first_position

        assert "there" == bench.removed(conversation, "msg_b")
        late = bench.bind(conversation, 0, "thread_2", primed_from=since, **made)

        assert ("behind", ["thread_2"]) == (late, bench.orphaned())
        assert ["a", "c"] == bench.said(conversation)
        since = bench.found("thread_1").first_position
        again = bench.bind(conversation, 0, "thread_3", primed_from=since, **made)
        assert ("bound", ["a", "c"]) == (again, bench.said(conversation))

    def test_an_item_is_deleted_wherever_its_turn_has_stood(self, bench: Bench) -> None:
        """A turn that is taken again behind others stays where these were answered from it."""
        on: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        conversation = bench.conversation("conv_1")
        never_sent = bench.taken("same", "b", "same", turn_id="t", **on)
        bench.fail(never_sent, withdrawn=True)
        turn = bench.taken("zeroth", **on)
        assert "done" == bench.complete(turn, "to zeroth", dialect="conversations")
        for other in ("first", "second"):
            bench.fail(bench.taken("same", "b", "same", turn_id="t", **on))
            turn = bench.taken(other, **on)
            assert "done" == bench.complete(turn, f"to {other}", dialect="conversations")
        again = bench.taken("same", "b", "same", turn_id="t", **on)
        assert "done" == bench.complete(again, "to b", dialect="conversations")
        log = bench.history(conversation).items
        assert 3 == [text(item) for item in log].count("b"), "taken twice behind others"

        shown = {log[2].position: "msg_1", log[-2].position: "msg_2"}  # the first "same", the last
        named = tuple(
            (item.position, shown[item.position], item.wire)
            for item in log
            if item.position in shown
        )
        bench.learn(conversation, (), named=named)
        assert "there" == bench.removed(conversation, "msg_2")

        others = ("first", "to first", "second", "to second")
        zeroth = ("zeroth", "to zeroth")
        left = (*zeroth, "same", "b", *others[:2], "same", "b", *others[2:], "same", "b", "to b")
        assert left == tuple(bench.said(conversation))
        assert "there" == bench.removed(conversation, "msg_1")
        assert [said for said in left if said != "same"] == bench.said(conversation)

    def test_an_answer_is_deleted_with_what_was_shown_of_it_before(self, bench: Bench) -> None:
        """Others may have been answered from that where it stood."""
        on: dict[str, Any] = {"handle": "conv_1", "dialect": "conversations"}
        conversation = bench.conversation("conv_1")
        example = (*messages("Q"), message("like this", role="assistant"))
        cut = bench.taken(items=example, turn_id="t", **on)
        bench.fail(cut, partial=(message("the ans", role="assistant"),))
        other = bench.taken("Other", **on)
        said = (message("to other", role="assistant", provider_id="msg_o"),)
        assert "done" == bench.complete(other, dialect="conversations", items=said)
        again = bench.taken(items=example, turn_id="t", **on)
        answer = (message("the answer", role="assistant", provider_id="msg_a"),)
        assert "done" == bench.complete(again, dialect="conversations", items=answer)
        left = ["Q", "like this", "the ans", "Other", "to other", "Q", "like this", "the answer"]
        assert left == bench.said(conversation)

        assert "there" == bench.removed(conversation, "msg_a")

        assert [one for one in left if not one.startswith("the")] == bench.said(conversation)

    def test_what_was_deleted_gets_no_new_replica(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", "One.")
        bench.ask(ops.Retire(bench.tenant, bench.upstream, "conv_1"))

        assert "beaten" == bench.bind(conversation, 0, "conv_2", lost="conv_1")

        assert ["conv_2"] == bench.orphaned()
        assert "retired" == bench.found("conv_1").replica.state

    def test_a_talk_that_has_moved_to_responses_is_in_no_doubt(self, bench: Bench) -> None:
        """What nobody knows of happened on the thread, which it has left."""
        log = bench.conversation("thread_1", dialect="threads", subject="ann")
        on_thread: dict[str, Any] = {"handle": "thread_1", "dialect": "threads", "kind": "append"}
        bench.fail(bench.taken("One.", **on_thread), "unknown")
        assert bench.found("thread_1").replica.doubtful
        turn = bench.taken("Two.", subject="ann")
        bench.complete(turn, "2", response="resp_1", recovery=recovery(log))

        subject = bench.ask(ops.FindSubject(bench.tenant, "ann"))

        assert subject is not None
        assert not subject.replica.doubtful
        assert not bench.found("resp_1").replica.doubtful
        again = bench.accept("Three.", **on_thread)
        assert ("deliver", "responses") == (again.outcome, again.replica and again.replica.dialect)
