"""The ``perdure`` command."""

from __future__ import annotations

import sys
from typing import Final

from perdure.errors import PerdureError

__all__ = ["main"]

_INSTALL: Final = "pip install 'perdure[cli,openai,gateway]'"
_INSTALL_POSTGRES: Final = "pip install 'perdure[cli,postgres]'"
_FAILED: Final = 1
_INTERRUPTED: Final = 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit status.

    0 done, 1 an error of ours, 2 wrong usage, 130 ended by Ctrl-C. Usage errors and help leave
    through ``SystemExit``, as in every typer program.
    """
    try:
        # Not at the top: it needs an extra, and takes long enough to be interrupted.
        from perdure.cli.commands import app  # noqa: PLC0415

        app(args=arguments, prog_name="perdure")
    except KeyboardInterrupt:
        return _INTERRUPTED
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] == "perdure":
            raise
        install = _INSTALL_POSTGRES if missing.name.startswith("psycopg") else _INSTALL
        return _fail(f"this needs {missing.name}, which is not installed. Run: {install}")
    except (PerdureError, OSError) as error:
        return _fail(" ".join(str(error).split()))
    return 0


def _fail(message: str) -> int:
    sys.stderr.write(f"perdure: {message}\n")
    return _FAILED
