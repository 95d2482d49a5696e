"""PostgreSQL migrations, by name."""
