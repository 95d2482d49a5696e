"""Named statements on one connection to SQLite, and what takes an operation back."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, Final

_NAMED: Final = re.compile(r":(\w+)")


class Undo(Exception):
    """Raised inside an operation to take back what it has done and still return a result."""

    def __init__(self, result: object) -> None:
        self.result = result
        super().__init__(result)


class Query:
    """A statement whose values have numbers: SQLite looks names up again at each execution."""

    __slots__ = ("text", "values")

    def __init__(self, named: str) -> None:
        names = list(dict.fromkeys(_NAMED.findall(named)))
        self.text = _NAMED.sub(lambda name: f"?{names.index(name[1]) + 1}", named)
        self.values: Callable[[dict[str, Any]], tuple[Any, ...]]
        match names:
            case []:
                self.values = lambda _: ()
            case [name]:
                self.values = lambda values: (values[name],)
            case _:
                self.values = itemgetter(*names)


class Transaction:
    """Named statements on one connection."""

    __slots__ = ("_connection", "_queries", "execute")

    def __init__(self, connection: sqlite3.Connection, queries: dict[str, Query]) -> None:
        self._connection = connection
        self._queries = queries
        self.execute = connection.execute

    def run(self, name: str, **values: Any) -> int:
        """Run a statement for its effect; returns how many rows it changed."""
        query = self._queries[name]
        return int(self.execute(query.text, query.values(values)).rowcount)

    def one(self, name: str, **values: Any) -> Any:
        """Run a statement and return its first row, or None."""
        query = self._queries[name]
        return self.execute(query.text, query.values(values)).fetchone()

    def add(self, name: str, **values: Any) -> int:
        """Insert a row and return its key."""
        query = self._queries[name]
        return int(self.execute(query.text, query.values(values)).lastrowid or 0)

    def all(self, name: str, **values: Any) -> list[Any]:
        """Run a statement and return its rows."""
        return list(self.rows(name, **values))

    def rows(self, name: str, **values: Any) -> Iterator[Any]:
        """Run a statement and return its rows as they are read."""
        query = self._queries[name]
        return self.execute(query.text, query.values(values))

    def many(self, name: str, rows: list[tuple[Any, ...]]) -> None:
        """Run a statement once for each row of values."""
        self._connection.executemany(self._queries[name].text, rows)

    @property
    def open(self) -> bool:
        """Whether a transaction is under way; SQLite itself ends one, on a full disk for one."""
        return self._connection.in_transaction

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
