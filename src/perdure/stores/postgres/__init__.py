"""The journal in PostgreSQL: for many machines. Needs the extra ``postgres``."""

from perdure.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
