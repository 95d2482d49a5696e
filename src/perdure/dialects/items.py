"""Items: the provider's wire forms and the one canonical form, an OpenAI Responses input item.

What may be replayed by hand is the rule table of OpenAI's Responses API as mature clients found
it: ids, statuses and foreign encrypted content dropped, because kept ids are resolved in the
provider's store, which no longer has them; reasoning left out, because without its id it is
refused; built-in tool items left out, because they are replayed *by* id; a call and its output
together or not at all. What is larger than an input may be, or malformed (an attempt whose outcome
is unknown leaves in the log what no provider has checked), is left out as well: one such item would
make every later prime invalid.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from perdure.dialects.body import objects_in
from perdure.model import NewItem, StoredItem

NEVER_PRIMED: Final = ""
_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_quoted = json.encoder.encode_basestring

# Members a content part may keep in an input item; null ones are dropped, so are malformed ones.
_PARTS: Final[dict[str, tuple[str, ...]]] = {
    "input_text": ("text",),
    "input_image": ("image_url", "file_id", "detail"),
    "input_file": ("file_id", "filename", "file_data", "file_url", "detail"),
    "input_audio": ("input_audio",),
    "output_text": ("text",),
    "refusal": ("refusal",),
}
# Members without which a part says nothing; lists of a provider may show an image without its URL.
_SOURCES: Final = {
    "input_image": ("image_url", "file_id"),
    "input_file": ("file_id", "file_data", "file_url"),
}
_USER_PARTS: Final = {"input_text", "input_image", "input_file", "input_audio"}
_OUTPUT_PARTS: Final = {"input_text", "input_image", "input_file"}
_ASSISTANT_PARTS: Final = {"output_text", "refusal"}
_PHASES: Final = ("commentary", "final_answer")
# The calls that the app answers and whose items need no id, each with its answer. The others
# (computer, local shell, MCP approval) are built in: their calls are replayed by id.
_CALLS: Final = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "shell_call": "shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
    "tool_search_call": "tool_search_output",
}
TEXT_CHARS: Final = 10_485_760  # of one text in an input, as the API specification has it
_ARGUMENTS_CHARS: Final = 1_048_576  # of arguments in an input; a model may write longer ones
_FILES: Final = {"image_url", "file_data", "input_audio"}
_CHUNK: Final = {"stdout": str, "stderr": str, "outcome": dict}
_PLAIN: Final = 3  # type, role, content
ROLES: Final = ("user", "assistant", "system", "developer")
# What the id of an item begins with; an API refuses an item whose id begins otherwise.
_PREFIXES: Final = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fc",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "web_search_call": "ws",
    "file_search_call": "fs",
    "code_interpreter_call": "ci",
    "image_generation_call": "ig",
    "compaction": "cmp",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
    "mcp_approval_request": "mcpr",
}
CALL_KINDS: Final = frozenset(_CALLS)
OUTPUT_KINDS: Final = frozenset(_CALLS.values())


def dumps(value: object) -> str:
    """Return compact JSON text as every stored or spliced item has it."""
    return _encodable(_quoted(value) if type(value) is str else _dump(value))


def _encodable(text: str) -> str:
    """Return text that has a UTF-8 form; half an emoji, as a cut answer may end with, has none."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def from_input(value: Any) -> list[dict[str, Any]]:
    """Return the ``input`` of a Responses call as a list of items; a string is one user message."""
    if value is None:
        return []
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": value}]
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def user_message(text: str) -> NewItem:
    """Return the one message that a string input is."""
    return NewItem(
        wire=_encodable(f'{{"type":"message","role":"user","content":{_quoted(text)}}}'),
        input=None if len(text) <= TEXT_CHARS else NEVER_PRIMED,
        kind="message",
        role="user",
    )


def new_item(wire: dict[str, Any]) -> NewItem:
    """Return a Responses or Conversations item ready for the log."""
    kind = kind_of(wire)
    make = _FORMS.get(kind)
    form = None if make is None else make(wire)
    return NewItem(
        wire=dumps(wire),
        input=NEVER_PRIMED if form is None else (None if form == wire else _finished(form)),
        kind=kind,
        role=_text(wire.get("role")),
        call_id=_text(wire.get("call_id")),
        provider_id=_text(wire.get("id")),
    )


def kind_of(wire: dict[str, Any]) -> str:
    """Return the type of an item; a message may leave it out."""
    return str(wire.get("type") or ("message" if "role" in wire else "unknown"))


def made_id(kind: str, rest: str) -> str:
    """Return an id for an item, of a form that APIs take for one of its kind."""
    return f"{_PREFIXES.get(kind, 'item')}_{rest}"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _finished(form: dict[str, Any]) -> str:
    """Return a form's text; a plain message, which nearly all are, without the general encoder."""
    content = form.get("content")
    if len(form) == _PLAIN and isinstance(content, str):
        plain = f'{{"type":"message","role":"{form["role"]}","content":{_quoted(content)}}}'
        return _encodable(plain)
    return dumps(form)


def new_items(wires: Iterable[dict[str, Any]]) -> tuple[NewItem, ...]:
    """Return several items ready for the log."""
    return tuple(map(new_item, wires))


def message_form(wire: dict[str, Any]) -> dict[str, Any] | None:
    """Return a message as an input item; None where it cannot be one."""
    role, content = wire.get("role"), wire.get("content")
    if not isinstance(role, str) or role not in ROLES:
        return None
    if isinstance(content, list):
        parts = _parts(content, _ASSISTANT_PARTS if role == "assistant" else _USER_PARTS)
        # The string form is the one that every compatible server takes for an assistant.
        alone = len(parts) == 1 and parts[0]["type"] == "output_text"
        content = parts[0]["text"] if alone else parts
    if not isinstance(content, str | list) or content == [] or not _fits(content, TEXT_CHARS):
        return None
    form = {"type": "message", "role": role, "content": content}
    if role == "assistant" and wire.get("phase") in _PHASES:
        form["phase"] = wire["phase"]  # required back on assistant messages, refused on others
    return form


def _parts(content: list[Any], allowed: set[str]) -> list[dict[str, Any]]:
    """Return the parts that an input may have, each with the members that it may have."""
    found = []
    for part in content:
        kind = _text(part.get("type")) if isinstance(part, dict) else None
        if kind is None or kind not in allowed:
            continue
        value_type = dict if kind == "input_audio" else str
        kept = {key: part[key] for key in _PARTS[kind] if isinstance(part.get(key), value_type)}
        if any(key in kept for key in _SOURCES.get(kind, _PARTS[kind])):
            found.append({"type": kind, **kept})
    return found


def _fits(value: Any, limit: int) -> bool:
    """Whether no text in a value is longer than its limit; files have limits of their own."""
    match value:
        case str():
            return len(value) <= limit
        case list():
            return all(_fits(inner, limit) for inner in value)
        case dict():
            return all(_fits(inner, limit) for key, inner in value.items() if key not in _FILES)
    return True


_Form: TypeAlias = Callable[[dict[str, Any]], dict[str, Any] | None]
_Members: TypeAlias = dict[str, type | tuple[type, ...]]


def _keeping(required: _Members, optional: _Members | None = None) -> _Form:
    """Return what makes the form of items with these members; None without a required one."""
    members = required | (optional or {})

    def form(wire: dict[str, Any]) -> dict[str, Any] | None:
        kept = {
            key: wire[key]
            for key, kind in members.items()
            if wire.get(key) is not None and isinstance(wire[key], kind)
        }
        limits = ((key, _ARGUMENTS_CHARS if key == "arguments" else TEXT_CHARS) for key in kept)
        whole = bool(kept) and required.keys() <= kept.keys()
        if not whole or not all(_fits(kept[key], limit) for key, limit in limits):
            return None
        return {"type": wire["type"], **kept}

    return form


def _answering(form: _Form) -> _Form:
    """Return a form whose output, if it is a list, has only what an input may have in one."""

    def cleaned(wire: dict[str, Any]) -> dict[str, Any] | None:
        output = wire.get("output")
        if isinstance(output, list) and output:
            shell = wire["type"] == "shell_call_output"
            parts = _chunks(output) if shell else _parts(output, _OUTPUT_PARTS)
            wire = {**wire, "output": parts or None}
        return form(wire)

    return cleaned


def _chunks(output: list[Any]) -> list[dict[str, Any]]:
    """Return what a shell wrote; a provider's list adds who made each piece."""
    return [
        {key: chunk[key] for key in _CHUNK}
        for chunk in output
        if isinstance(chunk, dict)
        and all(isinstance(chunk.get(key), kind) for key, kind in _CHUNK.items())
    ]


def _additional_tools(wire: dict[str, Any]) -> dict[str, Any] | None:
    tools = wire.get("tools")
    if wire.get("role") != "developer" or not isinstance(tools, list):
        return None
    return {"type": "additional_tools", "role": "developer", "tools": tools}


_CALLED: Final[_Members] = {"call_id": str, "name": str}
# A call in a namespace that comes back without it is refused ("Missing namespace").
_WHERE: Final[_Members] = {"namespace": str, "async": bool}
_FORMS: Final[dict[str, _Form]] = {
    "message": message_form,
    "function_call": _keeping(_CALLED | {"arguments": str}, _WHERE),
    "function_call_output": _answering(
        _keeping({"call_id": str, "output": (str, list)}, {"name": str, "namespace": str})
    ),
    "custom_tool_call": _keeping(_CALLED | {"input": str}, _WHERE),
    "custom_tool_call_output": _answering(_keeping({"call_id": str, "output": (str, list)})),
    # Without its environment, which may be a container that has expired.
    "shell_call": _keeping({"call_id": str, "action": dict}),
    "shell_call_output": _answering(
        _keeping({"call_id": str, "output": list}, {"max_output_length": int})
    ),
    "apply_patch_call": _keeping({"call_id": str, "operation": dict, "status": str}),
    "apply_patch_call_output": _keeping({"call_id": str, "status": str}, {"output": str}),
    # Only those that the app answers have a call_id; a search by the server is built in.
    "tool_search_call": _keeping({"call_id": str, "arguments": object}, {"execution": str}),
    "tool_search_output": _keeping({"call_id": str, "tools": list}, {"execution": str}),
    "additional_tools": _additional_tools,
    "configuration_update": _keeping({}, {"reasoning": dict, "text": dict}),
}
# The others are built in, or are replayed by id.
KINDS: Final = frozenset(
    {
        *_FORMS,
        *_PREFIXES,
        "compaction_trigger",
        "computer_call",
        "computer_call_output",
        "item_reference",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_approval_response",
        "program",
        "program_output",
    }
)


def replayable(
    items: Sequence[StoredItem], following: Iterable[dict[str, Any]] = ()
) -> list[StoredItem]:
    """Return the items that form valid input in front of ``following``, the caller's own.

    Every call needs exactly one later output and every output an earlier call; what has no
    partner is left out. Once outputs begin, all open calls must be answered before anything else
    comes, so outputs are drawn together; a call that the caller answers now stands last.
    """
    output_of, answered_now = _partners(items, following)
    outputs = set(output_of.values())
    chosen: list[StoredItem] = []
    open_calls: list[int] = []
    for index, item in enumerate(items):
        if index in output_of:
            chosen.append(item)
            open_calls.append(index)
        elif index in outputs:
            drawn = sorted(output_of[call] for call in open_calls)
            chosen += [items[output] for output in drawn]
            open_calls.clear()
        elif item.input != NEVER_PRIMED and item.kind not in CALL_KINDS | OUTPUT_KINDS:
            chosen.append(item)
    return [*chosen, *(items[call] for call in answered_now)]


def _partners(
    items: Sequence[StoredItem], following: Iterable[dict[str, Any]]
) -> tuple[dict[int, int], list[int]]:
    """Return each answered call with its output, and the calls that ``following`` answers."""
    call_of: dict[tuple[str, str], int] = {}
    output_of: dict[int, int] = {}
    for index, item in enumerate(items):
        if item.input == NEVER_PRIMED:
            continue
        if item.kind in CALL_KINDS:
            key = (_CALLS[item.kind], item.call_id or "")
            if call_of.get(key) is None or call_of[key] in output_of:
                call_of[key] = index
        elif item.kind in OUTPUT_KINDS:
            call = call_of.get((item.kind, item.call_id or ""))
            if call is not None and call not in output_of:
                output_of[call] = index
    answered_now = []
    for key in _answers(following):
        call = call_of.pop(key, None)
        if call is not None:
            # An output in the log is from an attempt that failed; the caller's takes its place.
            output_of.pop(call, None)
            answered_now.append(call)
    return output_of, sorted(answered_now)


def _answers(following: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the outputs among the caller's items whose calls are not among them."""
    own: set[tuple[str, str]] = set()
    answers = []
    for wire in following:
        kind, call_id = str(wire.get("type")), str(wire.get("call_id"))
        if kind in CALL_KINDS:
            own.add((_CALLS[kind], call_id))
        elif kind in OUTPUT_KINDS and (kind, call_id) not in own:
            answers.append((kind, call_id))
    return answers


def without_ids(
    wires: Sequence[dict[str, Any]], *, whole: bool
) -> tuple[list[dict[str, Any]], int]:
    """Return items in the forms that need nothing stored, and how many have none.

    ``whole``: nothing stands before them, so that calls and outputs need their partners here.
    """
    stored = []
    for position, item in enumerate(map(new_item, wires)):
        form = item.wire if item.input is None else item.input
        stored.append(StoredItem(position, item.kind, item.role, item.call_id, None, "", form, 0.0))
    kept = replayable(stored) if whole else [item for item in stored if item.input]
    return [json.loads(item.input) for item in kept], len(wires) - len(kept)


def without_files(
    wires: Sequence[dict[str, Any]], gone: Callable[[str], bool]
) -> tuple[list[dict[str, Any]], int]:
    """Return items without the parts whose files are gone, and how many parts those were.

    A message of which nothing is left is left out; an output stays, since its call needs one.
    """
    kept, left_out = [], 0
    for wire in wires:
        lighter = dict(wire)
        for name in ("content", "output"):
            parts = wire.get(name)
            if isinstance(parts, list):
                lighter[name] = [part for part in parts if not _is_gone(part, gone)]
                left_out += len(parts) - len(lighter[name])
        if lighter.get("output") == []:
            lighter["output"] = ""
        if lighter.get("content") != []:
            kept.append(lighter)
    return kept, left_out


def _is_gone(part: Any, gone: Callable[[str], bool]) -> bool:
    file_id = part.get("file_id") if isinstance(part, dict) else None
    return isinstance(file_id, str) and gone(file_id)


def text_of(wire: dict[str, Any]) -> str:
    """Return what a person would read in a message item, any dialect; empty for other items."""
    content = wire.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(text for part in objects_in(content) if (text := _part_text(part)))


def said(form: str) -> str:
    """Return what an item in its input form says, for a search; empty where it has none."""
    return said_in(json.loads(form)) if form else ""


def said_in(wire: dict[str, Any]) -> str:
    """Return what an item says, for a search: a message its text, a call what it was given."""
    if "content" in wire:
        return text_of(wire)
    parts = (wire.get("name"), wire.get("arguments"), wire.get("input"), wire.get("output"))
    return "\n".join(part if isinstance(part, str) else dumps(part) for part in parts if part)


def _part_text(part: dict[str, Any]) -> str:
    text = part.get("text")
    if isinstance(text, dict):  # a thread message's part
        text = text.get("value")
    return str(text or part.get("refusal") or "")
