"""What the transports of both colours share: configuration, and what needs no waiting."""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote

from perdure.dialects.routes import Route, number_in
from perdure.dialects.verdicts import Rule, read_rules
from perdure.engine import ops
from perdure.engine.wire import Call, Unanswered
from perdure.flow import Op
from perdure.model import Policy, Recovery, TurnKey
from perdure.stores import Store, open_store
from perdure.transport.likeness import liken
from perdure.transport.telemetry import record

log = logging.getLogger("perdure")

#: Headers for perdure itself; they never reach the provider.
OURS: Final = b"perdure-"
TURN_HEADER: Final = "perdure-turn"
SUBJECT_HEADER: Final = "perdure-subject"
_RETRY: Final = b"x-stainless-retry-count"
_BEARER: Final = b"authorization"
_KEY: Final = b"api-key"
_READ: Final = frozenset({_RETRY, _BEARER, _KEY})
_DEFAULT_DEADLINE_SECONDS: Final = 600.0


class Core:
    """What the transports of both colours share: configuration, and what needs no waiting."""

    def __init__(
        self,
        store: str | Store,
        *,
        tenant: str = "default",
        policy: Policy | None = None,
        on_recovery: Callable[[Recovery], object] | None = None,
        sleep: Callable[[float], object] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = open_store(store) if isinstance(store, str) else store
        self.tenant = tenant
        self.policy = policy or Policy()
        self._rules = read_rules(self.policy.verdict_rules)
        self._learned: defaultdict[str, list[Rule]] = defaultdict(list)
        self._unanswered = Unanswered()
        self._on_recovery = on_recovery
        self._sleep = sleep
        self._monotonic = monotonic

    def call(self, request: Any, recognised: Route, content: bytes) -> Call:
        """Return a request that carries a conversation as the engine sees it."""
        url, ours, theirs = request.url, {}, {}
        for name, text in request.headers.raw:  # one pass: a look-up by name costs another each
            key = name.lower()
            if key.startswith(OURS):
                ours[key.decode()] = text.decode()
            elif key in _READ:
                theirs[key] = text
        path, _, query = url.raw_path.decode("ascii").partition("?")
        if "%" in path:
            recognised = _as_sent(recognised, url.path, path)
        subject = ours.get(SUBJECT_HEADER)
        retry = theirs.get(_RETRY, b"0")
        timeout = (request.extensions.get("timeout") or {}).get("read")
        upstream = f"{url.scheme}://{url.netloc.decode('ascii')}{recognised.base}"
        return Call(
            tenant=self.tenant,
            policy=self.policy,
            route=recognised,
            upstream=upstream,
            method=request.method,
            path=path[len(recognised.base) :],
            query=query,
            content=content,
            turn_id=ours.get(TURN_HEADER) or None,  # an empty name would be everybody's
            subject=unquote(subject) if subject is not None else None,
            own_headers=tuple(ours),
            rules=self._rules,
            learned=self._learned[upstream],
            deadline_seconds=timeout if timeout is not None else _DEFAULT_DEADLINE_SECONDS,
            began=self._monotonic(),
            retry=number_in(retry.decode("latin-1"), 0),
            credentials=hash((theirs.get(_BEARER), theirs.get(_KEY))),
            unanswered=self._unanswered,
        )

    def perform(self, op: Op[Any]) -> Any:
        """Perform an op that neither waits nor sends."""
        kind = type(op)
        if kind is ops.NewId:
            return os.urandom(16).hex()
        if kind is ops.Elapsed:
            return self._monotonic()
        if isinstance(op, ops.Report):
            return self._report(op.recovery)
        if isinstance(op, ops.Summarise):
            return op.call(op.previous, op.transcript)
        if isinstance(op, ops.Liken):
            return liken(op)
        return self.store.perform(op)

    def _report(self, recovery: Recovery) -> None:
        log.warning(
            "recovered %s: %s -> %s, generation %d, memory %s, reason %s, %d requests",
            recovery.conversation,
            recovery.lost_handle,
            recovery.new_handle,
            recovery.generation,
            recovery.memory,
            recovery.reason,
            recovery.requests,
        )
        record(recovery)
        if self._on_recovery is None:
            return
        try:
            self._on_recovery(recovery)
        except Exception:  # a listener's mistake must not fail the call that was just repaired
            log.exception("on_recovery failed")


def _as_sent(recognised: Route, decoded: str, path: str) -> Route:
    """Return a route whose base path is escaped as the app sent it."""
    depth = decoded.count("/", len(recognised.base))
    return replace(recognised, base=path.rsplit("/", depth)[0])


def unforeseen(call: Call, turn: TurnKey, fault: Exception) -> ops.Fail:
    """Return the operation that ends a turn which a fault of ours has left open.

    What came of it is unknown, and what is said next need not wait until its lease has run out.
    """
    return ops.Fail(call.tenant, turn, "unknown", f"unforeseen: {type(fault).__name__}")
