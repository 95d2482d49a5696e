"""``perdure export`` and ``perdure import``: conversations to files and from files."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from perdure.cli.stores import existing_store
from perdure.engine.ops import Conversations, Listed
from perdure.errors import BadInput, PerdureError
from perdure.flow import Done, run
from perdure.portable.formats import Carried, read_document, read_lines, read_session
from perdure.portable.transfer import bring_in, export
from perdure.stores import Store, open_store

_PAGE: Final = 100
_SQLITE: Final = b"SQLite format 3\0"
_FAILED: Final = 1


def export_store(url: str, folder: Path | None, tenant: str, subject: str | None) -> None:
    """Write each conversation to a file of its own in a folder, or (None) all to standard output.

    A file has its name only when it is whole; one that is there already is replaced.
    """
    with closing(existing_store(url)) as store:
        if folder is None:
            for listed in _listed(store, tenant, subject):
                _export(store, tenant, listed, sys.stdout)
            return
        folder.mkdir(parents=True, exist_ok=True)
        conversations = items = 0
        with _progress("conversations") as bar:
            task = bar.add_task("exported", total=None)
            for listed in _listed(store, tenant, subject):
                path = folder / f"{listed.conversation}.jsonl"
                partial = path.with_suffix(".part")
                with partial.open("w", encoding="utf-8") as file:
                    items += _export(store, tenant, listed, file)
                partial.replace(path)
                conversations += 1
                bar.advance(task)
    typer.echo(f"{conversations:,} conversations with {items:,} items were exported to {folder}.")


def _listed(store: Store, tenant: str, subject: str | None) -> Iterator[Listed]:
    after = 0
    while page := store.perform(Conversations(tenant, subject, after, _PAGE)):
        yield from page
        after = page[-1].conversation


def _export(store: Store, tenant: str, listed: Listed, file: IO[str]) -> int:
    outcome = run(export(tenant, listed, lambda line: file.write(f"{line}\n")), store.perform)
    assert isinstance(outcome, Done)
    return int(outcome.value)


def import_files(
    url: str, paths: list[Path], tenant: str, upstream: str, subject: str | None
) -> None:
    """Enter the conversations of files; what was entered before is not entered again.

    Exit 1 where a file could not be read; the others are imported all the same.
    """
    conversations = items = known = 0
    notes: list[str] = []
    failed = False
    with closing(open_store(url)) as store, _progress("items") as bar:
        task = bar.add_task("imported", total=None)
        for path in _files(paths):
            try:
                for carried in _carried(path, subject):
                    bar.update(task, description=carried.name[:40])
                    flow = bring_in(
                        tenant, upstream.rstrip("/"), carried, lambda n: bar.advance(task, n)
                    )
                    outcome = run(flow, store.perform)
                    assert isinstance(outcome, Done)
                    conversations += 1
                    items += outcome.value.items
                    known += outcome.value.known
                    notes += [f"{carried.name}: not carried: {one}" for one in carried.left_behind]
                    if outcome.value.left_out:
                        notes.append(
                            f"{carried.name}: {outcome.value.left_out:,} items were left out: "
                            "the conversation has gone on here since it was imported in part"
                        )
                    if outcome.value.subject_taken:
                        notes.append(
                            f"{carried.name}: user {carried.subject!r} has a conversation here "
                            f"already; this one is kept apart, under {carried.bound_to}"
                        )
            except (PerdureError, OSError) as error:
                failed = True
                notes.append(f"{path}: {' '.join(str(error).split())}")
    typer.echo(
        f"{conversations:,} conversations: {items:,} items imported, {known:,} known before."
    )
    for note in notes:
        typer.echo(note)
    if failed:
        raise typer.Exit(_FAILED)


def _progress(unit: str) -> Progress:
    """Return a progress bar for a terminal; elsewhere it prints nothing."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.iterdir() if one.suffix in {".json", ".jsonl"})
        else:
            yield path


def _carried(path: Path, subject: str | None) -> Iterator[Carried]:
    with path.open("rb") as file:
        beginning = file.read(len(_SQLITE))
    if beginning == _SQLITE:
        found = _sessions(path)
    elif path.suffix == ".jsonl":
        found = _lines(path)
    else:
        found = read_document(path.read_text(encoding="utf-8"), path.stem)
    for carried in found:
        yield carried if subject is None else _as(carried, subject)


def _as(carried: Carried, subject: str) -> Carried:
    return Carried(
        name=carried.name,
        subject=subject,
        handle=carried.handle,
        facts=carried.facts,
        items=carried.items,
        left_behind=carried.left_behind,
    )


def _lines(path: Path) -> Iterator[Carried]:
    with path.open(encoding="utf-8") as file:
        yield from read_lines(file, path.name)


def _sessions(path: Path) -> Iterator[Carried]:
    """Read the sessions of openai-agents' SQLiteSession, under its default table names."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        try:
            sessions = database.execute(
                "SELECT session_id FROM agent_sessions ORDER BY 1"
            ).fetchall()
        except sqlite3.Error:
            raise BadInput(
                f"{path.name} is a database without the tables of openai-agents' sessions "
                "(agent_sessions, agent_messages)."
            ) from None
        for (session,) in sessions:
            rows = database.execute(
                "SELECT message_data, created_at FROM agent_messages WHERE session_id = ? "
                "ORDER BY id",
                (session,),
            )
            yield read_session(session, ((text, _seconds(at)) for text, at in rows))


def _seconds(at: object) -> float | None:
    """Return SQLite's text of a time as seconds."""
    try:
        return datetime.fromisoformat(str(at)).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
