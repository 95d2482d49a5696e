"""A process that dies between any two ops leaves a state from which another one goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from perdure.flow import Op
from perdure.transport import sync
from tests.world import App, World

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
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


@pytest.fixture
def sync_world(tmp_path: Path) -> Iterator[World]:
    world = World("sync", tmp_path)
    world.provider.start()
    yield world
    world.close()


def on_response(app: App, turn: str, handle: str) -> str:
    header = {"Perdure-Turn": turn}
    text: str = app.respond(QUESTION, previous_response_id=handle, extra_headers=header).output_text
    return text


def on_conversation(app: App, turn: str, handle: str) -> str:
    text: str = app.respond(
        QUESTION, conversation=handle, extra_headers={"Perdure-Turn": turn}
    ).output_text
    return text


def on_stream(app: App, turn: str, handle: str) -> str:
    text: str = app.stream(
        QUESTION, conversation=handle, extra_headers={"Perdure-Turn": turn}
    ).output_text
    return text


def on_thread(app: App, turn: str, handle: str) -> str:
    app.call(
        "beta.threads.messages.create",
        thread_id=handle,
        role="user",
        content=QUESTION,
        extra_headers={"Perdure-Turn": turn},
    )
    return FACT


def begun(world: World, send: Any) -> str:
    """A conversation with one turn behind it; returns its handle."""
    app = world.app()
    if send is on_response:
        return str(app.respond(FACT).id)
    if send is on_thread:
        thread, assistant = app.thread()
        app.say(thread, assistant, FACT)
        return thread
    handle = str(app.call("conversations.create").id)
    app.respond(FACT, conversation=handle)
    return handle


@pytest.mark.slow
@pytest.mark.parametrize("lost", [False, True], ids=["healthy", "lost"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("send", [on_response, on_conversation, on_stream, on_thread])
def test_another_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, send: Any, *, after: bool, lost: bool
) -> None:
    for point in range(_MORE_THAN_ANY_FLOW):
        folder = tmp_path / str(point)
        folder.mkdir()
        world = World("sync", folder)
        world.provider.start()
        try:
            handle = begun(world, send)
            if lost:
                world.forgets(handle)
            killer = Killer(point, after=after)
            with monkeypatch.context() as patch:
                patch.setattr(sync._Exchange, "perform", killer.wrap(sync._Exchange.perform))
                with suppress(Killed):
                    send(world.app(), "turn-2", handle)
            answer = send(world.app(), "turn-2", handle)
            check(world, answer, point)
        finally:
            world.close()
        if not killer.dead:
            assert point >= 3, "accept, send and complete at least"
            return
    pytest.fail("the flow never came to its end")


def check(world: World, answer: str, point: int) -> None:
    said = world.rows(
        "SELECT role, count(*) FROM perdure_item WHERE withdrawn = 0 GROUP BY role ORDER BY role"
    )
    answers = 1 if ("user", 2) in said and ("assistant", 1) in said else 2
    assert FACT in answer, f"killed at op {point}"
    assert [("assistant", answers), ("user", 2)] == said, f"killed at op {point}"
    assert [(1,)] == world.rows(
        "SELECT count(*) FROM perdure_turn WHERE turn_id = 'turn-2' AND state = 'answered'"
    )
    assert [("ok",)] == world.rows("PRAGMA integrity_check")


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
