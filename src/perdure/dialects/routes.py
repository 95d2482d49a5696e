"""Routes: which of a provider's paths carry a conversation, as one table."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Literal, TypeAlias
from urllib.parse import quote

from perdure.model import Dialect, value

Action: TypeAlias = Literal[
    "respond",  # a model call whose input and output enter the log
    "measure",  # a call with the same body that leaves nothing behind (token count, compaction)
    "create",  # makes a replica
    "append",  # adds items without a model call
    "run",  # a thread's model call
    "create_run",  # makes a thread and runs it in one call
    "submit",  # tool outputs for a run
    "cancel",
    "read",  # one object
    "list",  # a page of objects
    "update",  # metadata
    "delete",
]


#: What a request about threads has to say, whatever the app was asking for itself.
THREADS_HEADER: Final = ("openai-beta", "assistants=v2")
_DIGITS: Final = 18


@value
class Route:
    """A request recognised: its API, what it does, and the ids that its path carries.

    ``base`` is the path in front of the API; ``handle`` the replica's id; ``part`` what follows
    it (``items``, ``messages``, ``runs``); ``child`` the id below that, ``detail`` what is below
    the child.
    """

    dialect: Dialect
    action: Action
    base: str
    handle: str | None = None
    part: str | None = None
    child: str | None = None
    detail: str | None = None


_TABLE: Final[tuple[tuple[str, str, Dialect, Action], ...]] = (
    ("POST", "/responses", "responses", "respond"),
    ("POST", "/responses/(?P<part>input_tokens|compact)", "responses", "measure"),
    ("GET", "/responses/{handle}", "responses", "read"),
    ("DELETE", "/responses/{handle}", "responses", "delete"),
    ("POST", "/responses/{handle}/cancel", "responses", "cancel"),
    ("GET", "/responses/{handle}/(?P<part>input_items)", "responses", "list"),
    ("POST", "/conversations", "conversations", "create"),
    ("GET", "/conversations/{handle}", "conversations", "read"),
    ("POST", "/conversations/{handle}", "conversations", "update"),
    ("DELETE", "/conversations/{handle}", "conversations", "delete"),
    ("POST", "/conversations/{handle}/(?P<part>items)", "conversations", "append"),
    ("GET", "/conversations/{handle}/(?P<part>items)", "conversations", "list"),
    ("GET", "/conversations/{handle}/(?P<part>items)/{child}", "conversations", "read"),
    ("DELETE", "/conversations/{handle}/(?P<part>items)/{child}", "conversations", "delete"),
    ("POST", "/threads", "threads", "create"),
    ("POST", "/threads/runs", "threads", "create_run"),
    ("GET", "/threads/{handle}", "threads", "read"),
    ("POST", "/threads/{handle}", "threads", "update"),
    ("DELETE", "/threads/{handle}", "threads", "delete"),
    ("POST", "/threads/{handle}/(?P<part>messages)", "threads", "append"),
    ("GET", "/threads/{handle}/(?P<part>messages)", "threads", "list"),
    ("GET", "/threads/{handle}/(?P<part>messages)/{child}", "threads", "read"),
    ("POST", "/threads/{handle}/(?P<part>messages)/{child}", "threads", "update"),
    ("DELETE", "/threads/{handle}/(?P<part>messages)/{child}", "threads", "delete"),
    ("POST", "/threads/{handle}/(?P<part>runs)", "threads", "run"),
    ("GET", "/threads/{handle}/(?P<part>runs)", "threads", "list"),
    ("GET", "/threads/{handle}/(?P<part>runs)/{child}", "threads", "read"),
    ("POST", "/threads/{handle}/(?P<part>runs)/{child}", "threads", "update"),
    ("POST", "/threads/{handle}/(?P<part>runs)/{child}/cancel", "threads", "cancel"),
    ("POST", "/threads/{handle}/(?P<part>runs)/{child}/submit_tool_outputs", "threads", "submit"),
    ("GET", "/threads/{handle}/(?P<part>runs)/{child}/(?P<detail>steps.*)", "threads", "list"),
)

# Whatever stands in front is the provider's base path, but for two that only look like one: ChatKit
# keeps threads of its own, and an Azure deployment may be called "threads".
_BASE: Final = r"(?P<base>.*?)(?<!/chatkit)(?<!/deployments)"
_ID: Final = r"[^/]+"
_COMPILED: Final = tuple(
    (
        method,
        re.compile(
            _BASE
            + path.replace("{handle}", f"(?P<handle>{_ID})").replace("{child}", f"(?P<child>{_ID})")
        ),
        dialect,
        action,
    )
    for method, path, dialect, action in _TABLE
)


@lru_cache(maxsize=1024)
def route(method: str, path: str) -> Route | None:
    """Return what a request is about, or None where no conversation is involved."""
    path = path.rstrip("/")  # many frameworks take both spellings, or redirect to that one
    for wanted, pattern, dialect, action in _COMPILED:
        if wanted == method and (match := pattern.fullmatch(path)):
            return Route(dialect, action, **match.groupdict())
    return None


def number_in(text: str, otherwise: int) -> int:
    """Return the number that a request names; a huge one as one that is beyond all bounds too."""
    digits = text.lstrip("0")[:_DIGITS] or "0"
    return int(digits) if text.isascii() and text.isdigit() else otherwise


def escaped(one: str) -> str:
    """Return an id as a part of a path or query: it may hold anything, and must not lead away."""
    return quote(one, safe="") if one.strip(".") else one.replace(".", "%2E")


def path_to(dialect: Dialect, *parts: str | None) -> str:
    """Return the path of an API's object, by its id and the parts and ids that follow it."""
    return "/".join(("", dialect, *(escaped(part or "") for part in parts)))
