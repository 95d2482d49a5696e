"""A 200 that is no answer: nothing counts as said, nothing as remembered, and nothing is lost."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

import perdure
from perdure.cli import main
from perdure.dialects.shapes import is_response
from perdure.errors import NoAnswer
from tests.gateway import JSON, Gateway, Own, gateway_to
from tests.world import App, World, recovered

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
OVERLOADED: Own = (200, JSON, b'{"error": {"message": "upstream overloaded", "code": null}}')
PAGE: Own = (200, "text/html", b"<html>Please log in to the wifi</html>")
NONE: dict[str, Own] = {
    "an error": OVERLOADED,
    "an error as text": (200, JSON, b'{"error": "upstream overloaded"}'),
    "a page": PAGE,
    "nothing": (200, "", b""),
    "no content": (204, "", b""),
    "a list": (200, JSON, b"[]"),
    "null": (200, JSON, b"null"),
    "half of it": (200, JSON, b'{"id": "resp_1", "output": ['),
    "no output": (200, JSON, b'{"id": "resp_1", "status": "completed"}'),
    "an output of texts": (200, JSON, b'{"id": "resp_1", "status": "completed", "output": ["hi"]}'),
    "a number for an id": (200, JSON, b'{"id": 5, "status": "completed", "output": []}'),
}
none = pytest.mark.parametrize("own", NONE.values(), ids=NONE)
_FEW = ("an error", "a page", "nothing", "an output of texts")
few = pytest.mark.parametrize("own", [NONE[name] for name in _FEW], ids=_FEW)


def behind(gateway: Gateway, app: App) -> App:
    """The app, with the gateway in front of its provider."""
    app.sdk.base_url = gateway.base_url
    return app


def states(world: World) -> list[str]:
    return [row[0] for row in world.rows("SELECT state FROM perdure_turn ORDER BY seq")]


# -- what counts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
@none
def test_what_is_no_answer_primes_nothing(
    world: World, gateway: Gateway, own: Own, *, streamed: bool
) -> None:
    app = behind(gateway, world.app())
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    world.forgets(conversation)
    app.call("conversations.retrieve", conversation_id=conversation)  # it is made anew, and empty
    gateway.order("POST /responses", own)

    with suppress(Exception):  # whatever the SDK makes of it
        (app.stream if streamed else app.respond)("Say hi.", conversation=conversation)

    assert not gateway.waits
    assert ["answered", "unknown"] == states(world)
    assert FACT in app.respond(QUESTION, conversation=conversation).output_text


@few
def test_a_turn_that_got_no_answer_gets_one_when_it_is_sent_again(
    world: World, gateway: Gateway, own: Own
) -> None:
    app = behind(gateway, world.app())
    first = app.respond(FACT)
    header = {"Perdure-Turn": "turn-1"}
    asked = {"previous_response_id": first.id, "extra_headers": header}
    gateway.order("POST /responses", own)
    with suppress(Exception):
        app.respond(QUESTION, **asked)

    assert FACT in app.respond(QUESTION, **asked).output_text
    assert [("user",), ("assistant",)] * 2 == world.rows(
        "SELECT role FROM perdure_item ORDER BY position"
    )


@none
def test_the_sdk_sees_of_it_what_it_sees_without_us(
    world: World, gateway: Gateway, own: Own
) -> None:
    seen = []
    for app in (world.plain(), world.app()):
        behind(gateway, app)
        gateway.order("POST /responses", own)
        answer = app.call("responses.with_raw_response.create", model="m", input=FACT)
        headers = {key for key in answer.headers if key != "date"}
        seen.append((answer.http_response.status_code, headers, answer.http_response.content))

    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    "shown",
    [
        {"id": "resp_1", "output": []},
        {"output": [{"type": "message"}]},
        {"id": "resp_1", "status": "queued"},
        {"id": "resp_1", "status": "failed", "error": {"message": "boom"}, "output": None},
    ],
)
def test_a_response_of_few_words_is_one(shown: dict[str, Any]) -> None:
    assert is_response(shown)


# -- what it tells --------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
def test_a_loss_told_in_a_success_is_recovered(
    world: World, gateway: Gateway, *, streamed: bool
) -> None:
    app = behind(gateway, world.app())
    first = app.respond(FACT)
    world.forgets(first.id)
    told = f'{{"error": {{"message": "Previous response with id \'{first.id}\' not found."}}}}'
    gateway.order("POST /responses", (200, JSON, told.encode()))

    ask = app.stream if streamed else app.respond
    answer = ask(QUESTION, previous_response_id=first.id)

    assert FACT in answer.output_text
    assert "full" == (recovered(answer) or {})["memory"]


def test_an_error_that_no_rule_knows_is_probed(world: World, gateway: Gateway) -> None:
    app = behind(gateway, world.app())
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    world.forgets(conversation)
    gateway.order("POST /responses", OVERLOADED)

    assert FACT in app.respond(QUESTION, conversation=conversation).output_text
    assert ("GET conversations/conv", 404) in world.asked()


def test_a_page_in_the_place_of_an_answer_is_not_probed(world: World, gateway: Gateway) -> None:
    app = behind(gateway, world.app())
    conversation = app.call("conversations.create").id
    world.provider.clear_requests()
    gateway.order("POST /responses", PAGE)

    app.respond(FACT, conversation=conversation)

    assert [] == world.asked()


@pytest.mark.parametrize(
    ("verdict", "state"), [("gone", "answered"), ("foreign", "failed"), ("ambiguous", "unknown")]
)
def test_a_rule_of_the_owners_decides_about_a_success(
    world: World, gateway: Gateway, verdict: str, state: str
) -> None:
    rule = f'[[rule]]\nname = "mine"\nverdict = "{verdict}"\nstatus = [200]\nmessage = "log in"\n'
    app = behind(gateway, world.app(policy=perdure.Policy(verdict_rules=rule)))
    first = app.respond(FACT)
    gateway.order("POST /responses", PAGE)

    app.respond(QUESTION, previous_response_id=first.id)

    assert state == states(world)[-1]


def test_an_error_to_a_call_that_is_not_stored_is_a_loss_too(
    world: World, gateway: Gateway
) -> None:
    app = behind(gateway, world.app())
    first = app.respond(FACT)
    world.forgets(first.id)
    gateway.order("POST /responses", OVERLOADED)

    answer = app.respond(QUESTION, previous_response_id=first.id, store=False)

    assert FACT in answer.output_text


# -- threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["messages", "runs"])
@pytest.mark.parametrize("name", ["an error", "a page", "nothing", "a number for an id"])
def test_what_is_done_on_a_thread_is_unknown_likewise(
    world: World, gateway: Gateway, name: str, route: str
) -> None:
    app = behind(gateway, world.app())
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    gateway.order(f"POST /threads/{thread}/{route}", NONE[name])

    with suppress(Exception):
        app.say(thread, assistant, "Say hi.")

    assert not gateway.waits
    assert "unknown" in states(world) or route == "messages"  # the run has settled it
    assert FACT in app.say(thread, assistant, QUESTION)


# -- Chat -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("via", ["responses", "conversations"])
@none
def test_chat_says_what_kind_of_thing_was_answered(
    world: World, gateway: Gateway, own: Own, via: str
) -> None:
    chat = world.chat(via=via)
    chat.chat.client.base_url = gateway.base_url
    chat.send("user-42", FACT)
    gateway.order("POST /responses", own)

    if own[2] == NONE["a number for an id"][2]:
        assert "" == chat.send("user-42", "Say hi.").text
    else:
        with pytest.raises(NoAnswer, match="answered with a success, but with") as caught:
            chat.send("user-42", "Say hi.")
        assert not any(word in str(caught.value) for word in ("overloaded", "wifi", "resp_1"))

    assert FACT in chat.send("user-42", QUESTION).text


@few
def test_a_chat_that_streams_says_so_too(world: World, gateway: Gateway, own: Own) -> None:
    chat = world.chat()
    chat.chat.client.base_url = gateway.base_url
    gateway.order("POST /responses", own)

    with pytest.raises(NoAnswer, match="in the place of a stream of events"):
        chat.stream("user-42", FACT)

    assert ["unknown"] == states(world)


@pytest.mark.parametrize("route", ["messages", "runs"])
@pytest.mark.parametrize("own", [OVERLOADED, PAGE])
def test_a_chat_on_threads_says_so_too(
    world: World, gateway: Gateway, own: Own, route: str
) -> None:
    assistant = world.plain().call("beta.assistants.create", model="gpt-5.6").id
    chat = world.chat(via="threads", assistant_id=assistant)
    chat.chat.client.base_url = gateway.base_url
    chat.send("user-42", FACT)
    gateway.order(f"POST /threads/[^/]+/{route}", own)

    if route == "runs":
        with pytest.raises(NoAnswer, match="in the place of a run"):
            chat.send("user-42", "Say hi.")
    else:
        chat.send("user-42", "Say hi.")

    assert FACT in chat.send("user-42", QUESTION).text


# -- perdure doctor -------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [OVERLOADED, PAGE, NONE["nothing"]])
def test_doctor_does_not_take_it_for_an_answer(
    sync_world: World, own: Own, capsys: pytest.CaptureFixture[str]
) -> None:
    with gateway_to(sync_world.provider.base_url) as gateway:
        gateway.order("POST /responses", own, once=False)
        with pytest.raises(SystemExit) as ended:
            main(["doctor", "--base-url", gateway.base_url, "--api-key", "key"])

    told = capsys.readouterr().out
    assert "it answers, from an empty history" not in told
    assert 1 == ended.value.code or "gone (no rule; reading the handle tells" in told
