"""SQLite migrations, by name."""
