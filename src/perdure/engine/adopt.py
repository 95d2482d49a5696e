"""Adoption: copying the history that the provider still shows of a handle first seen today.

It is background work, and nobody waits for it: one worker at a time is at it, for as long as its
lease lasts, and what a worker that died has left is taken up by a later turn. It goes on from the
oldest item that the log has.
"""

from __future__ import annotations

import json
from typing import Any, Final

from perdure.dialects import items as item_forms
from perdure.dialects.body import objects_in
from perdure.dialects.messages import from_thread_message
from perdure.dialects.routes import escaped, path_to
from perdure.dialects.shapes import Shape, is_object, is_page
from perdure.dialects.verdicts import fault_of, judge
from perdure.engine.collapse import collapse_of, tell_of_collapse
from perdure.engine.decoding import decoded
from perdure.engine.ending import kept
from perdure.engine.ops import (
    Adopted,
    Adopting,
    Answer,
    Find,
    Page,
    Refresh,
    Send,
    SendFailed,
    Spawn,
)
from perdure.engine.sameness import may_be
from perdure.engine.turns import Turn
from perdure.engine.wire import Call
from perdure.flow import Flow
from perdure.model import Dialect, NewItem, Recovery, StoredItem

_PAGE: Final = 100
_HAS_NONE: Final = frozenset({400, 404, 405, 501})  # a server without the route
_LATER: Final = frozenset({401, 403, 429})  # a key or a quota may be another tomorrow


class _Refused(Exception):
    """The provider did not show what was asked for; ``answer`` is what it said."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(answer.status)


def take_up(call: Call, dialect: Dialect, turn: Turn) -> Flow[None]:
    """Let the history before a conversation's log be copied, unless somebody is at it.

    The turn has its answer by now, so a store that fails only now must not look as if it had not.
    """
    if turn.accepted.incomplete:
        yield from take_up_again(call, dialect, turn.key.conversation)


def take_up_again(call: Call, dialect: Dialect, conversation: int) -> Flow[None]:
    """Let it be copied now that the log has ids by which older history is told from it."""
    yield from kept(_taken_up(call, dialect, conversation))


def _taken_up(call: Call, dialect: Dialect, conversation: int) -> Flow[None]:
    handle = yield from Adopting(call.tenant, conversation)
    if handle is not None:
        yield from Spawn("adopt", adopt(call, dialect, conversation, handle))


def adopt(call: Call, dialect: Dialect, conversation: int, handle: str) -> Flow[None]:
    """Copy what is older than the log, newest first; one request per page of a hundred items.

    One request more is for the object itself, which has the metadata. What a server cannot answer
    now is asked for by a later turn; what it refuses for good leaves the memory partial.
    """
    try:
        if dialect == "responses":
            yield from _chain(call, conversation, handle)
            return
        known = yield from Find(call.tenant, call.upstream, handle)
        if known is not None and known.answer is None:
            shown = yield from Send("GET", path_to(dialect, handle), None, own=True)
            _decoded(shown, is_object)
            yield from Refresh(call.tenant, call.upstream, handle, shown.body)
        looked = yield from _oldest(call, conversation)
        while not (yield from _pages(call, dialect, conversation, handle, *looked)):
            # Who knows the id of what is newer takes this up; perhaps it was entered meanwhile.
            yield from Adopted(call.tenant, conversation, (), done=False, lease_seconds=0.0)
            before, looked = looked, (yield from _oldest(call, conversation))
            if before == looked or (yield from Adopting(call.tenant, conversation)) is None:
                return
    except SendFailed:
        return
    except _Refused as refused:
        verdict = judge(
            fault_of(refused.answer.status, refused.answer.body), dialect, handle, call.rules
        ).verdict
        if verdict != "ambiguous" and refused.answer.status not in _LATER:
            yield from Adopted(call.tenant, conversation, (), done=False, given_up=True)


def _pages(
    call: Call,
    dialect: Dialect,
    conversation: int,
    handle: str,
    oldest: StoredItem | None,
    unnamed: tuple[StoredItem, ...],
) -> Flow[bool]:
    """Copy what is older than the log; False where something newer stands in front of that.

    ``oldest`` and those before it, which have no id, are what :func:`_oldest` returns.
    """
    list_path = path_to(dialect, handle, "items" if dialect == "conversations" else "messages")
    make = item_forms.new_item if dialect == "conversations" else from_thread_message
    own = list(unnamed)
    before = oldest.provider_id if oldest is not None else None
    taken_up = oldest is not None and oldest.position < 1
    while True:
        answer = yield from Send("GET", _list(list_path, before), None, own=True)
        if taken_up and not answer.ok:
            yield from _without_its_cursor(call, conversation, handle, list_path, answer)
        page = _decoded(answer, is_page)
        listed = page.get("data") or []
        said = 0 if before is not None else (yield from _said_by_runs(call, conversation, listed))
        unplaced = before is None and bool(own)
        older = _before(own, listed[said:])
        if unplaced and listed and len(older) == len(listed) - said:
            return False
        items = tuple(make(item) for item in older)
        done = not page.get("has_more") or not listed
        yield from Adopted(call.tenant, conversation, items, done)
        if done:
            return True
        before = page.get("last_id") or listed[-1]["id"]


def _list(path: str, after: str | None = None) -> str:
    cursor = f"&after={escaped(after)}" if after else ""
    return f"{path}?order=desc&limit={_PAGE}{cursor}"


def _said_by_runs(call: Call, conversation: int, listed: list[dict[str, Any]]) -> Flow[int]:
    """Return how many of the newest messages the log's own runs have said: they are not older."""
    own: set[str] = set()
    for place, message in enumerate(listed):
        run_id = message.get("run_id") if message.get("role") == "assistant" else None
        if run_id is not None and run_id not in own:
            found = yield from Find(call.tenant, call.upstream, run_id)
            if found is not None and found.conversation == conversation:
                own.add(run_id)
        if run_id not in own:
            return place
    return len(listed)


def _oldest(
    call: Call, conversation: int
) -> Flow[tuple[StoredItem | None, tuple[StoredItem, ...]]]:
    """Return the oldest item of the log that has an id, and those before it, newest first."""
    page = yield from Page(call.tenant, conversation, newest_first=False, limit=_PAGE)
    for place, item in enumerate(page.items):
        if item.provider_id is not None:
            return item, page.items[:place][::-1]
    return None, page.items[::-1]


def _before(own: list[StoredItem], listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is listed behind the log's ``own`` items, which are used up.

    They have no ids, and not all of them have reached the provider; those that have are the newest.
    """
    sent = [json.loads(one.wire) for one in own]
    for place, shown in enumerate(listed):
        reached = next((number for number, one in enumerate(sent, 1) if may_be(one, shown)), None)
        if reached is None:
            own.clear()
            return listed[place:]
        del own[:reached], sent[:reached]
    return []


def _without_its_cursor(
    call: Call, conversation: int, handle: str, list_path: str, refusal: Answer
) -> Flow[None]:
    """Look whether an item that is not there any more is the only one."""
    found = yield from Find(call.tenant, call.upstream, handle)
    if refusal.status not in {400, 404} or found is None or found.replica.handle != handle:
        return
    answer = yield from Send("GET", _list(list_path), None, own=True)
    page = _decoded(answer, is_page)
    if page.get("has_more") is False:
        listed = page.get("data") or ()
        told = yield from collapse_of(call, conversation, found.replica, listed, requests=2)
        if isinstance(told, Recovery):
            yield from tell_of_collapse(call, found.replica, told)


def _chain(call: Call, conversation: int, handle: str | None) -> Flow[None]:
    """Walk a chain of responses back; each gives its output and its own input."""
    seen: set[str] = set()
    while handle is not None:
        answer = yield from Send("GET", path_to("responses", handle), None, own=True)
        response = _decoded(answer, is_object)
        inputs = yield from _inputs(handle)
        newest_first = [*reversed(objects_in(response.get("output"))), *inputs]
        fresh = [item for item in newest_first if item.get("id") not in seen]
        seen |= {str(item.get("id")) for item in newest_first}
        handle = response.get("previous_response_id")
        items: tuple[NewItem, ...] = item_forms.new_items(fresh)
        yield from Adopted(call.tenant, conversation, items, handle is None)


def _inputs(handle: str) -> Flow[list[dict[str, Any]]]:
    """Read what a response was asked, newest first; one request for each hundred items.

    A server that does not show it leaves the memory without; one that fails just now is asked again
    by a later turn.
    """
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        answer = yield from Send(
            "GET", _list(path_to("responses", handle, "input_items"), cursor), None, own=True
        )
        if not answer.ok and answer.status not in _HAS_NONE:
            raise _Refused(answer)
        page = _decoded(answer, is_page) if answer.ok else {}
        found += page.get("data") or []
        if not page.get("has_more") or not page.get("data"):
            return found
        cursor = str(found[-1]["id"])


def _decoded(answer: Answer, shape: Shape) -> dict[str, Any]:
    """Return what a provider shows; raises :class:`_Refused` where it is something else."""
    known, shown = decoded(answer, shape)
    if not known.ok:
        raise _Refused(known)
    return shown
