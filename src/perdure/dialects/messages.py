"""Thread messages: their wire form, the canonical form, and what a thread may be created with.

What a create takes is the table of ``thread_create_params`` in openai 3.52. A message that nobody
has checked yet (an attempt whose outcome is unknown leaves one in the log) gives up what is not
valid: one such message would make every later create fail.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from perdure.dialects.items import NEVER_PRIMED, TEXT_CHARS, dumps, message_form
from perdure.model import NewItem, StoredItem, value

_ROLES: Final = frozenset({"user", "assistant"})
_TOOLS: Final = frozenset({"code_interpreter", "file_search"})
_DETAILS: Final = frozenset({"auto", "low", "high"})
_PARTS: Final = frozenset({"text", "image_file", "image_url", "refusal"})
_PAIRS: Final = 16
_KEY_CHARS: Final = 64
_VALUE_CHARS: Final = 512
#: Stands in the stored JSON, which is our own dump, of each message with attachments.
ATTACHED: Final = '"attachments":[{'


def from_thread_message(message: dict[str, Any]) -> NewItem:
    """Return a thread message (as sent or as received) ready for the log."""
    role = message.get("role")
    content = message.get("content")
    if isinstance(content, list):
        content = [part for part in map(_from_part, content) if part is not None]
        if role == "assistant":
            content = [
                {"type": "output_text", "text": part["text"]} if "text" in part else part
                for part in content
                if part["type"] in {"input_text", "refusal"}
            ]
    form = message_form({"role": role, "content": content or None})  # threads have no empty message
    return NewItem(
        wire=dumps(message),
        input=NEVER_PRIMED if form is None else dumps(form),
        kind="message",
        role=role if isinstance(role, str) else None,
        provider_id=message["id"] if isinstance(message.get("id"), str) else None,
    )


def _from_part(part: Any) -> dict[str, Any] | None:
    match part:
        case {"type": "text", "text": {"value": value}} | {"type": "text", "text": value}:
            return {"type": "input_text", "text": value}
        case {"type": "image_file", "image_file": {**image}}:
            return {"type": "input_image", **_kept(image, "file_id", "detail")}
        case {"type": "image_url", "image_url": {"url": url, **image}}:
            return {"type": "input_image", "image_url": url, **_kept(image, "detail")}
        case {"type": "refusal", "refusal": refusal}:
            return {"type": "refusal", "refusal": refusal}
        case _:
            return None


def _kept(source: Mapping[Any, Any], *keys: str) -> dict[str, Any]:
    return {key: source[key] for key in keys if source.get(key) is not None}


# -- what a thread may be created with -------------------------------------------------------


@value
class ThreadMessage:
    """A message to create a thread with, finished JSON; ``left_out`` counts what it had besides."""

    text: str
    left_out: int


def as_created(item: StoredItem) -> ThreadMessage | None:
    """Return an item of the log, with its wire form, as a message to create a thread with.

    None where threads have no such thing: they know the roles user and assistant only, no calls
    outside a run, and no message that says nothing.
    """
    if item.kind != "message" or item.role not in _ROLES:
        return None
    wire = json.loads(item.wire) if item.wire else {}
    checked = wire.get("object") == "thread.message"  # the provider has shown it so itself
    content = wire.get("content")
    if not (isinstance(content, list) and any(map(_is_of_threads, content))):
        content = json.loads(item.input)["content"] if item.input else None
    parts = content if isinstance(content, list) else []
    said = [part for part in map(_part, parts) if part is not None]
    attachments = _attachments(wire)
    kept = [one for one in attachments if _is_attachment(one, checked=checked)]
    metadata = wire.get("metadata") or None
    lasting = metadata if checked or is_metadata(metadata) else None
    message = {
        "role": item.role,
        "content": content if isinstance(content, str) else said,
        "attachments": [_kept(one, "file_id", "tools") for one in kept],
        "metadata": lasting,
    }
    if not message["content"]:
        return None
    lost_parts = sum(map(_says_something, parts)) - len(said)
    left_out = lost_parts + len(attachments) - len(kept) + (metadata is not lasting)
    return ThreadMessage(dumps({key: one for key, one in message.items() if one}), left_out)


def attached(item: StoredItem) -> int:
    """Return how many files are attached to an item; 0 where its wire form was not read.

    Only messages of threads have attachments. The other dialects put a file into what is said.
    """
    if item.kind != "message" or not item.wire:
        return 0
    return len(_attachments(json.loads(item.wire)))


def is_metadata(value: object) -> bool:
    """Whether an object may be created with this metadata."""
    return (
        isinstance(value, dict)
        and len(value) <= _PAIRS
        and all(
            len(key) <= _KEY_CHARS and isinstance(text, str) and len(text) <= _VALUE_CHARS
            for key, text in value.items()
        )
    )


def _is_of_threads(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _PARTS


def _says_something(part: Any) -> bool:
    return not isinstance(part, dict) or part.get("text") != ""


def _part(part: Any) -> dict[str, Any] | None:
    """Return a part of either API's message as one that a create takes."""
    match part:
        case (
            {"type": "text", "text": {"value": str(said)}}
            | {"type": "text" | "input_text" | "output_text", "text": str(said)}
            | {"type": "refusal", "refusal": str(said)}
        ):
            return {"type": "text", "text": said} if 0 < len(said) <= TEXT_CHARS else None
        case {"type": "image_file", "image_file": {"file_id": str(file_id), **image}} | {
            "type": "input_image",
            "file_id": str(file_id),
            **image,
        }:
            return {"type": "image_file", "image_file": {"file_id": file_id, **_detail(image)}}
        case {"type": "image_url", "image_url": {"url": str(url), **image}} | {
            "type": "input_image",
            "image_url": str(url),
            **image,
        }:
            return {"type": "image_url", "image_url": {"url": url, **_detail(image)}}
        case _:
            return None


def _detail(image: Mapping[Any, Any]) -> dict[str, Any]:
    return {"detail": image["detail"]} if image.get("detail") in _DETAILS else {}


def _attachments(wire: dict[str, Any]) -> list[Any]:
    named = wire.get("attachments")
    return named if isinstance(named, list) else []


def _is_attachment(value: Any, *, checked: bool) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("file_id"), str):
        return False
    tools = value.get("tools")
    if checked or tools is None:
        return True
    return isinstance(tools, list) and all(
        isinstance(one, dict) and one.keys() == {"type"} and one["type"] in _TOOLS for one in tools
    )
