"""Attachments, metadata and tool resources outlive the replica; what is gone too is counted."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import openai
import pytest

import perdure
from perdure.dialects import messages
from perdure.engine import ops
from perdure.testing import Fault
from perdure.testing.provider import files
from tests.world import MODEL, App, World, recovered

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
KEY = "Bearer sk-test"
SEARCH = [{"type": "file_search"}]
CODE = [{"type": "code_interpreter"}]


def file(world: World, purpose: str = "assistants") -> str:
    return files.keep(world.provider.state, KEY, "notes.txt", purpose).id


def rich(world: World) -> list[dict[str, Any]]:
    """Messages of every kind that a thread may be created with."""
    image = {
        "type": "image_file",
        "image_file": {"file_id": file(world, "vision"), "detail": "low"},
    }
    link = {"type": "image_url", "image_url": {"url": "https://a.example/a.png", "detail": "high"}}
    return [
        {"role": "user", "content": FACT, "metadata": {"from": "ann"}},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Look at these."}, image, link],
            "attachments": [
                {"file_id": file(world), "tools": SEARCH},
                {"file_id": file(world), "tools": [*CODE, *SEARCH]},
            ],
            "metadata": {"kind": "pictures", "empty": ""},
        },
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "A plot."}, image],
            "attachments": [{"file_id": file(world), "tools": CODE}],
            "metadata": {"model": "drawn"},
        },
        {"role": "assistant", "content": [image]},
    ]


def held(world: World, thread: str) -> list[dict[str, Any]]:
    """What a provider's thread holds, without what every copy of a message has of its own."""
    own = {"id", "created_at", "thread_id", "completed_at"}
    return [
        {name: member for name, member in message.items() if name not in own}
        for message in world.provider.messages(thread)
    ]


def post(app: App, thread: str, message: Any = QUESTION, **more: Any) -> Any:
    return app.call(
        "beta.threads.messages.create", thread_id=thread, role="user", content=message, **more
    )


def live(world: World) -> str:
    """The handle of the one conversation's replica."""
    ((handle,),) = world.rows("SELECT replica_handle FROM perdure_conversation")
    return str(handle)


class Watched:
    """A store that remembers what it was asked."""

    fast = True

    def __init__(self, store: Any) -> None:
        self.store = store
        self.asked: list[Any] = []

    def perform(self, op: Any) -> Any:
        self.asked.append(op)
        return self.store.perform(op)

    def close(self) -> None:
        self.store.close()


# -- messages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["created", "posted", "along", "listed"])
def test_a_threads_messages_are_rebuilt_with_all_they_had(world: World, way: str) -> None:
    app = world.app()
    assistant = app.call("beta.assistants.create", model=MODEL).id
    said = rich(world)
    thread = app.call("beta.threads.create", messages=said if way == "created" else []).id
    if way == "posted":
        for message in said:
            app.call("beta.threads.messages.create", thread_id=thread, **message)
    if way in {"along", "listed"}:
        along = said if way == "along" else []
        maker = app if way == "along" else world.plain()
        for message in [] if way == "along" else said:
            maker.call("beta.threads.messages.create", thread_id=thread, **message)
        app.call(
            "beta.threads.runs.create_and_poll",
            thread_id=thread,
            assistant_id=assistant,
            additional_messages=along,
        )
        app.call("beta.threads.messages.list", thread_id=thread, order="asc")
    before = held(world, thread)
    world.forgets(thread)

    posted = post(app, thread)

    rebuilt = held(world, live(world))
    given = {"role", "content", "attachments", "metadata"}
    assert [{name: message[name] for name in given} for message in before] == [
        {name: message[name] for name in given} for message in rebuilt[:-1]
    ]
    assert {"memory": "full", "items_left_out": 0, "requests": 3}.items() <= (
        recovered(posted) or {}
    ).items()


def test_a_rebuilt_thread_shows_the_messages_that_the_app_saw(world: World) -> None:
    app = world.app()
    thread = app.call("beta.threads.create").id
    for message in rich(world):
        app.call("beta.threads.messages.create", thread_id=thread, **message)
    before = app.call("beta.threads.messages.list", thread_id=thread).to_dict()
    world.forgets(thread)

    listed = app.call("beta.threads.messages.list", thread_id=thread).to_dict()
    listed.pop("perdure")
    assert before == listed
    for message in before["data"]:
        one = app.call("beta.threads.messages.retrieve", thread_id=thread, message_id=message["id"])
        assert message == one.to_dict()


def test_a_message_that_nobody_checked_does_not_spoil_the_thread(world: World) -> None:
    """The app sent what no provider takes, and the connection broke before anybody said so."""
    app = world.app()
    thread = app.call("beta.threads.create").id
    post(app, thread, FACT)
    world.provider.order(Fault("answer_lost", timing="before", match="POST /threads/.*/messages"))
    with pytest.raises(openai.APIConnectionError):
        post(
            app,
            thread,
            "Unchecked.",
            metadata={str(n): "x" for n in range(17)},
            attachments=[{"file_id": "file-1", "tools": ["file_search"]}],
        )

    posted = post(app, thread)

    assert ("partial", 2) == (
        world.recoveries[0].memory,
        world.recoveries[0].left_out,
    )
    assert [FACT, "Unchecked.", QUESTION] == [
        message["content"][0]["text"]["value"] for message in held(world, live(world))
    ]
    assert posted.thread_id == live(world)


@pytest.mark.parametrize("via", ["conversation", "response"])
def test_what_only_threads_need_is_not_read_for_other_primes(world: World, via: str) -> None:
    store = Watched(world.store())
    app = world.app(store=store)
    if via == "conversation":
        at = {"conversation": app.call("conversations.create").id}
        app.respond(FACT, **at)
    else:
        at = {"previous_response_id": app.respond(FACT).id}
    world.forgets()
    assert FACT in app.respond(QUESTION, **at).output_text
    thread = app.call("beta.threads.create").id
    world.forgets()
    post(app, thread)

    assert [messages.ATTACHED, ops.ANY] == [
        op.wire for op in store.asked if isinstance(op, ops.History)
    ]


def test_a_conversation_that_moved_is_rebuilt_with_what_both_apis_know(world: World) -> None:
    app = world.app()
    subject = {"Perdure-Subject": "ann"}
    picture = {"type": "input_image", "image_url": "https://a.example/a.png", "detail": "low"}
    app.respond(
        [{"role": "user", "content": [{"type": "input_text", "text": FACT}, picture]}],
        extra_headers=subject,
    )
    thread = app.call("beta.threads.create", extra_headers=subject).id
    attached = [{"file_id": file(world), "tools": CODE}]
    post(app, thread, "And this.", attachments=attached, metadata={"n": "1"})
    before = held(world, thread)
    world.forgets(thread)

    posted = post(app, thread)

    assert {"memory": "full", "items_primed": 3}.items() <= (recovered(posted) or {}).items()
    rebuilt = held(world, live(world))
    assert before == rebuilt[:-1]
    link = {"url": "https://a.example/a.png", "detail": "low"}
    assert {"type": "image_url", "image_url": link} == rebuilt[0]["content"][1]
    assert (attached, {"n": "1"}) == (rebuilt[2]["attachments"], rebuilt[2]["metadata"])


def test_what_a_thread_has_no_form_for_is_counted_where_a_conversation_moves(world: World) -> None:
    app = world.app()
    subject = {"Perdure-Subject": "ann"}
    paper = {"type": "input_file", "file_url": "https://a.example/a.pdf"}
    app.respond(
        [{"role": "user", "content": [{"type": "input_text", "text": FACT}, paper]}],
        extra_headers=subject,
    )
    thread = app.call("beta.threads.create", extra_headers=subject).id
    world.forgets(thread)

    posted = post(app, thread)

    assert {"memory": "partial", "items_left_out": 1, "items_primed": 2}.items() <= (
        recovered(posted) or {}
    ).items()


@pytest.mark.parametrize("indent", [None, 2], ids=["compact", "as OpenAI writes it"])
@pytest.mark.parametrize("onto", ["responses", "conversations"])
def test_files_attached_in_a_thread_are_counted_once_the_thread_is_left(
    world: World, onto: str, indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(body: Any) -> bytes:
        return json.dumps(body, indent=indent).encode()

    monkeypatch.setattr("perdure.testing.provider.app.encode", written)
    app = world.app()
    subject = {"Perdure-Subject": "ann"}
    thread = app.call("beta.threads.create", extra_headers=subject).id
    post(app, thread, FACT, attachments=[{"file_id": file(world), "tools": CODE}] * 2)
    post(app, thread, "And this.")
    at = {}
    if onto == "conversations":
        at = {"conversation": app.call("conversations.create", extra_headers=subject).id}

    answer = app.respond(QUESTION, extra_headers=subject, **at)

    assert FACT in answer.output_text
    assert {"memory": "partial", "items_left_out": 2, "items_primed": 2}.items() <= (
        recovered(answer) or {}
    ).items()

    world.forgets(at.get("conversation", answer.id))
    at = at or {"previous_response_id": answer.id}
    answer = app.respond(QUESTION, **at)

    assert FACT in answer.output_text
    assert {"memory": "partial", "items_left_out": 2, "items_primed": 4}.items() <= (
        recovered(answer) or {}
    ).items()


# -- the object's own members --------------------------------------------------------------------

KINDS = pytest.mark.parametrize("kind", ["conversations", "threads"])


class Owner:
    """One API's object with metadata, by the same four calls."""

    def __init__(self, world: World, kind: str) -> None:
        self.world, self.kind = world, kind
        self.app = world.app()
        self.path = "conversations" if kind == "conversations" else "beta.threads"
        self.name = "conversation_id" if kind == "conversations" else "thread_id"

    def create(self, **members: Any) -> str:
        return str(self.app.call(f"{self.path}.create", **members).id)

    def retrieve(self, handle: str, app: App | None = None) -> Any:
        return (app or self.app).call(f"{self.path}.retrieve", **{self.name: handle})

    def update(self, handle: str, app: App | None = None, **members: Any) -> Any:
        return (app or self.app).call(f"{self.path}.update", **{self.name: handle}, **members)

    def say(self, handle: str, message: str = QUESTION) -> Any:
        if self.kind == "conversations":
            return self.app.respond(message, conversation=handle)
        return post(self.app, handle, message)


@KINDS
def test_metadata_outlives_every_generation(world: World, kind: str) -> None:
    owner = Owner(world, kind)
    handle = owner.create(metadata={"user": "ann", "empty": ""})
    owner.say(handle, FACT)

    for generation in (1, 2):
        world.forgets(live(world))
        said = owner.say(handle)
        assert {"generation": generation, "requests": 3}.items() <= (recovered(said) or {}).items()
        shown = owner.retrieve(handle)
        assert {"user": "ann", "empty": ""} == shown.metadata
        assert shown.to_dict() == owner.retrieve(live(world)).to_dict(), "by its new handle too"


@KINDS
def test_a_retrieve_that_meets_the_loss_shows_the_metadata(world: World, kind: str) -> None:
    owner = Owner(world, kind)
    handle = owner.create(metadata={"user": "ann"})
    owner.say(handle, FACT)
    world.forgets(handle)

    shown = owner.retrieve(handle)

    assert {"user": "ann"} == shown.metadata
    assert recovered(shown) is not None
    assert [("GET", 404), ("POST", 200)] == [
        (asked.split()[0], status) for asked, status in world.asked()
    ]


@KINDS
def test_an_update_is_what_the_provider_made_of_it(world: World, kind: str) -> None:
    """Whether it merges or replaces is the provider's business: what it returned is kept."""
    owner = Owner(world, kind)
    handle = owner.create(metadata={"user": "ann", "plan": "free"})
    owner.say(handle, FACT)
    merged = {"id": handle, "metadata": {"user": "ann", "plan": "paid"}}
    world.provider.order(Fault("status", status=200, body=merged, match=f"POST /{kind}/[^/]*$"))
    owner.update(handle, metadata={"plan": "paid"})
    world.forgets(handle)

    owner.say(handle)

    assert merged["metadata"] == owner.retrieve(handle).metadata


@KINDS
def test_an_update_that_is_refused_changes_nothing(world: World, kind: str) -> None:
    owner = Owner(world, kind)
    handle = owner.create(metadata={"user": "ann"})
    owner.say(handle, FACT)
    with pytest.raises(openai.BadRequestError):
        owner.update(handle, metadata={"user": "x" * 513})
    world.forgets(handle)

    owner.say(handle)

    assert {"user": "ann"} == owner.retrieve(handle).metadata


@KINDS
def test_a_retrieve_refreshes_what_was_changed_elsewhere(world: World, kind: str) -> None:
    owner = Owner(world, kind)
    handle = owner.create(metadata={"user": "ann"})
    owner.say(handle, FACT)
    owner.update(handle, app=world.plain(), metadata={"user": "bob"})
    owner.retrieve(handle)
    world.forgets(handle)

    owner.say(handle)

    assert {"user": "bob"} == owner.retrieve(handle).metadata


@KINDS
def test_a_retrieve_that_shows_nothing_new_writes_nothing(world: World, kind: str) -> None:
    owner = Owner(world, kind)
    handle = owner.create(metadata={"user": "ann"})
    store = Watched(world.store())
    owner.app = world.app(store=store)

    owner.retrieve(handle)
    owner.update(handle, metadata={"user": "bob"})
    owner.retrieve(handle)

    assert 1 == sum(isinstance(op, ops.Refresh) for op in store.asked)


@KINDS
def test_an_update_that_meets_the_loss_is_made_on_top(world: World, kind: str) -> None:
    owner = Owner(world, kind)
    handle = owner.create(metadata={"user": "ann"})
    owner.say(handle, FACT)
    world.forgets(handle)

    updated = owner.update(handle, metadata={"topic": "dogs"})

    assert {"topic": "dogs"} == updated.metadata, "this provider replaces"
    assert {"requests": 3, "generation": 1}.items() <= (recovered(updated) or {}).items()
    created = next(one for one in world.provider.requests if one.path == f"/v1/{kind}")
    assert {"user": "ann"} == created.json["metadata"]
    world.forgets(live(world))
    owner.say(handle)
    assert {"topic": "dogs"} == owner.retrieve(handle).metadata


def test_tool_resources_outlive_the_thread(world: World) -> None:
    owner = Owner(world, "threads")
    store = owner.app.call("vector_stores.create").id
    resources = {
        "code_interpreter": {"file_ids": [file(world)]},
        "file_search": {"vector_store_ids": [store]},
    }
    thread = owner.create(tool_resources=resources)
    owner.say(thread, FACT)
    world.forgets(thread)

    owner.say(thread)

    assert resources == owner.retrieve(thread).to_dict()["tool_resources"]
    other = owner.app.call("vector_stores.create").id
    owner.update(thread, tool_resources={"file_search": {"vector_store_ids": [other]}})
    world.forgets(live(world))
    owner.say(thread)
    kept = owner.retrieve(thread).to_dict()["tool_resources"]
    assert {**resources, "file_search": {"vector_store_ids": [other]}} == kept


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
def test_a_thread_created_with_a_run_keeps_what_it_was_created_with(
    world: World, streamed: bool
) -> None:
    app = world.app()
    assistant = app.call("beta.assistants.create", model=MODEL).id
    made = {
        "messages": [{"role": "user", "content": FACT}],
        "metadata": {"user": "ann"},
        "tool_resources": {"file_search": {"vector_stores": [{"file_ids": [file(world)]}]}},
    }
    asked = {"assistant_id": assistant, "thread": made}
    if streamed:
        thread = app.events("beta.threads.create_and_run", **asked)[0].data.id
    else:
        thread = app.call("beta.threads.create_and_run_poll", **asked).thread_id
        app.call("beta.threads.messages.list", thread_id=thread)
    world.forgets(thread)

    post(app, thread)

    shown = app.call("beta.threads.retrieve", thread_id=thread)
    assert {"user": "ann"} == shown.metadata
    (store,) = shown.tool_resources.file_search.vector_store_ids
    assert 1 == app.call("vector_stores.retrieve", vector_store_id=store).file_counts.total


@KINDS
def test_what_is_adopted_has_its_metadata(world: World, kind: str) -> None:
    owner = Owner(world, kind)
    plain = Owner(world, kind)
    plain.app = world.plain()
    handle = plain.create(metadata={"user": "ann"})
    plain.say(handle, FACT)
    owner.say(handle, "Hello.")
    world.drain()
    world.forgets(handle)

    owner.say(handle)

    assert {"user": "ann"} == owner.retrieve(handle).metadata


def test_the_slower_of_two_that_meet_a_loss_shows_the_replica_that_stands(
    sync_world: World,
) -> None:
    """Its own object is an orphan from the start: an app must not be told that id."""
    owner = Owner(sync_world, "conversations")
    handle = owner.create(metadata={"user": "ann"})
    owner.say(handle, FACT)
    sync_world.forgets(handle)
    faster = sync_world.app()
    inner = sync_world.transport()

    class Overtaken:
        """Sends; after the create of the slower one the faster one is done already."""

        def handle_request(self, request: Any) -> Any:
            answer = inner.send(request)
            if (request.method, request.url.path) == ("POST", "/v1/conversations"):
                faster.respond("Hello again.", conversation=handle)
            return answer

        def close(self) -> None:
            inner.close()

    slower = sync_world.app(inner=Overtaken())

    shown = slower.call("conversations.retrieve", conversation_id=handle)

    assert (live(sync_world), {"user": "ann"}) == (shown.id, shown.metadata)
    assert recovered(shown) is None


# -- messages that are changed -------------------------------------------------------------------


def change(app: App, thread: str, message: str, metadata: dict[str, str]) -> Any:
    return app.call(
        "beta.threads.messages.update", thread_id=thread, message_id=message, metadata=metadata
    )


def test_a_changed_message_stays_changed(world: World) -> None:
    app = world.app()
    thread = app.call("beta.threads.create").id
    message = post(app, thread, FACT, metadata={"seen": "no"}).id
    change(app, thread, message, {"seen": "yes"})
    world.forgets(thread)

    post(app, thread)

    assert {"seen": "yes"} == held(world, live(world))[0]["metadata"]


def test_a_message_of_a_lost_thread_can_be_changed(world: World) -> None:
    app = world.app()
    thread = app.call("beta.threads.create").id
    message = post(app, thread, FACT, metadata={"seen": "no"}).id
    world.forgets(thread)

    changed = change(app, thread, message, {"seen": "yes"})

    assert (message, {"seen": "yes"}) == (changed.id, changed.metadata)
    assert recovered(changed) is not None
    shown = app.call("beta.threads.messages.retrieve", thread_id=thread, message_id=message)
    assert {"seen": "yes"} == shown.metadata
    later = post(app, thread).id
    world.provider.clear_requests()
    assert {"seen": "yes"} == change(app, thread, message, {"seen": "yes"}).metadata
    assert [] == world.asked(), "the provider has it under another id"
    assert {"n": "1"} == change(app, thread, later, {"n": "1"}).metadata
    assert [("POST threads/thread/messages/msg", 200)] == world.asked()
    with pytest.raises(openai.BadRequestError, match="16 pairs"):
        change(app, thread, message, {"seen": "x" * 513})


# -- what is gone as well --------------------------------------------------------------------------


def test_a_vector_store_that_expired_is_left_out_alone(world: World) -> None:
    """The store of a thread dies by itself after a week, the files in it do not."""
    app = world.app()
    world.provider.expire_after("vector_stores", timedelta(days=7))
    thread = app.call("beta.threads.create", metadata={"user": "ann"}).id
    attached = [{"file_id": file(world), "tools": SEARCH}]
    post(app, thread, FACT, attachments=attached)
    app.call("beta.threads.retrieve", thread_id=thread)
    world.forgets(thread, after=timedelta(days=8))

    posted = post(app, thread)

    assert [
        ("POST threads/thread/messages", 404),
        ("POST threads", 404),
        ("POST threads", 200),
        ("POST threads/thread/messages", 200),
    ] == world.asked()
    assert {
        "memory": "partial",
        "items_primed": 1,
        "items_left_out": 1,
        "requests": 4,
    }.items() <= (recovered(posted) or {}).items()
    assert attached == held(world, live(world))[0]["attachments"]
    shown = app.call("beta.threads.retrieve", thread_id=thread)
    assert {"user": "ann"} == shown.metadata
    assert shown.tool_resources.file_search.vector_store_ids, "the file is in a store again"


@pytest.mark.parametrize("gone", [1, 2])
def test_files_that_are_gone_are_left_out_and_the_conversation_goes_on(
    world: World, gone: int
) -> None:
    app = world.app()
    thread = app.call("beta.threads.create").id
    named = [file(world) for _ in range(3)]
    attached = [[{"file_id": one, "tools": CODE}] for one in named]
    for one in attached:
        post(app, thread, FACT, attachments=one)
    for file_id in named[:gone]:
        world.provider.forget(file_id)
    world.forgets(thread)

    posted = post(app, thread)

    # With a second one missing, the refusal does not say how many more there are.
    kept = [[], attached[1], attached[2]] if gone == 1 else [[], [], []]
    assert [*kept, []] == [message["attachments"] for message in held(world, live(world))]
    assert {
        "memory": "partial",
        "items_primed": 3,
        "items_left_out": 1 if gone == 1 else 3,
        "requests": 3 + gone,
    }.items() <= (recovered(posted) or {}).items()


def test_a_message_that_is_nothing_but_a_lost_image_is_left_out(world: World) -> None:
    app = world.app()
    thread = app.call("beta.threads.create").id
    image = file(world, "vision")
    part = {"type": "image_file", "image_file": {"file_id": image}}
    post(app, thread, [part])
    post(app, thread, [{"type": "text", "text": FACT}, part])
    world.provider.forget(image)
    world.forgets(thread)

    posted = post(app, thread)

    assert [FACT, QUESTION] == [
        message["content"][0]["text"]["value"] for message in held(world, live(world))
    ]
    assert {"items_primed": 1, "items_left_out": 2, "memory": "partial"}.items() <= (
        recovered(posted) or {}
    ).items()


def test_a_refusal_in_unknown_words_is_tried_without_files(world: World) -> None:
    app = world.app()
    thread = app.call("beta.threads.create").id
    link = {"type": "image_url", "image_url": {"url": "https://a.example/gone.png"}}
    post(app, thread, [{"type": "text", "text": FACT}, link])
    error = {"error": {"message": "Failed to download an image.", "code": "invalid_image_url"}}
    world.forgets(thread)
    world.provider.order(Fault("status", status=400, body=error, match="POST /threads$"))

    posted = post(app, thread)

    assert {"items_left_out": 1, "memory": "partial", "requests": 4}.items() <= (
        recovered(posted) or {}
    ).items()
    assert 1 == len(held(world, live(world))[0]["content"])


def test_a_refusal_that_is_not_about_files_is_passed_on_at_once(world: World) -> None:
    app = world.app()
    thread = app.call("beta.threads.create").id
    post(app, thread, FACT, attachments=[{"file_id": file(world), "tools": CODE}])
    error = {"error": {"message": "You exceeded your current quota.", "code": "quota"}}
    world.forgets(thread)
    world.provider.order(Fault("status", status=403, body=error, match="POST /threads$"))

    with pytest.raises(openai.PermissionDeniedError, match="quota"):
        post(app, thread)

    assert [("POST threads/thread/messages", 404), ("POST threads", 403)] == world.asked()
    assert {"memory": "full", "requests": 3}.items() <= (recovered(post(app, thread)) or {}).items()


def test_a_file_that_the_app_names_now_is_its_own_affair(world: World) -> None:
    app = world.app()
    thread = app.call("beta.threads.create").id
    post(app, thread, FACT)
    world.forgets(thread)

    with pytest.raises(openai.NotFoundError, match="No file found with id 'file-0'"):
        post(app, thread, attachments=[{"file_id": "file-0", "tools": CODE}])

    assert FACT in [message["content"][0]["text"]["value"] for message in held(world, live(world))]


@pytest.mark.parametrize("via", ["conversation", "response"])
@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
def test_a_history_whose_files_are_gone_is_told_without_them(
    world: World, via: str, streamed: bool
) -> None:
    app = world.app()
    ask = app.stream if streamed else app.respond
    at: dict[str, Any] = {}
    if via == "conversation":
        at["conversation"] = app.call("conversations.create").id
    named = [file(world, "vision") for _ in range(3)]
    said = [
        {"type": "input_text", "text": FACT},
        {"type": "input_image", "file_id": named[0]},
        {"type": "input_file", "file_id": named[1]},
    ]
    answer = ask([{"role": "user", "content": said}, {"role": "user", "content": said[1:2]}], **at)
    if via == "response":
        at["previous_response_id"] = answer.id
    for file_id in named[:2]:
        world.provider.forget(file_id)
    world.forgets()

    answer = ask([{"role": "user", "content": [{"type": "input_text", "text": QUESTION},
                  {"type": "input_image", "file_id": named[2]}]}], **at)  # fmt: skip

    assert FACT in answer.output_text
    # The failed call, perhaps a conversation, and the call without one file, without both, whole.
    assert {
        "memory": "partial",
        "items_primed": 2,
        "items_left_out": 3,
        "requests": {"conversation": 5, "response": 4}[via],
    }.items() <= (recovered(answer) or {}).items()


def test_a_file_that_the_message_names_now_is_the_apps_own_affair(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    world.forgets()
    asked = [{"role": "user", "content": [{"type": "input_file", "file_id": "file-0"}]}]

    with pytest.raises(openai.NotFoundError, match="No file found with id 'file-0'"):
        app.respond(asked, conversation=conversation)

    assert FACT in app.respond(QUESTION, conversation=conversation).output_text


def test_a_chat_moves_to_threads_although_its_files_are_gone(world: World) -> None:
    app = world.app()
    subject = {"Perdure-Subject": "ann"}
    image = file(world, "vision")
    app.respond(
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": FACT},
                    {"type": "input_image", "file_id": image},
                ],
            }
        ],
        extra_headers=subject,
    )
    world.provider.forget(image)

    thread = app.call("beta.threads.create", extra_headers=subject).id

    assert [FACT] == [part["text"]["value"] for part in held(world, thread)[0]["content"]]


# -- a conversation that moved between APIs ------------------------------------------------------


def test_a_chain_beside_a_conversation_leaves_the_conversation_alone(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create", metadata={"user": "ann"}).id
    within = app.respond(FACT, conversation=conversation)
    beside = app.respond("My cat is called Tom.", previous_response_id=within.id)
    world.provider.clear_requests()

    again = app.respond("What is my dog called? What is my cat called?", conversation=conversation)
    onward = app.respond(
        "What is my dog called? What is my cat called?", previous_response_id=beside.id
    )

    assert (True, False) == ("Rex" in again.output_text, "Tom" in again.output_text)
    assert (True, True) == ("Rex" in onward.output_text, "Tom" in onward.output_text)
    assert [("POST responses", 200), ("POST responses", 200)] == world.asked()
    shown = app.call("conversations.retrieve", conversation_id=conversation)
    assert (conversation, {"user": "ann"}) == (shown.id, shown.metadata)
    world.forgets()
    again = app.respond("What is my cat called? What is my dog called?", conversation=conversation)
    assert (True, False) == ("Rex" in again.output_text, "Tom" in again.output_text)
    assert {"user": "ann"} == app.call(
        "conversations.retrieve", conversation_id=conversation
    ).metadata
    onward = app.respond("What is my cat called?", previous_response_id=onward.id)
    assert "Tom" in onward.output_text


def test_a_call_without_a_trace_knows_no_more_than_the_response_that_it_continues(
    world: World,
) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    within = app.respond(FACT, conversation=conversation)
    app.respond("My cat is called Tom.", conversation=conversation)
    world.forgets()

    answer = app.respond(
        "What is my dog called? What is my cat called?",
        previous_response_id=within.id,
        store=False,
    )

    assert (True, False) == ("Rex" in answer.output_text, "Tom" in answer.output_text)


@pytest.mark.parametrize("lost", [False, True], ids=["living", "lost"])
def test_the_id_of_the_api_before_goes_on_working(world: World, lost: bool) -> None:
    app = world.app()
    subject = {"Perdure-Subject": "ann"}
    conversation = app.call(
        "conversations.create", metadata={"user": "ann"}, extra_headers=subject
    ).id
    app.respond(FACT, conversation=conversation)
    thread = app.call("beta.threads.create", extra_headers=subject).id
    post(app, thread, "My cat is called Tom.")
    if lost:
        world.forgets()
    shown = app.call("conversations.retrieve", conversation_id=conversation)
    assert {"user": "ann"} == shown.metadata
    listed = app.call("conversations.items.list", conversation_id=conversation, order="asc")
    assert [FACT, f"Noted: {FACT}"] == [item.content[0].text for item in listed.data][:2]

    answer = app.respond("What is my dog called? What is my cat called?", conversation=conversation)

    assert (True, True) == ("Rex" in answer.output_text, "Tom" in answer.output_text)
    assert "full" == (recovered(answer) or {})["memory"]
    assert {"user": "ann"} == app.call(
        "conversations.retrieve", conversation_id=conversation
    ).metadata
    posted = post(app, thread, "And back again.")
    assert "full" == (recovered(posted) or {})["memory"]
    assert 5 == (recovered(posted) or {})["items_primed"]


def test_a_conversation_that_moved_is_deleted_wherever_it_is(world: World) -> None:
    app = world.app()
    subject = {"Perdure-Subject": "ann"}
    conversation = app.call("conversations.create", extra_headers=subject).id
    app.respond(FACT, conversation=conversation)
    thread = app.call("beta.threads.create", extra_headers=subject).id

    assert app.call("conversations.delete", conversation_id=conversation).deleted

    assert [(thread,)] == world.rows("SELECT handle FROM perdure_orphan WHERE deleted_at IS NULL")
    with pytest.raises(openai.NotFoundError):
        app.respond(QUESTION, conversation=conversation)


def test_the_update_of_a_store_that_fails_is_not_lost_for_the_app(
    sync_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = Owner(sync_world, "conversations")
    handle = owner.create()
    store = sync_world.store()
    perform = store.perform

    def failing(op: Any) -> Any:
        if isinstance(op, ops.Refresh):
            raise perdure.errors.StoreUnavailable("The disk is full.")
        return perform(op)

    monkeypatch.setattr(store, "perform", failing)
    owner.app = sync_world.app(store=store)

    updated = owner.update(handle, metadata={"user": "ann"})

    assert {"user": "ann"} == updated.metadata
    assert {"stored": False} == recovered(updated)
