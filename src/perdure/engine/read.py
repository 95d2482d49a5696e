"""Everything that is not a turn: creating, reading, listing, changing and deleting replicas.

None of these routes can carry a history, so a loss met here leads to an empty conversation (a
thread is created with its messages) and the next model call brings the prime. What the app then
asks to see is answered from the journal, with the ids and times that it saw.
"""

from __future__ import annotations

import json
from typing import Any, Literal
from urllib.parse import parse_qs

from perdure.dialects import items as item_forms
from perdure.dialects.body import read_body
from perdure.dialects.verdicts import Judgement
from perdure.engine import prime as primes
from perdure.engine.adopt import adopt
from perdure.engine.ending import end
from perdure.engine.journalled import FROM_JOURNAL, as_item, collapsed, from_journal, listing, shown
from perdure.engine.messages import learn_messages, read_unread
from perdure.engine.ops import (
    Answer,
    BindNew,
    Complete,
    Completed,
    Fail,
    Find,
    FindSubject,
    Found,
    History,
    MarkLost,
    Page,
    Retire,
    SendFailed,
    Spawn,
    Tombstone,
)
from perdure.engine.readback import read_back
from perdure.engine.rebuild import CREATES, Loss, NotRebuilt, loss_before_sending, rebuild
from perdure.engine.runs import read_run
from perdure.engine.streaming import pass_through
from perdure.engine.sweep import sweep_quietly
from perdure.engine.telling import marked
from perdure.engine.threads import live_path
from perdure.engine.turns import Turn, accept, settle_failure
from perdure.engine.wire import Call, Wire, retired
from perdure.errors import ForeignTenant, IssuedTwice, TurnOvertaken
from perdure.flow import Flow
from perdure.model import Recovery


def create(wire: Wire) -> Flow[Answer]:
    """Carry out POST /conversations or /threads: the new replica is entered with its items."""
    call = wire.call
    body = read_body(call.content) if call.content.strip() else None
    members: dict[str, Any] = body.members if body else {}
    content, primed_through = call.content, 0
    if call.subject is not None and call.dialect == "threads":
        content, primed_through = yield from _with_history(call, call.subject, members)
    if call.dialect == "threads":
        items = tuple(map(item_forms.from_thread_message, members.get("messages") or ()))
    else:
        items = item_forms.new_items(members.get("items") or ())
    for _attempt in range(CREATES):
        created = yield from wire.creating(call.dialect, 0, wire.send(content))
        answer = created.answer
        if not answer.ok:
            judgement = yield from wire.judge(answer, call.dialect, None)
            return retired(answer) if judgement.retired else answer
        handle = str(json.loads(answer.body)["id"])
        bound = yield from BindNew(
            tenant=call.tenant,
            upstream=call.upstream,
            dialect=call.dialect,
            handle=handle,
            items=items,
            body=answer.body,
            intent=created.intent,
            subject=call.subject,
            primed_through=primed_through,
        )
        if bound == "beaten":
            yield from Spawn("sweep", sweep_quietly(call.tenant, call.upstream))
        if bound != "taken":
            return answer
    raise IssuedTwice(handle)


def _with_history(call: Call, subject: str, members: dict[str, Any]) -> Flow[tuple[bytes, int]]:
    """Return a thread's create with what the subject has said so far, on whatever API."""
    found = yield from FindSubject(call.tenant, subject)
    if found is None or found.last_position == 0:
        return call.content, 0
    through = found.last_position
    budget = call.policy.budget_tokens
    span = yield from History(call.tenant, found.conversation, through, budget)
    history = primes.thread_messages(primes.build(span, thread=True))
    messages = [*history, *(members.get("messages") or ())]
    return item_forms.dumps({**members, "messages": messages}).encode(), through


def append(wire: Wire) -> Flow[Answer]:
    """Carry out POST /conversations/{id}/items.

    A conversation that has not been given its history yet gets these items with it, by the next
    model call: sent now they would stand before everything that came earlier.
    """
    call = wire.call
    body = read_body(call.content)
    wires = [item for item in body.members.get("items") or () if isinstance(item, dict)]
    turn = yield from accept(
        wire,
        dialect="conversations",
        kind="append",
        handle=call.route.handle,
        items=item_forms.new_items(wires),
        request="{}",
    )
    if turn is None:
        return (yield from wire.send(call.content))
    if isinstance(turn, Answer):
        return turn
    replica, recovery = turn.replica, None
    try:
        loss = loss_before_sending(call, turn.key.conversation, replica, turn.key)
        if loss is None and not (
            replica.generation and replica.primed_through < turn.accepted.through
        ):
            answer = yield from wire.send(call.content, path=live_path(call, replica.handle))
            judgement = yield from wire.judge(answer, "conversations", replica.handle)
            if judgement.verdict == "ok":
                listed = json.loads(answer.body).get("data") or []
                appended = _appended(wire, turn, answer, listed, primed=replica.generation)
                return marked(answer, None, stored=(yield from end(turn.key, appended)) == "stored")
            if judgement.verdict != "gone" or turn.accepted.adopting:
                yield from _refused(wire, turn, _end(judgement), f"status {answer.status}")
                return answer
            loss = Loss(turn.key.conversation, replica, "gone", turn.key)
        if loss is not None:
            recovery = (yield from rebuild(wire, loss, turn.accepted.through, tell=True)).recovery
    except NotRebuilt as refused:
        yield from _refused(wire, turn, "failed", "not rebuilt")
        return refused.answer
    except SendFailed as failure:
        yield from settle_failure(wire, turn, failure)
        failure.raise_cause()
    made = f"{turn.key.conversation:016x}{turn.key.seq:016x}"
    data = [shown(item, f"msg_{made}{n:016x}") for n, item in enumerate(wires)]
    answer = Answer(200, FROM_JOURNAL, item_forms.dumps(listing(data, has_more=False)).encode())
    if (yield from _appended(wire, turn, answer, data)) != "done":
        raise TurnOvertaken(turn.key.turn_id)
    return marked(answer, recovery)


def _end(judgement: Judgement) -> Literal["failed", "unknown"]:
    return "unknown" if judgement.verdict == "ambiguous" else "failed"


def _refused(
    wire: Wire, turn: Turn, state: Literal["failed", "unknown"], reason: str
) -> Flow[None]:
    yield from Fail(wire.call.tenant, turn.key, state, reason, withdrawn=state == "failed")


def _appended(
    wire: Wire,
    turn: Turn,
    answer: Answer,
    listed: list[dict[str, Any]],
    primed: int | None = None,
) -> Flow[Completed]:
    """End an append; ``primed``: the items stand on the replica of that generation."""
    completed = yield from Complete(
        tenant=wire.call.tenant,
        upstream=wire.call.upstream,
        dialect="conversations",
        turn=turn.key,
        status=answer.status,
        body=answer.body,
        content_type="application/json",
        items=(),
        primed=primed,
        own=tuple((str(item.get("id")), item_forms.dumps(item)) for item in listed),
    )
    if completed == "done" and turn.accepted.adopting and turn.handle:
        first = str(listed[0].get("id")) if listed else None
        job = adopt(wire.call, "conversations", turn.key.conversation, turn.handle, first)
        yield from Spawn("adopt", job)
    return completed


def existing(wire: Wire) -> Flow[Answer]:
    """Carry out every other route: what it names was made earlier, here or elsewhere."""
    call = wire.call
    handle = call.route.handle or ""
    found = yield from Find(call.tenant, call.upstream, handle)
    if found is None or found.state == "retired":
        return (yield from pass_on(wire))
    if found.foreign:
        raise ForeignTenant(handle, call.tenant)
    if call.route.action == "delete":
        return (yield from _delete(wire, found, handle))
    if call.dialect == "responses":
        return (yield from _response(wire, found, handle))
    if found.replica.doubtful and found.replica.state == "live":
        try:
            yield from read_back(wire, found.conversation, found.replica)
        except NotRebuilt as refused:
            return refused.answer
        found = (yield from Find(call.tenant, call.upstream, handle)) or found
    if call.route.part == "runs" and call.route.action in {"read", "submit", "cancel"}:
        return (yield from read_run(wire, found))
    if found.replica.generation > 0 and call.route.part in {"items", "messages"}:
        yield from read_unread(wire, found)
        journalled = yield from from_journal(call, found)
        if journalled is not None:
            return journalled
    return (yield from _on_replica(wire, found))


def pass_on(wire: Wire) -> Flow[Answer]:
    """Send a request as it is and hand its answer over, streamed or not."""
    stream = "stream=true" in wire.call.query
    answer = yield from wire.send(wire.call.content, stream=stream)
    return (yield from pass_through(answer))


# -- responses -------------------------------------------------------------------------------


def _response(wire: Wire, found: Found, handle: str) -> Flow[Answer]:
    """Read, cancel or list the input of a response; a lost one is answered from the journal."""
    if found.state == "live":
        answer = yield from pass_on(wire)
        if answer.ok:
            yield from _note_response(wire.call, found, answer)
            return answer
        judgement = yield from wire.judge(answer, "responses", handle)
        young = found.age_seconds < wire.call.policy.visibility_age.total_seconds()
        if judgement.verdict != "gone":
            return answer
        if not young:
            yield from MarkLost(wire.call.tenant, wire.call.upstream, handle)
    if wire.call.route.part == "input_items":
        return (yield from _input_items(wire.call, found, handle))
    if found.answer is None or not found.ended:
        return (yield from pass_on(wire))
    recovery = Recovery(
        conversation=found.conversation,
        turn_id=found.turn.turn_id if found.turn else None,
        reason="known" if found.state == "lost" else "gone",
        generation=found.replica.generation,
        lost_handle=handle,
        new_handle=None,
        memory="none",
        primed=0,
        left_out=0,
        requests=wire.requests,
    )
    return marked(Answer(200, FROM_JOURNAL, found.answer.body), recovery)


def _note_response(call: Call, found: Found, answer: Answer) -> Flow[None]:
    """Give a background response's turn its answer once it has ended."""
    if found.ended or found.turn is None or call.route.part or answer.stream is not None:
        return
    response = json.loads(answer.body)
    if response.get("status") not in {"completed", "incomplete"}:
        return
    yield from Complete(
        tenant=call.tenant,
        upstream=call.upstream,
        dialect=found.replica.dialect,
        turn=found.turn,
        status=200,
        body=answer.body,
        content_type="application/json",
        items=item_forms.new_items(response.get("output") or []),
        response_id=response.get("id"),
        head=response.get("id") if found.replica.dialect == "responses" else None,
        model=response.get("model"),
        input_tokens=(response.get("usage") or {}).get("input_tokens"),
    )


def _input_items(call: Call, found: Found, handle: str) -> Flow[Answer]:
    page = yield from Page(
        call.tenant, found.conversation, newest_first=True, limit=100, turn_response=handle
    )
    data = [as_item(item) for item in page.items if item.provider_id is None]
    return Answer(200, FROM_JOURNAL, item_forms.dumps(listing(data, has_more=False)).encode())


# -- conversations and threads ---------------------------------------------------------------


def _on_replica(wire: Wire, found: Found) -> Flow[Answer]:
    """Send the request to the live replica; make a new one where there is none."""
    call = wire.call
    loss = loss_before_sending(call, found.conversation, found.replica)
    if loss is None:
        path = live_path(call, found.replica.handle)
        answer = yield from wire.send(call.content, path=path)
        judgement = yield from wire.judge(answer, call.dialect, found.replica.handle)
        if judgement.verdict == "ok":
            whole = yield from collapsed(wire, found, answer)
            if whole is not None:
                return whole
            yield from _note_listing(wire, found, answer)
        if judgement.verdict != "gone":
            return answer
        loss = Loss(found.conversation, found.replica, "gone")
    update = call.content if call.route.action == "update" and call.route.part is None else None
    try:
        rebuilt = yield from rebuild(wire, loss, found.last_position, update, tell=True)
    except NotRebuilt as refused:
        return refused.answer
    if call.route.part is None:
        answer = rebuilt.answer
    elif call.route.part in {"items", "messages"}:
        answer = (yield from from_journal(call, found)) or rebuilt.answer
    else:
        answer = yield from wire.send(call.content, path=live_path(call, rebuilt.replica.handle))
    if rebuilt.recovery is None or not answer.ok:
        return answer
    return marked(answer, rebuilt.recovery)


def _note_listing(wire: Wire, found: Found, answer: Answer) -> Flow[None]:
    """Learn what a healthy list of thread messages shows; only runs tell of messages before.

    Where a page is too short to show what it follows on, all that a run has said is read at once:
    what the app has seen must not be lost with its thread.
    """
    call = wire.call
    if call.dialect != "threads" or call.route.part != "messages" or call.route.action != "list":
        return
    query = parse_qs(call.query)
    if "before" in query:
        return
    log, page = found.conversation, json.loads(answer.body)
    newest_first = query.get("order", ["desc"])[0] != "asc"
    if (yield from learn_messages(call, log, page, newest_first=newest_first)):
        return
    try:
        judgement = yield from read_unread(wire, found)
    except SendFailed:
        return  # the next write reads them
    if judgement.verdict == "gone":
        yield from learn_messages(call, log, page, newest_first=newest_first, whole=True)


# -- deleting --------------------------------------------------------------------------------


def _delete(wire: Wire, found: Found, handle: str) -> Flow[Answer]:
    """Delete through us: written down before it is sent, so that it stays deleted."""
    call = wire.call
    if call.route.child is not None:
        return (yield from _delete_item(wire, found, call.route.child))
    yield from Retire(call.tenant, call.upstream, handle)
    if call.dialect == "responses" or found.replica.handle is None:
        return (yield from wire.send(call.content))
    return (yield from wire.send(call.content, path=live_path(call, found.replica.handle)))


def _delete_item(wire: Wire, found: Found, child: str) -> Flow[Answer]:
    """Delete one item. A rebuilt replica knows it under no id of ours, so it is replaced."""
    call = wire.call
    yield from Tombstone(call.tenant, found.conversation, child)
    if found.replica.generation == 0:
        return (yield from wire.send(call.content))
    if found.replica.handle is not None:
        yield from MarkLost(call.tenant, call.upstream, found.replica.handle)
    if call.dialect == "threads":
        gone = {"id": child, "object": "thread.message.deleted", "deleted": True}
    else:
        gone = {
            "id": call.route.handle,
            "object": "conversation",
            "created_at": 0,
            "metadata": {},
            **(json.loads(found.answer.body) if found.answer else {}),
        }
    return Answer(200, FROM_JOURNAL, item_forms.dumps(gone).encode())
