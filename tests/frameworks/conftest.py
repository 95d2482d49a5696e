"""Runs in `.venv/envs/frameworks` only; there a missing framework is a failure, never a skip."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.frameworks.site import Site

# Nothing leaves this machine: openai-agents would send its traces, LangChain its own.
os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"
os.environ["LANGSMITH_TRACING"] = "false"


@pytest.fixture(params=[True], ids=["perdure"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A provider and an app; with perdure under its SDK unless a test says otherwise."""
    # The frameworks' own sync methods run on the thread's loop, which they expect to find.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    made = Site(tmp_path, loop, perdure_under_it=request.param)
    made.provider.start()
    yield made
    made.close()
    asyncio.set_event_loop(None)
    loop.close()
