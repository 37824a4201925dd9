"""Floor 2, edges: a few connections that read, on the event loop. asyncpg only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from receiver.errors import StoreUnavailable
from receiver.store.connection import Row, Values
from receiver.store.faults import Fault
from receiver.store.postgres.connection import (
    ANSWERING,
    CACHED,
    CONNECTING,
    prepare,
    reach,
)
from receiver.store.postgres.faults import judge, told
from receiver.store.postgres.speech import translated

CONNECTIONS: Final = 4
CLOSING: Final = 5.0  # seconds


class PostgresReaders:
    """A pool. `pooled`, to be set before: behind a pooler, where nothing stays prepared and nobody
    can listen."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: asyncpg.Pool[asyncpg.Record]
        self.pooled = False

    async def open(self) -> None:
        """Make the pool; it connects when it is needed."""
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=CONNECTIONS,
            init=prepare,
            reset=_keep,
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
        except Exception:  # a server that is gone says no good-bye
            self._pool.terminate()

    async def rows(self, sql: str, values: Values = ()) -> Sequence[Row]:
        """What a statement finds. Raises StoreUnavailable."""
        statement = translated(sql)
        bound = statement.bind(values)
        try:
            return await self._rows(statement.sql, bound)
        except Exception as error:
            if judge(error) not in (Fault.ENVIRONMENT, Fault.AGAIN):
                raise
            raise StoreUnavailable(f"The database could not be read: {told(error)}.") from error

    async def _rows(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        if not self.pooled:
            return await self._pool.fetch(sql, *values)
        # A pooler could give a statement's parse to one session and its execution to another.
        async with self._pool.acquire() as raw, raw.transaction(readonly=True):
            return await raw.fetch(sql, *values)

    async def listen(self, channel: str, heard: asyncio.Event) -> None:
        """Set an event whenever somebody notifies a channel, until the connection ends."""
        raw = await reach(self._url)
        ended = asyncio.Event()
        try:
            raw.add_termination_listener(lambda _: ended.set())
            await raw.add_listener(channel, lambda *_: heard.set())
            heard.set()  # something may have been told before
            await ended.wait()
        finally:
            raw.terminate()

    async def notify(self, channel: str) -> None:
        """Tell whoever listens: a hint, so nobody hears of a failure."""
        with contextlib.suppress(Exception):
            await self.rows("SELECT pg_notify(?, '')", (channel,))


async def _keep(raw: object) -> None:
    """Nothing is set in a session that only reads: to reset it is one more way to the server."""
