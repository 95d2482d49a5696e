"""The engine: flows that decide what a call to a provider becomes; no I/O."""
