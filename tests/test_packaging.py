"""What we hand out: one version, complete archives, the promised dependencies, no private paths."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# Every distribution an extra may bring. `import perdure` works without any of them.
OPTIONAL_MODULES = {
    "aiohttp",
    "cryptography",
    "httpx",
    "openai",
    "opentelemetry",
    "psycopg",
    "psycopg_pool",
    "redis",
    "rich",
    "starlette",
    "typer",
    "uvicorn",
    "wordllama",
}


@pytest.fixture(scope="module")
def project(repo: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((repo / "pyproject.toml").read_text())["project"]
    return table


def build(repo: Path, target: str, into: Path) -> Path:
    """Build one archive from the checkout, without network and without touching the checkout."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into)]
    subprocess.run(command, cwd=repo, check=True, capture_output=True)
    (built,) = into.iterdir()
    return built


def sources(repo: Path) -> set[str]:
    """List the package's files as they must appear in a wheel."""
    files = (repo / "src" / "perdure").rglob("*")
    return {
        file.relative_to(repo / "src").as_posix()
        for file in files
        if file.is_file() and "__pycache__" not in file.parts
    }


def own_text_files(repo: Path) -> list[Path]:
    """List what is committed or about to be; without git, everything outside hidden folders."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=repo, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        files = [f for f in repo.rglob("*") if not f.relative_to(repo).parts[0].startswith(".")]
    else:
        files = [repo / name for name in listed.decode().split("\0") if name]
    return [f for f in files if f.is_file() and b"\0" not in f.read_bytes()[:8192]]


def test_the_version_is_written_once(repo: Path, project: dict[str, Any]) -> None:
    assert project["version"] == version("perdure")
    literal = re.compile(rf"""["']{re.escape(project["version"])}["']""")
    again = [f for f in (repo / "src").rglob("*.py") if literal.search(f.read_text())]
    assert [] == again


def test_the_core_needs_httpx2_only(project: dict[str, Any]) -> None:
    assert ["httpx2>=2.12,<3"] == project["dependencies"]


def test_extras_are_those_the_docs_name(project: dict[str, Any]) -> None:
    extras = {
        name: {re.split(r"[<>=~! ]", requirement)[0] for requirement in requirements}
        for name, requirements in project["optional-dependencies"].items()
    }
    expected = {
        "openai": {"openai"},
        "postgres": {"psycopg[binary]", "psycopg-pool"},
        "redis": {"redis"},
        "gateway": {"starlette", "uvicorn", "aiohttp"},
        "otel": {"opentelemetry-api"},
        "tokens": {"bpe-openai"},
        "embeddings": {"wordllama"},
        "crypto": {"cryptography"},
        "cli": {"typer", "rich"},
    }
    assert {**expected, "all": {f"perdure[{','.join(expected)}]"}} == extras


def test_import_perdure_needs_no_extra() -> None:
    script = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {sorted(OPTIONAL_MODULES)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import perdure
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)


def test_the_wheel_holds_the_whole_package(repo: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build(repo, "wheel", tmp_path)) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (entry_points,) = (n for n in wheel.namelist() if n.endswith("/entry_points.txt"))
        scripts = wheel.read(entry_points).decode()
    assert sources(repo) == packed
    assert "perdure/py.typed" in packed
    assert "perdure = perdure.cli:main" in scripts


def test_the_sdist_holds_the_whole_package(repo: Path, tmp_path: Path) -> None:
    with tarfile.open(build(repo, "sdist", tmp_path)) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    missing = {f"src/{name}" for name in sources(repo)} - names
    assert set() == missing


def test_data_files_are_not_lost_on_the_way(tmp_path: Path, repo: Path) -> None:
    # A copy with one file of each kind planted: the real package may not have them all yet.
    for name in ("pyproject.toml", "LICENSE", ".gitignore"):
        (tmp_path / name).write_bytes((repo / name).read_bytes())
    if (repo / "README.md").exists():
        (tmp_path / "README.md").write_bytes((repo / "README.md").read_bytes())
    planted = {
        "perdure/__init__.py",
        "perdure/dialects/verdicts.toml",
        "perdure/gateway/console.html",
        "perdure/py.typed",
        "perdure/stores/accept.lua",
        "perdure/stores/sqlite.sql",
    }
    for name in planted:
        file = tmp_path / "src" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    with zipfile.ZipFile(build(tmp_path, "wheel", tmp_path / "dist")) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert planted == packed


def test_no_committed_file_names_a_registry_or_a_path_of_one_machine(repo: Path) -> None:
    # In pieces, so that this file does not find itself.
    hosts = ["pypi" + r"\.org", "files" + r"\.pythonhosted", "--(extra-)?" + "index-url"]
    paths = [rf"(?<![\w.])/{name}/" for name in ("work", "root", r"home/\w+", "opt/(pypi|wheels)")]
    private = re.compile("|".join([*hosts, *paths, "--find" + "-links"]))
    found = [
        f"{file.relative_to(repo)}:{number}: {line.strip()[:100]}"
        for file in own_text_files(repo)
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1)
        if private.search(line)
    ]
    assert [] == found
