"""What a conversation promises holds on PostgreSQL as well: scenarios that lean on the store."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure
from perdure.testing import Provider
from perdure.transport import sync
from tests.servers import DatabaseClock, postgres
from tests.world import World, recovered

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
WORKERS = 8


class PostgresWorld(World):
    """A world whose store is a database of its own."""

    def __init__(self, colour: Any, folder: Path, url: str) -> None:
        super().__init__(colour, folder)
        self.url = url
        self.clock: DatabaseClock = DatabaseClock(url)
        self.provider = Provider(clock=self.clock)

    def store(self) -> Any:
        """A store on this world's database, as another process would open it."""
        return perdure.open_store(self.url)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What the database says."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def close(self) -> None:
        super().close()
        self.clock.close()


@pytest.fixture
def url() -> Iterator[str]:
    with postgres().database() as url:
        yield url


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest, tmp_path: Path, url: str) -> Iterator[PostgresWorld]:
    world = PostgresWorld(request.param, tmp_path, url)
    world.provider.start()
    yield world
    world.close()


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("via", ["responses", "conversations"])
def test_a_lost_replica_recovers(world: PostgresWorld, via: str, *, streamed: bool) -> None:
    app = world.app()
    ask = app.stream if streamed else app.respond
    if via == "responses":
        lost = ask(FACT).id
        handle = {"previous_response_id": lost}
    else:
        lost = app.call("conversations.create").id
        handle = {"conversation": lost}
        ask(FACT, **handle)
    world.forgets(lost)

    answer = ask(QUESTION, **handle)

    assert FACT in answer.output_text
    assert {"memory": "full", "lost_handle": lost}.items() <= (recovered(answer) or {}).items()
    assert [(1, "full", lost)] == world.rows(
        "SELECT generation, memory, lost_handle FROM perdure.recovery"
    )


def test_a_lost_thread_recovers(world: PostgresWorld) -> None:
    app = world.app()
    thread, assistant = app.thread()
    app.say(thread, assistant, FACT)
    world.forgets(thread)

    assert FACT in app.say(thread, assistant, QUESTION)

    assert [(1, "full", thread)] == world.rows(
        "SELECT generation, memory, lost_handle FROM perdure.recovery"
    )


@pytest.mark.parametrize("via", ["responses", "conversations"])
def test_a_chat_goes_on(world: PostgresWorld, via: str) -> None:
    chat = world.chat(via)
    chat.send("ann", FACT)
    chat.pin("ann", "Allergic to penicillin")
    world.forgets()

    pieces, streamed = chat.stream("ann", QUESTION)

    assert FACT in "".join(pieces)
    assert "full" == streamed.recovery.memory
    assert FACT in chat.send("ann", QUESTION).text
    said = [entry.text for entry in chat.history("ann")]
    assert [FACT, QUESTION, QUESTION] == said[::2]
    receipt = chat.forget("ann")
    assert (1, 6, 3) == (receipt.conversations, receipt.items, receipt.turns)
    assert [(0, 0)] == world.rows(
        "SELECT (SELECT count(*) FROM perdure.conversation), (SELECT count(*) FROM perdure.item)"
    )


# -- many workers ----------------------------------------------------------------------------


def one_replica(world: PostgresWorld) -> None:
    """However many created one, one is bound, and the others are gone."""
    world.drain()
    ((live, generation),) = world.rows(
        "SELECT replica_handle, generation FROM perdure.conversation"
    )
    assert 1 == generation
    assert [live] == list(world.provider.state.conversations)


@pytest.fixture
def sync_world(tmp_path: Path, url: str) -> Iterator[PostgresWorld]:
    world = PostgresWorld("sync", tmp_path, url)
    world.provider.start()
    yield world
    world.close()


@pytest.mark.parametrize("same", [False, True], ids=["different messages", "one message"])
def test_many_threads_meet_one_loss(sync_world: PostgresWorld, *, same: bool) -> None:
    conversation = begun_conversation(sync_world)
    # Real sleep: workers that wait must not turn the clock under the one that works.
    apps = [sync_world.app(sleep=time.sleep) for _ in range(WORKERS)]

    def ask(number: int) -> str:
        message = QUESTION if same else f"{QUESTION} I ask for the {number}th time."
        text: str = apps[number].respond(message, conversation=conversation).output_text
        return text

    with ThreadPoolExecutor(WORKERS) as pool:
        said = list(pool.map(ask, range(WORKERS)))

    assert [True] * WORKERS == [FACT in text for text in said]
    one_replica(sync_world)


def begun_conversation(world: PostgresWorld) -> str:
    app = world.app()
    conversation: str = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    world.forgets(conversation)
    return conversation


WORKER = """
import sys
import openai, perdure
url, base_url, conversation, number = sys.argv[1:]
http = perdure.http_client(url)
client = openai.OpenAI(api_key="k", base_url=base_url, http_client=http, max_retries=0)
sys.stdin.readline()
answer = client.responses.create(
    model="gpt-5.6", conversation=conversation, input=f"What is my dog called? ({number})"
)
print(answer.output_text)
client.close()
"""


@pytest.mark.slow
def test_many_processes_meet_one_loss(sync_world: PostgresWorld) -> None:
    conversation = begun_conversation(sync_world)
    arguments = [sync_world.url, sync_world.provider.base_url, conversation]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    said = [worker.communicate(timeout=60)[0] for worker in workers]

    assert [True] * 4 == [FACT in text for text in said]
    one_replica(sync_world)


# -- crashes ---------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


class Killer:
    """Kills the process before or after its n-th op; from then on no op is performed."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.left = at
        self.after = after
        self.dead = False

    def wrap(self, perform: Any) -> Any:
        def mortal(driver: Any, op: Any) -> Any:
            self.left -= 1
            if not self.dead and self.left >= 0:
                return perform(driver, op)
            if not self.dead and self.after:
                perform(driver, op)
            self.dead = True
            raise Killed

        return mortal


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_another_process_goes_on_from_any_point(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    """The flow with the most operations: a conversation that is lost, and rebuilt."""
    for point in range(60):
        world = PostgresWorld("sync", tmp_path, url)
        world.provider.start()
        try:
            handle = begun_conversation(world)
            killer = Killer(point, after=after)
            turn = f"turn-{after}-{point}"
            asked = {"conversation": handle, "extra_headers": {"Perdure-Turn": turn}}
            with monkeypatch.context() as patch:
                patch.setattr(sync._Exchange, "perform", killer.wrap(sync._Exchange.perform))
                with suppress(Killed):
                    world.app().respond(QUESTION, **asked)

            answer = world.app().respond(QUESTION, **asked)

            assert FACT in answer.output_text, f"killed at op {point}"
            assert [("answered",)] == world.rows(
                "SELECT state FROM perdure.turn WHERE turn_id = %s", turn
            )
        finally:
            world.close()
        if not killer.dead:
            assert point >= 5
            return
    pytest.fail("the flow never came to its end")
