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

FACES: dict[str, Callable[[Any], Any]] = {"sync": lambda store: store, "async": Awaited}
# A store's async face awaits the same statements: `make test` asks it all of it, too.
BOTH_FACES = ("sync", pytest.param("async", marks=pytest.mark.slow))


class TestSQLiteInAFile(StoreConformance):
    @pytest.fixture(params=BOTH_FACES)
    def site(self, request: pytest.FixtureRequest, tmp_path: Path) -> Site:
        clock = Clock()
        url = f"sqlite:///{tmp_path}/it.db"
        face = FACES[request.param]
        return Site(lambda: face(perdure.open_store(url, clock=clock.now)), clock.advance)


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
    @pytest.fixture(params=BOTH_FACES)
    def site(self, request: pytest.FixtureRequest, database: tuple[str, DatabaseClock]) -> Site:
        url, clock = database
        face = FACES[request.param]
        return Site(lambda: face(perdure.open_store(url)), clock.advance)
