"""What the times say: medians of rounds, ratios with their spread, targets reached or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final

from benchmarks.history import Cell

BARE: Final = "bare"
NORMAL: Final = "normal"
FULL: Final = "full"
COMMITS: Final = "commits"
SUBJECTS: Final = (BARE, NORMAL, FULL, COMMITS)

MOST: Final = 1.35
MOST_GROWTH: Final = 1.1

_ROW: Final = "{:<21} {:>6} {:>6} {:>7} {:<19} {:>7} {:>7} {}"

Times = dict[str, float]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median of rounds, and the lowest and the highest round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def spread(values: Sequence[float]) -> Spread:
    """Reduce the rounds' values."""
    return Spread(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Target:
    """A bound, what was measured against it, and where that was worst."""

    name: str
    at_most: float
    measured: Spread
    where: str

    @property
    def reached(self) -> bool:
        """Whether the median keeps the bound."""
        return self.measured.median <= self.at_most


@dataclass(slots=True)
class Figures:
    """The times of every round: per cell and subject, microseconds for one turn.

    A round's figure is the mean of its turns, so that what happens only now and then
    (checkpoints, garbage collection) is in it.
    """

    setup: dict[str, Any]
    rounds: dict[Cell, list[Times]] = field(default_factory=dict)

    def time(self, cell: Cell, subject: str) -> Spread:
        """Return what one turn took."""
        return spread([times[subject] for times in self.rounds[cell]])

    def ratio(self, cell: Cell, value: Callable[[Times], float]) -> Spread:
        """Return a value over the bare SDK's time, both of the same round."""
        return spread([value(times) / times[BARE] for times in self.rounds[cell]])

    def growth(self, subject: str, small: Cell, large: Cell) -> Spread:
        """Return how a turn's time grows between two sizes, in the same round.

        Both times are taken over the bare SDK's, which does not know of the size: what the
        machine did in between drops out.
        """
        pairs = zip(self.rounds[small], self.rounds[large], strict=True)
        return spread(
            [
                (after[subject] / after[BARE]) / (before[subject] / before[BARE])
                for before, after in pairs
            ]
        )

    def targets(self) -> list[Target]:
        """Return what perdure sets out to keep, each at the cell where it is worst."""
        cells = sorted(self.rounds, key=lambda cell: (cell.handle, cell.items))
        normal = [(self.ratio(cell, normal_time), where(cell)) for cell in cells]
        full = [(self.ratio(cell, full_without_commits), where(cell)) for cell in cells]
        growth = [
            (self.growth(subject, small, large), f"{subject.upper()}, {large.handle}=")
            for subject in (NORMAL, FULL)
            for small, large in ends(cells)
        ]
        sizes = sorted({cell.items for cell in cells})
        return [
            worst(f"NORMAL <= {MOST} x bare", MOST, normal),
            worst(f"FULL <= {MOST} x bare + two commits of this disk", MOST, full),
            worst(
                f"growth {sizes[0]:,} to {sizes[-1]:,} items <= {MOST_GROWTH}", MOST_GROWTH, growth
            ),
        ]

    def as_json(self) -> dict[str, Any]:
        """Return everything that was measured, and what is said about it."""
        return {
            "setup": self.setup,
            "cells": [
                {
                    "handle": cell.handle,
                    "items": cell.items,
                    "microseconds": {
                        subject: asdict(self.time(cell, subject)) for subject in SUBJECTS
                    },
                    "normal_over_bare": asdict(self.ratio(cell, normal_time)),
                    "full_over_bare": asdict(self.ratio(cell, full_time)),
                    "full_without_commits_over_bare": asdict(
                        self.ratio(cell, full_without_commits)
                    ),
                    "rounds": rounds,
                }
                for cell, rounds in self.rounds.items()
            ],
            "targets": [{**asdict(target), "reached": target.reached} for target in self.targets()],
        }

    def __str__(self) -> str:
        lines = [
            self._heading(),
            "",
            _ROW.format("", "", "bare", "NORMAL", "", "FULL", "two", "(FULL - commits)"),
            _ROW.format("handle", "items", "µs", "µs", "/ bare", "µs", "commits", "/ bare"),
        ]
        previous = None
        for cell in self.rounds:
            name = "" if cell.handle == previous else f"{cell.handle}="
            previous = cell.handle
            line = _ROW.format(
                name,
                f"{cell.items:,}",
                f"{self.time(cell, BARE).median:,.0f}",
                f"{self.time(cell, NORMAL).median:,.0f}",
                str(self.ratio(cell, normal_time)),
                f"{self.time(cell, FULL).median:,.0f}",
                f"{self.time(cell, COMMITS).median:,.0f}",
                str(self.ratio(cell, full_without_commits)),
            )
            lines.append(line)
        lines.append("")
        for target in self.targets():
            said = "reached" if target.reached else "NOT reached"
            lines += [
                f"{target.name}: {said}",
                f"    worst: {target.measured.median:.3f}, {target.where}",
            ]
        return "\n".join(line.rstrip() for line in lines)

    def _heading(self) -> str:
        setup = self.setup
        return (
            "One turn with the OpenAI SDK, without and with perdure; the provider takes no time.\n"
            f"Median of {setup['rounds']} rounds (lowest-highest), {setup['turns']} turns each; "
            f"seed {setup['seed']}.\n"
            f"{setup['versions']}; {setup['disk']}."
        )


def normal_time(times: Times) -> float:
    """Return the time of a turn with perdure on SQLite with synchronous=NORMAL."""
    return times[NORMAL]


def full_time(times: Times) -> float:
    """Return the time of a turn with perdure on SQLite with synchronous=FULL."""
    return times[FULL]


def full_without_commits(times: Times) -> float:
    """Return what is left of it when two bare commits are taken off."""
    return times[FULL] - times[COMMITS]


def where(cell: Cell) -> str:
    """Name a cell."""
    return f"{cell.handle}=, {cell.items:,} items"


def ends(cells: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """Return the smallest and the largest cell of each kind of handle; ``cells`` are in order."""
    kinds = dict.fromkeys(cell.handle for cell in cells)
    groups = [[cell for cell in cells if cell.handle == kind] for kind in kinds]
    return [(group[0], group[-1]) for group in groups]


def worst(name: str, at_most: float, candidates: Sequence[tuple[Spread, str]]) -> Target:
    """Return a target at the place where its median is highest."""
    measured, place = max(candidates, key=lambda candidate: candidate[0].median)
    return Target(name, at_most, measured, place)
