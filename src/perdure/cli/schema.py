"""``perdure schema``: the one thing that a PostgreSQL store leaves to a person."""

from __future__ import annotations

import typer

from perdure.stores.postgres import administration


def check_schema(store: str) -> None:
    """Print that a database is ready for this perdure; raises a StoreError if it is not."""
    where = administration.check(store)
    typer.echo(f"{where} is up to date.")


def apply_schema(store: str) -> None:
    """Bring a database up to date and print what was done."""
    where, done = administration.apply(store)
    for name in done:
        typer.echo(f"applied {name}")
    typer.echo(f"{where} is up to date." if done else f"{where} was up to date already.")


def print_schema(store: str | None) -> None:
    """Print the SQL of the schema, or what a database lacks of it."""
    typer.echo(administration.script(store) or "-- Nothing to do: the schema is up to date.")
