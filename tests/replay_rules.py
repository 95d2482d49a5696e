"""What of a history may be given to a provider again, and in which form: an oracle for rebuilds.

Written from the rule table of what is valid input when a history is rebuilt by hand (a line above
each rule) and from the SDK's own types, never from the code under test.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Required, get_args, get_origin

from openai.types.responses import response_input_item_param as sdk
from typing_extensions import get_type_hints

Json = dict[str, Any]
TEXT_CHARS = 10_485_760
ARGUMENTS_CHARS = 1_048_576
ROLES = {"user", "assistant", "system", "developer"}


def _literals(hint: Any) -> Iterator[str]:
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    for inner in get_args(hint):
        if get_origin(inner) is not None:
            yield from _literals(inner)


def _input_types() -> dict[str, list[dict[str, Any]]]:
    """Every input item type that the installed SDK knows, with the members of each of its forms."""
    found: dict[str, list[dict[str, Any]]] = {}
    for form in get_args(sdk.ResponseInputItemParam):
        names = vars(sys.modules[form.__module__])
        members = get_type_hints(form, globalns=names, include_extras=True)
        for kind in _literals(members["type"]):
            found.setdefault(kind, []).append(members)
    return found


TYPES = _input_types()
# Built-in tool items are replayed by id, so without ids they must be left out. So is reasoning.
BY_ID = {
    kind
    for kind, forms in TYPES.items()
    if all(get_origin(form.get("id")) is Required for form in forms)
}
OUTPUT_OF = {
    kind: output
    for kind in TYPES
    for output in (f"{kind}_output", kind.removesuffix("_call") + "_output")
    if output in TYPES and output != kind
}
CALL_OF = {output: call for call, output in OUTPUT_OF.items()}
# An approval answers a request that is replayed by id; a compaction is sealed for one organisation;
# a trigger must be the last item.
NEVER = BY_ID | {"mcp_approval_response", "compaction", "compaction_trigger"}


def kind_of(item: Json) -> str:
    """An item's type, which a message may leave out."""
    return str(item.get("type") or "message")


def may_stand(item: Json) -> bool:
    """Whether an item, taken alone, is valid input without its id."""
    kind = kind_of(item)
    if kind in NEVER or CALL_OF.get(kind) in BY_ID:
        return False
    if kind in OUTPUT_OF or kind in CALL_OF:
        # Every output needs a call: one without a call_id belongs to a server's own tool.
        return item.get("call_id") is not None and _is_small(item)
    if kind == "message":
        return item["role"] in ROLES and bool(_parts(item)) and _is_small(item)
    return True


def _is_small(item: Json) -> bool:
    if isinstance(item.get("arguments"), str) and len(item["arguments"]) > ARGUMENTS_CHARS:
        return False
    return all(
        len(text) <= TEXT_CHARS for text in _texts(item.get("content") or item.get("output"))
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from (part[name] for name in ("text", "refusal", "stdout") if part.get(name))


def given_again(history: Sequence[Json], following: Sequence[Json] = ()) -> list[int]:
    """The positions of the items that may be kept in front of ``following``.

    Calls and outputs are one-to-one, the output after its call; what has no partner goes.
    """
    kept = {
        position
        for position, item in enumerate(history)
        if may_stand(item) and kind_of(item) not in {*OUTPUT_OF, *CALL_OF}
    }
    for key in {key for item in history if (key := _key(item)) is not None}:
        open_call, pair = None, None
        for position, item in enumerate(history):
            if _key(item) != key or not may_stand(item):
                continue
            if kind_of(item) in OUTPUT_OF:
                open_call = position if open_call is None else open_call
            elif open_call is not None:
                pair = (open_call, position)
                kept |= set(pair)
                open_call = None
        if _is_answered(key, following):
            if open_call is not None:
                kept.add(open_call)
            elif pair is not None:  # the caller's output is the one that counts
                kept.discard(pair[1])
    return sorted(kept)


def without_outputs(items: Sequence[Json]) -> list[Json]:
    """Items in an order that every valid replay of them shares.

    An output may move up to its call, and a call that is answered only later must stand last.
    """
    steady, last = [], []
    for position, item in enumerate(items):
        if kind_of(item) in OUTPUT_OF and not any(_answers(item, o) for o in items[position + 1 :]):
            last.append(item)
        elif kind_of(item) not in CALL_OF:
            steady.append(item)
    return [*steady, *last]


def _answers(call: Json, item: Json) -> bool:
    return kind_of(item) in CALL_OF and _key(call) == _key(item)


def _key(item: Json) -> tuple[str, str] | None:
    kind = kind_of(item)
    if kind in OUTPUT_OF:
        return OUTPUT_OF[kind], str(item.get("call_id"))
    return (kind, str(item.get("call_id"))) if kind in CALL_OF else None


def _is_answered(key: tuple[str, str], following: Sequence[Json]) -> bool:
    mine = [kind_of(item) for item in following if _key(item) == key]
    return mine[:1] == [key[0]]


def memory(history: Sequence[Json], kept: Sequence[int], *, whole: bool = True) -> str:
    """How much a new replica knows that was given these positions; ``whole``: of all there was."""
    if history and not kept:
        return "none"
    untold = {kind_of(item) for n, item in enumerate(history) if n not in set(kept)}
    if untold & {"message", "compaction", "item_reference"}:
        return "partial"
    return "full" if whole else "partial"


# -- forms -------------------------------------------------------------------------------------


def form(item: Json) -> Json:
    """An item without what a replay may lack, the same for what was sent and what is stored."""
    kind = kind_of(item)
    # The status is the provider's, but for a patch: there it says whether it was applied.
    dropped = {"id", "created_by", "caller", "environment"}
    if not kind.startswith("apply_patch"):
        dropped.add("status")
    shown = {key: value for key, value in item.items() if key not in dropped and value is not None}
    shown["type"] = kind
    if kind == "message":
        shown["content"] = _parts(item)
    elif isinstance(item.get("output"), list) and kind != "shell_call_output":
        shown["output"] = [_part(part) for part in item["output"]]
    return shown


def _parts(item: Json) -> list[Json]:
    content, assistant = item["content"], item["role"] == "assistant"
    if isinstance(content, str):
        return [{"type": "output_text" if assistant else "input_text", "text": content}]
    # Assistant messages: output_text and refusal only; others: what one may send.
    prefixes = ("output_text", "refusal") if assistant else ("input_",)
    return [_part(part) for part in content if part["type"].startswith(prefixes)]


def _part(part: Json) -> Json:
    dropped = {"annotations", "logprobs", "prompt_cache_breakpoint"}
    shown = {key: value for key, value in part.items() if key not in dropped and value is not None}
    if shown.get("detail") == "auto":
        del shown["detail"]
    return shown


def thread_form(message: Json) -> Json:
    """A thread message as sent or as listed: who said what."""
    content = message["content"]
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    parts = []
    for part in content:
        text = part.get("text")
        value = text["value"] if isinstance(text, dict) else text
        parts.append(part if text is None else {"type": "text", "text": value})
    return {"role": message["role"], "content": parts}
