"""Floor 2, edges: connections to an SQLite file that can't write. aiosqlite only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from sqlite3 import Error, Row
from typing import Any, Final
from urllib.parse import quote

import aiosqlite

from receiver.errors import StoreBroken, StoreUnavailable
from receiver.store.connection import Values
from receiver.store.faults import Fault
from receiver.store.sqlite.faults import judge

CONNECTIONS: Final = 2
CLOSING: Final = 10.0  # seconds that closing them takes at most


class SqliteReaders:
    """A few read-only connections, each used by one query at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        # First come, first served. A queue of connections is not: who is woken by one that was put
        # back finds it gone, to whoever put it back and asks again, and stands last once more.
        self._turn = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[aiosqlite.Connection] = []
        self._all: list[aiosqlite.Connection] = []

    async def open(self) -> None:
        """Open the connections; the database must exist."""
        for _ in range(CONNECTIONS):
            connection = await aiosqlite.connect(
                f"file:{quote(self._path)}?mode=ro", uri=True, isolation_level=None
            )
            self._all.append(connection)
            connection.row_factory = Row
            for pragma in ("query_only = 1", "busy_timeout = 5000", "wal_autocheckpoint = 0"):
                await connection.execute(f"PRAGMA {pragma}")
            self._idle.append(connection)

    async def close(self) -> None:
        """Close every connection: an aiosqlite thread left open would hang the exit.

        Raises StoreBroken when the disk does not let go of one.
        """
        try:
            async with asyncio.timeout(CLOSING):
                for connection in self._all:
                    await connection.close()
        except TimeoutError:
            raise StoreBroken("The disk does not answer a reader.") from None

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[aiosqlite.Connection]:
        async with self._turn:
            connection = self._idle.pop()
            try:
                yield connection
            finally:
                self._idle.append(connection)

    async def rows(self, sql: str, values: Values = ()) -> Sequence[Row]:
        """What a statement finds. Raises StoreUnavailable."""
        bound: Any = values if isinstance(values, Mapping) else tuple(values)
        async with self._connection() as connection:
            try:
                return list(await connection.execute_fetchall(sql, bound))
            except Error as error:
                if judge(error) is Fault.JOB:
                    raise
                raise StoreUnavailable(f"The database could not be read: {error}.") from error
