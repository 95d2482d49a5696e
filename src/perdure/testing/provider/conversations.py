"""The /conversations routes (FACTS 2 and 2.1)."""

from __future__ import annotations

from perdure.testing.provider import errors, items, paging, schema
from perdure.testing.provider.responses import open_conversation, refuse_known
from perdure.testing.provider.state import Conversation, Item, State
from perdure.testing.provider.wire import Answer, Json, Request

MAX_ITEMS_PER_CALL = 20


def create(state: State, request: Request) -> Answer:
    """Answer POST /conversations; the items are not echoed."""
    body = request.json()
    _check_members(body, {"items", "metadata"})
    metadata = schema.check_metadata(body.get("metadata"))
    sent = _check_batch(body.get("items") or [])
    now = state.clock.now()
    handle = state.ids.hexed("conv")
    conversation = Conversation(handle, request.project, now, now, metadata)
    conversation.items = _resolved(state, request.project, sent)

    def settle() -> None:
        state.conversations[conversation.id] = conversation
        for item in conversation.items:
            state.keep_item(item)

    return Answer(conversation.wire(), settle=settle)


def _check_members(body: Json, known: set[str]) -> None:
    for name in body:
        if name not in known:
            raise errors.UNKNOWN_PARAMETER.error(param=name)


def _check_batch(sent: object) -> list[Json]:
    checked = schema.check_items(sent, "items", errors.ID_PREFIX)
    if len(checked) > MAX_ITEMS_PER_CALL:
        raise errors.ARRAY_TOO_LONG.error(
            param="items", limit=MAX_ITEMS_PER_CALL, length=len(checked)
        )
    for raw in checked:
        if schema.kind_of(raw) == "reasoning" and not _says_something(raw):
            raise errors.INVALID_ITEM.error()
    return checked


def _says_something(raw: Json) -> bool:
    return bool(raw.get("id") or raw.get("summary") or raw.get("encrypted_content"))


def _resolved(state: State, project: str, sent: list[Json]) -> list[Item]:
    """Return new items; an id that exists means the old content, and may come twice (2.1)."""
    found = []
    for raw in sent:
        handle = raw.get("id")
        known = state.find_item(handle, project) if handle is not None else None
        if known is not None:
            found.append(known)
        elif schema.kind_of(raw) in schema.NAMED_AFTER_CALLS:
            found.append(Item(str(handle), items.stored_form(raw, str(handle)), project))
        elif handle is not None and not _may_be_invented(raw):
            raise errors.ITEM_NOT_FOUND.error(id=handle)
        else:
            found.append(items.fresh(state, project, raw))
    return found


def _may_be_invented(raw: Json) -> bool:
    return schema.kind_of(raw) == "message" and raw["role"] != "assistant"


def _find(state: State, request: Request, handle: str) -> Conversation:
    schema.check_handle(handle, "conversation_id", "conv")
    found = state.find_conversation(handle, request.project)
    if found is None:
        raise errors.CONVERSATION_NOT_FOUND.error(id=handle)
    return found


def retrieve(state: State, request: Request, handle: str) -> Answer:
    """Answer GET /conversations/{id}."""
    return Answer(_find(state, request, handle).wire())


def update(state: State, request: Request, handle: str) -> Answer:
    """Answer POST /conversations/{id}: metadata is replaced (reports conflict, FACTS 2)."""
    body = request.json()
    found = _find(state, request, handle)
    _check_members(body, {"metadata"})
    if "metadata" not in body:
        raise errors.MISSING.error(param="metadata")
    found.metadata = schema.check_metadata(body["metadata"])
    return Answer(found.wire())


def delete(state: State, request: Request, handle: str) -> Answer:
    """Answer DELETE /conversations/{id}; its items stay readable by reference."""
    found = _find(state, request, handle)
    del state.conversations[found.id]
    return Answer({"id": found.id, "object": "conversation.deleted", "deleted": True})


def list_items(state: State, request: Request, handle: str) -> Answer:
    """Answer GET /conversations/{id}/items."""
    found = _find(state, request, handle)
    return Answer(paging.page(request, [item.body for item in found.items]))


def add_items(state: State, request: Request, handle: str) -> Answer:
    """Answer POST /conversations/{id}/items: all of the batch or nothing."""
    body = request.json()
    schema.check_handle(handle, "conversation_id", "conv")
    _check_members(body, {"items"})
    if body.get("items") is None:
        raise errors.MISSING.error(param="items")
    sent = _check_batch(body["items"])
    if not sent:
        raise errors.EMPTY_ARRAY.error(param="items")
    conversation = open_conversation(state, request, handle)
    added = _resolved(state, request.project, sent)
    refuse_known(conversation, sent)

    def settle() -> None:
        for item in added:
            state.keep_item(item)
        conversation.items += added

    return Answer(paging.listed([item.body for item in added], has_more=False), settle=settle)


def _find_item(conversation: Conversation, handle: str) -> Item:
    for item in conversation.items:
        if item.id == handle:
            return item
    raise errors.ITEM_NOT_IN_CONVERSATION.error(id=handle)


def retrieve_item(state: State, request: Request, handle: str, item_id: str) -> Answer:
    """Answer GET /conversations/{id}/items/{item_id}."""
    return Answer(_find_item(_find(state, request, handle), item_id).body)


def delete_item(state: State, request: Request, handle: str, item_id: str) -> Answer:
    """Answer DELETE /conversations/{id}/items/{item_id} with the conversation."""
    conversation = _find(state, request, handle)
    gone = _find_item(conversation, item_id)
    conversation.items = [item for item in conversation.items if item is not gone]
    return Answer(conversation.wire())
