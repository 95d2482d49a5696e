"""Dialects: provider APIs as data and pure functions; no I/O."""
