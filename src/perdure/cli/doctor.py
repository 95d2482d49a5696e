"""``perdure doctor``: what a server says about dead handles, and what perdure makes of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import typer
from rich.console import Console

from perdure.dialects.routes import THREADS_HEADER
from perdure.dialects.verdicts import Judgement, Rule, fault_of, judge, read_rules

_TIMEOUT_SECONDS: Final = 60.0
_NOBODYS: Final = "0" * 48
_OK: Final = range(200, 300)


@dataclass(frozen=True, slots=True)
class _Question:
    """One call about a handle that does not exist."""

    dialect: str
    method: str
    path: str
    handle: str
    body: dict[str, Any] | None = None
    model_call: bool = False


def _questions(model: str) -> list[_Question]:
    response, conversation = f"resp_{_NOBODYS}", f"conv_{_NOBODYS}"
    thread = "thread_" + "0" * 24
    call = {"model": model, "input": "Say yes.", "max_output_tokens": 16}
    message = {"role": "user", "content": "Hello."}
    return [
        _Question("responses", "GET", f"/responses/{response}", response),
        _Question(
            "responses",
            "POST",
            "/responses",
            response,
            {**call, "previous_response_id": response},
            model_call=True,
        ),
        _Question("conversations", "GET", f"/conversations/{conversation}", conversation),
        _Question(
            "conversations",
            "POST",
            "/responses",
            conversation,
            {**call, "conversation": conversation},
            model_call=True,
        ),
        _Question("threads", "GET", f"/threads/{thread}", thread),
        _Question("threads", "POST", f"/threads/{thread}/messages", thread, message),
    ]


def examine(base_url: str, model: str, api_key: str, rules: Path | None) -> None:
    """Ask a server about dead handles and print what comes back; exit 1 where a loss is missed."""
    own = read_rules(rules.read_text(encoding="utf-8")) if rules else ()
    console = Console(highlight=False, soft_wrap=True)
    headers = {"authorization": f"Bearer {api_key}"} | dict([THREADS_HEADER])
    console.print(f"What {base_url} answers for handles that do not exist:")
    missed = 0
    with httpx2.Client(headers=headers, timeout=_TIMEOUT_SECONDS) as client:
        for question in _questions(model):
            missed += _ask(client, base_url, question, own, console)
    if missed:
        console.print()
        console.print(f"{missed} of these would be taken for something else than a loss.")
        console.print("A rule of your own goes into a TOML file: see verdicts.toml in the package.")
        raise typer.Exit(1)


def _ask(
    client: httpx2.Client,
    base_url: str,
    question: _Question,
    own: tuple[Rule, ...],
    console: Console,
) -> bool:
    """Ask one question, print the answer; return whether it hides a loss."""
    console.print()
    console.print(f"{question.dialect}: {question.method} {_short(question.path)}", style="bold")
    try:
        answer = client.request(question.method, base_url + question.path, json=question.body)
    except httpx2.HTTPError as error:
        raise typer.BadParameter(f"{base_url} cannot be reached: {error}") from None
    console.print(f"  answer   {answer.status_code} {_short(_said(answer.content))}")
    if answer.status_code in _OK:
        console.print("  verdict  none: it answers, from an empty history", style="red")
        console.print("           perdure notices by the token counts of longer conversations")
        return True
    found = judge(
        fault_of(answer.status_code, answer.content), question.dialect, question.handle, own
    )
    console.print(f"  verdict  {_verdict(found)}")
    return found.verdict not in {"gone", "unrecognised"} and not found.retired


def _verdict(found: Judgement) -> str:
    if found.verdict == "unrecognised":
        return "no rule: the handle is read once to find out, then the error is known"
    if found.retired:
        return f"{found.verdict} (rule {found.rule}): this API is gone, nothing is rebuilt"
    return f"{found.verdict} (rule {found.rule})" if found.rule else found.verdict


def _said(content: bytes) -> str:
    try:
        return json.dumps(json.loads(content), separators=(", ", ": "))
    except ValueError:
        return content.decode("utf-8", "replace")


def _short(text: str) -> str:
    shown = text.replace(_NOBODYS, "0...").replace("0" * 24, "0...")
    return shown if len(shown) <= 160 else f"{shown[:160]}..."  # noqa: PLR2004
