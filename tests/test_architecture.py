"""The import graph of `src/perdure`: imports only go down, and the core does no I/O."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A module may import its own layer and those before it. A layer is perdure/<name>.py or
# perdure/<name>/; one that is not written yet is fine, one that is not listed here is not.
LAYERS = (
    "errors",
    "model",
    "flow",
    "dialects",
    "recall",
    "engine",
    "counting",
    "embedding",
    "stores",
    "portable",
    "transport",
    "chat",
    "gateway",
    "testing",
    "cli",
)
PURE_LAYERS = {"errors", "model", "flow", "recall", "dialects", "engine"}

# What the pure layers may use of the outside world: nothing that touches a socket, a file, a
# thread, an event loop, a clock or a random source. A name covers what is below it.
PURE_IMPORTS = (
    "__future__",
    "abc",
    "base64",
    "binascii",
    "bisect",
    "codecs",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "datetime",
    "difflib",
    "email.utils.parsedate_to_datetime",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "html.escape",
    "http.HTTPStatus",
    "importlib.resources",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "string",
    "textwrap",
    "tomllib",
    "types",
    "typing",
    "unicodedata",
    "urllib.parse",
)
# `datetime` is a value type here; reading the clock through it is not.
CLOCK_READS = {"now", "utcnow", "today"}


def layer_of(module: str) -> str | None:
    """Give the layer of `perdure.<layer>…`, None for the package's own `__init__`."""
    _, _, rest = module.partition(".")
    return rest.split(".")[0] if rest else None


def modules(package: Path) -> Iterator[tuple[str, Path]]:
    """Yield (dotted name, file) of every module in the package; a package is named as itself."""
    for file in sorted(package.rglob("*.py")):
        parts = [package.name, *file.relative_to(package).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        yield ".".join(parts), file


def imports(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of every import, those in functions and TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                above = parts[: len(parts) - node.level + is_package]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def covered(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == entry or name.startswith(entry + ".") for entry in allowed)


def problem_with(importer: str, imported: str) -> str | None:
    """Say what is wrong with layer `importer` importing the name `imported`, if anything."""
    if imported.partition(".")[0] != "perdure":
        if importer in PURE_LAYERS and not covered(imported, PURE_IMPORTS):
            return f"{importer} is pure and imports {imported}"
        return None
    layer = layer_of(imported)
    if layer not in LAYERS:
        # The package itself, or a name that its `__init__` gathers from every layer.
        return None if importer == "cli" else f"{importer} imports {imported}, above every layer"
    if LAYERS.index(layer) > LAYERS.index(importer):
        return f"{importer} imports {imported}, a later layer"
    return None


def clock_reads(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, call) for `datetime.now()` and its relatives."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in CLOCK_READS
            and ast.unparse(node.func.value).split(".")[-1] in {"date", "datetime"}
        ):
            yield node.lineno, ast.unparse(node.func)


def violations(package: Path) -> list[str]:
    """Read the package's import graph and say, line by line, where it breaks the rules."""
    found = []
    for module, file in modules(package):
        layer = layer_of(module)
        if layer is None:
            continue  # perdure/__init__ gathers the public names
        where = file.relative_to(package.parent).as_posix()
        if layer == "__main__":
            layer = "cli"
        if layer not in LAYERS:
            found.append(f"{where}: {layer} is not a layer; the list is in this test")
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=where)
        for line, name in imports(tree, module, is_package=file.name == "__init__.py"):
            if problem := problem_with(layer, name):
                found.append(f"{where}:{line}: {problem}")
        if layer in PURE_LAYERS:
            found += [
                f"{where}:{line}: {layer} is pure and reads the clock with {call}()"
                for line, call in clock_reads(tree)
            ]
    return found


def test_imports_only_go_down_and_the_core_does_no_io(repo: Path) -> None:
    assert [] == violations(repo / "src" / "perdure")


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("errors.py", "from perdure import model", "errors imports perdure.model, a later layer"),
        (
            "engine/prime.py",
            "def f():\n    from perdure.stores import sqlite",
            "engine imports perdure.stores.sqlite, a later layer",
        ),
        (
            "engine/deep/x.py",
            "from ...stores import sqlite",
            "engine imports perdure.stores.sqlite, a later layer",
        ),
        ("engine/__init__.py", "from ..chat import Chat", "imports perdure.chat.Chat, a later"),
        ("dialects/a.py", "import httpx2", "dialects is pure and imports httpx2"),
        ("dialects/a.py", "from urllib import request", "pure and imports urllib.request"),
        ("dialects/a.py", "import http.client", "pure and imports http.client"),
        ("engine/a.py", "import json, asyncio", "engine is pure and imports asyncio"),
        ("flow.py", "import time", "flow is pure and imports time"),
        ("model.py", "import os.path", "model is pure and imports os.path"),
        ("model.py", "t = datetime.now(UTC)", "pure and reads the clock with datetime.now()"),
        ("stores/a.py", "import perdure", "stores imports perdure, above every layer"),
        ("chat.py", "from perdure import Chat", "chat imports perdure.Chat, above every layer"),
        ("helpers.py", "", "helpers is not a layer"),
    ],
)
def test_a_planted_violation_is_found(
    tmp_path: Path, file: str, source: str, expected: str
) -> None:
    planted = tmp_path / "perdure" / file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(source)
    (found,) = violations(tmp_path / "perdure")
    assert expected in found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("__init__.py", "from perdure.cli import main\nfrom perdure.chat import Chat"),
        ("cli.py", "import perdure, os\nfrom perdure import Chat"),
        ("__main__.py", "from perdure.cli import main"),
        ("chat.py", "import threading\nfrom perdure import errors, transport"),
        ("engine/__init__.py", "from . import send\nfrom ..flow import run"),
        ("engine/send.py", "from collections.abc import Iterator\nfrom urllib.parse import quote"),
        (
            "dialects/verdicts.py",
            "from http import HTTPStatus\nfrom importlib.resources import files",
        ),
        ("model.py", "import datetime\nwhen = datetime.datetime.fromtimestamp(0, datetime.UTC)"),
    ],
)
def test_what_the_rules_allow_passes(tmp_path: Path, file: str, source: str) -> None:
    written = tmp_path / "perdure" / file
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(source)
    assert [] == violations(tmp_path / "perdure")
