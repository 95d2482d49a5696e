"""Two stores that are asked the same things answer the same things, whatever they are asked.

Random operations, some of them without sense, on few names, so that they meet each other. What
differs by nature (the numbers of orphans) is left out of the comparison.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure.engine import ops
from perdure.model import NewItem, Recovery, Remembered, Snapshot, TurnKey
from tests.servers import DatabaseClock, postgres

UPSTREAMS = ["https://a.example/v1", "https://b.example/v1"]
TENANTS = ["one", "two"]
SUBJECTS = [None, None, "ann", "bob"]
DIALECTS = ["responses", "responses", "conversations", "threads"]
GIVEN = [("outputs_of", 1), ("outputs_of", 1), ("outputs_of", 2), ("refused", 1), ("refused", 2)]
STEPS = 160


class Asker:
    """Makes operations up from what earlier ones have answered."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.turns: list[TurnKey] = []
        self.conversations: dict[int, Any] = {}
        self.dialects: dict[str, Any] = {}
        self.ids: list[str] = []
        self.runs: list[str] = []
        self.intents: list[str] = []
        self.made = 0

    def fresh(self, kind: str) -> str:
        self.made += 1
        return f"{kind}_{self.made}"

    def some(self, values: Any, other: Any = None) -> Any:
        values = list(values)
        return self.random.choice(values) if values else other

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def items(self, most: int = 3, *, ids: bool = False) -> tuple[NewItem, ...]:
        made = []
        for _ in range(self.random.randint(0, most)):
            name = self.fresh("msg")
            provider_id = None
            if ids:
                provider_id = name if self.chance(0.8) else self.some(self.ids)
                if provider_id is not None:
                    self.ids.append(provider_id)
            wire = f'{{"type":"message","role":"user","content":"{name} é😀"}}'
            form = self.some([None, None, "", '{"finished":true}'])
            role = self.some(["user", "assistant", None])
            made.append(
                NewItem(wire, form, "message", role, self.some([None, "call"]), provider_id)
            )
        return tuple(made)

    def recovery(self, generation: int) -> Recovery | None:
        if self.chance(0.6):
            return None
        turn = self.some(self.turns)
        return Recovery(
            conversation=self.conversation(),
            turn_id=turn.turn_id if turn else None,
            reason="gone",
            generation=generation,
            lost_handle=self.handle(),
            new_handle=self.fresh("new"),
            memory=self.some(["full", "partial"]),
            primed=self.random.randint(0, 9),
            left_out=0,
            requests=2,
        )

    def handle(self) -> str:
        if self.chance(0.1) or not self.dialects:
            name = self.fresh("handle")
            self.dialects[name] = self.some(DIALECTS)
            return name
        return str(self.some(self.dialects))

    def conversation(self) -> int:
        return int(self.some(self.conversations, 0))

    def tenant(self) -> str:
        return "one" if self.chance(0.95) else "two"

    def upstream(self) -> str:
        return UPSTREAMS[0] if self.chance(0.95) else UPSTREAMS[1]

    def turn(self) -> TurnKey:
        if not self.turns or self.chance(0.02):
            return TurnKey(1, 99, 1, "1.99")
        key: TurnKey = self.some(self.turns[-6:])
        return replace(key, epoch=key.epoch + self.some([0, 0, 0, 0, 0, 0, 1, -1]))

    # -- operations --------------------------------------------------------------------------

    def accept(self) -> ops.Accept:
        handle = self.handle() if self.chance(0.7) else None
        dialect = self.dialects[handle] if handle else self.some(DIALECTS)
        waiting = None
        if self.turns and self.chance(0.2):
            waiting = self.some(self.turns[-4:])
        if waiting is not None:
            dialect = self.conversations[waiting.conversation]
        return ops.Accept(
            tenant=self.tenant() if waiting is None else "one",
            upstream=self.upstream(),
            dialect=dialect,
            kind=self.some(["respond", "respond", "append", "run"]),
            turn_id=f"turn-{self.random.randint(1, 12)}" if self.chance(0.25) else None,
            body_hash=self.some(["h1", "h1", "h2"]),
            items=self.items(),
            request='{"request":true}',
            handle=handle,
            subject=self.some(SUBJECTS) if handle is None else None,
            waiting_for=waiting,
            looked=self.some([None, *self.runs[-2:]]),
            lost=self.some(self.runs[-4:]) if waiting and self.chance(0.4) else None,
            interim=self.chance(0.3),
            sent_ids=tuple(self.some([None, *self.ids[-5:]]) for _ in range(2)),
            lease_seconds=self.some([30.0, 60.0]),
            retry=self.chance(0.2),
            once=self.chance(0.1),
            deadline_seconds=self.some([50.0, 600.0]),
        )

    def complete(self) -> ops.Complete:
        key = self.turn()
        dialect = self.conversations.get(key.conversation, "responses")
        response = self.some([None, self.fresh("resp"), self.fresh("resp"), self.handle()])
        if response is not None:
            self.dialects.setdefault(response, dialect)
        own = tuple((self.fresh("own"), '{"shown":true}') for _ in range(self.some([0, 0, 0, 1])))
        self.ids += [one for one, _ in own]
        return ops.Complete(
            tenant="one",
            upstream=self.upstream(),
            dialect=dialect,
            turn=key,
            status=200,
            body=b'{"answer":"\xff"}',
            content_type="application/json",
            items=self.items(ids=True),
            response_id=response,
            head=response if dialect == "responses" else None,
            model="m",
            input_tokens=self.some([None, 12]),
            primed=self.some([None, 0, 0, 1, 2]),
            own=own,
            handle_kind=self.some(["response", "run"]),
            unread=self.some([None, True, False]),
            settles=self.chance(0.2),
            remembered=self.some([None, Remembered(-300, 20, "m"), Remembered(9, 0, "m", "t")]),
            recovery=self.recovery(self.random.randint(0, 3)),
            lost=self.some([None, self.handle()]),
            forgot=self.some([None, None, None, self.handle()]),
        )

    def fail(self) -> ops.Fail:
        return ops.Fail(
            "one",
            self.turn(),
            self.some(["failed", "unknown", "unknown"]),
            "because",
            withdrawn=self.chance(0.3),
            partial=self.items(1) if self.chance(0.4) else (),
        )

    def underway(self) -> ops.Underway:
        name = self.fresh(self.some(["run", "run", "resp"]))
        if self.runs and self.chance(0.3):
            name = self.runs[-1]
        key = self.turn()
        self.dialects[name] = self.conversations.get(key.conversation, "responses")
        if name.startswith("run"):
            self.runs.append(name)
        return ops.Underway(
            tenant="one",
            upstream=self.upstream(),
            turn=key,
            response_id=name,
            body=self.some([b"{}", b"[]"]),
            generation=self.some([None, 0, 0, 1]),
            partial=self.items(1) if self.chance(0.3) else (),
            partial_of=tuple(self.ids[-1:]) if self.chance(0.3) else (),
            waits_for=self.some([None, None, "call_1", "call_2"]),
            **self.some([{}, {}, {}, {}, *({what: f"call_{n}"} for what, n in GIVEN)]),
            unasked=self.chance(0.3),
            recovery=self.recovery(1) if self.chance(0.3) else None,
            lost=self.handle() if self.chance(0.2) else None,
        )

    def discard(self, upstream: str, conversation: int) -> ops.Discard:
        handle, replica = self.handle(), self.chance(0.4)
        return ops.Discard("one", upstream, "threads", conversation, handle, replica=replica)

    def bind(self) -> ops.Bind:
        conversation = self.conversation()
        handle = self.fresh("conv") if self.chance(0.85) else self.handle()
        dialect = self.some(["conversations", "threads"])
        self.dialects.setdefault(handle, dialect)
        return ops.Bind(
            tenant="one",
            upstream=self.upstream(),
            dialect=dialect,
            conversation=conversation,
            generation=self.random.randint(0, 2),
            handle=handle,
            intent=self.some(self.intents, "none"),
            primed_through=self.random.randint(0, 5),
            turn=self.some([None, None, self.turn()]),
            lost=self.some([None, self.handle()]),
            orphan=self.chance(0.5),
            recovery=self.recovery(self.random.randint(1, 3)),
            body=self.some([b"", b'{"metadata":{}}']),
        )

    def bind_new(self) -> ops.BindNew:
        handle = self.fresh("conv") if self.chance(0.85) else self.handle()
        dialect = self.some(["conversations", "threads"])  # a response is made by a turn
        self.dialects.setdefault(handle, dialect)
        return ops.BindNew(
            tenant=self.tenant(),
            upstream=self.upstream(),
            dialect=dialect,
            handle=handle,
            items=self.items(ids=True),
            body=self.some([b"", b'{"id":"it"}']),
            intent=self.some(self.intents, "none"),
            subject=self.some(SUBJECTS),
            primed_through=self.random.randint(0, 3),
            recovery=self.recovery(self.random.randint(1, 3)),
        )

    def bring_in(self) -> ops.BringIn:
        handle = self.fresh("thread") if self.chance(0.4) else self.handle()
        self.dialects.setdefault(handle, "threads")
        return ops.BringIn(
            tenant=self.tenant(),
            upstream=self.upstream(),
            dialect="threads",
            handle=handle,
            items=self.items(ids=True),
            behind=self.some([0, 0, 1, 2, 3]),
            subject=self.some(SUBJECTS),
            facts=self.some([(), ("a", "b")]),
        )

    def intend(self) -> ops.Intend:
        self.intents.append(self.fresh("intent"))
        where = self.some([0, self.conversation()])
        return ops.Intend(self.tenant(), self.upstream(), "threads", where, self.intents[-1])

    def learn(self) -> ops.Learn:
        named = tuple(
            (self.random.randint(0, 9), self.fresh("named"), '{"named":true}')
            for _ in range(self.some([0, 0, 0, 2]))
        )
        self.ids += [one for _, one, _ in named]
        items = self.items(ids=True)
        said_by = tuple(self.some([None, None, "run_of_nobody", *self.runs[-3:]]) for _ in items)
        return ops.Learn(
            tenant="one",
            conversation=self.conversation(),
            items=items,
            whole=self.chance(0.4),
            named=named,
            said_by=said_by,
            read=self.some([None, *self.runs[-2:]]),
            generation=self.some([None, None, 0, 0, 1]),
            older=self.random.randint(0, len(items)) if named else 0,
            since_outputs=self.some([None, None, *self.runs[-2:]]),
        )

    def page(self) -> ops.Page:
        return ops.Page(
            "one",
            self.conversation(),
            newest_first=self.chance(0.5),
            limit=self.random.randint(1, 5),
            after=self.some([None, None, *self.ids[-8:]]),
            above=self.some([None, None, None, *range(-4, 9)]),
            below=self.some([None, None, None, *range(-2, 16)]),
            turn_response=(response := self.some([None, None, *self.dialects])),
            inputs=response is not None and self.chance(0.5),
        )

    def one(self) -> Any:
        """One operation."""
        tenant, upstream = self.tenant(), self.upstream()
        conversation = self.conversation()
        some_id = self.some(self.ids, "msg_0")
        made = [
            (30, self.accept),
            (20, self.complete),
            (8, self.fail),
            (4, self.underway),
            (4, lambda: ops.Renew("one", tuple(self.turn() for _ in range(2)), 45.0)),
            (6, lambda: ops.Unsettled("one", conversation, self.random.randint(0, 9))),
            (3, lambda: ops.Settle("one", conversation, self.random.randint(0, 2))),
            (3, self.intend),
            (2, lambda: ops.CallOff(tenant, self.some(self.intents, "none"))),
            (6, self.bind),
            (5, self.bind_new),
            (5, self.bring_in),
            (2, lambda: ops.Refresh(tenant, upstream, self.handle(), b'{"metadata":{"a":"b"}}')),
            (2, lambda: ops.MarkLost(tenant, upstream, self.handle())),
            (2, lambda: self.discard(upstream, conversation)),
            (1, lambda: ops.Retire(tenant, upstream, self.handle())),
            (2, lambda: ops.Tombstone(
                "one", upstream, conversation, some_id, self.some([None, None, self.handle()])
            )),
            (4, lambda: ops.Orphans(
                tenant, upstream, self.random.randint(1, 5), self.some([0.0, 30.0])
            )),
            (2, lambda: ops.Leftovers(tenant, self.some([None, upstream]))),
            (1, lambda: ops.Throttle(tenant, upstream, self.some([5.0, 50.0]))),
            (1, lambda: ops.Throttled(tenant, upstream)),
            (2, lambda: ops.Unused(tenant, upstream, self.some([10.0, 100.0]), 2)),
            (8, lambda: ops.Find(tenant, upstream, self.handle())),
            (8, lambda: ops.History(
                "one", conversation, self.random.randint(0, 20), self.some([10, 60, 9999]),
                self.some([None, ops.ANY, "1", '"id":"msg_1']),
            )),
            (8, self.page),
            (3, lambda: ops.Runs(
                "one", upstream, conversation, self.chance(0.5), self.random.randint(1, 5),
                self.some([None, None, 0, 1, 3]), self.some([None, None, 2, 4, 9]),
            )),
            (3, lambda: ops.OneItem(tenant, self.some([None, conversation]), some_id)),
            (4, self.learn),
            (3, lambda: ops.Adopted(
                "one", conversation, self.items(ids=True), self.chance(0.5), self.chance(0.2)
            )),
            (3, lambda: ops.Adopting("one", conversation)),
            (2, lambda: ops.FindSubject(tenant, self.some(["ann", "bob", "eve"]))),
            (2, lambda: ops.Pin(tenant, self.some(["ann", "bob"]), "allergic")),
            (3, lambda: ops.ReadHistory(
                tenant, self.some(["ann", "bob"]), 4, self.some([None, 3, 8]),
                self.some([None, 0, 4]),
            )),
            (2, lambda: ops.ReadRecovery("one", conversation, self.random.randint(0, 3))),
            (2, lambda: ops.ReadTurn(tenant, f"turn-{self.random.randint(1, 12)}")),
            (2, lambda: ops.Excerpts(
                tenant, conversation, self.random.randint(0, 12),
                ((-3, 2), (4, self.random.randint(4, 12))), 5,
                oldest=self.random.random() < 0.5,
                wire=self.some([None, ops.ANY, "1"]),
            )),
            (1, lambda: ops.KeepSnapshot(
                tenant, conversation,
                Snapshot(self.random.randint(1, 6), self.random.randint(1, 6), "So far.", "x"),
            )),
            (1, lambda: ops.DropSnapshots(tenant, conversation)),
            (0.5, lambda: ops.Forget(tenant, self.some(["ann", "bob"]))),
        ]  # fmt: skip
        weights = [weight for weight, _ in made]
        return self.random.choices([make for _, make in made], weights)[0]()

    def heard(self, op: Any, answer: Any) -> None:
        """Remember what later operations can be about."""
        if isinstance(answer, ops.Accepted) and answer.turn and answer.turn.epoch:
            assert isinstance(op, ops.Accept)
            if op.tenant == "one":
                self.turns.append(answer.turn)
                self.conversations.setdefault(answer.turn.conversation, op.dialect)
        if op.tenant != "one":
            return
        if isinstance(answer, ops.Found) and not answer.foreign:
            self.conversations.setdefault(answer.conversation, answer.replica.dialect)
        if isinstance(answer, ops.Subject):
            self.conversations.setdefault(answer.conversation, answer.replica.dialect)


def comparable(answer: Any) -> Any:
    """An answer without what differs by nature."""
    if isinstance(answer, ops.Orphan):
        return (answer.upstream, answer.dialect, answer.handle)
    if isinstance(answer, ops.Doubt):  # turns without items stand where the next one begins
        turns = sorted(answer.turns, key=lambda turn: turn.key.seq)
        return (answer.after, answer.skip, *map(comparable, turns))
    if isinstance(answer, ops.Forgotten):
        return replace(answer, orphans=tuple(sorted(map(comparable, answer.orphans))))
    if isinstance(answer, tuple):
        return tuple(map(comparable, answer))
    if is_dataclass(answer):
        return (type(answer).__name__, *(
            (field.name, comparable(getattr(answer, field.name))) for field in fields(answer)
        ))  # fmt: skip
    return round(answer, 3) if isinstance(answer, float) else answer


@pytest.fixture
def url() -> Iterator[str]:
    with postgres().database() as url:
        yield url


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_the_same_questions_have_the_same_answers(seed: int, tmp_path: Path, url: str) -> None:
    asker = Asker(seed)
    with closing(DatabaseClock(url)) as clock:
        sqlite = perdure.open_store(
            f"sqlite:///{tmp_path}/it.db?synchronous=normal", clock=clock.now
        )
        with closing(sqlite), closing(perdure.open_store(url)) as database:
            for step in range(STEPS):
                op = asker.one()
                answer, other = sqlite.perform(op), database.perform(op)
                assert comparable(answer) == comparable(other), f"seed {seed}, step {step}: {op}"
                asker.heard(op, answer)
                if asker.chance(0.3):
                    clock.advance(asker.some([0.5, 5.0, 40.0]))
