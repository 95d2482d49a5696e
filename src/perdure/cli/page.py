"""What the demo prints: plain words, ASCII, and on a terminal a little colour."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import openai
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from perdure.cli.demo import Attempt, Told

_WIDEST: Final = 88
_INDENT: Final = 2
_LABEL: Final = 14
_ROLE: Final = 11
_COUNTS: Final = 60
_CELL: Final = 18
# Attributes and the two colours that stand out on dark and on light backgrounds alike.
_TITLE: Final = "bold"
_ASIDE: Final = "dim"
_GOOD: Final = "green"
_BAD: Final = "red"

_WAYS: Final = (
    ("plain SDK", "the app as it is"),
    ("common fix", "catch the error, start a new one, store its id, send again"),
    ("with history", "the same, after copying in a transcript the app kept itself"),
    ("perdure", "the app as it is, on a client made with perdure.http_client"),
)


class Page:
    """Labelled lines on standard output; long ones continue under their own beginning."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._width = min(self._console.width, _WIDEST) if self._console.is_terminal else _WIDEST

    def introduction(self) -> None:
        """Say what is about to be seen."""
        self._section("perdure demo", "three conversations are lost at the provider, and go on")
        self._text(
            "A provider runs inside this process; its model can only quote what it is given, so "
            "its answers show what it remembers. No key, no network. Every id, error, answer and "
            "count below comes from the calls of this run."
        )
        self._gap()
        self._text("After each loss the same question is asked of the same dead id in four ways:")
        self._gap()
        for way, meaning in _WAYS:
            self._row(way, meaning)

    def story(self, number: int, told: Told) -> None:
        """Show one story: what was said, the loss, four ways to go on, the ids."""
        self._section(f"{number}. {told.story.title}", told.story.api)
        self._said(told)
        self._gap()
        self._row("the loss", told.handle)
        self._row("", told.loss)
        self._gap()
        self._row("then asked", told.story.question, role="user")
        self._error(told)
        for way, attempt in _ways(told):
            self._attempt(way, attempt, told)
        self._recovered(told)
        self._gap()
        self._row("its database", f"before  {told.ids.lost}  {told.ids.lost_state}")
        self._row("", f"after   {told.ids.new}  {told.ids.new_state}")

    def summary(self, stories: Sequence[Told]) -> None:
        """Set what the three ways that lead to an answer cost and know side by side."""
        self._section("Requests", "to get the message through after the loss; what the model knew")
        self._cells("", [(way, _ASIDE) for way, _ in _ways(stories[0])])
        for told in stories:
            cells = [
                (f"{attempt.requests}  {_memory(attempt, told)}", _style(attempt, told))
                for _, attempt in _ways(told)
            ]
            self._cells(told.story.title, cells)
        self._gap()
        self._text(
            "with history: every message that is copied into a thread or a conversation is a "
            f"request, here {len(stories[0].transcript)}. perdure has the transcript in its "
            "database and sends it inside the requests that it makes anyway."
        )

    def ending(self, database: Path, *, kept: bool) -> None:
        """Say how to have the same in one's own app, and where this run's database is."""
        self._section("In your app", "pip install perdure")
        self._verbatim("import perdure", _TITLE)
        self._verbatim(
            'client = OpenAI(http_client=perdure.http_client("sqlite:///chat.db"))', _TITLE
        )
        self._gap()
        state = "kept" if kept else "removed now, --keep DIR keeps the next one"
        self._text(f"The database of this run ({state}):")
        self._verbatim(str(database))

    def _said(self, told: Told) -> None:
        label = "said"
        for message in told.transcript:
            self._row(label, message["content"], role=message["role"])
            label = ""

    def _error(self, told: Told) -> None:
        kind = type(told.error)
        name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
        self._row("plain SDK", f"{name}: {told.error.message}", _BAD)
        if not isinstance(told.error, openai.NotFoundError):
            self._row("", "(not a NotFoundError: a fix that catches only that one ends here)")

    def _attempt(self, way: str, attempt: Attempt, told: Told) -> None:
        said = f'"{attempt.answer.text}"'
        self._row(way, said, _style(attempt, told), after=_count(attempt))

    def _recovered(self, told: Told) -> None:
        note = told.recovered.answer.recovery or {}
        members = ("recovered", "memory", "generation")
        shown = ", ".join(f"{name} {note.get(name)}" for name in members)
        self._row("", f"the answer carries: {shown}")
        again = f"{_count(told.again)}, {_memory(told.again, told)}"
        self._row("", f"asked again on the same old id: {again}")
        if told.recovered.reading:
            self._row(
                "",
                f"(each way: {told.recovered.reading} more to run and to read, as without a loss)",
            )

    def _section(self, title: str, about: str) -> None:
        self._gap()
        self._console.print(Text.assemble((title, _TITLE), (f"  {about}", _ASIDE)))
        self._console.print(Text("-" * self._width, _ASIDE))

    def _cells(self, title: str, cells: Sequence[tuple[str, str]]) -> None:
        line = Text(" " * _INDENT + title.ljust(_LABEL + 4))
        for text, style in cells:
            line.append(text.ljust(_CELL), style)
        line.rstrip()
        self._console.print(line)

    def _row(
        self, label: str, text: str, style: str = "", *, role: str = "", after: str = ""
    ) -> None:
        width = _LABEL + (_ROLE if role else 0)
        line = Text(" " * _INDENT)
        line.append(label.ljust(_LABEL), _TITLE if label == "perdure" else _ASIDE)
        line.append(role.ljust(_ROLE) if role else "", _ASIDE)
        rest = self._wrapped(text, width)
        for part in rest[:-1]:
            self._console.print(line.append(part, style))
            line = Text(" " * (_INDENT + width))
        line.append(rest[-1], style)
        if after:
            # Counts stand under each other, where the page is wide enough: they are compared.
            column = min(_COUNTS, self._width - len(after))
            line.append(" " * max(column - len(line), 2) + after)
        self._console.print(line)

    def _text(self, text: str) -> None:
        for line in self._wrapped(text, 0):
            self._verbatim(line)

    def _verbatim(self, text: str, style: str = "") -> None:
        self._console.print(Text(" " * _INDENT).append(text, style))

    def _wrapped(self, text: str, used: int) -> list[str]:
        # Ids are never broken: somebody may want to copy one.
        width = max(self._width - _INDENT - used, 20)
        return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]

    def _gap(self) -> None:
        self._console.print()


def _ways(told: Told) -> tuple[tuple[str, Attempt], ...]:
    return ("common fix", told.fixed), ("with history", told.copied), ("perdure", told.recovered)


def _count(attempt: Attempt) -> str:
    return f"{attempt.requests} request{'s' if attempt.requests > 1 else ''}"


def _remembers(attempt: Attempt, told: Told) -> bool:
    return told.story.fact in attempt.answer.text


def _memory(attempt: Attempt, told: Told) -> str:
    return "remembered" if _remembers(attempt, told) else "forgot"


def _style(attempt: Attempt, told: Told) -> str:
    return _GOOD if _remembers(attempt, told) else _BAD
