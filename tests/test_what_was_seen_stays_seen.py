"""The ids that the app has seen go on working after a loss: in lists, reads, pages and deletes."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from perdure.dialects.items import made_id
from perdure.engine import ops
from perdure.engine.seen import aligned
from perdure.model import StoredItem
from perdure.testing.conformance.bench import messages
from perdure.testing.provider.schema import PREFIXES
from tests.world import App, World

DOG = "My dog is called Rex."
PIN = "My PIN is 4711."
TOOLS = [
    {
        "type": "function",
        "name": "weather",
        "parameters": {"type": "object", "properties": {}},
        "strict": False,
    }
]


def listed(app: App, conversation: str, **values: Any) -> list[dict[str, Any]]:
    """One page of a conversation's items, oldest first, as the app sees them."""
    values = {"order": "asc", "limit": 100, **values}
    page = app.call("conversations.items.list", conversation_id=conversation, **values)
    return [item.to_dict() for item in page.data]


def with_a_tool(world: World, app: App) -> str:
    """A conversation with messages, a call and its output."""
    conversation: str = app.call("conversations.create").id
    app.respond(DOG, conversation=conversation)
    world.provider.script(
        [{"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"}]
    )
    app.respond("How is the weather?", conversation=conversation, tools=TOOLS)
    output = {"type": "function_call_output", "call_id": "call_1", "output": "21 C"}
    app.respond([output], conversation=conversation, tools=TOOLS)
    return conversation


# -- conversations that were listed before -----------------------------------------------------


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_list_after_a_loss_shows_the_ids_that_were_seen(
    world: World, limit: int, order: str
) -> None:
    app = world.app()
    conversation = with_a_tool(world, app)
    seen: list[dict[str, Any]] = []
    while True:  # by pages, as the SDK would
        after = {"after": seen[-1]["id"]} if seen else {}
        page = listed(app, conversation, order=order, limit=limit, **after)
        seen += page
        if len(page) < limit:
            break
    if order == "desc":
        seen.reverse()
    world.forgets()

    assert seen == listed(app, conversation)

    app.respond("Hello.", conversation=conversation)
    assert seen == listed(app, conversation)[: len(seen)]


def test_what_a_conversation_was_created_with_keeps_the_ids_that_were_seen(world: World) -> None:
    app = world.app()
    items = [{"type": "message", "role": "user", "content": text} for text in (DOG, PIN, DOG)]
    conversation = app.call("conversations.create", items=items).id
    seen = listed(app, conversation, order="desc")[::-1]
    world.forgets()

    assert seen == listed(app, conversation)


def test_a_single_item_keeps_the_id_under_which_it_was_read(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(DOG, conversation=conversation)
    plain = listed(world.plain(), conversation)[0]["id"]
    at = {"conversation_id": conversation, "item_id": plain}
    seen = app.call("conversations.items.retrieve", **at)
    world.forgets()
    app.respond("Hello.", conversation=conversation)

    assert seen == app.call("conversations.items.retrieve", **at)


def test_reading_an_item_whose_text_is_there_twice_names_neither(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    for _ in range(2):
        app.respond(DOG, conversation=conversation)
    plain = listed(world.plain(), conversation)
    app.call("conversations.items.retrieve", conversation_id=conversation, item_id=plain[0]["id"])
    world.forgets()

    assert plain[0]["id"] not in {item["id"] for item in listed(app, conversation)}


def test_reading_an_item_that_the_log_cannot_tell_reads_no_long_log(world: World) -> None:
    """It is done at each look at it, and a log may have any number of items."""
    app = world.app()
    conversation = app.call("conversations.create").id
    for _ in range(2):
        app.respond(DOG, conversation=conversation)
    app.respond(PIN, conversation=conversation)
    store = Watched(world.store())
    found = store.perform(ops.Find("default", world.provider.base_url, conversation))
    many = messages(*(f"Message {number}." for number in range(1000)))
    store.perform(ops.Learn("default", found.conversation, many, whole=True))
    app = world.app(store=store)
    plain = listed(world.plain(), conversation)
    twice, once = plain[0]["id"], plain[4]["id"]
    store.items_read = 0

    for item in (twice, once):
        app.call("conversations.items.retrieve", conversation_id=conversation, item_id=item)

    assert store.items_read <= 500
    known = {known for (known,) in world.rows("select provider_id from perdure_item")}
    assert known.isdisjoint({twice, once})


class Watched:
    """A store that counts the items that are read from it."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.items_read = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def perform(self, op: Any) -> Any:
        return self._counted(self.store.perform(op))

    async def perform_async(self, op: Any) -> Any:
        return self._counted(await self.store.perform_async(op))

    def _counted(self, result: Any) -> Any:
        self.items_read += len(getattr(result, "items", ()))
        return result


def test_learning_the_ids_costs_no_request_and_leaves_the_list_as_it_is(world: World) -> None:
    app = world.app()
    conversation = with_a_tool(world, app)
    plain = listed(world.plain(), conversation)
    world.provider.clear_requests()

    assert plain == listed(app, conversation)

    assert [("GET conversations/conv/items", 200)] == world.asked()


@pytest.mark.parametrize("known", [False, True], ids=["the delete meets the loss", "known before"])
def test_deleting_by_an_id_that_was_seen_erases_it_after_the_loss(
    world: World, *, known: bool
) -> None:
    app = world.app()
    items = [{"type": "message", "role": "user", "content": text} for text in (PIN, DOG)]
    conversation = app.call("conversations.create", items=items).id
    pin = listed(app, conversation)[0]["id"]
    world.forgets()
    if known:
        app.respond("Hello.", conversation=conversation)

    app.call("conversations.items.delete", conversation_id=conversation, item_id=pin)
    with pytest.raises(openai.NotFoundError):
        app.call("conversations.items.delete", conversation_id=conversation, item_id=pin)

    world.drain()
    world.forgets()
    answer = app.respond("What do you know of my dog?", conversation=conversation)
    assert DOG in answer.output_text
    assert not any(PIN.encode() in request.body for request in world.provider.requests)


# -- items that were never listed before -------------------------------------------------------


def pages(app: App, api: str, size: int, **values: Any) -> list[Any]:
    """Everything a list has, page by page as the SDK turns them."""
    page = app.call(f"{api}.list", limit=size, **values)
    entries = []
    while page.data:
        entries += page.data
        if not page.has_more:
            break
        page = app.world.wait(page.get_next_page())
    return entries


def rebuilt(world: World, app: App, kind: str) -> tuple[str, dict[str, Any], int]:
    """A conversation or thread of which the app has seen no id, after a loss."""
    if kind == "conversation":
        handle = app.call("conversations.create").id
        for number in range(4):
            app.respond(f"Fact {number}.", conversation=handle)
        world.forgets()
        app.respond("Hello.", conversation=handle)
        return "conversations.items", {"conversation_id": handle}, 10
    sent = [{"role": "user", "content": f"Fact {number}."} for number in range(7)]
    handle = app.call("beta.threads.create", messages=sent).id
    world.forgets()
    app.call("beta.threads.messages.create", thread_id=handle, role="user", content="Hello.")
    return "beta.threads.messages", {"thread_id": handle}, 8


@pytest.mark.parametrize("kind", ["conversation", "thread"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_rebuilt_list_is_paged_through_to_its_end(world: World, kind: str, order: str) -> None:
    app = world.app()
    api, at, count = rebuilt(world, app, kind)
    whole = pages(app, api, 100, order=order, **at)
    assert count == len(whole) == len({one.id for one in whole})

    for size in (1, 2, 3, count - 1, count):
        assert whole == pages(app, api, size, order=order, **at), size
    assert whole[::-1] == pages(app, api, 100, order="asc" if order == "desc" else "desc", **at)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_the_page_before_a_cursor_is_the_one_next_to_it(world: World, order: str) -> None:
    app = world.app()
    api, at, _ = rebuilt(world, app, "thread")
    whole = [one.id for one in pages(app, api, 100, order=order, **at)]

    for cursor in range(8):
        for size in (1, 3, 100):
            page = app.call(f"{api}.list", order=order, limit=size, before=whole[cursor], **at)
            assert whole[max(0, cursor - size) : cursor] == [one.id for one in page.data]
            assert (cursor > size) == page.has_more


@pytest.mark.parametrize("kind", ["conversation", "thread"])
def test_an_id_that_was_made_here_is_good_for_reading(world: World, kind: str) -> None:
    app = world.app()
    api, at, _ = rebuilt(world, app, kind)
    named = "item_id" if kind == "conversation" else "message_id"

    for one in pages(app, api, 100, **at):
        assert one == app.call(f"{api}.retrieve", **{named: one.id}, **at)


def test_an_id_that_was_made_here_is_good_only_where_it_was_made(world: World) -> None:
    app = world.app()
    _, at, _ = rebuilt(world, app, "conversation")
    mine = listed(app, at["conversation_id"])[0]["id"]
    _, at, _ = rebuilt(world, app, "conversation")

    with pytest.raises(openai.NotFoundError):
        app.call("conversations.items.retrieve", item_id=mine, **at)
    with pytest.raises(openai.NotFoundError):
        app.call("conversations.items.list", after=mine, **at)
    with pytest.raises(openai.NotFoundError):
        app.call("conversations.items.delete", item_id=mine, **at)


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("seen", ["before the loss", "after the loss"])
def test_what_is_listed_may_be_sent_again(world: World, seen: str, *, store: bool) -> None:
    app = world.app()
    conversation = with_a_tool(world, app)
    items = listed(app, conversation)
    world.forgets()
    app.respond("Hello.", conversation=conversation)
    if seen == "after the loss":
        items = listed(app, conversation)

    question = {"role": "user", "content": "What is my dog called?"}
    answer = app.respond([*items, question], store=store, tools=TOOLS)

    assert DOG in answer.output_text


def test_an_item_that_was_made_an_id_for_may_be_referred_to(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(DOG, conversation=conversation)
    world.forgets()
    app.respond("Hello.", conversation=conversation)
    mine = listed(app, conversation)[0]["id"]

    question = {"role": "user", "content": "What is my dog called?"}
    answer = app.respond([{"type": "item_reference", "id": mine}, question])

    assert DOG in answer.output_text


def test_an_id_that_was_made_for_somebody_else_cannot_be_guessed(world: World) -> None:
    app = world.app()
    others = app.call("conversations.create").id
    app.respond("My PIN is 1234.", conversation=others)
    world.forgets()
    app.respond("Hello.", conversation=others)
    theirs = listed(app, others)[0]["id"]
    mine = app.respond("Hello, I am Bob.").id
    question = {"role": "user", "content": "What is my PIN?"}

    for guessed in (f"{theirs[:-8]}{'0' * 8}", theirs[:-8]):
        with pytest.raises(openai.NotFoundError):
            app.respond(
                [{"type": "item_reference", "id": guessed}, question], previous_response_id=mine
            )


def test_made_ids_begin_as_the_providers_do() -> None:
    assert PREFIXES == {kind: made_id(kind, "1").removesuffix("_1") for kind in PREFIXES}
    assert "item_1" == made_id("of tomorrow", "1")


def test_what_is_appended_to_a_conversation_that_has_no_history_yet_gets_ids_of_its_kind(
    world: World,
) -> None:
    app = world.app()
    conversation = with_a_tool(world, app)
    world.forgets()
    call = {"type": "function_call", "call_id": "call_2", "name": "weather", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "call_2", "output": "12 C"}

    made = app.call(
        "conversations.items.create", conversation_id=conversation, items=[call, output]
    )

    assert ["fc", "fc"] == [item.id.partition("_")[0] for item in made.data]


# -- what a response was asked ------------------------------------------------------------------


def asked(app: App, response: str, size: int, order: str | None) -> list[dict[str, Any]]:
    """Everything that a response was asked, page by page."""
    values = {} if order is None else {"order": order}
    found = pages(app, "responses.input_items", size, response_id=response, **values)
    return [item.to_dict() for item in found]


@pytest.mark.parametrize("seen", [True, False], ids=["listed before", "not listed before"])
def test_what_a_lost_response_was_asked_is_listed_by_pages(world: World, *, seen: bool) -> None:
    app = world.app()
    root = app.respond(DOG).id
    items = [{"role": "user", "content": f"Fact {number}."} for number in range(110)]
    response = app.respond(items, previous_response_id=root).id
    before = asked(app, response, 100, "asc") if seen else None
    world.forgets()

    whole = asked(app, response, 100, "asc")

    texts = [item["content"] for item in items]
    assert texts == [item["content"][0]["text"] for item in whole]
    assert whole == (before or whole)
    for size in (50, 100):
        assert whole == asked(app, response, size, "asc"), size
        assert whole[::-1] == asked(app, response, size, "desc"), size
    assert whole[::-1] == asked(app, response, 100, None)
    assert 20 == len(app.call("responses.input_items.list", response_id=response).data)


def test_what_primed_a_response_is_not_listed_as_what_it_was_asked(world: World) -> None:
    app = world.app()
    root = app.respond(DOG).id
    world.forgets()
    response = app.respond("What is my dog called?", previous_response_id=root).id

    (one,) = asked(app, response, 100, None)

    assert "What is my dog called?" == one["content"][0]["text"]


def test_deleting_a_response_leaves_what_it_was_asked(world: World) -> None:
    app = world.app()
    root = app.respond(DOG).id
    answer = app.respond("Hello.", previous_response_id=root)
    asked(app, root, 100, None)
    app.call("responses.delete", response_id=root)
    world.forgets()

    answer = app.respond("What is my dog called?", previous_response_id=answer.id)

    assert DOG in answer.output_text


# -- which item an id belongs to ---------------------------------------------------------------


def logged(*items: str) -> tuple[StoredItem, ...]:
    """A log: ``"text"``, or ``"text=id"`` for one that has an id."""
    made = []
    for position, item in enumerate(items, 1):
        text, _, known = item.partition("=")
        wire = f'{{"role":"user","content":"{text}"}}'
        made.append(StoredItem(position, "message", "user", None, known or None, wire, "", 0.0))
    return tuple(made)


def shown(*items: str) -> list[dict[str, Any]]:
    """A list: ``"text=id"`` for each item."""
    return [
        {"id": known, "role": "user", "content": [{"type": "input_text", "text": text}]}
        for text, _, known in (item.partition("=") for item in items)
    ]


@pytest.mark.parametrize(
    ("log", "listing", "edges", "expected"),
    [
        # Between two ties each item is told by its place.
        (["a=1", "b", "c", "d=4"], ["a=1", "b=2", "c=3", "d=4"], "", {2: "2", 3: "3"}),
        # The first of two of the same was never sent: the newer one is what was.
        (["a=1", "b", "b", "c=4"], ["a=1", "b=3", "c=4"], "", {3: "3"}),
        # One that the log has and nobody lists holds nothing up, on either side of it.
        (["a=1", "b", "x", "c", "d=5"], ["a=1", "b=2", "c=4", "d=5"], "", {2: "2", 4: "4"}),
        # What somebody else wrote in between is nobody's here.
        (["a=1", "b", "c=3"], ["a=1", "y=9", "b=2", "c=3"], "", {2: "2"}),
        (["a=1", "b", "c=3"], ["a=1", "y=9", "c=3"], "", {}),
        # A page without a tie may begin anywhere.
        (["a", "a", "b"], ["a=2", "b=3"], "", {}),
        (["a", "a", "b"], ["a=1", "a=2", "b=3"], "begins", {1: "1", 2: "2", 3: "3"}),
        (["a", "b"], ["a=1", "b=2"], "ends", {1: "1", 2: "2"}),
        # The edge of a page reaches no further than the next item that has an id.
        (["a", "x=2", "b", "c=4"], ["a=1", "c=4"], "", {}),
        (["c=1", "x=2", "a"], ["c=1", "a=3"], "", {}),
        # Behind the end of a page may stand which of two of the same was sent.
        (["a=1", "b", "b", "c=4"], ["a=1", "b=3"], "", {}),
        (["a=1", "b", "b", "c=4"], ["a=1", "b=2", "b=3"], "", {2: "2", 3: "3"}),
        (["a=1", "b", "c", "b", "d=5"], ["a=1", "b=2"], "", {}),
        (["a=1", "b", "c", "d=4"], ["a=1", "b=2"], "", {2: "2"}),
        # Another order than the log's tells nothing.
        (["a=1", "b", "c=3"], ["c=3", "b=2", "a=1"], "", {}),
    ],
)
def test_an_id_is_given_to_no_other_item(
    log: list[str], listing: list[str], edges: str, expected: dict[int, str]
) -> None:
    pairs = aligned(shown(*listing), logged(*log), begins=edges == "begins", ends=edges == "ends")
    assert expected == {item.position: one["id"] for item, one in pairs}
