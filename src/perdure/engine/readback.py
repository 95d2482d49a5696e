"""Reading back: what became of turns on a shared replica whose outcome is unknown.

A conversation shows the items of a turn all at once, when the turn is complete. So what stands
there behind the last item that we know was done, and can be taken over as if it had been answered
then. What does not stand there may still be under way: nothing follows from that, and the replica
is thrown away. It is never sent again to the same one. A run stands on its thread from its start
(`lost_run`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from perdure.dialects import items as item_forms
from perdure.dialects.routes import path_to
from perdure.dialects.shapes import is_page
from perdure.engine import amnesia
from perdure.engine.collapse import collapse_of, tell_of_collapse
from perdure.engine.decoding import decoded
from perdure.engine.lost_run import lost_run
from perdure.engine.ops import Complete, Find, Found, Settle, Unsettled
from perdure.engine.ops.turns import Doubt, UnsettledTurn
from perdure.engine.rebuild import NotRebuilt
from perdure.engine.sameness import may_be
from perdure.engine.wire import Wire, may_pass
from perdure.flow import Flow
from perdure.model import NewItem, Recovery, Remembered, Replica, StoredAnswer, StoredItem, value

_PAGE: Final = 100
_LISTS: Final = {"conversations": "items", "threads": "messages"}


@value
class ReadBack:
    """``settled``: the replica can be used; ``answer`` is that of the turn that asked, if found."""

    settled: bool
    answer: StoredAnswer | None = None


def read_back(wire: Wire, conversation: int, replica: Replica, asking: int = 0) -> Flow[ReadBack]:
    """Look for unsettled turns on their replica and give those that stand there their answers.

    ``asking`` is the number of the turn that wants to know. Costs one request. A replica that turns
    out to have collapsed is given up: the answers that stand on it count, the next one is made on
    a new replica. Raises
    :class:`NotRebuilt` with the provider's answer where it cannot be read just now: a replica is
    not replaced on the word of a server that fails. One that may not be read (by this key, or on
    this server) is replaced.
    """
    call = wire.call
    doubt = yield from Unsettled(call.tenant, conversation, asking)
    if [turn.kind for turn in doubt.turns] == ["run"]:
        begun = yield from lost_run(wire, replica, doubt.turns[0])
        if begun is not None:
            yield from Settle(call.tenant, conversation, replica.generation)
        return ReadBack(settled=begun is not None, answer=begun)
    shown = yield from _shown(wire, replica, doubt)
    listed = None if shown is None else _behind(doubt, shown)
    found = [] if listed is None else _found(doubt, listed)
    told = None
    if shown is not None and shown.whole:
        told = yield from collapse_of(
            call, conversation, replica, shown.newest_first, requests=wire.requests
        )
    answer = None
    known = (yield from Find(call.tenant, call.upstream, replica.handle or "")) if found else None
    for one in found:
        body = _answer(one, conversation)
        stored = yield from Complete(
            tenant=call.tenant,
            upstream=call.upstream,
            dialect=replica.dialect,
            turn=one.turn.key,
            status=200,
            body=body,
            content_type="application/json",
            items=one.output,
            response_id=str(json.loads(body)["id"]) if one.turn.kind == "respond" else None,
            primed=replica.generation,
            own=one.own,
            settles=True,
            remembered=_still_remembered(known, one),
        )
        if stored != "done":
            return ReadBack(settled=False)
        if one.turn.key.seq == asking:
            answer = StoredAnswer(200, body, "application/json")
    if len(found) < len(doubt.turns) or not found:
        return ReadBack(settled=False)
    if isinstance(told, Recovery):
        yield from tell_of_collapse(call, replica, told)
    if not isinstance(told, Recovery) or call.policy.on_amnesia == "warn":
        yield from Settle(call.tenant, conversation, replica.generation)
    return ReadBack(settled=True, answer=answer)


def _still_remembered(known: Found | None, found: _Found) -> Remembered | None:
    """Return what was remembered before: the history has grown, unless it was compacted."""
    return known.remembered if known is not None and amnesia.is_plain(found.listed) else None


@value
class _Shown:
    """The newest items on a replica; ``whole``: it has no others."""

    newest_first: list[dict[str, Any]]
    whole: bool


def _shown(wire: Wire, replica: Replica, doubt: Doubt) -> Flow[_Shown | None]:
    """Read what stands on the replica; None where that cannot tell what became of the turns."""
    located = doubt.after is not None or doubt.skip is not None
    if not doubt.turns or not located or replica.dialect not in _LISTS:
        return None
    if replica.dialect == "threads" and any(turn.kind == "run" for turn in doubt.turns):
        return None  # a run among other turns: its thread's messages do not tell them apart
    path = path_to(replica.dialect, replica.handle, _LISTS[replica.dialect])
    listed = yield from wire.own("GET", f"{path}?order=desc&limit={_PAGE}")
    answer, page = decoded(listed, is_page)
    judgement = yield from wire.judge(answer, replica.dialect, replica.handle)
    if judgement.verdict != "ok":
        if may_pass(answer, judgement):
            raise NotRebuilt(answer)
        return None  # it is gone, or may not be read
    return _Shown(page.get("data") or [], whole=page.get("has_more") is False)


def _behind(doubt: Doubt, shown: _Shown) -> list[dict[str, Any]] | None:
    """Return what stands behind what is known, oldest first; None: cannot tell."""
    if doubt.after is not None:
        ids = [str(item.get("id")) for item in shown.newest_first]
        if doubt.after not in ids:
            return None
        return list(reversed(shown.newest_first[: ids.index(doubt.after)]))
    if not shown.whole:
        return None
    return list(reversed(shown.newest_first))[doubt.skip or 0 :]


@value
class _Found:
    """A turn that stands on its replica: its own items' ids there, and what followed them."""

    turn: UnsettledTurn
    own: tuple[tuple[str, str], ...]
    output: tuple[NewItem, ...]
    listed: tuple[dict[str, Any], ...]


def _found(doubt: Doubt, listed: list[dict[str, Any]]) -> list[_Found]:
    """Return the turns that stand there, or none where anything else does."""
    found: list[_Found] = []
    rest = listed
    for number, turn in enumerate(doubt.turns):
        own, rest = rest[: len(turn.items)], rest[len(turn.items) :]
        if not _are(turn.items, own):
            return found if not own else []
        output: list[dict[str, Any]] = []
        following = doubt.turns[number + 1].items if number + 1 < len(doubt.turns) else ()
        while turn.kind == "respond" and rest and not (following and _begin(following, rest)):
            output.append(rest.pop(0))
        if turn.kind == "respond" and not output:
            return []
        if any(wire.get("role") == "user" for wire in output):
            return []  # it was sent more than its own items: what it was sent is not told apart
        ids = tuple((str(wire.get("id")), item_forms.dumps(wire)) for wire in own)
        listed_now = tuple(output if turn.kind == "respond" else own)
        found.append(_Found(turn, ids, item_forms.new_items(output), listed_now))
    return found if not rest else []


def _begin(items: Sequence[StoredItem], listed: list[dict[str, Any]]) -> bool:
    return _are(items, listed[: len(items)])


def _are(items: Sequence[StoredItem], listed: list[dict[str, Any]]) -> bool:
    """Whether a provider's list shows just these items; it shows a text as a list of parts."""
    return len(items) == len(listed) and all(
        may_be(json.loads(item.wire), wire) for item, wire in zip(items, listed, strict=True)
    )


def _answer(found: _Found, conversation: int) -> bytes:
    """Return the answer that the app would have got, as far as the replica still shows it."""
    turn = found.turn
    if turn.kind != "respond":
        if turn.kind == "append" and found.listed and "object" in found.listed[0]:
            return item_forms.dumps(found.listed[0]).encode()
        data = list(found.listed)
        ends = {"first_id": data[0].get("id"), "last_id": data[-1].get("id")} if data else {}
        page = {"object": "list", "data": data, "has_more": False, **ends}
        return item_forms.dumps(page).encode()
    response = {
        "id": f"resp_perdure{conversation:016x}{turn.key.seq:016x}{turn.key.epoch:08x}",
        "object": "response",
        "created_at": int(turn.items[0].created_at) if turn.items else 0,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": json.loads(turn.request).get("model"),
        "output": list(found.listed),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
        "metadata": {},
        "perdure": {"read_back": True, "turn_id": turn.key.turn_id},
    }
    return item_forms.dumps(response).encode()
