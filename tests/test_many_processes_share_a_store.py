"""Many processes on one store keep every order and every memory while replicas keep vanishing."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from perdure.testing.provider.text import count_items
from tests.programs import program
from tests.transcripts import spoken
from tests.worker import CONVERSATIONS, LOST_TWICE, TURNS, Control, message

LIMIT_SECONDS = 100.0
BETWEEN_LOSSES_SECONDS = 0.01
LOSSES = 100  # fewer would mean that nothing was put to the test


class Journal:
    """The file that they share, read as anybody can read it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, values).fetchall()

    def live(self) -> list[str]:
        """What can be lost now."""
        try:
            found = self.rows(
                "SELECT replica_handle FROM perdure_conversation "
                "WHERE replica_state = 'live' AND dialect = 'conversations'"
            )
            return [handle for (handle,) in found]
        except sqlite3.OperationalError:  # there is no such table yet
            return []


def vanish(crowd: subprocess.Popen[str], control: Control, journal: Journal, seed: int) -> int:
    """Let replicas vanish as long as anybody uses them; how many have."""
    chance, lost, until = random.Random(seed), 0, time.monotonic() + LIMIT_SECONDS
    while crowd.poll() is None:
        assert time.monotonic() < until, "the crowd does not come to an end"
        time.sleep(BETWEEN_LOSSES_SECONDS)
        if live := journal.live():
            lost += control.forgets(chance.choice(live))
    return lost


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_every_turn_is_answered_once_in_order_and_from_everything_before(tmp_path: Path) -> None:
    seed = int(os.environ.get("PERDURE_SEED") or random.SystemRandom().randrange(2**32))
    print(f"PERDURE_SEED={seed}")  # noqa: T201
    database = tmp_path / "chat.db"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}

    with program("worker", "provider", **pipes) as provider:
        assert provider.stdout is not None
        base_url = provider.stdout.readline().strip()
        began = time.monotonic()
        store = f"sqlite:///{database}?synchronous=normal"
        with (
            closing(Control(base_url)) as control,
            (tmp_path / "crowd.txt").open("w+") as said,
            program("worker", store, base_url, stderr=said) as crowd,
            closing(sqlite3.connect(database, timeout=30)) as connection,
        ):
            journal = Journal(connection)
            lost = vanish(crowd, control, journal, seed)
            said.seek(0)
            errors = said.read()
            assert 0 == crowd.returncode, errors
            twice = errors.count(LOST_TWICE)
            seconds = time.monotonic() - began
            print(f"{lost} losses, {twice} twice in one call, {seconds:.1f} s")  # noqa: T201
            check(journal, control)
            assert lost >= LOSSES


def check(journal: Journal, control: Control) -> None:
    """Nothing is missing, nothing is double, nothing is out of order, nothing was forgotten."""
    assert [("ok",)] == journal.rows("PRAGMA integrity_check")
    turns = spoken(
        journal.rows(
            "SELECT i.conversation, turn_seq, position, role, wire, input_tokens "
            "FROM perdure_item i JOIN perdure_turn t ON t.key = (i.conversation << 32) + turn_seq "
            "WHERE withdrawn = 0 ORDER BY i.key"
        )
    )
    talks: defaultdict[int, list[str]] = defaultdict(list)
    for turn in turns:
        talks[turn.conversation].append(turn.asked)
    assert sorted(transcripts()) == sorted(talks.values())
    assert [] == [turn for turn in turns if turn.tokens != count_items(turn.context)]
    assert [("answered", CONVERSATIONS * TURNS)] == journal.rows(
        "SELECT state, count(*) FROM perdure_turn GROUP BY state"
    )
    assert [("assistant", CONVERSATIONS * TURNS), ("user", CONVERSATIONS * TURNS)] == journal.rows(
        "SELECT role, count(*) FROM perdure_item WHERE withdrawn = 0 GROUP BY role ORDER BY role"
    )
    assert [] == journal.rows(
        "SELECT conversation, count(*) FROM perdure_handle WHERE kind = 'conversation' "
        "AND state = 'live' GROUP BY conversation HAVING count(*) > 1"
    )
    known = journal.rows(
        "SELECT handle FROM perdure_handle WHERE kind = 'conversation' "
        "UNION SELECT handle FROM perdure_orphan WHERE dialect = 'conversations'"
    )
    assert created(control) == len(known)
    assert [] == journal.rows("SELECT * FROM perdure_orphan WHERE handle IS NULL")


def transcripts() -> list[list[str]]:
    """What was said in each conversation."""
    return [
        [message(conversation, turn)[0] for turn in range(TURNS)]
        for conversation in range(CONVERSATIONS)
    ]


def created(control: Control) -> int:
    """How many conversations there have been at the provider."""
    requests = control.ask("GET", "/_provider/requests")[1]["requests"]
    return sum(
        (one["method"], one["path"], one["status"]) == ("POST", "/v1/conversations", 200)
        for one in requests
    )
