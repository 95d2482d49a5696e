"""Two messages that say the same with two pictures: an id, and so a delete, is of one of them."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from perdure.engine.sameness import may_be
from perdure.testing import Fault
from tests.world import App, World

WORDS = "What is this?"
PIN = "Is 1234 a good PIN?"
FAILED = {
    "id": "resp_failed",
    "object": "response",
    "status": "failed",
    "error": {"code": "server_error", "message": "The server had an error."},
    "output": [],
    "model": "gpt-5.6",
}


def showing(name: str) -> list[dict[str, Any]]:
    """A message with a picture."""
    picture = {"type": "input_image", "image_url": f"https://x.example/{name}.png"}
    return [{"role": "user", "content": [{"type": "input_text", "text": WORDS}, picture]}]


class Gallery:
    """A conversation about pictures, and what the provider has of it."""

    def __init__(self, world: World) -> None:
        self.world, self.app = world, world.app()
        self.conversation: str = self.app.call("conversations.create").id
        self.said = 0
        self.at: dict[str, Any] = {"conversation_id": self.conversation}
        self.app.respond("Hello.", conversation=self.conversation)

    def say(self, *messages: Any) -> None:
        for message in messages:
            self.said += 1
            number = {"number": str(self.said)}  # said again, it is not the same call
            self.app.respond(message, conversation=self.conversation, metadata=number)

    def fails(self, message: Any) -> None:
        """Say something, to which the provider says that it failed."""
        order = Fault("status", match="POST /responses", status=200, body=FAILED)
        self.world.provider.order(order)
        self.say(message)

    def id_of(self, text: str) -> str:
        """The provider's id of the item in which a text stands, known from elsewhere."""
        items = self.world.provider.items(self.conversation)
        (found,) = [item["id"] for item in items if text in json.dumps(item)]
        return str(found)

    def hides_pictures(self) -> None:
        """Let the provider show no links of pictures, as OpenAI's does unless it is asked to."""
        for item in self.world.provider.state.items.values():
            for part in item.body.get("content") or ():
                if part["type"] == "input_image":
                    part["image_url"] = None

    def delete(self, item_id: str) -> None:
        self.app.call("conversations.items.delete", item_id=item_id, **self.at)

    def told_after_a_loss(self) -> str:
        """What the next replica is told."""
        self.world.forgets()
        self.say("And now?")
        return "".join(request.body.decode() for request in self.world.provider.requests)


@pytest.mark.parametrize("hidden", [False, True], ids=["shown", "hidden"])
@pytest.mark.parametrize("name", ["A", "B"])
def test_the_picture_that_is_deleted_is_the_one_that_stays_away(
    world: World, name: str, *, hidden: bool
) -> None:
    """Its id is from elsewhere; where it does not show its picture, it is told by its place."""
    gallery = Gallery(world)
    gallery.say(showing("A"), showing("B"))
    picture = gallery.id_of(f"{name}.png")
    if hidden:
        gallery.hides_pictures()
    world.provider.clear_requests()

    gallery.delete(picture)

    assert 2 + 2 * hidden == len(world.asked())
    told = gallery.told_after_a_loss()
    assert [name == "B", name == "A"] == ["A.png" in told, "B.png" in told]


@pytest.mark.parametrize("hidden", [False, True], ids=["shown", "hidden"])
def test_an_id_at_the_end_of_a_page_is_not_given_to_what_failed(
    world: World, *, hidden: bool
) -> None:
    gallery = Gallery(world)
    gallery.fails(showing("A"))
    gallery.say(showing("B"))
    if hidden:
        gallery.hides_pictures()
    values = {"order": "asc", "limit": 3, **gallery.at}
    picture = gallery.app.call("conversations.items.list", **values).data[2].id

    gallery.delete(picture)

    assert "B.png" not in gallery.told_after_a_loss()


def test_what_is_deleted_does_not_come_back_as_an_attempt_that_failed(world: World) -> None:
    gallery = Gallery(world)
    gallery.fails(PIN)
    gallery.say(PIN)
    values = {"order": "asc", "limit": 3, **gallery.at}
    said = gallery.app.call("conversations.items.list", **values).data[2].id

    gallery.delete(said)

    told = gallery.told_after_a_loss()
    assert PIN not in told
    assert "Hello." in told


def test_of_two_that_were_said_the_other_one_stays(world: World) -> None:
    gallery = Gallery(world)
    gallery.say(PIN, "Thanks.", PIN)
    last = [item for item in listed(world.plain(), gallery) if PIN in json.dumps(item["content"])]

    gallery.delete(last[0]["id"])

    told = gallery.told_after_a_loss()
    assert 1 == told.count(f'"{PIN}"')
    assert told.index(PIN) < told.index("Thanks.")


def listed(app: App, gallery: Gallery) -> list[dict[str, Any]]:
    page = app.call("conversations.items.list", **gallery.at)
    return [item.to_dict() for item in page.data]


def test_what_cannot_be_told_apart_is_all_deleted(world: World) -> None:
    """The one that was meant would come back otherwise."""
    gallery = Gallery(world)
    gallery.say(showing("A"), showing("B"))
    picture = gallery.id_of("A.png")
    gallery.hides_pictures()
    refused = Fault("status", match="GET /conversations/.*/items$", status=400)
    world.provider.order(refused, refused)

    gallery.delete(picture)

    told = gallery.told_after_a_loss()
    assert "png" not in told
    assert "Hello." in told


def test_what_cannot_be_told_apart_just_now_is_not_deleted_yet(world: World) -> None:
    gallery = Gallery(world)
    gallery.say(showing("A"), showing("B"))
    picture = gallery.id_of("A.png")
    gallery.hides_pictures()
    world.provider.order(Fault("status", match="GET /conversations/.*/items$", status=500))

    with pytest.raises(openai.InternalServerError):
        gallery.delete(picture)

    assert "DELETE" not in str(world.asked())
    gallery.delete(picture)
    told = gallery.told_after_a_loss()
    assert "A.png" not in told
    assert "B.png" in told


# -- what a provider may show of what was sent -------------------------------------------------

LINK = "https://x.example/a.png"
INLINE = "data:image/png;base64,aGVsbG8="


@pytest.mark.parametrize(
    ("sent", "shown", "same"),
    [
        # A picture: as it was sent, without what it is, as something else, in another form.
        ({"image_url": LINK}, {"image_url": LINK, "detail": "auto", "file_id": None}, True),
        ({"image_url": LINK}, {"image_url": None}, True),
        ({"image_url": LINK}, {"image_url": "https://x.example/b.png"}, False),
        ({"image_url": INLINE}, {"image_url": INLINE}, True),
        ({"image_url": INLINE}, {"image_url": "data:image/png;base64,b3RoZXI="}, False),
        ({"image_url": INLINE}, {"image_url": "data:image/jpg;base64,aGVsbG8="}, True),
        ({"image_url": INLINE}, {"image_url": "https://provider.example/stored/1"}, True),
        ({"file_id": "file-1"}, {"file_id": "file-1", "image_url": "https://p.example/1"}, True),
        ({"file_id": "file-1"}, {"file_id": "file-2"}, False),
        # A file, and a recording.
        ({"file_data": INLINE, "filename": "a"}, {"filename": "a", "file_data": "aGVsbG8="}, True),
        ({"file_data": INLINE, "filename": "a"}, {"filename": "a", "file_id": "file-1"}, True),
        ({"file_data": INLINE, "filename": "a"}, {"filename": "b"}, False),
        ({"file_url": LINK}, {"file_url": "https://x.example/b.pdf"}, False),
        ({"input_audio": {"data": "aGVs", "format": "mp3"}}, {"input_audio": {}}, True),
        ({"input_audio": {"data": "aGVs"}}, {"input_audio": {"data": "b3Ro"}}, False),
        # Of threads.
        ({"image_file": {"file_id": "file-1"}}, {"image_file": {"file_id": "file-1"}}, True),
        ({"image_file": {"file_id": "file-1"}}, {"image_file": {"file_id": "file-2"}}, False),
        ({"image_url": {"url": LINK}}, {"image_url": {"url": LINK, "detail": "auto"}}, True),
        ({"image_url": {"url": LINK}}, {"image_url": {"url": "https://x.example/b"}}, False),
    ],
)
def test_what_a_provider_leaves_out_or_changes_makes_no_other_item(
    sent: dict[str, Any], shown: dict[str, Any], *, same: bool
) -> None:
    inner = next((key for key, member in sent.items() if isinstance(member, dict)), "input_image")
    forms = [
        {"role": "user", "content": [{"type": inner, **part}, {"type": "input_text", "text": "?"}]}
        for part in (sent, shown)
    ]
    assert same == may_be(*forms)
