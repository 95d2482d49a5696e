"""The journal in SQLite: the embedded default."""
