"""What is known of providers, by host: how long each keeps an idle replica."""

from __future__ import annotations

import tomllib
from datetime import timedelta
from functools import cache
from importlib.resources import files
from urllib.parse import urlsplit

from perdure.model import Dialect, Policy


@cache
def _table() -> tuple[tuple[str, dict[str, timedelta]], ...]:
    text = files(__package__).joinpath("upstreams.toml").read_text(encoding="utf-8")
    return tuple(
        (
            row["host"],
            {
                dialect: timedelta(**row[dialect])
                for dialect in ("responses", "conversations", "threads")
                if dialect in row
            },
        )
        for row in tomllib.loads(text)["upstream"]
    )


@cache
def _known(upstream: str, dialect: Dialect) -> float | None:
    host = urlsplit(upstream).hostname or ""
    for suffix, kept in _table():
        if host.endswith(suffix) and dialect in kept:
            return kept[dialect].total_seconds()
    return None


def retention_seconds(policy: Policy, upstream: str, dialect: Dialect) -> float | None:
    """Return after how many idle seconds a replica is gone for certain; None: not predictable."""
    chosen = policy.retention.get(dialect)
    if chosen is not None:
        return chosen.total_seconds()
    return _known(upstream, dialect)
