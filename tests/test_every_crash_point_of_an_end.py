"""What is ended is ended, whenever a process dies in it: deletes, an erasure, a tool's outputs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest

import perdure
from perdure.model import value
from tests.test_every_crash_point import FACT, RUN_SECONDS, die_at_every_point
from tests.test_runs_that_speak_before_they_ask import LIST, SUBMIT, WEATHER, Talk
from tests.world import MODEL, App, World

USER = "ann"


@value
class End:
    """Something that ends: how it began, what ends it, and what must hold then."""

    name: str
    begin: Callable[[World], Any]
    end: Callable[[App, Any], object]
    check: Callable[[World, Any], None]


def a_conversation(world: World) -> str:
    app = world.app()
    handle = str(app.call("conversations.create").id)
    app.respond(FACT, conversation=handle)
    return handle


def a_thread(world: World) -> str:
    app = world.app()
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    return thread


def a_response(world: World) -> str:
    return str(world.app().respond(FACT).id)


def a_user(world: World) -> str:
    chat(world.app()).send(USER, FACT)
    ((handle,),) = world.rows("SELECT replica_handle FROM perdure_conversation")
    return str(handle)


def chat(app: App) -> Any:
    return perdure.Chat(app.sdk, via="conversations", model=MODEL)


def outputs(world: World) -> dict[str, Any]:
    talk = Talk(world)
    return talk.outputs(talk.run())


def is_deleted(world: World, handle: str) -> None:
    state = world.provider.state
    assert handle not in {*state.conversations, *state.threads, *state.responses}
    if handle.startswith("thread_"):
        with pytest.raises(openai.NotFoundError):
            world.app().call(LIST, thread_id=handle)
    else:
        kind = "conversation" if handle.startswith("conv_") else "previous_response_id"
        with pytest.raises(openai.APIStatusError):
            world.app().respond("Hello?", **{kind: handle})


def is_erased(world: World, handle: str) -> None:
    for table in ("item", "turn", "answer", "conversation", "handle", "milestone"):
        assert [(0,)] == world.rows(f"SELECT count(*) FROM perdure_{table}"), table  # noqa: S608
    if handle in world.provider.state.conversations:
        orphans = world.rows("SELECT handle FROM perdure_orphan WHERE deleted_at IS NULL")
        assert (handle,) in orphans, "it will be"


def is_given_once(world: World, given: dict[str, Any]) -> None:
    world.clock.advance(RUN_SECONDS)
    listed = world.app().call(LIST, thread_id=given["thread_id"])
    assert 1 == sum(WEATHER in str(one.content) for one in listed.data)


ENDS = [
    End(
        "conversation",
        a_conversation,
        lambda app, handle: app.call("conversations.delete", conversation_id=handle),
        is_deleted,
    ),
    End(
        "thread",
        a_thread,
        lambda app, handle: app.call("beta.threads.delete", thread_id=handle),
        is_deleted,
    ),
    End(
        "response",
        a_response,
        lambda app, handle: app.call("responses.delete", response_id=handle),
        is_deleted,
    ),
    End("user", a_user, lambda app, _: chat(app).forget(USER), is_erased),
    End("outputs", outputs, lambda app, given: app.call(SUBMIT, **given), is_given_once),
]
# A lost run asks for its outputs anew: tests/test_threads_outlive_their_thread.py.
CASES = [(end, lost) for end in ENDS for lost in (False, True) if not lost or end.name != "outputs"]


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("end", "lost"),
    CASES,
    ids=[f"{end.name}-{'lost' if lost else 'healthy'}" for end, lost in CASES],
)
def test_another_process_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: End, *, after: bool, lost: bool
) -> None:
    def story(world: World, dies: Callable[[Callable[[], object]], bool], _point: int) -> None:
        begun = end.begin(world)
        if lost:
            world.forgets(begun)
        if dies(lambda: end.end(world.app(), begun)):
            with suppress(openai.NotFoundError):  # it was deleted before the process died
                end.end(world.app(), begun)
        end.check(world, begun)

    die_at_every_point(tmp_path, monkeypatch, story, after=after)
