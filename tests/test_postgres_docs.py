"""What docs/postgresql.md shows works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from perdure.stores.postgres.statements import STATEMENTS
from perdure.testing import Provider
from tests.servers import postgres

PAGE = (Path(__file__).resolve().parent.parent / "docs/postgresql.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def url() -> Iterator[str]:
    with postgres().database() as url:
        yield url


@pytest.mark.slow
@pytest.mark.parametrize("code", EXAMPLES, ids=range(len(EXAMPLES)))
def test_a_copy_of_the_code_runs(code: str, url: str) -> None:
    with Provider() as provider:
        done = subprocess.run(
            [
                *(sys.executable, "-W", "error", "-W", "ignore::ResourceWarning"),
                *("-c", code.replace("postgresql://perdure@db.example/chat", url)),
            ],
            env={**os.environ, "OPENAI_BASE_URL": provider.base_url, "OPENAI_API_KEY": "sk-test"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ("", 0) == (done.stderr, done.returncode)
    with psycopg.connect(url) as connection:
        assert (1,) == connection.execute("SELECT count(*) FROM perdure.turn").fetchone()


def test_the_operations_that_are_not_asked_again_are_named() -> None:
    told = re.search(r"the rest \((.*?)\)", PAGE)
    assert told is not None
    once = {op.__name__ for op, statement in STATEMENTS.items() if not statement.repeatable}
    assert once == set(re.findall(r"`(\w+)`", told[1]))
