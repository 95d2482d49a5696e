"""Finding old items again: the search inside a conversation, excerpts, summaries."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perdure.engine import ops
from perdure.model import Snapshot
from perdure.testing.conformance.bench import Bench, message, text

_FAR = 2**31 - 1


def _indexed(bench: Bench, conversation: int) -> None:
    while not bench.ask(ops.Index(bench.tenant, conversation, 2)):
        pass


def _said(bench: Bench, *texts: str, name: str = "resp") -> int:
    """Let the user say these texts, one turn for each; returns the conversation."""
    conversation, handle = 0, None
    for number, said in enumerate(texts):
        response = f"{name}_{number}"
        turn = bench.exchange(said, f"Answer {number}.", response, handle=handle)
        conversation, handle = turn.conversation, response
    return conversation


class Recalling:
    """What recall relies on."""

    def test_a_search_finds_words_in_any_of_their_forms_newest_first(self, bench: Bench) -> None:
        conversation = _said(bench, "My dog barks.", "Two dogs barked.", "A cat!", "Café Groß")
        _indexed(bench, conversation)

        found = bench.ask(
            ops.Search(bench.tenant, conversation, _FAR, ("dog", "cats", "unheard", "groß"), 9)
        )

        if found.size is None:  # a store without an index says so, and finds nothing
            assert ((), (), (), ()) == found.positions
            return
        assert 8 == found.size
        assert ((3, 1), (5,), (), (7,)) == found.positions
        assert (2, 1, 0, 1) == found.counts

    def test_a_search_stays_inside_its_conversation_and_tenant(self, bench: Bench) -> None:
        mine = _said(bench, "The word is heron.")
        _said(bench, "Here stands a heron too.", name="other")
        _indexed(bench, mine)

        found = bench.ask(ops.Search(bench.tenant, mine, _FAR, ("heron",), 9))
        others = bench.ask(ops.Search("somebody else", mine, _FAR, ("heron",), 9))

        assert found.positions in {((1,),), ((),)}
        assert ((),) == others.positions

    def test_a_search_stops_at_a_position_and_names_no_more_than_asked(self, bench: Bench) -> None:
        conversation = _said(bench, *["one heron"] * 5)
        _indexed(bench, conversation)

        early = bench.ask(ops.Search(bench.tenant, conversation, 4, ("heron",), 9))
        few = bench.ask(ops.Search(bench.tenant, conversation, _FAR, ("heron",), 2))

        if early.size is not None:
            assert ((3, 1),) == early.positions
            assert (((9, 7),), (3,)) == (few.positions, few.counts)

    def test_what_cannot_be_a_word_is_not_found_and_no_error(self, bench: Bench) -> None:
        conversation = _said(bench, 'Say "hi" to O\'Brien.')
        _indexed(bench, conversation)

        odd = ('"', "'", "*", "o'brien", "NEAR", "a:b", "#1", "")
        found = bench.ask(ops.Search(bench.tenant, conversation, _FAR, odd, 9))

        assert len(odd) == len(found.positions)

    def test_what_was_forgotten_is_not_found_again(self, bench: Bench) -> None:
        bench.exchange("The heron is mine.", "So it is.", "resp_1", subject="ann")
        mine = bench.found("resp_1").conversation
        _indexed(bench, mine)

        bench.ask(ops.Forget(bench.tenant, "ann"))

        found = bench.ask(ops.Search(bench.tenant, mine, _FAR, ("heron",), 9))
        assert ((),) == found.positions

    def test_excerpts_are_read_by_ranges_in_the_order_of_the_log(self, bench: Bench) -> None:
        conversation = _said(bench, "a", "b", "c", "d")

        def read(*ranges: tuple[int, int], limit: int = 99, oldest: bool = False) -> list[int]:
            items = bench.ask(
                ops.Excerpts(bench.tenant, conversation, 7, ranges, limit, oldest=oldest, wire=None)
            )
            assert all(item.tokens > 0 and not item.wire and item.input for item in items)
            return [item.position for item in items]

        assert [1, 2, 5, 6, 7] == read((1, 2), (5, 9))
        assert [6, 7] == read((1, 2), (5, 9), limit=2)
        assert [1, 2, 5] == read((-5, 2), (5, 9), limit=3, oldest=True)
        assert [] == read((20, 30))
        assert () == bench.ask(ops.Excerpts("somebody else", conversation, 7, ((1, 9),), 9))

    @pytest.mark.parametrize("oldest", [False, True])
    def test_excerpts_follow_a_branch_to_its_origin(self, bench: Bench, oldest: bool) -> None:  # noqa: FBT001
        first = bench.exchange("root", "yes", "resp_1")
        bench.exchange("left", "yes", "resp_2", handle="resp_1")
        right = bench.exchange("right", "yes", "resp_3", handle="resp_1")

        items = bench.ask(
            ops.Excerpts(bench.tenant, right.conversation, _FAR, ((0, 9),), 9, oldest=oldest)
        )

        assert first.conversation != right.conversation
        assert ["root", "right"] == [text(item) for item in items if item.role == "user"]

    def test_a_span_tells_the_tokens_of_its_items(self, bench: Bench) -> None:
        conversation = _said(bench, "x" * 400)

        span = bench.history(conversation)

        assert [int(400 / 4 * 1.1) + 4, span.items[1].tokens] == [one.tokens for one in span.items]
        assert 0 < span.items[1].tokens < 40

    def test_a_snapshot_comes_with_a_span_that_leaves_something_out(self, bench: Bench) -> None:
        conversation = _said(bench, "a " * 200, "b", "c")
        kept = Snapshot(2, 2, "They spoke of a.", "extractive")

        bench.ask(ops.KeepSnapshot(bench.tenant, conversation, kept))

        told = bench.history(conversation, 60).snapshot
        assert told is not None
        assert kept == replace(told, created_at=0.0)
        assert told.created_at > 0
        assert None is bench.history(conversation).snapshot
        assert None is bench.history(conversation, 10, 1).snapshot

    def test_a_snapshot_of_something_else_than_stands_there_is_not_kept(self, bench: Bench) -> None:
        conversation = _said(bench, "a", "b")

        bench.ask(ops.KeepSnapshot(bench.tenant, conversation, Snapshot(2, 9, "no", "x")))
        bench.ask(ops.KeepSnapshot("somebody else", conversation, Snapshot(2, 2, "no", "x")))

        assert None is bench.history(conversation, 1).snapshot

    def test_snapshots_go_when_they_are_dropped_or_an_item_is_deleted(self, bench: Bench) -> None:
        items = (message("a", provider_id="msg_a"), message("b"))
        conversation = bench.conversation("conv_1", items=items)
        kept = Snapshot(2, 2, "They spoke of a.", "extractive")
        bench.ask(ops.KeepSnapshot(bench.tenant, conversation, kept))

        assert 1 == bench.ask(ops.DropSnapshots(bench.tenant, conversation))
        assert 0 == bench.ask(ops.DropSnapshots(bench.tenant, conversation))
        bench.ask(ops.KeepSnapshot(bench.tenant, conversation, kept))
        bench.ask(ops.Tombstone(bench.tenant, bench.upstream, conversation, "msg_a"))

        assert 0 == bench.ask(ops.DropSnapshots(bench.tenant, conversation))

    def test_conversations_that_have_grown_are_found_page_by_page(self, bench: Bench) -> None:
        one, two = (_said(bench, "a", name=name) for name in ("one", "two"))
        searched = bench.ask(ops.Search(bench.tenant, one, _FAR, ("a",), 9))
        if searched.size is None:  # a store that lists no conversations finds none
            assert () == bench.ask(ops.Unsummarised(bench.tenant, 1, 9))
            return

        def found(after: int = 0, least: int = 2, limit: int = 1) -> tuple[tuple[int, int], ...]:
            return bench.ask(ops.Unsummarised(bench.tenant, least, limit, after))

        assert {(one, 2), (two, 2)} == set(found() + found(after=found()[0][0]))
        assert () == found(least=3)
        bench.ask(ops.KeepSnapshot(bench.tenant, one, Snapshot(2, 2, "done", "x")))
        assert ((two, 2),) == found(limit=9)
