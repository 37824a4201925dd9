"""Several processes on one PostgreSQL: stores that share nothing but the database."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import asyncpg

from receiver.clock import Clock
from receiver.store.connection import Held
from receiver.store.postgres import PostgresStore
from receiver.store.postgres.connection import locked
from tests.doubles import FakeClock

LIMIT_S = 30.0


async def process(url: str, clock: Clock | None = None, seed: int = 0) -> PostgresStore:
    """A store with ids of its own."""
    bits = random.Random(seed or url).getrandbits
    return await PostgresStore.open(url, clock=clock or FakeClock(), entropy=bits)


@asynccontextmanager
async def processes(url: str, count: int = 2, *clocks: Clock) -> AsyncIterator[list[PostgresStore]]:
    """So many stores; each has its clock, or all of them the same."""
    shared = FakeClock()
    stores: list[PostgresStore] = []
    try:
        for number in range(count):
            clock = clocks[number] if number < len(clocks) else shared
            stores.append(await process(url, clock, number + 1))
        yield stores
    finally:
        for store in stores:
            await store.close()


async def lost(store: PostgresStore) -> None:
    """End a process as SIGKILL does: its connections go, and nobody says good-bye."""
    for task in store._loops:
        task.cancel()
    await asyncio.gather(*store._loops, return_exceptions=True)
    store._readers._pool.terminate()
    store._engine.connection.raw.terminate()
    store._writer._committer.batches.put(None)


class Gate:
    """Stops a store's transactions before their COMMIT."""

    def __init__(self, store: PostgresStore) -> None:
        self._reached, self._open = threading.Event(), threading.Event()
        self._commit = store._engine.commit

    def commit(self) -> None:
        self._reached.set()
        assert self._open.wait(LIMIT_S)
        self._commit()

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, LIMIT_S)

    def open(self) -> None:
        self._open.set()


@contextmanager
def gated(store: PostgresStore) -> Iterator[Gate]:
    """While inside, nothing of a store is committed until the gate is opened."""
    gate = Gate(store)
    store._engine.commit = gate.commit  # type: ignore[method-assign]
    try:
        yield gate
    finally:
        gate.open()
        store._engine.commit = gate._commit  # type: ignore[method-assign]


@asynccontextmanager
async def intruder(url: str, *statements: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Somebody else's transaction, with what these statements lock, until the block ends."""
    raw = await asyncpg.connect(url)
    try:
        await raw.execute("BEGIN")
        for statement in statements:
            await raw.execute(statement)
        yield raw
        with suppress(asyncpg.PostgresError):
            await raw.execute("COMMIT")
    finally:
        raw.terminate()


def holding(what: Held) -> str:
    """The statement by which one transaction alone does something."""
    return locked(what)


async def waiting(url: str, count: int = 1) -> None:
    """Wait until so many transactions wait for a lock of somebody else's."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    raw = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(LIMIT_S):
            while await raw.fetchval(query) < count:  # noqa: ASYNC110 - a server tells nobody
                await asyncio.sleep(0.005)
    finally:
        raw.terminate()


async def briefly(task: asyncio.Task[Any]) -> None:
    """Let it get as far as it may while something is in its way."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await asyncio.shield(task)


async def ask(url: str, sql: str, *values: object) -> list[asyncpg.Record]:
    """Run a statement as an operator would."""
    raw = await asyncpg.connect(url)
    try:
        return await raw.fetch(sql, *values)
    finally:
        raw.terminate()


async def deadlocks(url: str) -> int:
    """How often the server had to end a transaction so that others could go on."""
    query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    await ask(url, "SELECT pg_stat_force_next_flush()")
    ((count,),) = await ask(url, query)
    return int(count)
