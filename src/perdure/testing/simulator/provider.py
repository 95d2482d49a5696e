"""A provider for the simulator: what it holds is a dictionary, what it says tells what it saw.

Every message of a history has a mark of its own, and an answer is a new mark followed by those of
the whole context that it was made from. So whether a reply was made from exactly what came before
it can be read off the reply.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from perdure.dialects.items import dumps, from_input, text_of

MODEL: Final = "sim"
HEADERS: Final = (("content-type", "application/json"),)
_CONVERSATION: Final = re.compile(r"^/conversations/([^/?]+)(/items)?")


@dataclass(slots=True)
class Held:
    """A conversation: its items, and whether something is being worked out on it."""

    items: list[dict[str, Any]] = field(default_factory=list)
    working: int = 0


class SimProvider:
    """Conversations and responses in memory; every request is begun, and finished later.

    A turn that was begun goes on although nobody waits for its answer, keeps its conversation
    locked meanwhile, and shows its items all at once: FACTS 0.7.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._made = 0
        self.conversations: dict[str, Held] = {}
        self.responses: dict[str, list[dict[str, Any]]] = {}
        self.created: set[str] = set()
        self.calls = 0

    def begin(self, method: str, path: str, body: bytes | None) -> Work:
        """Take a request in; what is refused is refused at once."""
        return Work(self, method, path, json.loads(body) if body else {})

    def forget(self, handle: str) -> None:
        """Lose one object."""
        self.conversations.pop(handle, None)
        self.responses.pop(handle, None)

    def new_id(self, prefix: str) -> str:
        """Make an id."""
        self._made += 1
        return f"{prefix}_{self._made:06d}{self._chance.getrandbits(64):016x}"

    def answer(self, context: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the model's message: its own mark, then those of what it was shown."""
        self.calls += 1
        text = " ".join([f"a{self._made}.{self.calls}", "<-", *marks(context)])
        return {
            "id": self.new_id("msg"),
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}],
        }


class Work:
    """One request: refused when it was begun, or done when :meth:`finish` is called."""

    def __init__(self, provider: SimProvider, method: str, path: str, body: dict[str, Any]) -> None:
        self._provider = provider
        self._method, self._path, self._body = method, path, body
        self._finishing: Iterator[tuple[int, bytes]] = self._steps()
        self.outcome: tuple[int, bytes] | None = None
        first = next(self._finishing)
        if first[0]:
            self.outcome = first

    def finish(self) -> tuple[int, bytes]:
        """Do the work and return status and body."""
        if self.outcome is None:
            self.outcome = next(self._finishing)
        return self.outcome

    def _steps(self) -> Iterator[tuple[int, bytes]]:
        """Yield a refusal, or (0, b"") and then the answer."""
        provider = self._provider
        if (self._method, self._path) == ("POST", "/responses"):
            yield from self._respond()
            return
        yield 0, b""
        if (self._method, self._path) == ("POST", "/conversations"):
            handle = provider.new_id("conv")
            provider.conversations[handle] = Held(_shown(provider, self._body.get("items") or []))
            provider.created.add(handle)
            yield _ok({"id": handle, "object": "conversation", "created_at": 0, "metadata": {}})
            return
        yield self._on_object()

    def _on_object(self) -> tuple[int, bytes]:
        provider = self._provider
        found = _CONVERSATION.match(self._path)
        if found is None:
            handle = self._path.rsplit("/", 1)[-1]
            held = provider.responses.get(handle)
            if held is None:
                return _error(404, f"Response with id '{handle}' not found.")
            return _ok({"id": handle, "object": "response", "status": "completed"})
        conversation = provider.conversations.get(found[1])
        if conversation is None:
            return _error(404, f"Conversation with id '{found[1]}' not found.")
        if self._method == "DELETE":
            provider.forget(found[1])
            return _ok({"id": found[1], "object": "conversation.deleted", "deleted": True})
        if found[2] is None:
            return _ok({"id": found[1], "object": "conversation", "created_at": 0})
        newest = list(reversed(conversation.items))
        data = newest[:100]
        return _ok({"object": "list", "data": data, "has_more": len(newest) > len(data)})

    def _respond(self) -> Iterator[tuple[int, bytes]]:
        provider, body = self._provider, self._body
        handle, previous = body.get("conversation"), body.get("previous_response_id")
        held = provider.conversations.get(handle) if handle else None
        if handle and held is None:
            yield _error(404, f"Conversation with id '{handle}' not found.")
            return
        if held is not None and held.working:
            yield _error(
                400,
                "Another process is currently operating on this conversation. "
                "Please retry in a few seconds.",
                "conversation_locked",
            )
            return
        if previous and previous not in provider.responses:
            yield _error(
                400,
                f"Previous response with id '{previous}' not found.",
                "previous_response_not_found",
            )
            return
        before = list(held.items) if held else list(provider.responses.get(previous or "", []))
        own = _shown(provider, from_input(body.get("input")))
        if held is not None:
            held.working += 1
        yield 0, b""
        said = provider.answer([*before, *own])
        response_id = provider.new_id("resp")
        provider.responses[response_id] = [*before, *own, said]
        if held is not None:
            held.working -= 1
            held.items += [*own, said]
        yield _ok(
            {
                "id": response_id,
                "object": "response",
                "status": "completed",
                "model": MODEL,
                "output": [said],
                "conversation": {"id": handle} if handle else None,
            }
        )


def marks(items: list[dict[str, Any]]) -> list[str]:
    """Return the mark of each item: the first word of its text."""
    return [text_of(item).split(" ", 1)[0] for item in items]


def _shown(provider: SimProvider, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a request's items as they are kept: with ids, texts in parts."""
    kept = []
    for item in items:
        content = item.get("content")
        if isinstance(content, str):
            kind = "output_text" if item.get("role") == "assistant" else "input_text"
            content = [{"type": kind, "text": content}]
        kept.append({**item, "id": provider.new_id("msg"), "content": content})
    return kept


def _ok(value: dict[str, Any]) -> tuple[int, bytes]:
    return 200, dumps(value).encode()


def _error(status: int, message: str, code: str | None = None) -> tuple[int, bytes]:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return status, dumps({"error": error}).encode()
