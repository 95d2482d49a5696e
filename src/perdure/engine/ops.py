"""The vocabulary of the engine's flows: everything it can ask a driver or a store to do.

Store operations are atomic: each takes effect whole or not at all, and is durable when its result
arrives (under the store's own durability setting). A store that cannot do one raises
:class:`~perdure.errors.StoreError` and has changed nothing. Every store operation that reads
time reads the store's own, never the worker's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from perdure.flow import Flow, Handover, Op
from perdure.model import (
    Dialect,
    Headers,
    NewItem,
    Recovery,
    Replica,
    StoredAnswer,
    StoredItem,
    TurnKey,
    TurnKind,
)

# -- the wire --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's answer, whole, or its head while the body is still streaming.

    ``body`` is decoded. ``original`` is the driver's own object for an answer that may be passed
    on untouched; :meth:`edited` drops it. ``stream`` is the driver's open body, if any.
    """

    status: int
    headers: Headers
    body: bytes
    original: Any = None
    stream: Any = None

    @property
    def ok(self) -> bool:
        """Whether the status is a 2xx."""
        return 200 <= self.status < 300

    def header(self, name: str) -> str | None:
        """Return a header's value; ``name`` in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def edited(self, body: bytes | None = None, headers: Headers = ()) -> Answer:
        """Return the answer with another body or additional headers."""
        dropped = {"content-length", "content-encoding", "transfer-encoding"}
        kept = tuple((key, value) for key, value in self.headers if key.lower() not in dropped)
        new = self.body if body is None else body
        length = () if self.stream is not None else (("content-length", str(len(new))),)
        return Answer(self.status, (*kept, *headers, *length), new, None, self.stream)


@dataclass(frozen=True, slots=True)
class Send(Op[Answer]):
    """Send a request to the provider: the caller's own with differences, or one of ours.

    ``path`` is relative to the upstream and carries the query. ``own`` marks a request that the
    app did not make (it creates, reads or deletes a replica): it gets the caller's credentials and
    timeouts. Raises :class:`SendFailed`.
    """

    method: str
    path: str
    body: bytes | None
    stream: bool = False
    own: bool = False


class SendFailed(Exception):
    """A request that got no answer; ``cause`` is what the inner transport raised.

    ``definite``: the provider cannot have seen the request. Otherwise it may have done the work.
    """

    def __init__(self, cause: BaseException, *, definite: bool) -> None:
        self.cause = cause
        self.definite = definite
        super().__init__(type(cause).__name__)


@dataclass(frozen=True, slots=True)
class Pull(Op[bytes | None]):
    """Read the next piece of an open body; None at its end, empty when ``seconds`` ran out."""

    stream: Any
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Release(Op[None]):
    """Close an open body that nobody will read to its end."""

    stream: Any


@dataclass(frozen=True, slots=True)
class Start(Handover):
    """The head of a streamed answer: from here on the flow is the body."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Emit(Handover):
    """The next piece of a streamed body."""

    data: bytes


class Closed(Exception):
    """Raised inside a streaming flow when its caller stops reading."""


# -- the worker ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sleep(Op[None]):
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Elapsed(Op[float]):
    """Read a monotonic clock, in seconds; only differences mean anything."""


@dataclass(frozen=True, slots=True)
class NewId(Op[str]):
    """Make an id that nobody else makes, 32 hex digits."""


@dataclass(frozen=True, slots=True)
class Report(Op[None]):
    """Tell whoever listens (callback, log, trace) that a replica was rebuilt; never fails."""

    recovery: Recovery


@dataclass(frozen=True, slots=True)
class Spawn(Op[None]):
    """Run a flow after this call, in the transport's background worker."""

    name: str
    flow: Flow[None]


# -- the store: turns ------------------------------------------------------------------------

Outcome: TypeAlias = Literal[
    "deliver",  # the turn is ours to deliver, under the epoch in its key
    "wait",  # another worker delivers this turn, or one before it: ask again
    "answered",  # this turn has its answer: ``stored``
    "mismatch",  # the same turn id with another body
    "foreign",  # the handle belongs to another tenant
    "retired",  # the handle was deleted through us: nothing is journalled
]


@dataclass(frozen=True, slots=True)
class Accept(Op["Accepted"]):
    """Put a turn's items into the log and take the turn, before anything is sent.

    - Finds the conversation by ``handle``, by ``subject``, or makes a new one; a handle never
      seen before makes one marked adopting.
    - ``given`` or a recognised repeat (same body as the newest turn at that position, whose answer
      was not handed over) returns that turn instead of a second one.
    - On a forkable replica a position that already has a live child opens a branch; on a shared
      one a turn behind another waits (``wait``), in accept order.
    - A ``deliver`` carries a new epoch: whoever held the turn before cannot write to it.
    """

    tenant: str
    upstream: str
    dialect: Dialect
    kind: TurnKind
    turn_id: str
    given: bool
    body_hash: str
    items: tuple[NewItem, ...]
    request: str
    new_id: str
    handle: str | None = None
    subject: str | None = None
    lease_seconds: float = 60.0

    @property
    def shared(self) -> bool:
        """Whether turns of this conversation are delivered one after another."""
        return self.dialect != "responses" or self.subject is not None


@dataclass(frozen=True, slots=True)
class Accepted:
    """What :class:`Accept` found.

    ``through`` is the log position before this turn's items: what a prime for it must cover.
    ``handle_state`` is that of the handle sent, ``replica`` the conversation's. ``again`` marks a
    turn that an earlier attempt may have delivered already.
    """

    outcome: Outcome
    turn: TurnKey | None = None
    through: int = 0
    handle_state: Literal["live", "lost", "none"] = "none"
    handle_age_seconds: float = 0.0
    replica: Replica | None = None
    adopting: bool = False
    accepted_items: int = 0
    again: bool = False
    stored: StoredAnswer | None = None


@dataclass(frozen=True, slots=True)
class Complete(Op[bool]):
    """Give a turn its one answer, put its items into the log and free the lease.

    Returns False, with nothing changed, where the turn's epoch is no longer the caller's or it
    has an answer. ``head`` becomes the replica of a forkable conversation; ``recovery`` is
    recorded with it, and the handle ``lost`` is marked so (``orphan``: it may still exist).
    ``primed``: a shared replica now knows the whole log. ``own`` are the provider's ids of the
    turn's own items, each with the item as the provider shows it. ``unread``: whether a run's messages are still to be read.
    """

    tenant: str
    upstream: str
    dialect: Dialect
    turn: TurnKey
    status: int
    body: bytes
    content_type: str
    items: tuple[NewItem, ...]
    response_id: str | None = None
    head: str | None = None
    model: str | None = None
    input_tokens: int | None = None
    primed: bool = False
    own: tuple[tuple[str, str], ...] = ()
    handle_kind: Literal["response", "run"] = "response"
    unread: bool | None = None
    recovery: Recovery | None = None
    lost: str | None = None
    orphan: bool = False


@dataclass(frozen=True, slots=True)
class Underway(Op[bool]):
    """Note the id under which the provider works on a turn that it will answer later."""

    tenant: str
    upstream: str
    turn: TurnKey
    response_id: str
    body: bytes
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Fail(Op[bool]):
    """End a turn without an answer.

    ``unknown``: the provider may have done the work. ``withdrawn``: its items are not part of
    the conversation (refused, or not sent at all). ``partial`` items were shown before the cut.
    """

    tenant: str
    turn: TurnKey
    state: Literal["failed", "unknown"]
    reason: str
    withdrawn: bool = False
    partial: tuple[NewItem, ...] = ()


# -- the store: replicas ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Intend(Op[None]):
    """Write down that a replica is about to be created, so that it cannot be forgotten."""

    tenant: str
    upstream: str
    dialect: Dialect
    conversation: str
    intent: str


#: ``beaten``: somebody else's replica stands. ``taken``: the id is bound to something else.
#: A beaten object is an orphan; a taken id is another's and must not be deleted.
Bound: TypeAlias = Literal["bound", "beaten", "taken"]


@dataclass(frozen=True, slots=True)
class Bind(Op[Bound]):
    """Make a created object the replica of the next generation.

    Compare-and-swap on ``generation``: the loser is ``beaten``. An id that is bound already is
    never bound again. The handle it replaces is marked lost (or, ``orphan``, may still exist). ``recovery`` is
    recorded with the winner. ``intent`` is done with either way.
    """

    tenant: str
    upstream: str
    dialect: Dialect
    conversation: str
    generation: int
    handle: str
    intent: str
    primed_through: int
    lost: str | None = None
    orphan: bool = False
    recovery: Recovery | None = None


@dataclass(frozen=True, slots=True)
class BindNew(Op[Bound]):
    """Enter a replica that the app itself has just created, with its first items.

    ``beaten`` where ``subject`` has a live replica of this dialect. ``primed_through``: how much
    of the subject's log the object was created with.
    """

    tenant: str
    upstream: str
    dialect: Dialect
    handle: str
    conversation: str
    items: tuple[NewItem, ...]
    body: bytes
    subject: str | None = None
    primed_through: int = 0


@dataclass(frozen=True, slots=True)
class MarkLost(Op[None]):
    """Note that a handle is dead, so that its next use costs no failing call."""

    tenant: str
    upstream: str
    handle: str


@dataclass(frozen=True, slots=True)
class Retire(Op[None]):
    """Take a handle, and with it its conversation's replica, out of use: deleted through us."""

    tenant: str
    upstream: str
    handle: str


@dataclass(frozen=True, slots=True)
class Tombstone(Op[None]):
    """Mark one item as deleted through us: never primed, listed or exported again."""

    tenant: str
    conversation: str
    provider_id: str


# -- the store: reading ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Find(Op["Found | None"]):
    """Look a handle up; None where it was never seen here."""

    tenant: str
    upstream: str
    handle: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a handle points to.

    ``answer`` is the stored object of a response, run, conversation or thread as the app last
    saw it. ``ended`` says that a turn has its final answer.
    """

    conversation: str
    position: int
    state: Literal["live", "lost", "retired"]
    age_seconds: float
    replica: Replica
    foreign: bool = False
    turn: TurnKey | None = None
    ended: bool = False
    request: str = ""
    answer: StoredAnswer | None = None
    replaced_by: str | None = None
    last_position: int = 0
    unread: str | None = None


@dataclass(frozen=True, slots=True)
class History(Op["Span"]):
    """Read the newest items up to ``through`` that fit ``budget_tokens``, oldest first.

    Follows a branch to its origin; leaves out tombstoned and withdrawn items.
    """

    tenant: str
    conversation: str
    through: int
    budget_tokens: int


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the log, the number of items older than it, and the pinned facts.

    ``complete`` is False while the history before the first journalled item is unknown.
    """

    items: tuple[StoredItem, ...]
    older: int
    milestones: tuple[str, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Page(Op["Listing"]):
    """Read one page of a conversation's items as a provider would list them."""

    tenant: str
    conversation: str
    newest_first: bool
    limit: int
    after: str | None = None
    before: str | None = None
    turn_response: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of items; ``cursor_found`` is False where ``after`` names no item here."""

    items: tuple[StoredItem, ...]
    has_more: bool
    cursor_found: bool = True


@dataclass(frozen=True, slots=True)
class OneItem(Op["StoredItem | None"]):
    """Read a single item by its provider's id."""

    tenant: str
    conversation: str
    provider_id: str


@dataclass(frozen=True, slots=True)
class Learn(Op[bool]):
    """Add items read from the provider, oldest first, that the log does not have yet.

    ``whole``: they reach back to the start or follow a known item directly. Returns whether the
    log now has everything up to the newest of them.
    """

    tenant: str
    conversation: str
    items: tuple[NewItem, ...]
    whole: bool


@dataclass(frozen=True, slots=True)
class Adopted(Op[None]):
    """Add history older than everything in the log, newest first; ``done`` ends the adoption."""

    tenant: str
    conversation: str
    items: tuple[NewItem, ...]
    done: bool


@dataclass(frozen=True, slots=True)
class ReadRecovery(Op["Recovery | None"]):
    """Read the record of one rebuild."""

    tenant: str
    conversation: str
    generation: int


# -- the store: orphans ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Orphan:
    """A remote object that may exist and is no longer wanted."""

    key: int
    upstream: str
    dialect: Dialect
    handle: str


@dataclass(frozen=True, slots=True)
class Orphans(Op["tuple[Orphan, ...]"]):
    """Read orphans of one upstream that are still to be deleted, oldest first."""

    tenant: str
    upstream: str
    limit: int


@dataclass(frozen=True, slots=True)
class OrphanGone(Op[None]):
    """Note that an orphan's delete was confirmed."""

    tenant: str
    key: int


# -- the store: people -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Subject:
    """The conversation of one of the app's users, and the handle of its replica."""

    conversation: str
    replica: Replica
    last_position: int


@dataclass(frozen=True, slots=True)
class FindSubject(Op["Subject | None"]):
    """Look up the conversation of a subject."""

    tenant: str
    subject: str


@dataclass(frozen=True, slots=True)
class Pin(Op[int]):
    """Keep a fact that every later prime begins with; returns how many there are now."""

    tenant: str
    subject: str
    text: str
    new_id: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a conversation's history as people read it."""

    position: int
    turn_id: str | None
    seq: int
    role: str
    kind: str
    text: str
    at: float
    state: str
    recovery: Recovery | None = None


@dataclass(frozen=True, slots=True)
class ReadHistory(Op["tuple[Entry, ...]"]):
    """Read entries before a position (None: the newest), oldest first."""

    tenant: str
    subject: str
    limit: int
    before: int | None = None


@dataclass(frozen=True, slots=True)
class TurnInfo:
    """The outcome of a turn, for the face that began it."""

    seq: int
    state: str
    response_id: str | None
    recovery: Recovery | None


@dataclass(frozen=True, slots=True)
class ReadTurn(Op["TurnInfo | None"]):
    """Look a turn up by its id."""

    tenant: str
    turn_id: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was erased, and the remote objects that are now to be deleted."""

    conversations: int
    items: int
    turns: int
    milestones: int
    orphans: tuple[Orphan, ...]


@dataclass(frozen=True, slots=True)
class Forget(Op[Forgotten]):
    """Erase everything the store holds of a subject; its replicas become orphans."""

    tenant: str
    subject: str
