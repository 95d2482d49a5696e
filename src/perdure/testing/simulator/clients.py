"""Clients of model calls: they say marked messages, and repeat what got no answer, or let it be."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from perdure.dialects.items import text_of
from perdure.dialects.streams import is_event_stream
from perdure.engine.ops import Answer
from perdure.testing.simulator.reading import Reading, is_unsure
from perdure.testing.simulator.worker import DIED, TIMEOUT_SECONDS, Death
from perdure.testing.simulator.world import World, question

Kind: TypeAlias = Literal["conversation", "chain", "subject", "thread"]
_OK: Final = 200
_OLDER: Final = 2  # responses: fewer have no older one
_GOES_BACK: Final = 0.25
_IN_THE_BACKGROUND: Final = 0.2
_NOT_POLLED: Final = 0.1
_POLLS: Final = 12


@dataclass(slots=True)
class Talk:
    """One conversation: how it is named on the wire, and whether it was forgotten.

    ``subject``: the app's user that it belongs to, for one that can be forgotten. A thread that is
    made by its first run is ``begun``, and then has a handle or has ``failed``. ``responses`` and
    ``runs`` are those that clients were given, ``ended`` what became of the runs that were seen to
    end; ``elsewhere`` are the marks of what had been said before it came here. ``branches`` says
    when a chain goes on from an older response than the newest, ``moods`` when an answer is made in
    the background, and read.
    """

    name: str
    kind: Kind
    subject: str | None = None
    handle: str | None = None
    elsewhere: tuple[str, ...] = ()
    forgotten: bool = False
    begun: bool = False
    failed: bool = False
    branches: random.Random | None = None
    moods: random.Random = field(default_factory=random.Random)
    responses: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)

    def go_back(self) -> bool:
        """Have a chain go on from an older response now and then; whether it does."""
        if (
            self.branches is None
            or len(self.responses) < _OLDER
            or self.branches.random() > _GOES_BACK
        ):
            return False
        self.handle = self.branches.choice(self.responses[:-1])
        return True

    def at(self) -> dict[str, str]:
        """Return the members that name it."""
        if self.handle is None:
            return {}
        return {
            "conversation" if self.kind == "conversation" else "previous_response_id": self.handle
        }


@dataclass(slots=True)
class Attempt:
    """One request of a client, as the client knows it; ``replies`` are texts of whole answers."""

    client: str
    mark: str
    turn_id: str | None
    status: int | None = None  # None: no answer at all
    replies: list[str] = field(default_factory=list)
    died: bool = False
    reading: Reading | None = None
    background: bool = False

    @property
    def answered(self) -> bool:
        """Whether the client has a whole answer."""
        return bool(self.replies)


class Client:
    """Says marked messages one after the other; repeats what got no answer, or lets it be."""

    def __init__(self, world: World, talk: Talk, name: str, messages: int, *, named: bool) -> None:
        self._world = world
        self._talk = talk
        self._name = name
        self._left = messages
        self._named = named or talk.kind == "subject"
        self._said = 0
        self.attempts: list[Attempt] = []

    def go_on(self) -> None:
        """Say the next message, if there is one."""
        if self._left == 0 or self._talk.forgotten:
            return
        self._left -= 1
        mark = f"{self._name}.{self._said}"
        self._said += 1
        if self._talk.go_back():
            self._world.faults["branch"] += 1
        stream = self._world.mix == "streams" and self._world.chance.random() < 0.7  # noqa: PLR2004
        behind = not stream and self._talk.moods.random() < _IN_THE_BACKGROUND
        self.say(mark, stream=stream, background=behind)

    def say(
        self,
        mark: str,
        *,
        stream: bool,
        background: bool = False,
        retry: int = 0,
        until: int = 4,
    ) -> None:
        """Make one attempt at a message."""
        if self._talk.forgotten:
            return
        world = self._world
        turn_id = f"{world.tenant}/{mark}" if self._named else None
        reading = Reading(world.chance, world.odds, world.faults) if stream else None
        attempt = Attempt(self._name, mark, turn_id, reading=reading, background=background)
        self.attempts.append(attempt)

        def done(answer: Answer | Death | None) -> None:
            self._heard(attempt, answer, retry=retry, until=until)

        more: dict[str, Any] = {"stream": True} if stream else {}
        if background:
            more = {"background": True}
        self._world.request(
            question(mark, **self._talk.at(), **more),
            turn_id=turn_id,
            subject=self._talk.subject if self._talk.kind == "subject" else None,
            retry=retry,
            done=done,
            reader=reading,
        )

    def _heard(
        self, attempt: Attempt, answer: Answer | Death | None, *, retry: int, until: int
    ) -> None:
        world, chance = self._world, self._world.chance
        attempt.died = answer is DIED
        if self._talk.forgotten:
            return
        response = _response(world, attempt, answer)
        going_on = response.get("status") in {"queued", "in_progress"}
        if attempt.background and going_on and not is_unsure(response):
            self._polls(attempt, response["id"])
            return
        # After a fault of the store it is for the app to ask again, as after its own end.
        reading = attempt.reading
        died = attempt.died or is_unsure(response) or (reading is not None and reading.unsure)
        if attempt.answered:
            self._goes_on_from(response["id"])
            return
        # Somebody who did not want to read on seldom asks again.
        gives_up = 0.7 if reading is not None and reading.closed else 0.1
        # A client without names for its turns that died cannot know what it had sent.
        if (died and not self._named) or retry + 1 >= until or chance.random() < gives_up:
            world.faults["given up"] += 1
            world.later(chance.uniform(0.0, 20.0), self.go_on)
            return
        world.faults["repeat"] += 1
        # A stream that broke is not repeated by the SDK, only by the app.
        again = 0 if died or (reading is not None and reading.started) else retry + 1
        pause = chance.choice((0.5, 2.0, TIMEOUT_SECONDS, 100.0)) if died else 0.7
        stream = reading is not None
        world.later(
            pause,
            lambda: self.say(
                attempt.mark,
                stream=stream,
                background=attempt.background,
                retry=again,
                until=until,
            ),
        )

    def _goes_on_from(self, response_id: str) -> None:
        if self._talk.kind == "chain":
            self._talk.handle = response_id
            self._talk.responses.append(response_id)
        self._world.later(self._world.chance.uniform(0.0, 20.0), self.go_on)

    def _polls(self, attempt: Attempt, response_id: str, left: int = _POLLS) -> None:
        """Ask for an answer that is made in the background, until it is there; or let it be."""
        world = self._world
        if self._talk.forgotten:
            return
        if left == 0 or self._talk.moods.random() < _NOT_POLLED:
            world.faults["not polled"] += 1
            self._goes_on_from(response_id)
            return

        def done(answer: Answer | Death | None) -> None:
            response = _response(world, attempt, answer)
            if attempt.answered:
                self._goes_on_from(response_id)
            elif isinstance(answer, Answer) and response.get("status") is None:
                world.later(world.chance.uniform(0.0, 20.0), self.go_on)  # it is gone
            else:
                self._polls(attempt, response_id, left - 1)

        def ask() -> None:
            world.request(None, method="GET", path=f"/responses/{response_id}", done=done)

        world.later(self._talk.moods.uniform(1.0, 10.0), ask)

    @property
    def answered(self) -> bool:
        """Whether the newest message got its answer."""
        return self.attempts[-1].answered


def _response(world: World, attempt: Attempt, answer: Answer | Death | None) -> dict[str, Any]:
    """Note what a client got, and return the response if it got one."""
    reading = attempt.reading
    if isinstance(answer, Answer):
        attempt.status = answer.status
        if reading is None or not reading.started:
            if not is_event_stream(answer.header("content-type")):
                response: dict[str, Any] = json.loads(answer.body)
                if answer.status == _OK and not is_unsure(response):
                    attempt.replies = [text_of(item) for item in response["output"]]
                return response
            assert reading is not None
            reading.take(answer.body)
            reading.started = True
    if reading is None:
        return {}
    if reading.unsure:
        return reading.object
    if reading.end is not None and not reading.failed:
        attempt.replies = reading.replies()
        if not attempt.replies:
            world.seen_amiss.append(f"{attempt.mark} got a stream that ended well and said nothing")
    elif isinstance(answer, Answer) and reading.end is None and not reading.closed:
        world.seen_amiss.append(f"{attempt.mark} got a stream that ended as if it were whole")
    return reading.object
