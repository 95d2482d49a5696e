"""Verdicts: what a provider's answer means for the replica, by rules kept as data.

The rules stand in ``verdicts.toml``, each with its source and date, because they rest on what
providers were seen to answer and a provider can change a sentence any day.
"""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final, Literal, TypeAlias

from perdure.model import value

Verdict: TypeAlias = Literal["ok", "gone", "locked", "foreign", "ambiguous", "unrecognised"]

_SERVER_ERRORS: Final = 500


@value
class Fault:
    """A provider's error reduced to what rules look at."""

    status: int
    message: str = ""
    code: str | None = None
    type: str | None = None
    param: str | None = None


@value
class Rule:
    """One row of ``verdicts.toml``."""

    name: str
    verdict: Verdict
    status: frozenset[int]
    dialects: frozenset[str]
    code: str | None
    message: str | None
    retired: bool

    def matches(self, fault: Fault, dialect: str, handle: str | None) -> bool:
        """Say whether the rule is about this error."""
        return (
            fault.status in self.status
            and (not self.dialects or dialect in self.dialects)
            and (self.code is None or self.code == fault.code)
            and (self.message is None or _found(self.message, handle, fault.message))
        )


@value
class Judgement:
    """A verdict and the rule it came from; ``retired``: the whole API is gone for good."""

    verdict: Verdict
    rule: str | None = None
    retired: bool = False


@cache
def rules() -> tuple[Rule, ...]:
    """Return the built-in rules in order."""
    text = files(__package__).joinpath("verdicts.toml").read_text(encoding="utf-8")
    return tuple(
        Rule(
            name=row["name"],
            verdict=row["verdict"],
            status=frozenset(row["status"]),
            dialects=frozenset(row.get("dialects", ())),
            code=row.get("code"),
            message=row.get("message"),
            retired=row.get("retired", False),
        )
        for row in tomllib.loads(text)["rule"]
    )


@lru_cache(maxsize=512)
def _pattern(message: str, handle: str | None) -> re.Pattern[str]:
    return re.compile(message.replace("{handle}", re.escape(handle) if handle else r"\S+"))


def _found(message: str, handle: str | None, text: str) -> bool:
    return _pattern(message, handle).search(text) is not None


def fault_of(status: int, body: bytes) -> Fault:
    """Reduce an error body, in any of the shapes servers use, to a :class:`Fault`."""
    try:
        value = json.loads(body)
    except ValueError:
        return Fault(status, body[:2000].decode("utf-8", "replace"))
    return fault_in(status, value)


def fault_in(status: int, value: Any) -> Fault:
    """Reduce a decoded error (``error`` as object or text, ``detail``, ``message``)."""
    if not isinstance(value, dict):
        return Fault(status, str(value))
    inner = value.get("error")
    if isinstance(inner, str):
        return Fault(status, inner)
    if not isinstance(inner, dict):
        inner = value
    message = inner.get("message") or inner.get("detail") or ""
    return Fault(
        status,
        message if isinstance(message, str) else json.dumps(message),
        _text(inner.get("code")),
        _text(inner.get("type")),
        _text(inner.get("param")),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def judge(fault: Fault, dialect: str, handle: str | None) -> Judgement:
    """Return the verdict on an error that a request with ``handle`` was answered with.

    ``unrecognised`` is no verdict: the handle has to be probed before anything is concluded.
    """
    for rule in rules():
        if rule.matches(fault, dialect, handle):
            return Judgement(rule.verdict, rule.name, rule.retired)
    if fault.status >= _SERVER_ERRORS:
        return Judgement("ambiguous")
    return Judgement("unrecognised" if handle else "foreign")
