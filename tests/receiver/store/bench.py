"""A writer over a real file, and a gate that holds its thread where a test wants it."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from receiver.store.sqlite.engine import Connection, SqliteEngine
from receiver.store.sqlite.place import Place
from receiver.store.writer import CAPACITY, HELD, Transaction, Writer

LIMIT_S = 30.0


def connecting(path: Path, place: Place, factory: type[Connection]) -> Callable[[], Connection]:
    def connect() -> Connection:
        connection = sqlite3.connect(path, isolation_level=None, factory=factory)
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("PRAGMA busy_timeout = 1")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE IF NOT EXISTS kept (number INTEGER PRIMARY KEY, more)")
        connection.execute("CREATE TABLE IF NOT EXISTS probed (at)")
        lock = os.open(f"{path}.lock", os.O_CREAT | os.O_CLOEXEC)
        place.begin(lock)
        os.close(lock)
        return connection

    return connect


class Bench:
    """A writer over a real file, with what it told and the batches it made."""

    def __init__(
        self,
        path: Path,
        factory: type[Connection] = Connection,
        capacity: int = CAPACITY,
        held: int = HELD,
    ) -> None:
        self.path = path
        self.notices: list[tuple[str, dict[str, Any]]] = []
        self.told: list[set[str]] = []
        self.probes = 0
        self.batches: list[list[Any]] = []
        self.timed: list[tuple[int, float, bool]] = []
        place = Place(path)
        self.engine = SqliteEngine(
            connecting(path, place, factory), files=place, probe=self.probe, notice=self.notice
        )
        self.writer = Writer(
            self.engine,
            on_commit=lambda tx: self.told.append(set(tx.changed_tasks)),
            timed=lambda *told: self.timed.append(told),
            notice=self.notice,
            capacity=capacity,
            held=held,
        )

    def notice(self, event: str, **evidence: Any) -> None:
        self.notices.append((event, evidence))

    def probe(self, connection: Connection) -> None:
        self.probes += 1
        connection.execute("INSERT INTO probed VALUES (1)")

    def put(self, tx: Transaction, payloads: Sequence[int]) -> list[int]:
        """Insert numbers; a number that is there already is poison."""
        self.batches.append(list(payloads))
        for number in payloads:
            tx.connection.execute("INSERT INTO kept (number) VALUES (?)", (number,))
            tx.changed_tasks.add(str(number))
        return [number * 10 for number in payloads]

    def kept(self) -> list[int]:
        with closing(sqlite3.connect(self.path)) as connection:
            return [row[0] for row in connection.execute("SELECT number FROM kept ORDER BY 1")]


class Gate:
    """Holds the writer's thread inside a transaction until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()

    def handler(self, tx: Transaction, payloads: Sequence[None]) -> list[None]:
        self.entered.set()
        assert self._open.wait(LIMIT_S)
        return [None for _ in payloads]

    def open(self) -> None:
        self._open.set()


@asynccontextmanager
async def held(bench: Bench) -> AsyncIterator[Gate]:
    """While inside, whatever is called waits for the same next batch."""
    gate = Gate()
    call = asyncio.create_task(bench.writer.call(gate.handler, None))
    assert await asyncio.to_thread(gate.entered.wait, LIMIT_S)
    try:
        yield gate
    finally:
        gate.open()
        await call


async def gathered(bench: Bench, numbers: Sequence[int]) -> list[Any]:
    calls = [bench.writer.call(bench.put, number) for number in numbers]
    return await asyncio.gather(*calls, return_exceptions=True)


@contextmanager
def no_room(path: Path) -> Iterator[None]:
    """While inside, this process can write nothing to the database's log: the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(f"{path}-wal").stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def until(condition: Callable[[], object]) -> None:
    """Let the writer's thread go on until something holds."""
    async with asyncio.timeout(LIMIT_S):
        for _ in count():
            if condition():
                return
            await asyncio.sleep(0.005)
