"""SQL kept as SQL: named statements read from ``.sql`` files."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final

_NAME: Final = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load(package: str, name: str) -> dict[str, str]:
    """Return the statements of a file by their names."""
    text = files(package).joinpath(name).read_text(encoding="utf-8")
    pieces = _NAME.split(text)
    return {
        key: statement.strip() for key, statement in zip(pieces[1::2], pieces[2::2], strict=True)
    }


def migrations(package: str) -> list[tuple[str, str]]:
    """Return a package's migrations as (name, script), in the order of their names."""
    found = [entry for entry in files(package).iterdir() if entry.name.endswith(".sql")]
    return sorted(
        (entry.name.removesuffix(".sql"), entry.read_text(encoding="utf-8")) for entry in found
    )
