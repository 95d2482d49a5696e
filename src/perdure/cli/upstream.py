"""A provider's address as the command line takes it, and the HTTP client that asks there."""

from __future__ import annotations

from urllib.parse import parse_qsl

import httpx2

from perdure.dialects.routes import THREADS_HEADER


def upstream_of(address: str) -> str:
    """Return the upstream of an address, which may carry a query for each request."""
    return address.partition("?")[0].rstrip("/")


def client_of(address: str, api_key: str, timeout_seconds: float) -> httpx2.Client:
    """Return a client whose every request carries the key and the address's query."""
    headers = {
        "authorization": f"Bearer {api_key}",
        "api-key": api_key,  # Azure's name for it
        "content-type": "application/json",
    } | dict([THREADS_HEADER])
    params = dict(parse_qsl(address.partition("?")[2]))
    return httpx2.Client(headers=headers, params=params, timeout=timeout_seconds)
