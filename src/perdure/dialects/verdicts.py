"""Verdicts: what a provider's answer means for the replica, by rules kept as data.

The rules stand in ``verdicts.toml``, each with its source and date, because they rest on what
providers were seen to answer and a provider can change a sentence any day.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from datetime import date
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final, Literal, TypeAlias, get_args

from perdure.dialects.shapes import Shape
from perdure.errors import ConfigurationError
from perdure.model import Dialect, value

Verdict: TypeAlias = Literal[
    "ok",
    "gone",
    "item_gone",
    "file_gone",
    "too_long",
    "locked",
    "foreign",
    "ambiguous",
    "unrecognised",
]

_REDIRECTS: Final = range(300, 400)
_SERVER_ERRORS: Final = 500
_ABSENT: Final = frozenset({404, 410})
_LEARNED_MOST: Final = 64
_VERDICTS: Final = ("gone", "item_gone", "file_gone", "too_long", "locked", "foreign", "ambiguous")
_NAMING: Final = frozenset({"item_gone", "file_gone"})
#: The status under which rules know errors inside an answer.
IN_ANSWER: Final = 200
_DIALECTS: Final = get_args(Dialect)
_STATUSES: Final = range(100, 600)


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
    code: str | None = None
    type: str | None = None
    param: str | None = None
    message: str | None = None
    retired: bool = False
    there: bool = False
    source: str = ""
    date: str = ""

    def matches(self, fault: Fault, dialect: str, handle: str | None) -> bool:
        """Say whether the rule is about this error."""
        return (
            fault.status in self.status
            and (not self.dialects or dialect in self.dialects)
            and (self.code is None or self.code == fault.code)
            and (self.type is None or self.type == fault.type)
            and (self.param is None or self.param == fault.param)
            and (self.message is None or _found(self.message, handle, fault.message))
        )


@value
class Judgement:
    """A verdict and the rule it came from; ``retired``: the whole API is gone for good.

    ``there``: what counts as gone is there, and cannot be continued. ``item``: the id of the item
    or file that is gone, where not the replica is. ``inferred``: from answers that a server without
    the routes would give as well.
    """

    verdict: Verdict
    rule: str | None = None
    retired: bool = False
    there: bool = False
    item: str | None = None
    inferred: bool = False


@cache
def rules() -> tuple[Rule, ...]:
    """Return the built-in rules in order."""
    return read_rules(files(__package__).joinpath("verdicts.toml").read_text(encoding="utf-8"))


def read_rules(text: str) -> tuple[Rule, ...]:
    """Return the rules of a TOML text in the form of ``verdicts.toml``.

    Raises :class:`~perdure.errors.ConfigurationError` with the rule and what is wrong with it.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"The verdict rules are not TOML: {error}.") from None
    rows = tables.pop("rule", [])
    if tables:
        names = ", ".join(map(repr, sorted(tables)))
        raise ConfigurationError(f"The verdict rules have {names}: only [[rule]] is read.")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigurationError(
            "The verdict rules have a 'rule' that is no table: write [[rule]]."
        )
    return tuple(_rule(row, number) for number, row in enumerate(rows, 1))


def _rule(row: dict[str, Any], number: int) -> Rule:
    """Return a rule; one with a mistake would never match, and nobody would know why."""
    wrong = [
        *(f"{key} is unknown" for key in sorted(row.keys() - _ALLOWED.keys())),
        *(f"{key} is missing" for key in sorted({"name", "verdict", "status"} - row.keys())),
        *(
            f"{key} is {row[key]!r}, and has to be {allowed}"
            for key, (fits, allowed) in _ALLOWED.items()
            if key in row and not fits(row[key])
        ),
    ]
    if not wrong:
        wrong = _wrong_in(row)
    if wrong:
        raise ConfigurationError(f"Verdict rule {row.get('name', number)!r}: {'; '.join(wrong)}.")
    return _made(row)


def _wrong_in(row: dict[str, Any]) -> list[str]:
    """Return what is wrong with a rule's pattern."""
    try:
        groups = re.compile(row.get("message", "")).groupindex
    except re.error as error:
        return [f"message: {error}"]
    if row["verdict"] == "item_gone" and "id" not in groups:
        return ["item_gone needs a message with a group (?P<id>...) that finds the item's id"]
    return []


def _is_text(member: object) -> bool:
    return isinstance(member, str)


def _is_bool(member: object) -> bool:
    return isinstance(member, bool)


def _is_code(member: object) -> bool:
    return isinstance(member, str | int) and not isinstance(member, bool)


def _are_statuses(member: object) -> bool:
    return (
        isinstance(member, list)
        and bool(member)
        and all(type(status) is int and status in _STATUSES for status in member)
    )


def _are_dialects(member: object) -> bool:
    return isinstance(member, list) and all(dialect in _DIALECTS for dialect in member)


#: The members of a rule, and what each may be.
_ALLOWED: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "name": (_is_text, "a text"),
    "verdict": (_VERDICTS.__contains__, f"one of {', '.join(_VERDICTS)}"),
    "status": (_are_statuses, "a list of HTTP statuses, as in [400, 404]"),
    "dialects": (_are_dialects, f"a list of {', '.join(_DIALECTS)}"),
    "code": (_is_code, "a text or a whole number"),
    "type": (_is_text, "a text"),
    "param": (_is_text, "a text"),
    "message": (_is_text, "a regular expression"),
    "retired": (_is_bool, "true or false"),
    "there": (_is_bool, "true or false"),
    "source": (_is_text, "a text"),
    "date": (lambda member: isinstance(member, str | date), "a date"),
}


def _made(row: dict[str, Any]) -> Rule:
    return Rule(
        name=row["name"],
        verdict=row["verdict"],
        status=frozenset(row["status"]),
        dialects=frozenset(row.get("dialects", ())),
        code=_text(row.get("code")),  # servers send it as either
        type=row.get("type"),
        param=row.get("param"),
        message=row.get("message"),
        retired=row.get("retired", False),
        there=row.get("there", False),
        source=row.get("source", ""),
        date=str(row.get("date", "")),
    )


@lru_cache(maxsize=512)
def _pattern(message: str, handle: str | None) -> re.Pattern[str]:
    return re.compile(message.replace("{handle}", re.escape(handle) if handle else r"\S+"))


def _found(message: str, handle: str | None, text: str) -> bool:
    return _pattern(message, handle).search(text) is not None


def _item(rule: Rule, fault: Fault, handle: str | None) -> str | None:
    if rule.verdict not in _NAMING:
        return None
    found = _pattern(rule.message or "", handle).search(fault.message)
    return None if found is None else found.groupdict().get("id")


def fault_of(status: int, body: bytes) -> Fault:
    """Reduce an error body, in any of the shapes servers use, to a :class:`Fault`."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
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


def failure_in(body: bytes, shown: dict[str, Any], shape: Shape) -> Fault | None:
    """Return the error of a 200 that is no answer or a failed one; None for any other.

    ``shown`` is the object that the body is, empty where it is none.
    """
    if not shape(shown):
        return fault_of(IN_ANSWER, body)
    return fault_in(IN_ANSWER, shown) if shown.get("status") == "failed" else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def learn(known: list[Rule], fault: Fault, dialect: str, handle: str) -> None:
    """Add to what is known what a probe has taught: this error, about whatever handle, is a loss.

    Only an error that names the handle can be told from others of its kind; the rest is probed
    every time. So is one that is never worded the same twice: the oldest make room.
    """
    if not _names(fault, handle):
        return
    rule = Rule(
        name="learned",
        verdict="gone",
        status=frozenset({fault.status}),
        dialects=frozenset({dialect}),
        code=fault.code,
        message=f"^{re.escape(fault.message).replace(re.escape(handle), '{handle}')}$",
        source="a probe by this process",
    )
    if rule not in known:
        known.append(rule)
        del known[:-_LEARNED_MOST]


def _names(fault: Fault, handle: str) -> bool:
    """Whether an error is about the handle; a path in it only repeats what was asked for."""
    return re.search(rf"(?<![\w/-]){re.escape(handle)}(?![\w-])", fault.message) is not None


def judge(fault: Fault, dialect: str, handle: str | None, more: tuple[Rule, ...] = ()) -> Judgement:
    """Return the verdict on an error that a request with ``handle`` was answered with.

    ``more`` are the owner's own rules, asked first. ``unrecognised`` is no verdict: the handle has
    to be probed before anything is concluded.
    """
    for rule in (*more, *rules()):
        if rule.matches(fault, dialect, handle):
            item = _item(rule, fault, handle)
            return Judgement(rule.verdict, rule.name, rule.retired, rule.there, item)
    if fault.status >= _SERVER_ERRORS:
        return Judgement("ambiguous")
    if fault.status in _REDIRECTS:
        return Judgement("foreign")
    return Judgement("unrecognised" if handle else "foreign")


def judge_probed(
    fault: Fault, probe: Fault | None, dialect: str, handle: str, more: tuple[Rule, ...] = ()
) -> Judgement:
    """Return the verdict on an unrecognised error by what reading its handle was answered.

    ``probe`` is None where the handle can be read. A server without that route answers 404 about
    whatever it is asked, so a 404 in words that no rule knows counts only where it names the
    handle, or where the call itself was answered in the same way.
    """
    if probe is None:
        return Judgement("foreign", "probe")
    found = judge(probe, dialect, handle, more)
    if found.verdict == "gone":
        return Judgement("gone", f"probe: {found.rule}")
    absent, named = probe.status in _ABSENT, _names(probe, handle)
    if found.verdict == "unrecognised" and absent and (named or fault.status in _ABSENT):
        return Judgement("gone", f"probe: {probe.status}", inferred=not named)
    return Judgement("foreign", found.rule, found.retired)


def judge_no_answer(probed: Judgement) -> Judgement:
    """Return the verdict on a 200 that is no answer, and that no rule knows, by its probe.

    Nothing tells whether what was asked was done, unless the replica is gone.
    """
    return probed if probed.verdict == "gone" else Judgement("ambiguous")


def judge_refused(fault: Fault, dialect: str, more: tuple[Rule, ...] = ()) -> Judgement:
    """Return the verdict on a refused create, which names no replica that could be gone.

    Where no rule knows what else is not there, the route is not: the whole API is gone for good.
    """
    found = judge(fault, dialect, None, more)
    if found.rule is None and fault.status in _ABSENT:
        return Judgement("foreign", "create", retired=True)
    return found
