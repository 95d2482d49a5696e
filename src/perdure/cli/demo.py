"""``perdure demo``: a conversation is lost on each API, and goes on."""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import openai
from openai import OpenAI

import perdure
from perdure.cli.page import Page
from perdure.cli.stories import Answer, Conversations, Message, Responses, Story, Threads
from perdure.errors import ConfigurationError
from perdure.testing import Provider

_KEY: Final = "demo"
_DATABASE: Final = "chat.db"

_IDS: Final = """
SELECT r.lost_handle, lost.state, r.new_handle, new.state
FROM perdure_recovery r
JOIN perdure_handle lost ON lost.handle = r.lost_handle
JOIN perdure_handle new ON new.handle = r.new_handle
WHERE r.lost_handle = ?
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One answer after the loss, and the requests that the provider recorded for it.

    ``requests`` got the message through, ``reading`` are those of any thread's turn: run and read.
    """

    answer: Answer
    requests: int
    reading: int


@dataclass(frozen=True, slots=True)
class Ids:
    """A recovery's ids as they stand in the database."""

    lost: str
    lost_state: str
    new: str
    new_state: str


@dataclass(frozen=True, slots=True)
class Told:
    """A story as it happened."""

    story: Story
    transcript: tuple[Message, ...]
    handle: str
    loss: str
    error: openai.APIStatusError
    fixed: Attempt
    copied: Attempt
    recovered: Attempt
    ids: Ids
    again: Attempt


@dataclass(frozen=True, slots=True)
class Stage:
    """The provider, the two clients (one key) and the database of a run."""

    provider: Provider
    plain: OpenAI
    client: OpenAI
    database: Path

    def tell(self, story: Story) -> Told:
        """Play one story; every value is what a call returned or the provider recorded."""
        handle, transcript = self._talk(story)
        loss = story.lose(self.provider, self.plain, handle)
        question = story.question
        return Told(
            story=story,
            transcript=transcript,
            handle=handle,
            loss=loss,
            error=self._error(lambda: story.ask(self.plain, handle, question)),
            fixed=self._attempt(lambda: story.fix(self.plain, handle, question, ())),
            copied=self._attempt(lambda: story.fix(self.plain, handle, question, transcript)),
            recovered=self._attempt(lambda: story.ask(self.client, handle, question)),
            ids=self._ids(handle),
            again=self._attempt(lambda: story.ask(self.client, handle, question)),
        )

    def _talk(self, story: Story) -> tuple[str, tuple[Message, ...]]:
        handle = ""
        transcript: list[Message] = []
        for text in story.said:
            answer = story.ask(self.client, handle, text)
            handle = answer.handle
            transcript.append({"role": "user", "content": text})
            transcript.append({"role": "assistant", "content": answer.text})
        return handle, tuple(transcript)

    def _error(self, call: Callable[[], Answer]) -> openai.APIStatusError:
        try:
            call()
        except openai.APIStatusError as error:
            return error
        raise ConfigurationError("The provider still has what it should have lost.")

    def _attempt(self, call: Callable[[], Answer]) -> Attempt:
        before = len(self.provider.requests)
        answer = call()
        made = self.provider.requests[before:]
        run = next((n for n, one in enumerate(made) if one.path.endswith("/runs")), len(made))
        return Attempt(answer, requests=run, reading=len(made) - run)

    def _ids(self, handle: str) -> Ids:
        reading = sqlite3.connect(f"file:{quote(str(self.database))}?mode=ro", uri=True)
        with closing(reading):
            row = reading.execute(_IDS, (handle,)).fetchone()
        if row is None:
            raise ConfigurationError(f"The database shows no recovery of {handle}.")
        return Ids(*row)


def run_demo(keep: Path | None) -> None:
    """Play the three stories and print them as they happen."""
    page = Page()
    with _quiet(), _folder(keep) as folder, stage(folder / _DATABASE) as ready:
        page.introduction()
        told: list[Told] = []
        stories: tuple[Story, ...] = (Threads(), Conversations(), Responses())
        for number, story in enumerate(stories, start=1):
            told.append(ready.tell(story))
            page.story(number, told[-1])
        page.summary(told)
        page.ending(ready.database, kept=keep is not None)


@contextmanager
def stage(database: Path) -> Iterator[Stage]:
    """Start the provider and both clients on a database file."""
    with Provider() as provider:
        # An app passes the URL. Here the provider's clock is turned by a month, and the store has
        # to see that too: a response that is young for it might only be not visible yet, which
        # perdure waits for (2 s) before it calls it lost.
        store = perdure.open_store(f"sqlite:///{quote(str(database))}", clock=provider.clock.now)
        http_client = perdure.http_client(store)
        with (
            closing(store),
            OpenAI(base_url=provider.base_url, api_key=_KEY) as plain,
            OpenAI(base_url=provider.base_url, api_key=_KEY, http_client=http_client) as client,
        ):
            yield Stage(provider, plain, client, database)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="perdure-demo-") as folder:
            yield Path(folder)
    else:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep this machine's settings out of the run, and other voices out of its output.

    An error of the SDK that no story expects is ours to explain: a full disk, for example.
    """
    # A proxy must not see the calls to our own provider, nor fail them.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    # One warning per recovery: what it says is shown in place.
    logging.getLogger("perdure").addHandler(logging.NullHandler())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the SDK's, on every threads call
        try:
            yield
        except openai.OpenAIError as error:
            raise ConfigurationError(f"The demo could not go on: {error}") from error
