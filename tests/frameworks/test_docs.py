"""What docs/frameworks.md shows works as it stands there."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.frameworks.site import Site

_PAGE = Path(__file__).resolve().parents[2] / "docs/frameworks.md"
_BLOCKS = dict(
    re.findall(r"^## (\S+)\n.*?^```python\n(.*?)^```$", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
)


def test_the_page_shows_every_framework() -> None:
    assert {"openai-agents", "langchain-openai", "pydantic-ai", "agent-framework"} == set(_BLOCKS)


@pytest.mark.parametrize("framework", _BLOCKS)
def test_a_copy_of_the_code_runs(site: Site, framework: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BLOCKS[framework]],
        cwd=tmp_path,
        env={**os.environ, "OPENAI_BASE_URL": site.provider.base_url, "OPENAI_API_KEY": "sk-test"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    assert "My dog is called Rex." in done.stdout
    with closing(sqlite3.connect(tmp_path / "chat.db")) as connection:
        (turns,) = connection.execute("SELECT count(*) FROM perdure_turn").fetchone()
    assert 2 <= turns
