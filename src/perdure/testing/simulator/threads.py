"""Threads of the simulated provider: messages, and runs that go on by themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from perdure.dialects.items import text_of
from perdure.testing.simulator.streams import Life, SimStream, pause, words
from perdure.testing.simulator.wire import Refused, Whole, listing, ok, one_of, refusal

if TYPE_CHECKING:
    from perdure.testing.simulator.provider import SimProvider

#: What begins the mark of what a run says before it asks for the outputs of its tools.
INTERIM: Final = "i"
ENDED: Final = frozenset({"completed", "incomplete", "failed", "cancelled", "expired"})
TOOLS_WAIT_SECONDS: Final = 100.0
_PATH: Final = re.compile(
    r"^/threads/(?P<thread>[^/]+)(/(?P<part>messages|runs)(/(?P<child>[^/]+)(/(?P<detail>\w+))?)?)?$"
)


@dataclass(slots=True)
class Run:
    """A run: its object, what it was given by the app, and the stream on which it is told of."""

    body: dict[str, Any]
    tools: bool
    stream: SimStream | None = None
    outputs: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.body["status"] in ENDED


@dataclass(slots=True)
class Thread:
    """A thread: its messages and runs; one run at a time is at work."""

    id: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)

    @property
    def active(self) -> Run | None:
        """The run that keeps it busy."""
        return next((run for run in self.runs.values() if not run.ended), None)


class Threads:
    """The threads of a provider, and its answers about them."""

    def __init__(self, provider: SimProvider) -> None:
        self._provider = provider
        self.held: dict[str, Thread] = {}

    def answer(self, method: str, target: str, body: dict[str, Any]) -> Whole:
        """Answer a request; raises :class:`Refused`."""
        path, _, query_text = target.partition("?")
        query = {key: values[0] for key, values in parse_qs(query_text).items()}
        if (method, path) == ("POST", "/threads"):
            thread = self._made(body)
            return ok({"id": thread.id, "object": "thread", "created_at": 0, "metadata": {}})
        if (method, path) == ("POST", "/threads/runs"):
            return ok(self._started(self._made(body.get("thread") or {}), body, None).body)
        match = _PATH.match(path)
        assert match is not None, target
        thread = self._found(match["thread"])
        if match["part"] == "messages":
            return self._on_messages(method, thread, match["child"], query, body)
        if match["part"] == "runs":
            return self._on_runs(method, thread, match, query, body)
        if method == "DELETE":
            self._provider.forget(thread.id)
            return ok({"id": thread.id, "object": "thread.deleted", "deleted": True})
        return ok({"id": thread.id, "object": "thread", "created_at": 0, "metadata": {}})

    def open(self, target: str, body: dict[str, Any], stream: SimStream) -> None:
        """Begin a run on a stream, or go on with one; raises :class:`Refused`."""
        if target == "/threads/runs":
            thread = self._made(body.get("thread") or {})
            stream.write("thread.created", {"id": thread.id, "object": "thread"})
            self._started(thread, body, stream)
            return
        match = _PATH.match(target)
        assert match is not None, target
        thread = self._found(match["thread"])
        if match["detail"] == "submit_tool_outputs":
            self._submitted(thread, self._run(thread, match["child"]), body, stream)
        else:
            self._started(thread, body, stream)

    def marks(self) -> set[str]:
        """Return the marks of all messages that are there."""
        return {
            text_of(one).split(" ", 1)[0] for held in self.held.values() for one in held.messages
        }

    def hold(self, messages: list[dict[str, Any]]) -> str:
        """Hold a thread that was made elsewhere."""
        thread = Thread(self._provider.new_id("thread"))
        self.held[thread.id] = thread
        for message in messages:
            self._add(thread, message["role"], message["content"])
        return thread.id

    # -- threads and messages ------------------------------------------------------------------

    def _made(self, body: dict[str, Any]) -> Thread:
        thread = Thread(self._provider.new_id("thread"))
        self.held[thread.id] = thread
        self._provider.created.add(thread.id)
        for message in body.get("messages") or ():
            self._add(thread, message["role"], message["content"])
        return thread

    def _found(self, handle: str) -> Thread:
        thread = self.held.get(handle)
        if thread is None:
            raise Refused(refusal(404, f"No thread found with id '{handle}'."))
        return thread

    def _add(self, thread: Thread, role: str, content: Any, run: Run | None = None) -> Any:
        if isinstance(content, str):
            content = [{"type": "text", "text": {"value": content, "annotations": []}}]
        message = {
            "id": self._provider.new_id("msg"),
            "object": "thread.message",
            "created_at": int(self._provider.around.now()),
            "thread_id": thread.id,
            "assistant_id": run and run.body["assistant_id"],
            "run_id": run and run.body["id"],
            "role": role,
            "content": content,
            "attachments": [],
            "metadata": {},
            "status": "completed",
        }
        thread.messages.append(message)
        return message

    def _on_messages(
        self,
        method: str,
        thread: Thread,
        child: str | None,
        query: dict[str, str],
        body: dict[str, Any],
    ) -> Whole:
        if method == "POST":
            if (active := thread.active) is not None:
                self._provider.around.faults["run active"] += 1
                raise Refused(
                    refusal(
                        400,
                        f"Can't add messages to {thread.id} while a run {active.body['id']} "
                        "is active.",
                    )
                )
            return ok(self._add(thread, body["role"], body["content"]))
        wanted = query.get("run_id")
        rows = [row for row in thread.messages if wanted in {None, row["run_id"]}]
        if child is None:
            return listing(rows, query)
        one = one_of(rows, child)
        if method == "DELETE":
            thread.messages.remove(one)
            self._provider.removed_runs.add(one["run_id"])
            return ok({"id": child, "object": "thread.message.deleted", "deleted": True})
        return ok(one)

    # -- runs ----------------------------------------------------------------------------------

    def _on_runs(
        self,
        method: str,
        thread: Thread,
        match: re.Match[str],
        query: dict[str, str],
        body: dict[str, Any],
    ) -> Whole:
        if match["child"] is None:
            if method == "POST":
                return ok(self._started(thread, body, None).body)
            return listing([run.body for run in thread.runs.values()], query)
        run = self._run(thread, match["child"])
        if match["detail"] == "submit_tool_outputs":
            self._submitted(thread, run, body, None)
        elif match["detail"] == "cancel":
            if run.ended:
                message = f"Cannot cancel run with status '{run.body['status']}'."
                raise Refused(refusal(400, message))
            self._end(run, "cancelled")
        return ok(run.body)

    def _run(self, thread: Thread, run_id: str) -> Run:
        run = thread.runs.get(run_id)
        if run is None:
            raise Refused(refusal(404, f"No run found with id '{run_id}'."))
        return run

    def _started(self, thread: Thread, body: dict[str, Any], stream: SimStream | None) -> Run:
        if (active := thread.active) is not None:
            self._provider.around.faults["run active"] += 1
            message = f"Thread {thread.id} already has an active run {active.body['id']}."
            raise Refused(refusal(400, message))
        for message in body.get("additional_messages") or ():
            self._add(thread, message["role"], message["content"])
        run_id = self._provider.new_id("run")
        run = Run(
            {
                "id": run_id,
                "object": "thread.run",
                "created_at": int(self._provider.around.now()),
                "thread_id": thread.id,
                "assistant_id": body.get("assistant_id"),
                "status": "queued",
                "required_action": None,
                "last_error": None,
                "model": "sim",
                "instructions": body.get("instructions"),
                "metadata": body.get("metadata") or {},
            },
            bool(body.get("tools")),
            stream,
        )
        thread.runs[run_id] = run
        _tell(run, "thread.run.created")
        _tell(run, "thread.run.queued")
        self._provider.live(self._life(thread, run))
        return run

    def _submitted(
        self, thread: Thread, run: Run, body: dict[str, Any], stream: SimStream | None
    ) -> None:
        if run.body["status"] != "requires_action":
            message = f"Runs in status '{run.body['status']}' do not accept tool outputs."
            raise Refused(refusal(400, message))
        run.outputs = [f"o:{one['tool_call_id']}" for one in body["tool_outputs"]]
        run.stream = stream
        run.body = {**run.body, "status": "queued", "required_action": None}
        _tell(run, "thread.run.queued")
        self._provider.live(self._life(thread, run))

    def _life(self, thread: Thread, run: Run) -> Life:
        """Work at a run until it ends, or needs what only the app can give."""
        around = self._provider.around
        _flush(run)
        yield pause(self._provider)
        if run.ended:
            return
        run.body = {**run.body, "status": "in_progress"}
        _tell(run, "thread.run.in_progress")
        _flush(run)
        yield pause(self._provider)
        if run.ended:
            return
        if run.tools and not run.outputs:
            if around.chance.random() < around.odds.interim:
                around.faults["interim"] += 1
                yield from self._speak(thread, run, INTERIM)
            if not run.ended:
                self._require(run)
            return
        if around.chance.random() < around.odds.failed:
            around.faults["run failed"] += 1
            self._end(run, "failed")
            return
        yield from self._speak(thread, run)
        if not run.ended:
            self._provider.completed_runs.add(run.body["id"])
            self._end(run, "completed")

    def _speak(self, thread: Thread, run: Run, mark: str = "a") -> Life:
        said = self._provider.answer(thread.messages, *run.outputs, mark=mark)
        if thread.id in self._provider.emptied:
            self._provider.said_from_nothing[text_of(said)] = self._provider.emptied[thread.id]
        content = [{"type": "text", "text": {"value": text_of(said), "annotations": []}}]
        message = {"id": said["id"], "object": "thread.message", "run_id": run.body["id"]}
        _tell(run, "thread.message.created", {**message, "status": "in_progress", "content": []})
        first, second = words(text_of(said), self._provider.around.chance)
        for delta in first:
            _tell(run, "thread.message.delta", _delta(said["id"], delta))
        _flush(run)
        yield pause(self._provider)
        if run.ended:
            return
        for delta in second:
            _tell(run, "thread.message.delta", _delta(said["id"], delta))
        whole = self._add(thread, "assistant", content, run)
        whole["id"] = said["id"]
        _tell(run, "thread.message.completed", whole)

    def _require(self, run: Run) -> None:
        """Ask for tool outputs; nobody waits for them for ever."""
        self._provider.around.faults["tools"] += 1
        call = {
            "id": self._provider.new_id("call"),
            "type": "function",
            "function": {"name": "look", "arguments": "{}"},
        }
        action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": [call]}}
        run.body = {**run.body, "status": "requires_action", "required_action": action}
        _tell(run, "thread.run.requires_action")
        _close(run)

        def expire() -> None:
            if run.body["required_action"] is action:
                self._provider.around.faults["run expired"] += 1
                self._end(run, "expired")

        self._provider.around.later(TOOLS_WAIT_SECONDS, expire)

    def _end(self, run: Run, status: str) -> None:
        run.body = {**run.body, "status": status, "required_action": None}
        _tell(run, f"thread.run.{status}")
        _close(run)


def _delta(message_id: str, text: str) -> dict[str, Any]:
    part = {"index": 0, "type": "text", "text": {"value": text}}
    return {"id": message_id, "object": "thread.message.delta", "delta": {"content": [part]}}


def _tell(run: Run, name: str, value: Any = None) -> None:
    if run.stream is not None:
        run.stream.write(name, run.body if value is None else value)


def _flush(run: Run) -> None:
    if run.stream is not None:
        run.stream.flush()


def _close(run: Run) -> None:
    if run.stream is not None:
        run.stream.write("done", "[DONE]")
        run.stream.close()
        run.stream = None
