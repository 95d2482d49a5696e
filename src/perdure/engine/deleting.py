"""Deleting through us: what is deleted stays deleted, and does not come back with a prime."""

from __future__ import annotations

import json
from typing import Any, Final

from perdure.dialects import items as item_forms
from perdure.dialects.body import object_in, objects_in
from perdure.dialects.routes import escaped, path_to
from perdure.dialects.shapes import is_object
from perdure.dialects.verdicts import Judgement
from perdure.engine.decoding import decoded
from perdure.engine.delivery import young
from perdure.engine.journalled import FROM_JOURNAL, id_of, no_item, place_of
from perdure.engine.ops import (
    ANY,
    Answer,
    Found,
    History,
    Learn,
    Retire,
    Span,
    Spawn,
    Tombstone,
)
from perdure.engine.rebuild import as_named
from perdure.engine.sameness import may_be
from perdure.engine.seen import aligned
from perdure.engine.sweep import sweep_quietly
from perdure.engine.threads import live_path
from perdure.engine.wire import NOT_THERE, Call, Wire, may_pass
from perdure.flow import Flow
from perdure.model import Dialect, StoredItem, value

_ALL: Final = 1 << 40  # tokens
_NEXT: Final = 100
_FURTHEST: Final = 1 << 40
_DELETED: Final[dict[Dialect, str]] = {
    "responses": "response",
    "conversations": "conversation.deleted",
    "threads": "thread.deleted",
}


def delete(wire: Wire, found: Found, handle: str) -> Flow[Answer]:
    """Delete through us: written down before it is sent, so that it stays deleted.

    What the provider has lost is there for the app, so it can be deleted: costs no request where
    the loss is known. Where the server may only lack the route its own answer is passed on.
    """
    call = wire.call
    if call.route.child is not None:
        return (yield from _delete_item(wire, found, call.route.child))
    yield from Retire(call.tenant, call.upstream, handle)
    if call.dialect == "responses":
        answer = yield from wire.send(call.content)
        judgement = yield from wire.judge(answer, "responses", handle)
        may_exist = young(call.policy, "responses", found.age_seconds)
        return _deleted(call) if _is_gone(judgement) and not may_exist else answer
    replica = as_named(found.replica, call.dialect, handle, found.state)
    if replica.state == "lost":
        return _deleted(call)
    named = replica.handle or handle
    answer = yield from wire.send(call.content, path=live_path(call, named))
    judgement = yield from wire.judge(answer, call.dialect, named)
    return _deleted(call) if _is_gone(judgement) else answer


def _is_gone(judgement: Judgement) -> bool:
    """Whether there is nothing to delete; to infer that is no proof of it."""
    return judgement.verdict == "gone" and not judgement.inferred


def _deleted(call: Call) -> Answer:
    gone = {"id": call.route.handle, "object": _DELETED[call.dialect], "deleted": True}
    return Answer(200, FROM_JOURNAL, item_forms.dumps(gone).encode())


def _delete_item(wire: Wire, found: Found, child: str) -> Flow[Answer]:
    """Delete one item. A rebuilt replica knows it under no id of ours, so it is replaced.

    One that the app only sent has an id at the provider that is not known here: it is read first,
    which costs one request, and two more where the log has several that it could be.
    """
    call = wire.call
    at = (call.tenant, call.upstream, found.conversation, child)
    removed = yield from Tombstone(*at)
    if removed == "unknown":
        refused = yield from _named(wire, found, child)
        if refused is not None:
            return refused
        removed = yield from Tombstone(*at)
    lives = found.replica.generation == 0 and found.replica.state == "live"
    if removed in {"unknown", "before"} and not lives:
        return no_item(call)
    if removed != "replaced":
        answer = yield from wire.send(call.content)
        judgement = yield from wire.judge(answer, call.dialect, found.replica.handle)
        if judgement.verdict != "gone" or removed != "there":
            return answer
        yield from Tombstone(*at, gone=found.replica.handle)
    yield from Spawn("sweep", sweep_quietly(call.tenant, call.upstream))
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


def _named(wire: Wire, found: Found, child: str) -> Flow[Answer | None]:
    """See to it that the log knows an item by an id, if it has it; returns the provider's refusal.

    What is deleted must not come back with the next prime.
    """
    call = wire.call
    made, wanted = place_of(child), None
    if made is None:
        if found.replica.generation > 0 or found.replica.state != "live":
            return None
        got = yield from wire.own("GET", live_path(call, found.replica.handle))
        answer, shown = decoded(got, is_object)
        if answer.status in NOT_THERE:
            return None
        if not answer.ok:  # deleted all the same, it would come back
            return answer
        wanted = shown
    everything = History(call.tenant, found.conversation, found.last_position, _ALL, wire=ANY)
    log = yield from everything
    unnamed = [item for item in log.items if item.provider_id is None]
    if wanted is None:
        mine = [item for item in unnamed if (found.conversation, item.position) == made][-1:]
    else:
        mine = [item for item in unnamed if may_be(json.loads(item.wire), wanted)]
    if len(mine) > 1:
        around = yield from _around(wire, found, child)
        if isinstance(around, Answer):
            return around
        mine = _told_apart({**(wanted or {}), "id": child}, mine, log, around)
    for copy in mine[:-1]:
        copy_id = id_of(copy, found.conversation)
        yield from _name(call, found, copy, copy_id)
        yield from Tombstone(call.tenant, call.upstream, found.conversation, copy_id)
    for item in mine[-1:]:
        yield from _name(call, found, item, child)
    return None


def _name(call: Call, found: Found, item: StoredItem, item_id: str) -> Flow[None]:
    named = ((item.position, item_id, item.wire),)
    yield from Learn(call.tenant, found.conversation, (), whole=True, named=named)


@value
class _Around:
    """What a provider lists next to an item, oldest first, the item left out.

    ``begins`` and ``ends``: it lists nothing before that, and nothing behind it.
    """

    before: list[dict[str, Any]]
    behind: list[dict[str, Any]]
    begins: bool
    ends: bool


def _around(wire: Wire, found: Found, child: str) -> Flow[_Around | Answer]:
    """Read what stands next to an item; the provider's refusal where it may be over soon."""
    call = wire.call
    path = path_to(call.dialect, found.replica.handle, call.route.part)
    sides: list[tuple[list[dict[str, Any]], bool]] = []
    for order in ("desc", "asc"):
        query = f"after={escaped(child)}&order={order}&limit={_NEXT}"
        answer = yield from wire.own("GET", f"{path}?{query}")
        judgement = yield from wire.judge(answer, call.dialect, found.replica.handle)
        if may_pass(answer, judgement):  # deleted all the same, it would come back
            return answer
        page = object_in(answer.body) if answer.ok else {}
        sides.append((objects_in(page.get("data")), page.get("has_more") is False))
    (before, begins), (behind, ends) = sides
    return _Around(before[::-1], behind, begins, ends)


def _told_apart(
    shown: dict[str, Any],
    alike: list[StoredItem],
    log: Span,
    around: _Around,
) -> list[StoredItem]:
    """Return what is to be deleted of all that an item could be, by what stands next to it.

    That is the item, the last of them, and attempts at it that failed: they stand next to it, and
    the provider has none of them. All that are alike, where it cannot be told: what is deleted
    must not come back.
    """
    listed = [*around.before, shown, *around.behind]
    pairs = aligned(listed, log.items, begins=around.begins and log.complete, ends=around.ends)
    at = {str(one.get("id")): item.position for item, one in pairs}
    position = at.get(shown["id"])
    if position is None:
        return alike
    stand = set(at.values()) - {position}
    places = {item.position for item in log.items if item.provider_id or item.position in stand}
    low = max((place for place in places if place < position), default=-_FURTHEST)
    high = min((place for place in places if place > position), default=_FURTHEST)
    near = [item for item in alike if low < item.position < high]
    return sorted(near, key=lambda item: item.position == position)
