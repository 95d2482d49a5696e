"""Creating a conversation or a thread: the app's own, with what its user has said so far."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from perdure.dialects import items as item_forms
from perdure.dialects.body import object_in, read_body
from perdure.dialects.messages import from_thread_message
from perdure.dialects.shapes import is_object
from perdure.engine import prime as primes
from perdure.engine.anew import Given, create_anew
from perdure.engine.ops import Answer, BindNew, FindSubject, Report, Spawn, Subject
from perdure.engine.rebuild import CREATES, as_given
from perdure.engine.recollect import Next, recollect
from perdure.engine.sweep import sweep_quietly
from perdure.engine.telling import marked
from perdure.engine.wire import Call, Wire, refusal
from perdure.errors import IssuedTwice
from perdure.flow import Flow
from perdure.model import NewItem, Recovery, value


@value
class _Moved:
    """What a subject has said elsewhere, of which a new thread is told; nothing of anybody else."""

    subject: Subject | None = None
    prime: primes.Prime = primes.NOTHING

    def without(self, dropped: int, left_out: int) -> _Moved:
        """Return it where files were left out, and messages that were nothing else."""
        return replace(self, prime=as_given(self.prime, dropped, left_out))

    def told(self, wire: Wire, handle: str) -> Recovery | None:
        """Return the record of it, for the turn that the call is made for."""
        prime = self.prime
        if self.subject is None or not (prime.primed or prime.left_out):
            return None
        return Recovery(
            conversation=self.subject.conversation,
            turn_id=wire.call.turn_id,
            reason="absent",
            generation=self.subject.replica.generation + 1,
            lost_handle=None,
            new_handle=handle,
            memory=prime.memory,
            primed=prime.primed,
            left_out=prime.left_out,
            requests=wire.requests,
        )


def create(wire: Wire) -> Flow[Answer]:
    """Carry out POST /conversations or /threads: the new replica is entered with its items."""
    call = wire.call
    body = read_body(call.content) if call.content.strip() else None
    members: dict[str, Any] = body.members if body else {}
    moved = yield from _moved(wire, members)
    history, items = Given({}, {}, primes.thread_messages(moved.prime)), _items(call, members)

    def send(history: Given) -> Flow[Answer]:
        if not history.messages:
            return wire.send(call.content)
        messages = [*history.messages, *(members.get("messages") or ())]
        return wire.send(item_forms.dumps({**members, "messages": messages}).encode())

    for _attempt in range(CREATES):
        anew = yield from create_anew(wire, call.dialect, 0, history, send)
        answer = anew.created.answer
        if not answer.ok:
            # An app's own create is answered as it is: only a chat has somewhere else to go.
            return answer if call.subject is None else refusal(call, answer, call.dialect)
        moved = moved.without(len(history.messages) - len(anew.given.messages), anew.left_out)
        history = anew.given
        made = object_in(answer.body)
        if not is_object(made):
            return answer  # whatever it is, there is nothing that could be entered
        handle = str(made["id"])
        recovery = moved.told(wire, handle)
        bound = yield from BindNew(
            tenant=call.tenant,
            upstream=call.upstream,
            dialect=call.dialect,
            handle=handle,
            items=items,
            body=answer.body,
            intent=anew.created.intent,
            subject=call.subject,
            primed_through=moved.prime.through,
            recovery=recovery,
        )
        if bound == "beaten":
            yield from Spawn("sweep", sweep_quietly(call.tenant, call.upstream))
        if bound == "bound" and recovery is not None:
            yield from Report(recovery)
            return marked(answer, recovery)
        if bound != "taken":
            return answer
    raise IssuedTwice(handle)


def _items(call: Call, members: dict[str, Any]) -> tuple[NewItem, ...]:
    """Return what an object is created with, ready for the log."""
    if call.dialect == "threads":
        return tuple(map(from_thread_message, members.get("messages") or ()))
    return item_forms.new_items(members.get("items") or ())


def _moved(wire: Wire, members: dict[str, Any]) -> Flow[_Moved]:
    """Return what the subject has said so far, on whatever API, to create a thread with."""
    call = wire.call
    if call.subject is None or call.dialect != "threads":
        return _Moved()
    found = yield from FindSubject(call.tenant, call.subject)
    if found is None or found.last_position == 0:
        return _Moved()
    sent = tuple(members.get("messages") or ())
    upcoming = Next(found.conversation, found.last_position, sent)
    return _Moved(found, (yield from recollect(wire, upcoming, thread=True)))
