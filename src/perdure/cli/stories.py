"""What the demo's app does on each API, written as apps write it, and what they do after a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

import openai
from openai import OpenAI

from perdure.testing import Provider

MODEL: Final = "gpt-5.6"
RETENTION: Final = timedelta(days=30)  # OpenAI's for responses
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the app got: the text, the id to store for its next call, perdure's note if any."""

    text: str
    handle: str
    recovery: dict[str, Any] | None = None


class Story(Protocol):
    """One API: what is said there, how the provider's copy is lost, what is asked afterwards."""

    title: str
    api: str
    said: tuple[str, ...]
    question: str
    fact: str

    def ask(self, client: OpenAI, handle: str, text: str) -> Answer:
        """Say something and return the answer; an empty handle begins the conversation."""

    def lose(self, provider: Provider, plain: OpenAI, handle: str, /) -> str:
        """Lose the provider's copy and say how."""

    def fix(self, client: OpenAI, handle: str, text: str, transcript: Sequence[Message]) -> Answer:
        """Ask, and after a loss do what apps do today: start anew and say it again.

        ``transcript``, if the app kept one, is copied in first.
        """


class Threads:
    """An assistant on threads."""

    title = "Threads"
    api = "client.beta.threads"
    said: tuple[str, ...] = ("I am allergic to penicillin.", "My next visit is on Friday.")
    question = "What am I allergic to?"
    fact = "penicillin"

    def __init__(self) -> None:
        self._assistant = ""

    def ask(self, client: OpenAI, handle: str, text: str) -> Answer:
        """Add a message, run the assistant, read what it wrote."""
        threads = client.beta.threads
        self._assistant = self._assistant or client.beta.assistants.create(model=MODEL).id
        handle = handle or threads.create().id
        message = threads.messages.create(handle, role="user", content=text)
        run = threads.runs.create_and_poll(thread_id=handle, assistant_id=self._assistant)
        newest = threads.messages.list(handle, run_id=run.id).data[0]
        return Answer(_text_of(newest), handle, _note(message))

    def lose(self, _provider: Provider, plain: OpenAI, handle: str, /) -> str:
        """Delete the thread behind the app's back."""
        plain.beta.threads.delete(handle)
        return "deleted by another client with the same key, as from a dashboard"

    def fix(self, client: OpenAI, handle: str, text: str, transcript: Sequence[Message]) -> Answer:
        """Catch the 404, make a new thread, copy message by message, ask again."""
        try:
            return self.ask(client, handle, text)
        except openai.NotFoundError:
            thread = client.beta.threads.create()
            for message in transcript:
                client.beta.threads.messages.create(
                    thread.id, role=message["role"], content=message["content"]
                )
            return self.ask(client, thread.id, text)


class Conversations:
    """Responses in a conversation object."""

    title = "Conversations"
    api = "client.responses.create(conversation=...)"
    said: tuple[str, ...] = ("Our launch is on 12 March in Lisbon.", "Sixty guests have confirmed.")
    question = "When and where is our launch?"
    fact = "12 March in Lisbon"

    def ask(self, client: OpenAI, handle: str, text: str) -> Answer:
        """Ask for a response in the conversation."""
        handle = handle or client.conversations.create().id
        response = client.responses.create(model=MODEL, conversation=handle, input=text)
        return Answer(response.output_text, handle, _note(response))

    def lose(self, _provider: Provider, plain: OpenAI, handle: str, /) -> str:
        """Delete the conversation behind the app's back."""
        plain.conversations.delete(handle)
        return "deleted by another client with the same key, as from a dashboard"

    def fix(self, client: OpenAI, handle: str, text: str, transcript: Sequence[Message]) -> Answer:
        """Catch the 404, make a new conversation, copy message by message, ask again."""
        try:
            return self.ask(client, handle, text)
        except openai.NotFoundError:
            conversation = client.conversations.create()
            for message in transcript:
                item: Any = {"type": "message", **message}
                client.conversations.items.create(conversation.id, items=[item])
            return self.ask(client, conversation.id, text)


class Responses:
    """Responses chained one to the next."""

    title = "Responses"
    api = "client.responses.create(previous_response_id=...)"
    said: tuple[str, ...] = (
        "The staging server is called heron.",
        "Deploys happen on Tuesday morning.",
    )
    question = "What is the staging server called?"
    fact = "heron"

    def ask(self, client: OpenAI, handle: str, text: str) -> Answer:
        """Ask for a response after the previous one."""
        response = client.responses.create(
            model=MODEL, previous_response_id=handle or None, input=text
        )
        return Answer(response.output_text, response.id, _note(response))

    def lose(self, provider: Provider, _plain: OpenAI, _handle: str, /) -> str:
        """Let the response grow too old."""
        provider.expire_after("responses", RETENTION)
        provider.clock.advance(RETENTION + timedelta(days=1))
        return f"kept for {RETENTION.days} days only; the provider's clock is turned past them"

    def fix(self, client: OpenAI, handle: str, text: str, transcript: Sequence[Message]) -> Answer:
        """Catch the 400, ask without the previous response, the transcript in the input."""
        try:
            return self.ask(client, handle, text)
        except openai.BadRequestError as error:
            if error.code != "previous_response_not_found":
                raise
            said: Any = [*transcript, {"role": "user", "content": text}]
            response = client.responses.create(model=MODEL, input=said)
            return Answer(response.output_text, response.id)


def _text_of(message: Any) -> str:
    return "".join(part.text.value for part in message.content if part.type == "text")


def _note(answer: Any) -> dict[str, Any] | None:
    """Return what perdure says of a recovery; the SDK keeps members it does not know here."""
    note: dict[str, Any] | None = (answer.model_extra or {}).get("perdure")
    return note
