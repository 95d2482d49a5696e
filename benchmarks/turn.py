"""What one turn costs with perdure, measured against the SDK alone: ``make bench``.

Four subjects take turns about, so that whatever the machine does meets all of them: the bare SDK,
the SDK with perdure on SQLite with synchronous=NORMAL and with FULL, and two commits of one small
row into a database of nobody's, which is what FULL costs on this disk whatever one does with it.
The provider is a process that answers at once.

Every conversation really holds its history: it was put in turn by turn, through perdure. A
conversation serves so few turns that its length changes by 6.5 % at most, then the next one of its
length is used; one of 10 items serves one turn. In each round a subject first has one turn that is
not counted on every conversation that it is about to use: otherwise the short ones would be new to
the database's cache at each turn, and the long ones would look better than they are.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, Protocol

import httpx2
import openai

import perdure
from benchmarks import upstream
from benchmarks.figures import BARE, COMMITS, FULL, NORMAL, SUBJECTS, Figures
from benchmarks.history import HANDLES, ITEMS_PER_TURN, MODEL, MOST_OUTGROWN, Cell, fill, question
from benchmarks.wire import REPLY

_IN_MEMORY: Final = {"tmpfs", "ramfs"}
_INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. One round more than ``rounds`` is run; the first is not counted."""

    sizes: tuple[int, ...]
    rounds: int
    turns: int
    seed: int

    def cells(self) -> list[Cell]:
        """Return what is measured, in the order of the table."""
        return [Cell(handle, items) for handle in HANDLES for items in self.sizes]

    def lines_of_round(self, cell: Cell, number: int) -> range:
        """Return which of a cell's conversations serve a round; some serve several rounds."""
        rounds_per_line = cell.turns_per_line // (self.turns + 1)
        if rounds_per_line:
            return range(number // rounds_per_line, number // rounds_per_line + 1)
        count = -(-self.turns // cell.turns_per_line)
        return range(number * count, (number + 1) * count)

    def lines(self, cell: Cell) -> int:
        """Return how many conversations a cell needs."""
        return self.lines_of_round(cell, self.rounds).stop

    def turns_in_all(self, cell: Cell) -> int:
        """Return how many turns each subject has in a cell, counted or not."""
        rounds = range(self.rounds + 1)
        return sum(self.turns + len(self.lines_of_round(cell, number)) for number in rounds)


# -- the subjects ----------------------------------------------------------------------------


class Subject(Protocol):
    """Something that does what a turn, or two commits, needs."""

    def once(self, cell: Cell, line: int) -> int:
        """Do it once, on one of a cell's conversations; return the nanoseconds that it took."""


@dataclass(slots=True)
class Client:
    """An SDK client that has turns on conversations; ``handles`` is where each of them stands."""

    sdk: openai.OpenAI
    handles: dict[Cell, list[str]]
    turns: int = 0

    def once(self, cell: Cell, line: int) -> int:
        """Have one turn."""
        text, handle = question(self.turns), self.handles[cell][line]
        create = self.sdk.responses.create
        if cell.handle == "conversation":
            begin = time.perf_counter_ns()
            response = create(model=MODEL, input=text, conversation=handle)
            taken = time.perf_counter_ns() - begin
        else:
            begin = time.perf_counter_ns()
            response = create(model=MODEL, input=text, previous_response_id=handle)
            taken = time.perf_counter_ns() - begin
            self.handles[cell][line] = response.id
        assert response.output_text == REPLY
        assert "perdure" not in (response.model_extra or {}), "nothing was to be recovered"
        self.turns += 1
        return taken


class TwoCommits:
    """Two commits of one small row: WAL, synchronous=FULL, nothing else in the database."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.execute("CREATE TABLE row (value TEXT NOT NULL)")

    def once(self, cell: Cell, line: int) -> int:
        """Commit twice."""
        del cell, line
        begin = time.perf_counter_ns()
        self.connection.execute("INSERT INTO row VALUES ('one small row')")
        self.connection.execute("INSERT INTO row VALUES ('one small row')")
        return time.perf_counter_ns() - begin


# -- the run ---------------------------------------------------------------------------------


def measure(plan: Plan, folder: Path) -> Figures:
    """Put the histories in, have the turns, check that they were what they should be."""
    cells = plan.cells()
    with upstream.running() as provider, ExitStack() as open_things:
        lines = _filled(plan, folder / "normal.db", provider.base_url)
        shutil.copyfile(folder / "normal.db", folder / "full.db")
        commits = TwoCommits(folder / "commits.db")
        open_things.enter_context(closing(commits.connection))
        clients = {
            name: Client(
                open_things.enter_context(_sdk(name, folder, provider.base_url)),
                {cell: list(lines[cell]) for cell in cells},
            )
            for name in (BARE, NORMAL, FULL)
        }
        subjects: dict[str, Subject] = {**clients, COMMITS: commits}
        figures = Figures(_setup(plan, folder), {cell: [] for cell in cells})
        chance = random.Random(plan.seed)
        for number in range(plan.rounds + 1):
            _say(f"round {number} of {plan.rounds}" if number else "a round that is not counted")
            for cell in chance.sample(cells, len(cells)):
                order = chance.sample(SUBJECTS, len(SUBJECTS))
                times = _round(subjects, cell, order, plan, number)
                if number:
                    figures.rounds[cell].append(times)
        asked = sum(client.turns for client in clients.values())
        assert provider.served() == (asked, 0), "one request for each turn, and nothing else"
    for name in (NORMAL, FULL):
        _check(plan, folder / f"{name}.db")
    return figures


def _round(
    subjects: dict[str, Subject], cell: Cell, order: Sequence[str], plan: Plan, number: int
) -> dict[str, float]:
    """Let the subjects do their work turn about; return the mean microseconds of each."""
    lines = plan.lines_of_round(cell, number)
    for name in order:
        for line in lines:
            subjects[name].once(cell, line)
    gc.collect()
    taken = dict.fromkeys(SUBJECTS, 0)
    for turn in range(plan.turns):
        line = lines[turn * len(lines) // plan.turns]
        for name in order:
            taken[name] += subjects[name].once(cell, line)
    return {name: total / plan.turns / 1000 for name, total in taken.items()}


@contextmanager
def _sdk(name: str, folder: Path, base_url: str) -> Iterator[openai.OpenAI]:
    """Give the SDK's client: with an HTTP client of its own, or with one on perdure's transport.

    Neither looks at the environment's proxies: the provider is on this machine.
    """
    store = f"sqlite:///{folder / name}.db?synchronous={name}"
    http_client = (
        openai.DefaultHttpxClient(trust_env=False)
        if name == BARE
        else httpx2.Client(transport=perdure.Transport(store))
    )
    with openai.OpenAI(
        api_key="made-up", base_url=base_url, max_retries=0, http_client=http_client
    ) as sdk:
        yield sdk


def _filled(plan: Plan, database: Path, base_url: str) -> dict[Cell, list[str]]:
    wanted = {cell: plan.lines(cell) for cell in plan.cells()}
    lines: dict[Cell, list[str]] = {cell: [] for cell in wanted}
    total = sum(cell.items * count for cell, count in wanted.items())
    done, said = 0, 0
    _say(f"putting {total:,} items into {sum(wanted.values()):,} conversations")
    for cell, handle in fill(database, base_url, wanted):
        lines[cell].append(handle)
        done += cell.items
        if done * 5 // total > said:
            said = done * 5 // total
            _say(f"    {done / total:4.0%}")
    return lines


def _check(plan: Plan, database: Path) -> None:
    """Check that the turns went into conversations of the size that the table names."""
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute(
            "SELECT c.dialect, COUNT(*) FROM perdure_item i JOIN perdure_conversation c "
            "ON c.conversation = i.conversation GROUP BY c.dialect"
        ).fetchall()
        longest = connection.execute(
            "SELECT MAX(held) FROM (SELECT COUNT(*) AS held FROM perdure_item "
            "GROUP BY conversation)"
        ).fetchone()[0]
        recovered = connection.execute("SELECT COUNT(*) FROM perdure_recovery").fetchone()[0]
    for dialect, handle in zip(("conversations", "responses"), HANDLES, strict=True):
        cells = [cell for cell in plan.cells() if cell.handle == handle]
        held = sum(plan.lines(cell) * (cell.items - ITEMS_PER_TURN) for cell in cells)
        added = sum(plan.turns_in_all(cell) * ITEMS_PER_TURN for cell in cells)
        assert dict(found)[dialect] == held + added, found
    size = max(plan.sizes)
    assert size < longest <= size * (1 + MOST_OUTGROWN) + ITEMS_PER_TURN, longest
    assert recovered == 0


# -- where it runs ---------------------------------------------------------------------------


def _setup(plan: Plan, folder: Path) -> dict[str, object]:
    packages = ("perdure", "openai", "httpx2")
    return {
        "rounds": plan.rounds,
        "turns": plan.turns,
        "seed": plan.seed,
        "sizes": list(plan.sizes),
        "versions": ", ".join(
            [
                *(f"{name} {version(name)}" for name in packages),
                f"Python {platform.python_version()}",
                f"SQLite {sqlite3.sqlite_version}",
            ]
        ),
        "disk": f"databases on {_file_system(folder) or 'a disk'}",
    }


def _file_system(folder: Path) -> str | None:
    """Return the type of the file system that a folder is on, where the system tells."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return None
    best = ("", "")
    for line in mounts.read_text(encoding="utf-8").splitlines():
        _, point, kind, *_ = line.split()
        place = point.encode().decode("unicode_escape")
        if folder.is_relative_to(place) and len(place) >= len(best[0]):
            best = (place, kind)
    return best[1] or None


@contextmanager
def _folder() -> Iterator[Path]:
    """Give a folder on a real disk and remove it afterwards."""
    checkout = Path(__file__).resolve().parent.parent
    for place in (Path("/var/tmp"), checkout):  # noqa: S108  # mkdtemp makes a private folder in it
        if place.is_dir() and _file_system(place.resolve()) not in _IN_MEMORY:
            folder = Path(tempfile.mkdtemp(prefix="perdure-bench-", dir=place)).resolve()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return
    raise SystemExit("No disk found: /var/tmp and the checkout are both in memory.")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.turn", description="Time a turn.")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--turns", type=int, default=30, help="turns of each subject in a round")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 1_000, 10_000])
    parser.add_argument("--seed", type=int, default=None, help="the order of the subjects")
    chosen = parser.parse_args(arguments)
    seed = random.randrange(1_000_000) if chosen.seed is None else chosen.seed
    plan = Plan(tuple(sorted(chosen.sizes)), chosen.rounds, chosen.turns, seed)
    began = time.monotonic()
    try:
        with _folder() as folder:
            figures = measure(plan, folder)
    except KeyboardInterrupt:
        _say("stopped; nothing is left behind")
        return _INTERRUPTED
    _say(f"{time.monotonic() - began:.0f} s")
    print(json.dumps(figures.as_json(), indent=2) if chosen.json else figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
