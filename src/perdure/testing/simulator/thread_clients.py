"""Clients of threads: they post a message, run the assistant, wait for it and read its reply."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from typing import Any, Final, TypeAlias

from perdure.dialects.items import text_of
from perdure.dialects.streams import is_event_stream
from perdure.engine.ops import Answer, Find
from perdure.model import value
from perdure.testing.simulator.clients import Attempt, Talk
from perdure.testing.simulator.reading import Reading, is_unsure
from perdure.testing.simulator.threads import ENDED, INTERIM
from perdure.testing.simulator.worker import DIED, TIMEOUT_SECONDS, Death
from perdure.testing.simulator.world import UPSTREAM, World

_OK: Final = 200
_REFUSED: Final = 400
_TOO_MANY: Final = 429
_ATTEMPTS: Final = 4
_WHILE_ACTIVE: Final = 8
_POLLS: Final = 25


@value
class _Ask:
    """A request to be made; ``subject`` is whose thread it makes."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    query: str = ""
    turn_id: str | None = None
    retry: int = 0
    reading: Reading | None = None
    subject: str | None = None


@value
class _Heard:
    """What came of a request; ``status`` 0: nothing."""

    status: int = 0
    body: Any = None
    died: bool = False

    @property
    def unsure(self) -> bool:
        """Whether it is told that the store failed."""
        return isinstance(self.body, dict) and is_unsure(self.body)


#: What a client does: it asks and hears, or waits for so many seconds.
_Script: TypeAlias = Generator[_Ask | float, Any, Any]


class ThreadClient:
    """Says marked messages on a thread, one after the other, and follows the run of each."""

    def __init__(self, world: World, talk: Talk, name: str, messages: int, *, named: bool) -> None:
        self._world = world
        self._talk = talk
        self._name = name
        self._left = messages
        self._named = named
        self.attempts: list[Attempt] = []

    def go_on(self) -> None:
        """Begin."""
        self._drive(self._talks(), None)

    def see_out(self) -> None:
        """Follow every run of the talk to its end, by the id that its client was given."""
        self._drive(self._sees_out(), None)

    @property
    def answered(self) -> bool:
        """Whether the newest message got its answer."""
        return self.attempts[-1].answered

    def _drive(self, script: _Script, heard: _Heard | None) -> None:
        """Take the script to its next request."""
        world = self._world
        try:
            step = script.send(heard)
        except StopIteration:
            return
        if not isinstance(step, _Ask):
            world.later(step, lambda: self._drive(script, None))
            return
        if self._talk.forgotten:
            return

        def done(answer: Answer | Death | None) -> None:
            self._drive(script, _heard(step, answer))

        world.request(
            step.body,
            method=step.method,
            path=step.path,
            query=step.query,
            turn_id=step.turn_id,
            subject=step.subject,
            retry=step.retry,
            reader=step.reading,
            done=done,
        )

    # -- what is said --------------------------------------------------------------------------

    def _talks(self) -> _Script:
        chance, first = self._world.chance, 0
        if self._talk.handle is None and not self._talk.begun:
            self._talk.begun = True
            yield from self._begins(f"{self._name}.0")
            first = 1
        while self._talk.handle is None:
            if self._talk.failed or self._talk.forgotten:
                return
            yield 1.0
        for number in range(first, self._left):
            yield from self._says(f"{self._name}.{number}")
            yield chance.uniform(0.0, 20.0)

    def _begins(self, mark: str) -> _Script:
        """Make the thread together with its first run; where nothing came of that, without one."""
        attempt = Attempt(self._name, mark, None)
        self.attempts.append(attempt)
        message = {"role": "user", "content": mark}
        made = {"thread": {"messages": [message]}, **self._run_body(attempt)}
        ask = _Ask("POST", "/threads/runs", made, reading=attempt.reading)
        started = yield from self._asks(replace(ask, subject=self._talk.subject))
        attempt.died = started.died
        run_id = self._run_of(attempt, started)
        run = attempt.reading.object if attempt.reading is not None else started.body
        if run_id is None or run is None:
            self._talk.failed = True
            return
        self._talk.handle = run["thread_id"]
        self._talk.runs.append(run_id)
        yield from self._follows(attempt, run_id)

    def _run_body(self, attempt: Attempt) -> dict[str, Any]:
        """Return what a run is asked for with: its tools, and whether it is streamed."""
        chance = self._world.chance
        run: dict[str, Any] = {"assistant_id": "asst_1"}
        if chance.random() < 0.2:  # noqa: PLR2004
            run["tools"] = [{"type": "function", "function": {"name": "look"}}]
        if chance.random() < 0.4:  # noqa: PLR2004
            run["stream"] = True
            attempt.reading = Reading(chance, self._world.odds, self._world.faults)
        return run

    def _sees_out(self) -> _Script:
        for run_id in self._talk.runs:
            yield from self._follows(Attempt(self._name, run_id, None), run_id)

    def _says(self, mark: str) -> _Script:
        """Post a message and run the assistant, or both in one call."""
        chance, thread = self._world.chance, self._talk.handle
        message = {"role": "user", "content": mark}
        attempt = Attempt(self._name, mark, None)
        self.attempts.append(attempt)
        run = self._run_body(attempt)
        if chance.random() < 0.2:  # noqa: PLR2004
            run["additional_messages"] = [message]
        else:
            posted = yield from self._writes(f"/threads/{thread}/messages", message, f"{mark}/m")
            if posted.status != _OK:
                return
        started = yield from self._writes(
            f"/threads/{thread}/runs", run, f"{mark}/r", attempt.reading
        )
        attempt.status, attempt.died = started.status or None, started.died
        run_id = self._run_of(attempt, started)
        if run_id is not None:
            self._talk.runs.append(run_id)
            yield from self._follows(attempt, run_id)

    def _run_of(self, attempt: Attempt, started: _Heard) -> str | None:
        """Return the id of the run that was begun; a stream tells it with its first event."""
        reading = attempt.reading
        run: dict[str, Any] = started.body or {}
        if reading is not None and reading.started:
            run = reading.object
            if reading.end is None and started.status == _OK and not reading.closed:
                self._amiss(f"{attempt.mark} got a stream that ended as if it were whole")
        elif started.status != _OK:
            return None
        if started.unsure or (reading is not None and reading.unsure):
            return None  # nobody asks again, so it is not known here
        self._told(attempt, run)
        return run.get("id")

    def _told(self, attempt: Attempt, run: dict[str, Any]) -> None:
        """Hear how a run is: one that the app is told to be over is over in the journal."""
        run_id, status = run.get("id"), run.get("status")
        if run_id is None or status not in ENDED:
            return
        world = self._world
        found = world.store.perform(Find(world.tenant, UPSTREAM, run_id))
        if found is None or not found.ended:
            self._amiss(f"{attempt.mark}: run {run_id} was told to be {status}, and is not")

    def _follows(self, attempt: Attempt, run_id: str) -> _Script:
        """Wait until a run has ended, give it what it asks for, and read what it said."""
        world, chance = self._world, self._world.chance
        path = f"/threads/{self._talk.handle}/runs/{run_id}"
        heard = _Heard()
        for _ in range(_POLLS):
            yield chance.uniform(0.5, 8.0)
            if chance.random() < world.odds.closed:
                world.faults["given up"] += 1
                return
            heard = yield from self._reads(path)
            if heard.status != _OK:
                continue
            status = heard.body["status"]
            self._told(attempt, heard.body)
            if self._talk.ended.get(run_id, status) != status:
                self._amiss(f"{attempt.mark}: run {run_id} had ended, and now is {heard.body}")
            if status in ENDED:
                self._talk.ended[run_id] = status
                if status == "completed":
                    yield from self._reads_reply(attempt, heard.body["id"])
                return
            if status == "requires_action" and chance.random() < 0.8:  # noqa: PLR2004
                yield from self._submits(path, heard.body)
            else:
                yield from self._looks(path)
        if not world.odds.crash:
            self._amiss(f"{attempt.mark}: run {run_id} does not come to its end: {heard}")

    def _looks(self, path: str) -> _Script:
        """Now and then somebody looks at the thread meanwhile, or has had enough."""
        chance, thread = self._world.chance, self._talk.handle
        match chance.randint(0, 19):
            case 0:
                yield from self._reads(f"/threads/{thread}/messages")
            case 1:
                yield from self._reads(f"/threads/{thread}/messages", "order=asc&limit=2")
            case 2:
                yield from self._reads(f"/threads/{thread}")
            case 3 if self._world.odds.crash:
                self._world.faults["cancelled"] += 1
                yield from self._writes(f"{path}/cancel", {}, None)

    def _submits(self, path: str, run: dict[str, Any]) -> _Script:
        chance = self._world.chance
        calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
        body: dict[str, Any] = {
            "tool_outputs": [{"tool_call_id": call["id"], "output": "fine"} for call in calls]
        }
        reading = None
        if chance.random() < 0.3:  # noqa: PLR2004
            body["stream"] = True
            reading = Reading(chance, self._world.odds, self._world.faults)
        yield from self._writes(f"{path}/submit_tool_outputs", body, None, reading)

    def _reads_reply(self, attempt: Attempt, run_id: str) -> _Script:
        chance = self._world.chance
        if self._world.odds.crash and chance.random() < 0.2:  # noqa: PLR2004
            return  # it is read by somebody else, or never
        query = chance.choice((f"run_id={run_id}&order=asc", "", "limit=3", "order=asc&limit=100"))
        if not self._world.odds.crash:
            query = f"run_id={run_id}"
        heard = yield from self._reads(f"/threads/{self._talk.handle}/messages", query)
        if heard.status == _OK:
            attempt.replies = [
                text_of(message)
                for message in heard.body["data"]
                if message["role"] == "assistant"
                and message.get("run_id") == run_id
                and not text_of(message).startswith(INTERIM)
            ]

    # -- requests and their repeats ------------------------------------------------------------

    def _writes(
        self, path: str, body: dict[str, Any], name: str | None, reading: Reading | None = None
    ) -> _Script:
        """Make a request that must not be made twice; waits for a run that is in its way."""
        turn_id = f"{self._world.tenant}/{name}" if self._named and name else None
        heard = _Heard()
        for _ in range(_WHILE_ACTIVE):
            heard = yield from self._asks(_Ask("POST", path, body, "", turn_id, 0, reading))
            active = heard.status == _REFUSED and "active" in str(heard.body)
            if not active:
                break
            yield self._world.chance.uniform(5.0, 30.0)
        return heard

    def _reads(self, path: str, query: str = "") -> _Script:
        heard = yield from self._asks(_Ask("GET", path, None, query))
        return heard

    def _asks(self, ask: _Ask) -> _Script:
        """Make a request, again where it got no answer, as an SDK and an app do."""
        world, chance = self._world, self._world.chance
        retry, heard = 0, _Heard()
        reading = ask.reading
        for _ in range(_ATTEMPTS):
            if reading is not None:
                reading.begin()
            heard = yield replace(ask, retry=retry)
            unsure = heard.died or heard.unsure or (reading is not None and reading.unsure)
            if not unsure and heard.status and heard.status < 500 and heard.status != _TOO_MANY:  # noqa: PLR2004
                return heard
            if not unsure and reading is not None and reading.started:
                return heard  # a run that has begun is followed, not begun again
            # A client without names for its turns that died cannot know what it had sent.
            lost = unsure and ask.method == "POST" and ask.turn_id is None
            if lost or chance.random() < 0.1:  # noqa: PLR2004
                world.faults["given up"] += 1
                return heard
            world.faults["repeat"] += 1
            retry = 0 if unsure else retry + 1
            yield chance.choice((0.5, 2.0, TIMEOUT_SECONDS, 100.0)) if unsure else 0.7
        return heard

    def _amiss(self, what: str) -> None:
        if not self._talk.forgotten:
            self._world.seen_amiss.append(what)


def _heard(ask: _Ask, answer: Answer | Death | None) -> _Heard:
    if not isinstance(answer, Answer):
        return _Heard(died=answer is DIED)
    reading = ask.reading
    if reading is not None and reading.started:
        return _Heard(answer.status)
    if is_event_stream(answer.header("content-type")):
        assert reading is not None
        reading.start(answer)
        reading.take(answer.body)
        return _Heard(answer.status)
    return _Heard(answer.status, json.loads(answer.body))
