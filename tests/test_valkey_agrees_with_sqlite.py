"""Valkey and SQLite, asked the same things, answer the same things, whatever they are asked.

Random operations, some of them without sense, on few names, so that they meet each other. What
differs by nature (the numbers of orphans) is left out of the comparison; numbers of conversations,
which the Redis store makes up, are those that SQLite has counted.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import perdure
from perdure.engine import ops
from perdure.stores.redis import RedisStore
from perdure.testing import Clock
from tests.test_postgres_agrees_with_sqlite import Asker, comparable
from tests.valkey_server import valkey

STEPS = 160
# SQLite looks for the handles of a conversation by the ids in its rows, and can miss one that
# another has taken the place of.
LEFT_BEHIND = """
    SELECT 1 FROM perdure_handle
    WHERE conversation NOT IN (SELECT conversation FROM perdure_conversation)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(os.environ.get("SEEDS", "100"))))
def test_the_same_questions_have_the_same_answers(seed: int, tmp_path: Path) -> None:
    asker, clock = Asker(seed), Clock()
    file = tmp_path / "it.db"
    sqlite = perdure.open_store(f"sqlite:///{file}?synchronous=normal", clock=clock.now)
    other = RedisStore(valkey().url, prefix=uuid.uuid4().hex, clock=clock.now)
    sqlite.perform(ops.FindSubject("one", "nobody"))
    with closing(sqlite), closing(other), closing(sqlite3.connect(file)) as reader:

        def counted() -> int:
            query = "SELECT seq FROM sqlite_sequence WHERE name = 'perdure_conversation'"
            row = reader.execute(query).fetchone()
            return int(row[0]) if row else 1

        other._number = counted
        for step in range(STEPS):
            op = asker.one()
            if hasattr(op, "intent"):  # SQLite does not ask whose it is
                op = replace(op, intent=f"{op.tenant}: {op.intent}")
            answer, said = sqlite.perform(op), other.perform(op)
            if isinstance(op, ops.Forget | ops.Unused) and reader.execute(LEFT_BEHIND).fetchone():
                break  # from here on SQLite finds a handle that leads nowhere
            assert comparable(answer) == comparable(said), f"seed {seed}, step {step}: {op}"
            asker.heard(op, answer)
            if asker.chance(0.3):
                clock.advance(asker.some([0.5, 5.0, 40.0]))
