"""Processes that talk on one PostgreSQL database, and the process that starts and kills them.

A program of its own, started by tests/test_killed_talkers_lose_nothing.py. It prints, as JSON, how
many talkers it has killed and what they had been answered. Each thread of a talker has one
conversation at a time, of one kind; whoever comes after it goes on from what it has told.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import mmap
import os
import random
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, TypeVar

import openai

import perdure
from tests.killer import Killer, failed
from tests.worker import LOST_HEADS, TURNS, Control, message, respond

T = TypeVar("T")

SLOTS = 5
KINDS = ("conversation", "response", "thread")  # one for each thread of a talker
LINES = SLOTS * len(KINDS)
MEAN_SECONDS = 0.9
ALL_AT_ONCE = 0.05
#: The database's clock goes that much faster, so that what a dead talker held is free soon.
FASTER = 300
#: By the database's clock: the SDK repeats a call by itself for as long as one may take here.
TIMEOUT_SECONDS = 60.0 * FASTER
ENDS_WITHIN_SECONDS = 40.0
AGAIN_SECONDS = 0.02
LOST_IN_A_ROW = 10  # a replica that is lost so often is not lost by chance
LOOKS_EVERY_SECONDS = 0.1


@dataclass(frozen=True)
class Said:
    """A turn that was answered, as its caller saw it: told by a talker, outside of any store."""

    conversation: int
    turn: int  # -1: a conversation was made
    handle: str
    reply: str = ""
    answer: str = ""
    runs: int = 1  # how many it took: a thread that vanishes takes a reply along that nobody read

    @property
    def line(self) -> str:
        return f"said {json.dumps(asdict(self))}"


def read(lines: list[str]) -> list[Said]:
    """What has been told of answers."""
    told = [line.partition(" ") for line in lines]
    return [Said(**json.loads(said)) for what, _, said in told if what == "said"]


@dataclass(frozen=True)
class Place:
    """Where talkers talk."""

    store: str
    provider: str
    assistant: str
    seed: int


def kind_of(conversation: int) -> str:
    return KINDS[conversation % len(KINDS)]


def turn_id(conversation: int, turn: int) -> str:
    return f"{conversation}.{turn}"


class Talker:
    """One process: a thread for each of its conversations, and one that looks at others'."""

    def __init__(self, place: Place, pipe: int) -> None:
        policy = perdure.Policy(visibility_wait=timedelta(0))
        self.sdk = openai.OpenAI(
            api_key="sk-test",
            base_url=place.provider,
            timeout=TIMEOUT_SECONDS,
            http_client=perdure.http_client(place.store, policy=policy),
        )
        self.place = place
        self.moments = random.Random(f"{place.seed}.{os.getpid()}")
        self.pipe = pipe

    # -- telling -----------------------------------------------------------------------------

    def tell(self, line: str) -> None:
        os.write(self.pipe, f"{line}\n".encode())

    def until_done(self, ask: Callable[[], T]) -> T:
        """Ask until there is an answer that is stored, as an app does that must know."""
        lost = 0
        while True:
            try:
                answer = ask()
            except openai.InternalServerError as error:
                if error.code != "store_unavailable":
                    raise
                self.tell(f"again {error.code}")
            except openai.NotFoundError:  # the new replica was gone as well before it was used
                lost += 1
                if lost > LOST_IN_A_ROW:
                    raise
                self.tell("again lost_twice")
            except openai.ConflictError as error:  # taken for dead
                self.tell(f"again {error.code}")
            except openai.APIConnectionError:
                self.tell("again cut_stream")
            else:
                told = (getattr(answer, "model_extra", None) or {}).get("perdure") or {}
                if told.get("stored") is not False:
                    return answer
                self.tell("again not_stored")
            time.sleep(AGAIN_SECONDS)

    # -- talking -----------------------------------------------------------------------------

    def talk(self, line: int, told: list[Said], ending: mmap.mmap) -> None:
        """Go on with the conversations of a line, one after another."""
        control = Control(self.place.provider)
        newest = told[-1] if told else Said(line - LINES, TURNS - 1, "")
        repeated = True  # perhaps: what somebody before has begun and not told of
        while True:
            if newest.turn + 1 == TURNS:
                if ending[0] and not repeated:
                    return
                newest = Said(newest.conversation + LINES, -1, "")
                if kind_of(newest.conversation) != "response":
                    handle = self.until_done(functools.partial(self.made, newest.conversation)).id
                    newest = Said(newest.conversation, -1, handle)
                    self.tell(newest.line)
            if not repeated and kind_of(newest.conversation) == "response":
                self.lose(newest.handle, control)
            newest, repeated = self.say(newest), False
            self.tell(newest.line)

    def lose(self, head: str, control: Control) -> None:
        """Let a response that nothing continues be lost, sometimes.

        One that is lost once another continues it takes its part of the context along.
        """
        if head and self.moments.random() < LOST_HEADS:
            control.forgets(head)

    def made(self, conversation: int) -> Any:
        if kind_of(conversation) == "thread":
            return self.sdk.beta.threads.create()
        return self.sdk.conversations.create()

    def say(self, before: Said) -> Said:
        conversation, turn, handle = before.conversation, before.turn + 1, before.handle
        text, quoted = message(conversation, turn)
        if kind_of(conversation) == "thread":
            said = self.say_on_thread(conversation, turn, handle, text)
        else:
            said = self.say_in_response(conversation, turn, handle, text)
        if quoted not in said.reply:
            raise AssertionError((said, text))
        return said

    def say_in_response(self, conversation: int, turn: int, handle: str, text: str) -> Said:
        shared = kind_of(conversation) == "conversation"
        at: dict[str, Any] = {"extra_headers": {"Perdure-Turn": turn_id(conversation, turn)}}
        if handle:
            at["conversation" if shared else "previous_response_id"] = handle
        response = self.until_done(lambda: respond(self.sdk, text, at, stream=turn % 3 == 1))
        return Said(
            conversation,
            turn,
            handle if shared else response.id,
            response.output_text,
            response.id,
        )

    def say_on_thread(self, conversation: int, turn: int, thread: str, text: str) -> Said:
        threads = self.sdk.beta.threads
        name = turn_id(conversation, turn)
        self.until_done(
            lambda: threads.messages.create(
                thread, role="user", content=text, extra_headers={"Perdure-Turn": f"{name}.m"}
            )
        )
        for number in itertools.count(1):
            begin = functools.partial(self.run, thread, f"{name}.r{number}", stream=turn % 3 == 1)
            run = self.until_done(begin)
            while run.status in {"queued", "in_progress"}:
                look = functools.partial(threads.runs.retrieve, run.id, thread_id=thread)
                run = self.until_done(look)
            if run.status != "completed":
                raise AssertionError(run)
            listed: Any = self.until_done(lambda: threads.messages.list(thread, limit=1))
            if listed.data[0].role == "assistant":
                break
            self.tell("again reply_lost")
        reply = listed.data[0].content[0].text.value
        return Said(conversation, turn, thread, reply, run.id, number)

    def run(self, thread: str, name: str, *, stream: bool) -> Any:
        at: dict[str, Any] = {
            "assistant_id": self.place.assistant,
            "extra_headers": {"Perdure-Turn": name},
        }
        if not stream:
            return self.sdk.beta.threads.runs.create(thread, **at)
        with self.sdk.beta.threads.runs.create(thread, stream=True, **at) as events:
            *_, last = events
        return last.data

    # -- looking -----------------------------------------------------------------------------

    def look(self, others: list[Said], stopped: threading.Event) -> None:
        """Meet losses and doubts at the same time as whoever is talking."""
        while others and not stopped.wait(self.moments.uniform(0, 2 * LOOKS_EVERY_SECONDS)):
            other = self.moments.choice(others)
            try:
                if kind_of(other.conversation) == "thread":
                    self.sdk.beta.threads.messages.list(other.handle, limit=3)
                else:
                    self.sdk.conversations.retrieve(other.handle)
            except (openai.APIStatusError, openai.APIConnectionError):
                pass  # it only looks


def talker(
    where: Place,
    ending: mmap.mmap,
    others: Callable[[], list[str]],
    pipe: int,
    place: int,
    told: list[str],
) -> None:
    """A talker process; it comes to an end with its conversations once that is wanted."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.getLogger("perdure").setLevel(logging.ERROR)
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    talker = Talker(where, pipe)
    mine = read(told)

    def work(line: int) -> None:
        try:
            talker.talk(line, [said for said in mine if said.conversation % LINES == line], ending)
        except BaseException as error:  # noqa: BLE001  # told to whoever reads the pipe
            failed(pipe, error)
            os._exit(1)

    newest = {said.conversation: said for said in read(others())}
    looked_at = [said for said in newest.values() if kind_of(said.conversation) != "response"]
    stopped = threading.Event()
    threads = [
        threading.Thread(target=work, args=(place * len(KINDS) + number,))
        for number in range(len(KINDS))
    ]
    for thread in threads:
        thread.start()
    looker = threading.Thread(target=talker.look, args=(looked_at, stopped))
    looker.start()
    parent = os.getppid()
    while any(thread.is_alive() for thread in threads):
        threads[0].join(0.05)
        if os.getppid() != parent:
            os._exit(1)
    stopped.set()
    looker.join()
    talker.sdk.close()


def warm_up(where: Place) -> None:
    """Do once, without a thread, what each talker would take its first half second for."""
    perdure.open_store(where.store)
    control = Control(where.provider)
    with openai.OpenAI(api_key="sk-test", base_url=where.provider) as sdk:
        conversation, thread = sdk.conversations.create().id, sdk.beta.threads.create().id
        sdk.conversations.retrieve(conversation)
        sdk.beta.threads.messages.create(thread, role="user", content="Hello.")
        for stream in (False, True):
            respond(sdk, "Hello.", {"conversation": conversation}, stream=stream)
            asked: dict[str, Any] = {"assistant_id": where.assistant, "stream": stream}
            run: Any = sdk.beta.threads.runs.create(thread, **asked)
            if stream:
                list(run)
            else:
                sdk.beta.threads.runs.poll(run.id, thread_id=thread, poll_interval_ms=1)
        sdk.beta.threads.messages.list(thread)
    control.forgets(conversation)
    control.forgets(thread)
    control.ask("DELETE", "/_provider/requests")
    control.close()


def main() -> None:
    store, provider, assistant, seed, kills = sys.argv[1:6]
    where = Place(store, provider, assistant, int(seed))
    warnings.filterwarnings("ignore", "The Assistants API", DeprecationWarning)
    warm_up(where)
    ending = mmap.mmap(-1, 1)
    recent = 3 * LINES  # how many lines back somebody's conversation is looked for

    def others() -> list[str]:
        return [line for slot in killer.slots for line in slot.told[-recent:]]

    killer = Killer(
        functools.partial(talker, where, ending, others),
        slots=SLOTS,
        mean_seconds=MEAN_SECONDS,
        all_at_once=ALL_AT_ONCE,
        seed=where.seed,
    )

    def enough() -> bool:
        """Killed often enough, and whoever started us has closed our standard input."""
        wanted = not select.select([sys.stdin], [], [], 0)[0]
        return bool(killer.failures) or (killer.kills >= int(kills) and not wanted)

    # Stopped from outside, it takes its talkers along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        killer.run(enough)
        ending[0] = 1
        if not killer.failures:
            killer.ended(ENDS_WITHIN_SECONDS)
    finally:
        killer.end()
    told = {
        "kills": killer.kills,
        "failures": killer.failures,
        "lines": [line for slot in killer.slots for line in slot.told],
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
