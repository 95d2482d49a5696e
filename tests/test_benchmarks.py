"""The benchmark runs, measures what it says, and leaves nothing behind; no time is asserted."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import psycopg
import pytest

from benchmarks import memory, postgres, recovery, turn
from benchmarks.figures import BARE, COMMITS, FULL, NORMAL, Figures
from benchmarks.history import Cell
from tests import servers

if TYPE_CHECKING:
    from pathlib import Path

TINY = ["--rounds", "2", "--turns", "2", "--sizes", "4", "100", "--seed", "7"]


@pytest.mark.slow
def test_a_tiny_run_gives_every_figure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: str(tmp_path / "run"))
    (tmp_path / "run").mkdir()

    assert turn.main([*TINY, "--json"]) == 0

    figures = json.loads(capsys.readouterr().out)
    assert [
        ("conversation", 4),
        ("conversation", 100),
        ("previous_response_id", 4),
        ("previous_response_id", 100),
    ] == [(cell["handle"], cell["items"]) for cell in figures["cells"]]
    for cell in figures["cells"]:
        assert [{BARE, NORMAL, FULL, COMMITS}] * 2 == [set(times) for times in cell["rounds"]]
        assert all(time > 0 for times in cell["rounds"] for time in times.values())
    assert {"name", "at_most", "measured", "where", "reached"} == set(figures["targets"][0])
    assert 7 == figures["setup"]["seed"]
    assert list(tmp_path.iterdir()) == []


def conversations(folder: Path) -> Path:
    """A conversation with two questions, in the form of the data set."""
    said = [("Ann", "I keep bees in Bergen."), ("Bob", "How nice!")]
    said += [(("Ann", "Bob")[n % 2], f"Filler number {n} about the weather.") for n in range(120)]
    turns = [
        {"speaker": who, "dia_id": f"D1:{n}", "text": text} for n, (who, text) in enumerate(said)
    ]
    content = {
        "speaker_a": "Ann",
        "speaker_b": "Bob",
        "session_1_date_time": "1:56 pm on 8 May, 2023",
        "session_1": turns,
        "qa": [
            {"question": "Where are the bees?", "evidence": ["D1:0"], "category": 1},
            {"question": "Never said?", "evidence": ["D1:1"], "category": 5},
        ],
    }
    (folder / "one.json").write_text(json.dumps(content))
    return folder


def test_evidence_recall_is_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("wordllama")
    assert memory.main([str(conversations(tmp_path)), "--budgets", "300"]) == 0

    told = capsys.readouterr().out.splitlines()
    figures = {line[:18].strip(): float(line.split("ms")[0].split()[-2]) for line in told[3:7]}
    ours = {"perdure": 100.0, "with embeddings": 100.0}
    assert {"last N": 0.0, "plain BM25": 100.0} | ours == figures


def test_a_recovery_is_measured_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: str(tmp_path / "run"))
    (tmp_path / "run").mkdir()

    assert recovery.main(["--rounds", "1", "--sizes", "20", "900"]) == 0

    assert "900 items  recovery" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_target_is_judged_where_it_is_worst() -> None:
    small, large = Cell("conversation", 10), Cell("conversation", 1000)
    times = {BARE: 100.0, NORMAL: 120.0, FULL: 300.0, COMMITS: 170.0}
    figures = Figures(
        {"rounds": 1, "turns": 1, "seed": 7, "versions": "", "disk": ""},
        {small: [times], large: [{**times, NORMAL: 150.0}]},
    )

    normal, full, growth = figures.targets()

    assert (1.5, "conversation=, 1,000 items", False) == (
        normal.measured.median,
        normal.where,
        normal.reached,
    )
    assert (1.3, True) == (full.measured.median, full.reached)
    assert (1.25, False) == (growth.measured.median, growth.reached)
    assert all(len(line) <= 100 for line in str(figures).splitlines())


@pytest.mark.slow
def test_turns_on_postgresql_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    with servers.postgres().database() as url:
        arguments = ["--store", url, "--rounds", "2", "--turns", "2", "--long", "50"]
        assert postgres.main(arguments) == 0
        with psycopg.connect(url) as connection:
            left = connection.execute("SELECT count(*) FROM perdure.item").fetchone()

    told = capsys.readouterr().out
    assert re.search(
        r"^turn +10 items [\d.]+ .* 50 items [\d.]+ .* ratio [\d.]+", told, re.MULTILINE
    )
    assert (0,) == left
