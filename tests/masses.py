"""A crowd of processes that use conversations, each of them once, all of which are lost.

A program of its own, started by tests/test_thousands_are_lost_at_once.py. It does what the SDK does
under perdure, without what the SDK takes of the processor: an HTTP client of perdure's, and its own
repeats after a 429. It prints, as JSON, what each process met.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import perdure

MODEL = "gpt-5.6"
PROCESSES = 16
TWICE = 10  # every so many conversations are used by two processes at once
QUESTION = "What is my dog called?"
_TOO_MANY = 429


def handle(number: int) -> str:
    return f"conv_{number:048x}"


def fact(number: int) -> str:
    return f"My dog is called N{number}x0."


@dataclass
class Met:
    """What a process met: how often it was refused for asking too much, how long it waited."""

    answered: int = 0
    refused: int = 0
    recovered: int = 0


class User:
    """One process."""

    def __init__(self, store: str, base_url: str, process: int) -> None:
        self.process = process
        self.client: Any = perdure.http_client(store)
        self.headers = {
            "authorization": "Bearer sk-test",
            "x-stainless-read-timeout": "600",
            "user-agent": f"process-{process}",
        }
        self.base_url = base_url
        self.met = Met()

    def use(self, number: int) -> None:
        said = f"{QUESTION} Process {self.process} wants to know."
        asked = {"model": MODEL, "conversation": handle(number), "input": said}
        retries = 0
        while True:
            answer = self.client.post(
                f"{self.base_url}/responses",
                json=asked,
                headers=self.headers | {"x-stainless-retry-count": str(retries)},
                timeout=600,
            )
            if answer.status_code != _TOO_MANY:
                break
            self.met.refused += 1
            retries += 1
            time.sleep(float(answer.headers["retry-after"]))
        if answer.status_code != 200 or fact(number) not in answer.text:
            raise AssertionError((number, answer.status_code, answer.text))
        self.met.answered += 1
        self.met.recovered += "perdure-recovered" in answer.headers


def mine(process: int, conversations: int) -> list[int]:
    """The conversations that a process uses."""
    return [
        number
        for number in range(conversations)
        if number % PROCESSES == process
        or (number % TWICE == 0 and (number + 1) % PROCESSES == process)
    ]


def one(process: int, store: str, base_url: str, conversations: int, pipe: int) -> None:
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        logging.getLogger("perdure").setLevel(logging.ERROR)
        user = User(store, base_url, process)
        for number in mine(process, conversations):
            user.use(number)
        user.client.close()
        os.write(pipe, json.dumps(asdict(user.met)).encode() + b"\n")
    except BaseException as error:  # noqa: BLE001  # told to whoever reads the pipe
        os.write(pipe, f"{error!r}\n".encode()[:4000])
        os._exit(1)
    os._exit(0)


def main() -> None:
    store, base_url, conversations = sys.argv[1], sys.argv[2], int(sys.argv[3])
    told, end = os.pipe()
    pids: list[int] = []
    try:
        for process in range(PROCESSES):
            pid = os.fork()
            if pid == 0:
                one(process, store, base_url, conversations, end)
            pids.append(pid)
        os.close(end)
        with os.fdopen(told) as lines:
            sys.stdout.write(lines.read())
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
