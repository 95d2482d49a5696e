"""The journal of one tenant as it stands in a PostgreSQL database."""

from __future__ import annotations

import json
from typing import Any

from perdure.testing.simulator.journal import Conversation, Item, Journal, Turn

_LIVE = """
    SELECT conversation, handle FROM perdure.handle
    WHERE tenant = %(tenant)s AND kind IN ('conversation', 'thread') AND state = 'live'
"""
_STRAY = """
    SELECT DISTINCT conversation FROM perdure.item
    WHERE tenant = %(tenant)s AND conversation NOT IN (
        SELECT conversation FROM perdure.conversation WHERE tenant = %(tenant)s)
"""


def read_postgres(connection: Any, tenant: str) -> Journal:
    """Read what a database holds of a tenant."""

    def rows(query: str) -> list[Any]:
        found: list[Any] = connection.execute(query, {"tenant": tenant}).fetchall()
        return found

    return Journal(
        conversations=[
            Conversation(*row)
            for row in rows(
                "SELECT conversation, dialect, origin_conversation, origin_position, "
                "replica_handle, unread FROM perdure.conversation WHERE tenant = %(tenant)s"
            )
        ],
        turns=[
            Turn(
                *row[:7],  # type: ignore[misc]
                runs=(*row[7], *filter(None, [row[8]])),
                answer=json.loads(row[9] or "{}"),
            )
            for row in rows(
                "SELECT conversation, seq, turn_id, kind, state, first_position, last_position, "
                "former_ids, response_id, convert_from(answer_body, 'UTF8') FROM perdure.turn "
                "WHERE tenant = %(tenant)s ORDER BY conversation, seq"
            )
        ],
        items=[
            Item(*row)
            for row in rows(
                "SELECT conversation, position, turn_seq, COALESCE(role, ''), wire, withdrawn "
                "FROM perdure.item WHERE tenant = %(tenant)s AND kind <> '' "
                "ORDER BY conversation, position"
            )
        ],
        live=rows(_LIVE),
        handles={
            handle
            for (handle,) in rows(
                "SELECT handle FROM perdure.handle WHERE tenant = %(tenant)s UNION "
                "SELECT handle FROM perdure.orphan "
                "WHERE tenant = %(tenant)s AND handle IS NOT NULL"
            )
        },
        intents=rows(
            "SELECT count(*) FROM perdure.orphan WHERE tenant = %(tenant)s AND handle IS NULL"
        )[0][0],
        stray={row[0] for row in rows(_STRAY)},
    )
