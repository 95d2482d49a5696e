"""The journal of one tenant as it stands in a SQLite database."""

from __future__ import annotations

import json
from typing import Any

from perdure.stores import SQLiteStore
from perdure.testing.simulator.journal import Conversation, Item, Journal, Turn


def read_sqlite(store: SQLiteStore, tenant: str) -> Journal:
    """Read what a SQLite store holds of a tenant."""
    database = store._database  # noqa: SLF001

    def rows(query: str, *values: str) -> list[Any]:
        found: list[Any] = database.read(lambda tx, _op: tx.execute(query, values).fetchall(), None)
        return found

    return Journal(
        conversations=[
            Conversation(*row)
            for row in rows(
                "SELECT conversation, dialect, origin_conversation, origin_position, "
                "replica_handle, unread FROM perdure_conversation WHERE tenant = ?",
                tenant,
            )
        ],
        turns=[
            Turn(
                *row[:7],  # type: ignore[misc]
                runs=(*json.loads(row[7] or "[]"), *filter(None, [row[8]])),
                answer=json.loads(row[9] or "{}"),
            )
            for row in rows(
                "SELECT t.conversation, seq, turn_id, kind, state, first_position, last_position, "
                "former_ids, response_id, CAST(body AS TEXT) FROM perdure_turn t "
                "LEFT JOIN perdure_answer a ON a.answer = t.answer WHERE tenant = ? ORDER BY key",
                tenant,
            )
        ],
        items=[
            Item(*row[:5], withdrawn=bool(row[5]))  # type: ignore[misc]
            for row in rows(
                "SELECT i.conversation, position, turn_seq, COALESCE(role, ''), wire, withdrawn "
                "FROM perdure_item i JOIN perdure_conversation c "
                "ON c.conversation = i.conversation "
                "WHERE c.tenant = ? AND i.kind <> '' ORDER BY i.key",
                tenant,
            )
        ],
        live=rows(
            "SELECT conversation, handle FROM perdure_handle "
            "WHERE tenant = ? AND kind IN ('conversation', 'thread') AND state = 'live'",
            tenant,
        ),
        handles={
            handle
            for (handle,) in rows(
                "SELECT handle FROM perdure_handle WHERE tenant = ? UNION "
                "SELECT handle FROM perdure_orphan WHERE tenant = ? AND handle IS NOT NULL",
                tenant,
                tenant,
            )
        },
        intents=rows(
            "SELECT count(*) FROM perdure_orphan WHERE tenant = ? AND handle IS NULL", tenant
        )[0][0],
        stray={
            row[0]
            for row in rows(
                "SELECT DISTINCT conversation FROM perdure_item "
                "WHERE conversation NOT IN (SELECT conversation FROM perdure_conversation)"
            )
        },
    )
