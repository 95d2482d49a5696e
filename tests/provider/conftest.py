"""One provider on a real socket per test, with a standing clock and the official SDK."""

from collections.abc import Callable, Iterator

import httpx2
import pytest
from openai import OpenAI

from perdure.testing import Clock, Provider

KEY = "key-one"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider(clock: Clock) -> Iterator[Provider]:
    with Provider(clock, seed="tests") as running:
        yield running


@pytest.fixture
def client_for(provider: Provider) -> Iterator[Callable[[str], OpenAI]]:
    made: list[OpenAI] = []

    def make(key: str) -> OpenAI:
        made.append(OpenAI(base_url=provider.base_url, api_key=key, max_retries=0))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(client_for: Callable[[str], OpenAI]) -> OpenAI:
    return client_for(KEY)


@pytest.fixture
def http(provider: Provider) -> Iterator[httpx2.Client]:
    """Raw HTTP, for whole bodies and for requests no SDK would send."""
    with httpx2.Client(
        base_url=provider.base_url, headers={"authorization": f"Bearer {KEY}"}
    ) as raw:
        yield raw
