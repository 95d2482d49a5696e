"""A turn has one deadline, whatever its recovery takes: no request may outlast it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

import perdure
from perdure.testing import Clock, State
from tests.in_process import InProcess

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
TAKES = 4.0


class Busy(InProcess):
    """A provider that goes on with the first turn until it may end."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.began, self.may_end = threading.Event(), threading.Event()
        self.patience: list[dict[str, float]] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.patience.append(request.extensions["timeout"])
        if not self.began.is_set() and request.url.path.endswith("/responses"):
            self.began.set()
            assert self.may_end.wait(30)
        return super().handle_request(request)


def test_what_has_waited_for_another_turn_has_what_is_left(tmp_path: Path) -> None:
    clock = Clock()
    busy = Busy(State(clock, seed="busy"))

    def wait(_seconds: float) -> None:
        clock.advance(timedelta(seconds=TAKES))
        busy.may_end.set()
        first.result(30)

    transport = perdure.Transport(
        perdure.open_store(f"sqlite:///{tmp_path}/chat.db", clock=clock.now),
        inner=busy,
        sleep=wait,
        monotonic=clock.monotonic,
    )
    with httpx2.Client(transport=transport) as client, ThreadPoolExecutor(1) as pool:
        app = openai.OpenAI(
            api_key="sk-test", base_url="https://provider.example/v1", http_client=client
        )
        at: Any = {"model": "gpt-5.6", "conversation": app.conversations.create().id}
        busy.patience.clear()
        first = pool.submit(lambda: app.responses.create(input=FACT, timeout=20.0, **at))
        assert busy.began.wait(30)

        timeout = httpx2.Timeout(20.0, connect=5.0)
        app.responses.create(input=QUESTION, timeout=timeout, **at)

    whole = {"connect": 20.0, "read": 20.0, "write": 20.0, "pool": 20.0}
    left = {"connect": 5.0, "read": 16.0, "write": 16.0, "pool": 16.0}
    assert [whole, left] == busy.patience


class Slow(InProcess):
    """A provider that takes its time, and what the app's side would have waited for it."""

    def __init__(self, state: State, clock: Clock) -> None:
        super().__init__(state)
        self.clock = clock
        self.patience: list[float] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.patience.append(request.extensions["timeout"]["read"])
        self.clock.advance(timedelta(seconds=TAKES))
        return super().handle_request(request)


@pytest.mark.parametrize(
    ("timeout", "expected"), [(20.0, [20.0, 16.0, 12.0]), (5.0, [5.0, 1.0, 1.0])]
)
def test_each_request_of_a_recovery_has_what_is_left(timeout: float, expected: list[Any]) -> None:
    clock = Clock()
    slow = Slow(state := State(clock, seed="slow"), clock)
    transport = perdure.Transport(
        perdure.open_store("sqlite://", clock=clock.now),
        inner=slow,
        sleep=clock.sleep,
        monotonic=clock.monotonic,
    )
    with httpx2.Client(transport=transport) as client:
        app = openai.OpenAI(
            api_key="sk-test", base_url="https://provider.example/v1", http_client=client
        )
        conversation = app.conversations.create().id
        app.responses.create(model="gpt-5.6", input=FACT, conversation=conversation)
        state.forget()
        slow.patience.clear()

        answer = app.responses.create(
            model="gpt-5.6", input=QUESTION, conversation=conversation, timeout=timeout
        )

    assert FACT in answer.output_text
    assert expected == slow.patience
