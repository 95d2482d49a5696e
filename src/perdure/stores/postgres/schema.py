"""The schema: whether it is there, whether it is ours, and what would bring it up to date.

PostgreSQL is never migrated in passing: a store only looks, once per pool, and says which command
to run. Tables come from migrations, each applied once. Functions are replaced as a whole whenever
theirs differ from ours, in the same transaction, so that no worker sees one without the other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Final

from perdure.errors import (
    ConfigurationError,
    SchemaForeign,
    SchemaMissing,
    SchemaTooNew,
    SchemaTooOld,
    StoreError,
)
from perdure.stores.queries import load, migrations

PACKAGE: Final = "perdure.stores.postgres"
DEFAULT: Final = "perdure"
FUNCTIONS: Final = "functions"
_OURS: Final = re.compile(r"\bperdure\.(?=[a-z])")
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")
_MARK: Final = "Made by perdure; see perdure schema."

#: What reads a database's state: queries with their parameters, answered with rows.
Looking = Generator[tuple[str, dict[str, Any]], list[tuple[Any, ...]], "State"]

_MIGRATION_TABLE: Final = f"""\
-- What has been applied. version is that of the perdure which did it.
CREATE TABLE perdure.migration (
    name text PRIMARY KEY,
    digest text NOT NULL,
    version text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE perdure.migration IS '{_MARK}';
"""
_DROP_FUNCTIONS: Final = """\
-- The operations of an earlier perdure go; the functions that indexes use stay.
DO $$
DECLARE
    v_schema CONSTANT oid := (SELECT relnamespace FROM pg_class
                              WHERE oid = 'perdure.migration'::regclass);
    v_name text;
BEGIN
    FOR v_name IN SELECT oid::regprocedure FROM pg_proc
                  WHERE pronamespace = v_schema
                    AND proname NOT IN ('digest', 'handle_key', 'item_key') LOOP
        EXECUTE 'DROP FUNCTION ' || v_name;
    END LOOP;
    FOR v_name IN SELECT reltype::regtype FROM pg_class
                  WHERE relnamespace = v_schema AND relkind = 'c' LOOP
        EXECUTE 'DROP TYPE ' || v_name;
    END LOOP;
END $$;
"""
_RECORD: Final = """\
INSERT INTO perdure.migration (name, digest, version) VALUES ('{name}', '{digest}', '{version}')
ON CONFLICT (name) DO UPDATE
SET digest = excluded.digest, version = excluded.version, applied_at = now();
"""


_QUERIES: Final = load(PACKAGE, "schema.sql")


@dataclass(frozen=True, slots=True)
class State:
    """What a database has of the schema; ``pending`` is what it lacks, as (name, script)."""

    exists: bool
    pending: tuple[tuple[str, str], ...]


def checked_name(schema: str) -> str:
    """Return a schema's name if it needs no quotes anywhere."""
    if _NAME.match(schema):
        return schema
    raise ConfigurationError(
        f"{schema!r} cannot be the name of perdure's schema. Use lower case letters, digits and _."
    )


def named(text: str, schema: str) -> str:
    """Return SQL that is written for the schema ``perdure`` for another one."""
    return text if schema == DEFAULT else _OURS.sub(f'"{schema}".', text)


@cache
def queries(schema: str) -> dict[str, str]:
    """Return the statements of the operations by their names."""
    return {name: named(text, schema) for name, text in load(PACKAGE, "queries.sql").items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def steps(schema: str) -> list[tuple[str, str, str]]:
    """Return everything there is to apply as (name, digest, script), in order."""
    tables = [
        (name, _digest(text), named(text, schema))
        for name, text in migrations(f"{PACKAGE}.migrations")
    ]
    functions = "\n".join(text for _, text in migrations(f"{PACKAGE}.functions"))
    script = named(f"{_DROP_FUNCTIONS}\n{functions}", schema)
    return [*tables, (FUNCTIONS, _digest(functions), script)]


def script(schema: str = DEFAULT, pending: tuple[tuple[str, str], ...] | None = None) -> str:
    """Return SQL that makes the schema, or what is pending of it, in one transaction."""
    parts = []
    if pending is None:
        parts += [f'CREATE SCHEMA IF NOT EXISTS "{schema}";', named(_MIGRATION_TABLE, schema)]
        pending = tuple((name, _recorded(name, schema)) for name, _, _ in steps(schema))
    parts += [text for _, text in pending]
    return "\n".join(["BEGIN;", *parts, "COMMIT;", ""]) if parts else ""


def _recorded(name: str, schema: str) -> str:
    """Return a step's script with the note that it has been applied."""
    digest, text = next((digest, text) for step, digest, text in steps(schema) if step == name)
    note = _RECORD.format(name=name, digest=digest, version=version("perdure"))
    return f"{text}\n{named(note, schema)}"


def look(schema: str, where: str) -> Looking:
    """Read what a database has; raises where it must not be touched."""
    ((encoding, found, marked),) = yield (
        _QUERIES["state"],
        {"schema": f'"{schema}"', "migration": f'"{schema}".migration'},
    )
    if encoding != "UTF8":
        raise StoreError(
            f"{where} stores text as {encoding}; perdure needs UTF8. Use a database that was "
            "created with ENCODING 'UTF8'; nothing was changed."
        )
    if marked != _MARK:
        taken = yield _QUERIES["foreign"], {"schema": schema}
        if taken:
            raise SchemaForeign(where, f"{schema}.{taken[0][0]}")
        create = "" if found else f'CREATE SCHEMA "{schema}";\n'
        everything = [(name, _recorded(name, schema)) for name, _, _ in steps(schema)]
        return State(
            exists=False,
            pending=(("schema", create + named(_MIGRATION_TABLE, schema)), *everything),
        )
    rows = yield named(_QUERIES["applied"], schema), {}
    applied = {name: (digest, made_by) for name, digest, made_by in rows}
    wanted = {name: digest for name, digest, _ in steps(schema)}
    newer = (
        _later(applied.get(FUNCTIONS, ("", "0"))[1]) and applied[FUNCTIONS][0] != wanted[FUNCTIONS]
    )
    unknown = tuple(sorted(applied.keys() - wanted.keys())) or ((FUNCTIONS,) if newer else ())
    if unknown:
        raise SchemaTooNew(where, unknown)
    behind = [
        name
        for name, digest in wanted.items()
        if name not in applied or (name == FUNCTIONS and applied[name][0] != digest)
    ]
    return State(exists=True, pending=tuple((name, _recorded(name, schema)) for name in behind))


def _later(made_by: str) -> bool:
    """Whether a version is later than this one."""
    return _ordered(made_by) > _ordered(version("perdure"))


def _ordered(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def check(state: State, schema: str, where: str) -> None:
    """Raise unless a store can work on a database in this state."""
    if not state.exists:
        raise SchemaMissing(where, schema)
    if state.pending:
        raise SchemaTooOld(where, tuple(name for name, _ in state.pending))
