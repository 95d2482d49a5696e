"""Choosing: which turns go into a prime, as many as the budget holds.

A turn is chosen whole or not at all: a question without its answer, or a call without its output,
is worse than neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from perdure.model import value

_SILENCE_SECONDS: Final = 3600.0  # after which whoever speaks begins anew
_BREVITY: Final = 0.3  # of two turns that matter as much, the shorter one


class Item(Protocol):
    """What grouping looks at."""

    @property
    def position(self) -> int: ...  # noqa: D102
    @property
    def role(self) -> str | None: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def created_at(self) -> float: ...  # noqa: D102
    @property
    def call_id(self) -> str | None: ...  # noqa: D102


I = TypeVar("I", bound=Item)  # noqa: E741


@value
class Candidate:
    """A turn that could be chosen: its number among them, its worth, its cost.

    ``detached``: it does not follow directly on the candidate before it.
    """

    number: int
    worth: float
    tokens: int
    detached: bool


def turns(items: Sequence[I]) -> list[list[I]]:
    """Group items, in the order of the log, into exchanges: from one question to the next.

    Calls, outputs and answers stay with the message that led to them; so does what follows a
    silence, unless it is a message of its own.
    """
    groups: list[list[I]] = []
    for item in items:
        if not groups or _begins(item, groups[-1]):
            groups.append([])
        groups[-1].append(item)
    return groups


def _begins(item: Item, group: Sequence[Item]) -> bool:
    if item.kind != "message":
        return False
    last = group[-1]
    if item.created_at - last.created_at > _SILENCE_SECONDS:
        return True
    if item.role == "assistant" or (last.kind, last.role) == ("message", item.role):
        return False
    return last.role == "assistant" or not _open_calls(group)


def _open_calls(group: Sequence[Item]) -> bool:
    """Whether a call in a group waits for its output."""
    waiting: set[str | None] = set()
    for item in group:
        if item.call_id is not None:
            waiting ^= {item.call_id}  # the call opens it, the output closes it
    return bool(waiting)


def choose(candidates: Sequence[Candidate], budget: int, mark_tokens: int) -> list[int]:
    """Return the numbers of the candidates worth most that fit the budget, in order.

    Where something is left out before one, or behind the last, a mark costs ``mark_tokens``.
    """
    order = sorted(candidates, key=lambda one: (-one.worth / one.tokens**_BREVITY, -one.number))
    taken = [False] * (len(candidates) + 1)
    left = budget - mark_tokens
    for one in order:
        following = one.number + 1
        joined = one.number > 0 and taken[one.number - 1] and not one.detached
        joins = taken[following] and not candidates[following].detached
        cost = one.tokens + mark_tokens * (1 - joined - joins)
        if cost <= left:
            left -= cost
            taken[one.number] = True
    return [one.number for one in candidates if taken[one.number]]
