"""A provider for the simulator: what it holds is a dictionary, what it says tells what it saw.

Every message of a history has a mark of its own, and an answer is a new mark followed by those of
the whole context that it was made from. So whether a reply was made from exactly what came before
it can be read off the reply.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

from perdure.dialects.items import from_input, text_of
from perdure.testing.simulator.odds import Odds
from perdure.testing.simulator.streams import Life, SimStream, response_life
from perdure.testing.simulator.threads import Threads
from perdure.testing.simulator.wire import Refused, Whole, listing, ok, one_of, refusal

MODEL: Final = "sim"
_CONVERSATION: Final = re.compile(r"^/conversations/([^/?]+)(?:(/items)(?:/([^/?]+))?)?")
_THREADS: Final = "/threads"
_SPOKEN: Final = frozenset({"completed", "incomplete"})
_NOTICED: Final = 3
_TOKENS: Final = 50  # that each item is counted as: no more than its bytes allow


@dataclass(slots=True)
class Held:
    """A conversation: its items, and whether something is being worked out on it."""

    items: list[dict[str, Any]] = field(default_factory=list)
    working: int = 0


@dataclass(slots=True)
class Asked:
    """What a response of a talk that was had elsewhere is made of."""

    previous: str | None
    own: list[dict[str, Any]]
    said: list[dict[str, Any]]


@dataclass(slots=True)
class Surroundings:
    """What a provider is in: the history's chance, its odds and faults so far, and its time."""

    chance: random.Random
    odds: Odds
    faults: Counter[str]
    now: Callable[[], float]
    later: Callable[[float, Callable[[], object]], None]


class SimProvider:
    """Conversations, responses and threads in memory.

    A request for a whole answer is begun, and finished later. A turn that was begun goes on
    although nobody waits for its answer, keeps its conversation locked meanwhile, and shows its
    items all at once: FACTS 0.7.
    """

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self._made = 0
        self.conversations: dict[str, Held] = {}
        self.responses: dict[str, list[dict[str, Any]]] = {}
        self.asked: dict[str, Asked] = {}
        #: Responses that are made in the background, as they are shown: until they end, and then.
        self.underway: dict[str, dict[str, Any]] = {}
        self.made: dict[str, dict[str, Any]] = {}
        self.threads = Threads(self)
        self.created: set[str] = set()
        self.deleted: set[str] = set()
        self.said: set[str] = set()
        self.completed_runs: set[str] = set()
        #: What was emptied, or made of that, and what was said from it: of how many items at first.
        self.emptied: dict[str, int] = {}
        self.said_from_nothing: dict[str, int] = {}
        self.removed_runs: set[str] = set()
        self.forgotten_runs: set[str] = set()
        self.calls = 0

    def begin(self, method: str, path: str, body: bytes | None) -> Work:
        """Take a request in; a model call that is refused is refused at once."""
        return Work(self, method, path, json.loads(body) if body else {})

    def open(self, path: str, body: bytes, stream: SimStream) -> Whole | None:
        """Begin to answer on a stream; returns the answer instead where that is a refusal."""
        members = json.loads(body)
        try:
            if path.startswith(_THREADS):
                self.threads.open(path, members, stream)
            else:
                call = self.respond(members)
                self.live(response_life(self, call, stream))
        except Refused as refused:
            return refused.answer
        return None

    def hold(self, kind: str, texts: list[str]) -> str:
        """Hold a talk that was had elsewhere, and return what it is named by."""
        roles = ("user", "assistant")
        items = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
        if kind == "thread":
            return self.threads.hold(items)
        if kind == "conversation":
            handle = self.new_id("conv")
            self.conversations[handle] = Held(_shown(self, [_message(item) for item in items]))
            return handle
        previous: str | None = None
        for asked, said in zip(items[::2], items[1::2], strict=True):
            own, reply = _shown(self, [_message(asked)]), _shown(self, [_message(said)])
            response_id = self.new_id("resp")
            before = self.responses.get(previous or "", [])
            self.responses[response_id] = [*before, *own, *reply]
            self.asked[response_id] = Asked(previous, own, reply)
            previous = response_id
        assert previous is not None
        return previous

    def live(self, life: Life) -> None:
        """Let something go on by itself."""
        pause = next(life, None)
        if pause is not None:
            self.around.later(pause, lambda: self.live(life))

    def forget(self, handle: str) -> None:
        """Lose one object."""
        self.conversations.pop(handle, None)
        self.responses.pop(handle, None)
        self.underway.pop(handle, None)
        self.threads.held.pop(handle, None)

    def empty(self, handle: str) -> bool:
        """Forget what a conversation, response or thread is made of, and go on as if that were it.

        False where it is made of so little that nobody could notice.
        """
        held, thread = self.conversations.get(handle), self.threads.held.get(handle)
        items = self.responses.get(handle, [])
        if held is not None:
            items = held.items
        elif thread is not None:
            items = thread.messages
        if len(items) < _NOTICED:
            return False
        self.forgotten_runs.update(item["run_id"] for item in items if item.get("run_id"))
        self.removed_runs |= self.forgotten_runs
        self.emptied[handle] = len(items)
        items.clear()
        return True

    def handles(self) -> list[str]:
        """Return all that could be lost."""
        return [*self.conversations, *self.responses, *self.underway, *self.threads.held]

    def new_id(self, prefix: str) -> str:
        """Make an id."""
        self._made += 1
        return f"{prefix}_{self._made:06d}{self.around.chance.getrandbits(64):016x}"

    def answer(
        self, context: list[dict[str, Any]], *outputs: str, mark: str = "a"
    ) -> dict[str, Any]:
        """Return the model's message: its own mark, then those of what it was shown."""
        self.calls += 1
        text = " ".join([f"{mark}{self._made}.{self.calls}", "<-", *marks(context), *outputs])
        self.said.add(text)
        return {
            "id": self.new_id("msg"),
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}],
        }

    def respond(self, body: dict[str, Any]) -> Responding:
        """Begin a model call, and lock its conversation; raises where it is refused."""
        handle, previous = body.get("conversation"), body.get("previous_response_id")
        held = self.conversations.get(handle) if handle else None
        if handle and held is None:
            raise Refused(refusal(404, f"Conversation with id '{handle}' not found."))
        if held is not None and held.working:
            raise Refused(
                refusal(
                    400,
                    "Another process is currently operating on this conversation. "
                    "Please retry in a few seconds.",
                    "conversation_locked",
                )
            )
        if previous in self.underway:
            message = f"Previous response '{previous}' is still in progress."
            raise Refused(refusal(400, message, "invalid_value"))
        if previous and previous not in self.responses:
            raise Refused(
                refusal(
                    400,
                    f"Previous response with id '{previous}' not found.",
                    "previous_response_not_found",
                )
            )
        before = list(held.items) if held else list(self.responses.get(previous or "", []))
        own = _shown(self, from_input(body.get("input")))
        if held is not None:
            held.working += 1
        return Responding(self, handle, held, previous, before, own)


@dataclass(slots=True)
class Responding:
    """A model call under way."""

    provider: SimProvider
    handle: str | None
    held: Held | None
    previous: str | None
    before: list[dict[str, Any]]
    own: list[dict[str, Any]]

    @property
    def lacks(self) -> int:
        """How many items it does not have, because it continues something that was emptied."""
        emptied = self.provider.emptied
        return max(emptied.get(one or "", 0) for one in (self.handle, self.previous))

    def said(self) -> dict[str, Any]:
        """Return what the model says."""
        said = self.provider.answer([*self.before, *self.own])
        if self.lacks:
            self.provider.said_from_nothing[text_of(said)] = self.lacks
        return said

    def give_up(self) -> None:
        """End it without an answer."""
        if self.held is not None:
            self.held.working -= 1

    def done(self, said: dict[str, Any], response_id: str | None = None) -> dict[str, Any]:
        """End it: the items appear all at once; returns the response."""
        response_id = response_id or self.provider.new_id("resp")
        self.provider.responses[response_id] = [*self.before, *self.own, said]
        if self.held is not None:
            self.held.working -= 1
            self.held.items += [*self.own, said]
        if self.lacks:
            self.provider.emptied[response_id] = self.lacks
        return self.response(response_id, "completed", [said])

    def response(self, response_id: str, status: str, output: list[Any]) -> dict[str, Any]:
        """Return a response object."""
        return {
            "id": response_id,
            "object": "response",
            "status": status,
            "model": MODEL,
            "output": output,
            "conversation": {"id": self.handle} if self.handle else None,
            "usage": self._usage(len(output)) if status in _SPOKEN else None,
        }

    def _usage(self, said: int) -> dict[str, int]:
        shown = len(self.before) + len(self.own)
        return {"input_tokens": shown * _TOKENS, "output_tokens": said * _TOKENS}


class Work:
    """One request: refused when it was begun, or done when :meth:`finish` is called."""

    def __init__(self, provider: SimProvider, method: str, path: str, body: dict[str, Any]) -> None:
        self._provider = provider
        self._method, self._path, self._body = method, path, body
        self._finishing: Iterator[Whole] = self._steps()
        self.outcome: Whole | None = None
        first = next(self._finishing)
        if first[0]:
            self.outcome = first

    def finish(self) -> Whole:
        """Do the work and return status and body."""
        if self.outcome is None:
            self.outcome = next(self._finishing)
        return self.outcome

    def _steps(self) -> Iterator[Whole]:
        """Yield a refusal, or (0, b"") and then the answer."""
        provider = self._provider
        if (self._method, self._path) == ("POST", "/responses"):
            try:
                call = provider.respond(self._body)
            except Refused as refused:
                yield refused.answer
                return
            yield 0, b""
            yield ok(_queued(call) if self._body.get("background") else call.done(call.said()))
            return
        yield 0, b""
        _, _, *parts = self._path.split("/")
        if self._method == "DELETE" and len(parts) == 1:
            provider.deleted.add(parts[0])  # or it is gone: nobody need know of it any more
        if self._path.startswith(_THREADS):
            try:
                yield provider.threads.answer(self._method, self._path, self._body)
            except Refused as refused:
                yield refused.answer
            return
        if (self._method, self._path) == ("POST", "/conversations"):
            handle = provider.new_id("conv")
            provider.conversations[handle] = Held(_shown(provider, self._body.get("items") or []))
            provider.created.add(handle)
            yield ok({"id": handle, "object": "conversation", "created_at": 0, "metadata": {}})
            return
        try:
            yield self._on_object()
        except Refused as refused:
            yield refused.answer

    def _on_object(self) -> Whole:
        provider = self._provider
        path, _, query_text = self._path.partition("?")
        query = {key: values[0] for key, values in parse_qs(query_text).items()}
        found = _CONVERSATION.match(path)
        if found is None:
            return self._on_response(path, query)
        conversation = provider.conversations.get(found[1])
        if conversation is None:
            return refusal(404, f"Conversation with id '{found[1]}' not found.")
        if found[3] is not None:
            item = one_of(conversation.items, found[3])
            if self._method == "DELETE":
                conversation.items.remove(item)
                return ok({"id": found[1], "object": "conversation", "created_at": 0})
            return ok(item)
        if self._method == "DELETE":
            provider.forget(found[1])
            return ok({"id": found[1], "object": "conversation.deleted", "deleted": True})
        if found[2] is None:
            return ok({"id": found[1], "object": "conversation", "created_at": 0})
        return listing(conversation.items, query)

    def _on_response(self, path: str, query: dict[str, str]) -> Whole:
        provider = self._provider
        _, _, handle, *part = path.split("/")
        if handle in provider.underway and not part:
            return ok(provider.underway[handle])
        if handle not in provider.responses:
            return refusal(404, f"Response with id '{handle}' not found.")
        if handle in provider.made and not part:
            return ok(provider.made[handle])
        asked = provider.asked.get(handle, Asked(None, [], []))
        if part:
            return listing(asked.own, query)
        shown = {"id": handle, "object": "response", "status": "completed"}
        return ok({**shown, "previous_response_id": asked.previous, "output": asked.said})


def _queued(call: Responding) -> dict[str, Any]:
    """Make a response in the background; returns it as it is shown at first."""
    provider, response_id = call.provider, call.provider.new_id("resp")
    provider.around.faults["background"] += 1
    provider.underway[response_id] = call.response(response_id, "queued", [])

    def life() -> Life:
        yield provider.around.chance.uniform(1.0, 20.0)
        if provider.underway.pop(response_id, None) is None:
            call.give_up()  # it is lost
        else:
            said = call.said()
            provider.asked[response_id] = Asked(call.previous, call.own, [said])
            made = call.done(said, response_id)
            provider.made[response_id] = {**made, "previous_response_id": call.previous}

    provider.live(life())
    return provider.underway[response_id]


def _message(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", **item}


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
