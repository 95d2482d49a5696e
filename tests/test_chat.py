"""Chat: a user id in, a reply out, on any of the three APIs."""

from __future__ import annotations

from typing import Any

import openai
import pytest

import perdure
from perdure.errors import BadInput, ConfigurationError
from perdure.testing import Fault
from perdure.testing.provider import KNOWS_NOTHING
from perdure.transport import client as clients
from tests.world import MODEL, Blocking, World

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
VIAS = ["responses", "conversations", "threads"]
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
}


@pytest.fixture(params=VIAS)
def via(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def chat_of(world: World, via: str, **options: Any) -> Any:
    if via == "threads":
        tools = [
            {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}
            for tool in options.pop("tools", [])
        ]
        made = world.plain().call("beta.assistants.create", model=MODEL, tools=tools)
        options["assistant_id"] = made.id
    return world.chat(via=via, **options)


def test_a_conversation_needs_no_handle(world: World, via: str) -> None:
    chat = chat_of(world, via)

    first = chat.send("user-42", FACT)
    reply = chat.send("user-42", QUESTION)

    assert FACT in first.text
    assert FACT in reply.text
    assert reply.recovery is None
    assert reply.seq > first.seq
    assert reply.turn_id != first.turn_id
    assert reply.usage.total_tokens > 0
    assert KNOWS_NOTHING in chat.send("user-43", QUESTION).text


def test_a_lost_replica_is_visible_in_the_reply(world: World, via: str) -> None:
    chat = chat_of(world, via)
    chat.send("user-42", FACT)
    handle = chat.check("user-42").handle
    world.forgets()

    reply = chat.send("user-42", QUESTION)

    assert FACT in reply.text
    assert {"responses": 2, "conversations": 3, "threads": 3}[via] == reply.recovery.requests
    assert handle == reply.recovery.lost_handle
    assert "full" == reply.recovery.memory


def test_a_streamed_reply(world: World, via: str) -> None:
    chat = chat_of(world, via)
    chat.send("user-42", FACT)
    world.forgets()

    pieces, reply = chat.stream("user-42", QUESTION)

    assert len(pieces) > 1
    assert FACT in "".join(pieces)
    assert reply.text == "".join(pieces)
    assert "full" == reply.recovery.memory


def test_a_check_costs_one_retrieve(world: World, via: str) -> None:
    chat = chat_of(world, via)
    assert not chat.check("user-42").alive
    chat.send("user-42", FACT)
    world.provider.clear_requests()

    assert chat.check("user-42").alive

    assert 1 == len(world.asked())


def test_pinned_facts_are_told_to_every_new_replica(world: World, via: str) -> None:
    chat = chat_of(world, via)
    chat.send("user-42", FACT)
    assert 1 == chat.pin("user-42", "The user is allergic to penicillin.")
    assert 2 == chat.pin("user-42", "The user lives in Porto.")
    world.forgets()

    reply = chat.send("user-42", "Any allergy? Allergic to what?")

    assert "penicillin" in reply.text


def test_history_reads_like_the_conversation(world: World, via: str) -> None:
    chat = chat_of(world, via)
    chat.send("user-42", FACT)
    world.forgets()
    chat.send("user-42", QUESTION)

    entries = chat.history("user-42")

    assert [
        ("user", FACT),
        ("assistant", f"Noted: {FACT}"),
        ("user", QUESTION),
        ("assistant", FACT),
    ] == [(entry.role, entry.text) for entry in entries]
    assert [False, False, True] == [entry.recovery is not None for entry in entries[:3]]
    page = chat.history("user-42", limit=2, before=entries[2].position)
    assert entries[:2] == page
    assert entries[2:4] == chat.history("user-42", limit=2, after=entries[1].position)
    assert all(entry.tokens > 0 for entry in entries)
    assert () == chat.history("somebody else")


def test_a_users_past_can_be_searched(world: World, via: str) -> None:
    chat = chat_of(world, via)
    chat.send("user-42", FACT)
    chat.send("user-42", "I had soup for lunch.")
    chat.send("user-43", "My dog is called Bello.")

    found = chat.search("user-42", "the dog's name")

    assert {("user", FACT), ("assistant", f"Noted: {FACT}")} == {
        (hit.role, hit.text) for hit in found[:2]
    }
    assert all(hit.at > 0 for hit in found)
    assert all("soup" not in hit.text and "Bello" not in hit.text for hit in found)
    assert 1 == len(chat.search("user-42", "dogs", limit=1))
    assert () == chat.search("user-42", "zeppelin")
    assert () == chat.search("nobody", "dog")


def test_forgetting_erases_here_and_there(world: World, via: str) -> None:
    chat = chat_of(world, via)
    chat.send("user-42", FACT)
    chat.send("user-43", "My cat is called Tom.")
    handle = chat.check("user-42").handle

    receipt = chat.forget("user-42")

    assert 1 == receipt.conversations
    assert receipt.items >= 2
    assert handle in receipt.deleted
    assert () == receipt.not_deleted
    assert receipt.out_of_reach
    assert () == chat.history("user-42")
    assert () == chat.search("user-42", "dog")
    assert KNOWS_NOTHING in chat.send("user-42", QUESTION).text
    assert "Tom" in chat.send("user-43", "What is my cat called?").text
    orphaned = "SELECT 1 FROM perdure_{} t WHERE NOT EXISTS (SELECT 1 FROM perdure_conversation c "
    for table in ("item", "turn", "handle", "recovery", "milestone", "snapshot", "indexed"):
        query = orphaned.format(table) + "WHERE c.conversation = t.conversation)"
        assert [] == world.rows(query)


def test_nothing_forgotten_stays_in_the_files_or_at_the_provider(world: World) -> None:
    chat = world.chat("conversations", policy=perdure.Policy(summariser="extractive"))
    secret = "Zyxomorph-7345"
    handle = chat.send("user-42", f"My code word is {secret}.").response.conversation.id
    chat.send("user-43", "I like cheese.")
    assert 1 == len(chat.search("user-42", secret)[:1])
    kept = world.provider.items(handle)

    receipt = chat.forget("user-42")

    for file in world.database.parent.glob(f"{world.database.name}*"):
        content = file.read_bytes().lower()
        assert secret.lower().encode() not in content, file
        assert b"zyxomorph" not in content, file
    assert len(kept) == receipt.items_deleted
    assert receipt.indexed > 0
    deletes = [
        asked for asked, status in world.asked() if asked.startswith("DELETE") and status == 200
    ]
    assert ["DELETE conversations/conv/items/msg"] * len(kept) == deletes[: len(kept)]
    assert "DELETE conversations/conv" == deletes[len(kept)]


def test_a_delete_that_was_not_confirmed_is_named(world: World) -> None:
    chat = world.chat()
    chat.send("user-42", FACT)
    world.provider.order(Fault("status", status=500, match="DELETE /responses", times=None))

    receipt = chat.forget("user-42")

    assert 1 == len(receipt.not_deleted)
    assert list(zip(receipt.not_deleted, strict=True)) == world.rows(
        "SELECT handle FROM perdure_orphan WHERE deleted_at IS NULL"
    )


def test_tool_outputs_are_sent_as_items(world: World, via: str) -> None:
    options = {"tools": [WEATHER]}
    chat = chat_of(world, via, **options)
    chat.send("user-42", FACT)

    asked = chat.send("user-42", "What is the weather in Porto?")
    (call,) = asked.tool_calls
    answer = chat.send("user-42", call.output("It is sunny in Porto."))

    assert "get_weather" == call.name
    assert "sunny" in answer.text


def test_what_create_takes_is_passed_through(world: World) -> None:
    chat = world.chat(instructions="Be brief.", metadata={"app": "test"})

    chat.send("user-42", FACT, temperature=0.25)

    sent = world.provider.requests[0].json
    assert {
        "model": MODEL,
        "instructions": "Be brief.",
        "metadata": {"app": "test"},
        "temperature": 0.25,
    }.items() <= sent.items()


def test_a_conversation_can_move_to_another_api(world: World) -> None:
    world.chat(via="responses").send("user-42", FACT)
    on_conversations = world.chat(via="conversations").send("user-42", QUESTION)
    threads = chat_of(world, "threads")
    on_threads = threads.send("user-42", QUESTION)
    back = world.chat(via="responses").send("user-42", QUESTION)

    assert FACT in on_conversations.text
    assert FACT in on_threads.text
    assert FACT in back.text
    assert 8 == len(threads.history("user-42"))


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_thread_is_told_as_a_chat_moves_there_is_seen(
    sync_world: World, *, stream: bool
) -> None:
    world = sync_world
    before = world.chat(via="responses")
    for number in range(30):
        before.send("user-42", f"Fact number {number}, of trains, weather and the price of bread.")
    before.send("ann", FACT)
    threads = chat_of(world, "threads", policy=perdure.Policy(budget_tokens=300))
    assert [] == world.recoveries

    replies = [
        threads.stream(user, QUESTION)[1] if stream else threads.send(user, QUESTION)
        for user in ("user-42", "ann", "user-42")
    ]

    told = [reply.recovery for reply in replies]
    assert world.recoveries == told[:2]
    assert [("absent", "partial"), ("absent", "full")] == [
        (one.reason, one.memory) for one in told[:2]
    ]
    assert told[2] is None
    assert told[0].primed + told[0].left_out == 60
    assert [reply.turn_id for reply in replies[:2]] == [one.turn_id for one in told[:2]]
    assert told[1] == threads.history("ann")[-1].recovery


def test_somebody_new_on_threads_hears_of_no_recovery(world: World) -> None:
    assert chat_of(world, "threads").send("user-42", FACT).recovery is None
    assert [] == world.recoveries


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("lost", [False, True])
def test_tool_outputs_belong_to_the_turn_that_asked(
    world: World, *, lost: bool, stream: bool
) -> None:
    chat = chat_of(world, "threads", tools=[WEATHER])
    chat.send("user-42", FACT)
    asked = chat.send("user-42", "What is the weather in Porto?")
    (call,) = asked.tool_calls
    if lost:
        world.forgets()
    outputs = call.output("It is sunny in Porto.")

    reply = chat.stream("user-42", outputs)[1] if stream else chat.send("user-42", outputs)

    assert (asked.turn_id, asked.seq) == (reply.turn_id, reply.seq)
    assert reply.seq > 0
    assert ([reply.recovery] if lost else []) == world.recoveries
    if lost:
        assert "partial" == reply.recovery.memory
        (call,) = reply.tool_calls  # it was begun again
        reply = chat.send("user-42", call.output("It is sunny in Porto."))
        assert reply.recovery is None, "told of already"
    assert "sunny" in reply.text


@pytest.mark.parametrize("status", [410, 404])
def test_threads_that_are_switched_off_go_on_as_responses(world: World, status: int) -> None:
    chat = chat_of(world, "threads", fallback={"model": MODEL})
    chat.send("user-42", FACT)
    world.provider.order(Fault("api_off", prefix="/threads", status=status))
    world.provider.clear_requests()

    reply = chat.send("user-42", QUESTION)

    assert FACT in reply.text
    assert "full" == reply.recovery.memory
    assert [("POST threads/thread/messages", status), ("POST responses", 200)] == world.asked()
    assert FACT in chat.send("user-42", QUESTION).text
    assert 3 == len(world.asked())
    assert [FACT, QUESTION, QUESTION] == [
        entry.text
        for entry in chat.history("user-42")
        if entry.role == "user" and entry.state == "answered"
    ]


@pytest.mark.parametrize("status", [410, 404])
@pytest.mark.parametrize(
    "body",
    [
        {"detail": "Not Found"},
        {"error": {"code": "404", "message": "Resource not found"}},
        {"error": {"message": "The Assistants API was shut down on August 26, 2026."}},
    ],
    ids=["detail", "gateway", "text"],
)
def test_threads_that_are_switched_off_in_other_words(
    world: World, body: dict[str, Any], status: int
) -> None:
    chat = chat_of(world, "threads", fallback={"model": MODEL})
    chat.send("user-42", FACT)
    off = Fault("status", status=status, body=body, match="* /threads", times=None)
    world.provider.order(off)
    world.provider.clear_requests()

    reply = chat.send("user-42", QUESTION)

    assert FACT in reply.text
    assert "full" == reply.recovery.memory
    assert [
        ("POST threads/thread/messages", status),
        ("GET threads/thread", status),
        ("POST threads", status),
        ("POST responses", 200),
    ] == world.asked()
    assert FACT in chat.send("user-42", QUESTION).text
    assert 5 == len(world.asked())


def test_somebody_new_where_threads_are_switched_off_in_other_words(world: World) -> None:
    chat = chat_of(world, "threads", fallback={"model": MODEL})
    body = {"detail": "Not Found"}
    world.provider.order(Fault("status", status=404, body=body, match="* /threads", times=None))
    world.provider.clear_requests()

    assert FACT in chat.send("user-42", FACT).text
    assert [("POST threads", 404), ("POST responses", 200)] == world.asked()


def test_without_a_fallback_the_provider_has_the_last_word(world: World) -> None:
    chat = chat_of(world, "threads")
    chat.send("user-42", FACT)
    world.provider.order(Fault("api_off", prefix="/threads"))

    with pytest.raises(openai.APIStatusError, match="retired"):
        chat.send("user-42", QUESTION)


def test_the_providers_errors_are_the_sdks(world: World) -> None:
    chat = world.chat()

    with pytest.raises(openai.NotFoundError):
        chat.send("user-42", FACT, model="missing-model")


def test_names_with_any_letters(world: World) -> None:
    chat = world.chat()
    name = "Zoë/42 %\n\u4e16\u754c"

    chat.send(name, FACT)

    assert FACT in chat.send(name, QUESTION).text
    assert [(name,)] == world.rows("SELECT subject FROM perdure_conversation")


def test_construction_says_what_is_missing() -> None:
    client = openai.OpenAI(api_key="sk-test")
    with pytest.raises(ConfigurationError, match="needs a store"):
        perdure.Chat(client)
    with pytest.raises(ConfigurationError, match="needs an OpenAI client"):
        perdure.Chat(object(), "sqlite://")
    with pytest.raises(ConfigurationError, match="of the other kind"):
        perdure.AsyncChat(client, "sqlite://")
    with pytest.raises(BadInput, match="assistant_id"):
        perdure.Chat(client, "sqlite://", via="threads")
    with pytest.raises(BadInput, match="via="):
        perdure.Chat(client, "sqlite://", via="chat")  # type: ignore[arg-type]
    client.close()


def test_the_users_own_client_goes_on_sending(world: World) -> None:
    seen: list[str] = []

    def note(request: Any) -> None:
        seen.append(request.url.path)

    async def note_async(request: Any) -> None:
        note(request)

    at: dict[str, Any] = {"api_key": "sk-test", "base_url": world.provider.base_url}
    library = clients._library(None, None)
    client: Any
    if world.colour == "sync":
        http = library.Client(event_hooks={"request": [note]})
        client = openai.OpenAI(http_client=http, **at)
        chat = Blocking(world, perdure.Chat(client, world.store(), model=MODEL))
    else:
        http = library.AsyncClient(event_hooks={"request": [note_async]})
        client = openai.AsyncOpenAI(http_client=http, **at)
        chat = Blocking(world, perdure.AsyncChat(client, world.store(), model=MODEL))

    chat.send("user-42", FACT)

    assert ["/v1/responses"] == seen
    world.wait(client.close())


def test_two_first_messages_at_once_make_one_conversation(world: World) -> None:
    one, two = world.chat(via="conversations"), world.chat(via="conversations")
    one.send("user-42", FACT)
    handle = one.check("user-42").handle

    # What a second worker does that looked before the first one had bound its own.
    made = world.app().call("conversations.create", extra_headers={"Perdure-Subject": "user-42"})
    world.drain()

    assert handle == two.check("user-42").handle
    assert made.id not in world.provider.state.conversations
    assert FACT in two.send("user-42", QUESTION).text


@pytest.mark.parametrize("via", ["conversations", "threads"])
def test_a_reply_whose_stream_was_stopped_is_told_once(world: World, via: str) -> None:
    chat = chat_of(world, via)
    chat.send("user-42", FACT)
    stopped(world, chat, "My cat is called Tom.")
    assert 4 == len(chat.history("user-42")), "what was shown of it"
    world.clock.advance(90)

    chat.send("user-42", QUESTION)

    said = [entry.text for entry in chat.history("user-42")]
    assert [FACT, f"Noted: {FACT}", "My cat is called Tom.", "Noted: My cat is called Tom."] == (
        said[:4]
    )
    assert 6 == len(said)
    onward = chat.history("user-42", after=0)
    assert said == [entry.text for entry in onward]


@pytest.mark.parametrize("how", ["stopped", "refused for now"])
@pytest.mark.parametrize("via", ["responses", "conversations"])
def test_what_got_no_whole_answer_is_known_to_the_next(world: World, via: str, how: str) -> None:
    chat = world.chat(via=via)
    chat.send("user-42", FACT)
    if how == "stopped":
        stopped(world, chat, "My cat is called Tom.")
    else:
        world.provider.order(Fault("status", status=500, match="POST /responses"))
        with pytest.raises(openai.InternalServerError):
            chat.send("user-42", "My cat is called Tom.")

    answer = chat.send("user-42", "What is my cat called?")

    assert "Tom" in answer.text
    world.provider.clear_requests()
    assert "Tom" in chat.send("user-42", "And what is my cat called now?").text
    assert [("POST responses", 200)] == world.asked()


def stopped(world: World, chat: Blocking, message: str) -> None:
    """Read the first words of a reply, and no more."""

    async def read_some() -> None:
        stream = await chat.chat.stream("user-42", message)
        pieces = aiter(stream)
        await anext(pieces)
        await pieces.aclose()

    if world.colour == "async":
        world.wait(read_some())
    else:
        pieces = iter(chat.chat.stream("user-42", message))
        next(pieces)
        pieces.close()
