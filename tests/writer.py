"""Writers of one SQLite file, and the process that starts and kills them.

A program of its own, started by tests/test_killed_writers_lose_nothing.py: it has one thread, so
that it may fork, and forks a writer in a few milliseconds because perdure is imported already.
It prints, as JSON, how many writers it has killed and what they had been told was done.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import perdure
from perdure.dialects.items import new_item, user_message
from perdure.engine.ops import Accept, Complete
from perdure.stores import Store

SLOTS = 4
THREADS = 3
UPSTREAM = "http://provider.test/v1"
MEAN_SECONDS = 0.12
ALL_AT_ONCE = 0.1  # how often every writer dies: the next one has SQLite's log to recover


@dataclass
class Slot:
    """A writer's place: its process, when it dies, and what it was told, by turn."""

    pid: int = 0
    pipe: int = -1
    dies_at: float = 0.0
    pending: bytes = b""
    accepted: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)


def text(mark: str) -> str:
    """What an item of a turn says: anything from a few bytes to more than one page of SQLite's."""
    length = random.Random(mark).choice([0, 10, 100, 1_000, 9_000])
    return f"{mark} {'x' * length}."


def asked(turn: str) -> list[str]:
    return [text(f"{turn}.question.1"), text(f"{turn}.question.2")]


def answer(turn: str) -> bytes:
    return json.dumps({"id": f"resp_{turn}", "text": text(f"{turn}.answer")}).encode()


def accepting(turn: str) -> Accept:
    return Accept(
        tenant="t",
        upstream=UPSTREAM,
        dialect="responses",
        kind="respond",
        turn_id=turn,
        body_hash=turn,
        items=tuple(user_message(one) for one in asked(turn)),
        request="{}",
        subject=turn.rpartition(".")[0],
        lease_seconds=0.0,  # whoever held it is dead: the next writer of this place takes it
    )


def write(store: Store, pipe: int, subject: str, number: int) -> None:
    """One thread's turns, one after another; each operation's result is told after it."""
    while True:
        turn = f"{subject}.{number}"
        accepted = store.perform(accepting(turn))
        if accepted.outcome == "deliver":
            os.write(pipe, f"accepted {turn}\n".encode())
            body = answer(turn)
            output = {"type": "message", "role": "assistant", "content": json.loads(body)["text"]}
            done = store.perform(
                Complete(
                    tenant="t",
                    upstream=UPSTREAM,
                    dialect="responses",
                    turn=accepted.turn,
                    status=200,
                    body=body,
                    content_type="application/json",
                    items=(new_item(output),),
                    response_id=f"resp_{turn}",
                    head=f"resp_{turn}",
                )
            )
            if done != "done":
                raise AssertionError(done)
        elif accepted.outcome != "answered":
            raise AssertionError(accepted)
        os.write(pipe, f"answered {turn}\n".encode())
        number += 1


def writer(url: str, pipe: int, place: int, numbers: list[int]) -> None:
    """A writer process: its threads share a store, and so commits. It never ends by itself."""
    store = perdure.open_store(url)

    def work(thread: int) -> None:
        try:
            write(store, pipe, f"{place}-{thread}", numbers[thread])
        except BaseException as error:  # noqa: BLE001  # told to whoever reads the pipe
            os.write(pipe, f"failed {error!r}\n".encode()[:1000])

    for thread in range(THREADS):
        threading.Thread(target=work, args=(thread,), daemon=True).start()
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.1)


def next_number(slot: Slot, subject: str) -> int:
    """The first turn that a writer was not told the end of."""
    newest = next((one for one in reversed(slot.answered) if one.startswith(subject)), None)
    return 0 if newest is None else int(newest.rpartition(".")[2]) + 1


class Killer:
    """Starts writers, kills them at moments drawn from a seed, and starts others in their place."""

    def __init__(self, url: str, seed: int) -> None:
        self.url = url
        self.moments = random.Random(seed)
        self.slots = [Slot() for _ in range(SLOTS)]
        self.kills = 0
        self.failures: list[str] = []

    def run(self, kills: int) -> None:
        try:
            for place in range(SLOTS):
                self.start(place)
            while self.kills < kills:
                place = min(range(SLOTS), key=lambda one: self.slots[one].dies_at)
                self.wait_until(self.slots[place].dies_at)
                everybody = self.moments.random() < ALL_AT_ONCE
                dying = range(SLOTS) if everybody else [place]
                self.kill(dying)
                for one in dying:
                    self.start(one)
        finally:
            self.kill([place for place in range(SLOTS) if self.slots[place].pid])

    def start(self, place: int) -> None:
        slot = self.slots[place]
        numbers = [next_number(slot, f"{place}-{thread}") for thread in range(THREADS)]
        slot.pipe, end = os.pipe()
        slot.pid = os.fork()
        if slot.pid == 0:
            try:
                writer(self.url, end, place, numbers)
            finally:
                os._exit(1)
        os.close(end)
        os.set_blocking(slot.pipe, False)
        slot.dies_at = time.monotonic() + self.moments.expovariate(1 / MEAN_SECONDS)

    def wait_until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0:
            time.sleep(min(left, 0.005))
            for slot in self.slots:
                self.read(slot)

    def kill(self, places: Iterable[int]) -> None:
        slots = [self.slots[place] for place in places]
        for slot in slots:
            os.kill(slot.pid, signal.SIGKILL)
        for slot in slots:
            _, status = os.waitpid(slot.pid, 0)
            if os.WIFSIGNALED(status):
                self.kills += 1
            else:
                self.failures.append(f"a writer ended by itself: {status}")
            self.read(slot)
            os.close(slot.pipe)
            slot.pid, slot.pending = 0, b""

    def read(self, slot: Slot) -> None:
        while True:
            try:
                data = os.read(slot.pipe, 65_536)
            except BlockingIOError:
                return
            if not data:
                return
            *lines, slot.pending = (slot.pending + data).split(b"\n")
            for line in lines:
                what, _, turn = line.decode().partition(" ")
                if what == "failed":
                    self.failures.append(turn)
                else:
                    (slot.accepted if what == "accepted" else slot.answered).append(turn)


def hand_over(url: str) -> None:
    """A process that has used the store forks a writer and closes its own; the writer goes on."""
    store = perdure.open_store(url)
    store.perform(accepting("parent.0"))
    told, tells = os.pipe()
    waits, go_on = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store.perform(accepting("child-1.0"))
            os.write(tells, b".")
            os.read(waits, 1)
            store.perform(accepting("child-2.0"))
        except BaseException:  # noqa: BLE001  # the exit status says so
            os._exit(1)
        os._exit(0)
    os.read(told, 1)
    store.close()
    os.write(go_on, b".")
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def main() -> None:
    url = sys.argv[1]
    if sys.argv[2] == "hand-over":
        hand_over(url)
    seed, kills = int(sys.argv[2]), int(sys.argv[3])
    killer = Killer(url, seed)
    # Stopped from outside, it takes its writers along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    killer.run(kills)
    told = {
        "kills": killer.kills,
        "failures": killer.failures,
        "accepted": [turn for slot in killer.slots for turn in slot.accepted],
        "answered": [turn for slot in killer.slots for turn in slot.answered],
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
