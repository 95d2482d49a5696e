"""What is sent after a provider has refused an input: half the history, no lost ids, no lost files.

Only what perdure has added is made lighter, and what an id can be taken from without loss. None
means that nothing of that kind was in it: the refusal is the app's own to know of.
"""

from __future__ import annotations

import json
from dataclasses import replace

from perdure.dialects import items as item_forms
from perdure.dialects.body import read_body
from perdure.dialects.tokens import message_tokens
from perdure.engine import prime as primes
from perdure.engine.delivery import Delivery
from perdure.engine.journalled import named_item
from perdure.engine.recollect import Next, recollect
from perdure.engine.wire import Call, Wire
from perdure.flow import Flow
from perdure.model import Recovery, StoredItem


def shorter(
    wire: Wire, upcoming: Next, raw_input: str | None, last: Delivery
) -> Flow[Delivery | None]:
    """Decide what is sent after the provider said that the input is too long: half the prime.

    ``raw_input`` is the app's own. None where there was no prime, or it has been halved already.
    """
    if last.recovery is None or last.halved:
        return None
    most = message_tokens(last.content.decode()) // 2
    prime = yield from recollect(wire, upcoming, most=most)
    recovery = replace(
        last.recovery, memory=prime.memory, primed=prime.primed, left_out=prime.left_out
    )
    content = read_body(last.content).changed({"input": primes.joined(prime, raw_input)})
    return replace(last, content=content, recovery=recovery, halved=True)


def without_ids(wire: Wire, last: Delivery, begun: Recovery) -> Flow[Delivery | None]:
    """Decide what is sent after the provider said that an item is gone which the input names.

    The app sent the items themselves, so they go again in forms that need nothing stored; one
    that it only referred to comes from the journal. ``begun`` tells of the item, and is the
    recovery where none is under way. None where the id was never seen here, or where nothing is
    left to take out.
    """
    call = wire.call
    known = yield from _seen(call, begun, begun.lost_handle)
    if known is None and call.policy.on_unknown == "error":
        return None
    body = read_body(last.content)
    sent = item_forms.from_input(body.members.get("input"))
    wires = list(sent)
    for number, one in enumerate(sent):
        if one.get("type") == "item_reference":
            stored = yield from _seen(call, begun, one.get("id"))
            wires[number] = one if stored is None else json.loads(stored.wire)
    unknown = any(one.get("type") == "item_reference" for one in wires)
    kept, left_out = item_forms.without_ids(wires, whole=last.handle is None)
    if kept == sent:
        return None
    content = body.changed({"input": item_forms.dumps(kept)})
    if last.handle is not None:  # the replica lives and has the history
        return replace(last, content=content)
    recovery = last.recovery or begun
    recovery = replace(
        recovery,
        left_out=recovery.left_out + left_out,
        memory="partial" if unknown else recovery.memory,
    )
    return replace(last, content=content, recovery=recovery)


def _seen(call: Call, begun: Recovery, item_id: object) -> Flow[StoredItem | None]:
    return (yield from named_item(call, begun.conversation, str(item_id), anywhere=True))


def without_files(last: Delivery, own: int, file_id: str | None) -> Delivery | None:
    """Decide what is sent after the provider said that a file is gone which the history names.

    ``own`` counts the app's own items, at the end. None where the history was not sent along, or
    names no such file. Without a ``file_id`` it is not known which file it is.
    """
    recovery = last.recovery
    if recovery is None:
        return None
    body = read_body(last.content)
    sent = item_forms.from_input(body.members.get("input"))
    primed = len(sent) - own

    def gone(one: str) -> bool:
        return file_id is None or one == file_id

    kept, left_out = item_forms.without_files(sent[:primed], gone)
    if not left_out:
        return None
    return replace(
        last,
        content=body.changed({"input": item_forms.dumps([*kept, *sent[primed:]])}),
        recovery=replace(
            recovery,
            primed=recovery.primed - (primed - len(kept)),
            left_out=recovery.left_out + left_out,
            memory="partial" if recovery.memory == "full" else recovery.memory,
        ),
    )
