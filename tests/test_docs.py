"""What the README shows works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from perdure.testing import Provider

_README = Path(__file__).resolve().parent.parent / "README.md"
_BLOCKS = re.findall(r"^```python\n(.*?)^```$", _README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", _BLOCKS, ids=range(len(_BLOCKS)))
def test_a_copy_of_the_code_runs(code: str, tmp_path: Path) -> None:
    with Provider() as provider:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-c", code],
            cwd=tmp_path,
            env={**os.environ, "OPENAI_BASE_URL": provider.base_url, "OPENAI_API_KEY": "sk-test"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    told = [line for line in done.stderr.splitlines() if not line.startswith("recovered ")]
    assert ([], 0) == (told, done.returncode)
    assert any(tmp_path.iterdir()), "the example stores its conversation where it says"


def test_the_readme_names_only_targets_that_exist() -> None:
    makefile = (_README.parent / "Makefile").read_text()
    named = set(re.findall(r"make ([a-z]+)", _README.read_text()))

    assert {"demo", "test", "check", "bench"} <= named
    assert set() == {target for target in named if f"\n{target}:" not in makefile} - {"are"}
