"""What matters and shares no word with the next message is told where embeddings are asked."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from itertools import pairwise
from typing import Any

import pytest

import perdure
from perdure.embedding import wordllama
from perdure.engine.ops import Liken
from perdure.errors import ConfigurationError
from perdure.recall.searching import APART, Found, ranges
from perdure.transport.likeness import liken
from tests.test_a_small_budget_keeps_what_matters import filled, given
from tests.world import World, recovered

FACT = "Every Tuesday I go to taekwondo, and kickboxing is next."
ASKED = "Which martial arts did I mention?"
ABOUT = ("taekwondo", "martial")


class Vectors:
    """Embeddings that know one subject, and remember what they were asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.threads: set[str] = set()

    def __call__(self, texts: list[str]) -> list[list[float]]:
        self.asked += texts
        self.threads.add(threading.current_thread().name)
        return [[float(any(word in text for word in ABOUT)), 0.1] for text in texts]


def rich(seed: int, turns: int) -> list[dict[str, Any]]:
    """Give turns of rare words only, so that no text stands out by what words it has."""
    chance = random.Random(seed)

    def word() -> str:
        return "".join(chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in range(3))

    items: list[dict[str, Any]] = []
    for _ in range(turns):
        told = ", ".join(word() for _ in range(8))
        items.append({"role": "user", "content": f"Note {told}."})
        items.append({"role": "assistant", "content": f"Noted {word()} and {word()}."})
    return items


def with_fact(seed: int, turns: int = 60, place: int = 20) -> list[dict[str, Any]]:
    items = rich(seed, turns)
    items[place:place] = [{"role": "user", "content": FACT}, {"role": "assistant", "content": "Oh"}]
    return items


def policy(embeddings: Any, budget: int = 1_000) -> perdure.Policy:
    return perdure.Policy(budget_tokens=budget, embeddings=embeddings)


def test_what_shares_no_word_is_told_by_the_model_that_ships_in_its_wheel(world: World) -> None:
    pytest.importorskip("wordllama")
    handle = filled(world, world.app(), with_fact(1))
    by_words = given(world, world.app(policy=policy(None)).respond(ASKED, conversation=handle))
    world.forgets()

    answered = world.app(policy=policy(wordllama())).respond(ASKED, conversation=handle)

    told = given(world, answered)
    assert (False, True) == (("user", FACT) in by_words, ("user", FACT) in told)


def test_what_no_search_reads_is_found_in_a_long_log(world: World) -> None:
    vectors = Vectors()
    handle = filled(world, world.app(), with_fact(2, turns=400, place=60))

    answered = world.app(policy=policy(vectors)).respond(ASKED, conversation=handle)

    assert ("user", FACT) in given(world, answered)
    assert (recovered(answered) or {})["items_left_out"] > 700


def test_only_this_conversation_is_asked_about(world: World) -> None:
    vectors = Vectors()
    filled(world, world.app(), with_fact(3))
    filled(world, world.app(tenant="another"), with_fact(4))
    handle = filled(world, world.app(), rich(5, 60))

    told = given(world, world.app(policy=policy(vectors)).respond(ASKED, conversation=handle))

    assert len(vectors.asked) > 100
    assert FACT not in vectors.asked
    assert FACT not in [text for _, text in told]


def test_a_deleted_item_is_neither_asked_about_nor_told(world: World) -> None:
    vectors = Vectors()
    app = world.app(policy=policy(vectors, budget=300))
    handle = app.call("conversations.create").id
    for items in (with_fact(6, 9, place=4), rich(16, 9)):
        made = app.call("conversations.items.create", conversation_id=handle, items=items)
        for item in made.data:
            if item.content[0].text == FACT:
                app.call("conversations.items.delete", conversation_id=handle, item_id=item.id)
    world.forgets()

    told = given(world, app.respond(ASKED, conversation=handle))

    assert vectors.asked
    assert FACT not in vectors.asked
    assert FACT not in [text for _, text in told]


def test_what_was_forgotten_is_not_asked_about(world: World) -> None:
    vectors = Vectors()
    chat = world.chat("conversations", policy=policy(vectors, budget=160))
    for text in (FACT, *(f"Note {number} about bread and rain and chess." for number in range(9))):
        chat.send("ann", text)
    world.forgets()
    chat.send("ann", ASKED)
    assert FACT in vectors.asked

    chat.forget("ann")
    vectors.asked.clear()
    for number in range(9):
        chat.send("ann", f"Note {number} about trains and cheese and paint.")
    world.forgets()
    chat.send("ann", ASKED)

    assert vectors.asked
    assert FACT not in vectors.asked


async def late(texts: list[str]) -> list[list[float]]:
    """Turn texts into vectors as an async function does."""
    return Vectors()(texts)


def raises(texts: list[str]) -> Any:
    raise ValueError(texts[0])


BROKEN: dict[str, Any] = {
    "raises": raises,
    "returns None": lambda texts: None,
    "returns too few": lambda texts: [[1.0]] * (len(texts) - 1),
    "returns ragged ones": lambda texts: [[1.0] * (1 + number) for number in range(len(texts))],
    "returns words": lambda texts: texts,
    "returns empty ones": lambda texts: [[] for _ in texts],
}


@pytest.mark.parametrize("how", BROKEN)
def test_embeddings_that_fail_fail_no_call_and_tell_no_text(
    world: World, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    handle = filled(world, world.app(), with_fact(7))

    answered = world.app(policy=policy(BROKEN[how])).respond(ASKED, conversation=handle)

    assert "partial" == (recovered(answered) or {})["memory"]
    assert "embeddings failed" in caplog.text
    assert not any(word in caplog.text for word in (*ABOUT, "Note"))


def test_a_text_that_the_model_knows_nothing_of_is_unlike() -> None:
    rows = [[3.0, 4.0], [3.0, 4.0], [0.0, 0.0], [float("nan"), 1.0], [-3.0, -4.0]]

    assert (1.0, 0.0, 0.0, -1.0) == liken(Liken(lambda _: rows, "this", ("a", "b", "c", "d")))


def test_an_async_function_embeds_under_the_async_sdk_only(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    handle = filled(world, world.app(), with_fact(9))

    told = given(world, world.app(policy=policy(late)).respond(ASKED, conversation=handle))

    works = world.colour == "async"
    assert (works, not works) == (("user", FACT) in told, "embeddings failed" in caplog.text)


def test_the_event_loop_does_not_wait_for_the_model(world: World) -> None:
    vectors = Vectors()
    handle = filled(world, world.app(), with_fact(10))

    world.app(policy=policy(vectors)).respond(ASKED, conversation=handle)

    main = threading.current_thread().name
    assert (world.colour == "sync") == (main in vectors.threads)


def test_long_texts_are_cut_and_empty_ones_left_out(world: World) -> None:
    vectors = Vectors()
    items = with_fact(11)
    items[3:3] = [{"role": "user", "content": "x" * 9_000}, {"role": "user", "content": " "}]
    handle = filled(world, world.app(), items)

    world.app(policy=policy(vectors)).respond(ASKED, conversation=handle)

    assert 2_000 == max(map(len, vectors.asked))
    assert all(text.strip() for text in vectors.asked)


def test_a_whole_history_needs_no_embeddings(world: World) -> None:
    vectors = Vectors()
    handle = filled(world, world.app(), with_fact(12, turns=5, place=2))

    world.app(policy=policy(vectors, budget=1_000)).respond(ASKED, conversation=handle)

    assert [] == vectors.asked


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wordllama", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'perdure\[embeddings\]'"):
        wordllama()


OFFLINE = """
import logging, os, sys
reached = []
def guard(event, args):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.gethostbyname"}:
        reached.append(event)
        raise OSError(event)
sys.addaudithook(guard)
from perdure.embedding import wordllama
from perdure.engine.ops import Liken
embed = wordllama()
rows = embed(["a dog", "some puppies", "income tax"])
assert rows[0] @ rows[1] > rows[0] @ rows[2]
assert ([], [], logging.WARNING) == (reached, logging.root.handlers, logging.root.level)
assert [] == os.listdir(os.environ["HOME"])
"""


@pytest.mark.slow
def test_nothing_is_fetched_and_the_apps_logging_is_left_alone(tmp_path: Any) -> None:
    pytest.importorskip("wordllama")
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        env={"HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_read_apart_is_told_apart(seed: int) -> None:
    """A gap between two stretches is wider than those that withdrawn items leave."""
    chance = random.Random(seed)
    found = [Found(count, tuple(chance.sample(range(3_000), count))) for count in (3, 20, 40)]

    stretches = ranges(found, 3_000, 300)

    gaps = [after[0] - before[1] for before, after in pairwise(stretches)]
    assert len(gaps) > 5
    assert min(gaps) > APART
