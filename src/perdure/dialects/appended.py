"""Items that an app adds to a conversation, looked at where no provider does so.

What is added to a conversation that waits for its history travels with the next model call, which
leaves out what no input can carry. So an item that a provider would have refused, and that never
could be told, is refused here. In doubt it is taken: built-in items are valid, although they are
replayed by id and so never told.
"""

from __future__ import annotations

from typing import Any, Final

from perdure.dialects.items import KINDS, NEVER_PRIMED, ROLES, kind_of, message_form, new_item

_FILES: Final = ("input_image", "input_file")
#: Calls and outputs all of whose required members are known.
_WRITTEN_OUT: Final = frozenset(
    {
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
    }
)


def wrong_with(items: Any) -> str | None:
    """Return what is wrong with the ``items`` of a call that adds them; None where nothing is."""
    if not isinstance(items, list) or not items:
        return "'items' has to be a list of at least one item."
    reasons = ((number, _wrong_with_one(item)) for number, item in enumerate(items))
    return next((f"'items[{number}]' {reason}" for number, reason in reasons if reason), None)


def _wrong_with_one(item: Any) -> str | None:
    if not isinstance(item, dict):
        return "is not an object."
    if item.keys() == {"id"}:
        return None  # a reference may leave its type out
    kind = kind_of(item)
    if kind not in KINDS:
        return f"is of the type {kind!r}, which is none of an item."
    if kind == "message":
        return _wrong_with_message(item)
    if kind in _WRITTEN_OUT and new_item(item).input == NEVER_PRIMED:
        return f"lacks what a {kind} has to have, or has it in another form."
    return None


def _wrong_with_message(item: dict[str, Any]) -> str | None:
    role, content = item.get("role"), item.get("content")
    if role not in ROLES:
        return f"has the role {role!r}. Use one of {', '.join(ROLES)}."
    if message_form(item) is not None or content == [] or _has_file(content):
        return None
    return f"has no content that the role {role!r} can have, or more than an input may have."


def _has_file(content: Any) -> bool:
    """Whether a message has an image or a file, be it one that cannot be told."""
    parts = content if isinstance(content, list) else ()
    return any(isinstance(part, dict) and part.get("type") in _FILES for part in parts)
