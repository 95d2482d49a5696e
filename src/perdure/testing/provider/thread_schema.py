"""The shape of what is sent to threads: messages, their parts and files, and tool resources.

Shapes and limits are those of `thread_create_params` and `message_create_params` in openai 3.52.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from perdure.testing.provider import errors, schema
from perdure.testing.provider.state import State
from perdure.testing.provider.wire import Json

ROLES = ("user", "assistant")
PARTS = ("text", "image_file", "image_url")
DETAILS = ("auto", "low", "high")
TOOLS = ("code_interpreter", "file_search")
MAX_CODE_FILES = 20
MAX_VECTOR_STORES = 1
_SOURCES = {"image_file": "file_id", "image_url": "url"}


def check_message(raw: object, at: str) -> Json:
    """Return one message to be added, or refuse its shape."""
    message = _object(raw, at.rstrip("."))
    for name in ("role", "content"):
        if message.get(name) is None:
            raise errors.MISSING.error(param=f"{at}{name}")
    _known(message, {"role", "content", "metadata", "attachments"}, at)
    if message["role"] not in ROLES:
        raise errors.INVALID_VALUE.error(
            param=f"{at}role", value=message["role"], supported=schema.enumerated(ROLES)
        )
    _check_content(message["content"], f"{at}content")
    schema.check_metadata(message.get("metadata"), f"{at}metadata")
    for index, one in enumerate(_array(message.get("attachments"), f"{at}attachments")):
        _check_attachment(one, f"{at}attachments[{index}]")
    return message


def _check_content(content: object, at: str) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise errors.INVALID_TYPE.error(
            param=at,
            expected="one of an array of objects or string",
            got=schema.json_type(content),
        )
    for index, part in enumerate(content):
        _check_part(part, f"{at}[{index}]")


def _check_part(raw: object, at: str) -> None:
    part = _object(raw, at)
    kind = part.get("type")
    if kind not in PARTS:
        raise errors.INVALID_VALUE.error(
            param=f"{at}.type", value=kind, supported=schema.enumerated(PARTS)
        )
    _known(part, {"type", kind}, f"{at}.")
    if part.get(kind) is None:
        raise errors.MISSING.error(param=f"{at}.{kind}")
    if kind == "text":
        schema.check_text(part["text"], f"{at}.text")
        return
    source, where = _SOURCES[kind], f"{at}.{kind}"
    image = _object(part[kind], where)
    _known(image, {source, "detail"}, f"{where}.")
    if image.get(source) is None:
        raise errors.MISSING.error(param=f"{where}.{source}")
    schema.check_text(image[source], f"{where}.{source}")
    if image.get("detail", "auto") not in DETAILS:
        raise errors.INVALID_VALUE.error(
            param=f"{where}.detail", value=image["detail"], supported=schema.enumerated(DETAILS)
        )


def _check_attachment(raw: object, at: str) -> None:
    attachment = _object(raw, at)
    _known(attachment, {"file_id", "tools"}, f"{at}.")
    if attachment.get("file_id") is None:
        raise errors.MISSING.error(param=f"{at}.file_id")
    schema.check_text(attachment["file_id"], f"{at}.file_id")
    for index, raw_tool in enumerate(_array(attachment.get("tools"), f"{at}.tools")):
        where = f"{at}.tools[{index}]"
        tool = _object(raw_tool, where)
        _known(tool, {"type"}, f"{where}.")
        if tool.get("type") not in TOOLS:
            raise errors.INVALID_VALUE.error(
                param=f"{where}.type", value=tool.get("type"), supported=schema.enumerated(TOOLS)
            )


def check_resources(raw: object, *, creating: bool) -> Json:
    """Return tool resources, or refuse their shape; stores are made only along with a thread."""
    if raw is None:
        return {}
    at = "tool_resources"
    resources = _object(raw, at)
    _known(resources, set(TOOLS), f"{at}.")
    for name in resources:
        inner = _object(resources[name] or {}, f"{at}.{name}")
        if name == "code_interpreter":
            _known(inner, {"file_ids"}, f"{at}.{name}.")
            _check_ids(inner.get("file_ids"), f"{at}.{name}.file_ids", MAX_CODE_FILES)
            continue
        _known(
            inner,
            {"vector_store_ids"} | ({"vector_stores"} if creating else set()),
            f"{at}.{name}.",
        )
        where = f"{at}.{name}.vector_store"
        _check_ids(inner.get("vector_store_ids"), f"{where}_ids", MAX_VECTOR_STORES)
        made = _array(inner.get("vector_stores"), f"{where}s", MAX_VECTOR_STORES)
        for index, store in enumerate(made):
            given = _object(store, f"{where}s[{index}]")
            _known(given, {"file_ids", "metadata", "chunking_strategy"}, f"{where}s[{index}].")
    return resources


def check_files(state: State, project: str, messages: list[Json], resources: Json) -> None:
    """Refuse what names a file or a vector store that is not there."""
    code, search = (resources.get(tool) or {} for tool in TOOLS)
    for file_id in [*named_files(messages), *(code.get("file_ids") or ())]:
        if state.find_file(file_id, project) is None:
            raise errors.FILE_NOT_FOUND.error(id=file_id)
    for handle in search.get("vector_store_ids") or ():
        if state.find_vector_store(handle, project) is None:
            raise errors.VECTOR_STORE_NOT_FOUND.error(id=handle)


def named_files(messages: list[Json]) -> Iterator[str]:
    """Yield the files that messages name, as images or attachments."""
    for message in messages:
        for attachment in message.get("attachments") or ():
            yield attachment["file_id"]
        content = message["content"]
        for part in content if isinstance(content, list) else ():
            if part["type"] == "image_file":
                yield part["image_file"]["file_id"]


def _check_ids(raw: object, at: str, limit: int) -> None:
    for index, one in enumerate(_array(raw, at, limit)):
        schema.check_text(one, f"{at}[{index}]")


def _object(raw: object, at: str) -> Json:
    if not isinstance(raw, dict):
        raise errors.INVALID_TYPE.error(param=at, expected="an object", got=schema.json_type(raw))
    return raw


def _array(raw: object, at: str, limit: int | None = None) -> list[Any]:
    if raw is None:
        return []
    if not isinstance(raw, list):
        raise errors.INVALID_TYPE.error(param=at, expected="an array", got=schema.json_type(raw))
    if limit is not None and len(raw) > limit:
        raise errors.ARRAY_TOO_LONG.error(param=at, limit=limit, length=len(raw))
    return raw


def _known(members: Json, known: set[str], at: str) -> None:
    for name in members:
        if name not in known:
            raise errors.UNKNOWN_PARAMETER.error(param=f"{at}{name}")
