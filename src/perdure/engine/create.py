"""Creating a conversation or a thread: the app's own, with what its user has said so far."""

from __future__ import annotations

import json
from typing import Any

from perdure.dialects import items as item_forms
from perdure.dialects.body import read_body
from perdure.dialects.messages import from_thread_message
from perdure.engine import prime as primes
from perdure.engine.anew import Given, create_anew
from perdure.engine.ops import Answer, BindNew, FindSubject, Spawn
from perdure.engine.rebuild import CREATES
from perdure.engine.recollect import Next, recollect
from perdure.engine.sweep import sweep_quietly
from perdure.engine.wire import Wire, refusal
from perdure.errors import IssuedTwice
from perdure.flow import Flow


def create(wire: Wire) -> Flow[Answer]:
    """Carry out POST /conversations or /threads: the new replica is entered with its items."""
    call = wire.call
    body = read_body(call.content) if call.content.strip() else None
    members: dict[str, Any] = body.members if body else {}
    history, primed_through = Given({}, {}, []), 0
    if call.subject is not None and call.dialect == "threads":
        history, primed_through = yield from _history(
            wire, call.subject, tuple(members.get("messages") or ())
        )
    if call.dialect == "threads":
        items = tuple(map(from_thread_message, members.get("messages") or ()))
    else:
        items = item_forms.new_items(members.get("items") or ())

    def send(history: Given) -> Flow[Answer]:
        if not history.messages:
            return wire.send(call.content)
        messages = [*history.messages, *(members.get("messages") or ())]
        return wire.send(item_forms.dumps({**members, "messages": messages}).encode())

    for _attempt in range(CREATES):
        anew = yield from create_anew(wire, call.dialect, 0, history, send)
        history, created, answer = anew.given, anew.created, anew.created.answer
        if not answer.ok:
            # An app's own create is answered as it is: only a chat has somewhere else to go.
            return answer if call.subject is None else refusal(call, answer, call.dialect)
        handle = str(json.loads(answer.body)["id"])
        bound = yield from BindNew(
            tenant=call.tenant,
            upstream=call.upstream,
            dialect=call.dialect,
            handle=handle,
            items=items,
            body=answer.body,
            intent=created.intent,
            subject=call.subject,
            primed_through=primed_through,
        )
        if bound == "beaten":
            yield from Spawn("sweep", sweep_quietly(call.tenant, call.upstream))
        if bound != "taken":
            return answer
    raise IssuedTwice(handle)


def _history(wire: Wire, subject: str, sent: tuple[dict[str, Any], ...]) -> Flow[tuple[Given, int]]:
    """Return what the subject has said so far, on whatever API, to create a thread with.

    ``sent`` are the messages that the app creates it with.
    """
    call = wire.call
    found = yield from FindSubject(call.tenant, subject)
    if found is None or found.last_position == 0:
        return Given({}, {}, []), 0
    upcoming = Next(found.conversation, found.last_position, sent)
    prime = yield from recollect(wire, upcoming, thread=True)
    return Given({}, {}, primes.thread_messages(prime)), prime.through
