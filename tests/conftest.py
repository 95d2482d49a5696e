"""Shared by the whole suite; fixtures for one area live in that area's own conftest."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repo() -> Path:
    """Give the checkout's root."""
    return Path(__file__).resolve().parent.parent
