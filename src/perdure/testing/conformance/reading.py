"""Reading the log: by handle, for a prime, as a list."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from perdure.engine import ops
from perdure.model import NewItem, Remembered
from perdure.testing.conformance.bench import Bench, message, numbered, shown, text


class Reading:
    """What a store promises about reading."""

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

    def test_a_list_is_of_what_stands_between_two_positions(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", items=numbered(1, 5))
        assert ["msg_2", "msg_3"] == shown(bench.page(conversation, above=1, below=4))
        newest = bench.page(conversation, above=1, below=4, newest_first=True, limit=1)
        assert (["msg_3"], True) == (shown(newest), newest.has_more)
        assert ["msg_3"] == shown(bench.page(conversation, above=1, below=4, after="msg_2"))
        newest_first = {"above": 1, "below": 4, "newest_first": True}
        assert ["msg_2"] == shown(bench.page(conversation, after="msg_3", **newest_first))
        assert ["msg_3", "msg_2"] == shown(bench.page(conversation, after="msg_5", **newest_first))
        assert [] == shown(bench.page(conversation, above=5))
        assert [] == shown(bench.page(conversation, below=1))
        assert not bench.page(conversation, above=1, after="msg_9").cursor_found

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

    def test_what_a_response_was_asked_is_listed_by_pages(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        turn = bench.taken(handle="conv_1", dialect="conversations", items=numbered(1, 3))
        bench.complete(turn, "A.", dialect="conversations", response="resp_1")
        asked: dict[str, Any] = {"turn_response": "resp_1", "inputs": True}

        assert ["msg_1", "msg_2", "msg_3"] == shown(bench.page(conversation, **asked))
        newest = bench.page(conversation, **asked, newest_first=True, limit=2)
        assert (["msg_3", "msg_2"], True) == (shown(newest), newest.has_more)
        rest = bench.page(conversation, **asked, newest_first=True, after="msg_2")
        assert (["msg_1"], False) == (shown(rest), rest.has_more)

    def test_an_item_is_read_by_its_id(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", items=numbered(1, 3))
        other = bench.conversation("conv_2")
        anywhere = bench.ask(ops.OneItem(bench.tenant, None, "msg_2"))
        assert anywhere is not None
        assert (2, "msg_2", "2") == (anywhere.position, anywhere.provider_id, text(anywhere))
        assert anywhere == bench.ask(ops.OneItem(bench.tenant, conversation, "msg_2"))
        assert bench.ask(ops.OneItem(bench.tenant, other, "msg_2")) is None
        assert bench.ask(ops.OneItem(bench.tenant, None, "msg_9")) is None
