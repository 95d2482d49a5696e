"""Snapshots: summaries that roll on, the old one and what is new making the next.

What was said is data here as everywhere. A model that writes a summary gets it fenced, under
instructions of ours; what it writes is data again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from perdure.dialects.body import objects_in
from perdure.dialects.items import dumps, said
from perdure.dialects.routes import Route
from perdure.dialects.shapes import is_response
from perdure.engine.decoding import decoded
from perdure.engine.fences import fenced
from perdure.engine.ops import Excerpts, History, KeepSnapshot, Summarise, Unsummarised
from perdure.engine.wire import Call, Unanswered, Wire
from perdure.flow import Flow
from perdure.model import Policy, ProviderSummary, Snapshot, StoredItem, value
from perdure.recall.summary import extract

_PORTION: Final = 200  # items for each writing: a model reads no more at once
_FURTHEST: Final = 2**31 - 1
_GROWN: Final = 300  # items since the last summary
_NEWEST: Final = 40
_PAGE: Final = 50

_Write: TypeAlias = Callable[[str, str], Flow[str]]


@value
class Summariser:
    """Who writes summaries, and how: from the previous one and the transcript of what is new."""

    maker: str
    write: _Write


def summariser(policy: Policy, wire: Wire | None = None) -> Summariser | None:
    """Return the summariser that a policy chooses; None where it chooses none.

    One that asks the provider needs a call to send along with.
    """
    chosen = policy.summariser
    if chosen is None:
        return None
    if chosen == "extractive":
        return Summariser("extractive", _extracted)
    if isinstance(chosen, ProviderSummary):
        if wire is None:
            return None
        return Summariser(f"provider {chosen.model}", _asked(wire, chosen))
    return Summariser("function", _called(chosen))


def _extracted(previous: str, transcript: str) -> Flow[str]:
    yield from ()
    return extract(previous, transcript)


def _called(function: Callable[[str, str], Any]) -> _Write:
    def write(previous: str, transcript: str) -> Flow[str]:
        return (yield from Summarise(function, previous, transcript))

    return write


def _asked(wire: Wire, chosen: ProviderSummary) -> _Write:
    def write(previous: str, transcript: str) -> Flow[str]:
        data = f"The summary so far:\n{fenced(previous)}\n\n" if previous else ""
        data += f"The conversation since:\n{fenced(transcript)}"
        body = {
            "model": chosen.model,
            "instructions": chosen.instructions,
            "input": [{"role": "user", "content": data}],
            "store": False,
        }
        got = yield from wire.own("POST", "/responses", dumps(body).encode())
        answer, response = decoded(got, is_response)
        if not answer.ok:
            raise NotSummarised(f"status {answer.status}")
        return _text_of(response)

    return write


class NotSummarised(Exception):
    """No summary was written; the call it was wanted for goes on without a new one."""


def _text_of(response: dict[str, Any]) -> str:
    texts = [
        str(part.get("text") or "")
        for item in objects_in(response.get("output"))
        if item.get("type") == "message"
        for part in objects_in(item.get("content"))
    ]
    return "\n".join(texts)


def roll(
    tenant: str, conversation: int, through: int, known: Snapshot | None, writer: Summariser
) -> Flow[Snapshot | None]:
    """Bring a conversation's summary up to a position and keep it; return the newest.

    Costs what is new since the last one: one writing for each 200 items. An error of the writer's
    leaves what has been reached.
    """
    while known is None or known.through < through:
        first = -_FURTHEST if known is None else known.through + 1
        items = yield from Excerpts(
            tenant, conversation, through, ((first, through),), _PORTION, oldest=True
        )
        if not items:
            return known
        try:
            text = yield from writer.write(known.text if known else "", transcript(items))
        except Exception:  # noqa: BLE001  # a summary is a help: without it more is left out
            return known
        if not text.strip():
            return known
        known = Snapshot(
            through=items[-1].position,
            items=(known.items if known else 0) + len(items),
            text=text,
            maker=writer.maker,
        )
        yield from KeepSnapshot(tenant, conversation, known)
    return known


def summarise_grown(policy: Policy, tenant: str, upstream: str) -> Flow[int]:
    """Bring the summaries of conversations that have grown up to date; returns how many were.

    Costs one writing for each 200 items that are new, each a call to the provider where the policy
    has a model write. The newest items stay out: a new replica is told them as they are.
    """
    writer = summariser(policy, Wire(_call_of_ours(policy, tenant, upstream)))
    after = done = 0
    while writer is not None:
        grown = yield from Unsummarised(tenant, _GROWN, _PAGE, after)
        for conversation, last in grown:
            through = last - _NEWEST
            span = yield from History(tenant, conversation, through, 1)
            newest = yield from roll(tenant, conversation, through, span.snapshot, writer)
            done += newest != span.snapshot
            after = conversation
        if len(grown) < _PAGE:
            break
    return done


def _call_of_ours(policy: Policy, tenant: str, upstream: str) -> Call:
    """Return a call that no app has made, for requests of our own."""
    return Call(
        tenant=tenant,
        policy=policy,
        route=Route("responses", "respond", ""),
        upstream=upstream,
        method="POST",
        path="/responses",
        query="",
        content=b"",
        turn_id=None,
        subject=None,
        own_headers=(),
        rules=(),
        learned=[],
        deadline_seconds=_FURTHEST,
        began=0.0,
        retry=0,
        credentials=0,
        unanswered=Unanswered(),
    )


def transcript(items: Sequence[StoredItem]) -> str:
    """Return items as lines: the day, who said it, what."""
    lines = []
    for item in items:
        text = said(item.input)
        if text:
            day = datetime.fromtimestamp(item.created_at, UTC)
            lines.append(f"{day:%Y-%m-%d} {item.role or item.kind}: {text}")
    return "\n".join(lines)
