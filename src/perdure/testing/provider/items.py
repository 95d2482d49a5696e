"""Items from the wire to the store: their stored form, kept ids, links, calls and outputs.

The rules are the state half of FACTS section 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence

from perdure.testing.provider import errors, schema
from perdure.testing.provider.state import Item, State
from perdure.testing.provider.wire import Json

CALLS = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "shell_call": "shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
    "tool_search_call": "tool_search_output",
    "computer_call": "computer_call_output",
    "local_shell_call": "local_shell_call_output",
}
OUTPUTS = frozenset(CALLS.values())


def stored_form(item: Json, handle: str) -> Json:
    """Return an item as the provider lists it, in the recorded order of members."""
    kind = schema.kind_of(item)
    if kind == "message":
        return _stored_message(item, handle)
    rest = {name: value for name, value in item.items() if name not in {"id", "type", "status"}}
    if kind in schema.WITHOUT_STATUS:
        return {"id": handle, "type": kind, **rest}
    return {"id": handle, "type": kind, "status": item.get("status") or "completed", **rest}


def _stored_message(item: Json, handle: str) -> Json:
    content = item["content"]
    assistant = item["role"] == "assistant"
    if isinstance(content, str):
        content = [{"type": "output_text" if assistant else "input_text", "text": content}]
    form: Json = {
        "id": handle,
        "type": "message",
        "status": item.get("status") or "completed",
        "content": [_stored_part(part) for part in content],
        "role": item["role"],
    }
    if item.get("phase"):
        form["phase"] = item["phase"]
    return form


def _stored_part(part: Json) -> Json:
    kind = part["type"]
    if kind == "output_text":
        annotations = part.get("annotations") or []
        logprobs = part.get("logprobs") or []
        return {
            "type": kind,
            "annotations": annotations,
            "logprobs": logprobs,
            "text": part["text"],
        }
    if kind == "input_image":
        return {"detail": "auto", "file_id": None, **part}
    return dict(part)


def new_id(state: State, kind: str) -> str:
    """Return a fresh id with the prefix of that type of item."""
    return state.ids.hexed(schema.PREFIXES.get(kind, "item"))


def fresh(state: State, project: str, item: Json) -> Item:
    """Return a new item with a server-made id, not yet readable."""
    handle = new_id(state, schema.kind_of(item))
    return Item(handle, stored_form(item, handle), project)


def resolve(
    state: State, project: str, sent: Sequence[Json], context: Sequence[Item], *, store: bool
) -> list[Item]:
    """Turn checked input into items, or refuse it as FACTS 3.4 tells."""
    seen = {item.id for item in context}
    found: list[Item] = []
    kept: list[bool] = []
    for index, raw in enumerate(sent):
        _check_encrypted(state, project, raw, index)
        item, by_id = _resolve_one(state, project, raw, store=store)
        handle = raw.get("id")
        if handle is not None:
            if handle in seen and not _is_stateless(raw, store=store):
                raise errors.DUPLICATE_ITEM.error(id=handle)
            seen.add(handle)
        found.append(item)
        kept.append(by_id)
    if store:
        _check_links([*context[-1:], *found], [*[False] * len(context[-1:]), *kept])
    return found


def _resolve_one(state: State, project: str, raw: Json, *, store: bool) -> tuple[Item, bool]:
    kind, handle = schema.kind_of(raw), raw.get("id")
    if handle is None:
        return fresh(state, project, raw), False
    if kind in schema.NAMED_AFTER_CALLS:
        return Item(handle, stored_form(raw, handle), project), False
    known = state.find_item(handle, project)
    if known is not None:
        # Kept ids are resolved in the store, not taken from the body (FACTS 3.4).
        return known, True
    if kind == "message" and raw["role"] != "assistant":
        # An invented id on a user message is accepted (FACTS 3.4) and means nothing.
        return fresh(state, project, raw), False
    if store or kind == "item_reference" or (kind == "reasoning" and not _sealed(raw)):
        raise errors.INPUT_ITEM_NOT_FOUND.error(id=handle)
    return Item(handle, stored_form(raw, handle), project), False


def _sealed(raw: Json) -> bool:
    return bool(raw.get("encrypted_content"))


def _is_stateless(raw: Json, *, store: bool) -> bool:
    return not store and schema.kind_of(raw) == "reasoning" and _sealed(raw)


def _check_encrypted(state: State, project: str, raw: Json, index: int) -> None:
    blob = raw.get("encrypted_content")
    if not blob:
        return
    name = raw.get("id") or f"input[{index}]"
    opened = state.sealed.get(blob) if isinstance(blob, str) else None
    if opened is None:
        raise errors.BAD_ENCRYPTED.error(id=name)
    if opened[0] != project:
        raise errors.FOREIGN_ENCRYPTED.error(id=name)


def _check_links(sequence: Sequence[Item], kept: Sequence[bool]) -> None:
    for position, item in enumerate(sequence):
        if not kept[position]:
            continue
        kind = item.body["type"]
        following = sequence[position + 1].id if position + 1 < len(sequence) else None
        preceding = sequence[position - 1].id if position else None
        if kind == "reasoning" and item.follower_id is not None and following != item.follower_id:
            raise errors.REASONING_WITHOUT_FOLLOWER.error(id=item.id)
        if item.reasoning_id is not None and preceding != item.reasoning_id:
            raise errors.ITEM_WITHOUT_REASONING.error(
                id=item.id, type=kind, reasoning=item.reasoning_id
            )


def check_calls(sequence: Sequence[Item]) -> None:
    """Refuse a context in which calls and outputs do not pair off before the next model turn.

    Once outputs begin, every open call must be answered before anything else comes between.
    """
    open_calls: dict[tuple[str, str], str] = {}
    answering = False
    for item in sequence:
        kind, call_id = item.body["type"], _call_id(item)
        if kind in OUTPUTS and call_id is not None:
            if (kind, call_id) not in open_calls:
                raise errors.NO_TOOL_CALL.error(kind=_words(kind), call_id=call_id)
            del open_calls[kind, call_id]
            answering = bool(open_calls)
        elif kind == "message" or kind in CALLS:
            if answering:
                break
            if kind in CALLS and call_id is not None:
                open_calls[CALLS[kind], call_id] = _words(kind)
    for (_, call_id), words in open_calls.items():
        raise errors.NO_TOOL_OUTPUT.error(kind=words, call_id=call_id)
    _check_approvals(sequence)


def _call_id(item: Item) -> str | None:
    """Return what ties a call to its output; a tool search that the server makes has none."""
    by_id = item.body["type"] in schema.NAMED_AFTER_CALLS
    return item.id if by_id else item.body.get("call_id")


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _check_approvals(sequence: Sequence[Item]) -> None:
    requests = {item.id for item in sequence if item.body["type"] == "mcp_approval_request"}
    for item in sequence:
        request_id = item.body.get("approval_request_id")
        if item.body["type"] == "mcp_approval_response" and request_id not in requests:
            raise errors.NO_APPROVAL_REQUEST.error(id=request_id)


def opened(state: State, items: Sequence[Item]) -> list[Json]:
    """Return the bodies the model reads; a compaction item is read as what it holds."""
    bodies = []
    for item in items:
        body = item.body
        blob = body.get("encrypted_content")
        if body["type"] == "compaction" and blob in state.sealed:
            said = state.sealed[blob][1]
            body = {"type": "message", "role": "developer", "content": said, "compacted": True}
        bodies.append(body)
    return bodies
