"""Floor 2, edges: a store moves from SQLite to PostgreSQL, with all that is in it."""
