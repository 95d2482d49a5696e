"""The commands and their options."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

import perdure

# Plain help reads the same in a terminal, a log and the docs; completion would add options to it.
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
schema = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Check, apply or print the schema of a PostgreSQL store.",
)
app.add_typer(schema, name="schema")
INTERRUPTED = 130
"""What a shell reports for a program ended by Ctrl-C."""


@contextmanager
def interruptible() -> Iterator[None]:
    """End the command on Ctrl-C without a traceback; typer's own answer depends on its version."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(err=True)
        raise typer.Exit(INTERRUPTED) from None


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"perdure {perdure.__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Keep LLM conversations alive when the provider's copy of them dies."""


@app.command()
def demo(
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Keep the run's database in this folder instead of a temporary one.",
        ),
    ] = None,
) -> None:
    """Lose a conversation on each OpenAI API and watch it go on. Offline, a few seconds."""
    with interruptible():
        from perdure.cli.demo import run_demo  # noqa: PLC0415 - needs more extras than the help

        run_demo(keep)


@app.command()
def doctor(
    base_url: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="OPENAI_BASE_URL",
            help="The server's API, up to /v1, with ?api-version= if it wants that.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(metavar="NAME", help="A model of that server."),
    ] = "gpt-5.6",
    api_key: Annotated[
        str, typer.Option(metavar="KEY", envvar="OPENAI_API_KEY", help="The key to ask with.")
    ] = "none",
    rules: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="Verdict rules of your own (TOML)."
        ),
    ] = None,
) -> None:
    """Show what a server answers for dead handles, and which verdict rule catches each answer.

    Asks about ids that do not exist; where no rule knows the answer the id is read once more, as
    perdure does, and that decides. Exits with 1 where a loss would be missed. A server that answers
    such a call instead of refusing it makes at most three short model calls, and starts from
    nothing without saying so.
    """
    with interruptible():
        from perdure.cli.doctor import examine  # noqa: PLC0415 - needs more extras than the help

        examine(base_url, model, api_key, rules)


@app.command()
def provider(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(metavar="N", min=0, max=65535, help="Port to listen on; 0 takes a free one."),
    ] = 8485,
) -> None:
    """Run the embedded OpenAI-compatible provider until Ctrl-C.

    A test double: in memory, deterministic, without a key. Its clock can be turned, and losses and
    faults can be ordered over HTTP.
    """
    with interruptible():
        from perdure.cli.provider import run_provider  # noqa: PLC0415 - needs more extras

        run_provider(host, port)


@app.command()
def sweep(
    store: Annotated[
        str, typer.Option(metavar="URL", help="The store, sqlite:///chat.db for one.")
    ],
    upstream: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="OPENAI_BASE_URL",
            help="The provider, up to /v1, with ?api-version= if it wants that.",
        ),
    ] = "https://api.openai.com/v1",
    api_key: Annotated[
        str, typer.Option(metavar="KEY", envvar="OPENAI_API_KEY", help="The key to delete with.")
    ] = "none",
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose conversations.")] = "default",
    summarise: Annotated[
        str | None,
        typer.Option(
            metavar="BY", help="Summarise long conversations: 'extractive', or a model's name."
        ),
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count; delete nothing.")] = False,
) -> None:
    """Delete what a provider still holds and nobody wants any more.

    Replicas that were given up, that lost a race, or whose conversation was forgotten; and, here,
    conversations of one turn that nobody continued before the provider's retention was over. The
    search index is brought up to date, and summaries where that is asked for.
    """
    with interruptible():
        from perdure.cli.sweep import sweep_store  # noqa: PLC0415 - needs more than the help

        sweep_store(store, upstream, api_key, tenant, summarise, dry_run=dry_run)


@app.command("export")
def export_command(
    store: Annotated[
        str, typer.Option(metavar="URL", help="The store, sqlite:///chat.db for one.")
    ],
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="A folder for one file each."),
    ] = None,
    subject: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this user's conversation.")
    ] = None,
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose conversations.")] = "default",
) -> None:
    """Write conversations as JSON lines, one self-describing file for each, or to standard output.

    Items that were deleted stay out. Done again it writes the same files anew.
    """
    with interruptible():
        from perdure.cli.transfer import export_store  # noqa: PLC0415 - needs more than the help

        export_store(store, to, tenant, subject)


@app.command("import")
def import_command(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", exists=True, help="Files, or folders of them."),
    ],
    store: Annotated[
        str, typer.Option(metavar="URL", help="The store, sqlite:///chat.db for one.")
    ],
    upstream: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="OPENAI_BASE_URL",
            help="The provider that the app calls, up to /v1: old ids work there.",
        ),
    ] = "https://api.openai.com/v1",
    subject: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose conversation it is, for Chat.")
    ] = None,
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose conversations.")] = "default",
) -> None:
    """Enter conversations from files: each is live under its old id from its next turn on.

    Takes what perdure export writes, assistants-thread-export/v1 files, lists of Chat Completions
    messages (all JSON), and SQLite sessions of openai-agents. Done again, or after it was broken
    off, it goes on behind what is there. What could not be carried is told.
    """
    with interruptible():
        from perdure.cli.transfer import import_files  # noqa: PLC0415 - needs more than the help

        import_files(store, files, tenant, upstream, subject)


_Store = Annotated[
    str,
    typer.Option("--store", metavar="URL", help="The database, postgresql://user@host/name."),
]


@schema.command("check")
def schema_check(store: _Store) -> None:
    """Say whether a database is ready for this perdure; exit 1 if it is not.

    Changes nothing.
    """
    with interruptible():
        from perdure.cli.schema import check_schema  # noqa: PLC0415 - needs another extra

        check_schema(store)


@schema.command("apply")
def schema_apply(store: _Store) -> None:
    """Bring a database up to date, in one transaction.

    Done twice it does nothing the second time. Workers may go on meanwhile.
    """
    with interruptible():
        from perdure.cli.schema import apply_schema  # noqa: PLC0415 - needs another extra

        apply_schema(store)


@schema.command("sql")
def schema_sql(
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", help="Print only what this database lacks."),
    ] = None,
) -> None:
    """Print the SQL that apply would run, for whoever may change the database."""
    with interruptible():
        from perdure.cli.schema import print_schema  # noqa: PLC0415 - needs another extra

        print_schema(store)
