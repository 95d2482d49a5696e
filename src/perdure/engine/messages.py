"""Thread messages on their way into the log, each once and in their order, and the end of runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from perdure.dialects import items as item_forms
from perdure.dialects.body import object_in, object_of, objects_in
from perdure.dialects.messages import from_thread_message
from perdure.dialects.routes import escaped, path_to
from perdure.dialects.shapes import is_object, is_page
from perdure.dialects.verdicts import Judgement
from perdure.engine.collapse import collapse_of, tell_of_collapse
from perdure.engine.decoding import decoded
from perdure.engine.ops import (
    Answer,
    Complete,
    Completed,
    Find,
    Found,
    Learn,
    Learnt,
    Page,
    Underway,
)
from perdure.engine.wire import Call, Wire
from perdure.errors import TurnOvertaken
from perdure.flow import Flow
from perdure.model import NewItem, Recovery, Replica, StoredItem, TurnKey, value

ENDED: Final = {"completed", "incomplete", "failed", "cancelled", "expired"}
WAITS: Final = "requires_action"
_PAGE: Final = 100
_NEWEST: Final = 20


@value
class Unread:
    """A run whose messages are still to be read, and whether it is known to have ended."""

    run_id: str
    ended: bool


def read_unread(
    wire: Wire, conversation: int, replica: Replica, unread: Unread
) -> Flow[tuple[Answer, Judgement]]:
    """Put the messages of a run into the log, from the thread's newest; costs one request.

    A run of which they do not show everything, or nothing, costs another. Where the list shows
    that the thread has collapsed, the replica is given up.
    """
    call, run_id = wire.call, unread.run_id
    path = path_to("threads", replica.handle, "messages")
    listed = yield from wire.own("GET", f"{path}?order=desc&limit={_NEWEST}")
    answer, page = decoded(listed, is_page)
    judgement = yield from wire.judge(answer, "threads", replica.handle)
    if judgement.verdict != "ok":
        return answer, judgement
    newest = page.get("data") or []
    messages = [message for message in newest if message.get("run_id") == run_id]
    whole = not page.get("has_more")
    if whole:
        told = yield from collapse_of(call, conversation, replica, newest, requests=wire.requests)
        if isinstance(told, Recovery):
            yield from tell_of_collapse(call, replica, told)
            if not messages and call.policy.on_amnesia == "rebuild":
                return answer, judgement  # what the run has said is gone as well
    elif not has_all_of(run_id, newest[::-1]):
        messages = []
    if not messages and not whole:
        query = f"run_id={escaped(run_id)}&order=desc&limit={_PAGE}"
        answer, page = decoded((yield from wire.own("GET", f"{path}?{query}")), is_page)
        judgement = yield from wire.judge(answer, "threads", replica.handle)
        if judgement.verdict != "ok":
            return answer, judgement
        messages = page.get("data") or []
    read = run_id if unread.ended else None
    oldest_first = list(reversed(messages))
    yield from learn(call, conversation, oldest_first, whole=True, read=read, replica=replica)
    return answer, judgement


def has_all_of(run_id: str, page: list[dict[str, Any]]) -> bool:
    """Whether the newest messages of a thread, oldest first, have everything that a run has said.

    They show it where they go back beyond that; where they have none of it, it may stand further
    back: others may have written behind it.
    """
    of_run = [message.get("run_id") == run_id for message in page]
    return True in of_run and not of_run[0]


def learn(
    call: Call,
    conversation: int,
    messages: list[dict[str, Any]],
    *,
    whole: bool,
    replica: Replica,
    read: str | None = None,
    since_outputs: str | None = None,
) -> Flow[Learnt]:
    """Enter messages, oldest first; what the app sent itself only gets its id now.

    ``whole``: they follow directly on what the log has. ``read``: the run of which these are all.
    ``since_outputs``: one of which these are what it said since it got the outputs of its tools.
    """
    page = yield from Page(call.tenant, conversation, newest_first=True, limit=_PAGE)
    known = {item.provider_id for item in page.items}
    unnamed = [item for item in reversed(page.items) if item.provider_id is None]
    fresh: list[dict[str, Any]] = []
    named: list[tuple[int, str, str]] = []
    older = 0
    for message in messages:
        mine = None
        said_by_run = message.get("run_id") and message.get("role") == "assistant"
        if message.get("id") not in known and not said_by_run:
            mine = next((item for item in unnamed if _is_same(item, message)), None)
        if mine is None:
            fresh.append(message)
        else:
            older = older if named else len(fresh)
            unnamed.remove(mine)
            named.append((mine.position, str(message.get("id")), item_forms.dumps(message)))
    learnt = yield from Learn(
        tenant=call.tenant,
        conversation=conversation,
        items=thread_items(fresh),
        whole=whole,
        named=tuple(named),
        said_by=tuple(message.get("run_id") for message in fresh),
        read=read,
        generation=replica.generation,
        older=older,
        since_outputs=since_outputs,
    )
    return learnt


def _is_same(item: StoredItem, message: dict[str, Any]) -> bool:
    sent = json.loads(item.wire)
    return item.role == message.get("role") and item_forms.text_of(sent) == item_forms.text_of(
        message
    )


def thread_items(messages: Iterable[dict[str, Any]]) -> tuple[NewItem, ...]:
    """Return thread messages ready for the log."""
    return tuple(map(from_thread_message, messages))


# -- the end of runs --------------------------------------------------------------------------


def newest_run(call: Call, run_id: str) -> Flow[tuple[str, Found | None]]:
    """Look a run up under the id that it has now."""
    found = yield from Find(call.tenant, call.upstream, run_id)
    while found is not None and found.replaced_by is not None:
        newer = yield from Find(call.tenant, call.upstream, found.replaced_by)
        if newer is None:
            break
        run_id, found = found.replaced_by, newer
    return run_id, found


def as_seen(run_found: Found) -> dict[str, Any]:
    """Return a run as the app last saw it."""
    known = json.loads(run_found.answer.body) if run_found.answer else {}
    return known if isinstance(known, dict) else {}


def now_shown(
    call: Call,
    turn: TurnKey,
    on: Replica,
    run_object: dict[str, Any],
    *,
    body: bytes | None = None,
    partial: Iterable[dict[str, Any]] = (),
    outputs_of: str | None = None,
    refused: str | None = None,
    unasked: bool = False,
) -> Underway:
    """Return the operation that keeps a run as the app sees it, while it goes on.

    One that has ended is kept as one in progress: only `completion` says that it is over, and a
    worker may die before that. ``partial`` are the messages of which a part was shown, with what
    was shown. ``outputs_of``: the calls whose outputs it is being given; ``refused``: was given in
    vain; ``unasked``: was not seen to ask for.
    """
    shown, waits_for = tuple(partial), calls_of(run_object)
    if run_object.get("status") in ENDED:
        run_object, body = {**run_object, "status": "in_progress"}, None
    return Underway(
        tenant=call.tenant,
        upstream=call.upstream,
        turn=turn,
        response_id=str(run_object.get("id")),
        body=item_forms.dumps(run_object).encode() if body is None else body,
        generation=on.generation,
        partial=thread_items({"role": one["role"], "content": one["content"]} for one in shown),
        partial_of=tuple(str(one["id"]) for one in shown),
        waits_for=waits_for or None,
        outputs_of=outputs_of,
        refused=refused,
        unasked=unasked,
    )


def calls_of(run_object: dict[str, Any]) -> str:
    """Return the ids of the calls whose outputs a run asks for; none where it does not."""
    asked = object_of(object_of(run_object.get("required_action")).get("submit_tool_outputs"))
    ids = [str(call.get("id")) for call in objects_in(asked.get("tool_calls"))]
    return " ".join(sorted(ids)) if run_object.get("status") == WAITS else ""


def completion(
    call: Call,
    turn: TurnKey,
    run_object: dict[str, Any],
    on: Replica | None,
    *,
    unread: bool | None,
    body: bytes | None = None,
) -> Complete:
    """Return the operation that gives a run's turn its answer; ``on`` is the thread it ran on.

    ``unread``: whether its messages are still to be read; None: as it was. One that has failed may
    have said something all the same.
    """
    return Complete(
        tenant=call.tenant,
        upstream=call.upstream,
        dialect="threads",
        turn=turn,
        status=200,
        body=item_forms.dumps(run_object).encode() if body is None else body,
        content_type="application/json",
        items=(),
        response_id=run_object.get("id"),
        model=run_object.get("model"),
        input_tokens=object_of(run_object.get("usage")).get("prompt_tokens"),
        primed=None if on is None else on.generation,
        handle_kind="run",
        unread=unread,
    )


def ended(
    call: Call, turn: TurnKey, run_object: dict[str, Any], completing: Complete
) -> Flow[Completed]:
    """Give a run's turn its answer, unless it has one.

    Raises :class:`~perdure.errors.TurnOvertaken` where another worker has the turn: the run is not
    over, it is begun again.
    """
    done = yield from completing
    if done == "fenced":
        now = yield from Find(call.tenant, call.upstream, str(run_object.get("id")))
        if now is not None and not now.ended:
            raise TurnOvertaken(turn.turn_id)
    return done


def note_run(call: Call, found: Found, answer: Answer) -> Flow[Completed | None]:
    """Give a run's turn its answer once the run has ended; note whether it waits for its tools."""
    run_object = object_in(answer.body)
    if found.ended or found.turn is None or not is_object(run_object):
        return None
    status = run_object.get("status")
    if status in ENDED:
        done = completion(
            call, found.turn, run_object, found.replica, unread=True, body=answer.body
        )
        return (yield from ended(call, found.turn, run_object, done))
    if (status == WAITS) != (as_seen(found).get("status") == WAITS):
        yield from now_shown(call, found.turn, found.replica, run_object)
    return None
