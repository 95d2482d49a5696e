"""Whoever sits on the OpenAI SDK recovers without a change of theirs."""

from __future__ import annotations

import openai
import pytest

from tests.frameworks.site import Site
from tests.frameworks.ways import EACH, WAYS

FACT = "My dog is called Rex."
OTHER_FACT = "My cat is called Tom."
QUESTION = "What is my dog called?"
OTHER_QUESTION = "What is my cat called?"
PARCEL = "The parcel number is 4711."
PARCEL_QUESTION = "What is the parcel number?"
SDK_RAISES = {"conversation": openai.NotFoundError, "response": openai.BadRequestError}


# openai-agents' run_sync shuts down the loop's generators after each run and goes on using it.
pytestmark = pytest.mark.filterwarnings(
    "ignore:asynchronous generator .* was scheduled after:ResourceWarning"
)


every_way = pytest.mark.parametrize(
    ("name", "style"), [pytest.param(*each, id=", ".join(each)) for each in EACH]
)


@pytest.mark.parametrize("site", [False], ids=["bare"], indirect=True)
@every_way
def test_before_the_same_code_raises(site: Site, name: str, style: str) -> None:
    app = WAYS[name](site, style)
    app.say(FACT)
    assert FACT in app.say(QUESTION)
    site.loses(app.handle)

    with pytest.raises(
        app.raises or SDK_RAISES[app.keeps],
        match=r"Previous response .* not found|Conversation .* not found",
    ):
        app.say(QUESTION)

    assert 0 == site.answers()


@every_way
def test_a_loss_ends_in_one_answered_turn_that_knows_everything(
    site: Site, name: str, style: str
) -> None:
    app = WAYS[name](site, style)
    replies = {message: app.say(message) for message in (FACT, OTHER_FACT)}
    handle = app.handle
    assert handle.startswith({"conversation": "conv_", "response": "resp_"}[app.keeps])
    site.loses(handle)

    replies[QUESTION] = app.say(QUESTION)

    assert FACT in replies[QUESTION]
    assert 1 == site.answers()
    assert [] == site.unanswered()
    assert [
        line for said, reply in replies.items() for line in (("user", said), ("assistant", reply))
    ] == site.transcript(handle)


@every_way
def test_a_recovery_is_told_once(site: Site, name: str, style: str) -> None:
    app = WAYS[name](site, style)
    app.say(FACT)
    handle = app.handle
    site.loses(handle)

    app.say(QUESTION)

    # A session reads its items and sends them itself: the new replica is given nothing.
    memory = "none" if "Session" in name and "session" not in name else "full"
    assert [("gone", memory, handle)] == [
        (told.reason, told.memory, told.lost_handle) for told in site.recoveries
    ]


@every_way
def test_the_talk_goes_on_after_a_recovery(site: Site, name: str, style: str) -> None:
    app = WAYS[name](site, style)
    replies = {message: app.say(message) for message in (FACT, OTHER_FACT)}
    handle = app.handle
    site.loses(handle)
    replies[QUESTION] = app.say(QUESTION)
    site.provider.clear_requests()

    replies[OTHER_QUESTION] = app.say(OTHER_QUESTION)

    assert OTHER_FACT in replies[OTHER_QUESTION]
    assert 1 == site.answers()
    assert [
        line for said, reply in replies.items() for line in (("user", said), ("assistant", reply))
    ] == site.transcript(handle)


@every_way
def test_what_a_tool_said_is_known_after_everything_was_lost(
    site: Site, name: str, style: str
) -> None:
    app = WAYS[name](site, style, tool=tell)
    assert PARCEL in app.say("call tell")
    site.loses(None)

    assert PARCEL in app.say(PARCEL_QUESTION)

    assert 1 == site.answers()
    assert [] == site.unanswered()


@every_way
def test_a_loss_between_a_tool_call_and_its_output(site: Site, name: str, style: str) -> None:
    def tell() -> str:
        """Tell, while the provider loses the conversation."""
        site.loses(app.handle if app.keeps == "conversation" else None)
        return PARCEL

    app = WAYS[name](site, style, tool=tell)
    app.say(FACT)

    assert PARCEL in app.say("call tell")

    assert 1 == site.answers()
    assert [] == site.unanswered()


@every_way
def test_a_recovered_turn_may_call_a_tool(site: Site, name: str, style: str) -> None:
    app = WAYS[name](site, style, tool=tell)
    app.say(FACT)
    site.loses(app.handle)

    assert PARCEL in app.say("call tell")

    assert 2 == site.answers()
    assert [] == site.unanswered()


def tell() -> str:
    """Tell."""
    return PARCEL
