"""What group commit brings: ``make bench-store``.

The store contract alone, two operations per turn and no HTTP, with synchronous=FULL: turns per
second of one writer, and of many that each talk in a conversation of their own, as threads (an app
on the sync SDK) and as tasks of one event loop (on the async one). They take turns about in one
run; what is compared is the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from perdure.dialects.items import new_item, user_message
from perdure.engine.ops import Accept, Accepted, Complete
from perdure.stores import SQLiteStore

_TENANT: Final = "bench"
_UPSTREAM: Final = "https://bench.test/v1"
_BODY: Final = b'{"object":"response","status":"completed","output":[]}'
_TARGET: Final = 5.0
_REPLY: Final = {"type": "message", "role": "assistant", "content": "The second one, on Friday."}


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.store")
    options.add_argument("--writers", type=int, default=64)
    options.add_argument("--turns", type=int, default=1500, help="of each subject in each round")
    options.add_argument("--rounds", type=int, default=9)
    chosen = options.parse_args(arguments)
    many = chosen.writers
    rates: dict[tuple[str, int], list[float]] = {
        (kind, writers): [] for kind in _KINDS for writers in (1, many)
    }
    for _ in range(chosen.rounds):
        for (kind, writers), measured in rates.items():
            turns = chosen.turns // 4 if writers == 1 else chosen.turns // writers
            measured.append(_rate(_KINDS[kind], writers, turns))
    for (kind, writers), measured in rates.items():
        name = f"{writers} {kind}" if writers > 1 else f"one {kind.removesuffix('s')}"
        sys.stdout.write(f"{name:<14}{statistics.median(measured):8,.0f} turns/s\n")
    for kind in _KINDS:
        ratios = [b / a for a, b in zip(rates[kind, 1], rates[kind, many], strict=True)]
        spread = f"({min(ratios):.2f}-{max(ratios):.2f})"
        ratio = f"{statistics.median(ratios):8.2f} {spread}, to reach: {_TARGET:.0f}"
        sys.stdout.write(f"ratio of {kind:<5}{ratio}\n")
    return 0


def _rate(write: Callable[[SQLiteStore, int, int], float], writers: int, turns: int) -> float:
    """Return the turns per second of writers that begin together, each at its own conversation."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        store = SQLiteStore(Path(folder) / "chat.db")
        for writer in range(writers):
            _take_turn(store, writer, 0)
        taken = write(store, writers, turns)
        store.close()
    return writers * turns / taken


def _in_threads(store: SQLiteStore, writers: int, turns: int) -> float:
    begin = threading.Barrier(writers + 1)

    def write(writer: int) -> None:
        begin.wait()
        for number in range(1, turns + 1):
            _take_turn(store, writer, number)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    begin.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def _in_tasks(store: SQLiteStore, writers: int, turns: int) -> float:
    async def write(writer: int) -> None:
        for number in range(1, turns + 1):
            accepted = await store.perform_async(_accept(writer, number))
            _check(await store.perform_async(_complete(accepted, writer, number)))

    async def write_all() -> float:
        began = time.perf_counter()
        await asyncio.gather(*map(write, range(writers)))
        return time.perf_counter() - began

    return asyncio.run(write_all())


_KINDS: Final = {"threads": _in_threads, "tasks": _in_tasks}


def _take_turn(store: SQLiteStore, writer: int, number: int) -> None:
    accepted = store.perform(_accept(writer, number))
    _check(store.perform(_complete(accepted, writer, number)))


def _check(stored: str) -> None:
    assert stored == "done"


def _accept(writer: int, number: int) -> Accept:
    question = user_message("Which of the two orders was the one that came back damaged?")
    return Accept(
        _TENANT,
        _UPSTREAM,
        "responses",
        "respond",
        None,
        f"resp_{writer}_{number}",
        (question,),
        "{}",
        handle=f"resp_{writer}_{number - 1}" if number else None,
    )


def _complete(accepted: Accepted, writer: int, number: int) -> Complete:
    assert accepted.turn is not None
    response = f"resp_{writer}_{number}"
    return Complete(
        tenant=_TENANT,
        upstream=_UPSTREAM,
        dialect="responses",
        turn=accepted.turn,
        status=200,
        body=_BODY,
        content_type="application/json",
        items=(new_item(_REPLY),),
        response_id=response,
        head=response,
    )


if __name__ == "__main__":
    sys.exit(main())
