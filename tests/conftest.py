"""Shared by the whole suite; fixtures for one area live in that area's own conftest."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway import Gateway, gateway_to
from tests.world import World

# Every SDK client reads the machine's certificates: a third of the time of many a test. Nothing
# here speaks TLS, so there are none to read in this folder. What tests start has it so too.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)


@pytest.fixture(scope="session")
def repo() -> Path:
    """Give the checkout's root."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let what a test starts hear Ctrl-C.

    A run that a shell has put into the background does not hear it, and hands that down.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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


@pytest.fixture
def gateway(world: World) -> Iterator[Gateway]:
    """Give a gateway that stands before the world's provider."""
    with gateway_to(world.provider.base_url) as made:
        yield made
