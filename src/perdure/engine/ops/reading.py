"""Store operations that read the log, and that add what a provider showed."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from perdure.flow import Op
from perdure.model import (
    NewItem,
    Remembered,
    Replica,
    Snapshot,
    StoredAnswer,
    StoredItem,
    TurnKey,
    value,
)

ANY: Final = ""  # of the JSON of an item, see History


@value
class Find(Op["Found | None"]):
    """Look a handle up; None where it was never seen here."""

    tenant: str
    upstream: str
    handle: str


@value
class Found:
    """What a handle points to.

    ``answer`` is the stored object of a response, run, conversation or thread as the app last
    saw it. ``ended`` says that a turn has its final answer. ``unread`` is the run whose messages
    are still to be read, ``unread_ended`` whether it is known to have ended. ``remembered`` is what
    the history must amount to for a call that continues from here.
    """

    conversation: int
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
    first_position: int = 1
    last_position: int = 0
    unread: str | None = None
    unread_ended: bool = False
    remembered: Remembered | None = None


@value
class History(Op["Span"]):
    """Read the newest items up to ``through`` that fit ``budget_tokens``, oldest first.

    Follows a branch to its origin; leaves out tombstoned and withdrawn items. ``wire``: those
    items bring along the JSON that was sent or received in which this text stands ("": in any);
    without it, or where it does not, that is not read, and is empty.
    """

    tenant: str
    conversation: int
    through: int
    budget_tokens: int
    wire: str | None = None


@value
class Span:
    """A stretch of the log, the number of items older than it, and the pinned facts.

    ``complete`` is False while the history before the first journalled item is unknown.
    ``snapshot`` is the newest summary of what stands before the end of the stretch.
    """

    items: tuple[StoredItem, ...]
    older: int
    milestones: tuple[str, ...]
    complete: bool
    snapshot: Snapshot | None = None


@value
class Page(Op["Listing"]):
    """Read one page of a conversation's items as a provider would list them.

    It follows on ``after``, a provider's id. ``above`` and ``below`` are positions in the log: only
    what stands between them is listed. ``turn_response``: only the items of its turn, and
    (``inputs``) of these only what it was asked.
    """

    tenant: str
    conversation: int
    newest_first: bool
    limit: int
    after: str | None = None
    above: int | None = None
    below: int | None = None
    turn_response: str | None = None
    inputs: bool = False


@value
class Listing:
    """One page of items; ``cursor_found`` is False where ``after`` names no item here."""

    items: tuple[StoredItem, ...]
    has_more: bool
    cursor_found: bool = True


@value
class OneItem(Op["StoredItem | None"]):
    """Read a single item by its provider's id, of one conversation or (None) of any."""

    tenant: str
    conversation: int | None
    provider_id: str


@value
class Runs(Op["tuple[SeenRun, ...]"]):
    """Read a conversation's runs, each under the id that it has now.

    ``above`` and ``below`` are numbers of turns: only what stands between them is listed.
    """

    tenant: str
    upstream: str
    conversation: int
    newest_first: bool
    limit: int
    above: int | None = None
    below: int | None = None


@value
class SeenRun:
    """A run as the app last saw it; ``ended`` says that its turn has its final answer."""

    run_id: str
    ended: bool
    body: bytes


#: ``apart``: the items do not join on to the log. ``replaced``: they are of a thread whose place
#: another one has taken: nothing is entered, since they do not tell what that one was told.
Learnt: TypeAlias = Literal["done", "apart", "replaced"]


@value
class Learn(Op[Learnt]):
    """Add items read from the provider, oldest first, that the log does not have yet.

    ``whole``: they reach back to the start or follow a known item directly; while older history is
    still to be adopted, what a run of the log said first is taken for that. ``named`` are items
    that the log has already, by their position, each with the provider's id and form of it;
    ``older``: so many of ``items`` stand before the first of these. Of what stands before the
    first that the log has, only what its runs said is entered: a message may come between.
    ``said_by`` are the runs that said the items: what was shown of such a message before is
    withdrawn, and nothing is entered from the first one on that a run said of which it is not known
    yet which turn it belongs to, or which is being begun again. ``read`` is a run that says no more
    for now and whose messages are all here. ``since_outputs`` is one that said these since it got
    those of its tools: ``apart`` where what it said before is still to be read. ``generation`` is
    that of the thread they were read from.
    ``done``: the log has everything up to the newest of them, or up to where nothing is entered.
    """

    tenant: str
    conversation: int
    items: tuple[NewItem, ...]
    whole: bool
    named: tuple[tuple[int, str, str], ...] = ()
    said_by: tuple[str | None, ...] = ()
    read: str | None = None
    generation: int | None = None
    older: int = 0
    since_outputs: str | None = None


@value
class Adopting(Op["str | None"]):
    """Take up an adoption that nobody is at, for so long; returns the handle to copy from.

    None where there is none, or somebody else has taken it up.
    """

    tenant: str
    conversation: int
    lease_seconds: float = 60.0


@value
class Adopted(Op[None]):
    """Add history older than everything in the log, newest first; ``done`` ends the adoption.

    One that is not done is somebody's for another ``lease_seconds``. ``given_up``: nothing more can
    be had, so nobody takes it up again, and the history stays incomplete. A replica that was
    rebuilt meanwhile lacks what is added: it is lost, or doubtful where it is shared.
    """

    tenant: str
    conversation: int
    items: tuple[NewItem, ...]
    done: bool
    given_up: bool = False
    lease_seconds: float = 60.0
