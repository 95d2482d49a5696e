"""What must be true of a store after a history, whatever happened in it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from perdure.dialects.items import text_of
from perdure.model import value
from perdure.testing.simulator.world import Attempt, World

_OK = 200


@value
class _Item:
    conversation: int
    position: int
    seq: int | None
    role: str
    text: str

    @property
    def mark(self) -> str:
        return self.text.split(" ", 1)[0]


@value
class _Turn:
    conversation: int
    seq: int
    turn_id: str | None
    state: str
    first: int
    last: int


class _Log:
    """The journal of one tenant, read as it stands in the database."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.items = [
            _Item(row[0], row[1], row[2], row[3], text_of(json.loads(row[4])))
            for row in self.rows(
                "SELECT conversation, position, turn_seq, role, wire FROM perdure_item "
                "WHERE withdrawn = 0 AND conversation IN "
                "(SELECT conversation FROM perdure_conversation WHERE tenant = ?) "
                "ORDER BY conversation, position"
            )
        ]
        self.turns = [
            _Turn(*row)
            for row in self.rows(
                "SELECT conversation, seq, turn_id, state, first_position, last_position "
                "FROM perdure_turn WHERE tenant = ? ORDER BY key"
            )
        ]
        self.origins = {
            row[0]: row[1:]
            for row in self.rows(
                "SELECT conversation, origin_conversation, origin_position "
                "FROM perdure_conversation WHERE tenant = ?"
            )
        }

    def rows(self, query: str) -> list[Any]:
        """Run a query with the tenant as its one value."""
        return self.all(query, self._world.tenant)

    def all(self, query: str, *values: str) -> list[Any]:
        """Run a query."""
        database = self._world.store._database  # type: ignore[attr-defined]  # noqa: SLF001
        found: list[Any] = database.read(lambda tx, _op: tx.execute(query, values).fetchall(), None)
        return found

    def before(self, conversation: int, position: int) -> list[_Item]:
        """Return what stands before a position, through the origins of a branch."""
        origin, at = self.origins[conversation]
        inherited = [] if origin is None else self.before(origin, at + 1)
        own = [
            item
            for item in self.items
            if item.conversation == conversation and item.position < position
        ]
        return [*inherited, *own]


def problems(world: World, attempts: list[Attempt], erased: set[str]) -> tuple[list[str], int, int]:
    """Return what is wrong, how many turns there were, and how many of them were answered."""
    log = _Log(world)
    found = [
        *_lost(world, log, erased),
        *_replies(log),
        *_what_callers_saw(log, attempts, erased),
        *_replicas(log),
        *_remote_objects(world, log),
        *_what_was_erased(world, log, erased),
    ]
    answered = sum(turn.state == "answered" for turn in log.turns)
    return found, len(log.turns), answered


def _lost(world: World, log: _Log, erased: set[str]) -> Iterator[str]:
    """No accepted message is lost."""
    waiting = log.rows(
        "SELECT i.wire FROM perdure_item i JOIN perdure_turn t "
        "ON t.key = (i.conversation << 32) + i.turn_seq WHERE t.tenant = ? AND t.state = 'pending'"
    )
    marks = {item.mark for item in log.items if item.role == "user"}
    marks |= {text_of(json.loads(wire)) for (wire,) in waiting}
    for key, mark in world.accepted.items():
        if key not in world.refused and mark not in marks and _talk_of(mark) not in erased:
            yield f"accepted and lost: {mark} of turn {key}"


def _talk_of(mark: str) -> str:
    return mark.split("c", 1)[0].split("z", 1)[0]


def _replies(log: _Log) -> Iterator[str]:
    """Each answered turn has one reply, made from exactly the transcript before it."""
    for turn in log.turns:
        replies = [
            item
            for item in log.items
            if (item.conversation, item.seq, item.role)
            == (turn.conversation, turn.seq, "assistant")
        ]
        if turn.state != "answered":
            continue
        if len(replies) != 1:
            yield f"turn {turn} has {len(replies)} replies"
            continue
        (reply,) = replies
        _, _, text = reply.text.partition(" <- ")
        context = text.split()
        own = [item.mark for item in log.items if _is_own(item, turn)]
        if context[len(context) - len(own) :] != own:
            yield f"turn {turn} was answered from {context}, which does not end in {own}"
            continue
        yield from _made_from(log, turn, context[: len(context) - len(own)])


def _is_own(item: _Item, turn: _Turn) -> bool:
    inside = turn.first <= item.position <= turn.last
    return item.conversation == turn.conversation and inside


def _made_from(log: _Log, turn: _Turn, context: list[str]) -> Iterator[str]:
    transcript = log.before(turn.conversation, turn.first)
    rest = iter(item.mark for item in transcript)
    if not all(mark in rest for mark in context):
        yield (
            f"turn {turn} was answered from {context}, "
            f"but the transcript is {[item.mark for item in transcript]}"
        )
        return
    replied = {(item.conversation, item.seq) for item in transcript if item.role == "assistant"}
    states = {(other.conversation, other.seq): other for other in log.turns}
    for item in transcript:
        key = (item.conversation, item.seq or 0)
        other = states.get(key)
        settled = other is not None and other.state == "answered" and key in replied
        own = other is not None and _is_own(item, other)
        wanted = settled and (item.role == "assistant" or own)
        if wanted and item.mark not in context:
            yield f"turn {turn} was answered without {item.mark}, from {context}"


def _what_callers_saw(log: _Log, attempts: list[Attempt], erased: set[str]) -> Iterator[str]:
    """All who got an answer to a message got the same one, and it is in the log."""
    seen: dict[str, set[str]] = {}
    for attempt in attempts:
        if attempt.status == _OK:
            (said,) = attempt.body["output"]
            seen.setdefault(attempt.mark, set()).add(text_of(said))
    replies = {item.text for item in log.items if item.role == "assistant"}
    for mark, texts in seen.items():
        if len(texts) > 1:
            yield f"{mark} was answered differently: {sorted(texts)}"
        if not texts <= replies and _talk_of(mark) not in erased:
            yield f"the answer to {mark} is not in the log: {sorted(texts)}"


def _replicas(log: _Log) -> Iterator[str]:
    """There is at most one live replica per conversation, and so per generation."""
    for row in log.rows(
        "SELECT conversation, count(*) FROM perdure_handle "
        "WHERE tenant = ? AND kind = 'conversation' AND state = 'live' "
        "GROUP BY conversation HAVING count(*) > 1"
    ):
        yield f"conversation {row[0]} has {row[1]} live replicas"


def _remote_objects(world: World, log: _Log) -> Iterator[str]:
    """Whatever was created is bound, or an orphan, or left an intent by a worker that died."""
    known = {
        row[0]
        for query in (
            "SELECT handle FROM perdure_handle WHERE tenant = ?",
            "SELECT handle FROM perdure_orphan WHERE tenant = ? AND handle IS NOT NULL",
        )
        for row in log.rows(query)
    }
    intents = log.rows("SELECT count(*) FROM perdure_orphan WHERE tenant = ? AND handle IS NULL")[
        0
    ][0]
    unknown = world.provider.created - known
    if len(unknown) > intents:
        yield f"nobody knows of {sorted(unknown)}; {intents} intents"


def _what_was_erased(world: World, log: _Log, erased: set[str]) -> Iterator[str]:
    """Erased is erased."""
    for item in log.items:
        if item.mark in world.erased and _talk_of(item.mark) in erased:
            yield f"erased and there again: {item}"
    for row in log.all(
        "SELECT DISTINCT conversation FROM perdure_item "
        "WHERE conversation NOT IN (SELECT conversation FROM perdure_conversation)"
    ):
        yield f"items are left of conversation {row[0]}, which was erased"


def count(outcomes: list[Any]) -> Counter[str]:
    """Return how often each fault happened in all."""
    total: Counter[str] = Counter()
    for outcome in outcomes:
        total.update(outcome.faults)
    return total
