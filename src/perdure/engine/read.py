"""What is not a model call: adding items, reading, listing, changing and deleting replicas.

None of these routes can carry a history, so a loss met here leads to an empty conversation (a
thread is created with its messages) and the next model call brings the prime. What the app then
asks to see is answered from the journal, with the ids and times that it saw.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qs

from perdure.dialects import items as item_forms
from perdure.dialects.appended import wrong_with
from perdure.dialects.body import object_in, objects_in, read_body
from perdure.dialects.shapes import is_made, is_object, is_page
from perdure.dialects.verdicts import Judgement
from perdure.engine.adopt import take_up, take_up_again
from perdure.engine.background import read_answer
from perdure.engine.deleting import delete
from perdure.engine.ending import end
from perdure.engine.journalled import (
    FROM_JOURNAL,
    changed,
    collapsed,
    from_journal,
    is_change,
    listing,
    note_changed,
    shown,
)
from perdure.engine.messages import Unread, has_all_of, learn, read_unread
from perdure.engine.ops import (
    Answer,
    Complete,
    Completed,
    Fail,
    Find,
    Found,
    Learnt,
    OneItem,
    Refresh,
    SendFailed,
)
from perdure.engine.readback import read_back
from perdure.engine.rebuild import (
    Behind,
    Loss,
    NotRebuilt,
    Rebuilt,
    as_named,
    is_retired,
    loss_before_sending,
    rebuild,
)
from perdure.engine.runs import read_run
from perdure.engine.seen import note_seen
from perdure.engine.seen_response import pass_on, seen_response
from perdure.engine.seen_runs import seen_runs
from perdure.engine.streaming import judged
from perdure.engine.telling import marked
from perdure.engine.threads import live_path
from perdure.engine.turns import Turn, accept, settle_failure
from perdure.engine.wire import Call, Wire
from perdure.errors import BadInput, ForeignTenant, StoreError, TurnOvertaken
from perdure.flow import Flow
from perdure.model import Recovery, Replica

T = TypeVar("T")


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
    sent = yield from _carried_out(wire, turn, _sent(wire, turn))
    if isinstance(sent, Answer):
        return sent
    made = f"{turn.key.conversation:016x}{turn.key.seq:016x}"
    data = [
        shown(item, item_forms.made_id(item_forms.kind_of(item), f"{made}{n:016x}"))
        for n, item in enumerate(wires)
    ]
    answer = Answer(200, FROM_JOURNAL, item_forms.dumps(listing(data, has_more=False)).encode())
    if (yield from _appended(wire, turn, answer, data)) != "done":
        raise TurnOvertaken(turn.key.turn_id)
    return marked(answer, sent)


def _sent(wire: Wire, turn: Turn) -> Flow[Answer | Recovery | None]:
    """Send items to a live conversation, and return its answer.

    Else they go with the next model call: returns the recovery, where it was rebuilt just now.
    Raises :class:`~perdure.errors.BadInput` where the provider would have refused them.
    """
    call, replica = wire.call, turn.replica
    loss = loss_before_sending(call, turn.key.conversation, replica, turn.key)
    if loss is None and not (replica.generation and replica.primed_through < turn.accepted.through):
        answer = yield from wire.send(call.content, path=live_path(call, replica.handle))
        tried = yield from judged(wire, answer, "conversations", replica.handle, is_made)
        judgement = tried.judgement
        if judgement.verdict == "ok":
            listed = objects_in(tried.shown.get("data"))
            appended = _appended(wire, turn, answer, listed, primed=replica.generation)
            return marked(answer, None, stored=(yield from end(turn.key, appended)) == "stored")
        unknown = turn.accepted.adopting and call.policy.on_unknown == "error"
        if judgement.verdict != "gone" or unknown:
            yield from _refused(wire, turn, _end(judgement), f"status {answer.status}")
            return answer
        loss = Loss(turn.key.conversation, replica, "gone", turn.key)
    wrong = wrong_with(read_body(call.content).members.get("items"))
    if wrong is not None:
        raise BadInput(f"{wrong} Nothing was added to the conversation.")
    if loss is None:
        return None
    return (yield from rebuild(wire, loss, turn.accepted.through, tell=True)).recovery


def _carried_out(wire: Wire, turn: Turn, work: Flow[T]) -> Flow[T | Answer]:
    """Do what a turn is for; it fails where no new replica is to be had, or nothing was heard."""
    try:
        return (yield from work)
    except BadInput:
        yield from _refused(wire, turn, "failed", "bad input")
        raise
    except NotRebuilt as refused:
        yield from _refused(wire, turn, "failed", "not rebuilt")
        return refused.answer
    except SendFailed as failure:
        yield from settle_failure(wire, turn, failure)
        failure.raise_cause()


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
        remembered=turn.accepted.remembered if primed is not None else None,
    )
    if completed == "done":
        yield from take_up(wire.call, "conversations", turn)
    return completed


def existing(wire: Wire) -> Flow[Answer]:
    """Carry out every other route: what it names was made earlier, here or elsewhere."""
    call = wire.call
    handle = call.route.handle or ""
    found = yield from Find(call.tenant, call.upstream, handle)
    if found is None and _may_begin_afresh(call):
        return (yield from _afresh(wire))
    if found is None or is_retired(found, call.dialect):
        return (yield from pass_on(wire))
    if found.foreign:
        raise ForeignTenant(handle, call.tenant)
    if call.route.action == "delete":
        if call.route.child is not None and found.replica.generation > 0:
            # Its thread is given up, and may have said what is not in the log yet.
            refused = yield from _read_first(wire, found)
            if refused is not None:
                return refused
        return (yield from delete(wire, found, handle))
    if call.dialect == "responses":
        return (yield from seen_response(wire, found, handle))
    if found.replica.doubtful and found.replica.state == "live":
        try:
            found = yield from _settled(wire, found, handle)
        except NotRebuilt as refused:
            return refused.answer
    named = as_named(found.replica, call.dialect, handle, found.state)
    return (yield from _of_shared(wire, replace(found, replica=named)))


def _may_begin_afresh(call: Call) -> bool:
    """Whether a call looks at a whole conversation, and one that nobody knows may be made anew."""
    looks = call.route.action in {"read", "list"} and call.route.child is None
    return call.policy.on_unknown == "fresh" and call.dialect == "conversations" and looks


def _afresh(wire: Wire) -> Flow[Answer]:
    """Look at a conversation that was never seen here; an empty one is made where it is gone."""
    call = wire.call
    answer = yield from wire.send(call.content)
    judgement = yield from wire.judge(answer, "conversations", call.route.handle)
    if judgement.verdict != "gone":
        return answer
    turn = yield from accept(
        wire,
        dialect="conversations",
        kind="append",
        handle=call.route.handle,
        items=(),
        request="{}",
    )
    if not isinstance(turn, Turn):
        return answer
    if turn.replica.generation > 0:  # another call was faster, and may have said something on it
        yield from _refused(wire, turn, "failed", "nothing was said")
        return (yield from existing(wire))
    loss = Loss(turn.key.conversation, turn.replica, "gone", turn.key)
    anew = rebuild(wire, loss, turn.accepted.through, tell=True)
    rebuilt = yield from _carried_out(wire, turn, anew)
    if isinstance(rebuilt, Answer):
        return rebuilt
    yield from _refused(wire, turn, "failed", "nothing was said")
    found = yield from Find(call.tenant, call.upstream, call.route.handle or "")
    if found is not None and call.route.part == "items":
        answer = (yield from from_journal(call, found)) or answer
    else:
        answer = rebuilt.answer
    return marked(answer, rebuilt.recovery)


def _settled(wire: Wire, found: Found, handle: str) -> Flow[Found]:
    """Look what attempts of unknown outcome have done to a replica, before it is read."""
    call = wire.call
    refused = yield from _read_first(wire, found)
    if refused is not None:
        raise NotRebuilt(refused)
    with suppress(TurnOvertaken):  # it has been settled
        yield from read_back(wire, found.conversation, found.replica)
    return (yield from Find(call.tenant, call.upstream, handle)) or found


def _of_shared(wire: Wire, found: Found) -> Flow[Answer]:
    """Carry out a route of a conversation or thread: from the journal, or on its replica."""
    call = wire.call
    if call.route.part == "runs" and call.route.action in {"read", "submit", "cancel"}:
        return (yield from read_run(wire, found))
    if call.route.part == "runs":
        return (yield from seen_runs(wire, found))
    if found.replica.generation > 0 and call.route.part in {"items", "messages"}:
        if is_change(call):
            return (yield from changed(call, found)) or (yield from _on_replica(wire, found))
        refused = yield from _read_first(wire, found)
        if refused is not None:
            return refused
        journalled = yield from from_journal(call, found)
        if journalled is not None:
            return journalled
    return (yield from _on_replica(wire, found))


def _read_first(wire: Wire, found: Found) -> Flow[Answer | None]:
    """Read what a run has said that nobody has read; the provider's refusal where it cannot be.

    And the answer that was made in the background, if it is there.
    """
    if found.unread is None or found.replica.state != "live":
        return None
    if found.replica.dialect != "threads":
        if not found.unread_ended:
            yield from read_answer(wire, found.unread, wait=False)
        return None
    unread = Unread(found.unread, found.unread_ended)
    answer, judgement = yield from read_unread(wire, found.conversation, found.replica, unread)
    return None if judgement.verdict in {"ok", "gone"} else answer


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
            return (yield from _shown(wire, found, answer))
        if judgement.verdict != "gone":
            return answer
        loss = Loss(found.conversation, found.replica, "gone")
    again = int(_is_update(call))
    try:
        rebuilt = yield from rebuild(wire, loss, found.last_position, following=again, tell=True)
    except NotRebuilt as refused:
        return refused.answer
    except Behind:
        return (yield from existing(wire))
    answer = yield from _on_rebuilt(wire, found, rebuilt)
    if rebuilt.recovery is None or not answer.ok:
        return answer
    return marked(answer, rebuilt.recovery)


def _is_update(call: Call) -> bool:
    return call.route.part is None and call.route.action == "update"


def _shown(wire: Wire, found: Found, answer: Answer) -> Flow[Answer]:
    """Learn from what a live replica shows of itself; a list that has collapsed is a loss."""
    if wire.call.route.part is None:
        return (yield from _kept(wire.call, found.replica, answer, found))
    if is_change(wire.call):
        message = object_in(answer.body)
        if is_object(message):
            yield from note_changed(wire.call, found, message)
        return answer
    whole = yield from collapsed(wire, found, answer)
    if whole is not None:
        return whole
    if wire.call.route.part == "items":
        yield from note_seen(wire.call, found, answer)
    learnt = yield from _note_listing(wire, found, answer)
    if learnt == "done" and found.unread is not None and found.replica.generation == 0:
        yield from take_up_again(wire.call, "threads", found.conversation)
    if learnt == "replaced":
        # Another thread has taken its place: what that one knows is in the journal.
        now = yield from Find(wire.call.tenant, wire.call.upstream, wire.call.route.handle or "")
        return (yield from from_journal(wire.call, now or found)) or answer
    return answer


def _on_rebuilt(wire: Wire, found: Found, rebuilt: Rebuilt) -> Flow[Answer]:
    """Answer from the new replica; it has what the app last saw, and an update is made on top."""
    call = wire.call
    if is_change(call):
        now = replace(found, replica=rebuilt.replica)
        return (yield from changed(call, now)) or rebuilt.answer
    if call.route.part in {"items", "messages"}:
        return (yield from from_journal(call, found)) or rebuilt.answer
    if rebuilt.recovery is None:  # another worker's: it may be lost by now, as any other
        return (yield from _on_replica(wire, replace(found, replica=rebuilt.replica)))
    if call.route.part is None and not _is_update(call):
        return rebuilt.answer
    answer = yield from wire.send(call.content, path=live_path(call, rebuilt.replica.handle))
    if call.route.part is None and answer.ok:
        return (yield from _kept(call, rebuilt.replica, answer))
    return answer


def _kept(call: Call, replica: Replica, answer: Answer, known: Found | None = None) -> Flow[Answer]:
    """Keep an object as the app sees it now, for the day on which it has to be made anew.

    ``known`` is what the app's own handle points to.
    """
    handle = replica.handle or ""
    if known is None or handle != call.route.handle:
        known = yield from Find(call.tenant, call.upstream, handle)
    if known is not None and known.answer is not None and known.answer.body == answer.body:
        return answer
    if not is_object(object_in(answer.body)):
        return answer
    try:
        yield from Refresh(call.tenant, call.upstream, handle, answer.body)
    except StoreError:  # what was asked for has been done
        return marked(answer, None, stored=False)
    return answer


def _note_listing(wire: Wire, found: Found, answer: Answer) -> Flow[Learnt | None]:
    """Learn what a healthy list of thread messages shows; only runs tell of messages before.

    Where a page is too short to show what it follows on, or all that a run has said, that is read
    at once: what the app has seen must not be lost with its thread.
    """
    call, log, replica = wire.call, found.conversation, found.replica
    if call.dialect != "threads" or call.route.part != "messages" or call.route.action != "list":
        return None
    query = {key: values[0] for key, values in parse_qs(call.query).items()}
    if "before" in query:
        return None
    page = object_in(answer.body)
    if not is_page(page):
        return None
    data, newest_first = page.get("data") or [], query.get("order") != "asc"
    messages = list(reversed(data)) if newest_first else data
    whole = not page.get("has_more")
    has_newest = "after" not in query if newest_first else whole
    ended = found.unread if found.unread_ended and has_newest else None
    if query.get("run_id") not in {None, ended}:
        ended = None
    shown = ended is not None and (
        yield from _shows_all(call, log, ended, messages, query, whole=whole)
    )
    if ended is None or shown:
        read = ended if shown else None
        learnt = yield from learn(call, log, messages, whole=whole, read=read, replica=replica)
        if learnt != "apart" or found.unread is None:
            return learnt
    gone = yield from _is_unread_gone(wire, found)
    read = found.unread if gone and found.unread_ended else None  # nobody will ever see more of it
    return (yield from learn(call, log, messages, whole=whole or gone, read=read, replica=replica))


def _shows_all(
    call: Call,
    log: int,
    run_id: str,
    messages: list[dict[str, Any]],
    query: dict[str, str],
    *,
    whole: bool,
) -> Flow[bool]:
    """Whether a page that has the newest messages, oldest first, has all that a run has said."""
    if (whole and "after" not in query) or has_all_of(run_id, messages):
        return True
    if query.get("order") != "asc" or all(one.get("run_id") != run_id for one in messages):
        return False
    before = yield from OneItem(call.tenant, log, query["after"])
    return before is not None and json.loads(before.wire).get("run_id") != run_id


def _is_unread_gone(wire: Wire, found: Found) -> Flow[bool]:
    """Read what a run has said and nobody has read, as far as it can be; whether that is gone."""
    unread = Unread(found.unread or "", found.unread_ended)
    try:
        _, judgement = yield from read_unread(wire, found.conversation, found.replica, unread)
    except SendFailed:  # the next write reads it
        return False
    return judgement.verdict == "gone"
