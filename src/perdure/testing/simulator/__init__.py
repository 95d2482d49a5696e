"""The simulator: the production flows and store under seeded crashes, losses, delays and races.

``python -m perdure.testing.simulator --seconds 60`` runs new histories for a while and prints the
seed of each one in which something did not hold; ``--store URL`` runs them on another store.
"""

from perdure.testing.simulator.history import Histories, Outcome, run_many
from perdure.testing.simulator.odds import MIXES, Mix, mix_of
from perdure.testing.simulator.sites import Site, site

__all__ = ["MIXES", "Histories", "Mix", "Outcome", "Site", "mix_of", "run_many", "site"]
