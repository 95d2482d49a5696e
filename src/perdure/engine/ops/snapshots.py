"""Store operations on snapshots: summaries, derived from the log and deletable at will."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from perdure.flow import Op
from perdure.model import Snapshot, value


@value
class KeepSnapshot(Op[None]):
    """Keep a summary of a conversation's log; one through the same position is replaced.

    Nothing is kept where the conversation is not there any more, or ``items`` of it do not stand
    through that position any more: one of them was deleted while the summary was being written.
    """

    tenant: str
    conversation: int
    snapshot: Snapshot


@value
class DropSnapshots(Op[int]):
    """Delete a conversation's summaries, and those of its branches; returns how many."""

    tenant: str
    conversation: int


@value
class Unsummarised(Op[tuple[tuple[int, int], ...]]):
    """Find conversations with at least ``least`` positions since their newest summary.

    Returns each with its last position, ``limit`` of them at most, those after the conversation
    ``after``.
    """

    tenant: str
    least: int
    limit: int
    after: int = 0


@value
class Summarise(Op[str]):
    """Let the owner's own function write a summary, of the previous one and what came after it."""

    call: Callable[[str, str], str | Awaitable[str]]
    previous: str
    transcript: str
