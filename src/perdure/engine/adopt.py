"""Adoption: copying the history that the provider still shows of a handle first seen today."""

from __future__ import annotations

import json
from typing import Any

from perdure.dialects import items as item_forms
from perdure.dialects.messages import from_thread_message
from perdure.engine.ops import Adopted, Answer, Refresh, Send, SendFailed
from perdure.engine.wire import Call
from perdure.flow import Flow
from perdure.model import Dialect, NewItem

_PAGE = 100


def adopt(
    call: Call,
    dialect: Dialect,
    conversation: int,
    handle: str,
    before: str | None = None,
    skip: int = 0,
) -> Flow[None]:
    """Copy the items older than ``before`` (an item id), newest first, one page per request.

    ``skip`` items directly before it belong to the turn that was journalled already. One request
    more is for the object itself, which has the metadata. A failure leaves the adoption open: what
    was copied stays, memory is at most partial until it is done.
    """
    try:
        if dialect == "responses":
            yield from _chain(call, conversation, handle)
            return
        answer = yield from Send("GET", f"/{dialect}/{handle}", None, own=True)
        if _decoded(answer) is not None:
            yield from Refresh(call.tenant, call.upstream, handle, answer.body)
        yield from _pages(call, dialect, conversation, handle, before, skip)
    except SendFailed:
        return


def _pages(
    call: Call, dialect: Dialect, conversation: int, handle: str, before: str | None, skip: int
) -> Flow[None]:
    part = "items" if dialect == "conversations" else "messages"
    make = item_forms.new_item if dialect == "conversations" else from_thread_message
    while True:
        cursor = f"&after={before}" if before else ""
        path = f"/{dialect}/{handle}/{part}?order=desc&limit={_PAGE}{cursor}"
        page = _decoded((yield from Send("GET", path, None, own=True)))
        if page is None:
            return
        listed = page.get("data") or []
        items = tuple(make(item) for item in listed[skip:])
        skip = max(0, skip - len(listed))
        done = not page.get("has_more")
        yield from Adopted(call.tenant, conversation, items, done)
        if done:
            return
        before = page.get("last_id") or listed[-1]["id"]


def _chain(call: Call, conversation: int, handle: str | None) -> Flow[None]:
    """Walk a chain of responses back; each gives its output and its own input."""
    seen: set[str] = set()
    while handle is not None:
        response = _decoded((yield from Send("GET", f"/responses/{handle}", None, own=True)))
        if response is None:
            return
        inputs = yield from _inputs(handle)
        newest_first = [*reversed(response.get("output") or []), *inputs]
        fresh = [item for item in newest_first if item.get("id") not in seen]
        seen |= {str(item.get("id")) for item in newest_first}
        handle = response.get("previous_response_id")
        items: tuple[NewItem, ...] = item_forms.new_items(fresh)
        yield from Adopted(call.tenant, conversation, items, handle is None)


def _inputs(handle: str) -> Flow[list[dict[str, Any]]]:
    """Read what a response was asked, newest first; one request for each hundred items."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        path = f"/responses/{handle}/input_items?order=desc&limit={_PAGE}{cursor}"
        page = _decoded((yield from Send("GET", path, None, own=True))) or {}
        found += page.get("data") or []
        if not page.get("has_more") or not page.get("data"):
            return found
        cursor = f"&after={found[-1]['id']}"


def _decoded(answer: Answer) -> dict[str, Any] | None:
    if not answer.ok:
        return None
    value = json.loads(answer.body)
    return value if isinstance(value, dict) else None
