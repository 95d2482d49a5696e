"""The schema is made by a command, once, and never in passing; what is not ours is let be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest

import perdure
from perdure.cli import main
from perdure.engine import ops
from perdure.errors import (
    ConfigurationError,
    SchemaForeign,
    SchemaMissing,
    SchemaTooNew,
    SchemaTooOld,
    StoreError,
)
from perdure.stores.postgres import PostgresStore, administration, schema
from perdure.stores.postgres.statements import STATEMENTS
from tests.servers import Postgres, postgres

PIN = ops.Pin("tenant", "ann", "Fact.")


def command(*arguments: str) -> int:
    """Run the command in this process."""
    try:
        return main(list(arguments))
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.fixture
def server() -> Postgres:
    return postgres()


@pytest.fixture
def empty(server: Postgres) -> Iterator[str]:
    with server.empty_database() as url:
        yield url


def run(url: str, *statements: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
            rows = cursor.fetchall() if cursor.description else []
    return rows


def refused(url: str) -> StoreError:
    """The error that a store on a database gives."""
    with closing(perdure.open_store(url)) as store, pytest.raises(StoreError) as caught:
        store.perform(PIN)
    return caught.value


def pinned(url: str) -> int:
    with closing(perdure.open_store(url)) as store:
        number: int = store.perform(PIN)
        return number


def catalogue(url: str) -> list[tuple[Any, ...]]:
    """Everything in a schema that makes a difference."""
    return run(
        url,
        """
        SELECT 'column', table_name || '.' || column_name, data_type || is_nullable
               || coalesce(column_default, '') || coalesce(generation_expression, '')
        FROM information_schema.columns WHERE table_schema = 'perdure'
        UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'perdure'
        UNION ALL SELECT 'function', p.oid::regprocedure::text, md5(pg_get_functiondef(p.oid))
        FROM pg_proc p WHERE pronamespace = 'perdure'::regnamespace
        UNION ALL SELECT 'applied', name, digest FROM perdure.migration ORDER BY 1, 2, 3""",
    )


# -- apply -----------------------------------------------------------------------------------


def test_apply_makes_the_schema_and_a_second_time_nothing(empty: str) -> None:
    _, done = administration.apply(empty)
    made = catalogue(empty)
    _, again = administration.apply(empty)
    assert ["schema", "0001_initial", "functions"] == done
    assert [] == again
    assert made == catalogue(empty)
    assert 1 == pinned(empty)


def test_two_that_apply_at_once_apply_once(empty: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = [names for _, names in pool.map(administration.apply, [empty] * 4)]
    assert sorted([[], [], [], ["schema", "0001_initial", "functions"]]) == sorted(done)


def test_what_is_printed_makes_what_apply_makes(empty: str, server: Postgres) -> None:
    run(empty, administration.script(None))
    with server.empty_database() as other:
        administration.apply(other)
        assert catalogue(other) == catalogue(empty)
    assert "" == administration.script(empty)


def test_functions_of_an_earlier_version_are_replaced(empty: str) -> None:
    administration.apply(empty)
    made = catalogue(empty)
    run(
        empty,
        "DROP FUNCTION perdure.pin",
        "CREATE FUNCTION perdure.pin(old integer) RETURNS integer LANGUAGE sql RETURN old",
        "CREATE FUNCTION perdure.gone() RETURNS integer LANGUAGE sql RETURN 1",
        "UPDATE perdure.migration SET digest = 'earlier' WHERE name = 'functions'",
    )
    assert isinstance(refused(empty), SchemaTooOld)
    assert "CREATE FUNCTION perdure.pin" in administration.script(empty)
    assert "CREATE TABLE" not in administration.script(empty)
    assert ["functions"] == administration.apply(empty)[1]
    assert made == catalogue(empty)
    assert 1 == pinned(empty)


def test_an_apply_that_fails_leaves_nothing(empty: str) -> None:
    run(empty, "CREATE SCHEMA perdure", "CREATE DOMAIN perdure.forgotten AS text")
    with pytest.raises(StoreError, match="forgotten"):
        administration.apply(empty)
    assert [] == run(empty, "SELECT 1 FROM pg_tables WHERE schemaname = 'perdure'")


def test_a_schema_may_have_another_name(empty: str) -> None:
    url = f"{empty}&schema=crm"
    assert ["schema", "0001_initial", "functions"] == administration.apply(url)[1]
    assert [1, 2] == [pinned(url), pinned(url)]
    assert [("crm",)] == run(
        empty, "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename = 'milestone'"
    )
    assert isinstance(refused(empty), SchemaMissing)
    with pytest.raises(ConfigurationError, match="lower case"):
        perdure.open_store(f"{empty}&schema=no-such;--")


def test_a_role_of_its_own_needs_no_more_than_the_docs_say(empty: str) -> None:
    administration.apply(empty)
    run(
        empty,
        "DROP ROLE IF EXISTS worker",
        "CREATE ROLE worker LOGIN",
        "GRANT USAGE ON SCHEMA perdure TO worker",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA perdure TO worker",
    )
    assert 1 == pinned(empty.replace("perdure@", "worker@"))
    run(empty, "DROP OWNED BY worker", "DROP ROLE worker")


# -- check -----------------------------------------------------------------------------------


def test_a_database_without_the_schema_names_the_command(empty: str) -> None:
    error = refused(empty)
    assert isinstance(error, SchemaMissing)
    assert "perdure schema apply --store" in str(error)
    assert [] == run(empty, "SELECT 1 FROM pg_namespace WHERE nspname = 'perdure'")


def test_a_store_goes_on_once_the_schema_is_there(empty: str) -> None:
    with closing(PostgresStore(empty)) as store:
        with pytest.raises(SchemaMissing):
            store.perform(PIN)
        administration.apply(empty)
        assert 1 == store.perform(PIN)


def test_a_newer_schema_is_let_be(empty: str) -> None:
    administration.apply(empty)
    run(empty, "INSERT INTO perdure.migration VALUES ('0099_later', '', '9.9')")
    error = refused(empty)
    assert isinstance(error, SchemaTooNew)
    assert ("0099_later",) == error.unknown
    with pytest.raises(SchemaTooNew):
        administration.apply(empty)


def test_newer_functions_are_not_replaced_by_older_ones(empty: str) -> None:
    administration.apply(empty)
    run(
        empty,
        "UPDATE perdure.migration SET digest = 'later', version = '99.0' WHERE name = 'functions'",
    )
    with pytest.raises(SchemaTooNew):
        administration.apply(empty)


def test_anothers_table_in_the_schema_is_let_be(empty: str) -> None:
    run(empty, "CREATE SCHEMA perdure", "CREATE TABLE perdure.item (mine text)")
    assert isinstance(refused(empty), SchemaForeign)
    with pytest.raises(SchemaForeign, match="perdure.item"):
        administration.apply(empty)
    assert [("mine",)] == run(
        empty, "SELECT column_name FROM information_schema.columns WHERE table_name = 'item'"
    )


def test_a_database_of_another_encoding_is_refused(server: Postgres) -> None:
    with (
        server.empty_database("ENCODING 'LATIN1' LOCALE 'C'") as url,
        pytest.raises(StoreError, match="LATIN1"),
    ):
        administration.apply(url)


def test_the_schema_is_looked_at_once(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    administration.apply(empty)
    looks: list[tuple[str, str]] = []
    look = schema.look

    def counted(name: str, where: str) -> schema.Looking:
        looks.append((name, where))
        return look(name, where)

    monkeypatch.setattr(schema, "look", counted)
    with closing(PostgresStore(empty)) as store:
        for _ in range(3):
            store.perform(PIN)
    assert 1 == len(looks)


def test_a_schema_taken_away_under_a_store_is_said(empty: str) -> None:
    administration.apply(empty)
    with closing(PostgresStore(empty)) as store:
        store.perform(PIN)
        run(empty, "DROP SCHEMA perdure CASCADE")
        with pytest.raises(StoreError):
            store.perform(PIN)
        with pytest.raises(SchemaMissing):
            store.perform(PIN)


# -- what the SQL keeps to -------------------------------------------------------------------


def test_every_key_begins_with_the_tenant_and_then_the_conversation(empty: str) -> None:
    administration.apply(empty)
    tables = run(
        empty,
        """
        SELECT c.relname, array_agg(a.attname ORDER BY k.place),
               bool_or(t.attname IS NOT NULL)
        FROM pg_index i
        JOIN pg_class c ON c.oid = i.indrelid
        CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(number, place)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
        LEFT JOIN pg_attribute t ON t.attrelid = c.oid AND t.attname = 'conversation'
        WHERE i.indisprimary AND c.relnamespace = 'perdure'::regnamespace
        GROUP BY c.relname""",
    )
    keys = {name: columns for name, columns, _ in tables}
    assert ["tenant", "key"] == keys.pop("handle"), "looked up before its conversation is known"
    assert ["tenant", "upstream"] == keys.pop("throttle")
    assert ["name"] == keys.pop("migration")
    assert 7 == len(keys)
    for name, columns in keys.items():
        assert ["tenant", "conversation"] == columns[:2], name


def test_no_function_depends_on_a_search_path_or_a_session(empty: str) -> None:
    administration.apply(empty)
    text = administration.script(None)
    for word in ("search_path", "pg_advisory", "PREPARE", "LISTEN", "NOTIFY", "TEMP "):
        assert word not in text, word
    run(empty, "ALTER ROLE perdure SET search_path = ''")
    try:
        assert 1 == pinned(empty)
    finally:
        run(empty, "ALTER ROLE perdure RESET search_path")


def test_every_operation_has_its_statement() -> None:
    names = {statement.name for statement in STATEMENTS.values()}
    assert names == set(schema.queries("perdure"))


# -- the command -----------------------------------------------------------------------------


def test_the_command_checks_applies_and_prints(
    empty: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 1 == command("schema", "check", "--store", empty)
    assert "Run: perdure schema apply --store" in capsys.readouterr().err
    assert 0 == command("schema", "apply", "--store", empty)
    shown = capsys.readouterr().out
    assert ["applied schema", "applied 0001_initial", "applied functions"] == shown.split("\n")[:3]
    assert 0 == command("schema", "apply", "--store", empty)
    assert "was up to date already" in capsys.readouterr().out
    assert 0 == command("schema", "check", "--store", empty)
    assert "is up to date." in capsys.readouterr().out
    assert 0 == command("schema", "sql", "--store", empty)
    assert capsys.readouterr().out.startswith("-- Nothing to do")
    assert 0 == command("schema", "sql")
    assert capsys.readouterr().out.startswith("BEGIN;\nCREATE SCHEMA")


def test_a_missing_extra_is_one_sentence() -> None:
    script = (
        "import sys; sys.modules['psycopg'] = None; from perdure.cli import main; "
        "sys.exit(main(['schema', 'check', '--store', 'postgresql://host/name']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    expected = (
        "perdure: this needs psycopg, which is not installed. "
        "Run: pip install 'perdure[cli,postgres]'\n"
    )
    assert (1, "", expected) == (done.returncode, done.stdout, done.stderr)


def test_the_command_says_what_it_cannot_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == command("schema", "check", "--store", "sqlite:///chat.db")
    assert "brings itself up to date" in capsys.readouterr().err
    assert 1 == command("schema", "apply", "--store", "postgresql://nobody@127.0.0.1:1/x")
    error = capsys.readouterr().err
    assert error.startswith("perdure: The PostgreSQL database 'x' at 127.0.0.1:1 cannot be reached")
    assert 1 == error.count("\n")
