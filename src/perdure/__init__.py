"""perdure keeps LLM conversations alive when the provider's copy of them dies."""

from __future__ import annotations

from importlib.metadata import version

from perdure.chat import AsyncChat, Chat, Check, Hit, Receipt, Reply
from perdure.errors import PerdureError
from perdure.model import Policy, ProviderSummary, Recovery
from perdure.stores import open_store
from perdure.transport import AsyncTransport, Transport, async_http_client, http_client

__all__ = [
    "AsyncChat",
    "AsyncTransport",
    "Chat",
    "Check",
    "Hit",
    "PerdureError",
    "Policy",
    "ProviderSummary",
    "Receipt",
    "Recovery",
    "Reply",
    "Transport",
    "__version__",
    "async_http_client",
    "http_client",
    "open_store",
]

__version__ = version("perdure")
