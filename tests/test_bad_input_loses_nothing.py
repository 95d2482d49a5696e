"""Bad input gets a clear error; nothing is sent, nothing is lost."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import openai
import pytest

import perdure
from perdure.dialects.routes import path_to, route
from perdure.engine import ops
from perdure.engine.threads import live_path
from perdure.errors import SchemaForeign, SchemaTooNew, UnknownStore
from perdure.transport.core import Core
from tests.world import MODEL, App, World, recovered

FACT = "My dog is called Rex."
CAT = "My cat is called Tom."


def fault(error: Any) -> tuple[int, str]:
    """An SDK error as (status, code); the body must be ours."""
    assert "perdure_error" == error.value.body["type"]
    return error.value.status_code, error.value.body["code"]


@pytest.mark.parametrize(
    "url",
    [
        "mysql://localhost/chat",
        "chat.db",
        "",
        "sqlite://host/chat.db",
        "sqlite:///chat.db?synchronous=off",
        "sqlite:///chat.db?mode=ro",
    ],
)
def test_an_unknown_store_url_is_refused_at_construction(url: str) -> None:
    with pytest.raises(UnknownStore, match="Use sqlite:///") as caught:
        perdure.http_client(url)
    assert url == caught.value.url


def test_an_unwritable_path_is_a_503_and_the_provider_is_not_called(world: World) -> None:
    app = world.app(store=perdure.open_store("sqlite:////nonexistent/folder/chat.db"))

    with pytest.raises(openai.InternalServerError, match="/nonexistent/folder/chat.db") as caught:
        app.respond(FACT)

    assert (503, "store_unavailable") == fault(caught)
    assert [] == world.asked()


def test_our_own_faults_are_not_retried_by_the_sdk(world: World) -> None:
    app = world.app(store=perdure.open_store("sqlite:////nonexistent/folder/chat.db"))
    app.sdk = app.sdk.with_options(max_retries=2)

    with pytest.raises(openai.InternalServerError) as caught:
        app.respond(FACT)

    assert "false" == caught.value.response.headers["x-should-retry"]


def migrated(path: Path) -> sqlite3.Connection:
    """A database that perdure has made, opened by somebody else."""
    store = perdure.open_store(f"sqlite:///{path}")
    store.perform(ops.FindSubject("default", "nobody"))
    store.close()
    return sqlite3.connect(path)


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    connection = migrated(path)
    with connection:
        connection.execute("INSERT INTO perdure_migration VALUES ('9999_later', 0)")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(SchemaTooNew, match="9999_later.*Upgrade perdure") as caught:
        perdure.open_store(f"sqlite:///{path}").perform(ops.FindSubject("default", "nobody"))

    assert ("9999_later",) == caught.value.unknown
    assert before == path.read_bytes()


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("CREATE TABLE perdure_turn (mine INTEGER)", "perdure_turn"),
        ("CREATE TABLE perdure_migration (id INTEGER)", "perdure_migration"),
    ],
)
def test_a_table_that_is_not_ours_is_left_alone(tmp_path: Path, statement: str, table: str) -> None:
    path = tmp_path / "app.db"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()

    with pytest.raises(SchemaForeign, match=table) as caught:
        perdure.open_store(f"sqlite:///{path}").perform(ops.FindSubject("default", "nobody"))

    assert table == caught.value.table
    tables = sqlite3.connect(path).execute("SELECT count(*) FROM sqlite_master").fetchone()
    assert (2,) == tables


def test_a_table_of_ours_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    connection = migrated(path)
    with connection:
        connection.execute("DROP TABLE perdure_item")
        connection.execute("CREATE TABLE perdure_item (mine INTEGER)")
    connection.close()

    with pytest.raises(SchemaForeign, match="perdure_item"):
        perdure.open_store(f"sqlite:///{path}").perform(ops.FindSubject("default", "nobody"))


def test_tables_of_the_app_in_the_same_database_do_not_disturb(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
        connection.execute("INSERT INTO customers VALUES ('Ada')")
    connection.close()

    perdure.open_store(f"sqlite:///{path}").perform(ops.FindSubject("default", "nobody"))

    assert [("Ada",)] == sqlite3.connect(path).execute("SELECT * FROM customers").fetchall()


def raw(world: World, content: bytes, **options: Any) -> Any:
    """POST bytes to /responses through perdure, as something else than the SDK might."""
    headers = {"authorization": "Bearer sk-test", "content-type": "application/json"}
    url = f"{world.provider.base_url}/responses"
    if world.colour == "sync":
        with httpx2.Client(transport=world.transport(**options)) as client:
            return client.post(url, content=content, headers=headers)

    async def post() -> Any:
        async with httpx2.AsyncClient(transport=world.transport(**options)) as client:
            return await client.post(url, content=content, headers=headers)

    return world.wait(post())


@pytest.mark.parametrize(
    "content",
    [
        b'{"model": "gpt-5.6", ',
        b"[1, 2]",
        b"",
        b'"text"',
        b'{"a": 1} trailing',
        b'{"a": 1,}',
        "{'model': 1}".encode("utf-16"),
        b'{"input": "\xff"}',
    ],
)
def test_a_body_that_is_not_a_json_object_is_a_400(world: World, content: bytes) -> None:
    answer = raw(world, content)

    assert 400 == answer.status_code
    assert "bad_input" == answer.json()["error"]["code"]
    assert "Nothing was sent or stored" in answer.json()["error"]["message"]
    assert [] == world.asked()


def test_a_100_mb_item_is_refused_before_anything_happens(world: World) -> None:
    app = world.app()

    with pytest.raises(openai.APIStatusError, match="Upload large content as a file") as caught:
        app.respond("x" * 100_000_000)

    assert (413, "request_too_large") == fault(caught)
    assert [] == world.asked()
    assert not world.database.exists() or [] == world.rows("SELECT 1 FROM perdure_item")


def test_a_large_item_below_the_limit_is_stored_and_primed(world: World) -> None:
    app = world.app()
    long = "word " * 200_000
    first = app.respond(long)
    world.forgets(first.id)

    answer = app.respond("Well?", previous_response_id=first.id)

    assert "partial" == (answer.model_extra or {})["perdure"]["memory"]
    assert [(long,)] == world.rows(
        "SELECT json_extract(wire, '$.content') FROM perdure_item WHERE position = 1"
    )


@pytest.mark.parametrize("message", ["", "  \n", [], [{"role": "user", "content": ""}]])
def test_an_empty_message_is_refused_by_chat(world: World, message: Any) -> None:
    chat = world.chat()

    with pytest.raises(perdure.PerdureError, match="Nothing was sent or stored"):
        chat.send("user-42", message)

    assert [] == world.asked()


def test_a_handle_of_another_tenant_is_not_found(world: World) -> None:
    mine = world.app(tenant="a")
    theirs = world.app(tenant="b")
    conversation = mine.call("conversations.create").id
    mine.respond(FACT, conversation=conversation)
    response = mine.respond(FACT).id
    thread, assistant = mine.thread()
    world.provider.clear_requests()

    for call in (
        lambda: theirs.respond("Hi.", conversation=conversation),
        lambda: theirs.respond("Hi.", previous_response_id=response),
        lambda: theirs.call("conversations.retrieve", conversation_id=conversation),
        lambda: theirs.call("conversations.delete", conversation_id=conversation),
        lambda: theirs.call("responses.retrieve", response_id=response),
        lambda: theirs.say(thread, assistant, "Hi."),
    ):
        with pytest.raises(openai.NotFoundError, match="does not belong to tenant 'b'") as caught:
            call()
        assert (404, "handle_of_another_tenant") == fault(caught)

    assert [] == world.asked()
    assert FACT in mine.respond("What is my dog called?", conversation=conversation).output_text


def test_a_turn_id_with_another_body_is_a_409(world: World) -> None:
    app = world.app()
    header = {"Perdure-Turn": "turn-1"}
    first = app.respond(FACT, extra_headers=header)

    with pytest.raises(openai.ConflictError, match="turn-1") as caught:
        app.respond("Something else.", extra_headers=header)

    assert (409, "turn_mismatch") == fault(caught)
    again = app.respond(FACT, extra_headers=header)
    assert first.id == again.id
    assert 1 == len([asked for asked in world.asked() if asked[0] == "POST responses"])


def test_perdure_headers_never_reach_the_provider(world: World) -> None:
    app = world.app()
    app.respond(FACT, extra_headers={"Perdure-Turn": "turn-1", "Perdure-Subject": "user-42"})

    (request,) = world.provider.requests

    assert [] == [name for name in request.headers if name.lower().startswith("perdure")]


def test_a_refused_message_is_kept_but_not_part_of_the_conversation(world: World) -> None:
    app = world.app()
    first = app.respond(FACT)
    with pytest.raises(openai.BadRequestError):
        app.respond(
            [{"role": "user", "content": [{"type": "output_text", "text": "no"}]}],
            previous_response_id=first.id,
        )
    world.forgets(first.id)

    answer = app.respond("What is my dog called?", previous_response_id=first.id)

    assert FACT in answer.output_text
    assert [(1,)] == world.rows("SELECT count(*) FROM perdure_item WHERE withdrawn")


def test_what_was_refused_is_not_told_to_the_next_replica(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    with pytest.raises(openai.NotFoundError):
        app.respond("My cat is Tom.", model="missing-model", conversation=conversation)
    world.forgets()

    answer = app.respond("What is my dog called?", conversation=conversation)

    told = [item["content"][0]["text"] for item in world.provider.items(answer.conversation.id)]
    assert [FACT, f"Noted: {FACT}", "What is my dog called?", FACT] == told
    assert ("My cat is Tom.",) in world.rows(
        "SELECT json_extract(wire, '$.content') FROM perdure_item"
    )


def test_a_missing_model_is_the_providers_own_error(world: World) -> None:
    app, plain = world.app(), world.plain()
    first = app.respond(FACT)

    errors = []
    for client in (plain, app):
        with pytest.raises(openai.NotFoundError) as caught:
            client.respond("Hi.", model="missing-model", previous_response_id=first.id)
        errors.append((caught.value.status_code, caught.value.body))

    assert errors[0] == errors[1]
    assert [] == world.recoveries


def test_model_is_what_the_app_said(world: World) -> None:
    app = world.app()
    app.respond(FACT)

    assert MODEL == world.provider.requests[0].json["model"]


NO_IDS = ("é", "a b/ü", "conv#x", "conv?x=1", "conv\n", "%2e%2e", "..", "conv_x/../../models")


@pytest.mark.parametrize("handle", NO_IDS)
@pytest.mark.parametrize("kind", ["conversation", "previous_response_id"])
def test_a_handle_that_is_no_id_gets_the_providers_own_error(
    world: World, kind: str, handle: str
) -> None:
    with pytest.raises(openai.BadRequestError) as plain:
        world.plain().respond(FACT, **{kind: handle})
    world.provider.clear_requests()

    with pytest.raises(openai.BadRequestError) as caught:
        world.app().respond(FACT, **{kind: handle})

    assert plain.value.body == caught.value.body
    api = "conversations" if kind == "conversation" else "responses"
    asked = [(request.method, request.path) for request in world.provider.requests]
    assert [("POST", "/v1/responses"), ("GET", f"/v1/{api}/{handle}")] == asked


@pytest.mark.parametrize("limit", ["²", "٣", "-1", "x", "", "0" * 5000])
@pytest.mark.parametrize("of", ["items", "runs"])
def test_a_limit_that_is_no_number_of_entries_is_no_fault_of_ours(
    world: World, of: str, limit: str
) -> None:
    app = world.app()
    if of == "items":
        path = f"/conversations/{app.call('conversations.create').id}/items"
        app.respond(FACT, conversation=path.split("/")[2])
    else:
        thread, assistant = app.thread()
        app.say(thread, assistant, FACT)
        path = f"/threads/{thread}/runs"
    world.forgets()

    listed = world.wait(app.sdk.get(f"{path}?limit={quote(limit)}", cast_to=object))

    assert listed["data"]


def test_a_huge_number_is_beyond_all_bounds(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    response = app.respond(FACT, conversation=conversation).id
    huge = "9" * 5000
    world.forgets()

    path = f"/conversations/{conversation}/items?limit={huge}"
    assert FACT in str(world.wait(app.sdk.get(path, cast_to=object)))
    path = f"/responses/{response}?stream=true&starting_after={huge}"
    assert "response.completed" in world.wait(app.sdk.get(path, cast_to=str))
    headers = {"x-stainless-retry-count": huge}
    assert app.respond("Hello.", conversation=conversation, extra_headers=headers).output_text


@pytest.mark.parametrize(
    ("parts", "path"),
    [
        ((), "/threads"),
        (("thread_1-a.b~c", "runs", "run_1"), "/threads/thread_1-a.b~c/runs/run_1"),
        (("a/../b",), "/threads/a%2F..%2Fb"),
        ((".", ".."), "/threads/%2E/%2E%2E"),
        (("é?x#y%20",), "/threads/%C3%A9%3Fx%23y%2520"),
    ],
)
def test_a_path_leads_to_what_it_names(parts: tuple[str, ...], path: str) -> None:
    assert path == path_to("threads", *parts)


@pytest.mark.parametrize(
    ("path", "live", "run", "sent"),
    [
        ("/threads/t%C3%A9/runs", "té", None, "/threads/t%C3%A9/runs"),
        ("/threads/t%C3%A9/runs", "t/2", None, "/threads/t%2F2/runs"),
        ("/threads/t/runs/r/cancel", "t", "r", "/threads/t/runs/r/cancel"),
        ("/threads/t/runs/r/cancel", "u", "r 2", "/threads/u/runs/r%202/cancel"),
        ("/threads/runs/runs/runs/cancel", "u", "w", "/threads/u/runs/w/cancel"),
    ],
)
def test_only_ids_that_have_changed_change_in_a_path(
    path: str, live: str, run: str | None, sent: str
) -> None:
    request = httpx2.Request("POST", f"http://x/v1{path}")
    recognised = route("POST", request.url.path)
    assert recognised is not None
    call = Core("sqlite://").call(request, recognised, b"")

    assert sent == live_path(call, live, run)


# -- items that are added where no provider looks at them ----------------------------------------

NEVER_AN_ITEM: dict[str, Any] = {
    "a text": "x",
    "a number": 3,
    "nobody": {"role": "nobody", "content": "x"},
    "no role": {"type": "message", "content": "x"},
    "an unknown type": {"type": "wat"},
    "a type that is none": {"type": ["message"], "role": "user", "content": "x"},
    "no type": {"content": "x"},
    "no content": {"role": "user"},
    "a number for content": {"role": "user", "content": 5},
    "a number for text": {"role": "user", "content": [{"type": "input_text", "text": 5}]},
    "another's part": {"role": "user", "content": [{"type": "output_text", "text": "x"}]},
    "a call without a name": {"type": "function_call", "call_id": "c", "arguments": "{}"},
    "an output that is a number": {"type": "function_call_output", "call_id": "c", "output": 5},
}
ITEMS: dict[str, Any] = {
    "a message": {"role": "user", "content": CAT},
    "parts": {"role": "user", "content": [{"type": "input_text", "text": CAT}]},
    "no parts": {"role": "user", "content": []},
    "an image": {"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]},
    "an output without its call": {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": "x",
    },
    "a reference": {"type": "item_reference", "id": "msg_1"},
    "a reference without a type": {"id": "msg_1"},
    "a search": {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    "reasoning": {"type": "reasoning", "id": "rs_1", "summary": []},
}


def add(app: App, conversation: str, items: Any) -> Any:
    return app.call("conversations.items.create", conversation_id=conversation, items=items)


def waiting(world: World, met: str) -> tuple[App, str]:
    """A conversation that is lost; ``met``: by what is added to it, or before."""
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    world.forgets(conversation)
    if met == "before":
        app.call("conversations.retrieve", conversation_id=conversation)
    return app, conversation


@pytest.mark.parametrize("met", ["by it", "before"])
@pytest.mark.parametrize("items", [None, [], "x", {}], ids=str)
def test_items_that_are_no_list_are_refused_where_a_conversation_waits_for_its_history(
    world: World, items: Any, met: str
) -> None:
    app, conversation = waiting(world, met)

    with pytest.raises(openai.BadRequestError, match="'items' has to be a list") as caught:
        add(app, conversation, items)

    assert (400, "bad_input") == fault(caught)


@pytest.mark.parametrize("met", ["by it", "before"])
@pytest.mark.parametrize("item", NEVER_AN_ITEM.values(), ids=NEVER_AN_ITEM.keys())
def test_an_item_that_can_be_none_is_refused_where_a_conversation_waits_for_its_history(
    sync_world: World, item: Any, met: str
) -> None:
    """It was answered with 200, and nobody was ever told it."""
    app, conversation = waiting(sync_world, met)

    with pytest.raises(
        openai.BadRequestError, match=r"'items\[1\]' .* Nothing was added"
    ) as caught:
        add(app, conversation, [{"role": "user", "content": CAT}, item])

    assert (400, "bad_input") == fault(caught)
    listed = app.call("conversations.items.list", conversation_id=conversation).data
    assert [f"Noted: {FACT}", FACT] == [one.content[0].text for one in listed]
    answer = app.respond("What is my dog called?", conversation=conversation)
    assert FACT in answer.output_text
    assert {"memory": "full", "items_primed": 2}.items() <= (recovered(answer) or {}).items()


@pytest.mark.parametrize("met", ["by it", "before"])
@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS.keys())
def test_every_other_item_is_added_to_a_conversation_that_waits_for_its_history(
    sync_world: World, item: Any, met: str
) -> None:
    app, conversation = waiting(sync_world, met)

    assert 1 == len(add(app, conversation, [item]).data)

    assert FACT in app.respond("What is my dog called?", conversation=conversation).output_text


@pytest.mark.parametrize("content", [5, None, {"a": 1}, ["x"], [{"type": "input_text", "text": 5}]])
def test_a_message_that_is_none_leaves_a_history_that_can_be_read(
    world: World, content: Any
) -> None:
    """The provider refuses it, and it is told as refused."""
    chat = world.chat(via="conversations")
    chat.send("user-42", FACT)
    ((conversation,),) = world.rows("SELECT replica_handle FROM perdure_conversation")

    with pytest.raises(openai.BadRequestError):
        add(world.app(), conversation, [{"role": "user", "content": content}])

    assert ["answered", "answered", "failed"] == [one.state for one in chat.history("user-42")]
