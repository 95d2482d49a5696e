"""The error tree.

Two branches, because they call for different actions: :class:`LocalError` is about perdure, its
store or its caller, :class:`RemoteError` about what a provider did. Below the SDK an error cannot
be raised (the SDK would retry it), so the transport turns each into an HTTP answer built from
``status``, ``code`` and the message; ``Chat`` and the command line raise them as they are.
"""

from __future__ import annotations


class PerdureError(Exception):
    """Whatever perdure raises on its own account.

    ``code`` is a stable word for programs, ``status`` the HTTP status under the SDK, ``retry``
    whether the SDK is to repeat the call by itself.
    """

    code = "perdure_error"
    status = 500
    retry = False


class LocalError(PerdureError):
    """Something is wrong on our side of the wire: the call, the configuration, the store."""


class BadInput(LocalError):
    """The caller's request cannot be carried out as it stands; nothing was sent or stored."""

    code = "bad_input"
    status = 400


class ConfigurationError(LocalError):
    """perdure was put together in a way that cannot work."""

    code = "configuration"


class StoreError(LocalError):
    """The store did not do what was asked."""

    code = "store_error"
    status = 503


class StoreUnavailable(StoreError):
    """The store cannot be reached, opened or written right now."""

    code = "store_unavailable"


class UnknownStore(StoreError, ConfigurationError):
    """A store URL that names no store perdure knows."""

    code = "unknown_store"

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(
            f"{url!r} names no store that perdure knows. Use sqlite:///relative.db, "
            "sqlite:////absolute/path.db, sqlite:// (in memory), "
            "postgresql://user@host/database or redis://host:6379/0."
        )


class SchemaTooNew(StoreError):
    """The database was written by a later perdure."""

    code = "schema_too_new"

    def __init__(self, where: str, unknown: tuple[str, ...]) -> None:
        self.where = where
        self.unknown = unknown
        super().__init__(
            f"{where} was written by a newer perdure (it has the migrations "
            f"{', '.join(unknown)}, unknown here). Upgrade perdure; nothing was changed."
        )


class SchemaMissing(StoreError):
    """A database without perdure's schema, of a kind that is not set up in passing."""

    code = "schema_missing"

    def __init__(self, where: str, schema: str) -> None:
        self.where = where
        self.schema = schema
        super().__init__(
            f"{where} has no schema {schema!r} of perdure's. Run: perdure schema apply --store URL "
            "(perdure schema sql prints it for a DBA). Nothing was changed."
        )


class SchemaTooOld(StoreError):
    """A schema made by an earlier perdure, in a database that is not migrated in passing."""

    code = "schema_too_old"

    def __init__(self, where: str, pending: tuple[str, ...]) -> None:
        self.where = where
        self.pending = pending
        super().__init__(
            f"{where} lacks {', '.join(pending)} of this perdure. Run: perdure schema apply "
            "--store URL (perdure schema sql --store URL prints it for a DBA). Nothing was changed."
        )


class SchemaForeign(StoreError):
    """A table that carries one of our names is not ours."""

    code = "schema_foreign"

    def __init__(self, where: str, table: str) -> None:
        self.where = where
        self.table = table
        super().__init__(
            f"{where} already has a table {table!r} that perdure did not make. Use a database of "
            "its own or rename that table; nothing was changed."
        )


class TurnMismatch(LocalError):
    """A ``Perdure-Turn`` that was used before, now with another body."""

    code = "turn_mismatch"
    status = 409

    def __init__(self, turn_id: str) -> None:
        self.turn_id = turn_id
        super().__init__(
            f"Turn {turn_id!r} was already accepted with a different body. Use a new turn id for "
            "a new message; to repeat a turn send exactly what was sent before."
        )


class TurnExpired(LocalError):
    """A turn that is not delivered again: its deadline is over, or one call had to be enough."""

    code = "turn_expired"
    status = 504

    def __init__(self, turn_id: str, *, once: bool = False) -> None:
        self.turn_id = turn_id
        why = 'the policy says on_ambiguous="raise"' if once else "its deadline is over"
        super().__init__(
            f"Turn {turn_id!r} has got no answer and is not sent again: {why}. Its message is "
            "stored; whether the provider carried it out is unknown. Send it as a new turn to try "
            "again."
        )


class TurnOvertaken(LocalError):
    """A turn that another worker has taken, because this one was not heard of for too long."""

    code = "turn_overtaken"
    status = 409
    retry = True

    def __init__(self, turn_id: str) -> None:
        self.turn_id = turn_id
        super().__init__(
            f"Another worker has taken turn {turn_id!r} over. Repeat the call: it returns the "
            "answer that the other worker gets."
        )


class TurnUnderway(LocalError):
    """A repeat that asks for the stream of a turn which the provider is still at."""

    code = "turn_underway"
    status = 409

    def __init__(self, turn_id: str, remote_id: str) -> None:
        self.turn_id = turn_id
        self.remote_id = remote_id
        super().__init__(
            f"The provider is at turn {turn_id!r}, under the id {remote_id!r}, and its stream "
            "cannot be joined. Read that id until it has ended, or repeat the call then."
        )


class TurnErased(LocalError):
    """A turn whose conversation was forgotten before it could be delivered."""

    code = "turn_erased"
    status = 410

    def __init__(self, turn_id: str) -> None:
        self.turn_id = turn_id
        super().__init__(
            f"The conversation of turn {turn_id!r} was forgotten while it waited. Nothing was sent."
        )


class ForeignTenant(LocalError):
    """A handle that this store knows, but under another tenant."""

    code = "handle_of_another_tenant"
    status = 404

    def __init__(self, handle: str, tenant: str) -> None:
        self.handle = handle
        self.tenant = tenant
        super().__init__(
            f"{handle!r} does not belong to tenant {tenant!r}. Nothing was sent or stored."
        )


class TooLarge(BadInput):
    """A request over the size that the journal takes."""

    code = "request_too_large"
    status = 413

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        super().__init__(
            f"The request has {size_bytes:,} bytes, the journal takes {limit_bytes:,} "
            "(Policy.max_body_bytes). Upload large content as a file and send its id. "
            "Nothing was sent or stored."
        )


class RemoteError(PerdureError):
    """The provider did something that the conversation cannot go on with."""

    code = "remote_error"
    status = 502


class IssuedTwice(RemoteError):
    """A provider that issued the id of another conversation's replica for a new one."""

    code = "handle_issued_twice"

    def __init__(self, handle: str) -> None:
        self.handle = handle
        super().__init__(
            f"The provider issued {handle!r} again, an id that belongs to another conversation "
            "here (a server that lost its state begins to count anew). Nothing was bound to it."
        )


class NoAnswer(RemoteError):
    """A success of a provider, or of what stands before it, that is not what was asked for."""

    code = "no_answer"

    def __init__(self, wanted: str, got: str) -> None:
        self.wanted = wanted
        self.got = got
        super().__init__(
            f"The server answered with a success, but with {got} in the place of {wanted}: "
            "a gateway or another API may have answered. What was sent is stored; whether it was "
            "carried out is unknown."
        )


class CutStream(RemoteError):
    """A streamed answer that ended before its terminal event."""

    code = "cut_stream"
