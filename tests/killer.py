"""Starts workers in processes of their own, kills them, and starts others in their place.

For a program that has one thread, so that it may fork, and has imported what its workers need, so
that one is there in a few milliseconds. What a worker was told was done it tells in turn, one line
a time, through a pipe: that outlives it.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

FAILED = "failed "  # what a worker says of itself that must not be

Work = Callable[[int, int, list[str]], None]
"""What a worker does, given its pipe, its place, and what those before it there have told."""


def failed(pipe: int, error: BaseException) -> None:
    """Tell of a fault."""
    os.write(pipe, f"{FAILED}{error!r}".replace("\n", " ").encode()[:1000] + b"\n")


@dataclass
class Slot:
    """A worker's place: its process, when it dies, and what it has told, with those before it."""

    pid: int = 0
    pipe: int = -1
    dies_at: float = 0.0
    pending: bytes = b""
    told: list[str] = field(default_factory=list)


class Killer:
    """Starts and kills workers at moments drawn from a seed.

    A worker lives for ``mean_seconds``; at one death of ``1 / all_at_once`` all die together.
    """

    def __init__(
        self, work: Work, *, slots: int, mean_seconds: float, all_at_once: float, seed: int
    ) -> None:
        self.work = work
        self.mean_seconds = mean_seconds
        self.all_at_once = all_at_once
        self.moments = random.Random(seed)
        self.slots = [Slot() for _ in range(slots)]
        self.kills = 0
        self.failures: list[str] = []

    def run(self, enough: Callable[[], bool]) -> None:
        """Start workers and kill them until it is enough; the last ones are alive."""
        for slot in self.slots:
            self.start(slot)
        while not enough():
            first = min(self.slots, key=lambda one: one.dies_at)
            self.wait_until(first.dies_at)
            dying = self.slots if self.moments.random() < self.all_at_once else [first]
            self.kill(dying)
            for slot in dying:
                self.start(slot)

    def start(self, slot: Slot) -> None:
        slot.pipe, end = os.pipe()
        slot.pid = os.fork()
        if slot.pid == 0:
            try:
                self.work(end, self.slots.index(slot), slot.told)
            except BaseException as error:  # noqa: BLE001  # told to whoever reads the pipe
                failed(end, error)
                os._exit(1)
            os._exit(0)
        os.close(end)
        os.set_blocking(slot.pipe, False)
        slot.dies_at = time.monotonic() + self.moments.expovariate(1 / self.mean_seconds)

    def wait_until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0:
            time.sleep(min(left, 0.005))
            for slot in self.slots:
                self.read(slot)

    def kill(self, slots: Iterable[Slot]) -> None:
        for slot in slots:
            os.kill(slot.pid, signal.SIGKILL)
        for slot in slots:
            _, status = os.waitpid(slot.pid, 0)
            if os.WIFSIGNALED(status):
                self.kills += 1
            else:
                self.failures.append(f"a worker ended by itself: {status}")
            self.closed(slot)

    def end(self) -> None:
        """Kill who is there; not counted."""
        for slot in self.slots:
            if slot.pid:
                os.kill(slot.pid, signal.SIGKILL)
                os.waitpid(slot.pid, 0)
                self.closed(slot)

    def ended(self, within_seconds: float) -> None:
        """Wait until all workers have ended by themselves; it is a failure where they do not."""
        until = time.monotonic() + within_seconds
        while any(slot.pid for slot in self.slots) and time.monotonic() < until:
            self.wait_until(time.monotonic() + 0.02)
            for slot in self.slots:
                if slot.pid and os.waitpid(slot.pid, os.WNOHANG)[0]:
                    self.closed(slot)
        stuck = [place for place, slot in enumerate(self.slots) if slot.pid]
        if stuck:
            self.failures.append(f"workers that do not come to an end: {stuck}")

    def closed(self, slot: Slot) -> None:
        self.read(slot)
        os.close(slot.pipe)
        slot.pid, slot.pipe, slot.pending = 0, -1, b""

    def read(self, slot: Slot) -> None:
        while slot.pipe >= 0:
            try:
                data = os.read(slot.pipe, 65_536)
            except BlockingIOError:
                return
            if not data:
                return
            *lines, slot.pending = (slot.pending + data).split(b"\n")
            for line in lines:
                told = line.decode()
                (self.failures if told.startswith(FAILED) else slot.told).append(told)
