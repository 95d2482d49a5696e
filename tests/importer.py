"""Processes that import the same file at the same time, some of them killed.

A program of its own, started by tests/test_imports_meet.py: it forks, so it has no threads. It is
given a store's URL, a folder and a seed, and prints, as JSON, what it let be imported, by whom, and
what each of them said.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from itertools import count
from pathlib import Path
from typing import Any

from perdure.cli import transfer
from perdure.flow import Op
from perdure.portable.formats import end_line, head_line, item_line
from perdure.stores import Store, open_store

UPSTREAM = "http://provider.test/v1"
PORTION = 200
LONGEST = 4 * PORTION
LONGEST_KILLED = 20 * PORTION
KILLED_WITHIN_SECONDS = 0.003  # of the beginning of some operation


def conversations(chance: random.Random, name: str, longest: int) -> list[dict[str, Any]]:
    """What a file has: some conversations are several portions long, two may be one user's."""
    made = []
    for number in range(chance.randint(1, 3)):
        length = chance.choice(
            [0, 1, PORTION - 1, PORTION, PORTION + 1, *chance.choices(range(longest), k=5)]
        )
        made.append(
            {
                "handle": chance.choice(["conv", "thread"]) + f"_{name}_{number}",
                "subject": chance.choice([None, "ann", "bob"]),
                "facts": [f"Fact {n} of {number}" for n in range(chance.randint(0, 2))],
                "said": [f"{number}.{n}" for n in range(length)],
            }
        )
    return made


def write(path: Path, made: list[dict[str, Any]]) -> None:
    """Write a file of perdure's own."""
    lines = []
    for number, one in enumerate(made):
        about = {"tenant": "t", "conversation": number, "subject": one["subject"]}
        lines.append(head_line(one["facts"], handle=one["handle"], **about))
        for n, text in enumerate(one["said"]):
            wire = json.dumps({"type": "message", "role": "user", "content": text})
            known = f"msg_{one['handle']}_{n}" if n % 3 == 0 else None  # most have none
            lines.append(item_line(wire, 1_700_000_000.0 + n, known))
        lines.append(end_line(len(one["said"])))
    path.write_text("\n".join(lines), encoding="utf-8")


class Process:
    """A process that imports a file as soon as it is told to, and tells how far it is."""

    def __init__(
        self, store: str, file: Path, tenant: str, tells_at: int = 0, in_step: bool = False
    ) -> None:
        self._may, self._go = os.pipe()
        self._told, self._tell = os.pipe()
        self._tells_at, self._in_step = tells_at, in_step
        self._out = file.with_suffix(f".{time.monotonic_ns()}.out")
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)
            os.read(self._may, 1)
            self._run(store, file, tenant)
        os.close(self._may)
        os.close(self._tell)

    def _run(self, store: str, file: Path, tenant: str) -> None:
        status = 1
        try:
            os.dup2(os.open(self._out, os.O_WRONLY | os.O_CREAT), 1)
            setattr(transfer, "open_store", self._opened)  # noqa: B010
            transfer.import_files(store, [file], tenant, UPSTREAM, None)
            sys.stdout.flush()
            status = 0
        except BaseException:  # noqa: BLE001  # told to the test
            traceback.print_exc(file=sys.stdout)
            sys.stdout.flush()
        finally:
            os._exit(status)

    def _opened(self, url: str) -> Store:
        """Open a store, and tell when its operation of that number begins, or each, and wait."""
        store = open_store(url)
        perform, numbers = store.perform, count(1)

        def told(op: Op[Any]) -> Any:
            if next(numbers) == self._tells_at or self._in_step:
                os.write(self._tell, b"!")
            if self._in_step:
                os.read(self._may, 1)
            return perform(op)

        store.perform = told  # type: ignore[method-assign]
        return store

    def go(self) -> None:
        """Let it begin, or do its next operation."""
        os.write(self._go, b"!")

    def has_told(self) -> bool:
        """Wait until it tells how far it is; False where it has ended before."""
        return os.read(self._told, 1) == b"!"

    def ended(self) -> dict[str, Any]:
        """Wait for its end; what it said."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self._told)
        os.close(self._go)
        out = self._out.read_text(encoding="utf-8") if self._out.exists() else ""
        return {"status": os.waitstatus_to_exitcode(status), "out": out}


def keep_in_step(chance: random.Random, processes: list[Process]) -> None:
    """Let some of them do an operation together, then some, so that they meet on a busy machine."""
    waiting: list[Process] = []
    moved = processes
    while waiting or moved:
        waiting += [process for process in moved if process.has_told()]
        moved = chance.sample(waiting, chance.randint(min(1, len(waiting)), len(waiting)))
        waiting = [process for process in waiting if process not in moved]
        for process in moved:
            process.go()


def one_round(chance: random.Random, store: str, folder: Path, number: int, kills: int) -> Any:
    """Let two or three import one file; kill so many of them somewhere, then import it again."""
    tenant, file = f"round-{number}", folder / f"{number}.jsonl"
    made = conversations(chance, str(number), LONGEST_KILLED if kills else LONGEST)
    write(file, made)
    portions = sum(len(one["said"]) // PORTION for one in made) + 1
    in_step = not kills and chance.random() < 0.5
    processes = [
        Process(store, file, tenant, chance.randint(1, portions) if kills else 0, in_step)
        for _ in range(kills or chance.randint(2, 3))
    ]
    for process in processes:
        process.go()
        if not in_step:
            time.sleep(chance.choice([0, chance.uniform(0, 0.02)]))
    if in_step:
        keep_in_step(chance, processes)
    for process in processes[:kills]:
        if process.has_told():
            time.sleep(chance.uniform(0, KILLED_WITHIN_SECONDS))
        os.kill(process.pid, signal.SIGKILL)
    ended = [process.ended() for process in processes]
    again = Process(store, file, tenant)
    again.go()
    return {"tenant": tenant, "made": made, "ended": ended, "again": again.ended()}


def main(store: str, folder: str, seed: str, rounds: str, kills: str) -> None:
    """Run rounds and print them."""
    chance = random.Random(int(seed))
    told = [
        one_round(chance, store, Path(folder), number, int(kills)) for number in range(int(rounds))
    ]
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
