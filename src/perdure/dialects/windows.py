"""How much a model reads at once, by its name."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files


@cache
def _table() -> tuple[tuple[str, int], ...]:
    text = files(__package__).joinpath("windows.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text)["window"]
    # The longest name that fits is the most exact one.
    named = [(name, row["tokens"]) for row in rows for name in row["models"]]
    return tuple(sorted(named, key=lambda row: -len(row[0])))


@cache
def tokens(model: str | None) -> int | None:
    """Return the tokens of a model's window; None where its name begins like none we know."""
    if model is None:
        return None
    bare = model.rpartition("/")[2].lower()  # a router's prefix says nothing of the model
    return next((size for name, size in _table() if bare.startswith(name)), None)
