"""The simulator: the production flows and store under seeded crashes, losses, delays and races.

``python -m perdure.testing.simulator --seconds 60`` runs new histories for a while and prints the
seed of each one in which something did not hold.
"""

from perdure.testing.simulator.history import Histories, Outcome, run_many

__all__ = ["Histories", "Outcome", "run_many"]
