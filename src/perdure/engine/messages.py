"""Thread messages on their way into the log, and the end of the runs that said them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from perdure.dialects import items as item_forms
from perdure.dialects.messages import from_thread_message
from perdure.dialects.verdicts import Judgement
from perdure.engine.collapse import collapse_of, give_up
from perdure.engine.ops import (
    Answer,
    Complete,
    Find,
    Found,
    Learn,
    MarkLost,
    Page,
    SendFailed,
)
from perdure.engine.wire import Call, Wire
from perdure.flow import Flow
from perdure.model import NewItem, StoredItem, TurnKey

ENDED: Final = {"completed", "incomplete", "failed", "cancelled", "expired"}
_PAGE: Final = 100
_NEWEST: Final = 20


def catch_up(wire: Wire) -> Flow[None]:
    """Read the messages of a run that the app has not read: the only extra healthy call.

    Before a turn is accepted, so that the log keeps the order in which things were said.
    """
    call = wire.call
    found = yield from Find(call.tenant, call.upstream, call.route.handle or "")
    if found is None or found.foreign:
        return
    try:
        judgement = yield from read_unread(wire, found)
    except SendFailed:
        return  # the message is worth more than the reply before it: it is journalled now
    if judgement.verdict == "gone" and found.replica.handle is not None:
        yield from MarkLost(call.tenant, call.upstream, found.replica.handle)


def read_unread(wire: Wire, found: Found) -> Flow[Judgement]:
    """Put the messages of a run that nobody has read into the log, once it has ended.

    Costs one request, two where nobody has seen the run end.
    """
    call, replica, run_id = wire.call, found.replica, found.unread
    if run_id is None or replica.state != "live" or replica.dialect != "threads":
        return Judgement("ok")
    run_found = yield from Find(call.tenant, call.upstream, run_id)
    if run_found is not None and not run_found.ended:
        answer = yield from wire.own("GET", f"/threads/{replica.handle}/runs/{run_id}")
        judgement = yield from wire.judge(answer, "threads", replica.handle)
        if judgement.verdict != "ok":
            return judgement
        yield from note_run(call, run_found, answer)
        if not has_messages(json.loads(answer.body)):
            return judgement
    return (yield from _read_messages(wire, found, run_id))


def _read_messages(wire: Wire, found: Found, run_id: str) -> Flow[Judgement]:
    """Put the messages of a run into the log, from the thread's newest; costs one request.

    A run of which they do not show everything, or nothing, costs another. Where the list shows
    that the thread has collapsed, the replica is given up.
    """
    call, replica = wire.call, found.replica
    path = f"/threads/{replica.handle}/messages?order=desc&limit={_NEWEST}"
    answer = yield from wire.own("GET", path)
    judgement = yield from wire.judge(answer, "threads", replica.handle)
    if judgement.verdict != "ok":
        return judgement
    page = json.loads(answer.body)
    newest = page.get("data") or []
    messages = [message for message in newest if message.get("run_id") == run_id]
    if not page.get("has_more"):
        told = yield from collapse_of(
            call, found.conversation, replica, newest, requests=wire.requests
        )
        if told is not None:
            yield from give_up(call, replica, told)
            if not messages:
                return judgement  # what the run has said is gone as well
    elif messages and newest[-1] is messages[-1]:
        messages = []  # there may be more of them than the page has
    if not messages:
        path = f"/threads/{replica.handle}/messages?run_id={run_id}&order=desc&limit={_PAGE}"
        answer = yield from wire.own("GET", path)
        judgement = yield from wire.judge(answer, "threads", replica.handle)
        if judgement.verdict != "ok":
            return judgement
        messages = json.loads(answer.body).get("data") or []
    said = {"data": messages}
    yield from learn_messages(
        call, found.conversation, said, newest_first=True, whole=True, run_id=run_id
    )
    return judgement


def learn_messages(
    call: Call,
    conversation: int,
    page: dict[str, Any],
    *,
    newest_first: bool,
    whole: bool = False,
    run_id: str | None = None,
) -> Flow[bool]:
    """Put the messages of a list answer into the log, as far as it does not have them.

    ``whole``: the page follows directly on what the log has; ``run_id``: it is all that this run
    has said. False where nobody can tell how it follows, or where a run has not ended yet that has
    said some of it: should its thread be lost now, it is begun again, and says something else.
    """
    data = page.get("data") or []
    messages = list(reversed(data)) if newest_first else data
    whole = whole or not page.get("has_more")
    fresh, named = yield from _told_apart(call, conversation, messages)
    if (yield from _goes_on(call, fresh)):
        return False
    runs = _runs(fresh) if run_id is None else (run_id,)
    return (yield from Learn(call.tenant, conversation, thread_items(fresh), whole, named, runs))


def _runs(messages: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the runs that have said something of this."""
    return tuple({str(message["run_id"]): None for message in messages if message.get("run_id")})


def _goes_on(call: Call, fresh: list[dict[str, Any]]) -> Flow[bool]:
    """Whether one of these messages may be of a run whose end is not in the journal."""
    for run_id in _runs(fresh):
        run_found = yield from Find(call.tenant, call.upstream, run_id)
        if run_found is not None and not run_found.ended:
            return True
        if run_found is None:  # it may be one that was begun just now
            thread = yield from Find(call.tenant, call.upstream, call.route.handle or "")
            if thread is not None and thread.open:
                return True
    return False


def learn(call: Call, conversation: int, messages: list[dict[str, Any]], run_id: str) -> Flow[None]:
    """Enter what a run has said, oldest first; what the app sent along only gets its id now."""
    fresh, named = yield from _told_apart(call, conversation, messages)
    items = thread_items(fresh)
    yield from Learn(call.tenant, conversation, items, whole=True, named=named, runs=(run_id,))


def _told_apart(
    call: Call, conversation: int, messages: list[dict[str, Any]]
) -> Flow[tuple[list[dict[str, Any]], tuple[tuple[int, str, str], ...]]]:
    """Return the messages that are new, and those that the app sent, by their place in the log."""
    page = yield from Page(call.tenant, conversation, newest_first=True, limit=_PAGE)
    known = {item.provider_id for item in page.items}
    unnamed = [item for item in reversed(page.items) if item.provider_id is None]
    fresh, named = [], []
    for message in messages:
        mine = None
        if message.get("id") not in known:
            mine = next((item for item in unnamed if _is_same(item, message)), None)
        if mine is None:
            fresh.append(message)
        else:
            unnamed.remove(mine)
            named.append((mine.position, str(message.get("id")), item_forms.dumps(message)))
    return fresh, tuple(named)


def _is_same(item: StoredItem, message: dict[str, Any]) -> bool:
    sent = json.loads(item.wire)
    return item.role == message.get("role") and item_forms.text_of(sent) == item_forms.text_of(
        message
    )


def completion(
    call: Call, turn: TurnKey, run_object: dict[str, Any], body: bytes, *, unread: bool
) -> Complete:
    """Return the operation that gives a run's turn its answer."""
    return Complete(
        tenant=call.tenant,
        upstream=call.upstream,
        dialect="threads",
        turn=turn,
        status=200,
        body=body,
        content_type="application/json",
        items=(),
        response_id=run_object.get("id"),
        model=run_object.get("model"),
        input_tokens=(run_object.get("usage") or {}).get("prompt_tokens"),
        handle_kind="run",
        unread=unread,
    )


def thread_items(messages: Iterable[dict[str, Any]]) -> tuple[NewItem, ...]:
    """Return thread messages ready for the log."""
    return tuple(map(from_thread_message, messages))


def note_run(call: Call, found: Found, answer: Answer) -> Flow[None]:
    """Give a run's turn its answer once the run has ended."""
    if found.ended or found.turn is None:
        return
    run_object = json.loads(answer.body)
    if run_object.get("status") not in ENDED:
        return
    unread = has_messages(run_object)
    yield from completion(call, found.turn, run_object, answer.body, unread=unread)


def has_messages(run_object: dict[str, Any]) -> bool:
    """Whether a run has ended with something said."""
    return run_object.get("status") in {"completed", "incomplete"}
