"""An OpenAI-compatible provider in memory, for tests, the demo and the drill.

It is a test double: deterministic, offline, and as strict as the real one about what it accepts.
"""

from perdure.testing.provider.app import create_app
from perdure.testing.provider.faults import Fault
from perdure.testing.provider.model import KNOWS_NOTHING
from perdure.testing.provider.server import Provider, serve
from perdure.testing.provider.state import Recorded, State

__all__ = ["KNOWS_NOTHING", "Fault", "Provider", "Recorded", "State", "create_app", "serve"]
