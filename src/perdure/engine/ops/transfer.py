"""The store operation that brings in conversations from elsewhere."""

from __future__ import annotations

from typing import Literal

from perdure.flow import Op
from perdure.model import Dialect, NewItem, value


@value
class BringIn(Op["BroughtIn"]):
    """Enter a portion of a conversation that comes from elsewhere; the first one begins it.

    - A handle never seen, with a first portion (``behind`` 0), begins a conversation: with
      ``facts``, and ``subject``'s unless that one has a conversation already. Its replica counts as
      lost, so its first turn rebuilds it at no failing call.
    - Items are entered only where the log ends at ``behind`` and has no turn yet, all of them or
      none. So a portion is there once, however often and by however many it is brought in, and
      never behind what was said since.
    - The replica of a conversation that was here before, and now has items that it does not know,
      counts as lost as well.
    """

    tenant: str
    upstream: str
    dialect: Dialect
    handle: str
    items: tuple[NewItem, ...]
    behind: int
    subject: str | None = None
    facts: tuple[str, ...] = ()


@value
class BroughtIn:
    """What :class:`BringIn` came to, and how many items the log has now.

    ``foreign``: the handle belongs to another tenant. ``conversation`` is 0 where there is none.
    ``subject_taken``: the conversation was begun, and is not its subject's, who has one already.
    """

    outcome: Literal["entered", "known", "foreign"]
    conversation: int = 0
    items: int = 0
    subject_taken: bool = False
