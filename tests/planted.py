"""Protocol bugs, planted one at a time, so that the simulator can show that it would see them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, TypeAlias

import pytest

from perdure.dialects.streams import ResponseReader
from perdure.engine import (
    amnesia,
    deleting,
    delivery,
    lost_run,
    messages,
    prime,
    read,
    readback,
    respond,
    seen,
    threads,
    turns,
    underway,
)
from perdure.engine.ops import Answer, Fail
from perdure.engine.readback import ReadBack
from perdure.engine.underway import RunTap
from perdure.engine.wire import Created, Wire
from perdure.errors import StoreError
from perdure.flow import Flow
from perdure.stores.queries import load
from perdure.stores.sqlite import connection, endings, replicas
from perdure.stores.sqlite import turns as stored_turns

Patch: TypeAlias = pytest.MonkeyPatch
Bug: TypeAlias = Callable[[Patch], None]
NOTHING: Final = "SELECT 1 WHERE 0"


def sql(name: str, old: str, new: str) -> Bug:
    """Change one statement of the SQLite store."""

    def plant(patch: Patch) -> None:
        def changed(package: str, file: str) -> dict[str, str]:
            queries = load(package, file)
            assert old in queries[name], f"{name} has no {old!r} any more"
            return {**queries, name: queries[name].replace(old, new)}

        patch.setattr(connection, "load", changed)

    return plant


def statement(name: str, new: str) -> Bug:
    """Put another statement in the place of one."""

    def plant(patch: Patch) -> None:
        patch.setattr(connection, "load", lambda package, file: {**load(package, file), name: new})

    return plant


def both(one: Bug, other: Bug) -> Bug:
    """Plant two, of which each would make up for the other."""

    def plant(patch: Patch) -> None:
        one(patch)
        other(patch)

    return plant


def attribute(module: Any, name: str, new: Any) -> Bug:
    """Put something else in the place of a function."""

    def plant(patch: Patch) -> None:
        assert hasattr(module, name)
        patch.setattr(module, name, new)

    return plant


# -- engine ----------------------------------------------------------------------------------


def _not_there_so_send_again(*_args: Any, **_options: Any) -> Flow[ReadBack]:
    """Take a turn that is not found for one that never happened."""
    yield from ()
    return ReadBack(settled=True)


def _asked_not_settled(patch: Patch) -> None:
    read_back = readback.read_back

    def hopeful(*args: Any, **options: Any) -> Flow[ReadBack]:
        found = yield from read_back(*args, **options)
        return replace(found, settled=True)

    def as_if_clean(*args: Any) -> Flow[Any]:
        turn = yield from taken(*args)
        if isinstance(turn, turns.Turn):
            return replace(turn, replica=replace(turn.replica, doubtful=False))
        return turn

    taken = turns._taken
    patch.setattr(turns, "read_back", hopeful)
    patch.setattr(turns, "_taken", as_if_clean)


def _blind_retry(patch: Patch) -> None:
    """Send the same call again where its outcome is unknown."""
    attempts = respond._attempts

    def twice(asked: Any, sent: Any) -> Flow[Answer]:
        try:
            answer = yield from attempts(asked, sent)
        except Exception:  # noqa: BLE001  # that is the bug
            return (yield from attempts(asked, sent))
        return answer

    patch.setattr(respond, "_attempts", twice)


def _ambiguous_is_definite(wire: Any, turn: Any, failure: Any) -> Flow[None]:
    yield from Fail(wire.call.tenant, turn.key, "failed", str(failure), withdrawn=True)


def _no_intent(wire: Any, dialect: Any, conversation: int, send: Any) -> Flow[Created]:
    del wire, dialect, conversation
    answer = yield from send
    return Created(answer, "")


def _without_history(patch: Patch) -> None:
    build = prime.build

    def empty(*args: Any, **options: Any) -> Any:
        return replace(build(*args, **options), texts=())

    patch.setattr(prime, "build", empty)


def _only_the_tail(patch: Patch) -> None:
    build = prime.build

    def tail(*args: Any, **options: Any) -> Any:
        made = build(*args, **options)
        return replace(made, texts=made.texts[-2:])

    patch.setattr(prime, "build", tail)


def _never_primed(patch: Patch) -> None:
    completion = respond._completion
    patch.setattr(
        respond, "_completion", lambda *args: replace(completion(*args), primed=None)
    )  # fmt: skip


def _loss_is_passed_on(*_args: Any) -> Flow[None]:
    yield from ()


def _on_the_old_replica(asked: Any, replica: Any, *, anew: bool = False) -> Flow[Any]:
    """Address the conversation that the app named, whatever became of it."""
    old = replace(replica, handle=asked.turn.handle)
    return (yield from _ON_CONVERSATION(asked, old, anew=anew))


_ON_CONVERSATION = delivery._on_conversation


# -- streams and threads ---------------------------------------------------------------------


def _as_its_last_event_says(patch: Patch) -> None:
    """Take a response's output from the event that ends it, which may not have it."""
    observe = ResponseReader.observe

    def trusting(self: ResponseReader, event: Any) -> None:
        observe(self, event)
        if event.name == "response.completed":
            self.response = event.json()["response"]

    patch.setattr(ResponseReader, "observe", trusting)


def _every_error_is_a_failure(patch: Patch) -> None:
    """Take an error in the middle of a stream for the provider's word that nothing was done."""
    observe = ResponseReader.observe

    def sure(self: ResponseReader, event: Any) -> None:
        observe(self, event)
        self.failed = self.failed or self.fault is not None

    patch.setattr(ResponseReader, "observe", sure)


def _shows_and_forgets(patch: Patch) -> None:
    """Keep nothing of an answer that was cut."""
    patch.setattr(ResponseReader, "partial", lambda _self: [])


def _noted_when_it_ends(_self: RunTap) -> Flow[None]:
    yield from ()


def _nothing_said_meanwhile(*_args: Any) -> Flow[None]:
    yield from ()


def _all_is_stored(_turn: Any, last: Any) -> Flow[str]:
    """Say that an answer is stored although the store has failed."""
    with suppress(StoreError):
        yield from last
    return "stored"


def _over_before_it_is(patch: Patch) -> None:
    """Keep a run that has ended as one that is over, before its turn has its answer."""
    now_shown = messages.now_shown

    def as_it_is(call: Any, turn: Any, on: Any, run: Any, **options: Any) -> Any:
        body = json.dumps(run).encode()
        return replace(now_shown(call, turn, on, run, **options), body=body)

    for module in (lost_run, underway):
        patch.setattr(module, "now_shown", as_it_is)


# -- store -----------------------------------------------------------------------------------


def _no_journal(patch: Patch) -> None:
    append = stored_turns.append_items

    def nothing(tx: Any, conversation: int, first: int, seq: Any, items: Any) -> int:
        if items and items[0].role == "user":
            return first + len(items) - 1
        return append(tx, conversation, first, seq, items)

    patch.setattr(stored_turns, "append_items", nothing)


def _answered_again(patch: Patch) -> None:
    again = stored_turns._again

    def forgetful(tx: Any, op: Any, turn: Any) -> Any:
        state = "failed" if turn.state == "answered" else turn.state
        return again(tx, op, replace(turn, state=state))

    patch.setattr(stored_turns, "_again", forgetful)


def _no_orphan(*_args: Any) -> None:
    pass


def _nameless(*_args: Any) -> Flow[None]:
    """Delete at the provider what the log does not know by that id."""
    yield from ()


def _in_order(listed: Any, logged: Any, **_options: Any) -> Any:
    """Give the ids that are new to the items that have none, whatever they say."""
    known = {item.provider_id for item in logged}
    new = [one for one in listed if str(one.get("id")) not in known]
    return list(zip((item for item in logged if item.provider_id is None), new, strict=False))


def _as_it_lies(_tx: Any, _tenant: str, turn: Any, **_options: Any) -> Any:
    return turn


def _never_waits(tx: Any, op: Any, conversation: int, seq: int) -> bool:
    del tx, op, conversation, seq
    return False


def _not_judged_again(patch: Patch) -> None:
    for name in ("remembered_of", "remembered_from"):
        patch.setattr(stored_turns, name, lambda *_args: None)


PLANTED: Final[dict[str, Bug]] = {
    "no journal": _no_journal,
    "no compare-and-swap on the generation": sql(
        "bind_replica", "AND generation = :generation", ""
    ),
    "no fence on the answer": sql("complete_turn", "AND epoch = :epoch", ""),
    "a crashed worker keeps its epoch": sql(
        "abandon_crashed", "epoch = epoch + 1", "epoch = epoch"
    ),
    "nobody waits": attribute(stored_turns, "_must_wait", _never_waits),
    "only those ahead are waited for": sql(
        "turn_ahead", "key < (:conversation + 1) << 32", "key < (:conversation << 32) + :seq"
    ),
    "crashes are not noticed": statement("abandon_crashed", NOTHING),
    "no doubt after an unknown outcome": statement("doubt_replica", NOTHING),
    "not there, so send again": attribute(turns, "read_back", _not_there_so_send_again),
    "not found, and kept": _asked_not_settled,
    "a lost answer is a refusal": attribute(respond, "settle_failure", _ambiguous_is_definite),
    "blind retry": _blind_retry,
    "no orphan": attribute(replicas, "enter_orphan", _no_orphan),
    "no intent": attribute(Wire, "creating", _no_intent),
    "no history": _without_history,
    "only the tail": _only_the_tail,
    "the history again and again": _never_primed,
    "a loss is the caller's": attribute(respond, "_renewed", _loss_is_passed_on),
    "the old replica is sent to": attribute(delivery, "_on_conversation", _on_the_old_replica),
    "an answered turn is delivered again": _answered_again,
    "a turn stays where it was entered": attribute(stored_turns, "at_the_end", _as_it_lies),
    "what was refused is remembered": sql("history", "AND withdrawn = 0", ""),
    "the head stays behind": sql(
        "complete_conversation",
        "COALESCE(:head, replica_handle)",
        "COALESCE(replica_handle, :head)",
    ),
    "an unknown turn is dropped with its replica": sql(
        "abandon_unknown", "SET state = 'failed'", "SET state = 'answered'"
    ),
    "the last event says it all": _as_its_last_event_says,
    "an error in a stream is a failure": _every_error_is_a_failure,
    "what was shown is forgotten": _shows_and_forgets,
    "a run's messages are read some time": attribute(
        stored_turns, "_unread_first", lambda *_args: None
    ),
    "a run ends unseen": attribute(threads, "_said_meanwhile", _nothing_said_meanwhile),
    "an answer is stored, or not": attribute(respond, "end", _all_is_stored),
    "a run is over before its turn is": _over_before_it_is,
    "a run is known by its end": attribute(RunTap, "heard", _noted_when_it_ends),
    "a message stands where it was entered": attribute(
        endings, "_stands_on_thread", lambda *_args: None
    ),
    "an old run leads nowhere": statement("replace_handle", NOTHING),
    "any run may be whose it is not": statement("run_of_unknown_id", NOTHING),
    "a rebuilt replica may lack older history": sql(
        "adopted", "AND rebuilt_with < adopted + :added", "AND 0"
    ),
    "a rebuilt chain may lack older history": sql("find_handle", "h.rebuilt_with < r.adopted", "0"),
    "a run says all of it after its outputs": statement("is_apart", "SELECT 0"),
    "forgetting leaves the items": statement("erase_item", NOTHING),
    "what was deleted is told again": sql("history", "AND tombstoned_at IS NULL", ""),
    "what was only sent is not known by its id": both(
        attribute(deleting, "_named", _nameless), attribute(read, "note_seen", _nameless)
    ),
    "what was sent is named by its place alone": attribute(seen, "aligned", _in_order),
    "a replica keeps what was deleted": attribute(replicas, "mark", lambda *_args: None),
    "an answer goes unlogged": attribute(endings, "append_items", lambda *_args: 0),
    "forgetting goes unnoticed": attribute(amnesia, "judge", lambda *_args: "unjudged"),
    "who had to wait is not judged": _not_judged_again,
}
