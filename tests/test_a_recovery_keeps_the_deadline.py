"""A turn has one deadline, whatever its recovery takes: no request may outlast it."""

from __future__ import annotations

from datetime import timedelta
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
