"""Writers of one SQLite file, and the process that starts and kills them.

A program of its own, started by tests/test_killed_writers_lose_nothing.py. It prints, as JSON, how
many writers it has killed and what they had been told was done.
"""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import sys
import threading
import time

import perdure
from perdure.dialects.items import new_item, user_message
from perdure.engine.ops import Accept, Complete
from perdure.stores import Store
from tests.killer import Killer, failed

SLOTS = 4
THREADS = 3
UPSTREAM = "http://provider.test/v1"
MEAN_SECONDS = 0.12
ALL_AT_ONCE = 0.1  # how often every writer dies: the next one has SQLite's log to recover


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


def writer(url: str, pipe: int, place: int, told: list[str]) -> None:
    """A writer process: its threads share a store, and so commits. It never ends by itself."""
    store = perdure.open_store(url)
    answered = [line.partition(" ")[2] for line in told if line.startswith("answered")]

    def work(subject: str) -> None:
        try:
            write(store, pipe, subject, next_number(answered, subject))
        except BaseException as error:  # noqa: BLE001  # told to whoever reads the pipe
            failed(pipe, error)

    for thread in range(THREADS):
        threading.Thread(target=work, args=(f"{place}-{thread}",), daemon=True).start()
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.1)


def next_number(answered: list[str], subject: str) -> int:
    """The first turn that a writer was not told the end of."""
    newest = next((one for one in reversed(answered) if one.startswith(subject)), None)
    return 0 if newest is None else int(newest.rpartition(".")[2]) + 1


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
    killer = Killer(
        functools.partial(writer, url),
        slots=SLOTS,
        mean_seconds=MEAN_SECONDS,
        all_at_once=ALL_AT_ONCE,
        seed=seed,
    )
    # Stopped from outside, it takes its writers along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        killer.run(lambda: killer.kills >= kills)
    finally:
        killer.end()
    lines = [line.partition(" ") for slot in killer.slots for line in slot.told]
    told = {
        "kills": killer.kills,
        "failures": killer.failures,
        "accepted": [turn for what, _, turn in lines if what == "accepted"],
        "answered": [turn for what, _, turn in lines if what == "answered"],
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
