"""Writers that are killed in the middle of anything lose nothing that they were told was done."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import writer
from tests.programs import program
from tests.writer import answer, asked

KILLS = 500


def run(*arguments: str) -> Any:
    """Run the program that forks writers; what it prints."""
    with program("writer", *arguments, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(timeout=100)
    assert 0 == process.returncode
    return json.loads(out) if out else None


class Turn(NamedTuple):
    """A row of the journal."""

    turn_id: str
    conversation: int
    seq: int
    state: str
    first: int
    last: int
    answer: int | None
    response: str | None


class Journal:
    """The file as it stands after all of it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        found = self.rows(
            "SELECT turn_id, conversation, seq, state, first_position, last_position, answer, "
            "response_id FROM perdure_turn"
        )
        self.turns = {row[0]: Turn(*row) for row in found}
        self.said: defaultdict[tuple[int, int], list[tuple[int, str, str]]] = defaultdict(list)
        for conversation, seq, position, role, wire in self.rows(
            "SELECT conversation, turn_seq, position, role, json_extract(wire, '$.content') "
            "FROM perdure_item WHERE withdrawn = 0 ORDER BY key"
        ):
            self.said[conversation, seq].append((position, role, wire))
        self.answers = dict(self.rows("SELECT answer, body FROM perdure_answer"))
        self.handles = dict(self.rows("SELECT handle, conversation FROM perdure_handle"))

    def rows(self, query: str) -> list[Any]:
        return self.connection.execute(query).fetchall()


def problems(journal: Journal, told: dict[str, list[str]]) -> Iterator[str]:
    """What was told and is not so, and what is there by half."""
    for turn_id in told["accepted"]:
        if turn_id not in journal.turns:
            yield f"accepted and lost: {turn_id}"
    for turn_id in told["answered"]:
        if turn_id not in journal.turns or journal.turns[turn_id].state != "answered":
            yield f"answered and lost: {turn_id}"
    for turn in journal.turns.values():
        if problem := half_written(journal, turn):
            yield f"{problem}: {turn}"


def half_written(journal: Journal, turn: Turn) -> str | None:
    """What is not as one of the two operations leaves it."""
    one, two = asked(turn.turn_id)
    expected = [(turn.first, "user", one), (turn.first + 1, "user", two)]
    if turn.state == "answered":
        body = answer(turn.turn_id)
        expected.append((turn.last + 1, "assistant", json.loads(body)["text"]))
        if journal.answers.get(turn.answer or 0) != body:
            return "it has another answer"
        if journal.handles.get(f"resp_{turn.turn_id}") != turn.conversation:
            return "its response's id leads nowhere"
    elif turn.state != "delivering" or turn.answer is not None:
        return "it is neither under way nor answered"
    if expected != journal.said[turn.conversation, turn.seq]:
        return "it has other items"
    if not turn.turn_id.endswith(f".{turn.seq - 1}"):
        return "it is out of order"
    return None


def of_the_whole(journal: Journal) -> dict[str, Any]:
    """What must hold for the file as a whole."""
    return {
        "integrity": journal.rows("PRAGMA integrity_check"),
        "items of no turn": len(
            set(journal.said) - {(turn.conversation, turn.seq) for turn in journal.turns.values()}
        ),
        "answers of no turn": len(journal.answers)
        - sum(turn.answer is not None for turn in journal.turns.values()),
        "conversations that miscount": journal.rows(
            "SELECT conversation FROM perdure_conversation c WHERE "
            "last_seq != (SELECT count(*) FROM perdure_turn t WHERE t.conversation = c.conversation"
            ") OR last_position != "
            "(SELECT count(*) FROM perdure_item i WHERE i.conversation = c.conversation)"
        ),
        "conversations": journal.rows("SELECT count(*) FROM perdure_conversation"),
    }


@pytest.mark.slow
def test_what_writers_were_told_is_done_is_done(tmp_path: Path) -> None:
    seed = int(os.environ.get("PERDURE_SEED") or random.SystemRandom().randrange(2**32))
    print(f"PERDURE_SEED={seed}")  # noqa: T201
    database = tmp_path / "chat.db"

    told = run(f"sqlite:///{database}", str(seed), str(KILLS))

    assert [] == told["failures"]
    assert told["kills"] >= KILLS
    assert len(told["answered"]) > KILLS
    with closing(sqlite3.connect(database)) as connection:
        journal = Journal(connection)
        assert [] == list(problems(journal, told))[:10]
        assert {
            "integrity": [("ok",)],
            "items of no turn": 0,
            "answers of no turn": 0,
            "conversations that miscount": [],
            "conversations": [(writer.SLOTS * writer.THREADS,)],
        } == of_the_whole(journal)
    print(  # noqa: T201
        f"{told['kills']} kills, {len(told['accepted'])} accepted, "
        f"{len(told['answered'])} answered turns, none lost"
    )


def test_what_a_forked_writer_was_told_outlives_its_parents_connection(tmp_path: Path) -> None:
    database = tmp_path / "chat.db"

    run(f"sqlite:///{database}", "hand-over")

    with closing(sqlite3.connect(database)) as connection:
        subjects = connection.execute("SELECT subject FROM perdure_conversation ORDER BY 1")
        assert [("child-1",), ("child-2",), ("parent",)] == subjects.fetchall()
