"""What the provider holds, who owns it, and how it is lost."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from perdure.testing.clock import Clock
from perdure.testing.provider.faults import Fault, FaultBook
from perdure.testing.provider.ids import IdSource
from perdure.testing.provider.wire import Event, Json

MAX_INPUT_ITEMS = 20_000
"""No source tells the real limit of a response's input (FACTS 3.4 is silent), so: generous."""
MAX_CONTEXT_TOKENS = 400_000
EXPIRING = ("responses", "conversations", "threads", "vector_stores")


@dataclass(slots=True)
class Item:
    """One stored item; `reasoning_id` is the reasoning it must follow, `follower_id` the reverse.

    Both links are what FACTS 3.4 says is demanded when ids are kept in a replay. `hidden_tokens`
    are those of reasoning that nobody is shown; `cuts` marks what the server has compacted a
    history to.
    """

    id: str
    body: Json
    project: str
    reasoning_id: str | None = None
    follower_id: str | None = None
    hidden_tokens: int = 0
    cuts: bool = False


class Owned(Protocol):
    """Anything that belongs to a project and grows old."""

    project: str
    touched: float


Thing = TypeVar("Thing", bound=Owned)


@dataclass
class StoredResponse:
    """One response with its own input and output; the history above it is in its parents."""

    id: str
    project: str
    body: Json
    input: list[Item]
    output: list[Item]
    parent: str | None
    conversation: str | None
    created: float
    touched: float
    pending: int = 0
    finish: Any = None
    events: list[Event] | None = None


@dataclass
class Conversation:
    """One conversation and its items in order; `locked_by` is the turn in flight."""

    id: str
    project: str
    created: float
    touched: float
    metadata: Json
    items: list[Item] = field(default_factory=list)
    locked_by: str | None = None

    def wire(self) -> Json:
        """Return the object as answered."""
        return {
            "id": self.id,
            "object": "conversation",
            "created_at": int(self.created),
            "metadata": self.metadata,
        }


@dataclass
class Run:
    """One run in wire form; `scratch` is what it has called and been told, as the model reads it.

    `since` is when it was last queued: from there the clock moves it on.
    """

    id: str
    body: Json
    since: float
    scratch: list[Json] = field(default_factory=list)
    steps: list[Json] = field(default_factory=list)
    forgot: bool = False


@dataclass
class Thread:
    """One thread with its messages in wire form and its runs."""

    id: str
    project: str
    created: float
    touched: float
    body: Json
    messages: dict[str, Json] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)


@dataclass
class Assistant:
    """One assistant in wire form."""

    id: str
    project: str
    body: Json
    touched: float = 0.0


@dataclass
class StoredFile:
    """One uploaded file in wire form; nothing of its content is kept."""

    id: str
    project: str
    body: Json
    touched: float = 0.0


@dataclass
class VectorStore:
    """One vector store in wire form, and the files in it."""

    id: str
    project: str
    body: Json
    touched: float
    file_ids: list[str] = field(default_factory=list)

    def add(self, file_ids: Sequence[str]) -> None:
        """Put files into the store, which works on them at once."""
        self.file_ids += [one for one in file_ids if one not in self.file_ids]
        counts = dict.fromkeys(("in_progress", "failed", "cancelled"), 0)
        total = len(self.file_ids)
        self.body = self.body | {"file_counts": counts | {"completed": total, "total": total}}


@dataclass
class Recorded:
    """One request as it arrived; `status` is None while unanswered, or when the answer was lost."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    status: int | None
    at: float

    @property
    def json(self) -> Any:
        """Return the parsed body; None when there was none."""
        import json  # noqa: PLC0415 - the property hides the module's name

        return json.loads(self.body) if self.body else None


class State:
    """Everything the provider knows; shared by the server's thread and the test's."""

    def __init__(self, clock: Clock | None = None, *, seed: str | None = None) -> None:
        self.clock = clock if clock is not None else Clock(running=True)
        self.ids = IdSource(seed)
        self.lock = threading.RLock()
        self.faults = FaultBook()
        self.requests: list[Recorded] = []
        self.scripted: deque[str | Sequence[Json]] = deque()
        self.retention: dict[str, float] = {}
        self.max_input_items = MAX_INPUT_ITEMS
        self.max_context_tokens = MAX_CONTEXT_TOKENS
        self.reasoning_tokens = 0
        """How much hidden reasoning each reasoning item of the next turns stands for."""
        self.counts_cached_apart = False
        """Whether cached tokens are left out of a response's input tokens, as some servers do."""
        self.responses: dict[str, StoredResponse] = {}
        self.conversations: dict[str, Conversation] = {}
        self.threads: dict[str, Thread] = {}
        self.assistants: dict[str, Assistant] = {}
        self.files: dict[str, StoredFile] = {}
        self.vector_stores: dict[str, VectorStore] = {}
        self.items: dict[str, Item] = {}
        self.sealed: dict[str, tuple[str, str]] = {}
        """Encrypted content by its blob: the project that may open it, and what is inside."""

    # Reading

    def find_response(self, handle: str, project: str) -> StoredResponse | None:
        """Return a response this project can read now."""
        found = self._living("responses", self.responses, handle, project)
        if found is None or self.clock.now() - found.created < self._invisible_seconds():
            return None
        return found

    def find_conversation(self, handle: str, project: str) -> Conversation | None:
        """Return a conversation this project can read now."""
        return self._living("conversations", self.conversations, handle, project)

    def find_thread(self, handle: str, project: str) -> Thread | None:
        """Return a thread this project can read now."""
        return self._living("threads", self.threads, handle, project)

    def find_assistant(self, handle: str, project: str) -> Assistant | None:
        """Return an assistant of this project."""
        found = self.assistants.get(handle)
        return found if found is not None and found.project == project else None

    def find_file(self, handle: str, project: str) -> StoredFile | None:
        """Return a file of this project."""
        found = self.files.get(handle)
        return found if found is not None and found.project == project else None

    def find_vector_store(self, handle: str, project: str) -> VectorStore | None:
        """Return a vector store of this project."""
        return self._living("vector_stores", self.vector_stores, handle, project)

    def find_item(self, handle: str, project: str) -> Item | None:
        """Return a stored item of this project, whatever it belonged to."""
        found = self.items.get(handle)
        return found if found is not None and found.project == project else None

    def history(self, head: StoredResponse) -> list[Item]:
        """Return the items a response continues, itself included.

        A link that is missing ends the walk: deleting a middle link silently truncates the
        context above it (FACTS 3.1).
        """
        links = [head]
        while links[-1].parent is not None:
            parent = self._living("responses", self.responses, links[-1].parent, head.project)
            if parent is None:
                break
            links.append(parent)
        items = self._items_before(links[-1])
        for link in reversed(links):
            items += link.input
            items += link.output
        return items

    def _items_before(self, first: StoredResponse) -> list[Item]:
        """Return what a conversation held before the response that was made inside it."""
        conversation = self.conversations.get(first.conversation or "")
        if conversation is None:
            return []
        own = {item.id for item in first.input + first.output}
        before = []
        for item in conversation.items:
            if item.id in own:
                break
            before.append(item)
        return before

    def _living(
        self, kind: str, things: dict[str, Thing], handle: str, project: str
    ) -> Thing | None:
        found = things.get(handle)
        if found is None:
            return None
        now = self.clock.now()
        retention = self.retention.get(kind)
        if retention is not None and now - found.touched >= retention:
            del things[handle]
            return None
        if found.project != project:
            return None
        found.touched = now
        return found

    def _invisible_seconds(self) -> float:
        return max((o.seconds for o in self.faults.orders if o.kind == "not_visible"), default=0.0)

    # Losing

    def forget(self, handle: str | None = None) -> None:
        """Lose one object without a trace, or every conversation, response and thread.

        LookupError if nothing has that id.
        """
        if handle is None:
            for things in (self.responses, self.conversations, self.threads, self.items):
                things.clear()
            return
        lost = self.responses.pop(handle, None)
        conversation = self.conversations.pop(handle, None)
        others = (self.threads, self.files, self.vector_stores)
        known = [things.pop(handle, None) for things in others]
        if lost is not None:
            self._forget_items(lost.input + lost.output)
            self._unlock(lost)
        elif conversation is not None:
            self._forget_items(conversation.items)
        elif known == [None, None, None]:
            message = f"the provider holds nothing called {handle!r}"
            raise LookupError(message)

    def _unlock(self, response: StoredResponse) -> None:
        conversation = self.conversations.get(response.conversation or "")
        if conversation is not None and conversation.locked_by == response.id:
            conversation.locked_by = None

    def _forget_items(self, items: list[Item]) -> None:
        for item in items:
            self.items.pop(item.id, None)

    def expire_after(self, kind: str, idle: timedelta | float | None) -> None:
        """Let a kind of object vanish once unused for so long; None keeps it for ever."""
        if kind not in EXPIRING:
            message = f"only {', '.join(EXPIRING)} expire, not {kind!r}"
            raise ValueError(message)
        if idle is None:
            self.retention.pop(kind, None)
            return
        self.retention[kind] = idle.total_seconds() if isinstance(idle, timedelta) else idle

    def order(self, fault: Fault) -> None:
        """Order a fault."""
        if fault.kind == "expire":
            self.expire_after(fault.what, fault.seconds)
        else:
            self.faults.order(fault)

    # Keeping

    def keep_item(self, item: Item) -> Item:
        """Make an item readable by its id."""
        self.items[item.id] = item
        return item

    def seal(self, project: str, inside: str) -> str:
        """Return an opaque blob only this project can send back."""
        blob = "gAAAAAB" + self.ids.short("")[1:] * 3
        self.sealed[blob] = (project, inside)
        return blob
