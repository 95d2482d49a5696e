"""A SQLite file that does not exist yet may be opened by all the workers of an app at once."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

import perdure
from perdure.dialects.items import user_message
from perdure.engine.ops import Accept, FindSubject
from perdure.errors import StoreUnavailable
from perdure.stores.sqlite import connection as connections

WORKERS = 6
FILES = 25
HELD_SECONDS = 0.2


def said_by(worker: int) -> Accept:
    message = (user_message(f"I am worker {worker}."),)
    return Accept("t", "u", "responses", "respond", None, "h", message, "{}", subject=f"{worker}")


def test_all_workers_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Connections of one process lock each other out as those of several do."""
    barrier = threading.Barrier(WORKERS)

    def work(url: str, worker: int) -> None:
        with closing(perdure.open_store(url)) as store:
            barrier.wait()
            store.perform(said_by(worker))

    with ThreadPoolExecutor(WORKERS) as pool:
        for number in range(FILES):
            url = f"sqlite:///{tmp_path / f'{number}.db'}"
            list(pool.map(work, [url] * WORKERS, range(WORKERS)))
            with closing(perdure.open_store(url)) as store:
                for worker in range(WORKERS):
                    assert store.perform(FindSubject("t", f"{worker}"))


@pytest.fixture(params=["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> sqlite3.Connection:
    """A new file that somebody is reading or making."""
    connection = sqlite3.connect(tmp_path / "chat.db", check_same_thread=False)
    connection.isolation_level = None
    connection.execute(request.param)
    connection.execute("SELECT * FROM sqlite_master").fetchall()
    return connection


def test_a_new_file_that_is_held_is_waited_for(held: sqlite3.Connection, tmp_path: Path) -> None:
    def let_go() -> None:
        time.sleep(HELD_SECONDS)
        held.close()

    thread = threading.Thread(target=let_go)
    thread.start()
    with closing(perdure.open_store(f"sqlite:///{tmp_path / 'chat.db'}")) as store:
        store.perform(said_by(0))
        assert store.perform(FindSubject("t", "0"))
    thread.join()


def test_a_file_that_stays_held_is_named(
    held: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_BUSY_SECONDS", HELD_SECONDS)
    with (
        closing(held),
        closing(perdure.open_store(f"sqlite:///{tmp_path / 'chat.db'}")) as store,
        pytest.raises(StoreUnavailable, match=r"chat\.db cannot be used: .* Another program has"),
    ):
        store.perform(said_by(0))
