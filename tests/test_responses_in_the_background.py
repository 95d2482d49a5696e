"""Responses that are made in the background recover as visibly as others, and stand in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from perdure.testing import Fault
from perdure.testing.provider import response_body
from tests.world import LONG, App, World, recovered

DOG = "My dog is called Rex."
CAT = "My cat is called Tom."
QUESTION = "What is my dog called?"
NEXT = "What is my cat called?"
HANDLES = ["conversation", "chain"]
GET = r"GET /responses/[^/]+"


class Talk:
    """A conversation or a chain of two turns."""

    def __init__(self, world: World, handle: str) -> None:
        self.world, self.app = world, world.app()
        self.on: dict[str, Any] = {}
        if handle == "conversation":
            self.on = {"conversation": self.app.call("conversations.create").id}
        for said in (DOG, CAT):
            self.says(said)

    def says(self, message: str, **values: Any) -> Any:
        """Say something where the talk stands, and go on from the answer."""
        answer = self.app.respond(message, **self.on, **values)
        if "conversation" not in self.on:
            self.on = {"previous_response_id": answer.id}
        return answer

    def polled(self, response: Any) -> Any:
        while response.status != "completed":
            response = self.app.call("responses.retrieve", response_id=response.id)
        return response

    def told_after_a_loss(self) -> list[str]:
        """Return what a new replica is told of the talk."""
        self.world.forgets()
        answer = self.says("Thank you.")
        assert "full" == (recovered(answer) or {})["memory"]
        rows = self.world.rows(
            "SELECT json_extract(wire, '$.content'), wire FROM perdure_item "
            "WHERE NOT withdrawn AND tombstoned_at IS NULL ORDER BY key"
        )
        assert (recovered(answer) or {})["items_primed"] == len(rows) - 2
        return [text if "[" not in text else "answer" for text, _ in rows[:-2]]


@pytest.fixture(params=HANDLES)
def talk(world: World, request: pytest.FixtureRequest) -> Talk:
    return Talk(world, request.param)


def test_a_rebuild_is_told_of_at_once(world: World, talk: Talk) -> None:
    world.forgets()

    begun = talk.says(QUESTION, background=True)

    told = recovered(begun) or {}
    assert ("queued", "full", 4) == (begun.status, told["memory"], told["items_primed"])
    assert [("gone", 1)] == [(one.reason, one.generation) for one in world.recoveries]
    assert [(1, "gone", "full", 4)] == world.rows(
        "SELECT generation, reason, memory, primed FROM perdure_recovery"
    )
    assert DOG in talk.polled(begun).output_text


@pytest.mark.parametrize("shows", [True, False])
def test_the_history_is_given_once(
    world: World, talk: Talk, monkeypatch: pytest.MonkeyPatch, *, shows: bool
) -> None:
    """Also by a server that does not show in which conversation a response stands."""
    whole = response_body.skeleton

    def skeleton(*args: Any) -> dict[str, Any]:
        return {key: one for key, one in whole(*args).items() if key != "conversation" or shows}

    monkeypatch.setattr(response_body, "skeleton", skeleton)
    world.forgets()
    talk.polled(talk.says(QUESTION, background=True))
    world.provider.clear_requests()

    answer = talk.says(NEXT)

    assert [("POST responses", 200)] == world.asked()
    assert recovered(answer) is None
    (asked,) = [one for one in world.provider.requests if one.method == "POST"]
    assert DOG not in str(asked.body)


def test_a_healthy_one_that_is_polled_costs_nothing_extra(world: World, talk: Talk) -> None:
    world.provider.clear_requests()
    begun = talk.says(QUESTION, background=True)
    talk.polled(begun)
    talk.says(NEXT)

    posts = [one for one in world.asked() if one[0].startswith("POST")]
    assert [("POST responses", 200)] * 2 == posts
    assert [DOG, "answer", CAT, "answer", QUESTION, "answer", NEXT, "answer"] == (
        talk.told_after_a_loss()
    )


def test_an_answer_that_nobody_has_polled_comes_before_what_is_said_next(
    world: World, talk: Talk
) -> None:
    begun = talk.says(QUESTION, background=True)
    world.plain().call("responses.retrieve", response_id=begun.id)  # it comes on at the provider
    world.plain().call("responses.retrieve", response_id=begun.id)
    world.provider.clear_requests()

    assert CAT in talk.says(NEXT).output_text

    assert [("GET responses/resp", 200), ("POST responses", 200)] == world.asked()
    assert [DOG, "answer", CAT, "answer", QUESTION, "answer", NEXT, "answer"] == (
        talk.told_after_a_loss()
    )


def test_a_conversation_waits_for_what_is_being_made_in_it(world: World) -> None:
    """The provider would have it locked so long."""
    talk = Talk(world, "conversation")
    talk.says(QUESTION, background=True)

    assert CAT in talk.says(NEXT).output_text

    assert [DOG, "answer", CAT, "answer", QUESTION, "answer", NEXT, "answer"] == (
        talk.told_after_a_loss()
    )


def test_a_list_of_a_rebuilt_conversation_shows_an_answer_that_has_come(world: World) -> None:
    """Nobody has polled for it."""
    talk = Talk(world, "conversation")
    world.forgets()
    begun = talk.says(QUESTION, background=True)
    plain = world.plain()
    while plain.call("responses.retrieve", response_id=begun.id).status != "completed":
        pass
    world.provider.clear_requests()

    for _ in range(2):
        listed = talk.app.call("conversations.items.list", conversation_id=talk.on["conversation"])

    assert DOG in listed.data[0].content[0].text
    assert [("GET responses/resp", 200)] == world.asked()


def test_one_that_is_gone_before_it_was_read_does_not_hold_up_the_next(
    world: World, talk: Talk
) -> None:
    talk.says(QUESTION, background=True)
    world.forgets()

    answer = talk.says(NEXT)

    assert CAT in answer.output_text
    assert "full" == (recovered(answer) or {})["memory"]
    assert [DOG, "answer", CAT, "answer", QUESTION, NEXT, "answer"] == talk.told_after_a_loss()


def test_one_that_was_cancelled_does_not_hold_up_the_next(world: World, talk: Talk) -> None:
    where = dict(talk.on)
    begun = talk.says(QUESTION, background=True)
    assert "cancelled" == talk.app.call("responses.cancel", response_id=begun.id).status
    talk.on = where
    world.provider.clear_requests()

    assert CAT in talk.says(NEXT).output_text

    assert [("POST responses", 200)] == world.asked()


def test_a_stream_that_is_cut_goes_on_in_the_background(world: World, talk: Talk) -> None:
    """Its reader comes back for it; nothing is thrown away."""
    where = dict(talk.on)
    world.provider.order(Fault("cut_stream", events=4))
    with pytest.raises(openai.APIError):
        talk.app.stream(QUESTION, **where, background=True)
    (begun,) = world.rows("SELECT handle FROM perdure_handle WHERE body IS NOT NULL AND turn_seq")
    answer = talk.app.call("responses.retrieve", response_id=begun[0])
    talk.polled(answer)
    if "conversation" not in talk.on:
        talk.on = {"previous_response_id": begun[0]}
    world.provider.clear_requests()

    assert CAT in talk.says(NEXT).output_text

    assert [("POST responses", 200)] == world.asked()
    assert [DOG, "answer", CAT, "answer", QUESTION, "answer", NEXT, "answer"] == (
        talk.told_after_a_loss()
    )


def test_one_that_was_made_again_is_not_judged_by_the_first(world: World) -> None:
    talk = Talk(world, "chain")
    again: dict[str, Any] = {"extra_headers": {"Perdure-Turn": "t1"}, "background": True}
    where = dict(talk.on)
    first = talk.app.respond(QUESTION, **where, **again)
    talk.app.call("responses.cancel", response_id=first.id)
    second = talk.app.respond(QUESTION, **where, **again)
    assert first.id != second.id

    assert "cancelled" == talk.app.call("responses.retrieve", response_id=first.id).status

    talk.polled(second)
    talk.on = {"previous_response_id": second.id}
    assert [DOG, "answer", CAT, "answer", QUESTION, "answer"] == talk.told_after_a_loss()


def test_one_that_cannot_be_seen_yet_is_not_given_up(world: World, talk: Talk) -> None:
    begun = talk.says(QUESTION, background=True)
    world.provider.order(Fault("status", status=404, match=GET))
    talk.says(NEXT)

    talk.polled(begun)

    told = talk.told_after_a_loss()
    assert 4 == told.count("answer")
    assert {DOG, CAT, QUESTION, NEXT} < set(told)


def test_a_key_that_may_not_read_holds_nothing_up(world: World, talk: Talk) -> None:
    begun = talk.says(QUESTION, background=True)
    for _ in range(2):  # it comes on at the provider
        world.plain().call("responses.retrieve", response_id=begun.id)
    world.provider.order(Fault("status", status=403, match=GET, times=9))

    assert CAT in talk.says(NEXT).output_text


@pytest.mark.parametrize("primed", [True, False])
def test_a_rebuilt_conversation_is_told_nothing_twice_however_long_it_is_busy(
    world: World, *, primed: bool
) -> None:
    """It waits as a provider has it wait whose conversation is locked."""
    talk = Talk(world, "conversation")
    world.forgets()
    if primed:
        talk.says("Hello.")
    begun = talk.says(QUESTION, background=True)
    body = begun.model_dump(mode="json") | {"status": "in_progress"}
    world.provider.order(Fault("status", status=200, body=body, match=GET, times=None))
    with pytest.raises(openai.BadRequestError, match="operating on this conversation"):
        talk.says(NEXT)
    world.provider.clear_faults()
    talk.polled(begun)

    assert CAT in talk.says(NEXT).output_text

    ((replica,),) = world.rows("SELECT replica_handle FROM perdure_conversation")
    listed = world.plain().call("conversations.items.list", conversation_id=replica, limit=100)
    texts = [item.content[0].text for item in listed.data if item.role == "user"]
    assert sorted(set(texts)) == sorted(texts)


@pytest.mark.parametrize("unreadable", [GET, "GET /(responses|conversations)/"])
def test_a_key_that_may_not_read_gives_no_history_twice(world: World, unreadable: str) -> None:
    """Nobody can say whether the new conversation has it already."""
    talk = Talk(world, "conversation")
    world.forgets()
    begun = talk.says(QUESTION, background=True)
    for _ in range(2):  # it comes on at the provider
        world.plain().call("responses.retrieve", response_id=begun.id)
    world.provider.order(Fault("status", status=403, match=unreadable, times=9))

    assert CAT in talk.says(NEXT).output_text

    world.provider.clear_faults()
    ((replica,),) = world.rows("SELECT replica_handle FROM perdure_conversation")
    listed = world.plain().call("conversations.items.list", conversation_id=replica, limit=100)
    assert 1 == sum(DOG == item.content[0].text for item in listed.data)


def test_an_item_is_not_held_up_by_what_is_being_made(world: World) -> None:
    """The provider says at once that the conversation is locked."""
    talk = Talk(world, "conversation")
    talk.says(QUESTION, background=True)
    item = {"type": "message", "role": "user", "content": "By the way."}
    world.provider.clear_requests()

    with pytest.raises(openai.BadRequestError, match="operating on this conversation"):
        talk.app.call(
            "conversations.items.create", conversation_id=talk.on["conversation"], items=[item]
        )

    assert ("POST conversations/conv/items", 400) == world.asked()[-1]
    assert 2 == len(world.asked())


def test_two_lines_go_on_from_one_answer(world: World) -> None:
    talk = Talk(world, "chain")
    talk.polled(begun := talk.says(QUESTION, background=True))
    from_it = {"previous_response_id": begun.id}
    talk.app.respond("My horse is called Bella.", **from_it)
    right = talk.app.respond("My bird is called Coco.", **from_it)
    world.forgets()

    answer = talk.app.respond("What is my horse called?", previous_response_id=right.id)

    assert "Bella" not in answer.output_text
    assert 8 == (recovered(answer) or {})["items_primed"]


def test_an_answer_is_heard_although_older_history_has_come_meanwhile(world: World) -> None:
    """What it was made from lacked that, so nothing goes on from it; but it was said."""
    plain, app = world.plain(), world.app()
    first = plain.respond(CAT, previous_response_id=plain.respond(DOG).id)
    world.provider.order(Fault("status", status=500, match=GET))
    second = app.respond("Hello.", previous_response_id=first.id)
    world.drain()  # the adoption was broken off
    world.provider.forget(second.id)
    world.clock.advance(LONG)

    begun = app.respond("Still there?", previous_response_id=second.id, background=True)
    world.drain()  # and was taken up again
    assert "partial" == (recovered(begun) or {})["memory"]
    while "completed" != app.call("responses.retrieve", response_id=begun.id).status:
        pass
    answer = app.respond(QUESTION, previous_response_id=begun.id)

    assert DOG in answer.output_text
    assert ("full", 8) == ((told := recovered(answer) or {})["memory"], told["items_primed"])
    for _ in range(2):
        answer = app.respond(NEXT, previous_response_id=answer.id, background=True)
        assert recovered(answer) is None
        while "completed" != app.call("responses.retrieve", response_id=answer.id).status:
            pass


def test_where_it_cannot_be_read_nothing_is_said_out_of_order(world: World) -> None:
    talk = Talk(world, "conversation")
    talk.says(QUESTION, background=True)
    world.provider.order(Fault("status", status=500, match=GET))

    with pytest.raises(openai.InternalServerError):
        talk.says(NEXT)

    assert CAT in talk.says(NEXT).output_text
    assert [DOG, "answer", CAT, "answer", QUESTION, "answer", NEXT, "answer"] == (
        talk.told_after_a_loss()
    )


def test_what_a_user_was_answered_meanwhile_is_not_forgotten(world: World) -> None:
    """The answer comes after the minute for which the next turn waits; neither line has both."""
    app, user = world.app(), {"extra_headers": {"perdure-subject": "ann"}}
    app.respond(DOG, **user)
    begun = app.respond("Count slowly.", background=True, **user)
    world.provider.order(Fault("status", status=403, match=GET))
    app.respond(CAT, **user)
    while begun.status != "completed":
        begun = app.call("responses.retrieve", response_id=begun.id)

    answer = app.respond("What are my dog and my cat called?", **user)

    assert DOG in answer.output_text
    assert CAT in answer.output_text
    assert "full" == (recovered(answer) or {})["memory"]


# -- resumed as a stream -------------------------------------------------------------------------


def names(events: list[Any]) -> list[str]:
    return [event.type for event in events]


@pytest.mark.parametrize("known", [False, True], ids=["the read meets the loss", "known before"])
def test_a_lost_response_is_resumed_as_a_whole_stream(world: World, *, known: bool) -> None:
    app = world.app()
    answer = app.events("responses.create", model="gpt-5.6", input=DOG, background=True)[
        -1
    ].response
    world.forgets()
    if known:
        app.call("responses.retrieve", response_id=answer.id)

    events = app.events("responses.retrieve", response_id=answer.id)

    assert ["response.created", "response.in_progress"] == names(events)[:2]
    assert "response.completed" == events[-1].type
    assert list(range(len(events))) == [event.sequence_number for event in events]
    assert answer.output_text == events[-1].response.output_text
    assert answer.id == (recovered(events[-1].response) or {})["lost_handle"]
    # What the provider's stream had up to some number is not known: it has more events than this.
    for seen in (2, 40):
        later = app.events("responses.retrieve", response_id=answer.id, starting_after=seen)
        assert [one for one in names(events) if one.endswith((".done", ".completed"))] == (
            names(later)
        )
        assert [*range(seen + 1, seen + 1 + len(later))] == [one.sequence_number for one in later]
        (whole,) = [one.text for one in later if one.type == "response.output_text.done"]
        assert answer.output_text == whole


def test_the_sdks_own_stream_of_a_lost_response_ends_with_it(sync_world: World) -> None:
    app = sync_world.app()
    events = app.events("responses.create", model="gpt-5.6", input=DOG, background=True)
    sync_world.forgets()

    with app.sdk.responses.stream(response_id=events[-1].response.id) as stream:
        final = stream.get_final_response()

    assert events[-1].response.output_text == final.output_text


def begun_and_cut(world: World, app: App) -> str:
    """Begin a response in the background whose stream is cut after its first events."""
    world.provider.order(Fault("cut_stream", events=2))
    with pytest.raises(openai.APIConnectionError):
        app.events("responses.create", model="gpt-5.6", input=DOG, background=True)
    return list(world.provider.state.responses)[-1]


def test_the_end_of_a_resumed_stream_is_the_answer(world: World) -> None:
    app = world.app()
    response = begun_and_cut(world, app)

    seen = app.events("responses.retrieve", response_id=response)[-1].response

    world.forgets()
    answer = app.call("responses.retrieve", response_id=response)
    assert seen.output_text == answer.output_text
    assert DOG in app.respond(QUESTION, previous_response_id=response).output_text


class Few(httpx2.SyncByteStream):
    """The first events of a stream, as if they were all."""

    def __init__(self, whole: Any) -> None:
        self.whole = whole

    def __iter__(self) -> Iterator[bytes]:
        yield b"".join(event + b"\n\n" for event in b"".join(self.whole).split(b"\n\n")[:4])

    def close(self) -> None:
        self.whole.close()


class EndsEarly(httpx2.HTTPTransport):
    """A provider's gateway that ends a resumed stream after some events."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; only a resumed stream is cut."""
        response = super().handle_request(request)
        if request.method != "GET" or "stream=true" not in str(request.url):
            return response
        events = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=events, stream=Few(response.stream))


def test_a_resumed_stream_that_ends_early_is_an_error(sync_world: World) -> None:
    app = sync_world.app(inner=EndsEarly())
    events = app.events("responses.create", model="gpt-5.6", input=DOG, background=True)

    with pytest.raises(openai.APIConnectionError) as caught:
        app.events("responses.retrieve", response_id=events[-1].response.id)
    assert "before its terminal event" in str(caught.value.__cause__)
