"""The frameworks that sit on the OpenAI SDK, in the environment that has them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

_FRAMEWORKS = {"agents", "agent_framework_openai", "langchain_openai", "pydantic_ai"}


@pytest.mark.slow
@pytest.mark.timeout(400)  # two hundred conversations through four frameworks, one after the other
def test_every_framework_recovers(repo: Path) -> None:
    interpreter = repo / ".venv/envs/frameworks/bin/python"
    assert interpreter.exists(), "make setup makes the environment with the frameworks"

    done = subprocess.run(
        [interpreter, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
         "tests/frameworks"],
        cwd=repo,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST")},
        capture_output=True,
        text=True,
        timeout=390,
        check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stdout[-5000:]
    assert "skipped" not in done.stdout.splitlines()[-1]


def test_the_main_environment_has_none_of_them(repo: Path) -> None:
    names = {path.name for path in (repo / ".venv").glob("lib/python*/site-packages/*")}

    assert set() == _FRAMEWORKS & names
