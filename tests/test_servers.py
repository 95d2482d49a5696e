"""A server that a test starts is gone when the test process is, however that ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import servers
from tests.servers import postgres

USER = """
import sys, time
from tests.servers import postgres
with postgres().database():
    print(postgres().folder, flush=True)
    {then}
"""


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("ending", ["it ends", "it fails", "Ctrl-C", "killed"])
def test_nothing_is_left_behind(repo: Path, ending: str) -> None:
    postgres()
    then = {"it ends": "pass", "it fails": "sys.exit(3)"}.get(ending, "time.sleep(60)")
    with subprocess.Popen(
        [sys.executable, "-c", USER.format(then=then)],
        cwd=repo,
        env={**os.environ, "PYTHONPATH": str(repo)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as user:
        try:
            assert user.stdout is not None
            folder = Path(user.stdout.readline().strip())
            if ending == "Ctrl-C":
                user.send_signal(signal.SIGINT)
            if ending == "killed":
                user.kill()
            user.communicate(timeout=30)
        finally:
            user.kill()

    until = time.monotonic() + 20
    while folder.exists() or servers_in(folder):
        assert time.monotonic() < until, (folder, servers_in(folder))
        time.sleep(0.02)


def servers_in(folder: Path) -> list[int]:
    """The processes that work on a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"{folder}/" in command:
            found.append(int(process.name))
    return found


@pytest.mark.parametrize(
    ("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)]
)
def test_a_missing_server_is_a_failure_in_ci_and_a_loud_skip_elsewhere(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setattr(servers, "_postgres", lambda: "no PostgreSQL server: none here")
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no PostgreSQL server"):
        servers.postgres()


def test_a_server_is_not_root() -> None:
    status = Path(postgres().folder) / "data" / "postmaster.pid"
    pid = status.read_text().splitlines()[0]
    owner = Path(f"/proc/{pid}").stat().st_uid
    assert 0 != owner
