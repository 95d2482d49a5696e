"""The store that a command works on, which has to be there: a mistyped path is no empty store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from perdure.errors import ConfigurationError
from perdure.stores import Store, open_store


def existing_store(url: str) -> Store:
    """Return the store of a URL; raises ConfigurationError where its SQLite file is not there."""
    store, parts = open_store(url), urlsplit(url)
    path = Path(unquote(parts.path).removeprefix("/"))
    if parts.scheme == "sqlite" and path.name and not path.exists():
        raise ConfigurationError(f"There is no database at {path}. Is the path right?")
    return store
