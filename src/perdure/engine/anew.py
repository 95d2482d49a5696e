"""Creating an object anew: with what the lost one had, and without what is gone as well.

A thread names files and vector stores, in its messages and in its own tool resources, and those die
by themselves: a thread's vector store after seven idle days, a file on its date. A create that
names one of them is refused whole, so it is sent again without.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from perdure.dialects.items import dumps
from perdure.dialects.verdicts import fault_of, judge
from perdure.engine.ops import Answer
from perdure.engine.wire import Call, Created, Wire
from perdure.flow import Flow
from perdure.model import Dialect, StoredAnswer, value

_IMAGES: Final = frozenset({"image_file", "image_url"})
_ID_LISTS: Final = ("file_ids", "vector_store_ids")
_BAD_REQUEST: Final = 400
_NOT_FOUND: Final = 404


@value
class Given:
    """What an object is created with: its metadata, and a thread's resources and messages."""

    metadata: dict[str, str]
    resources: dict[str, Any]
    messages: list[dict[str, Any]]

    def body(self) -> bytes:
        """Return the body of the create."""
        members = {
            "metadata": self.metadata,
            "tool_resources": self.resources,
            "messages": self.messages,
        }
        return dumps({name: member for name, member in members.items() if member}).encode()


@value
class Anew:
    """The answer to a create and what it was given; ``left_out`` counts what it was not."""

    created: Created
    given: Given
    left_out: int


def given_of(known: StoredAnswer | None, dialect: Dialect, messages: list[dict[str, Any]]) -> Given:
    """Return what a new object is created with so that it has what the app saw last."""
    shown = _object(known)
    resources = _object_in(shown, "tool_resources") if dialect == "threads" else {}
    return Given(
        metadata=_object_in(shown, "metadata"),
        resources={
            tool: {name: ids for name, ids in _object_in(resources, tool).items() if ids}
            for tool in resources
            if _object_in(resources, tool)
        },
        messages=messages,
    )


def _object(known: StoredAnswer | None) -> dict[str, Any]:
    """Return an object as it was shown; what another server calls one may be anything."""
    try:
        shown = json.loads(known.body) if known is not None else None
    except ValueError:
        shown = None
    return shown if isinstance(shown, dict) else {}


def _object_in(members: dict[str, Any], name: str) -> dict[str, Any]:
    member = members.get(name)
    return member if isinstance(member, dict) else {}


def create_anew(
    wire: Wire,
    dialect: Dialect,
    conversation: int,
    given: Given,
    send: Callable[[Given], Flow[Answer]],
) -> Flow[Anew]:
    """Send a create; where it is refused for what it names, again without that.

    First without what the refusal itself names, then without any file, store or image. Costs one
    request, and one more for each of these.
    """
    left_out, chosen = 0, False
    while True:
        created = yield from wire.creating(dialect, conversation, send(given))
        gone = _gone(wire.call, dialect, given, created.answer, chosen=chosen)
        lighter = given if gone is None else _without(given, gone)
        fewer = len(_references(given)) - len(_references(lighter))
        if not fewer:
            return Anew(created, given, left_out)
        given, chosen = lighter, True
        left_out += fewer


def _gone(
    call: Call, dialect: Dialect, given: Given, answer: Answer, *, chosen: bool
) -> Callable[[str], bool] | None:
    """Return which references a refused create is sent without; None where that cannot help.

    ``chosen``: those that the refusal names have been left out already.
    """
    if answer.status not in {_BAD_REQUEST, _NOT_FOUND}:
        return None
    fault = fault_of(answer.status, answer.body)
    judgement = judge(fault, dialect, None, call.rules)
    named = {one for one in _references(given) if one in fault.message}
    if named and not chosen:
        return named.__contains__
    about_files = judgement.verdict == "file_gone"
    if about_files and judgement.item is not None and not named:
        return None  # one that the app names itself: it is to know of it
    if about_files or (answer.status == _BAD_REQUEST and not judgement.retired):
        return lambda _one: True
    return None


def _without(given: Given, gone: Callable[[str], bool]) -> Given:
    """Leave references out, and messages and resources of which nothing is left."""
    messages = [_message_without(message, gone) for message in given.messages]
    return Given(
        metadata=given.metadata,
        resources=_resources_without(given.resources, gone),
        messages=[message for message in messages if message["content"]],
    )


def _message_without(message: dict[str, Any], gone: Callable[[str], bool]) -> dict[str, Any]:
    lighter = dict(message)
    attachments = lighter.pop("attachments", [])
    kept = [one for one in attachments if not gone(one["file_id"])]
    if kept:
        lighter["attachments"] = kept
    if isinstance(message["content"], list):
        lighter["content"] = [
            part for part in message["content"] if not _is_image(part) or not gone(_source(part))
        ]
    return lighter


def _resources_without(resources: dict[str, Any], gone: Callable[[str], bool]) -> dict[str, Any]:
    lighter: dict[str, Any] = {}
    for tool, lists in resources.items():
        kept: dict[str, Any] = {
            name: [one for one in lists.get(name) or () if not gone(one)] for name in _ID_LISTS
        }
        kept["vector_stores"] = [
            {**store, "file_ids": [one for one in store.get("file_ids") or () if not gone(one)]}
            for store in lists.get("vector_stores") or ()
        ]
        if any(kept.values()):
            lighter[tool] = {name: ids for name, ids in kept.items() if ids}
    return lighter


def _references(given: Given) -> list[str]:
    """Return what a create names: files, stores and images, by id or URL."""
    found: list[str] = []
    for message in given.messages:
        found += (one["file_id"] for one in message.get("attachments") or ())
        parts = message["content"] if isinstance(message["content"], list) else ()
        found += (_source(part) for part in parts if _is_image(part))
    for lists in given.resources.values():
        for held in (lists, *(lists.get("vector_stores") or ())):
            found += (one for name in _ID_LISTS for one in held.get(name) or ())
    return found


def _is_image(part: dict[str, Any]) -> bool:
    return part["type"] in _IMAGES


def _source(part: dict[str, Any]) -> str:
    image: dict[str, str] = part[part["type"]]
    return image.get("file_id") or image.get("url") or ""
