"""The same histories on the other stores: they hold there too, and come to the very same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from perdure.errors import ConfigurationError
from perdure.testing.simulator import Outcome, run_many, site
from tests.servers import postgres
from tests.valkey_server import valkey

SEEDS = range(20_000_000, 20_000_200)


@contextmanager
def on_postgres() -> Iterator[str]:
    with postgres().database() as url:
        yield url


@contextmanager
def on_valkey() -> Iterator[str]:
    yield f"{valkey().url}?prefix=simulated"


def came_to(outcome: Outcome) -> tuple[object, ...]:
    return outcome.seed, outcome.mix, outcome.faults, outcome.turns, outcome.answered


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize("server", [on_postgres, on_valkey], ids=["postgres", "valkey"])
def test_histories_come_to_the_same_on_every_store(server: object) -> None:
    with server() as url:  # type: ignore[operator]
        there = site(url)
        try:
            for here, outcome in zip(run_many(SEEDS), run_many(SEEDS, site=there), strict=True):
                assert () == outcome.problems, f"seed {outcome.seed}"
                assert came_to(here) == came_to(outcome)
        finally:
            there.close()


def test_the_clock_of_a_database_in_use_is_not_turned() -> None:
    with postgres().empty_database() as url, pytest.raises(ConfigurationError, match="real one"):
        site(url)
