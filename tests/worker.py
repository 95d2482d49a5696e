"""A crowd of processes that talk in the same conversations, and a provider in a process of its own.

A program of its own, started by tests/test_many_processes_share_a_store.py: it has one thread, so
that it may fork. Who says what is decided by the numbers alone: turn ``t`` of conversation ``c`` is
said by process ``(c + t) % PROCESSES``, so every turn is another process's than the one before it.
"""

from __future__ import annotations

import http.client
import json
import logging
import mmap
import os
import random
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import openai

import perdure
from perdure.testing import Clock, Provider

PROCESSES = 16
CONVERSATIONS = 100
TURNS = 10
MODEL = "gpt-5.6"
LOST_HEADS = 0.3  # how often a response is gone when the next turn wants to continue it
READS = 0.15  # how often a process that has nothing to say looks at somebody's conversation
THINGS = (
    "dog", "cat", "horse", "boat", "house", "garden", "street", "school", "village", "river"
)  # fmt: skip
LOST_TWICE = "lost twice in one call:"
LOSSES_IN_A_ROW = 20  # more would be no chance
_HANDLE = re.compile("(?:conv|resp)_[0-9a-f]+")
_HANDLE_BYTES = 120
_IDLE_SECONDS = 0.002


def fact(conversation: int, turn: int) -> str:
    return f"My {THINGS[turn]} is called N{conversation}x{turn}."


def message(conversation: int, turn: int) -> tuple[str, str]:
    """What is said in a turn, and what the reply must quote: something from any turn before."""
    asked = random.Random(f"{conversation}.{turn}").randrange(turn + 1)
    question = f"What is my {THINGS[asked]} called?"
    return f"{fact(conversation, turn)} {question}", fact(conversation, asked)


def respond(sdk: openai.OpenAI, text: str, at: dict[str, Any], *, stream: bool) -> Any:
    """Say something; the response, whole."""
    if not stream:
        return sdk.responses.create(model=MODEL, input=text, **at)
    with sdk.responses.create(model=MODEL, input=text, stream=True, **at) as events:
        *_, last = events
    return last.response


def is_chain(conversation: int) -> bool:
    """Whether a conversation goes from response to response; else it is a conversation object."""
    return conversation % 2 == 1


class Control:
    """The provider's controls, from another process."""

    def __init__(self, base_url: str) -> None:
        self._connection = http.client.HTTPConnection(base_url.split("/")[2])

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"Authorization": "Bearer sk-test"}
        sent = None if body is None else json.dumps(body)
        for _ in range(2):
            try:
                self._connection.request(method, path, sent, headers)
                answer = self._connection.getresponse()
                return answer.status, json.loads(answer.read())
            except (http.client.HTTPException, ConnectionError):  # closed for having been idle
                self._connection.close()
        raise ConnectionError(path)

    def forgets(self, handle: str) -> bool:
        return self.ask("POST", "/_provider/forget", {"handle": handle})[0] == 200

    def close(self) -> None:
        self._connection.close()


class Board:
    """How far each conversation has come, and its newest handle, for all processes to see."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, CONVERSATIONS * _HANDLE_BYTES)

    def turn(self, conversation: int) -> int:
        return self._memory[conversation * _HANDLE_BYTES]

    def handle(self, conversation: int) -> str:
        start = conversation * _HANDLE_BYTES + 1
        return self._memory[start : start + _HANDLE_BYTES - 1].rstrip(b"\0").decode()

    def said(self, conversation: int, handle: str) -> None:
        """The next turn is another process's from here on."""
        start = conversation * _HANDLE_BYTES
        self._memory[start + 1 : start + _HANDLE_BYTES] = handle.encode().ljust(
            _HANDLE_BYTES - 1, b"\0"
        )
        self._memory[start] += 1

    @property
    def done(self) -> bool:
        return all(self.turn(one) == TURNS for one in range(CONVERSATIONS))


class Process:
    """One of the crowd."""

    def __init__(self, number: int, board: Board, store: str, base_url: str) -> None:
        self.number = number
        self.board = board
        policy = perdure.Policy(visibility_wait=timedelta(0))
        self.sdk = openai.OpenAI(
            api_key="sk-test",
            base_url=base_url,
            timeout=30,
            http_client=perdure.http_client(store, policy=policy),
        )
        self.control = Control(base_url)
        self.moments = random.Random(number)

    def work(self) -> None:
        parent = os.getppid()
        while not self.board.done and os.getppid() == parent:
            mine = [
                one
                for one in range(CONVERSATIONS)
                if self.board.turn(one) < TURNS
                and (one + self.board.turn(one)) % PROCESSES == self.number
            ]
            if mine:
                self.say(self.moments.choice(mine))
            elif self.moments.random() < READS:
                self.look(2 * self.moments.randrange(CONVERSATIONS // 2))
            else:
                time.sleep(_IDLE_SECONDS)
        self.sdk.close()
        self.control.close()

    def say(self, conversation: int) -> None:
        turn, handle = self.board.turn(conversation), self.board.handle(conversation)
        if turn and is_chain(conversation) and self.moments.random() < LOST_HEADS:
            # Not from outside: a response that is lost once another continues it takes its part
            # of the context along, and nothing tells so.
            self.control.forgets(handle)
        text, quoted = message(conversation, turn)
        at: dict[str, Any] = {}
        if not is_chain(conversation):
            handle = handle or self.sdk.conversations.create().id
            at = {"conversation": handle}
        elif handle:
            at = {"previous_response_id": handle}
        response = insistent(lambda: respond(self.sdk, text, at, stream=turn % 3 == 1))
        if quoted not in response.output_text:
            raise AssertionError((conversation, turn, text, response.output_text))
        self.board.said(conversation, response.id if is_chain(conversation) else handle)

    def look(self, conversation: int) -> None:
        """Meet a loss at the same time as whoever is speaking."""
        if handle := self.board.handle(conversation):
            insistent(lambda: self.sdk.conversations.retrieve(handle))


def insistent(call: Callable[[], Any]) -> Any:
    """Make a call again while what it has rebuilt is lost before it is used.

    A call rebuilds once, and its replica may be the next to vanish. Each error must name another
    replica: the same one twice would mean that its loss was forgotten.
    """
    named: set[str] = set()
    while True:
        try:
            return call()
        except openai.NotFoundError as error:
            (dead,) = _HANDLE.findall(error.message)
            if dead in named or len(named) == LOSSES_IN_A_ROW:
                raise
            named.add(dead)
            sys.stderr.write(f"{LOST_TWICE} {dead}\n")


def crowd(store: str, base_url: str) -> int:
    """Fork the processes and wait for them; 1 as soon as one has failed."""
    board, pids = Board(), []
    try:
        for number in range(PROCESSES):
            pid = os.fork()
            if pid == 0:
                one(number, board, store, base_url)
            pids.append(pid)
        while pids:
            pid, status = os.wait()
            pids.remove(pid)
            if status != 0:
                return 1
        return 0
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def one(number: int, board: Board, store: str, base_url: str) -> None:
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        logging.getLogger("perdure").setLevel(logging.ERROR)
        Process(number, board, store, base_url).work()
    except BaseException:  # noqa: BLE001  # the exit status says so
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def provide() -> None:
    """Serve until standard input ends."""
    # Clients are killed here: it would say of each of their sockets that it is gone.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    with Provider(clock=Clock(running=True)) as provider:
        sys.stdout.write(f"{provider.base_url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1] == "provider":
        provide()
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        sys.exit(crowd(*sys.argv[1:3]))
