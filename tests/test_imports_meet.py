"""Imports of the same file that meet, or are killed, leave each conversation there once, whole."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure
from perdure.engine import ops
from tests.importer import UPSTREAM
from tests.programs import program
from tests.servers import postgres
from tests.valkey_server import valkey

MEETINGS = 24
KILLS = 40


@pytest.fixture(params=["sqlite", "postgresql", "valkey"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'chat.db'}"
    elif request.param == "valkey":
        yield f"{valkey().url}?prefix=imports-{random.getrandbits(60)}"
    else:
        with postgres().database() as url:
            yield url


def rounds(url: str, folder: Path, count: int, *, kills: int) -> list[Any]:
    """Let the importers run; what was imported, and what each of them said."""
    seed = int(os.environ.get("PERDURE_SEED") or random.SystemRandom().randrange(2**32))
    print(f"PERDURE_SEED={seed}")  # noqa: T201
    arguments = (url, str(folder), str(seed), str(count), str(kills))
    with program("importer", *arguments, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(timeout=300)
    assert 0 == process.returncode
    told: list[Any] = json.loads(out)
    return told


def check(url: str, told: list[Any]) -> None:
    """Each conversation is there once: its items in order, its facts, under its id and user."""
    with closing(perdure.open_store(url)) as store:
        for one in told:
            tenant, made = one["tenant"], one["made"]
            listed = store.perform(ops.Conversations(tenant, None, 0, 99))
            if "prefix" not in url:  # Valkey lists those of users only
                assert sorted(new["handle"] for new in made) == sorted(old.handle for old in listed)
            users: set[str] = set()
            for new in made:
                found = store.perform(ops.Find(tenant, UPSTREAM, new["handle"]))
                span = store.perform(ops.History(tenant, found.conversation, 10**6, 10**9))
                assert new["said"] == [json.loads(item.input)["content"] for item in span.items]
                assert tuple(new["facts"]) == span.milestones
                assert ("lost", 0) == (found.replica.state, found.replica.generation)
                if new["subject"] and new["subject"] not in users:
                    users.add(new["subject"])
                    subject = store.perform(ops.FindSubject(tenant, new["subject"]))
                    assert found.conversation == subject.conversation
            assert () == store.perform(ops.Orphans(tenant, UPSTREAM, 9))


def counts(said: dict[str, Any]) -> tuple[int, int]:
    """How many items an import says that it has entered, and that it has found."""
    assert 0 == said["status"], said
    found = re.search(r"([\d,]+) items imported, ([\d,]+) known before", said["out"])
    assert found is not None, said["out"]
    assert "left out" not in said["out"]
    entered, known = (int(one.replace(",", "")) for one in found.groups())
    return entered, known


@pytest.mark.slow
def test_the_same_file_imported_by_several_at_once_is_there_once(url: str, tmp_path: Path) -> None:
    told = rounds(url, tmp_path, MEETINGS, kills=0)

    check(url, told)
    shared = sum(map(was_shared, told))
    print(f"{shared} of {len(told)} entered by several together")  # noqa: T201
    assert shared, "no two imports met: this has shown nothing"


def was_shared(one: dict[str, Any]) -> bool:
    """Whether a file was entered by more than one; each item of it was, by one of them."""
    items = sum(len(new["said"]) for new in one["made"])
    each = [counts(said) for said in one["ended"]]
    assert items == sum(entered for entered, _ in each)
    assert {items} == {entered + known for entered, known in each}
    assert (0, items) == counts(one["again"])
    return sum(entered > 0 for entered, _ in each) > 1


@pytest.mark.slow
def test_imports_that_are_killed_go_on_where_they_were(url: str, tmp_path: Path) -> None:
    told = rounds(url, tmp_path, KILLS // 2, kills=2)

    check(url, told)
    broken_off = 0
    for one in told:
        items = sum(len(new["said"]) for new in one["made"])
        entered, known = counts(one["again"])
        assert items == entered + known
        broken_off += 0 < known < items
    killed = sum(said["status"] == -9 for one in told for said in one["ended"])
    print(f"{killed} killed, {broken_off} of {len(told)} broken off in between")  # noqa: T201
    assert killed > KILLS // 8
    assert broken_off


@pytest.mark.slow
def test_nothing_is_left_open_in_the_database(url: str, tmp_path: Path) -> None:
    """A killed importer keeps nobody waiting, on a server neither."""
    rounds(url, tmp_path, 4, kills=2)
    if url.startswith("postgresql"):
        with psycopg.connect(url) as connection:
            held = connection.execute(
                "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation "
                "WHERE c.relnamespace = 'perdure'::regnamespace"
            ).fetchone()
        assert (0,) == held
