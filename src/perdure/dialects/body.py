"""Change members of a JSON object without touching the rest of its bytes.

A request is never re-modelled: what the app sent is what the provider gets, except for a handle
or an input. So an edit scans the text for where each top-level member stands, and splices.
Unknown fields, number formats, key order and escapes survive because nothing is written anew.
"""

from __future__ import annotations

import json
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final

from perdure.errors import BadInput
from perdure.model import value

_DECODE: Final = json.JSONDecoder().raw_decode
_SPACE: Final = " \t\n\r"
_STRICT: Final = True  # no raw control characters inside strings


@value
class _Span:
    """Where a member stands: from its key to the end of its value, and where the value begins."""

    start: int
    value: int
    end: int


class Body:
    """A JSON object as text, decoded; where each member stands is found when it is asked for."""

    __slots__ = ("_found", "members", "text")

    def __init__(self, text: str, members: dict[str, Any]) -> None:
        self.text = text
        self.members = members
        self._found: dict[str, _Span] | None = None

    @property
    def _spans(self) -> dict[str, _Span]:
        if self._found is None:
            self._found = _scan(self.text)
        return self._found

    def raw(self, key: str) -> str:
        """Return the text of a member's value exactly as it was sent."""
        span = self._spans[key]
        return self.text[span.value : span.end]

    def changed(self, changes: dict[str, str | None]) -> bytes:
        """Return the bytes with each named member replaced by JSON text, added, or (None) cut.

        Every other member stands there in the very text in which it was sent.
        """
        members = [
            self._with_value(span, changes[key]) if key in changes else self._text(span)
            for key, span in self._spans.items()
        ]
        members += [
            f"{json.dumps(key)}:{value}"
            for key, value in changes.items()
            if value is not None and key not in self._spans
        ]
        return f"{{{','.join(text for text in members if text is not None)}}}".encode()

    def _text(self, span: _Span) -> str:
        return self.text[span.start : span.end]

    def _with_value(self, span: _Span, value: str | None) -> str | None:
        return None if value is None else self.text[span.start : span.value] + value


def with_members(text: str, members: str) -> str:
    """Return a JSON object's text with ``members`` (JSON text, no braces) added at its end."""
    end = text.rindex("}")
    head = text[:end].rstrip(_SPACE)
    comma = "" if head.endswith(("{", ",")) else ","
    return f"{head}{comma}{members}{text[end:]}"


def object_in(body: bytes) -> dict[str, Any]:
    """Return the object that an answer is; empty where a server says something else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def object_of(value: object) -> dict[str, Any]:
    """Return a member that has to be an object; empty where a server has something else there."""
    return value if isinstance(value, dict) else {}


def objects_in(value: object) -> list[dict[str, Any]]:
    """Return the objects of a member that has to be a list of them; none where it is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def read_body(content: bytes) -> Body:
    """Scan a JSON object; raises :class:`BadInput` where it is not one."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise BadInput(
            f"The body is not UTF-8 text (byte {error.start}), so it cannot be JSON. "
            "Nothing was sent or stored."
        ) from None
    try:
        members = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadInput(
            f"The body is not a JSON object ({error}). Nothing was sent or stored."
        ) from None
    if not isinstance(members, dict):
        raise BadInput("The body is JSON but not an object. Nothing was sent or stored.")
    return Body(text, members)


def _scan(text: str) -> dict[str, _Span]:
    """Return where each member of an object stands; the text is known to be valid."""
    spans: dict[str, _Span] = {}
    at = _skip(text, _after(text, 0, "{"))
    while text[at] != "}":
        start = at
        key, at = scanstring(text, at + 1, _STRICT)
        value_at = _skip(text, _after(text, at, ":"))
        _, at = _DECODE(text, value_at)
        if key in spans:
            raise BadInput(f"The member {key!r} stands twice in the body: which one is meant?")
        spans[key] = _Span(start, value_at, at)
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return spans


def _after(text: str, at: int, char: str) -> int:
    return text.index(char, at) + 1


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at
