"""``perdure sweep``: delete what a provider still holds and nobody wants any more."""

from __future__ import annotations

import time
from typing import Any, Final
from urllib.parse import parse_qsl

import httpx2
import typer
from rich.console import Console

from perdure.cli.stores import existing_store
from perdure.cli.upstream import client_of, upstream_of
from perdure.dialects import upstreams
from perdure.engine import ops
from perdure.engine.ops import Answer, Index, Leftovers, SendFailed, Unused
from perdure.engine.summarise import summarise_grown
from perdure.engine.sweep import sweep
from perdure.flow import Done, Op, run
from perdure.model import Policy, ProviderSummary
from perdure.stores import Store
from perdure.transport.core import Core

_TIMEOUT_SECONDS: Final = 30.0
_REQUESTS: Final = 200
_CHUNK: Final = 500
_REFUSED: Final = 1


def sweep_store(
    url: str,
    address: str,
    api_key: str,
    tenant: str,
    summarise: str | None,
    *,
    dry_run: bool,
) -> None:
    """Count what is left over and delete it, batch by batch; exit 1 where something stays.

    ``address`` is the upstream, and perhaps a query that each request is to carry. ``summarise``:
    by whom long conversations are summarised ahead of time, ``extractive`` or a model's name.
    """
    upstream = upstream_of(address)
    console = Console(highlight=False, soft_wrap=True)
    store = existing_store(url)
    try:
        left = store.perform(Leftovers(tenant, upstream))
        console.print(f"{left.orphans:,} remote objects are no longer wanted at {upstream}.")
        elsewhere = store.perform(Leftovers(tenant)).orphans - left.orphans
        if elsewhere > 0:
            console.print(f"{elsewhere:,} more at other addresses: sweep each with --upstream.")
        if left.creates:
            console.print(
                f"{left.creates:,} creates were begun whose outcome was never learnt: if they "
                "succeeded, nobody knows the id."
            )
        if dry_run:
            return
        with client_of(address, api_key, _TIMEOUT_SECONDS) as client:
            worker = _Worker(store, client, upstream, tenant)
            refused = _delete(worker, tenant, upstream, console)
            kept = store.perform(Leftovers(tenant, upstream)).orphans
            if summarise is not None:
                count = _summarise(worker, tenant, upstream, summarise)
                console.print(f"{count:,} conversations were summarised.")
        while not store.perform(Index(tenant, None, _CHUNK)):
            pass
        erased = _erase_unused(store, upstream, tenant)
        console.print(f"{erased:,} conversations of one turn, past their retention, were erased.")
    finally:
        store.close()
    if refused:
        console.print(f"{refused:,} could not be deleted.")
    if kept:
        console.print(
            f"{kept:,} are kept for the next time. Conversations are deleted ten minutes after "
            "they were given up."
        )
    if refused:
        raise typer.Exit(_REFUSED)


def _delete(worker: _Worker, tenant: str, upstream: str, console: Console) -> int:
    """Delete orphans until none is left or a batch brings nothing; return how many stay."""
    deleted = 0
    while True:
        outcome = run(sweep(tenant, upstream, _REQUESTS), worker.perform)
        assert isinstance(outcome, Done)
        swept = outcome.value
        deleted += swept.deleted
        if swept.deleted or swept.more:
            console.print(f"{deleted:,} deleted so far")
        if not swept.more:
            return int(swept.refused)


def _summarise(worker: _Worker, tenant: str, upstream: str, by: str) -> int:
    """Bring the summaries of long conversations up to date; return how many were."""
    policy = Policy(summariser="extractive" if by == "extractive" else ProviderSummary(by))
    outcome = run(summarise_grown(policy, tenant, upstream), worker.perform)
    assert isinstance(outcome, Done)
    return int(outcome.value)


def _erase_unused(store: Store, upstream: str, tenant: str) -> int:
    kept = upstreams.retention_seconds(Policy(), upstream, "responses")
    erased = 0
    while kept is not None:
        chunk = store.perform(Unused(tenant, upstream, kept, _CHUNK))
        erased += chunk
        if chunk < _CHUNK:
            break
    return erased


class _Worker:
    """The driver of a sweep: one HTTP client, one store."""

    def __init__(self, store: Store, client: httpx2.Client, upstream: str, tenant: str) -> None:
        self._core = Core(store, tenant=tenant)
        self._client = client
        self._upstream = upstream

    def perform(self, op: Op[Any]) -> Any:
        """Perform one op."""
        if isinstance(op, ops.Sleep):
            return time.sleep(op.seconds)
        if not isinstance(op, ops.Send):
            return self._core.perform(op)
        try:
            path, _, query = op.path.partition("?")
            params = dict(parse_qsl(query))  # in the URL they would replace the client's
            url = self._upstream + path
            answer = self._client.request(op.method, url, content=op.body, params=params)
        except httpx2.HTTPError as error:
            raise SendFailed(error, definite=isinstance(error, httpx2.ConnectError)) from error
        return Answer(answer.status_code, tuple(answer.headers.items()), answer.content)
