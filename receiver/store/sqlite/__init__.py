"""Floor 2, edges: the SQLite store. One process, one writer, readers that can't write."""

from receiver.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
