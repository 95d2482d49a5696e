"""A process that dies between any two ops leaves a state from which another one goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest

from perdure.flow import Op
from perdure.model import value
from perdure.testing import Fault
from perdure.transport import sync
from tests.world import MODEL, App, World

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
MESSAGE = "My cat is called Tom."
LONG = " ".join(f"Chapter {n} tells of a journey over land and sea." for n in range(60))
RUN_SECONDS = 6.0  # the provider's run has ended by then
#: The next worker waits for the rest of what a dead one held.
MOST_OF_A_LEASE = 50.0
_MORE_THAN_ANY_FLOW = 60


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


class Killer:
    """Kills the process before or after its n-th op; from then on no op is performed."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.left = at
        self.after = after
        self.dead = False

    def wrap(self, perform: Callable[[Any, Op[Any]], Any]) -> Callable[[Any, Op[Any]], Any]:
        def mortal(driver: Any, op: Op[Any]) -> Any:
            if self.dead:
                raise Killed
            self.left -= 1
            if self.left >= 0:
                return perform(driver, op)
            self.dead = True
            if self.after:
                perform(driver, op)
            raise Killed

        return mortal


def die_at_every_point(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    story: Callable[[World, Callable[[Callable[[], object]], bool], int], None],
    *,
    after: bool,
) -> None:
    """Tell a story once for each op of what dies in it, in a world of its own each time.

    The story gets the world, a way to let something die, which says whether it did, and the number
    of the op.
    """
    for point in range(_MORE_THAN_ANY_FLOW):
        place = folder / str(point)
        place.mkdir()
        world = World("sync", place)
        world.provider.start()
        killer = Killer(point, after=after)
        try:
            story(world, partial(_dying, monkeypatch, killer), point)
        finally:
            world.close()
        if not killer.dead:
            assert point >= 1, "something is done, and something before it"
            return
    pytest.fail("the flow never came to its end")


def _dying(monkeypatch: pytest.MonkeyPatch, killer: Killer, flow: Callable[[], object]) -> bool:
    with monkeypatch.context() as patch:
        patch.setattr(sync._Exchange, "perform", killer.wrap(sync._Exchange.perform))
        with suppress(Killed):
            flow()
    return killer.dead


@value
class Scene:
    """What there is before a process dies in the middle of something."""

    world: World
    handle: str
    assistant: str = ""

    @property
    def turn(self) -> dict[str, str]:
        """The header that names the turn."""
        return {"Perdure-Turn": "turn-2"}


def on_response(app: App, scene: Scene) -> None:
    app.respond(MESSAGE, previous_response_id=scene.handle, extra_headers=scene.turn)


def on_conversation(app: App, scene: Scene) -> None:
    app.respond(MESSAGE, conversation=scene.handle, extra_headers=scene.turn)


def on_stream(app: App, scene: Scene) -> None:
    app.stream(MESSAGE, conversation=scene.handle, extra_headers=scene.turn)


def in_the_background(app: App, scene: Scene) -> None:
    answer = app.respond(
        MESSAGE, conversation=scene.handle, background=True, extra_headers=scene.turn
    )
    while answer.status != "completed":
        answer = app.call("responses.retrieve", response_id=answer.id)


def on_stream_from_nothing(app: App, scene: Scene) -> None:
    """The conversation has forgotten what it had: what comes next must not go on from it."""
    on_stream(app, scene)


def in_the_background_from_nothing(app: App, scene: Scene) -> None:
    in_the_background(app, scene)


def append_items(app: App, scene: Scene) -> None:
    message = {"type": "message", "role": "user", "content": MESSAGE}
    app.call(
        "conversations.items.create",
        conversation_id=scene.handle,
        items=[message],
        extra_headers=scene.turn,
    )


def post_message(app: App, scene: Scene) -> None:
    app.call(
        "beta.threads.messages.create",
        thread_id=scene.handle,
        role="user",
        content=MESSAGE,
        extra_headers=scene.turn,
    )


def run(app: App, scene: Scene) -> None:
    app.call(
        "beta.threads.runs.create_and_poll",
        thread_id=scene.handle,
        assistant_id=scene.assistant,
        additional_messages=[{"role": "user", "content": MESSAGE}],
        extra_headers=scene.turn,
    )


def run_streamed(app: App, scene: Scene) -> None:
    app.events(
        "beta.threads.runs.create",
        thread_id=scene.handle,
        assistant_id=scene.assistant,
        additional_messages=[{"role": "user", "content": MESSAGE}],
        extra_headers=scene.turn,
    )


def list_items(app: App, scene: Scene) -> None:
    app.call("conversations.items.list", conversation_id=scene.handle)


def read_conversation(app: App, scene: Scene) -> None:
    app.call("conversations.retrieve", conversation_id=scene.handle)


def update_conversation(app: App, scene: Scene) -> None:
    app.call("conversations.update", conversation_id=scene.handle, metadata={"topic": "dogs"})


def update_thread(app: App, scene: Scene) -> None:
    app.call("beta.threads.update", thread_id=scene.handle, metadata={"topic": "dogs"})


def change_message(app: App, scene: Scene) -> None:
    listed = app.call("beta.threads.messages.list", thread_id=scene.handle, order="asc")
    app.call(
        "beta.threads.messages.update",
        thread_id=scene.handle,
        message_id=listed.data[0].id,
        metadata={"topic": "dogs"},
    )


def read_response(app: App, scene: Scene) -> None:
    app.call("responses.retrieve", response_id=scene.handle)


def list_messages(app: App, scene: Scene) -> None:
    app.call("beta.threads.messages.list", thread_id=scene.handle)


def without_storing(app: App, scene: Scene) -> None:
    app.respond(MESSAGE, conversation=scene.handle, store=False)


def delete_item(app: App, scene: Scene) -> None:
    listed = app.call("conversations.items.list", conversation_id=scene.handle)
    for item in listed.data:
        if item.content[0].text.startswith("Noted"):
            with suppress(openai.NotFoundError):
                app.call(
                    "conversations.items.delete", item_id=item.id, conversation_id=scene.handle
                )


def create(app: App, scene: Scene) -> None:
    del scene
    app.call("conversations.create")


def create_and_run(app: App, scene: Scene) -> None:
    app.call(
        "beta.threads.create_and_run",
        assistant_id=scene.assistant,
        thread={"messages": [{"role": "user", "content": "Elsewhere."}]},
    )


def after_a_lost_answer(app: App, scene: Scene) -> None:
    """The turn before has no answer: it is looked for, or the replica replaced."""
    on_conversation(app, scene)


def run_again(app: App, scene: Scene) -> None:
    """The run's first answer was lost: it is looked for on the thread."""
    run(app, scene)


def stream_again(app: App, scene: Scene) -> None:
    """The same, streamed: the app asks no further once it has seen the end."""
    run_streamed(app, scene)


def message_after_a_lost_run(app: App, scene: Scene) -> None:
    """The run before has no answer: it is looked for on the thread, or the thread replaced."""
    post_message(app, scene)


def list_after_a_lost_run(app: App, scene: Scene) -> None:
    """An app looks for the run itself."""
    list_messages(app, scene)


AFTER_A_LOST_RUN = {run_again, stream_again, message_after_a_lost_run, list_after_a_lost_run}
FROM_NOTHING = {on_stream_from_nothing, in_the_background_from_nothing}
THREADS = {
    post_message,
    run,
    run_streamed,
    list_messages,
    create_and_run,
    update_thread,
    change_message,
} | AFTER_A_LOST_RUN
SAYS = {
    run_again,
    stream_again,
    message_after_a_lost_run,
    on_response,
    on_conversation,
    on_stream,
    append_items,
    post_message,
    run,
    run_streamed,
    after_a_lost_answer,
    in_the_background,
    *FROM_NOTHING,
}
FLOWS = [
    *sorted(SAYS, key=lambda flow: flow.__name__),
    list_items,
    read_conversation,
    update_conversation,
    update_thread,
    change_message,
    read_response,
    list_messages,
    list_after_a_lost_run,
    without_storing,
    delete_item,
    create,
    create_and_run,
]


def unheard(app: App, scene: Scene) -> None:
    app.call("beta.threads.runs.create", thread_id=scene.handle, assistant_id=scene.assistant)


def begun(world: World, flow: Any) -> Scene:
    """A conversation with one turn behind it."""
    app = world.app()
    if flow in {on_response, read_response}:
        return Scene(world, str(app.respond(FACT).id))
    if flow in THREADS:
        assistant = app.call("beta.assistants.create", model=MODEL).id
        thread = app.call("beta.threads.create", metadata={"user": "ann"}).id
        app.say(thread, assistant, FACT)
        scene = Scene(world, thread, assistant)
        if flow in AFTER_A_LOST_RUN:
            world.provider.order(Fault("answer_lost", match=r"POST /threads/[^/]+/runs$"))
            with pytest.raises(openai.APIConnectionError):
                {run_again: run, stream_again: run_streamed}.get(flow, unheard)(app, scene)
            world.clock.advance(RUN_SECONDS)
        return scene
    handle = str(app.call("conversations.create", metadata={"user": "ann"}).id)
    app.respond(FACT, conversation=handle)
    if flow in FROM_NOTHING:
        app.respond(LONG, conversation=handle)
        plain = world.plain()
        listed = plain.call("conversations.items.list", conversation_id=handle)
        for item in listed.data:
            plain.call("conversations.items.delete", item_id=item.id, conversation_id=handle)
    if flow is after_a_lost_answer:
        world.provider.order(Fault("answer_lost", match="POST /responses"))
        with pytest.raises(openai.APIConnectionError):
            app.respond("Unheard.", conversation=handle)
    return Scene(world, handle)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [False, True], ids=["healthy", "lost"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.__name__)
def test_another_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flow: Any, *, after: bool, lost: bool
) -> None:
    def story(world: World, dies: Callable[[Callable[[], object]], bool], point: int) -> None:
        scene = begun(world, flow)
        if lost:
            world.forgets(scene.handle)
        dead = dies(lambda: flow(world.app(), scene))
        if dead:
            world.clock.advance(MOST_OF_A_LEASE)
        if dead or flow in SAYS:
            flow(world.app(), scene)
        if flow in SAYS:
            told_of(scene, point)
        check(scene, flow, point)

    die_at_every_point(tmp_path, monkeypatch, story, after=after)


def told_of(scene: Scene, point: int) -> None:
    """The caller has its answer to the end, and so has the journal."""
    ((state,),) = scene.world.rows("SELECT state FROM perdure_turn WHERE turn_id = 'turn-2'")
    assert "answered" == state, f"killed at op {point}"


def check(scene: Scene, flow: Any, point: int) -> None:
    """The conversation goes on, knows everything, and has nothing twice."""
    app, world = scene.world.app(), scene.world
    if flow in THREADS:
        answer = app.say(scene.handle, scene.assistant, QUESTION)
    else:
        kind = "previous_response_id" if scene.handle.startswith("resp_") else "conversation"
        answer = app.respond(QUESTION, **{kind: scene.handle}).output_text
    assert FACT in answer, f"killed at op {point}"
    said = [wire for (wire,) in world.rows("SELECT wire FROM perdure_item WHERE withdrawn = 0")]
    assert (flow in SAYS) == sum(f'"{MESSAGE}"' in wire for wire in said), f"killed at op {point}"
    assert [] == world.rows(
        "SELECT turn_seq FROM perdure_item WHERE role = 'assistant' AND withdrawn = 0 "
        "AND turn_seq IS NOT NULL GROUP BY conversation, turn_seq HAVING count(*) > 1"
    )
    assert [] == world.rows(
        "SELECT conversation FROM perdure_handle WHERE kind IN ('conversation', 'thread') "
        "AND state = 'live' GROUP BY conversation HAVING count(*) > 1"
    )
    assert [("ok",)] == world.rows("PRAGMA integrity_check")
    retrieve = "beta.threads.retrieve" if flow in THREADS else "conversations.retrieve"
    name = "thread_id" if flow in THREADS else "conversation_id"
    if not scene.handle.startswith("resp_"):
        metadata = app.call(retrieve, **{name: scene.handle}).metadata
        assert metadata in ({"user": "ann"}, {"topic": "dogs"}), f"killed at op {point}"


def test_a_turn_that_somebody_delivers_is_waited_for(sync_world: World) -> None:
    """A second request with the same turn id gets the first one's answer, not a second one."""
    app = sync_world.app()
    first = app.respond(FACT)
    header = {"Perdure-Turn": "turn-2"}
    one = app.respond(QUESTION, previous_response_id=first.id, extra_headers=header)
    sync_world.provider.clear_requests()

    two = sync_world.app().respond(QUESTION, previous_response_id=first.id, extra_headers=header)

    assert one.id == two.id
    assert [] == sync_world.asked()
