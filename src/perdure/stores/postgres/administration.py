"""What ``perdure schema`` does to a database."""

from __future__ import annotations

from typing import Final

import psycopg

from perdure.errors import ConfigurationError
from perdure.stores.postgres import schema as schemas
from perdure.stores.postgres.connections import connected, described, looked_at, refusal
from perdure.stores.postgres.store import split_url

# Two that apply at once: the second waits for the first and finds the work done. The number is
# that of nothing else; the lock goes with the transaction.
_LOCK: Final = "SELECT pg_advisory_xact_lock(7350317218245993281)"


def pending(url: str) -> tuple[str, schemas.State]:
    """Return how messages name a database, and what its schema lacks; changes nothing."""
    url, schema = _checked(url)
    where = described(url)
    try:
        with connected(url) as connection:
            return where, looked_at(connection, schema, where)
    except psycopg.Error as error:
        raise refusal(error, where) from error


def check(url: str) -> str:
    """Return how messages name a database that is ready; raises what a store on it would."""
    where, state = pending(url)
    schemas.check(state, _checked(url)[1], where)
    return where


def apply(url: str) -> tuple[str, list[str]]:
    """Bring a database's schema up to date in one transaction; returns the names of what was done.

    Done twice it does nothing the second time. Raises what :func:`pending` raises.
    """
    url, schema = _checked(url)
    where = described(url)
    try:
        with connected(url) as connection, connection.transaction():
            connection.execute(_LOCK)
            state = looked_at(connection, schema, where)
            for _, script in state.pending:
                connection.execute(script.encode())
            return where, [name for name, _ in state.pending]
    except psycopg.Error as error:
        raise refusal(error, where) from error


def script(url: str | None) -> str:
    """Return SQL that makes the schema, or (with a URL) what that database lacks of it."""
    if url is None:
        return schemas.script()
    _, schema = _checked(url)
    _, state = pending(url)
    return schemas.script(schema, state.pending)


def _checked(url: str) -> tuple[str, str]:
    if not url.startswith(("postgresql://", "postgres://")):
        raise ConfigurationError(
            f"{url!r} is not a PostgreSQL URL. Only PostgreSQL has a schema to apply; a SQLite "
            "database brings itself up to date."
        )
    url, schema = split_url(url)
    return url, schemas.checked_name(schema)
