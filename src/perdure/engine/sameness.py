"""Sameness: whether an item that a provider shows may be one that was sent.

A provider shows an item in a form of its own: a text as a list of parts, a file without what is in
it, a picture without its link (one that was not asked for by `include`). So what it leaves out, or
shows in another way, tells nothing; what it shows as it was sent does.
"""

from __future__ import annotations

from typing import Any, Final

from perdure.dialects import items as item_forms

#: What a picture, a file or a recording is, in the members of each API's parts.
_SOURCES: Final = ("file_id", "image_url", "url", "file_url", "filename", "file_data", "data")
_LINKS: Final = ("http://", "https://")


def may_be(sent: dict[str, Any], shown: dict[str, Any]) -> bool:
    """Whether two forms may be of one item: they say the same, and show no two things."""
    return essence(sent) == essence(shown) and not any(
        _differ(one[key], other[key])
        for one, other in zip(_sources(sent), _sources(shown), strict=True)
        for key in one.keys() & other.keys()
    )


def essence(wire: dict[str, Any]) -> tuple[object, ...]:
    """Return what an item has in common with itself in any other form of it."""
    others = [part.get("type") for part in _others(wire)]
    called = (wire.get("call_id"), wire.get("name"), wire.get("arguments"), wire.get("output"))
    return (wire.get("role"), item_forms.text_of(wire), *others, *map(str, called))


def _others(wire: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a message that are no text."""
    content = wire.get("content")
    parts = content if isinstance(content, list) else ()
    return [part for part in parts if "text" not in part]


def _sources(wire: dict[str, Any]) -> list[dict[str, str]]:
    """Return what each part that is no text shows of its picture, file or recording."""
    found = []
    for part in _others(wire):
        inner = part.get(str(part.get("type")))  # threads have a member of the type's name
        members = inner if isinstance(inner, dict) else part
        found.append({key: members[key] for key in _SOURCES if isinstance(members.get(key), str)})
    return found


def _differ(one: str, other: str) -> bool:
    """Whether two sources are two things; a link and the data itself may be one."""
    if one.startswith(_LINKS) != other.startswith(_LINKS):
        return False
    return _data(one) != _data(other)


def _data(source: str) -> str:
    """Return a source without what a provider may say before it of its kind."""
    return source.partition(",")[2] if source.startswith("data:") else source
