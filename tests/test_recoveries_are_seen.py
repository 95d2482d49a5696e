"""A recovery is never silent: log, trace, callback; and none of them tells what anybody said."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

import perdure
from tests.world import World

if TYPE_CHECKING:
    import pytest

SECRET = "My password is swordfish."


class Recording(trace.NonRecordingSpan):
    """A span that keeps its events, as an SDK's would."""

    def __init__(self) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)
        self.events: list[tuple[str, dict[str, Any]]] = []

    def is_recording(self) -> bool:
        return True

    def add_event(self, name: str, attributes: Any = None, timestamp: Any = None) -> None:
        self.events.append((name, dict(attributes or {})))


def lose_and_recover(world: World, **options: Any) -> Any:
    app = world.app(**options)
    first = app.respond(SECRET)
    world.forgets(first.id)
    return app.respond("What is my password?", previous_response_id=first.id)


def test_a_trace_has_an_event(world: World) -> None:
    span = Recording()
    with trace.use_span(span):
        answer = lose_and_recover(world)

    ((name, attributes),) = span.events
    assert "perdure.recovery" == name
    assert answer.id == attributes["perdure.new_handle"]
    assert "full" == attributes["perdure.memory"]
    assert "swordfish" not in str(span.events)


def test_the_log_has_a_line_without_content(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="perdure"):
        answer = lose_and_recover(world)

    (line,) = [record.getMessage() for record in caplog.records if record.name == "perdure"]
    assert answer.id in line
    assert "swordfish" not in caplog.text
    assert "sk-test" not in caplog.text


def test_a_listener_that_fails_does_not_fail_the_call(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def listener(recovery: perdure.Recovery) -> None:
        raise RuntimeError(recovery.memory)

    transport = world.transport()
    transport.core._on_recovery = listener
    app = world.app_on(transport)
    first = app.respond(SECRET)
    world.forgets(first.id)

    answer = app.respond("What is my password?", previous_response_id=first.id)

    assert "swordfish" in answer.output_text
    assert "on_recovery failed" in caplog.text
