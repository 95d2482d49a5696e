"""HTTP clients for the official SDK: ``OpenAI(http_client=perdure.http_client("sqlite:///…"))``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final
from urllib.request import getproxies

from perdure.errors import ConfigurationError
from perdure.model import Policy, Recovery
from perdure.stores import Store
from perdure.transport.aio import AsyncTransport
from perdure.transport.sync import Transport

if TYPE_CHECKING:
    import httpx2

# The SDK's own defaults (openai ``_constants``): a client made here must not be slower to give up
# or quicker to run out of connections than the one it takes the place of.
_TIMEOUT_SECONDS: Final = 600  # whole, as the SDK has it: it tells the number in a header
_CONNECT_SECONDS: Final = 5.0
_CONNECTIONS: Final = 1000
_KEEPALIVE: Final = 100
_FIRST_HTTPX2_MAJOR: Final = 3


def http_client(
    store: str | Store,
    *,
    tenant: str = "default",
    policy: Policy | None = None,
    on_recovery: Callable[[Recovery], object] | None = None,
    inner: Any = None,
    family: str | None = None,
) -> httpx2.Client:
    """Return a client for ``OpenAI(http_client=…)`` whose conversations outlive the provider's.

    It has the SDK's own timeouts and limits and honours proxy variables. ``inner`` is a client or
    transport of yours to send through. ``family`` (``"httpx2"`` or ``"httpx"``) is taken from the
    installed SDK if left out. Nothing is opened before the first request.
    """
    library = _library(family, inner)
    transport = Transport(
        store,
        inner=inner if inner is not None else _inner(library, "HTTPTransport", "Client"),
        tenant=tenant,
        policy=policy,
        on_recovery=on_recovery,
    )
    return library.Client(  # type: ignore[no-any-return]
        transport=transport, timeout=_timeout(library), follow_redirects=True
    )


def async_http_client(
    store: str | Store,
    *,
    tenant: str = "default",
    policy: Policy | None = None,
    on_recovery: Callable[[Recovery], object] | None = None,
    inner: Any = None,
    family: str | None = None,
) -> httpx2.AsyncClient:
    """Return :func:`http_client` for ``AsyncOpenAI(http_client=…)``."""
    library = _library(family, inner)
    transport = AsyncTransport(
        store,
        inner=inner if inner is not None else _inner(library, "AsyncHTTPTransport", "AsyncClient"),
        tenant=tenant,
        policy=policy,
        on_recovery=on_recovery,
    )
    return library.AsyncClient(  # type: ignore[no-any-return]
        transport=transport, timeout=_timeout(library), follow_redirects=True
    )


def _library(family: str | None, inner: Any) -> Any:
    """Return the HTTP library to build the client of."""
    if family is None and inner is not None:
        family = type(inner).__module__.partition(".")[0]
    if family not in {"httpx2", "httpx"}:
        family = _family_of_sdk()
    try:
        return importlib.import_module(family)
    except ImportError:
        raise ConfigurationError(
            f"The installed openai SDK works with {family}, which is not installed. "
            "Install it, or openai 3."
        ) from None


@cache  # reading a package's metadata takes milliseconds
def _family_of_sdk() -> str:
    try:
        major = int(version("openai").partition(".")[0])
    except PackageNotFoundError:
        return "httpx2"
    return "httpx2" if major >= _FIRST_HTTPX2_MAJOR else "httpx"


def _timeout(library: Any) -> Any:
    return library.Timeout(_TIMEOUT_SECONDS, connect=_CONNECT_SECONDS)


def _inner(library: Any, transport: str, client: str) -> Any:
    """Return what sends: a bare transport, or a client of the library where proxies are set.

    Proxy variables are a client's business, and a client costs time on every call.
    """
    limits = library.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_KEEPALIVE)
    if getproxies():
        return getattr(library, client)(timeout=_timeout(library), limits=limits)
    return getattr(library, transport)(limits=limits)
