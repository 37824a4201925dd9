"""Floor 2, edges: the PostgreSQL store. Any number of processes; needs the extra `postgres`."""

from receiver.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
