"""What a streamed answer has said so far: one reader per API, fed with events."""

from __future__ import annotations

from typing import Any, Final

from perdure.dialects.body import object_of, objects_in
from perdure.dialects.items import text_of
from perdure.dialects.sse import Event
from perdure.dialects.verdicts import IN_ANSWER, Fault, fault_in

_TERMINAL: Final = {"response.completed", "response.incomplete", "response.failed"}
_OPENING: Final = {"response.created", "response.queued", "response.in_progress"}
_THREAD_OPENING: Final = {
    "thread.created",
    "thread.run.created",
    "thread.run.queued",
    "thread.run.in_progress",
}
_THREAD_TERMINAL: Final = {
    f"thread.run.{state}"
    for state in ("completed", "incomplete", "requires_action", "failed", "cancelled", "expired")
}


class ResponseReader:
    """Reads the events of ``POST /responses`` (also those of servers that leave some out)."""

    def __init__(self) -> None:
        self.response: dict[str, Any] = {}
        self.items: list[dict[str, Any]] = []
        self.fault: Fault | None = None
        self.failed = False  # by the response's own word, not by an error on the way
        self.terminal = False
        self._deltas: list[Event] = []

    def opening(self, event: Event) -> bool:
        """Whether the event only announces an answer that may still turn out to be a loss."""
        return event.name in _OPENING

    def annotated(self, event: Event) -> bool:
        """Whether the event carries the whole object, and so the news of a recovery."""
        return event.name == "response.created" or event.name in _TERMINAL

    def observe(self, event: Event) -> None:
        """Take in one event."""
        match event.name:
            case "response.output_text.delta" | "response.refusal.delta":
                self._deltas.append(event)
            case "response.output_item.done":
                self.items.append(object_of(event.json().get("item")))
                self._deltas.clear()
            case "error":
                self.fault = fault_in(IN_ANSWER, event.json())
                self.terminal = True
            case name if name in _TERMINAL:
                self.response = object_of(event.json().get("response"))
                self.items = objects_in(self.response.get("output")) or self.items
                self.response["output"] = self.items  # some servers leave it out here
                self.terminal = True
                if name == "response.failed":
                    self.failed = True
                    self.fault = fault_in(IN_ANSWER, self.response)
            case name if name in _OPENING:
                self.response = object_of(event.json().get("response"))

    def partial(self) -> list[dict[str, Any]]:
        """Return the finished items and the text shown of the one that was cut."""
        text = "".join(str(event.json().get("delta") or "") for event in self._deltas)
        cut = [{"type": "message", "role": "assistant", "content": text}] if text else []
        return [*self.items, *cut]


class RunReader:
    """Reads the events of a streamed run."""

    def __init__(self) -> None:
        self.response: dict[str, Any] = {}
        self.items: list[dict[str, Any]] = []
        self.thread: dict[str, Any] | None = None
        self.fault: Fault | None = None
        self.terminal = False
        self._deltas: list[Event] = []

    def opening(self, event: Event) -> bool:
        """Whether the event only announces an answer that may still turn out to be a loss."""
        return event.name in _THREAD_OPENING

    def annotated(self, event: Event) -> bool:
        """Whether the event carries the whole run, and so the news of a recovery."""
        return event.name == "thread.run.created" or event.name in _THREAD_TERMINAL

    def observe(self, event: Event) -> None:
        """Take in one event."""
        match event.name:
            case "thread.message.delta":
                self._deltas.append(event)
            case "thread.message.completed" | "thread.message.incomplete":
                self.items.append(event.json())
                self._deltas.clear()
            case "thread.created":
                self.thread = event.json()
            case "error":
                self.fault = fault_in(IN_ANSWER, event.json())
                self.terminal = True
            case name if name in _THREAD_TERMINAL:
                self.response = event.json()
                self.terminal = True
            case name if name.startswith("thread.run.") and ".step." not in name:
                self.response = event.json()

    def partial(self) -> list[dict[str, Any]]:
        """Return the text shown of each message, by its id; the last may have been cut."""
        text = "".join(
            str(object_of(part.get("text")).get("value") or "")
            for event in self._deltas
            for part in objects_in(object_of(event.json().get("delta")).get("content"))
        )
        shown = [_as_shown(item.get("id"), text_of(item)) for item in self.items]
        cut = [_as_shown(self._deltas[-1].json().get("id"), text)] if text else []
        return [*shown, *cut]


def _as_shown(message_id: Any, text: str) -> dict[str, Any]:
    return {"id": message_id, "role": "assistant", "content": text}


def is_event_stream(content_type: str | None) -> bool:
    """Whether an answer is a stream of events."""
    return (content_type or "").startswith("text/event-stream")
