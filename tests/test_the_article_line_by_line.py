"""The article's advice on dead thread ids, as tests: what it asks for, and what it cannot do.

Its parts: fail fast and recover (do not ask before each message, react to the failure), a lazy
check before costly work, priming the new thread, and a recipe for testing all that.
"""

from __future__ import annotations

import subprocess
import sys

import openai
import pytest

from perdure.testing.provider import KNOWS_NOTHING
from tests.world import LONG, MODEL, World, recovered

pytestmark = pytest.mark.slow

FACT = "My sister Ada lives in Porto."
QUESTION = "Where does my sister Ada live?"

# Another process with a plain client: a colleague, a dashboard, a clean-up job.
_DELETE = """
import sys, openai
client = openai.OpenAI(api_key="sk-test", base_url=sys.argv[1])
kind, handle = sys.argv[2:]
if kind == "thread": client.beta.threads.delete(handle)
if kind == "conv": client.conversations.delete(handle)
if kind == "resp": client.responses.delete(handle)
"""


def delete_elsewhere(world: World, handle: str) -> None:
    """Delete an object with a plain client in another process, then let some time pass."""
    kind = handle.partition("_")[0]
    command = [sys.executable, "-W", "ignore", "-c", _DELETE]
    subprocess.run([*command, world.provider.base_url, kind, handle], check=True, timeout=60)
    world.clock.advance(LONG)
    world.provider.clear_requests()


def replica_in_database(world: World) -> str:
    """The id of the provider's copy as the database has it."""
    return str(
        world.rows(
            "SELECT replica_handle FROM perdure_conversation WHERE replica_state = 'live' "
            "ORDER BY last_position DESC"
        )[0][0]
    )


def test_what_happens_today(world: World) -> None:
    """Before: the bare SDK raises, and a new thread knows nothing."""
    app = world.plain()
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    delete_elsewhere(world, thread)

    with pytest.raises(openai.NotFoundError, match=f"No thread found with id '{thread}'"):
        app.call("beta.threads.messages.create", thread_id=thread, role="user", content=QUESTION)

    fresh = app.call("beta.threads.create").id
    assert KNOWS_NOTHING in app.say(fresh, assistant, QUESTION)


def test_fail_fast_and_recover(world: World) -> None:
    """No check before the message: the failure itself leads to the recovery, inside the call."""
    app = world.app()
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    delete_elsewhere(world, thread)

    message = app.call(
        "beta.threads.messages.create", thread_id=thread, role="user", content=QUESTION
    )

    assert thread != message.thread_id
    assert 3 == len(world.provider.requests)


def test_the_lazy_check(world: World) -> None:
    """One retrieve before costly work; it costs one call when all is well."""
    chat = world.chat(via="conversations")
    chat.send("user-42", FACT)
    world.provider.clear_requests()

    alive = chat.check("user-42")

    assert alive.alive
    assert [("GET conversations/conv", 200)] == world.asked()

    delete_elsewhere(world, alive.handle)
    lost = chat.check("user-42")

    assert not lost.alive
    assert lost.handle == alive.handle
    assert lost.replaced_by is not None
    world.provider.clear_requests()
    reply = chat.send("user-42", QUESTION)
    assert FACT in reply.text
    assert [("POST responses", 200)] == world.asked()


def test_re_priming(world: World) -> None:
    """The new thread is given the history when it is made: every message, in order, by role."""
    app = world.app()
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    app.say(thread, assistant, "I like green tea.")
    delete_elsewhere(world, thread)

    new = app.call(
        "beta.threads.messages.create", thread_id=thread, role="user", content=QUESTION
    ).thread_id

    held = [
        (message["role"], message["content"][0]["text"]["value"])
        for message in world.provider.messages(new)
    ]
    assert [
        ("user", FACT),
        ("assistant", f"Noted: {FACT}"),
        ("user", "I like green tea."),
        ("assistant", "Noted: I like green tea."),
        ("user", QUESTION),
    ] == held


@pytest.mark.parametrize("via", ["threads", "conversations", "responses"])
def test_its_recipe_for_testing(world: World, via: str) -> None:
    """Delete an active id elsewhere, call the message function, look into the database."""
    prefix = {"threads": "thread_", "conversations": "conv_", "responses": "resp_"}[via]
    options = {}
    if via == "threads":
        assistant = world.plain().call("beta.assistants.create", model=MODEL)
        options["assistant_id"] = assistant.id
    chat = world.chat(via=via, **options)
    chat.send("user-42", FACT)
    old = replica_in_database(world)
    delete_elsewhere(world, old)

    reply = chat.send("user-42", QUESTION)

    new = replica_in_database(world)
    assert new != old
    assert new.startswith(prefix)
    assert [(QUESTION,)] == world.rows(
        "SELECT json_extract(COALESCE(NULLIF(input, ''), wire), '$.content') FROM perdure_item "
        "WHERE role = 'user' ORDER BY position DESC LIMIT 1"
    )
    assert [("lost",)] == world.rows("SELECT state FROM perdure_handle WHERE handle = ?", old)
    # And what the article cannot do: nothing is forgotten.
    assert FACT in reply.text
    assert "full" == reply.recovery.memory


@pytest.mark.parametrize("via", ["conversations", "responses"])
def test_the_same_recipe_with_nothing_but_the_sdk(world: World, via: str) -> None:
    """An app that holds the ids itself: its own stored id goes on working."""
    app = world.app()
    if via == "conversations":
        handle = app.call("conversations.create").id
        app.respond(FACT, conversation=handle)
        keyword = {"conversation": handle}
    else:
        handle = app.respond(FACT).id
        keyword = {"previous_response_id": handle}
    delete_elsewhere(world, handle)

    with pytest.raises(openai.APIStatusError):
        world.plain().respond(QUESTION, **keyword)
    answer = app.respond(QUESTION, **keyword)

    assert FACT in answer.output_text
    assert handle == (recovered(answer) or {})["lost_handle"]


def test_deleting_through_perdure_is_not_a_loss(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    app.call("conversations.delete", conversation_id=conversation)

    with pytest.raises(openai.NotFoundError):
        app.respond(QUESTION, conversation=conversation)

    assert [] == world.recoveries
