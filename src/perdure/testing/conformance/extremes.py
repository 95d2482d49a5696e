"""What is large, long, old or odd."""

from __future__ import annotations

import pytest

from perdure.engine import ops
from perdure.errors import StoreError
from perdure.testing.conformance.bench import Bench, message, text

ODD = {
    "astral": "🏳️‍🌈 😀 \U0001d518\U0010ffff",
    "right to left": "שלום \u202e مرحبا",
    "combining": "e\u0301 e\u0301",
    "controls": "\x01\x1a\x1a0\x1b[0m\x7f\t\r\n",
    "nul": "a\x00b\x000",
    "quotes": "';--\"\\u0000 %s {0} :name $1 \\",
    "blank": " ",
    "noncharacters": "\ufffe\uffff",
}


class Extremes:
    """What a store promises about what it is given to keep: it comes back as it was."""

    @pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
    def test_odd_text_comes_back_as_it_was(self, bench: Bench, odd: str) -> None:
        turn = bench.taken(odd, subject=odd, turn_id=odd, request=odd)
        said = message(odd, role="assistant", provider_id=f"msg-{odd}")
        assert "done" == bench.complete(
            turn, response=f"resp-{odd}", items=(said,), model=odd, body=odd.encode()
        )
        bench.ask(ops.Pin(bench.tenant, odd, odd))

        found = bench.found(f"resp-{odd}")
        assert found.answer is not None
        assert (odd, odd.encode()) == (found.request, found.answer.body)
        assert (f"resp-{odd}", odd) == (found.replica.handle, turn.turn_id)
        span = bench.history(turn.conversation)
        assert [odd, odd] == list(map(text, span.items))
        assert (odd,) == span.milestones
        listed = bench.page(turn.conversation).items[-1]
        assert (f"msg-{odd}", said.wire, odd) == (listed.provider_id, listed.wire, listed.turn_id)
        assert (
            listed.position
            == bench.page(turn.conversation, newest_first=True, limit=1).items[0].position
        )
        one = bench.ask(ops.OneItem(bench.tenant, None, f"msg-{odd}"))
        assert one is not None
        entries = bench.ask(ops.ReadHistory(bench.tenant, odd, 9))
        assert [odd, odd] == [entry.text for entry in entries]
        assert "answered" == bench.accept(odd, subject=odd, turn_id=odd).outcome
        forgotten = bench.ask(ops.Forget(bench.tenant, odd))
        assert [f"resp-{odd}"] == [one.handle for one in forgotten.orphans]

    def test_text_that_differs_by_one_odd_character_is_different(self, bench: Bench) -> None:
        names = ["ann", "ann\x00", "ann\x1a", "ann\x1a0", "Ann", "ann ", "a\u0301nn", "\u00e1nn"]
        keys = {bench.taken("Hello.", subject=name).conversation for name in names}
        assert len(names) == len(keys)

    def test_half_a_character_is_refused_and_nothing_happens(self, bench: Bench) -> None:
        with pytest.raises(StoreError):
            bench.ask(ops.Pin(bench.tenant, "ann", "half an emoji: \ud83d"))
        assert bench.ask(ops.FindSubject(bench.tenant, "ann")) is None
        assert 1 == bench.ask(ops.Pin(bench.tenant, "ann", "a whole one: 😀"))

    def test_long_names_are_names(self, bench: Bench) -> None:
        long = "n" * 3_000
        other = "n" * 2_999 + "m"
        turn = bench.taken("One.", subject=long, turn_id=long)
        said = message("1", provider_id=long)
        assert "done" == bench.complete(turn, response=long, items=(said,))
        assert turn.conversation != bench.taken("Two.", subject=other).conversation

        assert long == bench.found(long).replica.handle
        assert bench.find(other) is None
        assert bench.ask(ops.OneItem(bench.tenant, None, long)) is not None
        assert "answered" == bench.accept("One.", subject=long, turn_id=long).outcome
        onward = bench.taken("Three.", handle=long)
        assert turn.conversation == onward.conversation

    def test_bodies_of_ten_megabytes(self, bench: Bench) -> None:
        size = 10_000_000
        body = bytes(range(256)) * (size // 256)
        turn = bench.taken("x" * size, request="y" * size)
        assert "done" == bench.complete(turn, response="resp_1", body=body)

        found = bench.found("resp_1")
        assert found.answer is not None
        assert body == found.answer.body
        assert size == len(found.request)
        (item,) = bench.history(turn.conversation, budget=1).items
        assert "x" * size == text(item)

    def test_thousands_of_items(self, bench: Bench) -> None:
        count = 3_000
        items = tuple(message(str(n), provider_id=f"msg_{n}") for n in range(count))
        conversation = bench.conversation("conv_1", items=items)

        assert [str(n) for n in range(count)] == bench.said(conversation)
        span = bench.history(conversation, budget=15_000)
        assert count == span.older + len(span.items)
        assert 1_000 < len(span.items) < count
        listed: list[str | None] = []
        page = bench.page(conversation, limit=700)
        while page.items:
            listed += [item.provider_id for item in page.items]
            page = bench.page(conversation, limit=700, after=listed[-1])
        assert [item.provider_id for item in items] == listed
        turn = bench.taken("Next.", handle="conv_1", dialect="conversations")
        assert "done" == bench.complete(
            turn, dialect="conversations", items=items[:1_200], response="resp_1"
        )
        assert count + 1 + 1_200 == bench.found("resp_1").last_position

    def test_a_turn_without_items(self, bench: Bench) -> None:
        turn = bench.taken(items=(), request="")
        assert "done" == bench.complete(turn, response="resp_1", body=b"", items=())
        found = bench.found("resp_1")
        assert found.answer is not None
        assert (b"", 0, "") == (found.answer.body, found.position, found.request)
        assert () == bench.history(turn.conversation).items

    def test_a_store_opened_again_has_everything(self, bench: Bench) -> None:
        if not bench.site.reopens:
            pytest.skip("this database lives in one process's memory")
        turn = bench.exchange("One.", "1", "resp_1", subject="ann")
        bench.close()
        assert ["One.", "1"] == bench.said(turn.conversation)
        with bench.another() as other:
            assert ["One.", "1"] == other.said(turn.conversation)
            assert "deliver" == other.accept("Two.", subject="ann").outcome
        assert "wait" == bench.accept("Three.", subject="ann").outcome
