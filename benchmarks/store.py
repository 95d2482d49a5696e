"""What group commit brings: ``make bench-store``.

The store contract alone, two operations per turn and no HTTP, with synchronous=FULL: turns per
second of one writer, and of many that each talk in a conversation of their own. Both take turns
about in one run; what is compared is the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

import perdure
from perdure.dialects.items import new_item, user_message
from perdure.engine.ops import Accept, Complete
from perdure.stores import Store

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
    ratios, alone, together = [], [], []
    for _ in range(chosen.rounds):
        alone.append(_rate(1, chosen.turns // 4))
        together.append(_rate(chosen.writers, chosen.turns // chosen.writers))
        ratios.append(together[-1] / alone[-1])
    spread = f"({min(ratios):.2f}-{max(ratios):.2f})"
    lines = (
        f"one writer    {statistics.median(alone):8,.0f} turns/s",
        f"{chosen.writers} writers    {statistics.median(together):8,.0f} turns/s",
        f"ratio         {statistics.median(ratios):8.2f} {spread}, to reach: {_TARGET:.0f}",
    )
    sys.stdout.write("\n".join([*lines, ""]))
    return 0


def _rate(writers: int, turns: int) -> float:
    """Return the turns per second of writers that begin together."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        store = perdure.open_store(f"sqlite:///{folder}/chat.db")
        heads = [_turn(store, None, f"resp_{writer}_0") for writer in range(writers)]
        begin = threading.Barrier(writers + 1)

        def write(writer: int) -> None:
            begin.wait()
            head = heads[writer]
            for number in range(1, turns + 1):
                head = _turn(store, head, f"resp_{writer}_{number}")

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
        for thread in threads:
            thread.start()
        begin.wait()
        began = time.perf_counter()
        for thread in threads:
            thread.join()
        taken = time.perf_counter() - began
        store.close()
    return writers * turns / taken


def _turn(store: Store, head: str | None, response: str) -> str:
    question = (user_message("Which of the two orders was the one that came back damaged?"),)
    accepted = store.perform(
        Accept(
            _TENANT, _UPSTREAM, "responses", "respond", None, response, question, "{}", handle=head
        )
    )
    stored = store.perform(
        Complete(
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
    )
    assert stored == "done"
    return response


if __name__ == "__main__":
    sys.exit(main())
