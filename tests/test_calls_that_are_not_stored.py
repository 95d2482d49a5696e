"""``store: false``: recovered like any other call, without a trace in the log."""

from __future__ import annotations

from typing import Any, Final

import openai
import pytest

import perdure
from perdure.testing import Fault
from perdure.testing.provider import KNOWS_NOTHING, files
from tests.world import LONG, MODEL, App, World, recovered

FACT: Final = "My dog is called Rex."
QUESTION: Final = "What is my dog called?"
LONG_TALK: Final = " ".join(f"Chapter {n} tells of a journey by land and sea." for n in range(60))

via_each = pytest.mark.parametrize("via", ["conversation", "response"])
both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])


def told(world: World, via: str, app: App, said: Any = FACT) -> dict[str, Any]:
    """Say something that is stored; what continues from it."""
    at = {}
    if via == "conversation":
        at["conversation"] = app.call("conversations.create").id
    first = app.respond(said, **at)
    return at or {"previous_response_id": first.id}


def log(world: World) -> list[tuple[Any, ...]]:
    """What is in the log: nothing that a call does may change it."""
    return [
        *world.rows("SELECT count(*), max(key) FROM perdure_item"),
        *world.rows("SELECT count(*), max(key) FROM perdure_turn"),
    ]


def aside(app: App, streamed: bool, message: Any, at: dict[str, Any]) -> Any:
    """Say something that is not stored."""
    ask = app.stream if streamed else app.respond
    return ask(message, **at, store=False)


@via_each
@both_ways
def test_a_loss_costs_one_request_more_and_then_none(
    world: World, via: str, *, streamed: bool
) -> None:
    app = world.app()
    at = told(world, via, app)
    before = log(world)
    world.forgets()
    world.provider.clear_requests()

    first, second = (aside(app, streamed, QUESTION, at) for _ in range(2))

    assert FACT in first.output_text
    assert FACT in second.output_text
    expected = {"memory": "full", "items_primed": 2, "items_left_out": 0}
    assert {"reason": "gone", "requests": 2, **expected}.items() <= (recovered(first) or {}).items()
    assert {"reason": "known", "requests": 1, **expected}.items() <= (
        recovered(second) or {}
    ).items()
    gone = {"conversation": 404, "response": 400}[via]
    assert [gone, 200, 200] == [status for _, status in world.asked()]
    assert [recovered(first), recovered(second)] == [one.as_member() for one in world.recoveries]
    assert before == log(world)


@both_ways
def test_a_conversation_rebuilt_since_is_used_and_not_primed_again(
    world: World, *, streamed: bool
) -> None:
    app = world.app()
    at = told(world, "conversation", app)
    world.forgets()
    app.respond("Hello again.", **at)
    world.provider.clear_requests()

    answer = aside(app, streamed, QUESTION, at)

    assert FACT in answer.output_text
    assert recovered(answer) is None
    assert [("POST responses", 200)] == world.asked()


@pytest.mark.parametrize(
    ("form", "streamed"),
    [("error", True), ("failed", True), ("failed", False), ("erased", True), ("erased", False)],
)
def test_a_loss_told_inside_a_200_is_repaired(world: World, form: str, *, streamed: bool) -> None:
    app = world.app()
    at = told(world, "response", app)
    before = log(world)
    world.forgets()
    world.provider.order(Fault("loss_in_200", form=form))

    answer = aside(app, streamed, QUESTION, at)

    assert FACT in answer.output_text
    assert "gone" == (recovered(answer) or {})["reason"]
    assert before == log(world)


def test_a_stream_says_in_its_events_that_the_replica_was_lost(world: World) -> None:
    app = world.app()
    at = told(world, "response", app)
    world.forgets()

    events = app.events("responses.create", model=MODEL, input=QUESTION, store=False, **at)

    assert ["response.created", "response.completed"] == [events[0].type, events[-1].type]
    assert all(recovered(events[one].response) == recovered(events[0].response) for one in (0, -1))
    assert "gone" == (recovered(events[0].response) or {})["reason"]


def test_a_young_response_is_waited_for_and_not_given_up(world: World) -> None:
    app = world.app()
    world.provider.order(Fault("not_visible", seconds=1.0, times=None))
    at = told(world, "response", app)

    answer = aside(app, False, QUESTION, at)

    assert FACT in answer.output_text
    assert recovered(answer) is None
    assert recovered(app.respond(QUESTION, **at)) is None


def test_a_young_response_that_stays_unseen_is_asked_for_again_by_the_next_call(
    world: World,
) -> None:
    app = world.app()
    world.provider.order(Fault("not_visible", seconds=30.0, times=None))
    at = told(world, "response", app)
    began = world.clock.now()

    answer = aside(app, False, QUESTION, at)

    assert FACT in answer.output_text
    assert "not_visible" == (recovered(answer) or {})["reason"]
    assert 2.0 == pytest.approx(world.clock.now() - began)
    world.clock.advance(LONG)
    assert recovered(app.respond(QUESTION, **at)) is None, "nothing was lost"


@both_ways
def test_a_locked_conversation_is_waited_for(world: World, *, streamed: bool) -> None:
    app = world.app()
    at = told(world, "conversation", app)
    world.provider.order(Fault("conversation_locked", times=2))
    began = world.clock.now()

    answer = aside(app, streamed, QUESTION, at)

    assert FACT in answer.output_text
    assert recovered(answer) is None
    assert 2.0 == pytest.approx(world.clock.now() - began)


@via_each
@both_ways
def test_a_history_whose_files_are_gone_is_told_without_them(
    world: World, via: str, *, streamed: bool
) -> None:
    app = world.app()
    named = files.keep(world.provider.state, "Bearer sk-test", "notes.png", "vision").id
    said = [{"type": "input_text", "text": FACT}, {"type": "input_image", "file_id": named}]
    at = told(world, via, app, [{"role": "user", "content": said}])
    before = log(world)
    world.provider.forget(named)
    world.forgets()

    answer = aside(app, streamed, QUESTION, at)

    assert FACT in answer.output_text
    assert {
        "memory": "partial",
        "items_primed": 2,
        "items_left_out": 1,
        "requests": 3,
    }.items() <= (recovered(answer) or {}).items()
    assert before == log(world)


def test_a_file_that_the_message_names_now_is_the_apps_own_affair(world: World) -> None:
    app = world.app()
    at = told(world, "response", app)
    world.forgets()
    asked = [{"role": "user", "content": [{"type": "input_file", "file_id": "file-0"}]}]

    with pytest.raises(openai.NotFoundError, match="No file found with id 'file-0'"):
        aside(app, False, asked, at)


@via_each
def test_a_prime_too_long_for_the_model_is_halved_once(world: World, via: str) -> None:
    app = world.app(policy=perdure.Policy(budget_tokens=4_000))
    at = told(world, via, app)
    for number in range(30):
        answer = app.respond(f"Note {number}: " + "the weather was fine and we walked. " * 8, **at)
        if via == "response":
            at = {"previous_response_id": answer.id}
    before = log(world)
    world.forgets()
    world.provider.order(Fault("window", tokens=3_000))

    answer = aside(app, False, "What was the weather?", at)

    assert {"memory": "partial", "requests": 3}.items() <= (recovered(answer) or {}).items()
    gone = {"conversation": 404, "response": 400}[via]
    assert [gone, 400, 200] == [status for _, status in world.asked()][-3:]
    assert before == log(world)


def test_an_input_too_long_by_itself_is_refused_as_ever(world: World) -> None:
    app = world.app()
    at = told(world, "response", app)
    world.forgets()
    world.provider.order(Fault("window", tokens=300))

    with pytest.raises(openai.BadRequestError) as refused:
        aside(app, False, "word " * 1_000, at)

    assert "context_length_exceeded" == refused.value.code


@via_each
@both_ways
@pytest.mark.parametrize("policy", ["fresh", "error"])
def test_an_unknown_handle_that_is_gone_is_as_the_policy_says(
    world: World, via: str, streamed: bool, policy: Any
) -> None:
    app = world.app(policy=perdure.Policy(on_unknown=policy))
    at = told(world, via, world.plain())
    world.forgets()

    if policy == "error":
        with pytest.raises((openai.NotFoundError, openai.BadRequestError), match="not found"):
            aside(app, streamed, QUESTION, at)
        assert [("POST responses", 404 if via == "conversation" else 400)] == world.asked()
        assert [] == world.recoveries
    else:
        answer = aside(app, streamed, QUESTION, at)
        assert KNOWS_NOTHING in answer.output_text
        assert {"memory": "none", "reason": "gone"}.items() <= (recovered(answer) or {}).items()
        assert 2 == len(world.asked())
        assert ["none"] == [told.memory for told in world.recoveries]
    assert [(0, None), (0, None)] == log(world)


@via_each
def test_an_unknown_handle_that_is_there_is_used_as_it_is(world: World, via: str) -> None:
    app = world.app(policy=perdure.Policy(on_unknown="fresh"))
    at = told(world, via, world.plain())
    world.provider.clear_requests()

    answer = aside(app, False, QUESTION, at)

    assert FACT in answer.output_text
    assert recovered(answer) is None
    assert [("POST responses", 200)] == world.asked()


def test_a_loss_that_is_met_twice_is_the_providers_error(world: World) -> None:
    app = world.app()
    at = told(world, "response", app)
    error = {"error": {"message": "Previous response with id 'x' not found.",
                       "code": "previous_response_not_found"}}  # fmt: skip
    world.clock.advance(LONG)
    world.provider.order(Fault("status", status=400, body=error, times=2))

    with pytest.raises(openai.BadRequestError, match="not found"):
        aside(app, False, QUESTION, at)

    assert [200, 400, 400] == [status for _, status in world.asked()]


def test_a_reference_to_an_item_that_is_gone_comes_from_the_log(world: World) -> None:
    app = world.app()
    first = app.respond("Hello.")
    quoted = app.respond(FACT + " " + QUESTION)
    world.forgets(quoted.id)
    reference = {"type": "item_reference", "id": quoted.output[0].id}

    answer = aside(
        app,
        False,
        [reference, {"role": "user", "content": QUESTION}],
        {"previous_response_id": first.id},
    )

    assert FACT in answer.output_text
    assert recovered(answer) is None, "the response that it continues is there"


def test_what_a_recovery_sends_waits_as_the_server_asks(world: World) -> None:
    app = world.app()
    at = told(world, "response", app)
    world.forgets()
    world.provider.order(Fault("status", status=429, retry_after=3.0, handle="Rex"))
    began = world.clock.now()

    answer = aside(app, False, QUESTION, at)

    assert FACT in answer.output_text
    assert 3.0 <= world.clock.now() - began


@pytest.mark.parametrize("lost", [False, True], ids=["living", "lost"])
def test_the_tokens_of_a_call_are_counted_with_its_history(world: World, *, lost: bool) -> None:
    app = world.app()
    at = told(world, "response", app, FACT * 50)
    before = log(world)
    healthy = app.call("responses.input_tokens.count", model=MODEL, input=QUESTION, **at)
    if lost:
        world.forgets()

    counted = app.call("responses.input_tokens.count", model=MODEL, input=QUESTION, **at)

    assert healthy.input_tokens == counted.input_tokens
    assert lost == (recovered(counted) is not None)
    assert before == log(world)


@via_each
def test_an_answer_from_nothing_is_made_again_before_it_is_seen(world: World, via: str) -> None:
    app = world.app()
    at = told(world, via, app, FACT + " " + LONG_TALK)
    before = log(world)
    world.provider.order(Fault("amnesia"))

    answer = aside(app, False, QUESTION, at)

    assert "Rex" in answer.output_text
    assert {"reason": "forgot", "memory": "full", "requests": 2}.items() <= (
        recovered(answer) or {}
    ).items()
    assert before == log(world)
    after = app.respond(QUESTION, **at)
    assert "Rex" in after.output_text
    assert "known" == (recovered(after) or {})["reason"], "what forgot is not asked again"


@via_each
def test_a_stream_from_nothing_says_so_in_its_last_event(world: World, via: str) -> None:
    app = world.app()
    at = told(world, via, app, FACT + " " + LONG_TALK)
    world.provider.order(Fault("amnesia"))

    answer = aside(app, True, QUESTION, at)
    again = aside(app, True, QUESTION, at)

    assert KNOWS_NOTHING in answer.output_text
    assert {"reason": "forgot", "memory": "none"}.items() <= (recovered(answer) or {}).items()
    assert "Rex" in again.output_text
    assert ["forgot", "known"] == [recovery.reason for recovery in world.recoveries]


@both_ways
@pytest.mark.parametrize("kind", ["warn", "off"])
def test_the_policy_decides_what_an_answer_from_nothing_is(
    world: World, kind: Any, *, streamed: bool
) -> None:
    app = world.app(policy=perdure.Policy(on_amnesia=kind))
    at = told(world, "response", app, FACT + " " + LONG_TALK)
    world.provider.order(Fault("amnesia"))

    answer = aside(app, streamed, QUESTION, at)
    again = aside(app, streamed, QUESTION, at)

    assert KNOWS_NOTHING in answer.output_text
    assert {"warn": "forgot", "off": None}[kind] == (recovered(answer) or {}).get("reason")
    assert "Rex" in again.output_text
    assert recovered(again) is None, "nothing is given up"


@both_ways
def test_an_older_response_that_is_shorter_has_not_forgotten(
    world: World, *, streamed: bool
) -> None:
    app = world.app()
    at = told(world, "response", app)
    app.respond(LONG_TALK, **at)

    answer = aside(app, streamed, QUESTION, at)

    assert FACT in answer.output_text
    assert recovered(answer) is None
