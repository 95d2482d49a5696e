"""A history that does not fit: what the next message needs goes in, marked, inside the budget."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from typing import Any

import openai
import pytest

import perdure
from perdure.dialects.tokens import message_tokens
from perdure.recall.lines import Line
from perdure.recall.ranking import Asked, rank
from perdure.testing import Fault
from tests.world import World, recovered

FACT = "My locker at the Harbour gym has the number 4711."
ASKED = "Which number has my locker at the gym?"
MARK = re.compile(r"\[…( \d{4}-\d{2}-\d{2}| the newest messages follow)?\]")
TOPICS = ("bread", "rain", "chess", "trains", "tulips", "cheese", "opera", "paint", "violins")


def chatter(seed: int, turns: int) -> list[dict[str, Any]]:
    """Give turns that have nothing to do with the fact."""
    chance = random.Random(seed)
    items: list[dict[str, Any]] = []
    for number in range(turns):
        one, two = chance.sample(TOPICS, 2)
        items.append({"role": "user", "content": f"Note {number}: I like {one} more than {two}."})
        items.append({"role": "assistant", "content": f"Noted: {one} before {two}, for {number}."})
    return items


def filled(world: World, client: Any, items: list[dict[str, Any]]) -> str:
    """Make a conversation with items, and let the provider forget it."""
    handle = client.call("conversations.create").id
    for start in range(0, len(items), 20):
        client.call(
            "conversations.items.create", conversation_id=handle, items=items[start : start + 20]
        )
    world.forgets()
    return str(handle)


def given(world: World, answered: Any) -> list[tuple[str, str]]:
    """Return what the new replica holds, as (role, text), without the last question and answer."""
    items = world.provider.items(answered.conversation.id)
    return [(item["role"], item["content"][0]["text"]) for item in items[:-2]]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("budget", [600, 1_200])
def test_an_old_fact_is_told_and_the_budget_kept(world: World, seed: int, budget: int) -> None:
    app = world.app(policy=perdure.Policy(budget_tokens=budget))
    items = chatter(seed, 60)
    items[20:20] = [
        {"role": "user", "content": FACT},
        {"role": "assistant", "content": "I keep it in mind."},
    ]
    handle = filled(world, app, items)

    answered = app.respond(ASKED, conversation=handle)

    told = given(world, answered)
    assert ("user", FACT) in told
    assert "4711" in answered.output_text
    assert budget >= sum(message_tokens(text) for _, text in told)
    assert "partial" == (recovered(answered) or {})["memory"]
    assert len(items) == sum(
        (recovered(answered) or {})[f"items_{n}"] for n in ("primed", "left_out")
    )


def test_whole_turns_stand_in_order_with_marks_where_something_is_left_out(world: World) -> None:
    app = world.app(policy=perdure.Policy(budget_tokens=700))
    items = chatter(4, 50)
    items[30:30] = [
        {"role": "user", "content": FACT},
        {"role": "assistant", "content": "I keep it in mind."},
    ]
    handle = filled(world, app, items)

    told = given(world, app.respond(ASKED, conversation=handle))

    log = [(item["role"], item["content"]) for item in items]
    places = [log.index(one) for one in told if one in log]
    assert sorted(places) == places
    assert all(place + 1 in places for place in places if place % 2 == 0), "a turn is torn"
    before = None
    for number, one in enumerate(told):
        if one not in log:
            continue
        place = log.index(one)
        if before is not None and place != before + 1:
            role, text = told[number - 1]
            assert ("user", True) == (role, MARK.fullmatch(text) is not None)
        before = place
    assert len(log) - 1 == before, "the newest exchange is always told"


def test_a_call_is_told_with_its_output_and_its_question_or_not_at_all(world: World) -> None:
    app = world.app(policy=perdure.Policy(budget_tokens=400))
    items: list[dict[str, Any]] = []
    for number, note in enumerate(chatter(10, 60)):
        if number % 2:
            call = {"call_id": f"call_{number}", "type": "function_call"}
            items += [
                {**call, "name": "locker", "arguments": f'{{"gym": {number}}}'},
                {**call, "type": "function_call_output", "output": f"Locker {number}."},
            ]
        items.append(note)
    handle = filled(world, app, items)

    answered = app.respond(ASKED, conversation=handle)

    told = world.provider.items(answered.conversation.id)[:-2]
    kinds = [item["type"] for item in told]
    assert 1 < kinds.count("function_call") < 60, "some are told, and some are not"
    for place, kind in enumerate(kinds):
        if kind == "function_call":
            assert ["message", kind, f"{kind}_output", "message"] == kinds[place - 1 : place + 3]
            assert told[place]["call_id"] == told[place + 1]["call_id"]
            assert ["user", "assistant"] == [told[place + by]["role"] for by in (-1, 2)]


def test_another_word_of_the_same_family_counts() -> None:
    lines = [
        Line(place, "user", 0.0, 12, f"There are 31 barometers in my {where}.")
        for place, where in enumerate(("cellar", "kitchen", "collection", "garage", "attic"), 1)
    ]
    apart = [replace(line, position=20 * line.position) for line in lines]

    worth = rank(apart, Asked("What do I collect?", 0.0))

    assert 2 == worth.index(max(worth))


def test_what_is_said_now_decides_what_is_recalled(world: World) -> None:
    app = world.app(policy=perdure.Policy(budget_tokens=160))
    items = chatter(5, 60)
    items[10:10] = [{"role": "user", "content": FACT}, {"role": "assistant", "content": "Yes."}]
    other = "My aunt Wilhelmine keeps three alpacas in Norway."
    items[40:40] = [{"role": "user", "content": other}, {"role": "assistant", "content": "Oh."}]
    handle = filled(world, app, items)

    told = [text for _, text in given(world, app.respond(ASKED, conversation=handle))]
    world.forgets()
    aunt = app.respond("And what does my aunt keep in Norway?", conversation=handle)

    assert (True, False) == (FACT in told, other in told)
    assert other in [text for _, text in given(world, aunt)]


def test_pinned_facts_are_the_last_to_go(world: World) -> None:
    chat = world.chat("conversations", policy=perdure.Policy(budget_tokens=160))
    for number in range(6):
        chat.send("ann", f"Note {number} about bread and rain and chess. " * 2)
    chat.pin("ann", "Allergic to penicillin.\nDoctor: Ms Groth")
    world.forgets()

    reply = chat.send("ann", "What do you know?")

    told = given(world, reply.response)
    role, first = told[0]
    assert ("user", "Facts kept from this conversation:") == (role, first.splitlines()[0])
    assert ["- Allergic to penicillin.", "  Doctor: Ms Groth"] == first.splitlines()[1:]


def test_a_prime_too_long_for_the_model_is_halved_once(world: World) -> None:
    app = world.app(policy=perdure.Policy(budget_tokens=4_000))
    items = chatter(6, 60)
    handle = filled(world, app, items)
    world.provider.order(Fault("window", tokens=1_500))

    answered = app.respond("What do I like?", conversation=handle)

    assert {"memory": "partial", "requests": 4}.items() <= (recovered(answered) or {}).items()
    sent = [status for asked, status in world.asked() if asked == "POST responses"]
    assert [404, 400, 200] == sent[-3:]


def test_an_input_too_long_by_itself_is_refused_as_ever(world: World) -> None:
    app = world.app()
    handle = filled(world, app, chatter(7, 4))
    world.provider.order(Fault("window", tokens=300))

    with pytest.raises(openai.BadRequestError) as refused:
        app.respond("word " * 1_000, conversation=handle)

    assert "context_length_exceeded" == refused.value.code
    sent = [status for asked, status in world.asked() if asked == "POST responses"]
    assert [404, 400, 400] == sent[-3:], "tried with half the history, once"


def test_the_models_window_bounds_the_prime() -> None:
    from perdure.engine.budget import budget_tokens  # noqa: PLC0415

    unset = perdure.Policy()
    assert 100_000 == budget_tokens(unset, "gpt-5.6", "Hi")
    assert 100_000 == budget_tokens(unset, "nobody-knows-it", "Hi")
    assert 4_096 - message_tokens("Hi") == budget_tokens(unset, "gpt-4-0613", "Hi")
    assert 64_000 - message_tokens("Hi") == budget_tokens(unset, "openai/gpt-4o-mini", "Hi")
    assert 7 == budget_tokens(perdure.Policy(budget_tokens=7), "gpt-4", "Hi")


def test_long_logs_are_searched_and_short_ones_read(world: World) -> None:
    """The fact stands further back than what is read without a search."""
    app = world.app(policy=perdure.Policy(budget_tokens=600))
    items = chatter(8, 400)
    items[6:6] = [{"role": "user", "content": FACT}, {"role": "assistant", "content": "Yes."}]
    handle = filled(world, app, items)

    answered = app.respond(ASKED, conversation=handle)

    assert ("user", FACT) in given(world, answered)
    assert json.loads(json.dumps(recovered(answered)))["items_left_out"] > 700
