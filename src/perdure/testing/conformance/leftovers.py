"""What is left at a provider that nobody wants, and how hard it may be asked."""

from __future__ import annotations

from perdure.engine import ops
from perdure.testing.conformance.bench import Bench


class Leftovers:
    """What a store promises about orphans, intents, throttling and what may be swept."""

    # -- orphans and intents -----------------------------------------------------------------

    def test_an_orphan_stays_until_its_delete_is_confirmed(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        for handle in ("conv_x", "conv_y", "conv_z"):
            bench.ask(
                ops.Discard(bench.tenant, bench.upstream, "conversations", conversation, handle)
            )
        first, second = bench.orphans(limit=2)
        assert ("conv_x", "conv_y") == (first.handle, second.handle)
        assert (bench.upstream, "conversations") == (first.upstream, first.dialect)
        bench.ask(ops.OrphanGone(bench.tenant, first.key))
        assert ["conv_y", "conv_z"] == bench.orphaned()
        assert 2 == bench.ask(ops.Leftovers(bench.tenant, bench.upstream)).orphans
        assert 2 == bench.ask(ops.Leftovers(bench.tenant)).orphans
        assert 0 == bench.ask(ops.Leftovers(bench.tenant, "https://elsewhere.example")).orphans

    def test_a_replica_that_is_discarded_is_lost_and_an_orphan_once(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        given_up = ops.Discard(
            bench.tenant, bench.upstream, "conversations", conversation, "conv_1", replica=True
        )
        bench.ask(given_up)
        assert ("lost", "lost") == (
            bench.found("conv_1").state,
            bench.found("conv_1").replica.state,
        )
        bench.ask(given_up)
        assert ["conv_1"] == bench.orphaned()

    def test_a_conversation_is_an_orphan_for_a_while_before_it_is_emptied(
        self, bench: Bench
    ) -> None:
        conversation = bench.conversation("conv_1")
        for dialect, handle in (("conversations", "conv_x"), ("threads", "thread_y")):
            bench.ask(ops.Discard(bench.tenant, bench.upstream, dialect, conversation, handle))  # type: ignore[arg-type]
        assert "beaten" == bench.bind(conversation, 7, "conv_z"), "nobody has ever used it"
        settled = ops.Orphans(bench.tenant, bench.upstream, 2, settled_seconds=600.0)

        assert ["thread_y", "conv_z"] == [orphan.handle for orphan in bench.ask(settled)]
        bench.later(601)
        assert ["conv_x", "thread_y"] == [orphan.handle for orphan in bench.ask(settled)]

    def test_a_create_that_nobody_finished_leaves_a_trace(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        for intent in ("finished", "refused", "left"):
            bench.ask(
                ops.Intend(bench.tenant, bench.upstream, "conversations", conversation, intent)
            )
        bench.bind(conversation, 0, "conv_2", intent="finished", lost="conv_1")
        bench.ask(ops.CallOff(bench.tenant, "refused"))

        assert 0 == bench.ask(ops.Leftovers(bench.tenant)).creates, "it may yet be entered"
        bench.later(601)
        assert ops.LeftBehind(0, 1) == bench.ask(ops.Leftovers(bench.tenant))
        assert () == bench.orphans(), "there is no id to delete"

    def test_the_apps_own_create_finishes_its_intent(self, bench: Bench) -> None:
        bench.ask(ops.Intend(bench.tenant, bench.upstream, "conversations", 0, "mine"))
        bench.conversation("conv_1", intent="mine")
        bench.later(601)
        assert ops.LeftBehind(0, 0) == bench.ask(ops.Leftovers(bench.tenant))

    # -- throttling --------------------------------------------------------------------------

    def test_an_upstream_that_wants_quiet_gets_it(self, bench: Bench) -> None:
        at = (bench.tenant, bench.upstream)
        assert 0.0 == bench.ask(ops.Throttled(*at))
        bench.ask(ops.Throttle(*at, 30.0))
        bench.ask(ops.Throttle(*at, 10.0))
        bench.later(5)
        assert 25.0 == bench.ask(ops.Throttled(*at))
        assert 0.0 == bench.ask(ops.Throttled(bench.tenant, "https://elsewhere.example"))
        bench.later(26)
        assert 0.0 == bench.ask(ops.Throttled(*at))

    # -- sweeping ----------------------------------------------------------------------------

    def test_single_turns_that_nobody_continued_are_erased(self, bench: Bench) -> None:
        bench.exchange("One.", "1", "resp_1")
        bench.exchange("Two.", "2", "resp_2")
        bench.exchange("Three.", "3", "resp_3", handle="resp_2")
        bench.exchange("Four.", "4", "resp_4", subject="ann")
        bench.exchange("Five.", "5", "resp_5", handle="resp_old")
        bench.taken("Six.")
        bench.later(100)
        fresh = bench.exchange("Seven.", "7", "resp_7")

        assert 1 == bench.ask(ops.Unused(bench.tenant, bench.upstream, 50.0, 10))

        assert bench.find("resp_1") is None
        for kept in ("resp_2", "resp_3", "resp_4", "resp_5", "resp_7"):
            assert bench.find(kept) is not None, kept
        assert ["Seven.", "7"] == bench.said(fresh.conversation)
        assert 0 == bench.ask(ops.Unused(bench.tenant, bench.upstream, 50.0, 10))

    def test_a_single_turn_with_a_branch_is_kept(self, bench: Bench) -> None:
        trunk = bench.exchange("One.", "1", "resp_1")
        bench.fail(bench.taken("Two.", handle="resp_1"))
        bench.later(100)
        assert 0 == bench.ask(ops.Unused(bench.tenant, bench.upstream, 50.0, 10))
        assert "One." in bench.said(trunk.conversation)

    def test_no_more_are_erased_than_asked_for(self, bench: Bench) -> None:
        for number in range(5):
            bench.exchange("One.", "1", f"resp_{number}")
        bench.later(100)
        erased = [bench.ask(ops.Unused(bench.tenant, bench.upstream, 50.0, 2)) for _ in range(4)]
        assert [2, 2, 1, 0] == erased
