"""Floor 2, edges: a few connections that read, on the event loop. asyncpg only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import asyncpg

from receiver.errors import StoreUnavailable
from receiver.store.connection import Row, Values
from receiver.store.postgres.connection import (
    ANSWERING,
    CACHED,
    CONNECTING,
    Raw,
    is_pooled,
    prepare,
)
from receiver.store.postgres.faults import owns
from receiver.store.postgres.speech import translated

CONNECTIONS: Final = 4
CLOSING: Final = 5.0  # seconds


class PostgresReaders:
    """A pool. `pooled`: behind a pooler, where nothing stays prepared and nobody can listen."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: asyncpg.Pool[asyncpg.Record]
        self.pooled = False

    async def open(self) -> None:
        """Connect once; the others come when they are needed."""
        raw = await asyncpg.connect(self._url, timeout=CONNECTING, statement_cache_size=0)
        try:
            self.pooled = await is_pooled(raw)
        finally:
            await raw.close()
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=1,
            max_size=CONNECTIONS,
            init=prepare,
            timeout=CONNECTING,
            command_timeout=ANSWERING,
            statement_cache_size=0 if self.pooled else CACHED,
            max_cached_statement_lifetime=0,
        )

    async def close(self) -> None:
        """End the connections."""
        if not hasattr(self, "_pool"):
            return
        try:
            async with asyncio.timeout(CLOSING):
                await self._pool.close()
        except (TimeoutError, OSError, asyncpg.InterfaceError):
            self._pool.terminate()

    async def rows(self, sql: str, values: Values = ()) -> Sequence[Row]:
        """What a statement finds. Raises StoreUnavailable."""
        statement = translated(sql)
        try:
            return await self._pool.fetch(statement.sql, *statement.bind(values))
        except Exception as error:
            if not _passes(error):
                raise
            raise StoreUnavailable(f"The database could not be read: {error}.") from error

    async def listen(self, channel: str, heard: asyncio.Event) -> Raw:
        """A connection that sets an event whenever somebody notifies a channel, or it ends."""
        raw = await asyncpg.connect(self._url, timeout=CONNECTING)
        try:
            await raw.add_listener(channel, lambda *_: heard.set())
            raw.add_termination_listener(lambda _: heard.set())
        except BaseException:
            raw.terminate()
            raise
        return raw

    async def notify(self, channel: str) -> None:
        """Tell whoever listens: a hint, so nobody hears of a failure."""
        with contextlib.suppress(StoreUnavailable):
            await self.rows("SELECT pg_notify(?, '')", (channel,))


def _passes(error: Exception) -> bool:
    code = str(getattr(error, "sqlstate", None) or "")
    if isinstance(error, asyncpg.PostgresError):
        return code.startswith(("08", "53", "57", "58", "XX"))
    return owns(error)
