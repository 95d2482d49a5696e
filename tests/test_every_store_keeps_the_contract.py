"""Every store keeps the contract of engine/ops, through its sync and its async face."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure.testing import Clock
from perdure.testing.conformance import Awaited, Site, StoreConformance
from tests.servers import DatabaseClock, postgres


class TestSQLiteInAFile(StoreConformance):
    @pytest.fixture
    def site(self, tmp_path: Path) -> Site:
        clock = Clock()
        url = f"sqlite:///{tmp_path}/it.db"
        return Site(lambda: perdure.open_store(url, clock=clock.now), clock.advance)


class TestSQLiteInMemory(StoreConformance):
    @pytest.fixture
    def site(self) -> Site:
        clock = Clock()
        store = perdure.open_store("sqlite://", clock=clock.now)
        return Site(lambda: store, clock.advance, reopens=False)


@pytest.fixture(scope="module")
def database() -> Iterator[tuple[str, DatabaseClock]]:
    with postgres().database() as url:
        clock = DatabaseClock(url)
        yield url, clock
        clock.close()


class TestPostgres(StoreConformance):
    @pytest.fixture(params=["sync", "async"])
    def site(self, request: pytest.FixtureRequest, database: tuple[str, DatabaseClock]) -> Site:
        url, clock = database
        face: Callable[[Any], Any] = Awaited if request.param == "async" else lambda store: store
        return Site(lambda: face(perdure.open_store(url)), clock.advance)
