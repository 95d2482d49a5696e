"""Every id that was ever issued goes on working, and points to what it stood for."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import openai
import pytest

import perdure
from perdure.dialects.items import text_of
from perdure.engine.adopt import _before
from perdure.model import StoredItem
from perdure.testing import Fault, Provider
from perdure.testing.provider import KNOWS_NOTHING
from tests.world import LONG, MODEL, World, recovered

DOG = "My dog is called Rex."
CAT = "My cat is called Tom."


def test_an_older_response_continued_again_keeps_both_lines(world: World) -> None:
    app = world.app()
    root = app.respond(DOG)
    left = app.respond(CAT, previous_response_id=root.id)
    right = app.respond("My horse is called Bella.", previous_response_id=root.id)
    world.forgets()

    on_left = app.respond("What about a horse?", previous_response_id=left.id)
    on_right = app.respond("What about a horse?", previous_response_id=right.id)

    assert KNOWS_NOTHING in on_left.output_text
    assert "Bella" in on_right.output_text
    assert CAT in app.respond("What is my cat called?", previous_response_id=on_left.id).output_text
    assert (
        DOG in app.respond("What is my dog called?", previous_response_id=on_right.id).output_text
    )


def test_a_branch_of_a_branch_knows_its_whole_line(world: World) -> None:
    app = world.app()
    root = app.respond(DOG)
    app.respond("One.", previous_response_id=root.id)
    branch = app.respond(CAT, previous_response_id=root.id)
    app.respond("Two.", previous_response_id=branch.id)
    twig = app.respond("My horse is called Bella.", previous_response_id=branch.id)
    world.forgets()

    answer = app.respond("What do you know of my dog?", previous_response_id=twig.id)

    assert DOG in answer.output_text
    assert 6 == (recovered(answer) or {})["items_primed"]


def test_a_refused_message_hides_no_line(world: World) -> None:
    """A user's chat, and somebody who goes on from its first answer."""
    app, user = world.app(), {"extra_headers": {"perdure-subject": "ann"}}
    first = app.respond(DOG, **user)
    world.provider.order(Fault("status", status=400, match="POST /responses"))
    with pytest.raises(openai.BadRequestError):
        app.respond("Refused.", **user)
    app.respond(CAT, **user)
    app.respond("Say that again.", previous_response_id=first.id)

    assert CAT in app.respond("What is my cat called?", **user).output_text


def test_an_old_id_goes_on_working_through_many_losses(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(DOG, conversation=conversation)
    for generation in range(1, 4):
        world.forgets()
        answer = app.respond("What is my dog called?", conversation=conversation)
        assert DOG in answer.output_text
        assert generation == (recovered(answer) or {})["generation"]


def test_every_id_of_a_conversation_leads_to_the_same_one(world: World) -> None:
    app = world.app()
    first = app.call("conversations.create").id
    app.respond(DOG, conversation=first)
    world.forgets()
    second = app.respond("Hello.", conversation=first).conversation.id
    world.forgets()
    third = app.respond(CAT, conversation=second).conversation.id
    world.provider.clear_requests()

    for handle in (first, second, third):
        answer = app.respond("What is my cat called?", conversation=handle)
        assert CAT in answer.output_text
        assert third == answer.conversation.id
    assert 3 == len(world.asked())


def test_items_after_a_loss_are_listed_as_the_app_saw_them(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    made = app.call(
        "conversations.items.create",
        conversation_id=conversation,
        items=[{"type": "message", "role": "user", "content": DOG}],
    )
    answer = app.respond("What is my dog called?", conversation=conversation)
    world.forgets()
    app.respond("Hello again.", conversation=conversation)

    listed = app.call("conversations.items.list", conversation_id=conversation, order="asc")

    assert ["user", "assistant"] * 2 == [item.role for item in listed.data][1:]
    assert made.data[0].to_dict() == listed.data[0].to_dict()
    assert answer.output[0].to_dict() == listed.data[2].to_dict()


def test_items_appended_after_a_loss_come_after_the_history(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(DOG, conversation=conversation)
    world.forgets()
    for text in ("My cat is called Tom.", "My horse is called Bella."):
        app.call(
            "conversations.items.create",
            conversation_id=conversation,
            items=[{"type": "message", "role": "user", "content": text}],
        )

    answer = app.respond("Hello.", conversation=conversation)

    held = [item["content"][0]["text"] for item in world.provider.items(answer.conversation.id)]
    assert [DOG, f"Noted: {DOG}", CAT, "My horse is called Bella.", "Hello."] == held[:5]
    assert 3 == len(world.asked())
    # Told when the replica was replaced, and when it has its history.
    assert ["none", "full"] == [recovery.memory for recovery in world.recoveries]
    listed = app.call("conversations.items.list", conversation_id=conversation)
    assert [] == [
        item.id for item in listed.data if not re.fullmatch(r"msg_[A-Za-z0-9_-]+", item.id)
    ]


def test_a_handle_first_seen_today_is_adopted_with_its_history(world: World) -> None:
    plain = world.plain()
    conversation = plain.call("conversations.create").id
    plain.respond(DOG, conversation=conversation)
    plain.respond(CAT, conversation=conversation)
    app = world.app()
    app.respond("Hello.", conversation=conversation)
    world.drain()
    world.forgets()

    answer = app.respond("What is my dog called?", conversation=conversation)

    assert DOG in answer.output_text
    assert {"memory": "full", "items_primed": 6}.items() <= (recovered(answer) or {}).items()


def test_a_thread_first_seen_today_is_adopted_with_its_history(world: World) -> None:
    plain = world.plain()
    thread, assistant = plain.thread()
    plain.say(thread, assistant, DOG)
    app = world.app()
    app.say(thread, assistant, "Hello.")
    world.drain()
    world.forgets(thread)

    assert DOG in app.say(thread, assistant, "What is my dog called?")


def test_a_chain_first_seen_today_is_adopted_with_its_history(world: World) -> None:
    plain = world.plain()
    first = plain.respond(DOG)
    second = plain.respond(CAT, previous_response_id=first.id)
    app = world.app()
    third = app.respond("Hello.", previous_response_id=second.id)
    world.drain()
    world.forgets()

    answer = app.respond("What is my dog called?", previous_response_id=third.id)

    assert DOG in answer.output_text
    assert 6 == (recovered(answer) or {})["items_primed"]


def test_a_response_with_a_long_input_is_adopted_whole(world: World) -> None:
    said = [{"type": "message", "role": "user", "content": f"Line {n}."} for n in range(150)]
    first = world.plain().respond([{**said[0], "content": DOG}, *said])
    app = world.app()
    second = app.respond("Hello.", previous_response_id=first.id)
    world.drain()
    world.forgets()

    answer = app.respond("What is my dog called?", previous_response_id=second.id)

    assert DOG in answer.output_text
    assert 151 + 1 + 2 == (recovered(answer) or {})["items_primed"]


def test_a_chain_whose_server_fails_for_a_moment_is_adopted_whole(world: World) -> None:
    plain = world.plain()
    second = plain.respond(CAT, previous_response_id=plain.respond(DOG).id)
    app = world.app()
    inputs = r"GET /responses/[^/]+/input_items"
    world.provider.order(Fault("status", status=500, match=inputs))
    third = app.respond("Hello.", previous_response_id=second.id)
    world.drain()
    world.clock.advance(LONG)
    fourth = app.respond("Hello again.", previous_response_id=third.id)
    world.drain()
    world.forgets()

    answer = app.respond("What is my dog called?", previous_response_id=fourth.id)

    assert DOG in answer.output_text
    assert 8 == (recovered(answer) or {})["items_primed"]


def test_a_list_of_a_thread_first_seen_today_does_not_put_its_past_behind_its_present(
    world: World,
) -> None:
    plain = world.plain()
    thread, assistant = plain.thread()
    plain.say(thread, assistant, DOG)
    app = world.app()
    asked = {"thread_id": thread, "assistant_id": assistant}
    more = [{"role": "user", "content": "Hello."}]
    app.call("beta.threads.runs.create_and_poll", **asked, additional_messages=more)

    listed = app.call("beta.threads.messages.list", thread_id=thread, order="asc")

    assert 4 == len(listed.data)
    app.say(thread, assistant, "What is my dog called?")
    world.drain()
    said = world.rows("SELECT json_extract(input, '$.content') FROM perdure_item ORDER BY position")
    texts = [text_of({"content": json.loads(one) if "[" in one else one}) for (one,) in said]
    assert [DOG, f"Noted: {DOG}", "Hello."] == texts[:3]
    assert 6 == len(texts)


def test_history_that_is_adopted_after_a_rebuild_is_brought_along(sync_world: World) -> None:
    world, plain = sync_world, sync_world.plain()
    conversation = plain.call("conversations.create").id
    plain.respond(DOG, conversation=conversation)
    app = world.app()
    listing = r"GET /conversations/[^/]+/items"
    world.provider.order(Fault("delay", seconds=1.0, match=listing))
    app.respond("Hello.", conversation=conversation)
    while not any(request.path.endswith("/items") for request in world.provider.requests):
        time.sleep(0.01)
    replica = world.provider.state.conversations[conversation]
    world.provider.forget(conversation)
    app.respond("Hello again.", conversation=conversation)  # made without what is on its way
    world.provider.state.conversations[conversation] = replica
    world.drain()

    answer = app.respond("What is my dog called?", conversation=conversation)

    assert DOG in answer.output_text


@pytest.mark.parametrize("line", ["newest", "older", "branch", "beside"])
def test_history_that_is_adopted_late_is_brought_along_on_every_line(
    world: World, line: str
) -> None:
    """Whatever goes on from a prime that lacked it; what was never rebuilt goes on as it is."""
    plain, app = world.plain(), world.app()
    first = plain.respond(CAT, previous_response_id=plain.respond(DOG).id)
    world.provider.order(Fault("status", status=500, match=r"GET /responses/[^/]+"))
    second = app.respond("Hello.", previous_response_id=first.id)
    world.drain()  # the adoption was broken off
    world.provider.forget(second.id)
    rebuilt = app.respond("Still there?", previous_response_id=second.id)
    branch = app.respond("A branch.", previous_response_id=second.id)
    assert ["partial"] * 2 == [(recovered(one) or {})["memory"] for one in (rebuilt, branch)]
    beside = app.respond("Beside.", previous_response_id=first.id)
    world.clock.advance(LONG)
    newest = app.respond("Well.", previous_response_id=rebuilt.id)
    world.drain()  # and was taken up again
    lines = {"newest": newest, "older": rebuilt, "branch": branch, "beside": beside}

    answer = app.respond("What is my dog called?", previous_response_id=lines[line].id)

    assert DOG in answer.output_text
    assert (None if line == "beside" else "full") == (recovered(answer) or {}).get("memory")


def test_what_was_never_sent_is_not_looked_for_in_the_past() -> None:
    """A log's first items without ids are the newest of a list, as far as they got there."""

    def own(text: str) -> StoredItem:
        wire = json.dumps({"role": "user", "content": text})
        return StoredItem(1, "message", "user", None, None, wire, wire, 0.0)

    listed = [
        {"id": f"msg_{text}", "role": "user", "content": [{"type": "input_text", "text": text}]}
        for text in ("two", "old", "older")
    ]
    unsent = [own("three"), own("two"), own("one")]

    assert listed[1:] == _before(unsent, listed)
    assert [] == unsent, "behind the first that is not theirs there is nothing of theirs"
    assert listed == _before([], listed)


def test_an_unknown_dead_handle_is_the_providers_error(world: World) -> None:
    app = world.app()
    conversation = world.plain().call("conversations.create").id
    world.forgets()

    with pytest.raises(openai.NotFoundError, match=conversation):
        app.respond("Hello.", conversation=conversation)
    with pytest.raises(openai.BadRequestError, match="not found"):
        app.respond("Hello.", previous_response_id="resp_" + "0" * 48)

    assert [] == world.recoveries


def test_an_unknown_dead_handle_can_start_afresh(world: World) -> None:
    app = world.app(policy=perdure.Policy(on_unknown="fresh"))
    conversation = world.plain().call("conversations.create").id
    world.forgets()

    answer = app.respond("Hello.", conversation=conversation)

    assert "none" == (recovered(answer) or {})["memory"]


def begun_by(app: Any, how: str, handle: str) -> None:
    """Use a conversation's handle for the first time."""
    at = {"conversation_id": handle}
    if how == "append":
        items = [{"type": "message", "role": "user", "content": DOG}]
        (made,) = app.call("conversations.items.create", items=items, **at).data
        assert DOG == made.content[0].text
    elif how == "list":
        assert [] == app.call("conversations.items.list", **at).data
    else:
        assert app.call("conversations.retrieve", **at).id.startswith("conv_")


@pytest.mark.parametrize("how", ["append", "list", "read"])
def test_an_unknown_dead_conversation_can_start_afresh_in_any_way(world: World, how: str) -> None:
    app = world.app(policy=perdure.Policy(on_unknown="fresh"))
    handle = "conv_" + "a" * 48

    begun_by(app, how, handle)

    (recovery,) = world.recoveries
    assert ("none", handle) == (recovery.memory, recovery.lost_handle)
    app.respond(CAT, conversation=handle)
    known = app.respond("What is my cat called? And what of my dog?", conversation=handle)
    assert CAT in known.output_text
    listed = app.call("conversations.items.list", conversation_id=handle, order="asc").data
    assert [DOG, CAT][how != "append" :] == [
        text_of(item.to_dict()) for item in listed if item.role == "user"
    ][:-1]
    world.forgets()
    assert CAT in app.respond("What is my cat called?", conversation=handle).output_text


@pytest.mark.parametrize("handle", ["conv_größer", "conv_\u0645", "conv_a b"])
def test_any_text_may_be_a_handle(world: World, handle: str) -> None:
    app = world.app(policy=perdure.Policy(on_unknown="fresh"))
    gone = {"message": f"Conversation with id '{handle}' not found.", "code": None}
    world.provider.order(Fault("status", status=404, body={"error": gone}))

    answer = app.respond("Hello.", conversation=handle)

    assert handle == (recovered(answer) or {})["lost_handle"]


@pytest.mark.parametrize("also", ["append", "read"])
def test_nothing_that_is_begun_afresh_is_left_over(sync_world: World, also: str) -> None:
    """A page that loads a conversation asks for several things at once."""
    world, handle = sync_world, "conv_" + "a" * 48
    policy = perdure.Policy(on_unknown="fresh")
    apps = [world.app(policy=policy, sleep=time.sleep) for _ in range(2)]
    world.provider.order(Fault("delay", seconds=0.3, times=2))

    with ThreadPoolExecutor(2) as at_once:
        for done in [
            at_once.submit(begun_by, app, how, handle)
            for app, how in zip(apps, ("list", also), strict=True)
        ]:
            done.exception()

    made = sum(one[0] == "POST conversations" for one in world.asked())
    ((orphans,),) = world.rows("SELECT count(*) FROM perdure_orphan")
    assert made == 1 + orphans  # one that was slower is deleted
    assert [(1, "live")] == world.rows("SELECT generation, replica_state FROM perdure_conversation")


@pytest.mark.parametrize("how", ["append", "list", "read"])
def test_an_unknown_dead_conversation_stays_dead_unless_the_policy_says_so(
    world: World, how: str
) -> None:
    with pytest.raises(openai.NotFoundError):
        begun_by(world.app(), how, "conv_" + "a" * 48)
    assert [] == world.recoveries


def test_deleting_an_item_keeps_it_out_of_later_primes(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    made = app.call(
        "conversations.items.create",
        conversation_id=conversation,
        items=[{"type": "message", "role": "user", "content": DOG}],
    )
    app.call("conversations.items.delete", conversation_id=conversation, item_id=made.data[0].id)
    world.forgets()

    answer = app.respond("What is my dog called?", conversation=conversation)

    assert KNOWS_NOTHING in answer.output_text


@pytest.mark.parametrize("when", ["before the loss", "after it"])
@pytest.mark.parametrize("way", ["created with", "said", "a thread's", "posted"])
def test_what_the_app_only_sent_stays_deleted(world: World, way: str, when: str) -> None:
    """Its id is the provider's, which the log has not: or one that was made for a list of ours."""
    app = world.app()
    thread = way in {"a thread's", "posted"}
    said = {"role": "user", "content": DOG}
    if thread:
        handle, assistant = app.thread()
        if way == "a thread's":
            handle = app.call("beta.threads.create", messages=[said]).id
        else:
            app.call("beta.threads.messages.create", thread_id=handle, **said)
        api, at, named = "beta.threads.messages", {"thread_id": handle}, "message_id"
    else:
        items = [{"type": "message", **said}] if way == "created with" else []
        handle = app.call("conversations.create", items=items).id
        if way == "said":
            app.respond(DOG, conversation=handle)
        api, at, named = "conversations.items", {"conversation_id": handle}, "item_id"
    if when == "after it":
        world.forgets(handle)
    listed = app.call(f"{api}.list", **at).data
    for item in listed:
        if DOG in str(item.content) or "Rex" in str(item.content):
            app.call(f"{api}.delete", **{named: item.id}, **at)
    if when == "before the loss":
        world.forgets(handle)

    asked = "What is my dog called?"
    if thread:
        answer = app.say(handle, assistant, asked)
    else:
        answer = app.respond(asked, conversation=handle).output_text

    assert KNOWS_NOTHING in answer


@pytest.mark.parametrize("made", ["msg_perdure", "msg_perdure_of_nobody", "msg_perdure" + 37 * "f"])
def test_an_id_that_only_looks_made_here_deletes_nothing(world: World, made: str) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(DOG, conversation=conversation)

    with pytest.raises(openai.NotFoundError):
        app.call("conversations.items.delete", conversation_id=conversation, item_id=made)

    world.forgets()
    asked = app.respond("What is my dog called?", conversation=conversation)
    assert DOG in asked.output_text


def test_an_item_deleted_after_a_rebuild_is_forgotten_too(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    made = app.call(
        "conversations.items.create",
        conversation_id=conversation,
        items=[{"type": "message", "role": "user", "content": DOG}],
    )
    world.forgets()
    app.respond("Hello.", conversation=conversation)
    app.call("conversations.items.delete", conversation_id=conversation, item_id=made.data[0].id)

    answer = app.respond("What is my dog called?", conversation=conversation)

    assert KNOWS_NOTHING in answer.output_text


# -- deleting what is lost, or has been rebuilt ---------------------------------------------------

LONG_TEXT = " ".join(f"Chapter {n} tells of a journey over land and sea." for n in range(60))
KINDS = pytest.mark.parametrize("kind", ["conversation", "thread"])


class Deleting:
    """One item of a conversation or thread, and the same calls for both."""

    def __init__(self, world: World, kind: str) -> None:
        self.app, self.kind = world.app(), kind
        said = {"role": "user", "content": DOG}
        if kind == "conversation":
            items = [{"type": "message", **said}]
            self.handle = self.app.call("conversations.create").id
            self.at = {"conversation_id": self.handle}
            made = self.app.call("conversations.items.create", items=items, **self.at).data[0]
            self.api, self.named = "conversations", {"item_id": made.id}
        else:
            self.handle, self.assistant = self.app.thread()
            self.at = {"thread_id": self.handle}
            made = self.app.call("beta.threads.messages.create", **said, **self.at)
            self.api, self.named = "beta.threads", {"message_id": made.id}

    def delete(self) -> Any:
        part = "items" if self.kind == "conversation" else "messages"
        return self.app.call(f"{self.api}.{part}.delete", **self.named, **self.at)

    def delete_all(self) -> Any:
        return self.app.call(f"{self.api}.delete", **self.at)

    def ask(self, text: str) -> str:
        if self.kind == "conversation":
            return str(self.app.respond(text, conversation=self.handle).output_text)
        return self.app.say(self.handle, self.assistant, text)


@KINDS
def test_an_item_of_what_the_provider_has_lost_can_be_deleted(world: World, kind: str) -> None:
    talk = Deleting(world, kind)
    world.forgets(talk.handle)

    gone = talk.delete()

    assert gone.id == (talk.handle if kind == "conversation" else talk.named["message_id"])
    assert 1 == len(world.asked()), "it was not known before"
    assert KNOWS_NOTHING in talk.ask("What is my dog called?")
    with pytest.raises(openai.NotFoundError):
        talk.delete()


@KINDS
def test_an_item_can_be_deleted_while_its_replica_is_rebuilt(sync_world: World, kind: str) -> None:
    """What is being created may have it: another one is made, inside the same call."""
    talk = Deleting(sync_world, kind)
    sync_world.forgets(talk.handle)
    sync_world.provider.order(Fault("delay", seconds=1.0, match=r"POST /(threads|conversations)$"))

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(talk.ask, "What is my dog called?")
        while not any(
            one.path.endswith(("/threads", "/conversations"))
            for one in sync_world.provider.requests
        ):
            time.sleep(0.01)
        talk.delete()
        assert KNOWS_NOTHING in asked.result(timeout=30)

    sync_world.drain()
    created = sync_world.asked().count((f"POST {talk.kind}s", 200))
    assert 2 == created
    orphans = sync_world.rows("SELECT COUNT(*) FROM perdure_orphan WHERE handle IS NOT NULL")
    assert [(1,)] == orphans


def test_what_cannot_be_told_by_its_id_just_now_is_not_deleted_yet(world: World) -> None:
    """Deleted at the provider alone, it would come back with the next prime."""
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(DOG, conversation=conversation)
    at = {"conversation_id": conversation}
    said = world.plain().call("conversations.items.list", **at).data[-1].id
    world.provider.clear_requests()
    world.provider.order(Fault("status", status=500, match="GET /conversations/.*/items/"))

    with pytest.raises(openai.InternalServerError):
        app.call("conversations.items.delete", item_id=said, **at)
    assert [("GET conversations/conv/items/msg", 500)] == world.asked()
    app.call("conversations.items.delete", item_id=said, **at)
    world.forgets()

    answer = app.respond("What is my dog called?", conversation=conversation)
    assert KNOWS_NOTHING in answer.output_text


def test_the_thread_that_has_a_deleted_message_is_deleted_too(world: World) -> None:
    talk = Deleting(world, "thread")
    world.forgets(talk.handle)
    talk.ask("Hello.")
    world.provider.clear_requests()

    talk.delete()
    world.drain()

    assert [("DELETE threads/thread", 200)] == world.asked()
    assert KNOWS_NOTHING in talk.ask("What is my dog called?")


def test_the_conversation_that_has_a_deleted_item_is_emptied_some_time_later(
    world: World,
) -> None:
    """Somebody who was asleep would take for whole what is being emptied."""
    talk = Deleting(world, "conversation")
    world.forgets(talk.handle)
    talk.ask("Hello.")
    old, known = set(world.provider.state.conversations), talk.named
    world.provider.clear_requests()

    talk.delete()
    world.drain()
    assert [] == world.asked()
    assert KNOWS_NOTHING in talk.ask("What is my dog called?")

    world.clock.advance(timedelta(minutes=11))
    talk.named = {"item_id": talk.app.respond("Bye.", conversation=talk.handle).output[0].id}
    talk.delete()
    world.drain()

    assert known != talk.named
    assert old.isdisjoint(world.provider.state.conversations)
    emptied = [kind for kind, _ in world.asked() if kind == "DELETE conversations/conv/items/msg"]
    assert 3 == len(emptied), "what the model was told, what it was asked, and what it said"


@KINDS
def test_what_the_provider_has_lost_can_be_deleted(world: World, kind: str) -> None:
    talk = Deleting(world, kind)
    world.forgets(talk.handle)

    deleted = talk.delete_all()

    assert (talk.handle, True) == (deleted.id, deleted.deleted)
    with pytest.raises(openai.NotFoundError):
        talk.ask("What is my dog called?")


def test_a_response_that_the_provider_has_lost_can_be_deleted(world: World) -> None:
    app = world.app()
    first = app.respond(DOG)
    world.forgets()

    app.call("responses.delete", response_id=first.id)

    with pytest.raises(openai.NotFoundError):
        app.call("responses.retrieve", response_id=first.id)


@pytest.mark.parametrize("kind", ["conversation", "response"])
def test_a_server_without_the_route_has_deleted_nothing(world: World, kind: str) -> None:
    app = world.app()
    handle = app.call("conversations.create").id if kind == "conversation" else None
    said = app.respond("Hello.", conversation=handle) if handle else app.respond("Hello.")
    world.clock.advance(LONG)
    missing = {"detail": "Not Found"}
    for method in ("DELETE", "GET"):
        match = f"{method} /{kind}s/"
        world.provider.order(Fault("status", status=404, body=missing, match=match))

    with pytest.raises(openai.NotFoundError):
        app.call(f"{kind}s.delete", **{f"{kind}_id": handle or said.id})


def test_deleting_a_response_leaves_its_conversation(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    said = app.respond(DOG, conversation=conversation)

    app.call("responses.delete", response_id=said.id)

    assert [] == world.rows("SELECT handle FROM perdure_orphan")
    assert conversation in world.provider.state.conversations


def test_a_response_that_is_no_replica_any_more_is_deleted_all_the_same(world: World) -> None:
    """It is given up, which is not gone: the answer is at the provider."""
    app = world.app()
    first = app.respond(DOG)
    second = app.respond(LONG_TEXT, previous_response_id=first.id)
    world.provider.order(Fault("amnesia"))
    asked = {"model": MODEL, "input": "What is my dog called?", "previous_response_id": second.id}
    given_up = app.events("responses.create", **asked)[-1].response
    assert "forgot" == (recovered(given_up) or {})["reason"]
    world.provider.clear_requests()

    app.call("responses.delete", response_id=given_up.id)

    assert [("DELETE responses/resp", 200)] == world.asked()


def test_a_rebuilt_conversation_whose_delete_fails_is_deleted_later(world: World) -> None:
    """The app cannot name it: its own id is that of the one that was lost."""
    talk = Deleting(world, "conversation")
    world.forgets(talk.handle)
    talk.ask("Hello.")
    (new,) = world.provider.state.conversations
    world.provider.order(Fault("status", status=500, match="DELETE /conversations"))

    with pytest.raises(openai.InternalServerError):
        talk.delete_all()

    assert [(new,)] == world.rows("SELECT handle FROM perdure_orphan")
    with pytest.raises(openai.NotFoundError):
        talk.ask("What is my dog called?")


def test_a_reply_that_nobody_has_read_outlives_its_threads_deleted_message(world: World) -> None:
    talk = Deleting(world, "thread")
    world.forgets(talk.handle)
    talk.ask("Hello.")
    talk.app.call("beta.threads.messages.create", role="user", content="Is it so?", **talk.at)
    ran = {"assistant_id": talk.assistant, **talk.at}
    run = talk.app.call("beta.threads.runs.create_and_poll", **ran)

    talk.delete()

    listed = talk.app.call("beta.threads.messages.list", **talk.at).data
    assert [run.id] == [one.run_id for one in listed if one.run_id == run.id]


def test_an_item_delete_that_is_sent_again_deletes_no_other_of_the_same_text(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    for _ in range(2):
        app.respond(DOG, conversation=conversation)
    at = {"conversation_id": conversation}
    listed = world.plain().call("conversations.items.list", **at).data
    said = [item.id for item in listed if item.role == "user"]
    world.provider.order(Fault("status", status=500, match="DELETE /conversations/.*/items/"))
    with pytest.raises(openai.InternalServerError):
        app.call("conversations.items.delete", item_id=said[0], **at)

    app.call("conversations.items.delete", item_id=said[0], **at)
    world.forgets()

    answer = app.respond("What is my dog called?", conversation=conversation)
    assert DOG in answer.output_text


def test_what_is_known_to_be_lost_is_deleted_without_asking(world: World) -> None:
    talk = Deleting(world, "conversation")
    world.forgets(talk.handle)
    talk.delete()
    world.provider.clear_requests()

    assert talk.delete_all().deleted

    assert [] == world.asked()


def test_a_store_false_call_is_recovered_and_leaves_nothing(world: World) -> None:
    app = world.app()
    first = app.respond(DOG)
    world.forgets(first.id)

    answer = app.respond("What is my dog called?", previous_response_id=first.id, store=False)

    assert DOG in answer.output_text
    assert recovered(answer) is not None
    assert [(2,)] == world.rows("SELECT count(*) FROM perdure_item")


def test_a_lost_response_is_still_readable(world: World) -> None:
    app = world.app()
    first = app.respond(DOG)
    world.forgets(first.id)

    again = app.call("responses.retrieve", response_id=first.id)

    assert first.output[0].to_dict() == again.output[0].to_dict()
    assert recovered(again) is not None


def test_a_tool_call_and_its_output_survive(world: World) -> None:
    app = world.app()
    tool = {
        "type": "function",
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {}},
    }
    first = app.respond(DOG)
    asked = app.respond("What is the weather?", previous_response_id=first.id, tools=[tool])
    (call,) = asked.output
    assert "function_call" == call.type
    world.forgets()

    answer = app.respond(
        [{"type": "function_call_output", "call_id": call.call_id, "output": "It is sunny."}],
        previous_response_id=asked.id,
    )

    assert "It is sunny." in answer.output_text
    assert 4 == (recovered(answer) or {})["items_primed"]


def test_a_call_that_was_never_answered_is_left_out(world: World) -> None:
    app = world.app()
    tool = {
        "type": "function",
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {}},
    }
    first = app.respond("What is the weather?", tools=[tool])
    world.forgets()

    answer = app.respond("Never mind. " + DOG, previous_response_id=first.id)

    assert {"items_primed": 1, "items_left_out": 1}.items() <= (recovered(answer) or {}).items()


def test_an_id_that_is_issued_again_leads_to_nobody_elses_conversation(world: World) -> None:
    """A server that was restarted counts anew: its first id was somebody else's before."""
    first_life = Provider(clock=world.clock, seed="again").start()
    url = first_life.base_url
    ours, theirs = world.app(), world.app()
    for app in (ours, theirs):
        app.sdk = app.sdk.with_options(base_url=url)
    secret = ours.respond("My password is swordfish.")
    first_life.close()
    second_life = Provider(
        clock=world.clock, seed="again", port=int(url.split(":")[2].split("/")[0])
    )
    second_life.start()

    other = theirs.respond(DOG)
    answer = theirs.respond("What is my password?", previous_response_id=other.id)

    assert secret.id in second_life.state.responses
    assert other.id != secret.id
    assert 3 == len([1 for asked in second_life.requests if asked.method == "POST"])
    assert "swordfish" not in answer.output_text
    second_life.close()
