"""``perdure doctor``: what a server says about dead handles, and what perdure makes of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import typer
from rich.console import Console

from perdure.cli.upstream import client_of, upstream_of
from perdure.dialects.body import object_in
from perdure.dialects.routes import path_to
from perdure.dialects.shapes import Shape, is_object, is_response
from perdure.dialects.sse import Parser
from perdure.dialects.streams import ResponseReader, is_event_stream
from perdure.dialects.verdicts import (
    Fault,
    Judgement,
    Rule,
    failure_in,
    fault_of,
    judge,
    judge_no_answer,
    judge_probed,
    read_rules,
)
from perdure.model import Dialect

_TIMEOUT_SECONDS: Final = 60.0
_NOBODYS: Final = "0" * 48


@dataclass(frozen=True, slots=True)
class _Question:
    """One call about a handle that does not exist."""

    dialect: Dialect
    method: str
    path: str
    handle: str
    body: dict[str, Any] | None = None

    @property
    def title(self) -> str:
        """What is asked, in a line."""
        streamed = ", streamed" if self.body and "stream" in self.body else ""
        return f"{self.dialect}: {self.method} {_short(self.path)}{streamed}"

    @property
    def shape(self) -> Shape:
        """What an answer to it looks like."""
        return is_response if self.path == "/responses" else is_object


def _questions(model: str) -> list[_Question]:
    response, conversation = f"resp_{_NOBODYS}", f"conv_{_NOBODYS}"
    thread = "thread_" + "0" * 24
    call = {"model": model, "input": "Say yes.", "max_output_tokens": 16}
    chained = {**call, "previous_response_id": response}
    message = {"role": "user", "content": "Hello."}
    return [
        _Question("responses", "GET", f"/responses/{response}", response),
        _Question("responses", "POST", "/responses", response, chained),
        _Question("responses", "POST", "/responses", response, {**chained, "stream": True}),
        _Question("conversations", "GET", f"/conversations/{conversation}", conversation),
        _Question(
            "conversations",
            "POST",
            "/responses",
            conversation,
            {**call, "conversation": conversation},
        ),
        _Question("threads", "GET", f"/threads/{thread}", thread),
        _Question("threads", "POST", f"/threads/{thread}/messages", thread, message),
    ]


def examine(address: str, model: str, api_key: str, rules: Path | None) -> None:
    """Ask a server about dead handles and print what comes back; exit 1 where a loss is missed.

    ``address`` is the server's API, and perhaps a query that each request is to carry.
    """
    own = read_rules(rules.read_text(encoding="utf-8")) if rules else ()
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"What {upstream_of(address)} answers for handles that do not exist:")
    with client_of(address, api_key, _TIMEOUT_SECONDS) as client:
        doctor = _Doctor(client, upstream_of(address), own, console)
        missed = sum([doctor.misses(question) for question in _questions(model)])
    if missed:
        console.print()
        console.print(f"{missed} of these would be taken for something else than a loss.")
        console.print("A rule of your own goes into a TOML file: see verdicts.toml in the package.")
        raise typer.Exit(1)


class _Doctor:
    """Asks one server, and judges its answers as the engine does."""

    def __init__(
        self, client: httpx2.Client, upstream: str, own: tuple[Rule, ...], console: Console
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._own = own
        self._console = console

    def misses(self, question: _Question) -> bool:
        """Ask one question, print the answer; return whether it hides a loss."""
        print_ = self._console.print
        print_()
        print_(question.title, style="bold")
        answer = self._asked("answer", question.method, question.path, question.body)
        fault = _fault_in(answer, question.shape)
        if fault is None:
            print_("  verdict  none: it answers, from an empty history", style="red")
            print_("           perdure notices by the token counts of longer conversations")
            return True
        found = judge(fault, question.dialect, question.handle, self._own)
        read = found.verdict == "unrecognised"
        if read:
            found = self._probed(question, fault)
        nothing = answer.is_success and not _is_answer(answer, question.shape)
        if read and nothing:
            found = judge_no_answer(found)
        missed = found.verdict != "gone" and not found.retired
        verdict = f"  verdict  {_verdict(found, read=read)}"
        print_(verdict, style="red" if missed else None, markup=False)
        if nothing and missed:
            print_("           a success that is no answer: whether it was carried out is unknown")
        return missed

    def _probed(self, question: _Question, fault: Fault) -> Judgement:
        """Read a handle of whose error no rule knows; what that brings decides."""
        answer = self._asked("read", "GET", path_to(question.dialect, question.handle))
        probe = None if answer.is_success else fault_of(answer.status_code, answer.content)
        return judge_probed(fault, probe, question.dialect, question.handle, self._own)

    def _asked(
        self, name: str, method: str, path: str, body: dict[str, Any] | None = None
    ) -> httpx2.Response:
        try:
            answer = self._client.request(method, self._upstream + path, json=body)
        except httpx2.HTTPError as error:
            raise typer.BadParameter(f"{self._upstream} cannot be reached: {error}") from None
        said = _short(_said(answer)) or "(nothing)"
        self._console.print(f"  {name:<8} {answer.status_code} {said}", markup=False)
        return answer


def _fault_in(answer: httpx2.Response, shape: Shape) -> Fault | None:
    """Return the error that an answer is or begins with, be it in a 200; None where it answers."""
    if not answer.is_success:
        return fault_of(answer.status_code, answer.content)
    if is_event_stream(answer.headers.get("content-type")):
        return _opened(answer)[0].fault
    return failure_in(answer.content, object_in(answer.content), shape)


def _is_answer(answer: httpx2.Response, shape: Shape) -> bool:
    """Whether a success is what was asked for, be it one that failed."""
    streamed = is_event_stream(answer.headers.get("content-type"))
    return streamed or shape(object_in(answer.content))


def _opened(answer: httpx2.Response) -> tuple[ResponseReader, str]:
    """Read a stream up to the event that shows whether the call is under way; and that event."""
    reader, shown = ResponseReader(), ""
    for event in Parser().feed(answer.content):
        reader.observe(event)
        shown = event.data
        if not reader.opening(event):
            break
    return reader, shown


def _verdict(found: Judgement, *, read: bool) -> str:
    """Say what a loss is taken for, and by what."""
    if read:
        rule = (found.rule or "").removeprefix("probe: ")
        told = {"": "does not tell", "probe": "succeeds"}.get(rule, f"tells: {rule}")
        by = f"no rule; reading the handle {told}"
    else:
        by = f"rule {found.rule}" if found.rule else "no rule"
    gone_for_good = ": this API is gone, nothing is rebuilt" if found.retired else ""
    return f"{found.verdict} ({by}){gone_for_good}"


def _said(answer: httpx2.Response) -> str:
    """Return an answer in one line; of a stream the event that shows what it is."""
    streamed = is_event_stream(answer.headers.get("content-type"))
    text = _opened(answer)[1] if streamed else answer.text
    try:
        return json.dumps(json.loads(text), separators=(", ", ": "))
    except ValueError:
        return " ".join(text.split())


def _short(text: str) -> str:
    shown = text.replace(_NOBODYS, "0...").replace("0" * 24, "0...")
    return shown if len(shown) <= 160 else f"{shown[:160]}..."  # noqa: PLR2004
