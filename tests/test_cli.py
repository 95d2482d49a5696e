"""The command: its help, its exit codes, one line for an error, a clean end on Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

import perdure
from perdure.cli import main

COMMANDS = ["demo", "doctor", "provider", "sweep", "export", "import", "schema"]
OPTIONS = {
    "demo": ["--keep", "-h, --help"],
    "doctor": ["--base-url", "--model", "--api-key", "--rules", "-h, --help"],
    "provider": ["--host", "--port", "-h, --help"],
    "sweep": [
        *("--store", "--upstream", "--api-key", "--tenant", "--summarise", "--dry-run"),
        "-h, --help",
    ],
    "export": ["--store", "--to", "--subject", "--tenant", "-h, --help"],
    "import": ["--store", "--upstream", "--subject", "--tenant", "-h, --help"],
    "schema": ["-h, --help"],
}
PROGRAM = "import sys; from perdure.cli import main; sys.exit(main())"
WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def outcome(*arguments: str) -> int:
    """Run the command in this process."""
    try:
        return main(list(arguments))
    except SystemExit as ended:
        return int(ended.code or 0)


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start the command in a process of its own, and see that it does not outlive the test."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def listed(text: str, heading: str) -> list[str]:
    """Return the names in one block of a help page."""
    block = text.partition(f"{heading}:\n")[2].partition("\n\n")[0]
    return re.findall(r"^  (-h, --help|\S+)", block, re.MULTILINE)


def test_help_lists_exactly_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == outcome("--help")
    shown = capsys.readouterr().out
    assert COMMANDS == listed(shown, "Commands")
    assert ["--version", "-h, --help"] == listed(shown, "Options")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == outcome(command, "--help")
    shown = capsys.readouterr().out
    assert OPTIONS[command] == listed(shown, "Options")
    assert shown.isascii()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == outcome("--version")
    assert f"perdure {perdure.__version__}\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["--nope"], ["nope"], ["demo", "--nope"], ["provider", "--port", "99999"], ["demo", "extra"]],
)
def test_wrong_usage_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == outcome(*arguments)
    seen = capsys.readouterr()
    assert "" == seen.out
    assert "Error: " in seen.err


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert 1 == outcome("provider", "--port", str(port))
    error = capsys.readouterr().err
    assert error.startswith(f"perdure: Cannot listen on 127.0.0.1:{port}: ")
    assert 1 == error.count("\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "command"), [("typer", "--version"), ("openai", "demo"), ("uvicorn", "provider")]
)
def test_a_missing_extra_is_one_sentence(module: str, command: str) -> None:
    script = WITHOUT.format(module=module) + PROGRAM
    done = subprocess.run(
        [sys.executable, "-c", script, command], capture_output=True, text=True, check=False
    )
    expected = (
        f"perdure: this needs {module}, which is not installed. "
        "Run: pip install 'perdure[cli,openai,gateway]'\n"
    )
    assert (1, "", expected) == (done.returncode, done.stdout, done.stderr)


def ready(process: subprocess.Popen[str]) -> str:
    """Read what the provider prints up to its last line; return its origin."""
    assert process.stdout is not None
    printed = ""
    while "Ctrl-C" not in printed:
        line = process.stdout.readline()
        assert line, process.communicate()
        printed += line
    found = re.search(r"perdure provider: (http://127\.0\.0\.1:\d+)/v1\n", printed)
    assert found is not None
    assert f"OPENAI_BASE_URL={found[1]}/v1" in printed
    return found[1]


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_provider_serves_at_once_and_stops_on_ctrl_c() -> None:
    with started("provider", "--port", "0") as process:
        origin = ready(process)
        key = {"authorization": "Bearer any"}
        answer = httpx2.get(f"{origin}/v1/models", headers=key, trust_env=False)
        assert (200, "list") == (answer.status_code, answer.json()["object"])
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=10)
    assert 130 == process.returncode
    assert "" == error.strip()


def test_the_controls_that_provider_prints_exist() -> None:
    from perdure.cli.provider import _USE  # noqa: PLC0415 - not for the runs without extras
    from perdure.testing import Provider  # noqa: PLC0415

    usage = _USE.format(origin="http://host")
    controls = re.findall(r"^  (GET|POST) +(/\w+) +(\{.*?\})? {2,}", usage, re.MULTILINE)
    assert 6 == len(controls)
    with Provider() as provider:
        base = provider.base_url.removesuffix("/v1") + "/_provider"
        for method, path, body in controls:
            sent = json.loads(body.replace('"conv_..."', "null")) if body else None
            answer = httpx2.request(method, base + path, json=sent, trust_env=False)
            assert 200 == answer.status_code, (path, answer.text)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_the_demo_and_removes_its_folder(tmp_path: Path) -> None:
    with started("demo", TMPDIR=str(tmp_path)) as process:
        assert process.stdout is not None
        while "perdure demo" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=10)
    assert 130 == process.returncode
    assert "" == error.strip()
    assert [] == list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("command", [["export"], ["sweep", "--dry-run"]])
def test_a_mistyped_path_is_no_empty_database(tmp_path: Path, command: list[str]) -> None:
    url = f"sqlite:///{tmp_path}/chats.db"
    with started(*command, "--store", url, OPENAI_API_KEY="sk-test") as process:
        out, error = process.communicate(timeout=20)
    assert 0 != process.returncode
    assert "" == out
    assert error.startswith("perdure: There is no database at ")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_unusable_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "chat.db").write_text("This is not a database, whatever its name says.\n" * 100)
    with started("demo", "--keep", str(tmp_path)) as process:
        _, error = process.communicate(timeout=20)
    assert 1 == process.returncode
    assert error.startswith("perdure: The demo could not go on: ")
    assert 1 == error.count("\n")
