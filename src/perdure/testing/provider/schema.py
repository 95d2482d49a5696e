"""The shape of what is sent: item types, their members, parts per role, ids, sizes, metadata.

The rules and their errors are the table of FACTS section 3.4; the members of each type are those of
`ResponseInputItemParam` in openai 3.52.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from perdure.testing.provider import errors
from perdure.testing.provider.ids import MAX_ID_CHARS
from perdure.testing.provider.wire import Json

MAX_TEXT_CHARS = 10_485_760
MAX_ARGUMENTS_CHARS = 1_048_576
"""Of what is sent; what the model writes has no such limit (UKGovernmentBEIS/inspect_ai#4682)."""
MAX_METADATA_PAIRS = 16
MAX_METADATA_KEY_CHARS = 64
MAX_METADATA_VALUE_CHARS = 512
ID_CHARACTERS = re.compile(r"[A-Za-z0-9_-]*\Z")

ROLES = ("assistant", "system", "developer", "user")
PHASES = ("commentary", "final_answer")
ASKED_PARTS = ("input_text", "input_image", "input_file", "input_audio")
ANSWERED_PARTS = ("output_text", "refusal")
OUTPUT_PARTS = ("input_text", "input_image", "input_file")
PARTS = {"assistant": ANSWERED_PARTS, "tool": OUTPUT_PARTS}
"""What a message of that role, or the output of a tool, is made of; of others: what is asked."""
SHELL_CHUNK = ("stdout", "stderr", "outcome")
PART_TEXT = {"input_text": "text", "output_text": "text", "refusal": "refusal"}
PART_MEMBERS = {
    "input_text": {"type", "text", "prompt_cache_breakpoint"},
    "output_text": {"type", "text", "annotations", "logprobs"},
    "refusal": {"type", "refusal"},
}

REQUIRED: Mapping[str, tuple[str, ...]] = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "custom_tool_call": ("call_id", "name", "input"),
    "custom_tool_call_output": ("call_id", "output"),
    "shell_call": ("call_id", "action"),
    "shell_call_output": ("call_id", "output"),
    "apply_patch_call": ("call_id", "operation", "status"),
    "apply_patch_call_output": ("call_id", "status"),
    "tool_search_call": ("arguments",),
    "tool_search_output": ("tools",),
    "computer_call_output": ("call_id", "output"),
    "local_shell_call_output": ("id", "output"),
    "mcp_approval_response": ("approval_request_id", "approve"),
    "additional_tools": ("role", "tools"),
    "configuration_update": (),
    "compaction_trigger": (),
    "reasoning": ("summary",),
    "item_reference": ("id",),
    "compaction": ("encrypted_content",),
    "web_search_call": ("id",),
    "file_search_call": ("id",),
    "code_interpreter_call": ("id",),
    "image_generation_call": ("id",),
    "computer_call": ("id",),
    "local_shell_call": ("id",),
    "mcp_list_tools": ("id",),
    "mcp_call": ("id",),
    "mcp_approval_request": ("id",),
    "program": ("id",),
    "program_output": ("id",),
}
OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "message": ("id", "status"),
    "function_call": ("id", "status", "namespace", "caller", "async"),
    "function_call_output": ("id", "status", "name", "namespace", "caller"),
    "custom_tool_call": ("id", "status", "namespace", "caller", "async"),
    "custom_tool_call_output": ("id", "status", "caller"),
    "shell_call": ("id", "status", "environment", "caller"),
    "shell_call_output": ("id", "status", "max_output_length", "caller"),
    "apply_patch_call": ("id", "caller"),
    "apply_patch_call_output": ("id", "output", "caller"),
    "tool_search_call": ("id", "status", "call_id", "execution"),
    "tool_search_output": ("id", "status", "call_id", "execution"),
    "computer_call_output": ("id", "status", "acknowledged_safety_checks"),
    "local_shell_call_output": ("status",),
    "mcp_approval_response": ("id", "reason"),
    "additional_tools": ("id",),
    "configuration_update": ("id", "reasoning", "text"),
    "compaction_trigger": ("id",),
    "reasoning": ("id", "status", "content", "encrypted_content"),
    "compaction": ("id", "created_by"),
}
PREFIXES: Mapping[str, str] = {
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
BUILT_IN = frozenset(kind for kind, required in REQUIRED.items() if required == ("id",))
"""Items that are replayed by id, so their other members are not looked at."""
NAMED_AFTER_CALLS = frozenset({"local_shell_call_output"})
"""Items whose id is that of the call they answer, so that it is not looked for in the store."""
WITHOUT_STATUS = frozenset(
    kind
    for kind, optional in OPTIONAL.items()
    if "status" not in {*optional, *REQUIRED[kind]} or kind == "reasoning"
)
TEXTS: Mapping[str, int] = {
    "call_id": MAX_TEXT_CHARS,
    "name": MAX_TEXT_CHARS,
    "input": MAX_TEXT_CHARS,
    "arguments": MAX_ARGUMENTS_CHARS,
}
"""Members that are text in every type but one, and how long they may be."""


def kind_of(item: Json) -> str:
    """Return an item's type; a message may leave it out, and so may a reference."""
    kind = item.get("type")
    if kind is None:
        return "item_reference" if set(item) <= {"id", "type"} and "id" in item else "message"
    return str(kind)


def check_items(items: object, where: str, prefix_error: errors.Kind) -> list[Json]:
    """Refuse the first item that is malformed; `where` is the parameter's name."""
    if not isinstance(items, list):
        raise errors.INVALID_TYPE.error(
            param=where, expected="an array of objects", got=json_type(items)
        )
    for index, item in enumerate(items):
        _check_item(item, f"{where}[{index}]", prefix_error)
    return items


def _check_item(item: object, at: str, prefix_error: errors.Kind) -> None:
    if not isinstance(item, dict):
        raise errors.INVALID_TYPE.error(param=at, expected="an object", got=json_type(item))
    kind = kind_of(item)
    if kind not in REQUIRED:
        supported = enumerated(tuple(REQUIRED))
        raise errors.INVALID_VALUE.error(param=f"{at}.type", value=kind, supported=supported)
    for name in REQUIRED[kind]:
        if item.get(name) is None:
            raise errors.MISSING.error(param=f"{at}.{name}")
    _check_members(item, kind, at)
    if item.get("id") is not None:
        _check_item_id(item["id"], kind, f"{at}.id", prefix_error)
    if kind == "message":
        _check_message(item, at)
    elif kind not in BUILT_IN:
        _check_called(item, kind, at)


def _check_called(item: Json, kind: str, at: str) -> None:
    """Refuse the members of calls and outputs by their type and size."""
    for name, limit in TEXTS.items():
        if item.get(name) is not None and (kind, name) != ("tool_search_call", "arguments"):
            check_text(item[name], f"{at}.{name}", limit)
    output = item.get("output")
    if isinstance(output, list):
        for index, part in enumerate(output):
            _check_output_part(part, kind, f"{at}.output[{index}]")
    elif output is not None and kind not in {"shell_call_output", "computer_call_output"}:
        check_text(output, f"{at}.output")
    if kind == "additional_tools" and item["role"] != "developer":
        raise errors.INVALID_VALUE.error(
            param=f"{at}.role", value=item["role"], supported="'developer'"
        )


def _check_output_part(part: object, kind: str, at: str) -> None:
    if kind != "shell_call_output":
        _check_part(part, "tool", at)
        return
    if not isinstance(part, dict):
        raise errors.INVALID_TYPE.error(param=at, expected="an object", got=json_type(part))
    for name in SHELL_CHUNK:
        if part.get(name) is None:
            raise errors.MISSING.error(param=f"{at}.{name}")
    for name in part:
        if name not in SHELL_CHUNK:
            raise errors.UNKNOWN_PARAMETER.error(param=f"{at}.{name}")
    for name in ("stdout", "stderr"):
        check_text(part[name], f"{at}.{name}")


def _check_members(item: Json, kind: str, at: str) -> None:
    if kind in BUILT_IN and kind != "item_reference":
        return
    known = {"type", *REQUIRED[kind], *OPTIONAL.get(kind, ())}
    if kind == "message" and item.get("role") == "assistant":
        known.add("phase")
    for name in item:
        if name not in known:
            raise errors.UNKNOWN_PARAMETER.error(param=f"{at}.{name}")


def _check_item_id(value: object, kind: str, at: str, prefix_error: errors.Kind) -> None:
    if not isinstance(value, str):
        raise errors.INVALID_TYPE.error(param=at, expected="a string", got=json_type(value))
    check_id_form(value, at)
    prefix = PREFIXES.get(kind)
    if prefix is not None and not value.startswith(f"{prefix}_"):
        raise prefix_error.error(param=at, value=value, prefix=prefix)


def check_trigger(items: list[Json]) -> None:
    """Refuse a request to compact that is not the last item."""
    for index, item in enumerate(items[:-1]):
        if item.get("type") == "compaction_trigger":
            raise errors.TRIGGER_NOT_LAST.error(param=f"input[{index}]")


def check_namespaces(items: list[Json], tools: list[Json]) -> None:
    """Refuse a call that comes back without the namespace in which its function is."""
    default = {tool.get("name") for tool in tools}
    spaced = {
        inner.get("name")
        for tool in tools
        if tool.get("type") == "namespace"
        for inner in tool.get("tools") or ()
    }
    for index, item in enumerate(items):
        name = item.get("name")
        called = item.get("type") in {"function_call", "custom_tool_call"}
        if called and not item.get("namespace") and name in spaced - default:
            raise errors.MISSING_NAMESPACE.error(name=name, param=f"input[{index}].namespace")


def named_files(items: list[Json]) -> Iterator[str]:
    """Yield the files that checked items name in their parts."""
    for item in items:
        for name in ("content", "output"):
            parts = item.get(name)
            for part in parts if isinstance(parts, list) else ():
                if part.get("file_id") is not None:
                    yield part["file_id"]


def check_id_form(value: str, param: str) -> None:
    """Refuse an id by length and characters."""
    if len(value) > MAX_ID_CHARS:
        raise errors.STRING_TOO_LONG.error(param=param, limit=MAX_ID_CHARS, length=len(value))
    if not ID_CHARACTERS.match(value):
        raise errors.ID_CHARACTERS.error(param=param, value=value)


def check_handle(value: object, param: str, prefix: str) -> str:
    """Refuse a handle that cannot be one of that kind."""
    if not isinstance(value, str):
        raise errors.INVALID_TYPE.error(param=param, expected="a string", got=json_type(value))
    check_id_form(value, param)
    if not value.startswith(prefix):
        raise errors.ID_PREFIX.error(param=param, value=value, prefix=prefix)
    return value


def _check_message(item: Json, at: str) -> None:
    role = item["role"]
    if role not in ROLES:
        raise errors.INVALID_VALUE.error(
            param=f"{at}.role", value=role, supported=enumerated(ROLES)
        )
    phase = item.get("phase")
    if phase is not None and phase not in PHASES:
        raise errors.INVALID_VALUE.error(
            param=f"{at}.phase", value=phase, supported=enumerated(PHASES)
        )
    content = item["content"]
    if isinstance(content, str):
        check_text(content, f"{at}.content")
    elif isinstance(content, list):
        for index, part in enumerate(content):
            _check_part(part, role, f"{at}.content[{index}]")
    else:
        raise errors.INVALID_TYPE.error(
            param=f"{at}.content",
            expected="one of an array of objects or string",
            got=json_type(content),
        )


def _check_part(part: object, role: str, at: str) -> None:
    if not isinstance(part, dict):
        raise errors.INVALID_TYPE.error(param=at, expected="an object", got=json_type(part))
    kind = part.get("type")
    if kind is None:
        raise errors.MISSING.error(param=f"{at}.type")
    supported = PARTS.get(role, ASKED_PARTS)
    if kind not in supported:
        raise errors.INVALID_VALUE.error(param=at, value=kind, supported=enumerated(supported))
    for name in part:
        if kind in PART_MEMBERS and name not in PART_MEMBERS[kind]:
            raise errors.UNKNOWN_PARAMETER.error(param=f"{at}.{name}")
    if kind in PART_TEXT:
        name = PART_TEXT[kind]
        if part.get(name) is None:
            raise errors.MISSING.error(param=f"{at}.{name}")
        check_text(part[name], f"{at}.{name}")


def check_text(value: object, at: str, limit: int = MAX_TEXT_CHARS) -> None:
    """Refuse a text by its length."""
    if not isinstance(value, str):
        raise errors.INVALID_TYPE.error(param=at, expected="a string", got=json_type(value))
    if len(value) > limit:
        raise errors.STRING_TOO_LONG.error(param=at, limit=limit, length=len(value))


def check_metadata(value: object, param: str = "metadata") -> Json:
    """Return metadata, or refuse it by the limits of FACTS section 1."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise errors.INVALID_TYPE.error(param=param, expected="an object", got=json_type(value))
    if len(value) > MAX_METADATA_PAIRS:
        raise errors.TOO_MANY_PROPERTIES.error(
            param=param, limit=MAX_METADATA_PAIRS, length=len(value)
        )
    for key, held in value.items():
        at = f"{param}.{key}"
        if len(key) > MAX_METADATA_KEY_CHARS:
            raise errors.STRING_TOO_LONG.error(
                param=param, limit=MAX_METADATA_KEY_CHARS, length=len(key)
            )
        if not isinstance(held, str):
            raise errors.INVALID_TYPE.error(param=at, expected="a string", got=json_type(held))
        if len(held) > MAX_METADATA_VALUE_CHARS:
            raise errors.STRING_TOO_LONG.error(
                param=at, limit=MAX_METADATA_VALUE_CHARS, length=len(held)
            )
    return dict(value)


def json_type(value: Any) -> str:
    """Name a JSON value's type as the errors do."""
    names = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string"}
    names |= {list: "an array", dict: "an object"}
    return names.get(type(value), "null")


def enumerated(values: tuple[str, ...]) -> str:
    """Name values as the errors do."""
    quoted = [f"'{value}'" for value in values]
    *first, last = quoted
    joint = ", and " if first[1:] else " and "
    return ", ".join(first) + joint + last
