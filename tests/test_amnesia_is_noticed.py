"""A provider that answers 200 having forgotten everything, and none that has not."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

import perdure
from perdure.dialects.body import read_body
from perdure.engine import amnesia, ops
from perdure.model import Remembered
from perdure.testing import Fault
from perdure.testing.provider import KNOWS_NOTHING
from tests.test_an_answer_outlives_its_store import Refusing
from tests.test_leftovers_are_swept import swept
from tests.world import MODEL, World, recovered

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
LONG = " ".join(f"Chapter {n} tells of a journey over land and sea." for n in range(60))


def talked(world: World, via: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    """An app with a long conversation behind it, and how it names that conversation."""
    app = world.app(**options)
    if via == "conversation":
        at = {"conversation": app.call("conversations.create").id}
        app.respond(FACT, **at)
        app.respond(LONG, **at)
        return app, at
    first = app.respond(FACT)
    second = app.respond(LONG, previous_response_id=first.id)
    return app, {"previous_response_id": second.id}


@pytest.mark.parametrize("via", ["conversation", "response"])
def test_an_answer_from_nothing_is_made_again_before_it_is_seen(world: World, via: str) -> None:
    app, at = talked(world, via)
    world.provider.clear_requests()
    world.provider.order(Fault("amnesia"))

    answer = app.respond(QUESTION, **at)

    assert FACT in answer.output_text
    assert {"reason": "forgot", "memory": "full"}.items() <= (recovered(answer) or {}).items()
    assert {"conversation": 3, "response": 2}[via] == len(world.asked())
    assert FACT in app.respond(QUESTION, previous_response_id=answer.id).output_text


@pytest.mark.parametrize("via", ["conversation", "response"])
def test_nobody_goes_on_from_what_forgot_though_it_could_not_be_replaced(
    world: World, via: str
) -> None:
    """It has the question by now: asked once more there, it would seem to remember half of it."""
    app, at = talked(world, via)
    if via == "conversation":
        emptied(world, at["conversation"])
        world.provider.order(Fault("status", status=400, match="POST /conversations$"))
    else:
        world.provider.order(Fault("amnesia"))
        world.provider.order(Fault("status", status=400, match="POST /responses", handle=FACT))
    question = f"{QUESTION} {LONG[: len(LONG) * 3 // 10]}"
    with pytest.raises(openai.BadRequestError):
        app.respond(question, **at)

    answer = app.respond(question, **at)

    assert FACT in answer.output_text
    assert "known" == (recovered(answer) or {})["reason"]
    sent = json.loads(world.provider.requests[-1].body)["input"]
    assert [FACT, LONG, question] == [one["content"] for one in sent if one["role"] == "user"]


def test_a_streamed_answer_from_nothing_is_flagged_and_the_next_turn_knows(world: World) -> None:
    app, at = talked(world, "conversation")
    world.provider.order(Fault("amnesia"))

    events = app.events("responses.create", model="gpt-5.6", input=QUESTION, **at)
    answer = app.respond(QUESTION, **at)

    assert KNOWS_NOTHING in events[-1].response.output_text
    assert "forgot" == (recovered(events[-1].response) or {})["reason"]
    assert FACT in answer.output_text
    assert ["forgot", "known"] == [recovery.reason for recovery in world.recoveries]


@pytest.mark.parametrize("polled", [True, False])
@pytest.mark.parametrize("via", ["conversation", "response"])
def test_an_answer_in_the_background_from_nothing_is_flagged_and_the_next_turn_knows(
    world: World, via: str, *, polled: bool
) -> None:
    """Also where nobody polls for it: it is read by the next turn."""
    app, at = talked(world, via)
    world.provider.order(Fault("amnesia"))

    begun = app.respond(QUESTION, background=True, **at)
    by = app if polled else world.plain()
    shown = [begun]
    while shown[-1].status != "completed":
        shown.append(by.call("responses.retrieve", response_id=begun.id))
    told = [(recovered(one) or {}).get("reason") for one in shown]
    if via == "response":
        at = {"previous_response_id": begun.id}
    answer = app.respond(QUESTION, **at)

    assert KNOWS_NOTHING in shown[-1].output_text
    assert (["forgot"] if polled else []) == [one for one in told if one is not None]
    assert FACT in answer.output_text
    assert ["forgot", "known"] == [recovery.reason for recovery in world.recoveries]


def test_an_answer_in_the_background_is_not_judged_by_what_was_said_since(world: World) -> None:
    """It was made from less."""
    app, at = talked(world, "conversation")
    begun = app.respond(QUESTION, background=True, **at)
    world.provider.order(Fault("status", status=403, match=r"GET /responses/[^/]+"))
    app.respond(" ".join([LONG] * 3), **at)

    for _ in range(3):
        shown = app.call("responses.retrieve", response_id=begun.id)
    answer = app.respond(QUESTION, **at)

    assert FACT in shown.output_text
    assert FACT in answer.output_text
    assert [] == world.recoveries


@pytest.mark.parametrize("how", ["stream", "background"])
def test_an_answer_from_nothing_is_regenerated_from_everything(world: World, how: str) -> None:
    """The app goes on from the response before the one that was flagged."""
    app, at = talked(world, "response")
    handle = at["previous_response_id"]
    world.provider.order(Fault("amnesia", times=None, match="POST /responses", handle=handle))
    if how == "stream":
        app.stream(QUESTION, **at)
    else:
        begun = app.respond(QUESTION, background=True, **at)
        while begun.status != "completed":
            begun = app.call("responses.retrieve", response_id=begun.id)

    answer = app.respond(QUESTION, **at)

    assert FACT in answer.output_text
    assert ["forgot", "known"] == [recovery.reason for recovery in world.recoveries]


def test_a_line_that_forgot_leaves_the_others_their_links(world: World) -> None:
    """Deleting a response cuts off whatever goes on from it."""
    app, at = talked(world, "response")
    other = app.respond("Let me see.", background=True, **at)
    while world.plain().call("responses.retrieve", response_id=other.id).status != "completed":
        pass
    world.provider.order(Fault("amnesia", match="POST /responses"))
    assert FACT in app.respond(QUESTION, **at).output_text
    world.drain()
    swept(world)

    answer = app.respond(QUESTION, previous_response_id=other.id, model="gpt-4o")

    assert FACT in answer.output_text
    assert recovered(answer) is None


@pytest.mark.parametrize("manner", ["stream", "background"])
def test_what_is_deleted_while_an_answer_is_made_is_not_missed(
    sync_world: World, manner: str
) -> None:
    world = sync_world
    app, at = talked(world, "conversation")
    listed = app.call("conversations.items.list", conversation_id=at["conversation"])
    (large,) = (one.id for one in listed.data if one.role == "user" and LONG in str(one.content))

    def delete() -> None:
        app.call("conversations.items.delete", item_id=large, conversation_id=at["conversation"])

    if manner == "stream":
        with app.sdk.responses.create(model=MODEL, input="Go on.", stream=True, **at) as events:
            next(iter(events))
            delete()
            assert [event.type for event in events][-1] == "response.completed"
    else:
        begun = app.respond("Go on.", background=True, **at)
        delete()
        while begun.status != "completed":
            begun = app.call("responses.retrieve", response_id=begun.id)
    answer = app.respond(QUESTION, **at)

    assert FACT in answer.output_text
    assert [] == world.recoveries


def test_a_store_that_fails_just_then_hands_the_answer_over_as_what_it_is(world: World) -> None:
    store = Refusing(world.store())
    app, at = talked(world, "conversation", store=store)
    world.provider.order(Fault("amnesia"))
    store.refused = {ops.MarkLost, ops.Discard}

    answer = app.respond(QUESTION, **at)

    assert KNOWS_NOTHING in answer.output_text
    assert "forgot" == (recovered(answer) or {})["reason"]
    store.refused = set()
    assert FACT in app.respond(QUESTION, **at).output_text


def test_a_warning_only(world: World) -> None:
    app, at = talked(world, "response", policy=perdure.Policy(on_amnesia="warn"))
    world.provider.order(Fault("amnesia"))

    answer = app.respond(QUESTION, **at)

    assert KNOWS_NOTHING in answer.output_text
    assert {"reason": "forgot", "memory": "none"}.items() <= (recovered(answer) or {}).items()


def test_off_means_off(world: World) -> None:
    app, at = talked(world, "response", policy=perdure.Policy(on_amnesia="off"))
    world.provider.order(Fault("amnesia"))

    assert recovered(app.respond(QUESTION, **at)) is None


def test_a_short_history_is_not_judged(world: World) -> None:
    app = world.app()
    first = app.respond(FACT)
    world.provider.order(Fault("amnesia"))

    assert recovered(app.respond(QUESTION, previous_response_id=first.id)) is None


# -- what is judged; how well, over many conversations, shows tests/test_amnesia_rates.py ----------


def counted(input_tokens: int, output: str = "message", **more: Any) -> amnesia.Counts:
    response = {"model": "m", "usage": {"input_tokens": input_tokens, **more}}
    return amnesia.counts_of(response, [{"type": output}])


def brought(body: bytes) -> amnesia.Brought:
    return amnesia.brought_by(read_body(body))


def test_a_history_that_was_cut_away_is_no_bound() -> None:
    body = brought(b'{"input": "Hello."}')
    cut = amnesia.counts_of({"model": "m", "truncation": "auto", "usage": {"input_tokens": 9}}, [])

    assert amnesia.remembered(Remembered(5_000, 0, "m"), body, cut) is None


def test_a_server_that_counts_cached_tokens_apart_has_not_forgotten() -> None:
    body = brought(b'{"input": "Hello."}')
    before = Remembered(5_000, 0, "m")
    apart = {"input_tokens": 40, "input_tokens_details": {"cached_tokens": 4_990}}
    gone = {"input_tokens": 40, "input_tokens_details": {"cached_tokens": 0}}

    found = [
        amnesia.judge(before, body, amnesia.counts_of({"model": "m", "usage": usage}, []))
        for usage in (apart, gone)
    ]

    assert ["unjudged", "forgot"] == found


def test_a_provider_that_is_known_to_count_cached_tokens_in_has_forgotten() -> None:
    body = brought(b'{"input": "Hello."}')
    usage = {"input_tokens": 2_010, "input_tokens_details": {"cached_tokens": 1_920}}
    response = {"model": "m", "usage": usage}

    found = [
        amnesia.judge(Remembered(5_000, 0, "m"), body, amnesia.counts_of(response, [], upstream))
        for upstream in ("https://api.openai.com/v1", "https://server.example/v1")
    ]

    assert ["forgot", "unjudged"] == found


def test_instructions_that_stay_the_same_need_not_be_known() -> None:
    call = {"input": "Hello.", "instructions": "Be brief. " * 200}
    body = brought(json.dumps(call).encode())
    before = amnesia.remembered(None, body, counted(2_500, output_tokens=100))

    assert before is not None
    assert 0 < before.tokens < 2_600 - 600, "two words and a full stop, 200 times"
    found = [amnesia.judge(before, body, counted(tokens)) for tokens in (2_505, 620, 1_600)]
    assert ["remembers", "forgot", "unjudged"] == found
    other = brought(b'{"input": "Hello.", "instructions": "Be long."}')
    found = [amnesia.judge(before, other, counted(tokens)) for tokens in (800, 670, 40)]
    assert ["remembers", "unjudged", "forgot"] == found


def test_every_digit_of_the_instructions_may_be_a_token() -> None:
    digits = brought(json.dumps({"instructions": "7 1 4 2 8 5 " * 500}).encode())
    before = amnesia.remembered(None, digits, counted(6_000 + 400))
    none = brought(b'{"input": "Hello."}')

    assert "forgot" != amnesia.judge(before, none, counted(405))


SEARCH = {"type": "web_search"}
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"prompt": {"id": "pmpt_1", "version": "2"}}, {}),
        ({"prompt": {"id": "pmpt_1", "version": "2"}}, {"prompt": {"id": "p", "version": "3"}}),
        ({"prompt": {"id": "pmpt_1"}}, {"prompt": {"id": "pmpt_1"}}),
        ({"tools": [SEARCH]}, {}),
        ({"tools": [SEARCH, LOOK]}, {"tools": [LOOK]}),
        ({"tools": [{"type": "mcp", "server_label": "a"}]}, None),
        ({}, {"truncation": "auto"}),
        ({"truncation": "auto"}, {}),
    ],
)
def test_what_a_call_does_not_show_of_its_size_is_not_judged(
    first: dict[str, Any], then: dict[str, Any] | None
) -> None:
    """A stored prompt, a server's own tools; a server need not echo that it may cut the input."""
    before = amnesia.remembered(None, brought(json.dumps(first).encode()), counted(3_000))
    after = brought(json.dumps(first if then is None else then).encode())

    assert "unjudged" == amnesia.judge(before, after, counted(40))


@pytest.mark.parametrize(
    "fixed", [{"prompt": {"id": "pmpt_1", "version": "2"}}, {"tools": [SEARCH]}, {"tools": [LOOK]}]
)
def test_what_is_hidden_but_stays_the_same_need_not_be_known(fixed: dict[str, Any]) -> None:
    body = brought(json.dumps(fixed).encode())
    before = amnesia.remembered(None, body, counted(5_000))

    assert "forgot" == amnesia.judge(before, body, counted(1_500))
    assert "remembers" == amnesia.judge(before, body, counted(5_010))


def test_a_long_message_does_not_stand_for_the_history() -> None:
    before = Remembered(1_400, 0, "m")
    text = "word " * 1_000
    said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": text}]}

    for sent in (text, [said], [{"type": "function_call_output", "output": text}]):
        assert "forgot" == amnesia.judge(
            before, brought(json.dumps({"input": sent}).encode()), counted(1_020)
        )
    for sent in ("word", [thought]):  # the provider may leave out what others have thought
        assert "forgot" != amnesia.judge(
            before, brought(json.dumps({"input": sent}).encode()), counted(1_020)
        )


@pytest.mark.parametrize("sent_again", [True, False])
def test_what_the_log_has_already_is_no_part_of_what_is_sent(
    world: World, *, sent_again: bool
) -> None:
    """An app that sends what it added to a conversation once more: it is not sent on."""
    app = world.app()
    at = {"conversation": app.call("conversations.create").id}
    app.respond(FACT, **at)
    world.forgets(at["conversation"])
    note = {"type": "message", "role": "user", "content": LONG}
    (added,) = app.call(
        "conversations.items.create", conversation_id=at["conversation"], items=[note]
    ).data
    app.respond("Go on.", **at)
    world.recoveries.clear()

    asked = {"type": "message", "role": "user", "content": QUESTION}
    known = [note | {"id": added.id}] if sent_again else []
    answer = app.call("responses.create", model="gpt-5.6", input=[*known, asked], **at)

    assert FACT in answer.output_text
    assert [] == world.recoveries


def test_what_a_providers_own_tool_has_found_is_no_part_of_the_history() -> None:
    """It is counted as input while the tool is at work, and never again."""
    body = brought(b'{"input": "Hello."}')
    assert amnesia.remembered(None, body, counted(9_000, "web_search_call")) is None
    before = Remembered(5_000, 0, "m")
    assert "unjudged" == amnesia.judge(before, body, counted(9_000, "web_search_call"))


def test_reasoning_that_another_model_has_counted_is_no_bound() -> None:
    """A run of calls goes on under another model: how it counts the reasoning is not known."""
    output = {"type": "function_call_output", "call_id": "call_1", "output": "x"}
    body = brought(json.dumps({"input": [output]}).encode())
    assert amnesia.remembered(Remembered(100, 3_000, "n"), body, counted(4_000)) is None
    assert amnesia.remembered(Remembered(100, 3_000, "m"), body, counted(4_000)) == Remembered(
        1_000, 0, "m"
    )
    assert amnesia.remembered(Remembered(100, 0, "n"), body, counted(4_000)) is not None


def test_items_that_are_added_leave_the_bound_standing(world: World) -> None:
    app, at = talked(world, "conversation")
    notes = [{"type": "message", "role": "user", "content": "By the way."}]
    app.call("conversations.items.create", conversation_id=at["conversation"], items=notes)
    world.provider.order(Fault("amnesia"))

    answer = app.respond(QUESTION, **at)

    assert FACT in answer.output_text
    assert {"reason": "forgot", "memory": "full"}.items() <= (recovered(answer) or {}).items()


def emptied(world: World, conversation: str, *, keep: int = 0) -> None:
    """Somebody deletes a conversation's items by another way than through us."""
    plain = world.plain()
    listed = plain.call("conversations.items.list", conversation_id=conversation, limit=100)
    for item in listed.data[: len(listed.data) - keep]:
        plain.call("conversations.items.delete", item_id=item.id, conversation_id=conversation)
    world.provider.clear_requests()


@pytest.mark.parametrize("policy", ["rebuild", "warn", "off"])
def test_a_list_that_has_collapsed_is_answered_as_the_policy_says(
    world: World, policy: Any
) -> None:
    app, at = talked(world, "conversation", policy=perdure.Policy(on_amnesia=policy))
    emptied(world, at["conversation"])

    listed = app.call("conversations.items.list", conversation_id=at["conversation"])

    assert {"rebuild": 4, "warn": 0, "off": 0}[policy] == len(listed.data)
    assert {"rebuild": "forgot", "warn": "forgot", "off": None}[policy] == (
        recovered(listed) or {}
    ).get("reason")
    assert 1 == len(world.asked())


def test_a_collapsed_conversation_is_rebuilt_by_the_next_turn(world: World) -> None:
    app, at = talked(world, "conversation")
    emptied(world, at["conversation"])
    app.call("conversations.items.list", conversation_id=at["conversation"])
    world.provider.clear_requests()

    answer = app.respond(QUESTION, **at)

    assert FACT in answer.output_text
    assert [("POST conversations", 200), ("POST responses", 200)] == world.asked()


@pytest.mark.parametrize("query", [{"limit": 2}, {"order": "asc", "limit": 3}])
def test_a_page_of_a_list_is_no_collapse(world: World, query: dict[str, Any]) -> None:
    app, at = talked(world, "conversation")

    listed = app.call("conversations.items.list", conversation_id=at["conversation"], **query)

    assert query["limit"] == len(listed.data)
    assert recovered(listed) is None


def test_one_item_deleted_elsewhere_is_no_collapse(world: World) -> None:
    app, at = talked(world, "conversation")
    emptied(world, at["conversation"], keep=3)

    listed = app.call("conversations.items.list", conversation_id=at["conversation"])

    assert (3, None) == (len(listed.data), recovered(listed))


# -- a collapse that we see ourselves ----------------------------------------------------------


def only_the_newest(world: World, conversation: str, keep: int) -> None:
    """A provider cuts a conversation's older items off, without a word."""
    held = world.provider.state.conversations[conversation]
    held.items = held.items[-keep:]
    world.provider.clear_requests()


def test_a_collapse_is_noticed_where_a_lost_answer_is_looked_for(world: World) -> None:
    app = world.app()
    at = {"conversation": app.call("conversations.create").id}
    for message in (FACT, "One.", "Two.", "Three."):
        app.respond(message, **at)
    only_the_newest(world, at["conversation"], 1)
    world.provider.order(Fault("answer_lost", match="POST /responses"))
    with pytest.raises(openai.APIConnectionError):
        app.respond("Four.", **at)

    answer = app.respond(QUESTION, **at)

    assert FACT in answer.output_text
    assert ["forgot", "known"] == [recovery.reason for recovery in world.recoveries]
    assert {"memory": "full", "items_primed": 10}.items() <= (recovered(answer) or {}).items()
    assert [
        ("POST responses", None),
        ("GET conversations/conv/items", 200),
        ("POST conversations", 200),
        ("POST responses", 200),
    ] == world.asked()
    assert [("Four.",), ("Noted: Four.",)] == world.rows(
        "SELECT json_extract(COALESCE(input, wire), '$.content') FROM perdure_item "
        "WHERE position IN (9, 10)"
    ), "its answer counts, since it was given"


@pytest.mark.parametrize("policy", ["warn", "off"])
def test_a_collapse_that_is_only_told_of_changes_nothing(world: World, policy: Any) -> None:
    app = world.app(policy=perdure.Policy(on_amnesia=policy))
    at = {"conversation": app.call("conversations.create").id}
    for message in (FACT, "One.", "Two.", "Three."):
        app.respond(message, **at)
    only_the_newest(world, at["conversation"], 1)
    world.provider.order(Fault("answer_lost", match="POST /responses"))
    with pytest.raises(openai.APIConnectionError):
        app.respond("Four.", **at)

    answer = app.respond(QUESTION, **at)

    assert KNOWS_NOTHING in answer.output_text
    assert (["forgot"] if policy == "warn" else []) == [told.reason for told in world.recoveries]


def thread_of(world: World, app: Any, messages: int) -> tuple[str, str]:
    thread, assistant = app.thread()
    for number in range(messages):
        app.say(thread, assistant, FACT if number == 0 else f"Note {number}.")
    return thread, assistant


def thin_out(world: World, thread: str, keep: int) -> None:
    """Somebody deletes a thread's oldest messages by another way than through us."""
    held = world.provider.state.threads[thread].messages
    for message_id in list(held)[: len(held) - keep]:
        del held[message_id]


def unread_run(app: Any, thread: str, assistant: str, message: str) -> None:
    app.call("beta.threads.messages.create", thread_id=thread, role="user", content=message)
    app.call("beta.threads.runs.create_and_poll", thread_id=thread, assistant_id=assistant)


@pytest.mark.parametrize("generation", [0, 1])
@pytest.mark.parametrize("keep", [0, 2], ids=["reply gone", "reply there"])
def test_a_collapse_is_noticed_where_a_reply_is_read(
    world: World, generation: int, keep: int
) -> None:
    app = world.app()
    thread, assistant = thread_of(world, app, 3)
    for _ in range(generation):
        world.forgets(thread)
        for number in range(3):
            app.say(thread, assistant, f"Later {number}.")
    unread_run(app, thread, assistant, "Unread.")
    ((live,),) = world.rows("SELECT replica_handle FROM perdure_conversation")
    thin_out(world, live, keep)
    world.provider.clear_requests()
    world.recoveries.clear()

    posted = app.call(
        "beta.threads.messages.create", thread_id=thread, role="user", content=QUESTION
    )

    assert ["forgot", "known"] == [recovery.reason for recovery in world.recoveries]
    said = 6 + 6 * generation + 1 + keep // 2
    told = recovered(posted) or {}
    assert (said, "full" if keep else "partial") == (told["items_primed"], told["memory"])
    assert [
        ("GET threads/thread/messages", 200),
        ("POST threads", 200),
        ("POST threads/thread/messages", 200),
    ] == world.asked()


@pytest.mark.parametrize("generation", [0, 1])
def test_a_message_deleted_elsewhere_is_no_collapse_of_a_thread(
    world: World, generation: int
) -> None:
    app = world.app()
    thread, assistant = thread_of(world, app, 3)
    if generation:  # from here on the provider has other ids for what was said before
        world.forgets(thread)
    unread_run(app, thread, assistant, "Unread.")
    ((live,),) = world.rows("SELECT replica_handle FROM perdure_conversation")
    thin_out(world, live, 7)
    world.recoveries.clear()

    posted = app.call(
        "beta.threads.messages.create", thread_id=thread, role="user", content=QUESTION
    )

    assert (None, []) == (recovered(posted), world.recoveries)


def test_a_rebuilt_conversation_has_not_collapsed(world: World) -> None:
    app = world.app()
    at = {"conversation": app.call("conversations.create").id}
    for message in (FACT, "One.", "Two."):
        app.respond(message, **at)
    world.forgets()
    app.respond("Three.", **at)
    world.recoveries.clear()
    world.provider.order(Fault("answer_lost", match="POST /responses"))
    with pytest.raises(openai.APIConnectionError):
        app.respond("Four.", **at)

    answer = app.respond(QUESTION, **at)

    assert FACT in answer.output_text
    assert (None, []) == (recovered(answer), world.recoveries)


@pytest.mark.parametrize("others", [0, 25], ids=["", "others wrote more than a page"])
def test_a_long_thread_is_read_by_the_newest_page(world: World, others: int) -> None:
    app = world.app()
    thread, assistant = thread_of(world, app, 12)
    unread_run(app, thread, assistant, "Unread.")
    for number in range(others):
        world.plain().call(
            "beta.threads.messages.create", thread_id=thread, role="user", content=f"{number}"
        )
    world.provider.clear_requests()

    app.call("beta.threads.messages.create", thread_id=thread, role="user", content=QUESTION)

    reads = [("GET threads/thread/messages", 200)] * (2 if others else 1)
    assert [*reads, ("POST threads/thread/messages", 200)] == world.asked()
    assert [("Unread.",), ("Noted: Unread.",)] == world.rows(
        "SELECT json_extract(input, '$.content') FROM perdure_item "
        "WHERE position IN (25, 26) ORDER BY position"
    )


def long_ago(world: World, items: int) -> str:
    """A conversation made without us."""
    plain = world.plain()
    conversation = str(plain.call("conversations.create").id)
    for first in range(0, items, 20):
        notes = [
            {"type": "message", "role": "user", "content": FACT if n == 0 else f"Note {n}."}
            for n in range(first, min(first + 20, items))
        ]
        plain.call("conversations.items.create", conversation_id=conversation, items=notes)
    return conversation


def half_adopted(world: World, app: Any, conversation: str) -> None:
    """The first page of the history is copied, then the server fails."""
    fail_the_second_page(world)
    app.respond("Hello.", conversation=conversation)
    world.drain()
    assert [(101,)] == world.rows("SELECT count(*) FROM perdure_item")


def fail_the_second_page(world: World) -> None:
    seen: list[Any] = []
    take = world.provider.state.faults.take

    def taken(request: Any) -> Any:
        seen.append(request)
        lists = [one for one in seen if one.method == "GET" and one.path.endswith("/items")]
        if request in lists and len(lists) == 2:
            return [Fault("status", status=500)]
        return take(request)

    world.provider.state.faults.take = taken  # type: ignore[method-assign]


def test_an_adoption_that_was_interrupted_is_taken_up_again(world: World) -> None:
    conversation = long_ago(world, 250)
    app = world.app()
    half_adopted(world, app, conversation)
    app.respond("At once.", conversation=conversation)
    world.drain()
    assert [(103,)] == world.rows("SELECT count(*) FROM perdure_item"), "it is somebody's yet"
    world.clock.advance(61)
    world.provider.clear_requests()

    app.respond("Later.", conversation=conversation)
    world.drain()

    assert [("POST responses", 200)] + [("GET conversations/conv/items", 200)] * 2 == world.asked()
    world.forgets(conversation)
    answer = app.respond(QUESTION, conversation=conversation)
    assert FACT in answer.output_text
    assert {"memory": "full", "items_primed": 256}.items() <= (recovered(answer) or {}).items()
    world.provider.clear_requests()
    app.respond("And on.", conversation=conversation)
    world.drain()
    assert [("POST responses", 200)] == world.asked(), "it is done"


def test_a_collapse_is_noticed_where_an_adoption_is_taken_up_again(world: World) -> None:
    conversation = long_ago(world, 250)
    app = world.app()
    half_adopted(world, app, conversation)
    only_the_newest(world, conversation, 10)
    world.clock.advance(61)
    # By another model, whose count of tokens cannot be compared: nothing else shows the collapse.
    app.respond("Later.", conversation=conversation, model="gpt-4o")
    world.drain()

    answer = app.respond(QUESTION, conversation=conversation)

    assert ["forgot", "known"] == [recovery.reason for recovery in world.recoveries]
    assert {"memory": "partial", "items_primed": 103}.items() <= (recovered(answer) or {}).items()
    world.clock.advance(61)
    world.provider.clear_requests()
    app.respond("And on.", conversation=conversation)
    world.drain()
    assert [("POST responses", 200)] == world.asked(), "there is nothing more to be had"


def test_a_server_that_lists_nothing_is_asked_once(world: World) -> None:
    conversation = long_ago(world, 5)
    app = world.app()
    world.provider.order(
        Fault("status", status=404, match="GET /conversations/[^/]*/items", times=None)
    )
    for _ in range(3):
        app.respond("Hello.", conversation=conversation)
        world.drain()
        world.clock.advance(61)

    assert 1 == sum(path.endswith("/items") and status == 404 for path, status in world.asked())
    world.forgets(conversation)
    answer = app.respond(QUESTION, conversation=conversation)
    assert "partial" == (recovered(answer) or {})["memory"]
