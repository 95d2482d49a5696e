"""Store operations by subject: what ``Chat`` is made of."""

from __future__ import annotations

from perdure.engine.ops.replicas import Orphan
from perdure.flow import Op
from perdure.model import (
    Dialect,
    Recovery,
    Replica,
    ReplicaState,
    value,
)


@value
class Subject:
    """The conversation of one of the app's users, and the handle of its replica."""

    conversation: int
    replica: Replica
    last_position: int


@value
class FindSubject(Op["Subject | None"]):
    """Look up the conversation of a subject."""

    tenant: str
    subject: str


@value
class Pin(Op[int]):
    """Keep a fact that every later prime begins with; returns how many there are now."""

    tenant: str
    subject: str
    text: str


@value
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
    tokens: int = 0


@value
class ReadHistory(Op["tuple[Entry, ...]"]):
    """Read the newest entries before a position, or the oldest after one; oldest first."""

    tenant: str
    subject: str
    limit: int
    before: int | None = None
    after: int | None = None


@value
class Listed:
    """A conversation of a tenant's: whose it is, where, and how long its log is.

    ``handle`` is the id of its replica, the newest one; it may be dead (``state``).
    """

    conversation: int
    subject: str | None
    upstream: str
    dialect: Dialect
    handle: str | None
    state: ReplicaState
    last_position: int
    created_at: float


@value
class Conversations(Op["tuple[Listed, ...]"]):
    """List a tenant's conversations, or a subject's, after one; ``limit`` at most, in order.

    A store without a list of them all lists those that have a subject.
    """

    tenant: str
    subject: str | None
    after_conversation: int
    limit: int


@value
class TurnInfo:
    """The outcome of a turn, for the face that began it."""

    seq: int
    state: str
    response_id: str | None
    recovery: Recovery | None


@value
class ReadTurn(Op["TurnInfo | None"]):
    """Look a turn up by its id."""

    tenant: str
    turn_id: str


@value
class Forgotten:
    """What was erased, and the remote objects that are now to be deleted.

    ``indexed`` counts what a store had in a search index of its own.
    """

    conversations: int
    items: int
    turns: int
    milestones: int
    orphans: tuple[Orphan, ...]
    snapshots: int = 0
    indexed: int = 0


@value
class Forget(Op[Forgotten]):
    """Erase everything the store holds of a subject; its replicas become orphans.

    Lost ones too: what cannot be continued, or has forgotten, may still hold what was said.
    """

    tenant: str
    subject: str


@value
class ReadRecovery(Op["Recovery | None"]):
    """Read the record of one rebuild."""

    tenant: str
    conversation: int
    generation: int
