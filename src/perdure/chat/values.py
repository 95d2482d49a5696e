"""What a chat gives its caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

from perdure.model import Recovery, value

Via: TypeAlias = Literal["responses", "conversations", "threads"]
#: A message: plain text, one item, or several (messages, tool outputs) in Responses form.
Message: TypeAlias = str | dict[str, Any] | Sequence[dict[str, Any]]


@value
class ToolCall:
    """A function that the model wants called; answer it with ``output``."""

    call_id: str
    name: str
    arguments: str

    def output(self, value: str) -> dict[str, Any]:
        """Return the item that carries this call's result, for the next ``send``."""
        return {"type": "function_call_output", "call_id": self.call_id, "output": value}


@value
class Reply:
    """One answered turn.

    ``recovery`` is set when the provider's copy was rebuilt on the way and says how much the new
    one knows. ``response`` is the SDK's own object (a response, or the run of a thread) and
    ``usage`` its usage. ``seq`` is the turn's number in its conversation.
    """

    text: str
    turn_id: str
    seq: int
    recovery: Recovery | None
    response: Any
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def usage(self) -> Any:
        """The provider's token counts for this turn."""
        return getattr(self.response, "usage", None)


@value
class Check:
    """What one retrieve said of a user's replica.

    ``handle`` is the id it had (None: nobody talked yet, nothing was asked), ``alive`` whether the
    provider still has it, ``replaced_by`` the id of the one made in its place. A chain of responses
    is replaced by the next ``send``, at no failing call.
    """

    handle: str | None
    alive: bool
    replaced_by: str | None = None


@value
class Hit:
    """A message that a search found; ``chat.history(user, before=…)`` shows what is around it."""

    position: int
    role: str
    text: str
    at: float


#: What no call of ours can erase.
OUT_OF_REACH: Final = (
    "backups and replicas of this database, by their own retention",
    "what the provider keeps for abuse monitoring, by its own retention",
    "files and vector stores: other conversations may use them",
)


@value
class Receipt:
    """What ``forget`` erased, place by place.

    Here: ``conversations``, with their branches, and of these ``items``, ``turns``, ``milestones``,
    ``snapshots`` and ``indexed`` entries of the search index; on SQLite the file's free pages are
    overwritten and the log is cut. At the provider: ``items_deleted`` of conversations (deleting
    one leaves its items), then the objects themselves, of which it confirmed ``deleted`` and not
    ``not_deleted`` (``perdure sweep`` tries these again). ``out_of_reach`` says what stays.
    """

    conversations: int
    items: int
    turns: int
    milestones: int
    snapshots: int
    indexed: int
    items_deleted: int
    deleted: tuple[str, ...]
    not_deleted: tuple[str, ...]
    out_of_reach: tuple[str, ...]
