"""An embedded provider with a clock that can be turned and faults that can be ordered."""

from perdure.testing.clock import Clock
from perdure.testing.provider import Fault, Provider, Recorded, State

__all__ = ["Clock", "Fault", "Provider", "Recorded", "State"]
