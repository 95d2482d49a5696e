"""What is known of providers, by host: how long each keeps an idle replica, what it counts."""

from __future__ import annotations

import tomllib
from datetime import timedelta
from functools import cache
from importlib.resources import files
from urllib.parse import urlsplit

from perdure.model import Dialect, Policy, value


@value
class _Upstream:
    """What the table says of a host and those below it."""

    suffix: str
    kept: dict[str, timedelta]
    counts_cached: bool


@cache
def _table() -> tuple[_Upstream, ...]:
    text = files(__package__).joinpath("upstreams.toml").read_text(encoding="utf-8")
    return tuple(
        _Upstream(
            suffix=row["host"],
            kept={
                dialect: timedelta(**row[dialect])
                for dialect in ("responses", "conversations", "threads")
                if dialect in row
            },
            counts_cached=row.get("counts_cached", False),
        )
        for row in tomllib.loads(text)["upstream"]
    )


@cache
def _known(upstream: str) -> _Upstream | None:
    host = urlsplit(upstream).hostname or ""
    return next((one for one in _table() if host.endswith(one.suffix)), None)


def retention_seconds(policy: Policy, upstream: str, dialect: Dialect) -> float | None:
    """Return after how many idle seconds a replica is gone for certain; None: not predictable."""
    chosen = policy.retention.get(dialect)
    if chosen is not None:
        return chosen.total_seconds()
    known = _known(upstream)
    kept = known.kept.get(dialect) if known else None
    return None if kept is None else kept.total_seconds()


def counts_cached(upstream: str) -> bool:
    """Whether an upstream's input tokens are known to include those that it had cached."""
    known = _known(upstream)
    return known is not None and known.counts_cached
