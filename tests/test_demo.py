"""The demo: what it prints is what happened, in a pipe and on a terminal."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from perdure.cli.demo import Stage, stage
from perdure.cli.stories import Conversations, Responses, Story, Threads

COMMAND = [sys.executable, "-c", "import sys; from perdure.cli import main; sys.exit(main())"]
# A proxy that refuses, another server, warnings as errors: none of it may reach the run.
AROUND = {
    "ALL_PROXY": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "OPENAI_API_KEY": "",
    "OPENAI_BASE_URL": "http://127.0.0.1:9",
    "PYTHONWARNINGS": "error",
}
COLOURS = {"COLORTERM", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"}
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*3[0-7]m")
MAX_SECONDS = 10
FORGOTTEN = '"I know nothing about that."'


@dataclass(frozen=True)
class Expected:
    """One section of the page: its story, its ids and its requests, fix, history and perdure."""

    story: Story
    handle: str
    error: str
    requests: tuple[int, int, int]

    @property
    def name(self) -> str:
        return self.story.title


SECTIONS = [
    Expected(Threads(), r"thread_\w{24}", "openai.NotFoundError: Error code: 404", (3, 7, 3)),
    Expected(
        Conversations(), r"conv_[0-9a-f]{48}", "openai.NotFoundError: Error code: 404", (3, 7, 3)
    ),
    Expected(
        Responses(), r"resp_[0-9a-f]{50}", "openai.BadRequestError: Error code: 400", (2, 2, 2)
    ),
]
each_section = pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in COLOURS}
    return {**kept, **AROUND, **more}


@dataclass(frozen=True)
class Run:
    """One run in a pipe."""

    out: str
    error: str
    status: int
    seconds: float
    folder: Path

    def section(self, title: str) -> str:
        """Return the lines under a heading."""
        return re.split(r"\n\n(?=\d\. |Requests|In your app)", self.out.partition(title)[2])[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("demo")
    begun = time.monotonic()
    done = subprocess.run(
        [*COMMAND, "demo"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(TMPDIR=str(folder)),
    )
    return Run(done.stdout, done.stderr, done.returncode, time.monotonic() - begun, folder)


@pytest.mark.slow
def test_it_ends_well_and_soon(run: Run) -> None:
    assert (0, "") == (run.status, run.error)
    assert MAX_SECONDS > run.seconds


@pytest.mark.slow
def test_in_a_pipe_it_is_plain_text(run: Run) -> None:
    assert run.out.isascii()
    assert "\x1b" not in run.out
    lines = run.out.replace(str(run.folder), "").splitlines()
    assert [] == [line for line in lines if len(line) > 100 or line != line.rstrip()]


@pytest.mark.slow
@each_section
def test_a_section_shows_the_loss_and_the_recovery(run: Run, section: Expected) -> None:
    shown = run.section(f"{section.name}  ")
    ids = re.search(rf"before  ({section.handle})  lost\n +after   ({section.handle})  live", shown)
    assert ids is not None
    assert ids[1] != ids[2]
    assert re.search(rf"the loss +{ids[1]}\n", shown)
    assert section.error in shown
    assert f"'{ids[1]}'" in shown
    assert "recovered True, memory full, generation 1\n" in shown
    assert "asked again on the same old id: 1 request, remembered\n" in shown


@pytest.mark.slow
@each_section
def test_a_section_sets_answers_and_requests_side_by_side(run: Run, section: Expected) -> None:
    shown = run.section(f"{section.name}  ")
    rows = re.findall(
        r'^  (common fix|with history|perdure) +(".*") +(\d+) requests$', shown, re.MULTILINE
    )
    assert ["common fix", "with history", "perdure"] == [way for way, _, _ in rows]
    answers = [answer for _, answer, _ in rows]
    assert FORGOTTEN == answers[0]
    assert [True, True] == [section.story.fact in answer for answer in answers[1:]]
    assert section.requests == tuple(int(count) for _, _, count in rows)
    assert any(section.story.fact in said for said in section.story.said)


@pytest.mark.slow
def test_the_summary_repeats_the_counts(run: Run) -> None:
    shown = run.section("Requests  ")
    for section in SECTIONS:
        fix, history, ours = section.requests
        row = rf"{section.name} +{fix}  forgot +{history}  remembered +{ours}  remembered\n"
        assert re.search(row, shown)


@pytest.mark.slow
def test_the_database_is_named_and_removed(run: Run) -> None:
    where = (
        rf"The database of this run \(removed now, .*\):\n  {run.folder}/perdure-demo-\w+/chat.db$"
    )
    assert re.search(where, run.out)
    assert [] == list(run.folder.iterdir())


@pytest.mark.slow
def test_the_two_lines_to_take_away_are_python(run: Run) -> None:
    lines = [line.strip() for line in run.section("In your app").splitlines()]
    code = [line for line in lines if line.startswith(("import ", "client = "))]
    assert 2 == len(code)
    compile("\n".join(code), "demo", "exec")


@pytest.mark.slow
def test_keep_leaves_the_database_with_the_ids_shown(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "50% of it?"
    done = subprocess.run(
        [*COMMAND, "demo", "--keep", str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    with closing(sqlite3.connect(folder / "chat.db")) as database:
        rows = database.execute("SELECT DISTINCT lost_handle FROM perdure_recovery").fetchall()
    shown = re.findall(r"before  (\S+)", done.stdout)
    assert {handle for (handle,) in rows} == set(shown)
    assert 3 == len(shown)
    assert "(kept):" in done.stdout


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with stage(tmp_path / "chat.db") as ready:
        yield ready


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@each_section
def test_counts_are_those_the_provider_and_the_store_have(ready: Stage, section: Expected) -> None:
    told = ready.tell(type(section.story)())
    tries = (told.fixed, told.copied, told.recovered)
    assert section.requests == tuple(attempt.requests for attempt in tries)
    # The provider's own list, cut at the failing call of each way to go on.
    failed = [n for n, one in enumerate(ready.provider.requests) if (one.status or 0) >= 400]
    ends = [*failed[2:], len(ready.provider.requests) - told.again.requests - told.again.reading]
    assert [attempt.requests + attempt.reading for attempt in tries] == [
        end - start for start, end in zip(failed[1:], ends, strict=True)
    ]
    note: dict[str, Any] = told.recovered.answer.recovery or {}
    assert told.recovered.requests == note["requests"]
    assert (told.handle, told.handle) == (told.ids.lost, note["lost_handle"])
    assert told.ids.new == note["new_handle"]


pty = pytest.importorskip("pty", reason="terminals of this kind exist on Unix only")


def on_terminal(**more: str) -> str:
    """Run the demo on a terminal of its own and return what it wrote there."""
    ours, its = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "demo"], stdout=its, stderr=its, env=environment(TERM="xterm-256color", **more)
    ) as process:
        os.close(its)
        written = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says so when the other side has closed
                break
            if not part:
                break
            written += part
    os.close(ours)
    assert 0 == process.returncode
    return written.decode().replace("\r\n", "\n")


@pytest.mark.slow
def test_a_terminal_gets_colour_and_the_same_words() -> None:
    written = on_terminal(COLUMNS="100")
    assert COLOUR.search(written)
    plain = ESCAPE.sub("", written).replace(tempfile.gettempdir(), "")
    for section in SECTIONS:
        assert section.story.question in plain
    assert all(len(line) <= 100 for line in plain.splitlines())


@pytest.mark.slow
def test_no_color_is_respected() -> None:
    assert not COLOUR.search(on_terminal(NO_COLOR="1"))
