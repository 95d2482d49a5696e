"""Thousands of conversations are lost at once and used at once: one create each, and no storm."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure.dialects.items import new_item, user_message
from perdure.engine import ops
from perdure.stores.postgres import administration
from perdure.testing import Clock, Fault, Provider
from tests.masses import PROCESSES, TWICE, fact, handle
from tests.programs import program
from tests.servers import postgres

#: The servers of PostgreSQL take the processors' time from those who use it.
CONVERSATIONS = {"sqlite": 10_000, "postgres": 3_000}
LIMIT_SECONDS = 170
PATIENCE_SECONDS = 0.001  # Retry-After is told in milliseconds


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider(clock=Clock(running=True)) as provider:
        yield provider


@contextmanager
def store_url(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'chat.db'}?synchronous=normal"
        return
    with postgres().empty_database() as url:  # whose clock is the real one
        administration.apply(url)
        yield url


def lost(url: str, upstream: str, conversations: int) -> None:
    """Enter conversations that have said something and of which the provider knows nothing."""
    said = new_item(
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Noted."}],
        }
    )
    with closing(perdure.open_store(url)) as store:
        for number in range(conversations):
            store.perform(
                ops.BindNew(
                    tenant="default",
                    upstream=upstream,
                    dialect="conversations",
                    handle=handle(number),
                    items=(user_message(fact(number)), said),
                    body=b"{}",
                    intent="none",
                )
            )


def used(url: str, provider: Provider, conversations: int) -> Counter[str]:
    """Let the crowd use them all; what it has met."""
    began = time.monotonic()
    arguments = (url, provider.base_url, str(conversations))
    with program("masses", *arguments, stdout=subprocess.PIPE) as crowd:
        out, _ = crowd.communicate(timeout=LIMIT_SECONDS)
    met: Counter[str] = Counter()
    for line in out.splitlines():
        assert line.startswith("{"), line
        met.update(json.loads(line))
    seconds = time.monotonic() - began
    print(f"{conversations} conversations, {dict(met)}, {seconds:.1f} s")  # noqa: T201
    assert conversations + conversations // TWICE == met["answered"]
    return met


def answers(provider: Provider) -> Counter[tuple[str, int | None]]:
    return Counter((request.path, request.status) for request in provider.requests)


def once_each(provider: Provider, conversations: int) -> None:
    """One failing call and one new conversation for each, and what it is used for; no more."""
    found = answers(provider)
    uses = conversations + conversations // TWICE
    assert {
        ("/v1/conversations", 200): conversations,
        ("/v1/responses", 404): conversations,
        ("/v1/responses", 200): uses,
    } == {key: count for key, count in found.items() if key[1] != 429}
    assert conversations == len(provider.state.conversations)


def refused_at_most_once_in_a_stretch(provider: Provider, limit: Fault) -> int:
    """Nobody asks again before it may: so no more are refused in a stretch than there are workers.

    Returns how many were refused in all.
    """
    stretches: Counter[int] = Counter()
    by_process: defaultdict[str, list[Any]] = defaultdict(list)
    for request in provider.requests:
        by_process[request.headers["user-agent"]].append(request)
        stretches[int(request.at // limit.seconds)] += request.status == 429
    assert PROCESSES == len(by_process)
    for requests in by_process.values():
        for one, following in pairwise(requests):
            if one.status == 429:
                may_ask = (one.at // limit.seconds + 1) * limit.seconds
                assert following.at >= may_ask - PATIENCE_SECONDS
    assert max(stretches.values()) <= PROCESSES
    return stretches.total()


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_each_gets_one_new_conversation(tmp_path: Path, provider: Provider, kind: str) -> None:
    limit = Fault("rate_limit", requests=550, seconds=1.0)
    provider.order(limit)
    conversations = CONVERSATIONS[kind]
    with store_url(kind, tmp_path) as url:
        lost(url, provider.base_url, conversations)

        met = used(url, provider, conversations)

        assert conversations <= met["recovered"]
        once_each(provider, conversations)
        refused = refused_at_most_once_in_a_stretch(provider, limit)
        print(f"{refused} of {len(provider.requests)} requests were refused")  # noqa: T201
        assert refused <= 0.08 * len(provider.requests)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_server_that_can_do_little_is_left_alone(
    tmp_path: Path, provider: Provider, kind: str
) -> None:
    """A seventh of what the crowd would ask for: nearly all of its time it waits."""
    conversations = 200
    limit = Fault("rate_limit", requests=40, seconds=0.5)
    provider.order(limit)
    with store_url(kind, tmp_path) as url:
        lost(url, provider.base_url, conversations)

        used(url, provider, conversations)

        once_each(provider, conversations)
        assert 0 < refused_at_most_once_in_a_stretch(provider, limit)
