"""What a provider still holds and nobody wants is written down, counted, and deleted."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from typing import Any

import openai
import pytest

from perdure.cli import main
from perdure.cli import sweep as command
from perdure.cli.upstream import client_of
from perdure.engine.ops import Leftovers, Throttle, Unused
from perdure.engine.sweep import Swept, sweep
from perdure.flow import Done, run
from perdure.testing import Fault
from tests.world import App, World, recovered

DOG = "My dog is called Rex."


def given_up(world: World) -> tuple[App, str]:
    """An app whose conversation was replaced, and the old one's id."""
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(DOG, conversation=conversation)
    world.provider.order(Fault("answer_lost", match="POST /responses", timing="before"))
    with pytest.raises(openai.APIConnectionError):
        app.respond("Hello?", conversation=conversation)
    app.respond("Hello?", conversation=conversation)
    world.provider.clear_requests()
    return app, conversation


def left(world: World) -> tuple[int, int]:
    """How many orphans there are, and creates of which nobody knows what became."""
    store = world.store()
    try:
        counted = store.perform(Leftovers("default"))
    finally:
        store.close()
    return counted.orphans, counted.creates


def swept(world: World, *options: str) -> int:
    """Run the command as it is run by hand."""
    arguments = [
        "sweep",
        f"--store=sqlite:///{world.database}",
        f"--upstream={world.provider.base_url}",
        "--api-key=sk-test",
    ]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, *options])
    return int(ended.value.code or 0)


def test_what_is_left_at_another_address_is_told(
    sync_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    given_up(sync_world)
    with pytest.raises(SystemExit):
        main(["sweep", f"--store=sqlite:///{sync_world.database}", "--dry-run", "--api-key=k"])

    told = capsys.readouterr().out
    assert "0 remote objects are no longer wanted at https://api.openai.com/v1" in told
    assert "1 more at other addresses: sweep each with --upstream" in told


def test_a_thread_is_deleted_along_with_whatever_is_swept(world: World) -> None:
    """Also by a call that is about something else, and says nothing of threads."""
    app = world.app()
    thread, assistant = app.thread()
    app.say(thread, assistant, DOG)
    world.provider.order(Fault("answer_lost", match=r"POST /threads/.*/runs", timing="before"))
    with pytest.raises(openai.APIConnectionError):
        app.call("beta.threads.runs.create", thread_id=thread, assistant_id=assistant)
    app.say(thread, assistant, "Hello?")
    subject = {"Perdure-Subject": "user-1"}

    for _ in range(2):  # the second one is not wanted: the user has one
        app.call("conversations.create", extra_headers=subject)
    world.drain()

    assert (0, 0) == left(world)
    assert thread not in world.provider.state.threads
    assert 1 == len(world.provider.state.conversations)


def test_a_replica_that_was_given_up_is_deleted_once(sync_world: World, capsys: Any) -> None:
    world = sync_world
    app, old = given_up(world)
    assert (1, 0) == left(world)

    assert 0 == swept(world, "--dry-run")
    assert [] == world.asked()
    assert 0 == swept(world)

    assert [
        ("GET conversations/conv/items", 200),
        ("DELETE conversations/conv/items/msg", 200),
        ("DELETE conversations/conv/items/msg", 200),
        ("DELETE conversations/conv", 200),
    ] == world.asked()
    assert (0, 0) == left(world)
    assert "1 remote objects are no longer wanted" in capsys.readouterr().out
    world.provider.clear_requests()
    assert 0 == swept(world)
    assert [] == world.asked()
    assert DOG in app.respond("What is my dog called?", conversation=old).output_text


def test_each_request_carries_the_query_of_the_address(sync_world: World) -> None:
    given_up(sync_world)
    arguments = [f"--store=sqlite:///{sync_world.database}", "--api-key=sk-test"]

    with pytest.raises(SystemExit) as ended:
        main(["sweep", *arguments, f"--upstream={sync_world.provider.base_url}/?api-version=1"])

    assert 0 == ended.value.code
    listed, *deletes = sync_world.provider.requests
    assert {"api-version": ["1"], "limit": ["100"]} == listed.query
    assert [{"api-version": ["1"]}] * 3 == [request.query for request in deletes]
    assert {"sk-test"} == {request.headers["api-key"] for request in (listed, *deletes)}


LONG_TALK = 130


def long_orphan(world: World) -> str:
    """A conversation of more than one page that nobody wants any more."""
    app, old = given_up(world)
    del app
    items = [{"type": "message", "role": "user", "content": f"Note {n}."} for n in range(20)]
    plain = world.plain()
    for _ in range(LONG_TALK // len(items) + 1):
        plain.call("conversations.items.create", conversation_id=old, items=items)
    world.provider.clear_requests()
    return old


def test_a_long_conversation_is_emptied_before_it_is_deleted(
    sync_world: World, capsys: Any
) -> None:
    old = long_orphan(sync_world)

    assert 0 == swept(sync_world)

    asked = [kind for kind, _ in sync_world.asked()]
    assert "DELETE conversations/conv" == asked[-1]
    assert asked.count("DELETE conversations/conv/items/msg") > LONG_TALK
    assert old not in sync_world.provider.state.conversations
    assert "1 deleted so far" in capsys.readouterr().out
    assert (0, 0) == left(sync_world)


def test_a_list_that_lags_behind_is_no_reason_to_stop(sync_world: World) -> None:
    old = long_orphan(sync_world)
    stale = sync_world.plain().call("conversations.items.list", conversation_id=old, limit=2)
    left_over = {"object": "list", "data": [], "has_more": True}
    told = [{"id": item.id, "type": "message"} for item in stale.data]
    sync_world.provider.order(
        Fault(
            "status",
            status=200,
            body={**left_over, "data": told},
            match="GET /conversations/.*/items",
            times=2,
        )
    )

    assert 1 == swept(sync_world), "the second list shows what is deleted, and that there is more"
    assert 0 == swept(sync_world)

    assert old not in sync_world.provider.state.conversations
    deleted = [kind for kind, _ in sync_world.asked()].count("DELETE conversations/conv/items/msg")
    assert deleted > LONG_TALK


def test_a_batch_is_so_many_requests_and_the_next_goes_on(sync_world: World) -> None:
    old = long_orphan(sync_world)
    sync_world.clock.advance(timedelta(minutes=11))
    url = sync_world.provider.base_url

    def batch() -> Swept:
        with (
            closing(sync_world.store()) as store,
            client_of(url, "sk-test", 30.0) as client,
        ):
            worker = command._Worker(store, client, url, "default")
            outcome = run(sweep("default", url, 50), worker.perform)
        assert isinstance(outcome, Done)
        return outcome.value

    assert (Swept(0, 0, more=True), 50) == (batch(), len(sync_world.asked()))
    assert old in sync_world.provider.state.conversations
    assert [Swept(0, 0, more=True), Swept(1, 0)] == [batch(), batch()]
    assert old not in sync_world.provider.state.conversations


def test_what_was_given_up_just_now_is_kept_for_the_next_time(
    sync_world: World, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up(sync_world)
    monkeypatch.setattr(command, "existing_store", lambda _url: sync_world.store())

    assert 0 == swept(sync_world)

    assert [] == sync_world.asked()
    assert "1 are kept for the next time. Conversations are" in capsys.readouterr().out
    assert (1, 0) == left(sync_world)


def test_items_that_a_server_will_not_delete_keep_their_conversation(
    sync_world: World, capsys: Any
) -> None:
    """The ids of what is in it stand nowhere else."""
    given_up(sync_world)
    refused = Fault("status", status=403, match="DELETE /conversations/.*/items", times=None)
    sync_world.provider.order(refused)

    assert 1 == swept(sync_world)

    assert "1 could not be deleted" in capsys.readouterr().out
    assert (1, 0) == left(sync_world)


@pytest.mark.parametrize("body", [None, {"data": "?"}], ids=["500", "no list"])
def test_a_conversation_whose_items_cannot_be_listed_now_is_kept(
    sync_world: World, body: Any
) -> None:
    given_up(sync_world)
    status = 500 if body is None else 200
    listing = Fault("status", status=status, body=body, match="GET /conversations/.*/items")
    sync_world.provider.order(listing)

    assert 1 == swept(sync_world)

    assert (1, 0) == left(sync_world)


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_that_deletes_no_items_loses_its_conversations_all_the_same(
    sync_world: World, status: int
) -> None:
    given_up(sync_world)
    refused = Fault("status", status=status, match="DELETE /conversations/.*/items", times=None)
    sync_world.provider.order(refused)

    assert 0 == swept(sync_world)

    assert (0, 0) == left(sync_world)
    assert 1 == sum(kind == "DELETE conversations/conv/items/msg" for kind, _ in sync_world.asked())


def test_a_server_without_items_loses_its_conversations_all_the_same(sync_world: World) -> None:
    given_up(sync_world)
    sync_world.provider.order(Fault("status", status=404, match="GET /conversations/.*/items"))

    assert 0 == swept(sync_world)

    assert (0, 0) == left(sync_world)


def test_what_cannot_be_deleted_is_kept(sync_world: World, capsys: Any) -> None:
    given_up(sync_world)
    sync_world.provider.order(Fault("status", status=500, match="DELETE /conversations"))

    assert 1 == swept(sync_world)

    assert "1 could not be deleted" in capsys.readouterr().out
    assert (1, 0) == left(sync_world)


def test_what_is_gone_already_counts_as_deleted(sync_world: World) -> None:
    _, old = given_up(sync_world)
    sync_world.provider.forget(old)

    assert 0 == swept(sync_world)

    assert (0, 0) == left(sync_world)


def test_a_create_whose_answer_is_lost_is_counted(world: World) -> None:
    app = world.app()
    world.provider.order(Fault("answer_lost", match="POST /conversations", times=2))
    for _ in range(2):
        with pytest.raises(openai.APIConnectionError):
            app.call("conversations.create")
    app.call("conversations.create")
    assert (0, 0) == left(world)  # they may yet be answered

    world.clock.advance(timedelta(minutes=11))

    assert (0, 2) == left(world)


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_create_that_is_refused_leaves_nothing(world: World, status: int) -> None:
    app = world.app()
    world.provider.order(Fault("status", status=status, match="POST /conversations"))
    with pytest.raises(openai.APIStatusError):
        app.call("conversations.create")

    world.clock.advance(timedelta(minutes=11))

    assert (0, 0) == left(world)


def test_first_messages_that_nobody_continued_are_erased_in_the_end(sync_world: World) -> None:
    world = sync_world
    app = world.app()
    app.respond("A single question.")
    continued = app.respond(DOG)
    app.respond("Hello.", previous_response_id=continued.id)
    conversation = app.call("conversations.create").id
    app.respond(DOG, conversation=conversation)
    world.clock.advance(timedelta(days=31))

    store = world.store()
    assert 1 == store.perform(Unused("default", world.provider.base_url, 30 * 86400.0, 10))
    assert 0 == store.perform(Unused("default", world.provider.base_url, 30 * 86400.0, 10))
    store.close()
    assert [] == world.rows(
        "SELECT 1 FROM perdure_item WHERE wire LIKE '%single question%'"
        " UNION ALL SELECT 1 FROM perdure_answer WHERE body LIKE '%single question%'"
    )
    assert 3 == len(world.rows("SELECT 1 FROM perdure_turn"))


# -- a server that asks for time -------------------------------------------------------------


def test_a_create_that_is_one_too_many_waits_as_asked(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(DOG, conversation=conversation)
    world.forgets()
    world.provider.order(
        Fault("status", status=429, retry_after=7, match="POST /conversations", times=2)
    )
    began = world.clock.now()

    answer = app.respond("What is my dog called?", conversation=conversation)

    assert DOG in answer.output_text
    assert 14 <= world.clock.now() - began <= 14 * 1.25
    assert recovered(answer) is not None


def test_one_workers_429_holds_the_others_back(world: World) -> None:
    mine, other = world.app(), world.app()
    handles = []
    for _ in range(2):
        handles.append(mine.call("conversations.create").id)
        mine.respond(DOG, conversation=handles[-1])
    world.forgets()
    world.provider.order(
        Fault("status", status=429, retry_after=20, match="POST /conversations", times=1)
    )
    with pytest.raises(openai.RateLimitError):  # 20 s are more than this call has
        mine.respond("Hello.", conversation=handles[0], timeout=10)
    began = world.clock.now()

    other.respond("Hello.", conversation=handles[1])

    assert 20 < world.clock.now() - began <= 20 * 1.25
    creates = [status for kind, status in world.asked() if kind == "POST conversations"]
    assert [429, 200] == creates


def ran(app: App, thread: str, assistant: str) -> None:
    app.call("beta.threads.runs.create", thread_id=thread, assistant_id=assistant)


@pytest.mark.parametrize("limited", ["response", "run"])
@pytest.mark.parametrize("lost", ["response", "conversation", "thread"])
def test_an_apps_own_429_holds_recoveries_back(world: World, limited: str, lost: str) -> None:
    mine, other = world.app(), world.app()
    first = mine.respond(DOG)
    threads = [mine.thread(), other.thread()]
    handle = {
        "response": other.respond(DOG).id,
        "conversation": other.call("conversations.create").id,
        "thread": threads[1][0],
    }[lost]
    if lost == "conversation":
        other.respond(DOG, conversation=handle)
    world.forgets(handle)
    refused = r"POST /(responses|threads/.*)$"
    world.provider.order(Fault("status", status=429, retry_after=20, match=refused))
    with pytest.raises(openai.RateLimitError):
        ran(mine, *threads[0]) if limited == "run" else mine.respond(
            "Hello.", previous_response_id=first.id
        )
    world.provider.clear_requests()
    began = world.clock.now()

    if lost == "thread":
        ran(other, *threads[1])
    else:
        key = "previous_response_id" if lost == "response" else lost
        other.respond("Hello.", **{key: handle})

    failed, *again = world.provider.requests
    assert began == failed.at
    assert all(20 < request.at - began <= 20 * 1.25 for request in again)


def test_a_429_between_a_new_thread_and_its_run_is_waited_for(world: World) -> None:
    app = world.app()
    thread, assistant = app.thread()
    world.forgets(thread)
    store = world.store()

    class Refused(list[Any]):
        """Who is told of the recovery, at a time when another worker is refused."""

        def append(self, recovery: Any) -> None:
            store.perform(Throttle("default", world.provider.base_url, 20))

    world.recoveries = Refused()
    began = world.clock.now()

    ran(world.app(), thread, assistant)

    assert [True, True, False] == [began == one.at for one in world.provider.requests]
    store.close()


def test_those_who_wait_do_not_come_back_at_once(world: World) -> None:
    """A 429 that comes while a worker waits is waited for as well, by everybody else by chance."""
    apps = [world.app() for _ in range(3)]
    handles = []
    for app in apps:
        handles.append(app.call("conversations.create").id)
        app.respond(DOG, conversation=handles[-1])
    world.forgets()
    waited = []
    for app, conversation in zip(apps, handles, strict=True):
        world.provider.order(
            Fault("status", status=429, retry_after=20, match="POST /conversations", times=1)
        )
        began = world.clock.now()
        app.respond("Hello.", conversation=conversation)
        waited.append(world.clock.now() - began)

    assert 3 == len(set(waited))
    assert all(20 < seconds <= 20 * 1.25 for seconds in waited)


def test_the_apps_own_429_is_the_sdks_to_wait_for(world: World) -> None:
    app = world.app()
    first = app.respond(DOG)
    world.provider.clear_requests()
    world.provider.order(Fault("status", status=429, retry_after=7, match="POST /responses"))
    began = world.clock.now()

    with pytest.raises(openai.RateLimitError) as limited:
        app.respond("Hello.", previous_response_id=first.id)

    assert ("7", 0.0) == (limited.value.response.headers["retry-after"], world.clock.now() - began)
    assert 1 == len(world.asked())
