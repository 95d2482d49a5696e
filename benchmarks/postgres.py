"""What a turn costs on PostgreSQL, with a short history and a long one: ``make bench-postgres``.

The store contract alone, two operations per turn and no HTTP: on conversations of 10 items and on
one of 50,000, turn about, and beside them a ``SELECT 1`` on a connection of nobody's, which is what
one round trip costs. A conversation of 10 items serves one turn that is not counted, so that it is
not new to the server's cache, and one that is. The long one's row is changed by all the turns, and
its older versions are in its figures, as they are in those of any conversation that is much used.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Final

import psycopg

import perdure
from perdure.dialects.items import new_item, user_message
from perdure.engine.ops import Accept, BringIn, Complete, Forget, History
from perdure.stores import Store

_TENANT: Final = "bench"
_UPSTREAM: Final = "https://bench.test/v1"
_BODY: Final = b'{"object":"response","status":"completed","output":[]}'
_REPLY: Final = {"type": "message", "role": "assistant", "content": "The second one, on Friday."}
_QUESTION: Final = "Which of the two orders was the one that came back damaged?"
_PORTION: Final = 1_000
_BUDGET_TOKENS: Final = 150  # so that both have as many to read
_TIMED: Final = ("accept", "complete", "history")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.postgres")
    options.add_argument("--store", help="a database with the schema; else a server from a wheel")
    options.add_argument("--turns", type=int, default=60, help="of each length in each round")
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--long", type=int, default=50_000, help="items of the long conversation")
    chosen = options.parse_args(arguments)
    with ExitStack() as open_things:
        url = chosen.store
        if url is None:
            from tests.servers import postgres  # noqa: PLC0415  # not where there is a server

            url = open_things.enter_context(postgres().database())
        store = open_things.enter_context(closing(perdure.open_store(url)))
        connection = open_things.enter_context(psycopg.connect(url, autocommit=True))
        run = f"{random.getrandbits(64):x}"
        try:
            sys.stdout.write(_measured(store, connection, run, chosen) + "\n")
        finally:
            for number in range(chosen.rounds * chosen.turns):
                store.perform(Forget(_TENANT, f"{run}-{number}"))
            store.perform(Forget(_TENANT, f"{run}-long"))
    return 0


def _measured(
    store: Store, connection: psycopg.Connection, run: str, chosen: argparse.Namespace
) -> str:
    """Fill, have the turns, and return the table."""
    short = [_conversation(store, f"{run}-{n}", 10) for n in range(chosen.rounds * chosen.turns)]
    long = _conversation(store, f"{run}-long", chosen.long)
    rounds: list[dict[str, float]] = []
    for number in range(chosen.rounds):
        taken: dict[str, list[float]] = {}
        for conversation in short[number * chosen.turns : (number + 1) * chosen.turns]:
            for length, handle in (("short", conversation), ("long", long)):
                _turn(store, handle)
                for name, seconds in _turn(store, handle).items():
                    taken.setdefault(f"{name} {length}", []).append(seconds)
            began = time.perf_counter()
            connection.execute("SELECT 1").fetchone()
            taken.setdefault("trip", []).append(time.perf_counter() - began)
        rounds.append({name: statistics.median(all_) for name, all_ in taken.items()})
    lines = [f"one round trip (SELECT 1) {_shown([one['trip'] * 1e3 for one in rounds])} ms"]
    for name in (*_TIMED, "turn"):
        few, many = ([one[f"{name} {size}"] * 1e3 for one in rounds] for size in ("short", "long"))
        ratios = [b / a for a, b in zip(few, many, strict=True)]
        lines.append(
            f"{name:8}  10 items {_shown(few)} ms   {chosen.long:,} items {_shown(many)} ms   "
            f"ratio {_shown(ratios)}"
        )
    return "\n".join(lines)


def _shown(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _conversation(store: Store, name: str, length: int) -> str:
    """Enter a conversation of so many items; returns its handle."""
    handle = f"conv_{name}"
    for start in range(0, length, _PORTION):
        items = tuple(
            new_item(_REPLY | {"id": f"msg_{name}_{n}"}) if n % 2 else user_message(_QUESTION)
            for n in range(start, min(start + _PORTION, length))
        )
        store.perform(
            BringIn(_TENANT, _UPSTREAM, "conversations", handle, items, start, subject=name)
        )
    return handle


def _turn(store: Store, handle: str) -> dict[str, float]:
    """Have one turn, and read the newest items; returns how long each operation took."""
    items = (user_message(_QUESTION),)
    name = f"resp_{random.getrandbits(64):x}"
    began = time.perf_counter()
    accepted = store.perform(
        Accept(
            _TENANT, _UPSTREAM, "conversations", "respond", None, name, items, "{}", handle=handle
        )
    )
    taken = time.perf_counter()
    stored = store.perform(
        Complete(
            tenant=_TENANT,
            upstream=_UPSTREAM,
            dialect="conversations",
            turn=accepted.turn,
            status=200,
            body=_BODY,
            content_type="application/json",
            items=(new_item(_REPLY | {"id": f"msg_{name}"}),),
            response_id=name,
        )
    )
    answered = time.perf_counter()
    assert stored == "done"
    store.perform(History(_TENANT, accepted.turn.conversation, accepted.through, _BUDGET_TOKENS))
    return {
        "accept": taken - began,
        "complete": answered - taken,
        "turn": answered - began,
        "history": time.perf_counter() - answered,
    }


if __name__ == "__main__":
    sys.exit(main())
