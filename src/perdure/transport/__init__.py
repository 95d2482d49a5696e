"""Transports: perdure's place under the official SDK.

The SDK builds a request, a transport lets the engine decide what it becomes, an inner transport
(or the app's own HTTP client) sends it. A request that carries no conversation is handed to the
inner one as it is.
"""

from perdure.transport.aio import AsyncTransport
from perdure.transport.client import async_http_client, http_client
from perdure.transport.core import SUBJECT_HEADER, TURN_HEADER
from perdure.transport.sync import Transport

__all__ = [
    "SUBJECT_HEADER",
    "TURN_HEADER",
    "AsyncTransport",
    "Transport",
    "async_http_client",
    "http_client",
]
