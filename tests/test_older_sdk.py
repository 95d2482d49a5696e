"""The same suite under openai 2, whose HTTP library is httpx; and httpx under openai 3."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import openai
import pytest

import perdure
from perdure.testing import Provider

_SUITES = {
    "recoveries": [
        "test_lost_replica_recovers.py",
        "test_the_article_line_by_line.py",
        "test_threads_outlive_their_thread.py",
        "test_what_a_replica_had_is_kept.py",
    ],
    "handles": ["test_handles_and_branches.py", "test_chat.py"],
    "transparency": [
        "test_healthy_path_adds_nothing.py",
        "test_every_sdk_route_is_untouched.py",
        "test_timeouts_retries_and_cancels_stay.py",
    ],
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("suite", _SUITES)
def test_the_suite_passes_under_openai_2(repo: Path, suite: str) -> None:
    interpreter = repo / ".venv/envs/openai2/bin/python"
    assert interpreter.exists(), "make setup makes the environment with the older SDK"
    version = subprocess.run(
        [interpreter, "-c", "import openai, httpx; print(openai.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert version.startswith("2.")

    done = subprocess.run(
        [interpreter, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
         *(f"tests/{name}" for name in _SUITES[suite])],
        cwd=repo,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stdout[-5000:]


@pytest.mark.filterwarnings("ignore:.*httpx.*:DeprecationWarning")
def test_an_httpx_client_works_under_openai_3(tmp_path: Path) -> None:
    with Provider() as provider:
        http = perdure.http_client(f"sqlite:///{tmp_path}/chat.db", family="httpx")
        client = openai.OpenAI(api_key="k", base_url=provider.base_url, http_client=http)
        first = client.responses.create(model="gpt-5.6", input="My dog is called Rex.")
        provider.clock.advance(120)
        provider.forget(first.id)

        answer = client.responses.create(
            model="gpt-5.6", input="What is my dog called?", previous_response_id=first.id
        )
        client.close()

    assert "Rex" in answer.output_text
