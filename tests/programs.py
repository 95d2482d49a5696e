"""Programs of this folder that tests start, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent


@contextmanager
def program(name: str, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program that is gone afterwards."""
    command = [sys.executable, "-m", f"tests.{name}", *arguments]
    with subprocess.Popen(command, cwd=REPO, text=True, **options) as process:
        try:
            yield process
        finally:
            process.terminate()
