"""perdure keeps LLM conversations alive when the provider's copy of them dies."""

from __future__ import annotations

from importlib.metadata import version

from perdure.errors import PerdureError
from perdure.model import Policy, Recovery
from perdure.transport import AsyncTransport, Transport

__all__ = ["AsyncTransport", "PerdureError", "Policy", "Recovery", "Transport", "__version__"]

__version__ = version("perdure")
