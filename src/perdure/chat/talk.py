"""The flows behind ``Chat``: which SDK calls a message, a check or a deletion consists of.

``Chat`` is a caller of the official SDK like any other; the transport under that SDK does the
work. What is added here is only who the conversation belongs to.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from perdure.chat.answers import object_in, page_in, response_in
from perdure.chat.values import (
    OUT_OF_REACH,
    Check,
    Hit,
    Message,
    Receipt,
    Reply,
    ToolCall,
    Via,
)
from perdure.dialects.items import said
from perdure.engine import ops
from perdure.engine.recollect import search
from perdure.engine.wire import RETIRED_HEADER
from perdure.errors import BadInput, NoAnswer, RemoteError
from perdure.flow import Flow, Op
from perdure.model import Recovery, value
from perdure.transport import SUBJECT_HEADER, TURN_HEADER

_OUTPUT: Final = "function_call_output"
_FAILED_RUN: Final = {"failed", "cancelled", "expired"}


@value
class Ask(Op[Any]):
    """Call a method of the SDK, named by its path on the client."""

    method: str
    values: dict[str, Any]


@value
class Sent:
    """A message on its way: the model's answer, or the stream of it, and the turns it took.

    ``seq`` is the number of a turn that began before, ``told`` up to which generation it was told
    of recoveries then.
    """

    turn_id: str
    turns: tuple[str, ...]
    answer: Any
    thread: str | None = None
    seq: int = 0
    told: int = 0


class Talk:
    """One chat's settings and the flows on them; no I/O of its own."""

    def __init__(
        self,
        tenant: str,
        upstream: str,
        via: Via,
        defaults: dict[str, Any],
        fallback: dict[str, Any] | None,
    ) -> None:
        if via not in {"responses", "conversations", "threads"}:
            raise BadInput(f"via={via!r}: use 'responses', 'conversations' or 'threads'.")
        if via == "threads" and "assistant_id" not in defaults:
            raise BadInput("via='threads' needs assistant_id=…, as the runs of the SDK do.")
        self.tenant = tenant
        self.upstream = upstream
        self.via = via
        self.defaults = defaults
        self.fallback = fallback

    def send(self, subject: str, message: Message, options: dict[str, Any]) -> Flow[Reply]:
        """Send one message and wait for its reply."""
        sent = yield from self.begin(subject, message, options)
        return (yield from self.reply(sent, sent.answer))

    def begin(
        self, subject: str, message: Message, options: dict[str, Any], *, stream: bool = False
    ) -> Flow[Sent]:
        """Send one message; with ``stream`` the answer is the SDK's open stream."""
        items = _items(message)
        _named(subject)
        if self.via == "threads":
            try:
                return (yield from self._on_thread(subject, items, options, stream=stream))
            except Exception as error:
                if self.fallback is None or not _is_retired(error):
                    raise
                self._move(self.fallback)
                options = {}  # they were meant for runs
        turn_id = uuid.uuid4().hex
        values = {**self.defaults, **options, "input": _input(message)}
        headers = {TURN_HEADER: turn_id}
        if self.via == "responses":
            headers[SUBJECT_HEADER] = quote(subject)
        else:
            values["conversation"] = yield from self._handle(subject, turn_id)
        if stream:
            values["stream"] = True
        _add_headers(values, headers)
        answer = yield from Ask("responses.create", values)
        return Sent(turn_id, (turn_id,), answer)

    def _move(self, fallback: dict[str, Any]) -> None:
        """Go on with Responses: threads are gone for good, the history is in the store."""
        self.via = "responses"
        self.defaults = fallback

    def reply(self, sent: Sent, answer: Any) -> Flow[Reply]:
        """Return the reply that a finished answer amounts to."""
        answer = response_in(answer) if sent.thread is None else object_in(answer, "a run")
        recovery: Recovery | None = None
        seq = sent.seq
        for turn_id in sent.turns:
            info = yield from ops.ReadTurn(self.tenant, turn_id)
            if info is not None:
                met = info.recovery
                if met is not None and met.generation > sent.told:
                    recovery = recovery or met
                seq = info.seq if turn_id == sent.turn_id else seq
        if sent.thread is None:
            return Reply(answer.output_text, sent.turn_id, seq, recovery, answer, _calls(answer))
        text = yield from self._read_run(sent.thread, answer)
        return Reply(text, sent.turn_id, seq, recovery, answer, _required(answer))

    # -- threads -----------------------------------------------------------------------------

    def _on_thread(
        self, subject: str, items: list[dict[str, Any]], options: dict[str, Any], *, stream: bool
    ) -> Flow[Sent]:
        turn_id = uuid.uuid4().hex
        thread = yield from self._handle(subject, turn_id)
        turns = [turn_id]
        outputs = [item for item in items if item.get("type") == _OUTPUT]
        for item in items:
            if item.get("type") == _OUTPUT:
                continue
            values = {"thread_id": thread, "role": item["role"], "content": item["content"]}
            turns.append(uuid.uuid4().hex)
            _add_headers(values, {TURN_HEADER: turns[-1]})
            yield from Ask("beta.threads.messages.create", values)
        if outputs:
            return (yield from self._submit(thread, turns, outputs, stream=stream))
        values = {**self.defaults, **options, "thread_id": thread}
        _add_headers(values, {TURN_HEADER: turn_id})
        if stream:
            answer = yield from Ask("beta.threads.runs.create", {**values, "stream": True})
        else:
            answer = yield from self._polled(values)
        return Sent(turn_id, tuple(turns), answer, thread)

    def _polled(self, values: dict[str, Any]) -> Flow[Any]:
        """Run an assistant to its end; the SDK goes on from whatever it gets."""
        try:
            return (yield from Ask("beta.threads.runs.create_and_poll", values))
        except (AttributeError, ValueError) as error:
            raise NoAnswer("a run", "something else") from error

    def _submit(
        self, thread: str, turns: list[str], outputs: list[dict[str, Any]], *, stream: bool
    ) -> Flow[Sent]:
        """Give a waiting run its tool outputs; the turn is the one that began the run.

        ``turns``: the one that this message would have begun, and those that it did.
        """
        runs = yield from Ask("beta.threads.runs.list", {"thread_id": thread, "limit": 1})
        waiting = runs.data[0] if runs.data else None
        if waiting is None or waiting.status != "requires_action":
            raise BadInput("These are tool outputs, but no run of this user waits for any.")
        found = yield from ops.Find(self.tenant, self.upstream, waiting.id)
        values = {
            "thread_id": thread,
            "run_id": waiting.id,
            "tool_outputs": [
                {"tool_call_id": item["call_id"], "output": item["output"]} for item in outputs
            ],
        }
        if stream:
            method, values = "beta.threads.runs.submit_tool_outputs", {**values, "stream": True}
        else:
            method = "beta.threads.runs.submit_tool_outputs_and_poll"
        answer = yield from Ask(method, values)
        if found is None or found.turn is None:
            return Sent(turns[0], tuple(turns), answer, thread)
        turn, told = found.turn, found.replica.generation
        return Sent(turn.turn_id, (*turns[1:], turn.turn_id), answer, thread, turn.seq, told)

    def _read_run(self, thread: str, run: Any) -> Flow[str]:
        if run.status in _FAILED_RUN:
            error = getattr(run.last_error, "message", None) or f"the run is {run.status}"
            raise RemoteError(f"The model did not answer: {error}. The message is stored.")
        if run.status == "requires_action":
            return ""
        messages = yield from Ask(
            "beta.threads.messages.list", {"thread_id": thread, "run_id": run.id, "order": "asc"}
        )
        parts = [
            part.text.value
            for message in page_in(messages)
            if message.role == "assistant"
            for part in message.content
            if part.type == "text"
        ]
        return "\n".join(parts)

    # -- handles -----------------------------------------------------------------------------

    def _handle(self, subject: str, turn_id: str) -> Flow[str]:
        """Return the handle of the subject's conversation or thread, made if there is none.

        A thread that is made with what was said on another API is told of to the turn.
        """
        for _attempt in range(2):
            found = yield from ops.FindSubject(self.tenant, subject)
            if found is not None and found.replica.dialect == self.via and found.replica.handle:
                return found.replica.handle
            # Of two first messages at the same time one create wins, and both use it.
            method = (
                "conversations.create" if self.via == "conversations" else "beta.threads.create"
            )
            values: dict[str, Any] = {}
            _add_headers(values, {SUBJECT_HEADER: quote(subject), TURN_HEADER: turn_id})
            yield from Ask(method, values)
        found = yield from ops.FindSubject(self.tenant, subject)
        if found is None or found.replica.handle is None:
            raise RemoteError(f"No {self.via} replica could be made. The message was not sent.")
        return found.replica.handle

    def check(self, subject: str) -> Flow[Check]:
        """Ask the provider whether it still has the subject's replica: one retrieve."""
        _named(subject)
        found = yield from ops.FindSubject(self.tenant, subject)
        if found is None or found.replica.handle is None:
            return Check(None, alive=False)
        handle = found.replica.handle
        method, name = _RETRIEVE[found.replica.dialect]
        answer = object_in((yield from Ask(method, {name: handle})), "what it was asked for")
        alive = "perdure" not in (answer.model_extra or {})
        return Check(handle, alive, answer.id if not alive and answer.id != handle else None)

    # -- people ------------------------------------------------------------------------------

    def pin(self, subject: str, text: str) -> Flow[int]:
        """Keep a fact for every later prime."""
        _named(subject)
        if not text.strip():
            raise BadInput("A pinned fact needs some text.")
        return (yield from ops.Pin(self.tenant, subject, text))

    def history(
        self, subject: str, limit: int, before: int | None, after: int | None
    ) -> Flow[tuple[ops.Entry, ...]]:
        """Read a page of what was said."""
        _named(subject)
        return (yield from ops.ReadHistory(self.tenant, subject, limit, before, after))

    def search(self, subject: str, query: str, limit: int) -> Flow[tuple[Hit, ...]]:
        """Search what was said, best first."""
        _named(subject)
        found = yield from ops.FindSubject(self.tenant, subject)
        if found is None or not query.strip():
            return ()
        hits = yield from search(self.tenant, found.conversation, query, limit)
        return tuple(
            Hit(item.position, item.role or "", said(item.input), item.created_at) for item in hits
        )

    def forget(self, subject: str) -> Flow[Receipt]:
        """Erase a subject here, then at the provider."""
        _named(subject)
        erased = yield from ops.Forget(self.tenant, subject)
        deleted, kept = [], []
        items_deleted = 0
        for orphan in erased.orphans:
            method, name = _DELETE[orphan.dialect]
            try:
                if orphan.dialect == "conversations":
                    items_deleted += yield from self._empty(orphan.handle)
                yield from Ask(method, {name: orphan.handle})
            except Exception as error:  # noqa: BLE001  # whatever it was: the delete is not confirmed
                if getattr(error, "status_code", None) != _NOT_FOUND:
                    kept.append(orphan.handle)
                    continue
            yield from ops.OrphanGone(self.tenant, orphan.key)
            deleted.append(orphan.handle)
        return Receipt(
            conversations=erased.conversations,
            items=erased.items,
            turns=erased.turns,
            milestones=erased.milestones,
            snapshots=erased.snapshots,
            indexed=erased.indexed,
            items_deleted=items_deleted,
            deleted=tuple(deleted),
            not_deleted=tuple(kept),
            out_of_reach=OUT_OF_REACH,
        )

    def _empty(self, conversation: str) -> Flow[int]:
        """Delete a conversation's items, which deleting it would leave; returns how many."""
        deleted = 0
        while True:
            values: dict[str, Any] = {"conversation_id": conversation, "limit": _PAGE}
            page = yield from Ask("conversations.items.list", values)
            for item in page.data:
                values = {"conversation_id": conversation, "item_id": item.id}
                yield from Ask("conversations.items.delete", values)
                deleted += 1
            if not page.data:
                return deleted


_NOT_FOUND: Final = 404
_PAGE: Final = 100
_RETRIEVE: Final = {
    "responses": ("responses.retrieve", "response_id"),
    "conversations": ("conversations.retrieve", "conversation_id"),
    "threads": ("beta.threads.retrieve", "thread_id"),
}
_DELETE: Final = {
    "responses": ("responses.delete", "response_id"),
    "conversations": ("conversations.delete", "conversation_id"),
    "threads": ("beta.threads.delete", "thread_id"),
}


def _is_retired(error: Exception) -> bool:
    """Whether an SDK error says that the whole API is not there any more."""
    response = getattr(error, "response", None)
    return response is not None and RETIRED_HEADER in response.headers


def _named(subject: str) -> None:
    if not subject:
        raise BadInput("The user id is empty: every conversation belongs to somebody.")


def _items(message: Message) -> list[dict[str, Any]]:
    """Return a message as items; raises :class:`BadInput` for one that says nothing."""
    if isinstance(message, str):
        if not message.strip():
            raise BadInput("The message is empty. Nothing was sent or stored.")
        return [{"role": "user", "content": message}]
    items = [message] if isinstance(message, dict) else list(message)
    if not items:
        raise BadInput("The message has no items. Nothing was sent or stored.")
    if any("role" in item and not item.get("content") for item in items):
        raise BadInput("A message without content. Nothing was sent or stored.")
    return items


def _input(message: Message) -> str | list[dict[str, Any]]:
    return message if isinstance(message, str) else _items(message)


def _add_headers(values: dict[str, Any], headers: dict[str, str]) -> None:
    values["extra_headers"] = {**(values.get("extra_headers") or {}), **headers}


def _calls(response: Any) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(item.call_id, item.name, item.arguments)
        for item in response.output
        if item.type == "function_call"
    )


def _required(run: Any) -> tuple[ToolCall, ...]:
    action = getattr(run, "required_action", None)
    if action is None:
        return ()
    return tuple(
        ToolCall(call.id, call.function.name, call.function.arguments)
        for call in action.submit_tool_outputs.tool_calls
    )


# -- streams ---------------------------------------------------------------------------------


class Deltas:
    """Reads the SDK's events of one streamed answer: pieces of text, and the finished object."""

    def __init__(self) -> None:
        self.answer: Any = None
        self.heard = False

    def text(self, event: Any) -> str:
        """Return the text that an event adds, mostly none; raises on an answer that failed."""
        self.heard = True
        kind = getattr(event, "event", None) or event.type
        reader = _READERS.get(kind)
        return "" if reader is None else reader(self, event)

    def delta(self, event: Any) -> str:
        """Return a piece of a response's text."""
        return str(event.delta)

    def response(self, event: Any) -> str:
        """Take in a finished response."""
        self.answer = event.response
        return ""

    def failed(self, event: Any) -> str:
        """Raise what the provider says of an answer that failed."""
        error = getattr(getattr(event, "response", event), "error", None) or event
        message = getattr(error, "message", None) or "the response failed"
        raise RemoteError(f"The model did not answer: {message}. The message is stored.")

    def message(self, event: Any) -> str:
        """Return a piece of a thread message's text."""
        parts = event.data.delta.content or ()
        return "".join(part.text.value or "" for part in parts if part.type == "text")

    def run(self, event: Any) -> str:
        """Take in a run that has ended or waits."""
        self.answer = event.data
        return ""


_RUN_ENDS: Final = ("completed", "incomplete", "requires_action", "failed", "cancelled", "expired")
_READERS: Final[dict[str, Callable[[Deltas, Any], str]]] = {
    "response.output_text.delta": Deltas.delta,
    "response.completed": Deltas.response,
    "response.incomplete": Deltas.response,
    "response.failed": Deltas.failed,
    "error": Deltas.failed,
    "thread.message.delta": Deltas.message,
    **{f"thread.run.{state}": Deltas.run for state in _RUN_ENDS},
}
