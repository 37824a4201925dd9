"""Floor 2, edges: the one writer: one thread, one connection, whole batches. sqlite3 only.

A verb is a function `handler(transaction, payloads) -> outcomes`. Whatever was asked while the last
commit ran, or in one turn of the event loop, becomes the next transaction (group commit): handed
over job by job, the thread would fight the loop for the interpreter lock at every statement.
A waiter is resumed only after COMMIT returned. If a batch fails, each of its jobs is tried alone,
so that a poison row fails alone. Cancelling a waiter cancels nothing here: a write is never split.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

from receiver.errors import Refusal, StoreSaturated, StoreUnavailable

P = TypeVar("P")
R = TypeVar("R")

BATCH: Final = 256
CAPACITY: Final = 8_192
IDLE_WAL: Final = 1 << 20  # bytes of WAL worth a checkpoint once nobody writes
IDLE: Final = 0.25  # seconds without a batch that count as nobody writing
LARGE_WAL: Final = 64 << 20  # bytes at which a checkpoint no longer waits for idleness

# Trying the jobs one by one would only repeat these, each after its own time-out.
_ENVIRONMENT: Final = frozenset(
    {"FULL", "IOERR", "BUSY", "LOCKED", "READONLY", "CANTOPEN", "CORRUPT", "NOTADB"}
)


@dataclass(slots=True)
class Transaction:
    """What a handler writes through, and what it tells the waiting world after the commit."""

    connection: sqlite3.Connection
    changed_tasks: set[str] = field(default_factory=set)
    work: bool = False  # deliveries became due
    after_commit: list[Callable[[], None]] = field(default_factory=list)  # on the writer's thread


Handler = Callable[[Transaction, Sequence[P]], Sequence[R | Refusal]]


@dataclass(slots=True)
class _Job(Generic[P, R]):
    handler: Handler[P, R]
    payload: P
    future: asyncio.Future[R]


class Writer:
    """Owns the thread. `connect` is called on it; `on_commit` runs on the event loop."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        *,
        wal_path: str,
        on_commit: Callable[[Transaction], None],
        capacity: int = CAPACITY,
    ) -> None:
        self._connect = connect
        self._wal_path = wal_path
        self._on_commit = on_commit
        self._capacity = capacity
        self._waiting: list[_Job[Any, Any]] = []
        self._batches: SimpleQueue[list[_Job[Any, Any]] | None] = SimpleQueue()
        self._working = False
        self._depth = 0
        self._drained = asyncio.Event()
        self._owed: list[Callable[[], None]] = []  # the thread's alone
        self._failing = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop

    @property
    def depth(self) -> int:
        """How many jobs wait for a commit."""
        return self._depth

    @property
    def healthy(self) -> bool:
        """False from a failed commit until the next one that succeeds."""
        return self._thread is not None and self._thread.is_alive() and not self._failing

    async def start(self) -> None:
        """Open the connection on the thread. Raises what `connect` raises."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="reelhook-writer")
        self._thread.start()
        await opened

    async def close(self) -> None:
        """Commit what was asked, checkpoint, close the connection, end the thread."""
        thread, self._thread = self._thread, None  # from now on nothing is taken in
        if thread is None:
            return
        while self._depth:
            await self._drained.wait()
        self._batches.put(None)
        await self._loop.run_in_executor(None, thread.join)

    async def call(self, handler: Handler[P, R], payload: P) -> R:
        """Run one job of `handler` in the next transaction and wait for its commit.

        Raises StoreSaturated when the queue is full, StoreUnavailable when nothing was committed,
        and the Refusal that the handler gave as this job's outcome.
        """
        if self._depth >= self._capacity:
            raise StoreSaturated
        if self._thread is None:
            raise StoreUnavailable("The store is closed.")
        future: asyncio.Future[R] = self._loop.create_future()
        self._depth += 1
        self._drained.clear()
        self._waiting.append(_Job(handler, payload, future))
        if len(self._waiting) == 1:
            # After this turn of the loop: whatever else it brings goes along.
            self._loop.call_soon(self._hand_over)
        # The thread never looks at the future, so a cancelled waiter leaves the job whole.
        return await future

    def _hand_over(self) -> None:
        if self._working or not self._waiting:
            return
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        self._working = True
        self._batches.put(batch)

    def _batch_ended(self) -> None:
        self._working = False
        if not self._depth:
            self._drained.set()
        self._hand_over()

    def _run(self, opened: asyncio.Future[None]) -> None:
        try:
            connection = self._connect()
        except BaseException as error:
            self._loop.call_soon_threadsafe(opened.set_exception, error)
            return
        self._loop.call_soon_threadsafe(opened.set_result, None)
        with contextlib.closing(connection):
            while (batch := self._next_batch(connection)) is not None:
                self._perform(connection, batch)
                self._loop.call_soon_threadsafe(self._batch_ended)
                self._checkpoint(connection, LARGE_WAL)
            with contextlib.suppress(sqlite3.Error):  # a reader may hold it; nothing is lost
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _next_batch(self, connection: sqlite3.Connection) -> list[_Job[Any, Any]] | None:
        try:
            return self._batches.get(timeout=IDLE)
        except Empty:
            self._checkpoint(connection, IDLE_WAL)
            return self._batches.get()

    def _perform(self, connection: sqlite3.Connection, jobs: list[_Job[Any, Any]]) -> None:
        transaction = Transaction(connection)
        try:
            outcomes = _commit(transaction, jobs)
        except Exception as error:
            _roll_back(connection)
            if len(jobs) > 1 and not _is_environment(error):
                for job in jobs:
                    self._perform(connection, [job])
                return
            self._report_failure(jobs, error)
        else:
            self._owed += transaction.after_commit
            self._follow_up()
            self._loop.call_soon_threadsafe(self._succeed, jobs, outcomes, transaction)

    def _follow_up(self) -> None:
        # What was committed has happened, whatever fails now: it must not be tried a second time.
        # A follow-up that can't read the database yet is owed to the next commit.
        with contextlib.suppress(sqlite3.Error):
            while self._owed:
                self._owed[0]()
                self._owed.pop(0)

    def _report_failure(self, jobs: list[_Job[Any, Any]], error: Exception) -> None:
        reported = error
        if isinstance(error, sqlite3.Error):
            reported = StoreUnavailable(f"The database could not commit: {error}.")
        self._loop.call_soon_threadsafe(self._fail, jobs, reported, _is_environment(error))

    def _succeed(
        self, jobs: list[_Job[Any, Any]], outcomes: list[Any], transaction: Transaction
    ) -> None:
        self._failing = False
        self._depth -= len(jobs)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if job.future.done():
                continue
            if isinstance(outcome, Refusal):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)
        self._on_commit(transaction)

    def _fail(self, jobs: list[_Job[Any, Any]], error: Exception, environment: bool) -> None:
        self._failing = self._failing or environment
        self._depth -= len(jobs)
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(error)

    def _checkpoint(self, connection: sqlite3.Connection, size: int) -> None:
        # Checkpoints are the writer's alone: SQLite before 3.51.3 can corrupt the WAL when two
        # connections checkpoint at once (sqlite.org/wal.html, "the WAL-reset bug").
        if _size(self._wal_path) >= size:
            with contextlib.suppress(sqlite3.Error):  # a long reader: the next one succeeds
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _commit(transaction: Transaction, jobs: list[_Job[Any, Any]]) -> list[Any]:
    connection = transaction.connection
    outcomes: list[Any] = [None] * len(jobs)
    connection.execute("BEGIN IMMEDIATE")
    for handler, places in _grouped(jobs):
        found = handler(transaction, [jobs[place].payload for place in places])
        for place, outcome in zip(places, found, strict=True):
            outcomes[place] = outcome
    connection.execute("COMMIT")
    return outcomes


def _grouped(jobs: Sequence[_Job[Any, Any]]) -> Iterable[tuple[Handler[Any, Any], list[int]]]:
    groups: dict[Handler[Any, Any], list[int]] = {}
    for place, job in enumerate(jobs):
        groups.setdefault(job.handler, []).append(place)
    return groups.items()


def each(verb: Callable[[Transaction, P], R]) -> Handler[P, R]:
    """A handler out of a verb for one payload, which refuses only before it writes."""

    def handler(transaction: Transaction, payloads: Sequence[P]) -> list[R | Refusal]:
        return [_one(verb, transaction, payload) for payload in payloads]

    return handler


def _one(verb: Callable[[Transaction, P], R], transaction: Transaction, payload: P) -> R | Refusal:
    try:
        return verb(transaction, payload)
    except Refusal as refusal:
        return refusal


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):  # SQLite rolled back by itself
            connection.execute("ROLLBACK")


def _is_environment(error: Exception) -> bool:
    name = getattr(error, "sqlite_errorname", "")
    return any(part in _ENVIRONMENT for part in name.split("_"))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
