"""POST /responses: validation in the live order, the turn, and how it is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from perdure.testing.provider import (
    context,
    errors,
    items,
    model,
    response_body,
    response_events,
    schema,
)
from perdure.testing.provider import models as model_list
from perdure.testing.provider.state import Conversation, Item, State, StoredResponse
from perdure.testing.provider.turn import Turned, Wish, take_turn
from perdure.testing.provider.wire import Answer, Event, Json, Request

BACKGROUND_SECONDS = 5.0
"""How long a background response takes by the clock, if nobody asks for it."""
MIN_OUTPUT_TOKENS = 16
REASONS = re.compile(r"o\d")
_PARAMETERS = """
    access_programs background context_management conversation include input instructions
    max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls
    previous_response_id prompt prompt_cache_key prompt_cache_options prompt_cache_retention
    reasoning safety_identifier service_tier store stream stream_options temperature text
    tool_choice tools top_logprobs top_p truncation user personality
"""
PARAMETERS = frozenset(_PARAMETERS.split())


@dataclass
class Turn:
    """One request on its way through validation."""

    state: State
    request: Request
    body: Json
    sent: list[Json]
    conversation: Conversation | None = None
    parent: StoredResponse | None = None
    context: tuple[Item, ...] = ()
    input: tuple[Item, ...] = ()

    @property
    def store(self) -> bool:
        """Tell whether anything is kept."""
        return self.body.get("store") is not False

    @property
    def remembered(self) -> tuple[Item, ...]:
        """Return the history that the model is shown; under amnesia there is none."""
        return () if self.request.fault("amnesia") is not None else self.context

    def prompt(self) -> model.Prompt:
        """Return what the model is shown."""
        body = self.body | {
            "tools": [*map(response_body.tool_settings, self.body.get("tools") or [])]
        }
        return context.prompt(self.state, self.remembered + self.input, body)


def create(state: State, request: Request) -> Answer:
    """Answer POST /responses."""
    turn = Turn(state, request, request.json(), [])
    turn.sent = check_shape(state, turn.body)
    lost = request.fault("loss_in_200")
    if lost is not None:
        return _loss(turn, lost.form)
    find_state(turn)
    check_capability(turn.body)
    return _produce(turn)


def check_shape(state: State, body: Json) -> list[Json]:
    """Refuse what is malformed, before any handle is looked at (FACTS 3.1, validation order)."""
    for name in body:
        if name not in PARAMETERS:
            raise errors.UNKNOWN_PARAMETER.error(param=name)
    if not isinstance(body.get("model"), str):
        raise errors.MISSING.error(param="model")
    schema.check_metadata(body.get("metadata"))
    _check_handles(body)
    limit = body.get("max_output_tokens")
    if limit is not None and not isinstance(limit, int):
        raise errors.INVALID_TYPE.error(
            param="max_output_tokens", expected="an integer", got=schema.json_type(limit)
        )
    if limit is not None and limit < MIN_OUTPUT_TOKENS:
        raise errors.INTEGER_TOO_SMALL.error(
            param="max_output_tokens", limit=MIN_OUTPUT_TOKENS, value=limit
        )
    if body.get("background") and body.get("store") is False:
        raise errors.BACKGROUND_NEEDS_STORE.error()
    return _check_input(state, body)


def _check_handles(body: Json) -> None:
    previous, conversation = body.get("previous_response_id"), body.get("conversation")
    if previous is not None and conversation is not None:
        raise errors.MUTUALLY_EXCLUSIVE.error()
    if previous is not None:
        _check_previous(previous)
    if conversation is not None:
        named = response_body.conversation_id(body)
        schema.check_handle(named, "conversation", "conv")


def _check_previous(previous: object) -> None:
    # Response ids have no length limit here: gateways issue very long ones (FACTS 6).
    param = "previous_response_id"
    if not isinstance(previous, str):
        raise errors.INVALID_TYPE.error(
            param=param, expected="a string", got=schema.json_type(previous)
        )
    if not schema.ID_CHARACTERS.match(previous):
        raise errors.ID_CHARACTERS.error(param=param, value=previous)
    if not previous.startswith("resp"):
        raise errors.ID_PREFIX.error(param=param, value=previous, prefix="resp")


def _check_input(state: State, body: Json) -> list[Json]:
    sent = body.get("input")
    if sent is None:
        if not any(body.get(name) for name in ("previous_response_id", "conversation", "prompt")):
            raise errors.MISSING.error(param="input")
        return []
    if isinstance(sent, str):
        schema.check_text(sent, "input")
        return [{"type": "message", "role": "user", "content": sent}]
    checked = schema.check_items(sent, "input", errors.INPUT_ID_PREFIX)
    schema.check_trigger(checked)
    schema.check_namespaces(checked, body.get("tools") or [])
    if len(checked) > state.max_input_items:
        raise errors.ARRAY_TOO_LONG.error(
            param="input", limit=state.max_input_items, length=len(checked)
        )
    return checked


def find_state(turn: Turn) -> None:
    """Look up conversation, then previous response, then kept ids, calls and outputs."""
    state, project = turn.state, turn.request.project
    named = response_body.conversation_id(turn.body)
    if named is not None:
        turn.conversation = open_conversation(state, turn.request, named)
        turn.context = context.since_compaction(turn.conversation.items)
    previous = turn.body.get("previous_response_id")
    if previous is not None:
        turn.parent = state.find_response(previous, project)
        if turn.parent is None:
            raise errors.PREVIOUS_RESPONSE_NOT_FOUND.error(id=previous)
        finish_background(turn.parent)
        turn.context = context.since_compaction(state.history(turn.parent))
    if turn.conversation is not None:
        refuse_known(turn.conversation, turn.sent)
    for file_id in schema.named_files(turn.sent):
        if state.find_file(file_id, project) is None:
            raise errors.FILE_NOT_FOUND.error(id=file_id)
    found = items.resolve(state, project, turn.sent, turn.context, store=turn.store)
    turn.input = tuple(found)
    items.check_calls([*turn.context, *turn.input])


def open_conversation(state: State, request: Request, handle: str) -> Conversation:
    """Return a conversation nobody else is writing to."""
    conversation = state.find_conversation(handle, request.project)
    if conversation is None:
        raise errors.CONVERSATION_NOT_FOUND.error(id=handle)
    holder = state.responses.get(conversation.locked_by or "")
    if holder is not None:
        advance_by_clock(state, holder)
    if conversation.locked_by is not None or request.fault("conversation_locked"):
        raise errors.CONVERSATION_LOCKED.error()
    return conversation


def refuse_known(conversation: Conversation, sent: list[Json]) -> None:
    """Refuse a whole batch that names an item already in the conversation (FACTS 2.1)."""
    if any(raw.get("id") is not None for raw in sent):
        present = {item.id for item in conversation.items}
        if any(raw.get("id") in present for raw in sent):
            raise errors.ITEM_ALREADY_THERE.error()


def check_capability(body: Json) -> None:
    """Refuse what the model cannot do; the last phase of validation."""
    name = str(body["model"])
    model_list.require(name)
    if REASONS.match(name):
        for param in ("temperature", "top_p"):
            if body.get(param) is not None:
                raise errors.UNSUPPORTED_PARAMETER.error(param=param)


def _reasons(body: Json) -> bool:
    effort = (body.get("reasoning") or {}).get("effort")
    return bool(REASONS.match(str(body["model"]))) or effort not in {None, "none"}


def _loss(turn: Turn, form: str) -> Answer:
    """Tell the loss inside a 200, as gateways do (FACTS 3.1 and 6); some erase the cause."""
    named = response_body.conversation_id(turn.body)
    if named is not None:
        error = errors.CONVERSATION_NOT_FOUND.fields(id=named)
    else:
        previous = turn.body["previous_response_id"]
        error = errors.PREVIOUS_RESPONSE_NOT_FOUND.fields(id=previous)
    if form == "error":
        told = {name: error[name] for name in ("code", "message", "param")}
        return Answer(events=iter([("error", {"type": "error", "sequence_number": 0, **told})]))
    handle, now = turn.state.ids.hexed("resp"), turn.state.clock.now()
    opening = response_body.skeleton(turn.body, handle, now, "in_progress")
    events = list(response_events.failed(opening, None if form == "erased" else error))
    if turn.body.get("stream") is True:
        return Answer(events=iter(events))
    return Answer(body=events[-1][1]["response"])


def _produce(turn: Turn) -> Answer:
    state, body = turn.state, turn.body
    wanted = turn.prompt()
    compacted = context.compaction(
        state, turn.request.project, body, wanted, turn.remembered + turn.input
    )
    if compacted is not None:
        turn.context = (compacted,)
        wanted = turn.prompt()
    prompt = context.fitted(state, wanted, body)
    handle, now = state.ids.hexed("resp"), state.clock.now()
    background = bool(body.get("background"))
    opening = response_body.skeleton(body, handle, now, "queued" if background else "in_progress")
    window = turn.request.fault("window")
    if window is not None and prompt.tokens() > window.tokens:
        raise errors.CONTEXT_TOO_LONG.error()
    wish = Wish(
        limit_tokens=body.get("max_output_tokens"),
        reasons=_reasons(body),
        seal_reasoning="reasoning.encrypted_content" in (body.get("include") or ()),
    )
    turned = take_turn(state, turn.request.project, prompt, wish)
    if compacted is not None:
        turned.output.insert(0, compacted)
    used = _usage(turn, prompt, turned)
    output = [item.body for item in turned.output]
    final = response_body.finished(opening, output, turned.status, used)
    settle = _settler(turn, final, turned)
    if turn.conversation is not None and turn.store:
        turn.conversation.locked_by = handle
    if background:
        return _queue(turn, opening, final, settle)
    if body.get("stream"):
        return Answer(events=_streamed(turn, opening, final, settle))
    return Answer(response_body.billed(final), settle=settle)


def _usage(turn: Turn, prompt: model.Prompt, turned: Turned) -> Json:
    """Count a turn as its model counts; what is cached is among the input, or it is not."""
    state, name = turn.state, str(turn.body["model"])
    counts = (prompt.tokens(), turned.output_tokens, turned.reasoning_tokens)
    asked, said, reasoned = (model_list.weigh(name, tokens) for tokens in counts)
    cached = min(asked, context.cached_tokens(state, turn.body, turn.remembered))
    return response_body.usage(
        asked - cached if state.counts_cached_apart else asked, said, reasoned, cached
    )


def _streamed(
    turn: Turn, opening: Json, final: Json, settle: Callable[[], None]
) -> Iterator[Event]:
    options = turn.body.get("stream_options") or {}
    obfuscate = options.get("include_obfuscation") is not False
    try:
        yield from response_events.stream(opening, final, settle, obfuscate=obfuscate)
    finally:
        _unlock(turn, final["id"])


def _unlock(turn: Turn, handle: str) -> None:
    if turn.conversation is not None and turn.conversation.locked_by == handle:
        turn.conversation.locked_by = None


def _settler(turn: Turn, final: Json, turned: Turned) -> Callable[[], None]:
    """Return what keeps the turn: all of it at once, at completion (FACTS 2, atomicity)."""

    def settle() -> None:
        _unlock(turn, final["id"])
        if not turn.store:
            return
        stored = _stored(turn, final, turned)
        queued = turn.state.responses.get(stored.id)
        stored.events = queued.events if queued is not None else None
        for item in stored.input + stored.output:
            turn.state.keep_item(item)
        turn.state.responses[stored.id] = stored
        if turn.conversation is not None:
            turn.conversation.items += stored.input + stored.output

    return settle


def _stored(turn: Turn, body: Json, turned: Turned | None) -> StoredResponse:
    now = turn.state.clock.now()
    return StoredResponse(
        id=body["id"],
        project=turn.request.project,
        body=body,
        input=list(turn.input),
        output=list(turned.output) if turned else [],
        parent=turn.parent.id if turn.parent else None,
        conversation=turn.conversation.id if turn.conversation else None,
        created=now,
        touched=now,
    )


def _queue(turn: Turn, opening: Json, final: Json, settle: Callable[[], None]) -> Answer:
    """Keep a background response as queued; a later read or the clock completes it."""
    queued = _stored(turn, opening, None)
    queued.finish = settle
    turn.state.responses[queued.id] = queued
    if not turn.body.get("stream"):
        return Answer(response_body.billed(opening))
    stream = response_events.stream(opening, final, lambda: None, obfuscate=True)
    queued.events = list(stream)
    return Answer(events=_play(queued, queued.events))


def _play(queued: StoredResponse, events: list[Event]) -> Iterator[Event]:
    """Yield the stored stream of a background response; it completes with its last event."""
    yield from events[:-1]
    finish_background(queued)
    yield events[-1]


def finish_background(response: StoredResponse) -> None:
    """Complete a background response now, if it still runs."""
    if response.finish is not None:
        finish, response.finish = response.finish, None
        finish()


def advance_by_clock(state: State, response: StoredResponse) -> None:
    """Complete a background response whose time has come."""
    if state.clock.now() - response.created >= BACKGROUND_SECONDS:
        finish_background(response)
