"""No journalled history yields an invalid prime, and everything that may be kept is kept.

Histories of every kind go through the official SDK over perdure to the embedded provider, which
refuses what OpenAI refuses, with its words; then it forgets, and the next turn must be answered,
from just those items that ``tests/replay_rules.py`` says may be given again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import perdure
from perdure.testing import Fault
from perdure.testing.provider import files
from tests import replay_rules as rules
from tests.histories import (
    ANSWERED,
    APPENDED,
    NOTED,
    PARTS,
    PROJECT,
    QUESTION,
    SAID,
    SAMPLES,
    STEPS,
    THREAD_STEPS,
    TOOL,
    Json,
    answer,
    answers,
    call,
    output,
    unsealed,
)
from tests.world import MODEL, App, World, recovered

DIALECTS = pytest.mark.parametrize("dialect", ["conversations", "responses"])
MANY = pytest.param(1_001, marks=pytest.mark.slow)
ONE_COLOUR = pytest.mark.parametrize("world", ["sync"], indirect=True)  # costly, and no I/O of ours
ALL = -1  # every bit
RANDOMISED = settings(
    max_examples=15,
    deadline=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FEWER = settings(RANDOMISED, max_examples=8)


@pytest.fixture(autouse=True)
def uploaded(request: pytest.FixtureRequest) -> None:
    """The files that histories name are there."""
    if "world" in request.fixturenames:
        state = request.getfixturevalue("world").provider.state
        for handle in ("file-1", "file-2"):
            files.keep(state, PROJECT, "a.png", "vision", handle=handle)


class History:
    """One conversation or chain, and the items that its journal must hold, in order."""

    def __init__(self, world: World, app: App, dialect: str) -> None:
        self.world, self.app, self.dialect = world, app, dialect
        self.items: list[Json] = []
        self.handle: str | None = None
        self.lost = False  # and no call has met the loss yet
        self.unprimed = False
        self.waiting = False  # a new one is there, and its history goes along with the next turn
        self.generation = 0
        self.held: list[Json] = []  # what the provider has of it
        if dialect == "conversations":
            self.handle = app.call("conversations.create").id

    def append(self, items: Sequence[Json]) -> None:
        """Add items to the conversation, 20 at a time, as they must be."""
        for start in range(0, len(items), 20):
            portion = list(items[start : start + 20])
            if not self.waiting:  # else nothing is sent that could meet a loss
                self.waiting = self.lost
                self._meets_the_loss()
            try:
                self.app.call(
                    "conversations.items.create", conversation_id=self.handle, items=portion
                )
            except openai.APIStatusError:
                assert not self.unprimed  # nobody can refuse what goes into the journal alone
            else:
                self.items += portion

    def lose(self) -> None:
        """Let the provider forget everything."""
        self.world.forgets()
        self.lost = self.unprimed = self.handle is not None

    def turn(
        self, items: Sequence[Json] = (QUESTION,), said: Sequence[Json] = (NOTED,), **more: Any
    ) -> Any:
        """Make a model call; after a loss it must be answered, from a valid and whole prime."""
        self._meets_the_loss()
        self.waiting = False
        self.world.provider.state.scripted.clear()
        self.world.provider.script(list(said))
        if self.handle is not None:
            more["conversation" if self.dialect == "conversations" else "previous_response_id"] = (
                self.handle
            )
        try:
            answered = self.app.respond(list(items), **more)
        except openai.BadRequestError:
            assert not self.unprimed  # refused as it would be without perdure, and withdrawn
            return None
        if self.dialect == "responses":
            self.handle = answered.id
        self.held = self.world.provider.items(
            answered.id if self.dialect == "responses" else answered.conversation.id
        )
        before, spoken = self.held[: -len(said)], self.held[-len(said) :]
        if self.unprimed:
            self._check(answered, before[: len(before) - len(items)], items)
        else:
            assert recovered(answered) is None
        self.items += [*items, *spoken]
        self.unprimed = False
        return answered

    def _meets_the_loss(self) -> None:
        self.generation += self.lost
        self.lost = False

    def _check(self, answered: Any, given: Sequence[Json], following: Sequence[Json]) -> None:
        """Compare what the new replica was given with what may be given again."""
        kept = rules.given_again(self.items, following)
        expected = [rules.form(self.items[position]) for position in kept]
        actual = [rules.form(item) for item in given]
        assert sorted(map(_text, expected)) == sorted(map(_text, actual))
        assert rules.without_outputs(expected) == rules.without_outputs(actual)
        told = recovered(answered) or {}
        assert told == self.world.recoveries[-1].as_member()
        assert {
            "items_primed": len(kept),
            "items_left_out": len(self.items) - len(kept),
            "memory": rules.memory(self.items, kept),
            "generation": self.generation,
        }.items() <= told.items()
        rows = "SELECT count(*) FROM perdure_recovery WHERE conversation = ?"
        assert [(self.generation,)] == self.world.rows(rows, told["conversation"])
        sent = [status for asked, status in self.world.asked() if asked == "POST responses"]
        assert 200 == sent[-1]  # at the first attempt with a prime:
        assert len(sent) <= 2


def _text(item: Json) -> str:
    return json.dumps(item, sort_keys=True)


# -- the property, with everything drawn -------------------------------------------------------


@RANDOMISED
@example(
    steps=[
        ("append", [{"role": "user", "content": "One."}], None),
        ("lose", None, None),
        ("append", [{"role": "user", "content": "Two."}], None),
        ("lose", None, None),
        ("append", [{"role": "user", "content": "Three."}], None),
    ],
    last=0,
)
@given(steps=STEPS, last=st.integers(0, 7))
@pytest.mark.parametrize("dialect", ["conversations", "responses"])
def test_every_history_is_rebuilt_with_valid_input_and_whole(
    world: World, dialect: str, steps: list[Any], last: int
) -> None:
    told = History(world, world.app(), dialect)
    for step, sent, model_said in [*steps, ("lose", 0, None), ("answer", last, [NOTED])]:
        # What a rebuilt conversation cannot take yet stands at the end of this file.
        rebuilt = dialect == "conversations" and told.generation > 0 and not told.lost
        if step == "lose":
            told.lose()
        elif step == "append":
            if dialect == "conversations" and (told.unprimed or not rebuilt):
                told.append(unsealed(world, sent))
        elif rebuilt and not told.unprimed:
            told.turn([*answers(told.held, ALL), QUESTION], model_said)
        elif step == "answer" or told.unprimed:
            told.turn([*answers(told.items, sent if step == "answer" else 0), QUESTION], model_said)
        else:
            told.turn([*unsealed(world, sent), QUESTION], model_said)


@FEWER
@given(
    turns=st.lists(st.lists(SAID, min_size=1, max_size=4), min_size=1, max_size=3), data=st.data()
)
@DIALECTS
def test_a_history_that_was_made_without_perdure_is_rebuilt_too(
    world: World, dialect: str, turns: list[list[Json]], data: st.DataObject
) -> None:
    told = History(world, world.plain(), dialect)
    for model_said in turns:
        told.turn([*answers(told.items, ALL), QUESTION], model_said)
    if dialect == "conversations":
        told.append(unsealed(world, data.draw(st.lists(APPENDED, max_size=25))))
    told.app = world.app()
    if dialect == "conversations":
        told.append([QUESTION])
    else:
        told.turn([*answers(told.items, ALL), QUESTION])
    world.drain()
    told.lose()

    told.turn()


@FEWER
@given(steps=THREAD_STEPS)
def test_every_thread_is_rebuilt_whole(world: World, steps: list[Any]) -> None:
    app = world.app()
    thread, assistant = app.thread()
    held: list[Json] = []
    generation, lost = 0, False
    for step, role, content in [*steps, ("lose", "", ""), ("say", "user", "And now?")]:
        if step == "lose":
            world.forgets()
            lost = True
            continue
        generation += lost
        if step == "say":
            made = app.call(
                "beta.threads.messages.create", thread_id=thread, role=role, content=content
            )
            following = [{"role": role, "content": content}]
        else:
            made = app.call("beta.threads.runs.create", thread_id=thread, assistant_id=assistant)
            following = []
        if lost:
            _check_thread(world, made, held, following, generation)
        lost = False
        held += following
        if step == "run":
            world.provider.state.scripted.clear()
            world.provider.script(content or "Noted.")
            app.call("beta.threads.runs.poll", run_id=made.id, thread_id=thread)
            listed = app.call("beta.threads.messages.list", thread_id=thread)
            held.append(listed.data[0].to_dict())


def _check_thread(
    world: World, made: Any, held: Sequence[Json], following: Sequence[Json], generation: int
) -> None:
    kept = [message for message in held if message["content"]]  # threads have no empty message
    actual = world.provider.messages(made.thread_id)
    assert [rules.thread_form(message) for message in [*kept, *following]] == [
        rules.thread_form(message) for message in actual
    ]
    assert {
        "items_primed": len(kept),
        "items_left_out": len(held) - len(kept),
        "memory": rules.memory(held, [n for n, message in enumerate(held) if message["content"]]),
        "generation": generation,
    }.items() <= (recovered(made) or {}).items()
    assert {200} == {status for _, status in world.asked()[1:]}


# -- every type of item ------------------------------------------------------------------------

KEPT = {
    "message",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "tool_search_call",
    "tool_search_output",
    "additional_tools",
    "configuration_update",
}


@ONE_COLOUR
@DIALECTS
def test_every_type_of_item_that_the_sdk_knows_can_be_in_a_history(
    world: World, dialect: str
) -> None:
    app = world.app()
    kept, met = set(), set()
    for kind, sample in SAMPLES.items():
        told = History(world, app, dialect)
        first = told.turn([QUESTION], sample.said)
        sent = sample.sent(world, first.to_dict()["output"])
        assert told.turn([QUESTION, *sent]) is not None, kind
        told.lose()
        told.turn()
        met |= {rules.kind_of(item) for item in told.items}
        kept |= {item["type"] for item in told.held}

    assert set(rules.TYPES) == set(SAMPLES) == met
    assert KEPT == kept


@ONE_COLOUR
@pytest.mark.parametrize("part", PARTS, ids=lambda part: "-".join([*part])[5:])
def test_a_part_keeps_all_that_it_says(world: World, part: Json) -> None:
    told = History(world, world.app(), "responses")
    pair = call("function_call", "call_a"), output("function_call", "call_a") | {"output": [part]}
    told.turn([{"role": "user", "content": [part]}, *pair])
    told.lose()

    told.turn()

    assert part.items() <= told.held[0]["content"][0].items()
    assert part.items() <= told.held[2]["output"][0].items()


# -- calls and outputs -------------------------------------------------------------------------

A, B = call("function_call", "call_a"), call("function_call", "call_b")
A_DONE, B_DONE = answer(A), answer(B)
SHELL = call("shell_call", "call_s")
CUSTOM, CUSTOM_DONE = call("custom_tool_call", "call_a"), output("custom_tool_call", "call_a")
HELLO = {"role": "user", "content": "Hello."}
HI = {"role": "assistant", "content": "Hi."}
PAIRS: dict[str, tuple[list[Json], list[int]]] = {
    "parallel": ([A, B, A_DONE, B_DONE], [0, 1, 2, 3]),
    "parallel, answered in reverse": ([A, B, B_DONE, A_DONE], [0, 1, 2, 3]),
    "interleaved outputs": ([A, B, A_DONE, HELLO, B_DONE], [0, 1, 2, 3, 4]),
    "a message between": ([A, HI, A_DONE], [0, 1, 2]),
    "another call between": ([A, B, A_DONE, CUSTOM, B_DONE, CUSTOM_DONE], [0, 1, 2, 3, 4, 5]),
    "crashed at the tail": ([HELLO, A], [0]),
    "crashed in the middle": ([HELLO, A, HELLO, HI], [0, 2, 3]),
    "half of two calls crashed": ([A, B, B_DONE, HI], [1, 2, 3]),
    "output without its call": ([HELLO, A_DONE, HI], [0, 2]),
    "output before its call": ([A_DONE, A], []),
    "second output": ([A, A_DONE, A_DONE], [0, 1]),
    "two calls with one id": ([A, A, A_DONE, A_DONE], [0, 2]),
    "an id used again": ([A, A_DONE, A, A_DONE], [0, 1, 2, 3]),
    "one id, two kinds": ([A, CUSTOM, CUSTOM_DONE], [1, 2]),
    "reasoning before a crashed call": (
        [HELLO, {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}, A],
        [0],
    ),
}


@ONE_COLOUR
@pytest.mark.parametrize("case", PAIRS)
def test_calls_and_outputs_are_given_in_pairs(world: World, case: str) -> None:
    items, kept = PAIRS[case]
    told = History(world, world.app(), "conversations")
    told.append(items)
    told.lose()

    told.turn()

    assert kept == rules.given_again(items)


@pytest.mark.parametrize("kind", ANSWERED)
@DIALECTS
def test_the_call_that_is_answered_now_is_kept(world: World, dialect: str, kind: str) -> None:
    calls = [call(kind, "call_a"), call(kind, "call_b")]
    told = History(world, world.app(), dialect)
    told.turn([QUESTION], [NOTED, *calls])
    told.lose()

    told.turn([answer(calls[1])])

    expected = ["message", "message", kind, rules.OUTPUT_OF[kind], "message"]
    assert expected == [item["type"] for item in told.held]
    assert "call_b" == told.held[2]["call_id"]


def test_an_answer_takes_the_place_of_one_that_failed(world: World) -> None:
    told = History(world, world.app(), "conversations")
    told.turn([HELLO], [A])
    world.provider.order(Fault("status", status=500))
    with pytest.raises(openai.InternalServerError):
        told.app.respond([answer(A, "12:00")], conversation=told.handle)

    again = told.app.respond([answer(A, "12:01")], conversation=told.handle)

    held = world.provider.items(again.conversation.id)
    assert ["message", "function_call", "function_call_output", "message"] == [
        item["type"] for item in held
    ]
    assert "12:01" == held[2]["output"]
    assert 1 == (recovered(again) or {})["items_left_out"]


@DIALECTS
def test_a_call_that_comes_along_with_its_answer_is_there_once(world: World, dialect: str) -> None:
    told = History(world, world.app(), dialect)
    told.turn([HELLO], [A])
    told.lose()

    told.turn([A, A_DONE])

    assert ["message", "function_call", "function_call_output", "message"] == [
        item["type"] for item in told.held
    ]


def test_an_output_whose_call_does_not_fit_the_budget_is_left_out(world: World) -> None:
    app = world.app(policy=perdure.Policy(budget_tokens=400))
    told = History(world, app, "conversations")
    told.append([HELLO, A | {"arguments": json.dumps("x" * 1_500)}, HI, A_DONE, HELLO])
    told.lose()

    answered = told.app.respond([QUESTION], conversation=told.handle)

    label, gap, *given = world.provider.items(answered.conversation.id)
    assert "[Parts of this conversation" in label["content"][0]["text"]
    assert "[… the newest messages follow]" == gap["content"][0]["text"]
    assert ["Hi.", "Hello.", "And now?"] == [item["content"][0]["text"] for item in given[:-1]]
    assert {"items_primed": 2, "items_left_out": 3, "memory": "partial"}.items() <= (
        recovered(answered) or {}
    ).items()


@DIALECTS
def test_a_call_keeps_its_namespace(world: World, dialect: str) -> None:
    """OpenAI refuses a call that comes back without it: "Missing namespace for function_call"."""
    spaced = A | {"namespace": "sky"}
    tools = [{"type": "namespace", "name": "sky", "description": "The sky.", "tools": [TOOL]}]
    told = History(world, world.app(), dialect)
    told.turn([HELLO, spaced, A_DONE], tools=tools)
    told.lose()

    told.turn(tools=tools)

    assert "sky" == told.held[1]["namespace"]


# -- sizes and lengths -------------------------------------------------------------------------

PLENTY = perdure.Policy(budget_tokens=100_000_000)


@pytest.mark.slow
@ONE_COLOUR
def test_what_is_larger_than_an_input_may_be_is_refused_as_by_a_provider(world: World) -> None:
    most = "x" * rules.TEXT_CHARS
    told = History(world, world.app(policy=PLENTY), "conversations")
    told.append([HELLO])
    told.lose()
    for larger in ([{"role": "user", "content": most + "x"}], [A, answer(A, most + "x")]):
        with pytest.raises(openai.BadRequestError):
            told.app.call("conversations.items.create", conversation_id=told.handle, items=larger)
    told.append([{"role": "user", "content": most}, B, B_DONE])

    told.turn()

    assert [len("Hello."), rules.TEXT_CHARS] == [
        len(item["content"][0]["text"]) for item in told.held[:2]
    ]
    assert [B["call_id"]] * 2 == [item["call_id"] for item in told.held[2:4]]


@ONE_COLOUR
@DIALECTS
def test_arguments_longer_than_an_input_may_have_them_are_left_out(
    world: World, dialect: str
) -> None:
    """What the model writes has no such limit, and would make every later prime invalid."""
    written = A | {"arguments": "x" * (rules.ARGUMENTS_CHARS + 1)}
    told = History(world, world.app(policy=PLENTY), dialect)
    told.turn([HELLO], [NOTED, written, B])
    told.turn([A_DONE, B_DONE])
    told.lose()

    told.turn()

    assert ["call_b"] == [item["call_id"] for item in told.held if item["type"] == "function_call"]


@ONE_COLOUR
def test_a_text_too_large_that_a_failed_call_left_behind_is_left_out(world: World) -> None:
    told = History(world, world.app(policy=PLENTY), "conversations")
    told.append([HELLO])
    world.provider.order(Fault("status", status=500))
    with pytest.raises(openai.InternalServerError):
        told.app.respond("x" * (rules.TEXT_CHARS + 1), conversation=told.handle)

    answered = told.app.respond([QUESTION], conversation=told.handle)

    assert {"items_primed": 1, "items_left_out": 1, "memory": "partial"}.items() <= (
        recovered(answered) or {}
    ).items()


@ONE_COLOUR
@pytest.mark.parametrize("count", [21, MANY])
@DIALECTS
def test_any_number_of_items_is_given_again(world: World, dialect: str, count: int) -> None:
    items = [{"role": "user", "content": f"Fact {number}."} for number in range(count)]
    told = History(world, world.app(), dialect)
    if dialect == "conversations":
        told.append(items)
    else:
        told.turn(items)
    told.lose()

    told.turn()

    assert items == [
        {"role": item["role"], "content": item["content"][0]["text"]} for item in told.held[:count]
    ]


@ONE_COLOUR
@pytest.mark.parametrize("count", [21, MANY])
def test_any_number_of_messages_is_given_again(world: World, count: int) -> None:
    app = world.app()
    said = [{"role": "user", "content": f"Fact {number}."} for number in range(count)]
    thread = app.call("beta.threads.create", messages=said).id
    world.forgets()

    made = app.call(
        "beta.threads.messages.create", thread_id=thread, role="user", content="And now?"
    )

    _check_thread(world, made, said, [{"role": "user", "content": "And now?"}], 1)


@ONE_COLOUR
@pytest.mark.parametrize("count", [21, MANY])
def test_any_number_of_items_made_without_perdure_is_given_again(world: World, count: int) -> None:
    told = History(world, world.plain(), "conversations")
    told.append([{"role": "user", "content": f"Fact {number}."} for number in range(count)])
    told.app = world.app()
    told.append([HELLO])
    world.drain()
    told.lose()

    told.turn()

    assert count + 3 == len(told.held)


# -- what nobody has checked -------------------------------------------------------------------

MALFORMED: list[Json] = [
    {"role": "bot", "content": "Hello."},
    {"role": ["user"], "content": "Hello."},
    {"role": "user"},
    {"role": "user", "content": 5},
    {"role": "user", "content": []},
    {"role": "user", "content": ["Hello."]},
    {"role": "user", "content": [{"type": "input_text"}]},
    {"role": "user", "content": [{"type": "input_text", "text": 5}]},
    {"role": "user", "content": [{"type": "input_image", "detail": "low"}]},
    {"role": "user", "content": [{"type": "input_image", "image_url": 5, "file_id": None}]},
    {"role": "user", "content": [{"type": ["input_text"], "text": "Hello."}]},
    {"role": "user", "content": [{"type": "output_text", "text": "Hello."}]},
    {"role": "assistant", "content": [{"type": "output_text"}]},
    {"role": "assistant", "content": [{"type": "input_text", "text": "Hello."}]},
    {"type": "thought", "content": "Hello."},
    {"type": "function_call", "call_id": 5, "name": "look", "arguments": "{}"},
    {"type": "function_call", "call_id": "call_x", "name": "look", "arguments": {}},
    {"type": "function_call_output", "call_id": "call_x", "output": {"text": "Hello."}},
    {"type": "shell_call", "call_id": "call_x", "action": "ls"},
    call("shell_call", "call_y"),
    output("shell_call", "call_y", 5),
    {"type": "additional_tools", "role": "user", "tools": [TOOL]},
    {"type": "configuration_update"},
    {"type": "tool_search_output", "call_id": None, "tools": []},
    {"type": {"name": "message"}, "role": "user", "content": "Hello."},
]


@pytest.mark.parametrize("attempt", ["while lost", "failed"])
def test_malformed_items_do_no_harm(world: World, attempt: str) -> None:
    """They are refused, or in the log where no provider has seen them; they are in no prime."""
    told = History(world, world.app(), "conversations")
    told.append([HELLO])
    taken = 0
    if attempt == "while lost":
        told.lose()
        for one in MALFORMED:
            with suppress(openai.BadRequestError):
                told.app.call(
                    "conversations.items.create", conversation_id=told.handle, items=[one]
                )
                taken += 1
    else:
        taken = len(MALFORMED)
        world.provider.order(Fault("status", status=500))
        with pytest.raises(openai.InternalServerError):
            told.app.respond(MALFORMED, conversation=told.handle)

    answered = told.app.respond([QUESTION], conversation=told.handle)

    held = world.provider.items(answered.conversation.id)
    assert ["Hello.", "And now?"] == [item["content"][0]["text"] for item in held[:-1]]
    assert taken == (recovered(answered) or {})["items_left_out"]


def test_members_that_an_item_may_not_have_are_left_behind(world: World) -> None:
    told = History(world, world.app(), "conversations")
    told.append([HELLO])
    told.lose()
    told.app.call(
        "conversations.items.create",
        conversation_id=told.handle,
        items=[
            {"role": "user", "content": "A", "phase": "commentary"},
            {"role": "assistant", "content": "B", "phase": "thinking"},
            {"role": "user", "content": "C", "mood": "good"},
            {"role": "user", "content": [{"type": "input_text", "text": "D", "mood": "good"}]},
            A | {"caller": {"type": "program", "caller_id": "call_p"}, "mood": "good"},
            answer(A, [{"type": "input_text", "text": "E", "mood": "good"}]),
            SHELL | {"environment": {"type": "container_reference", "container_id": "cntr_1"}},
            answer(SHELL),
        ],
    )

    answered = told.app.respond([QUESTION], conversation=told.handle)

    held = world.provider.items(answered.conversation.id)
    assert [
        HELLO,
        {"role": "user", "content": "A"},
        {"role": "assistant", "content": "B"},
        {"role": "user", "content": "C"},
        {"role": "user", "content": "D"},
        A,
        answer(A, [{"type": "input_text", "text": "E"}]),
        SHELL,
        answer(SHELL),
    ] == [_shown(item) for item in held[:-2]]


def _shown(item: Json) -> Json:
    shown = {key: value for key, value in item.items() if key not in {"id", "status"}}
    if item["type"] == "message":
        del shown["type"]
        shown["content"] = item["content"][0]["text"]
    return shown


def test_half_an_emoji_does_no_harm(world: World) -> None:
    """A model that is cut short, or an app that cuts a text, makes one; it has no UTF-8 form."""
    transport = world.transport()
    cut = b'{"model":"gpt-5.6","input":[{"role":"user","content":"Cut: \\ud83d"}]}'
    world.provider.script("Noted.")
    first = _post(world, transport, cut)
    assert 200 == first.status_code
    world.forgets()

    answered = world.app_on(transport).respond("Well?", previous_response_id=first.json()["id"])

    held = world.provider.items(answered.id)
    assert ["Cut: ?", "Noted.", "Well?"] == [item["content"][0]["text"] for item in held[:-1]]


def _post(world: World, transport: Any, content: bytes) -> Any:
    """POST bytes to /responses as no SDK would send them."""
    url = f"{world.provider.base_url}/responses"
    headers = {"authorization": "Bearer sk-test", "content-type": "application/json"}
    if world.colour == "sync":
        return httpx2.Client(transport=transport).post(url, content=content, headers=headers)
    client = httpx2.AsyncClient(transport=transport)
    return world.wait(client.post(url, content=content, headers=headers))


def test_a_rebuilt_conversation_may_be_lost_before_its_first_turn(world: World) -> None:
    told = History(world, world.app(), "conversations")
    told.append([HELLO])
    told.lose()
    told.append([HI])
    told.lose()

    told.turn()


def test_the_rest_of_the_call_arrives_as_it_was_made(world: World) -> None:
    told = History(world, world.app(), "conversations")
    told.append([HELLO])
    told.lose()

    told.turn(metadata={"user": "42"}, instructions="Be brief.", tools=[TOOL], temperature=0.5)

    asked = world.provider.requests[-1].json
    assert {
        "model": MODEL,
        "metadata": {"user": "42"},
        "instructions": "Be brief.",
        "tools": [TOOL],
        "temperature": 0.5,
    } == {key: asked[key] for key in asked if key not in {"input", "conversation"}}


# -- after a rebuild -----------------------------------------------------------------------------


def test_items_appended_to_a_rebuilt_conversation_are_there_once(world: World) -> None:
    told = History(world, world.app(), "conversations")
    told.append([HELLO])
    told.lose()
    told.turn()
    told.append([HI])

    answered = told.app.respond([QUESTION], conversation=told.handle)

    held = world.provider.items(answered.conversation.id)
    assert 1 == [item["content"][0]["text"] for item in held].count("Hi.")
    assert recovered(answered) is None


def test_a_refused_call_on_a_rebuilt_conversation_is_no_loss(world: World) -> None:
    told = History(world, world.app(), "conversations")
    told.append([HELLO])
    told.lose()
    told.turn()
    with pytest.raises(openai.NotFoundError):
        told.app.respond("Hi.", conversation=told.handle, model="missing-model")

    told.turn()
