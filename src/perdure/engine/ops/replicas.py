"""Store operations on replicas and on what is left of them."""

from __future__ import annotations

from typing import Literal, TypeAlias

from perdure.flow import Op
from perdure.model import (
    Dialect,
    NewItem,
    Recovery,
    TurnKey,
    value,
)


@value
class Intend(Op[None]):
    """Write down that a replica is about to be created, so that it cannot be forgotten.

    ``conversation`` is 0 where the app creates it: there is none yet.
    """

    tenant: str
    upstream: str
    dialect: Dialect
    conversation: int
    intent: str


@value
class CallOff(Op[None]):
    """Take an intent back: the provider has refused, nothing was created."""

    tenant: str
    intent: str


#: ``beaten``: somebody else's replica stands. ``fenced``: somebody else has the turn. ``behind``:
#: the log has gone on since it was read. ``taken``: the id is bound to something else. An object
#: that is not bound is an orphan; but a taken id is another's and must not be deleted.
Bound: TypeAlias = Literal["bound", "beaten", "fenced", "behind", "taken"]


@value
class Bind(Op[Bound]):
    """Make a created object the replica of the next generation.

    Compare-and-swap on ``generation``: the loser is ``beaten``. So is, as ``fenced``, a worker
    whose ``turn`` has been taken over: what it sends next nobody would know of. An id that is
    bound already is never bound again. The handle it replaces is marked lost (or, ``orphan``, may
    still exist). ``body`` is the object as it was created, ``recovery`` is recorded, both with the
    winner. ``intent`` is done with either way. A thread is ``behind`` where the log has more than
    ``primed_through`` and the ``turn``'s own items, or begins before ``primed_from``.
    ``doubtful``: it replaces one for the doubt about it alone; where somebody has settled that
    meanwhile it is ``beaten``.
    """

    tenant: str
    upstream: str
    dialect: Dialect
    conversation: int
    generation: int
    handle: str
    intent: str
    primed_through: int
    primed_from: int | None = None
    turn: TurnKey | None = None
    lost: str | None = None
    orphan: bool = False
    doubtful: bool = False
    recovery: Recovery | None = None
    body: bytes = b""


@value
class BindNew(Op[Bound]):
    """Enter a replica that the app itself has just created, with its first items.

    ``intent`` is done with either way. ``beaten`` where ``subject`` has a live replica of this
    dialect. ``primed_through``: how much of the subject's log the object was created with;
    ``recovery`` is recorded, where it is bound to that.
    """

    tenant: str
    upstream: str
    dialect: Dialect
    handle: str
    items: tuple[NewItem, ...]
    body: bytes
    intent: str
    subject: str | None = None
    primed_through: int = 0
    recovery: Recovery | None = None


@value
class Refresh(Op[None]):
    """Keep a conversation's or thread's own object, or a run, as it was just shown.

    One whose turn has its answer is that answer from then on.
    """

    tenant: str
    upstream: str
    handle: str
    body: bytes


@value
class MarkLost(Op[None]):
    """Note that a handle is dead, so that its next use costs no failing call."""

    tenant: str
    upstream: str
    handle: str


@value
class Discard(Op[None]):
    """Note a remote object that is not wanted: an orphan.

    ``replica``: it has been the replica, which is lost from now on. Where it is lost already,
    whoever saw to that has noted what there was to note.
    """

    tenant: str
    upstream: str
    dialect: Dialect
    conversation: int
    handle: str
    replica: bool = False


@value
class Retire(Op[None]):
    """Take a handle, and with it its conversation's replica, out of use: deleted through us.

    A live replica that has another id becomes an orphan too.
    """

    tenant: str
    upstream: str
    handle: str


@value
class Tombstone(Op["Removed"]):
    """Mark one item as deleted through us: never primed, listed or exported again.

    "there": the replica is the app's own object, to be told to delete it too. "replaced": it is
    not, or is lost, so another will be made without the item; what is under way to replace it may
    have read the item and will not be bound. ``gone``: the object that was told, and is not there
    any more. "before": it was deleted before. "unknown": the log has no such item; while older
    history is being adopted it never gets it.
    """

    tenant: str
    upstream: str
    conversation: int
    provider_id: str
    gone: str | None = None


Removed: TypeAlias = Literal["there", "replaced", "before", "unknown"]


@value
class Orphan:
    """A remote object that may exist and is no longer wanted."""

    key: int
    upstream: str
    dialect: Dialect
    handle: str


@value
class Orphans(Op["tuple[Orphan, ...]"]):
    """Read orphans of one upstream that are still to be deleted, oldest first.

    A conversation that was in use only once it has been given up for ``settled_seconds``: it is not
    gone all at once.
    """

    tenant: str
    upstream: str
    limit: int
    settled_seconds: float = 0.0


@value
class OrphanGone(Op[None]):
    """Note that an orphan's delete was confirmed."""

    tenant: str
    key: int


@value
class Leftovers(Op["LeftBehind"]):
    """Count what is still to be deleted at an upstream (None: at all of them)."""

    tenant: str
    upstream: str | None = None


@value
class LeftBehind:
    """``orphans`` are to be deleted; of ``creates`` it was never learnt what became of them."""

    orphans: int
    creates: int


@value
class Throttle(Op[None]):
    """Note that an upstream wants no request for so many seconds; the later end counts."""

    tenant: str
    upstream: str
    seconds: float


@value
class Throttled(Op[float]):
    """Read for how many seconds an upstream still wants no request; 0: none."""

    tenant: str
    upstream: str


@value
class Unused(Op[int]):
    """Erase conversations of one turn that nobody continued within ``idle_seconds``.

    Only those begun by a call without a handle or a subject, without a branch or a pinned fact,
    ``limit`` of them at most; returns how many. Their handles are forgotten: the provider's own
    retention has ended them.
    """

    tenant: str
    upstream: str
    idle_seconds: float
    limit: int
