"""Shared by the whole suite; fixtures for one area live in that area's own conftest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import World


@pytest.fixture(scope="session")
def repo() -> Path:
    """Give the checkout's root."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A provider, a store and an app in either colour."""
    with_provider = World(request.param, tmp_path)
    with_provider.provider.start()
    yield with_provider
    with_provider.close()


@pytest.fixture
def sync_world(tmp_path: Path) -> Iterator[World]:
    """A provider, a store and a sync app, where the colour makes no difference."""
    with_provider = World("sync", tmp_path)
    with_provider.provider.start()
    yield with_provider
    with_provider.close()
