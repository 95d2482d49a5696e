"""What must be true of a store after a history, whatever happened in it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from perdure.testing.simulator.clients import Attempt
from perdure.testing.simulator.journal import Item, Journal, Turn
from perdure.testing.simulator.provider import marks
from perdure.testing.simulator.reading import Reading
from perdure.testing.simulator.threads import INTERIM
from perdure.testing.simulator.world import World

_SPOKEN: Final = frozenset({"completed", "incomplete"})
_OUTPUT: Final = "o:"
_ELSEWHERE: Final = re.compile(r"t\d+e\d+")


def problems(
    world: World,
    attempts: list[Attempt],
    erased: set[str],
    elsewhere: list[tuple[str, ...]],
) -> tuple[list[str], int, int]:
    """Return what is wrong, how many turns there were, and how many of them were answered."""
    journal = world.site.read(world.tenant)
    found = [
        *_lost(world, journal, erased),
        *_replies(world, journal),
        *_runs(world, journal),
        *_what_callers_saw(journal, attempts, erased),
        *_what_was_shown(journal, attempts, erased),
        *_replicas(journal),
        *_remote_objects(world, journal, erased),
        *_what_was_erased(world, journal, erased),
        *_adopted(world, journal, elsewhere),
        *_what_was_deleted(world, journal),
    ]
    answered = sum(turn.state == "answered" for turn in journal.turns)
    return found, len(journal.turns), answered


def _lost(world: World, journal: Journal, erased: set[str]) -> Iterator[str]:
    """No accepted message is lost."""
    pending = [turn for turn in journal.turns if turn.state == "pending"]
    marks = {item.mark for item in journal.items if item.role == "user"}
    marks |= {
        item.mark for item in journal.everything for turn in pending if _same_turn(item, turn)
    }
    for key, mark in world.accepted.items():
        if key not in world.refused and mark not in marks and _talk_of(mark) not in erased:
            yield f"accepted and lost: {mark} of turn {key}"


def _talk_of(mark: str) -> str:
    return mark.split("c", 1)[0].split("z", 1)[0]


def _same_turn(item: Item, turn: Turn) -> bool:
    return (item.conversation, item.seq) == (turn.conversation, turn.seq)


def _replies(world: World, journal: Journal) -> Iterator[str]:
    """Each answered model call has one whole reply, made from exactly the transcript before it."""
    for turn in journal.turns:
        if turn.kind != "respond" or turn.state != "answered":
            continue
        replies = [item for item in journal.items if _is_reply(item, turn)]
        if len(replies) != 1:
            yield f"{turn} has {len(replies)} replies"
            continue
        (reply,) = replies
        if reply.text not in world.provider.said:
            yield f"{turn} was answered with what nobody said: {reply.text}"
        _, _, text = reply.text.partition(" <- ")
        context = text.split()
        own = [item.mark for item in journal.items if turn.owns(item)]
        if context[len(context) - len(own) :] != own:
            yield f"{turn} was answered from {context}, which does not end in {own}"
            continue
        transcript = journal.before(turn.conversation, turn.first)
        whole = reply.text not in world.provider.said_from_nothing
        before = context[: len(context) - len(own)]
        yield from _made_from(world, journal, turn, transcript, before, whole=whole)


def _is_reply(item: Item, turn: Turn) -> bool:
    """Whether an item is of the turn's answer, and not what was shown of one before a cut."""
    return _same_turn(item, turn) and item.role == "assistant" and item.id in turn.output


def _made_from(
    world: World,
    journal: Journal,
    reply: Turn | Item,
    transcript: list[Item],
    context: list[str],
    *,
    whole: bool = True,
) -> Iterator[str]:
    """Each reply was made from the transcript, but for questions that had no answer."""
    known = {item.mark for item in transcript}
    context = [mark for mark in context if mark in known or not _may_be_unread(world, mark)]
    rest = iter(item.mark for item in transcript)
    if not all(mark in rest for mark in context):
        marks = [item.mark for item in transcript]
        yield f"{reply} was made from {context}, but the transcript is {marks}"
        return
    if not whole:
        return
    turns = {(turn.conversation, turn.seq): turn for turn in journal.turns}
    for item in transcript:
        turn = turns.get((item.conversation, item.seq or 0))
        if item.role == "user":
            wanted = turn is not None and turn.state == "answered" and turn.owns(item)
        elif item.run_id is not None:
            wanted = True
        else:
            wanted = turn is not None and turn.state == "answered" and _is_reply(item, turn)
        if wanted and item.mark not in context and item.mark not in world.removing:
            yield f"{reply} was made without {item.mark}, from {context}"


def _what_was_deleted(world: World, journal: Journal) -> Iterator[str]:
    """Nothing is made from what was deleted through us, and confirmed, before it was asked for.

    Who died may ask again by a turn of its own; it is another message, which the provider may never
    have shown.
    """
    turns: defaultdict[str, set[tuple[int, int | None]]] = defaultdict(set)
    for item in journal.items:
        if item.role == "user":
            turns[item.mark].add((item.conversation, item.seq))
    for turn in journal.turns:
        began = world.delivered.get((turn.conversation, turn.seq))
        if began is None:
            continue
        for item in journal.items:
            mine = _same_turn(item, turn) or item.run_id in turn.runs
            if item.role != "assistant" or not mine:
                continue
            _, _, text = item.text.partition(" <- ")
            for mark in text.split():
                if world.removed.get(mark, began) < began and len(turns[mark]) <= 1:
                    yield f"deleted and there again: {mark} in {item} of {turn}"


def _may_be_unread(world: World, mark: str) -> bool:
    """Whether nobody need have read it: it was said before the talk came here, or is gone.

    What a run said before it asked for outputs may have vanished while the app was looking them up.
    """
    gone = mark.startswith(INTERIM) and mark not in world.provider.threads.marks()
    return gone or _ELSEWHERE.match(mark) is not None


def _adopted(world: World, journal: Journal, elsewhere: list[tuple[str, ...]]) -> Iterator[str]:
    """Of what was said before a talk came here the log has the newest, in order, each once.

    What a response was asked may be missing where it was lost before that was read, and so may
    what somebody has deleted.
    """
    provider = world.provider
    lost = world.removing | {
        mark
        for handle, asked in provider.asked.items()
        if handle not in provider.responses
        for mark in marks(asked.own)
    }
    for said in elsewhere:
        found = [item.mark for item in journal.items if item.mark in said]
        whole = [mark for mark in said if mark in found or mark not in lost]
        if found != whole[len(whole) - len(found) :]:
            yield f"of {said} the log has {found}"


def _runs(world: World, journal: Journal) -> Iterator[str]:
    """Each run has one reply at most, made from exactly the messages before it."""
    said: defaultdict[str, list[Item]] = defaultdict(list)
    for item in journal.items:
        if item.run_id is not None and item.role == "assistant":
            said[item.run_id].append(item)
    for turn in journal.turns:
        if turn.kind != "run":
            continue
        everything = [item for run_id in turn.runs for item in said.pop(run_id, [])]
        replies = [item for item in everything if not item.mark.startswith(INTERIM)]
        if len(replies) > 1:
            yield f"{turn} was answered {len(replies)} times: {[*map(str, replies)]}"
        # What one said that nobody saw ask for outputs is taken for its answer.
        over = turn.state == "answered" and turn.answer["status"] in _SPOKEN
        if over and not everything and world.provider.completed_runs.isdisjoint(turn.runs):
            yield f"{turn} was told to be over, had not come to its end, and said nothing"
        removed = not world.provider.removed_runs.isdisjoint(turn.runs)
        if not replies and not removed and _has_been_read(journal, turn):
            yield f"{turn} has ended, was read, and has no reply"
        for item in everything:
            yield from _said_by(world, journal, item)
    for run_id, replies in said.items():
        yield f"a reply of a run that no turn began: {run_id}, {[*map(str, replies)]}"


def _has_been_read(journal: Journal, turn: Turn) -> bool:
    """Whether a run's reply must be in the log: it was there, on the replica that there is."""
    run = turn.answer
    if turn.state != "answered":
        return False
    conversation = journal.conversations[turn.conversation]
    on_replica = run["thread_id"] == conversation.replica
    return run["status"] in _SPOKEN and on_replica and conversation.unread != turn.seq


def _said_by(world: World, journal: Journal, reply: Item) -> Iterator[str]:
    if reply.text not in world.provider.said:
        yield f"nobody said {reply}"
    _, _, text = reply.text.partition(" <- ")
    context = [mark for mark in text.split() if not mark.startswith(_OUTPUT)]
    transcript = journal.before(reply.conversation, reply.position)
    # Who has read it before its thread forgot it, and overslept, enters it behind what came since.
    late = reply.run_id in world.provider.forgotten_runs
    whole = not late and reply.text not in world.provider.said_from_nothing
    yield from _made_from(world, journal, reply, transcript, context, whole=whole)


def _what_callers_saw(journal: Journal, attempts: list[Attempt], erased: set[str]) -> Iterator[str]:
    """All who got an answer to a message got the same one, and it is in the log."""
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for attempt in attempts:
        seen[attempt.mark] |= set(attempt.replies)
        if len(attempt.replies) > 1:
            yield f"{attempt.mark} was answered {len(attempt.replies)} times: {attempt.replies}"
    replies = {item.text for item in journal.items if item.role == "assistant"}
    for mark, texts in seen.items():
        if len(texts) > 1:
            yield f"{mark} was answered differently: {sorted(texts)}"
        if not texts <= replies and _talk_of(mark) not in erased:
            yield f"the answer to {mark} is not in the log: {sorted(texts)}"


def _what_was_shown(journal: Journal, attempts: list[Attempt], erased: set[str]) -> Iterator[str]:
    """All that was shown of an answer before it was cut is in the log, until all of it is."""
    for attempt in attempts:
        reading = attempt.reading
        if reading is None or not reading.shown or _talk_of(attempt.mark) in erased:
            continue
        turn = _cut_turn(journal, attempt, reading)
        if turn is None:
            continue
        kept = [
            item
            for item in journal.everything
            if _same_turn(item, turn) and item.role == "assistant"
        ]
        if not any(item.text.startswith(reading.shown) for item in kept):
            yield f"shown and not stored: {reading.shown!r} of {turn}"
        elif turn.state != "answered" and all(item.withdrawn for item in kept):
            yield f"shown and withdrawn: {reading.shown!r} of {turn}"


def _cut_turn(journal: Journal, attempt: Attempt, reading: Reading) -> Turn | None:
    """Return the turn whose stream was cut while its worker lived and nobody had taken it over."""
    if reading.turn is not None:
        place = (reading.turn.conversation, reading.turn.seq)
        return next(turn for turn in journal.turns if (turn.conversation, turn.seq) == place)
    if attempt.died or reading.unstored or (reading.end is not None and not reading.failed):
        return None
    run_id = reading.object.get("id")
    return next((turn for turn in journal.turns if turn.runs[-1:] == (run_id,)), None)


def _replicas(journal: Journal) -> Iterator[str]:
    """There is at most one live replica per conversation, and so per generation."""
    for conversation, count in Counter(number for number, _ in journal.live).items():
        if count > 1:
            yield f"conversation {conversation} has {count} live replicas"


def _remote_objects(world: World, journal: Journal, erased: set[str]) -> Iterator[str]:
    """Whatever was created is bound, or an orphan, or left an intent by a worker that died."""
    unknown = world.provider.created - world.provider.deleted - journal.handles
    if erased:  # of what was erased only that is kept which is still to be deleted
        unknown &= set(world.provider.handles())
    if len(unknown) > journal.intents:
        yield f"nobody knows of {sorted(unknown)}; {journal.intents} intents"


def _what_was_erased(world: World, journal: Journal, erased: set[str]) -> Iterator[str]:
    """Erased is erased."""
    for item in journal.everything:
        if item.mark in world.erased and _talk_of(item.mark) in erased:
            yield f"erased and there again: {item}"
    for conversation in journal.stray:
        yield f"items are left of conversation {conversation}, which was erased"
