"""Store operations on turns: accepted, completed, noted as underway, failed."""

from __future__ import annotations

from typing import Literal, TypeAlias

from perdure.flow import Op
from perdure.model import (
    Dialect,
    NewItem,
    Recovery,
    Remembered,
    Replica,
    StoredAnswer,
    StoredItem,
    TurnKey,
    TurnKind,
    value,
)

Outcome: TypeAlias = Literal[
    "deliver",  # the turn is ours to deliver, under the epoch in its key
    "wait",  # another worker delivers this turn, or one before it: ask again
    "unsettled",  # nothing journalled: what a turn ahead did to the replica comes first
    "unread",  # nothing journalled: the messages of the run in ``unread`` come first
    "answered",  # this turn has its answer, or is worked on under an id of its own: ``stored``
    "mismatch",  # the same turn id with another body
    "foreign",  # the handle belongs to another tenant
    "spoken",  # the log has what the ``lost`` run said: it is over
    "retired",  # the handle was deleted through us, or is an orphan: nothing is journalled
    "erased",  # the turn's conversation was forgotten while the turn was waited for
    "expired",  # a retry of the SDK's after the turn's deadline, or one that nobody wants
]


@value
class Accept(Op["Accepted"]):
    """Put a turn's items into the log and take the turn, before anything is sent.

    - Finds the conversation by ``handle``, by ``subject``, or makes a new one; a handle never
      seen before makes one marked adopting.
    - ``turn_id`` (the caller's own name), ``waiting_for`` or a recognised repeat (same body as the
      newest turn at that position, whose answer was not handed over) returns that turn instead of
      a second one.
    - Turns on a shared replica are delivered one at a time.
    - On a forkable replica a position that already has a live child opens a branch; on a shared
      one a turn behind another waits (``wait``), in accept order. A response that continues one of
      a conversation's is no part of that conversation: it always opens a branch.
    - ``retry``: the SDK itself repeats a call that got no answer. It may do so until
      ``deadline_seconds`` after the turn's newest first attempt (``expired`` from then on); any
      other repeat begins a new deadline. ``once``: a turn whose outcome is unknown is not
      delivered again (``expired``).
    - A turn ahead whose worker is gone, or whose outcome is unknown, makes a shared replica
      doubtful (``unsettled``, with ``turn`` naming the conversation only): it is settled, or
      replaced, before anything is entered behind it. Only the turn itself, taken again, is
      delivered with a doubtful replica.
    - A turn that is taken after others were entered goes to the end of the log, since that is
      where it stands on the replica: its items are moved there, or entered once more where an
      answer may have been made from them already.
    - On a thread the messages of an earlier run come before it (``unread``), unless that run was
      ``looked`` for just now and had not ended (empty: something else came first). So does, in a
      conversation or for a subject, the answer of a response that is made in the background, and
      of one that a chain goes on from. A handle or subject that is not known any more by then was
      forgotten meanwhile (``erased``).
    - ``lost``: this run is gone with its thread, and its turn (``waiting_for``) is taken again
      where it stands, to be run on the thread that there is now; not where the log has what it said
      (``spoken``), unless it still asks for the outputs of its tools (``interim``).
    - ``sent_ids`` are the provider's ids that the app sent with its items. On a rebuilt shared
      replica, whose conversation the app may not recognise, everything up to the last one that
      the log has is there already and is not entered again.
    - A ``deliver`` carries a new epoch: whoever held the turn before cannot write to it.
    """

    tenant: str
    upstream: str
    dialect: Dialect
    kind: TurnKind
    turn_id: str | None
    body_hash: str
    items: tuple[NewItem, ...]
    request: str
    handle: str | None = None
    subject: str | None = None
    waiting_for: TurnKey | None = None
    looked: str | None = None
    lost: str | None = None
    interim: bool = False
    sent_ids: tuple[str | None, ...] = ()
    lease_seconds: float = 60.0
    retry: bool = False
    once: bool = False
    deadline_seconds: float = 600.0

    @property
    def shared(self) -> bool:
        """Whether turns of this conversation are delivered one after another."""
        return self.dialect != "responses" or self.subject is not None


@value
class Accepted:
    """What :class:`Accept` found.

    ``through`` is the log position before this turn's items: what a prime for it must cover.
    ``handle_state`` is that of the handle sent, ``replica`` the conversation's. ``known_items``
    is how many of the items sent the log had already, ``accepted_items`` how many were entered.
    ``again``: an earlier attempt at this turn may have been carried out. ``adopting``: the handle
    was never seen before; ``incomplete``: the history before it has not been copied to its end.
    ``unread`` is a run whose messages are still to be read, ``unread_ended`` whether it is known to
    have ended; or a response that is made in the background, whose answer comes first.
    """

    outcome: Outcome
    turn: TurnKey | None = None
    through: int = 0
    handle_state: Literal["live", "lost", "none"] = "none"
    handle_age_seconds: float = 0.0
    replica: Replica | None = None
    adopting: bool = False
    incomplete: bool = False
    accepted_items: int = 0
    known_items: int = 0
    again: bool = False
    remembered: Remembered | None = None
    stored: StoredAnswer | None = None
    unread: str | None = None
    unread_ended: bool = False


Completed: TypeAlias = Literal["done", "fenced", "taken", "replaced"]


@value
class Complete(Op[Completed]):
    """Give a turn its one answer, put its items into the log and free the lease.

    ``fenced``, with nothing changed, where the turn's epoch is no longer the caller's or it has an
    answer; ``taken``, with nothing changed, where the response's id is bound to something else;
    ``replaced``, with nothing changed, where another thread has taken the place of a run's.
    ``head`` becomes the replica of a forkable conversation; ``recovery`` is recorded with it, and
    the handle ``lost`` is marked so. ``forgot`` made the answer without the history: neither that
    nor a head is gone on from, and what is shared is to be deleted. ``primed``: the shared
    replica of that generation, if it is still the one, now knows the whole log, unless something
    was answered elsewhere meanwhile, which puts a conversation in doubt; a thread that has
    taken the place of that one and was not given the turn's items is doubtful. ``own`` are the
    provider's ids of the turn's own items, each with the item as the provider shows it; those of a
    message stand behind what was learnt of the thread meanwhile. ``unread``: whether a run's
    messages are still to be read. ``remembered`` is what the next turn's history must amount to.
    ``settles``: the answer was found on the replica afterwards, so what was shown of it before is
    withdrawn; a subject's replica that has answered something else since lacks it, and is lost or
    in doubt.
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
    primed: int | None = None
    own: tuple[tuple[str, str], ...] = ()
    handle_kind: Literal["response", "run"] = "response"
    unread: bool | None = None
    settles: bool = False
    remembered: Remembered | None = None
    recovery: Recovery | None = None
    lost: str | None = None
    forgot: str | None = None


@value
class Underway(Op[bool]):
    """Note the id under which the provider works on a turn that it will answer later.

    One whose outcome was unknown is under way again. False, with nothing changed, where the turn
    is no longer the caller's or has ended, and where another id than the one that is known comes
    from who has no lease any more. ``body`` is what the app was shown of it. An id under
    which it was worked on before leads to this one from now on. ``generation`` is that of the
    thread on which a run goes on: its messages are read from no other, and a thread that has taken
    its place and was not given the run's own items is doubtful. These stand behind what was learnt
    of the thread meanwhile. ``partial`` items were shown of it before its stream was cut; each is
    a part of the message in ``partial_of``, not kept where the log has that, and until it has.

    ``outputs_of``: the calls whose outputs a run is being given, unless somebody has its lease;
    what it said before is not its answer, and what it says from now on is unread. Where they are
    the last ones given, the first time counts. ``refused``: those of which they were not taken, so
    it says no more; False where they were given more than once, and another may have given them.
    ``unasked``: nobody saw it ask for them, so others than the last ones given are let be (False).
    ``waits_for``: those whose outputs it asks for. Asked for once more, the same ones may be on
    their way, so it is kept as it was. ``recovery`` and ``lost`` are what :class:`Complete`
    has of a replica that was rebuilt for a response in the background.
    """

    tenant: str
    upstream: str
    turn: TurnKey
    response_id: str
    body: bytes
    generation: int | None = None
    partial: tuple[NewItem, ...] = ()
    partial_of: tuple[str, ...] = ()
    waits_for: str | None = None
    outputs_of: str | None = None
    refused: str | None = None
    unasked: bool = False
    recovery: Recovery | None = None
    lost: str | None = None


@value
class Fail(Op[bool]):
    """End a turn without an answer.

    ``unknown``: the provider may have done the work. ``withdrawn``: its items are not part of
    the conversation (refused, or not sent at all), unless something of an answer was shown before
    or a thread was given them meanwhile. ``partial`` items were shown before the cut.
    """

    tenant: str
    turn: TurnKey
    state: Literal["failed", "unknown"]
    reason: str
    withdrawn: bool = False
    partial: tuple[NewItem, ...] = ()


@value
class Renew(Op[None]):
    """Put off the end of the leases of turns that a worker is still at; ended ones are let be."""

    tenant: str
    turns: tuple[TurnKey, ...]
    lease_seconds: float


@value
class Unsettled(Op["Doubt"]):
    """Read the turns of a conversation whose outcome is unknown.

    ``asking`` is the number of one that has been taken again meanwhile, or 0.
    """

    tenant: str
    conversation: int
    asking: int


@value
class UnsettledTurn:
    """A turn that the provider may have carried out: how it was asked, with which items."""

    key: TurnKey
    kind: TurnKind
    request: str
    items: tuple[StoredItem, ...]


@value
class Doubt:
    """Turns whose outcome is unknown, in the order of the log, and where they would stand.

    ``after`` is the newest id before them that the provider itself has given out; where there is
    none, ``skip`` items stand before them, or an unknown number (None).
    """

    turns: tuple[UnsettledTurn, ...]
    after: str | None
    skip: int | None


@value
class Settle(Op[None]):
    """End the doubt about a replica: all its turns were found on it.

    Nothing happens where the replica is no longer of that ``generation``, another turn's outcome is
    unknown, or it lacks history that was adopted after it had been rebuilt.
    """

    tenant: str
    conversation: int
    generation: int
