"""Floor 2, edges: the writer's thread: one connection, whole batches, checkpoints. sqlite3 only.

A verb is a function `handler(transaction, payloads) -> outcomes`. A batch is one transaction. If it
fails, each of its jobs is tried alone, so that a poison row fails alone; what else a failure means
`receiver.store.faults` says. The thread never looks at a waiter: it tells the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, Protocol, TypeVar

from receiver.errors import Refusal, StoreBroken
from receiver.store.faults import Fault, broken, judge

P = TypeVar("P")
R = TypeVar("R")

IDLE_WAL: Final = 1 << 20  # bytes of WAL worth a checkpoint once nobody writes
LARGE_WAL: Final = 64 << 20  # bytes at which a checkpoint no longer waits for idleness
IDLE: Final = 0.25  # seconds without a batch that count as nobody writing
TICK: Final = 1.0  # seconds between an idle thread's looks, and its tries while it can't write
CHECKPOINT_WAIT: Final = 100  # milliseconds that a checkpoint may wait for readers


@dataclass(slots=True)
class Transaction:
    """What a handler writes through, and what it tells the waiting world after the commit."""

    connection: sqlite3.Connection
    changed_tasks: set[str] = field(default_factory=set)
    work: bool = False  # deliveries became due
    shrunk: bool = False  # the file has less to hold: a checkpoint cuts it
    after_commit: list[Callable[[], None]] = field(default_factory=list)  # on the writer's thread


Handler = Callable[[Transaction, Sequence[P]], Sequence[R | Refusal]]


class Notice(Protocol):
    """Tells whoever runs the receiver; may be called on the writer's thread."""

    def __call__(self, event: str, **evidence: Any) -> object: ...


class Files(Protocol):
    """The files behind the connection, as the thread sees them."""

    @property
    def wal_size(self) -> int:
        """Bytes of the write-ahead log at the last look."""
        ...

    def look(self) -> None:
        """Raises StoreBroken unless they are still those that were opened, none of them cut."""
        ...

    def moved_home(self) -> None:
        """A checkpoint changed their sizes."""
        ...


@dataclass(slots=True)
class Job(Generic[P, R]):
    handler: Handler[P, R]
    payload: P
    future: asyncio.Future[R]
    size: int


Jobs = list[Job[Any, Any]]


@dataclass(slots=True)
class Done:
    """A transaction that was tried, and how it went."""

    jobs: Jobs
    outcomes: Sequence[Any] = ()
    committed: Transaction | None = None
    error: Exception | None = None
    fault: Fault | None = None
    seconds: float | None = None  # from its begin to its end; None: it was not even tried


@dataclass(frozen=True, slots=True)
class Told:
    """What the thread tells the event loop."""

    settled: Callable[[Sequence[Done]], None]
    recovered: Callable[[], None]
    broken: Callable[[StoreBroken], None]


class Committer:
    """The thread's side: one connection, one transaction at a time."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        files: Files,
        probe: Callable[[sqlite3.Connection], object],
        notice: Notice,
        told: Told,
    ) -> None:
        self.batches: SimpleQueue[Jobs | None] = SimpleQueue()
        self.wal_size = 0
        self._connect = connect
        self._files = files
        self._probe = probe
        self._notice = notice
        self._told = told
        self._owed: list[Callable[[], None]] = []
        self._ailing = False
        self._not_before = 0.0  # the next checkpoint, in monotonic seconds
        self._long_wal = 2 * LARGE_WAL
        self._connection: sqlite3.Connection
        self._loop: asyncio.AbstractEventLoop

    def run(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Future[None]) -> None:
        """What the thread does from its start to its end."""
        self._loop = loop
        try:
            self._connection = self._connect()
        except BaseException as error:
            self._post(_set, opened, error)
            return
        self._post(_set, opened, None)
        try:
            self._work()
            self._checkpoint(0)
            self._connection.close()
        except BaseException as error:
            # The connection stays open: closing it is one more checkpoint, and nothing that the
            # disk says is to be trusted. What is in the log is there after a restart.
            self._post(self._told.broken, broken(error))

    def _post(self, tell: Callable[..., None], *values: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(tell, *values)

    def _work(self) -> None:
        patience = IDLE
        while True:
            try:
                batch = self.batches.get(timeout=patience)
            except Empty:
                self._tick()
                patience = TICK
                continue
            if batch is None:
                return
            shrunk = self._perform(batch)
            self._checkpoint(0 if shrunk else LARGE_WAL)
            patience = IDLE

    def _tick(self) -> None:
        self._files.look()
        if self._ailing:
            self._try_again()
        self._checkpoint(IDLE_WAL)

    def _try_again(self) -> None:
        # An empty commit succeeds on a full disk, so only a write of our own tells.
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._probe(self._connection)
            self._connection.execute("COMMIT")
        except Exception as error:
            if judge(error) is Fault.END:
                raise
            _roll_back(self._connection)
        else:
            self._ailing = False
            self._post(self._told.recovered)

    def _perform(self, batch: Jobs) -> bool:
        done = [self._attempt(batch)]
        if len(batch) > 1 and done[0].fault is Fault.JOB:
            done = self._one_by_one(batch)
        self._ailing = done[-1].fault is Fault.ENVIRONMENT
        self._post(self._told.settled, done)
        return any(part.committed is not None and part.committed.shrunk for part in done)

    def _one_by_one(self, batch: Jobs) -> list[Done]:
        done: list[Done] = []
        for place, job in enumerate(batch, 1):
            done.append(self._attempt([job]))
            if done[-1].fault is Fault.ENVIRONMENT:  # the rest would only repeat it
                done.append(Done(batch[place:], error=done[-1].error, fault=done[-1].fault))
                break
        return done

    def _attempt(self, jobs: Jobs) -> Done:
        transaction, begun = Transaction(self._connection), time.perf_counter()
        try:
            self._files.look()
            outcomes = _commit(transaction, jobs)
            self._files.look()  # a commit into a file that was deleted is not one
        except Exception as error:
            fault = judge(error)
            if fault is Fault.END:
                raise
            _roll_back(self._connection)
            return Done(jobs, error=error, fault=fault, seconds=time.perf_counter() - begun)
        seconds = time.perf_counter() - begun
        self._owed += transaction.after_commit
        self._follow_up()
        return Done(jobs, outcomes, transaction, seconds=seconds)

    def _follow_up(self) -> None:
        # What was committed has happened, whatever fails now: it must not be tried a second time.
        # A follow-up that can't read the database yet is owed to the next commit.
        with contextlib.suppress(sqlite3.Error):
            while self._owed:
                self._owed[0]()
                self._owed.pop(0)

    def _checkpoint(self, size: int) -> None:
        # Checkpoints are the writer's alone: SQLite before 3.51.3 can corrupt the WAL when two
        # connections checkpoint at once (sqlite.org/wal.html, "the WAL-reset bug").
        self.wal_size = self._files.wal_size
        if self.wal_size < size or time.monotonic() < self._not_before:
            return
        obstacle = self._bring_home()
        self._files.moved_home()
        if obstacle is None:
            self._not_before, self._long_wal = 0.0, 2 * LARGE_WAL
            return
        self._not_before = time.monotonic() + TICK
        if self.wal_size >= self._long_wal:
            self._long_wal = 2 * self.wal_size
            self._notice("the write-ahead log grows", bytes=self.wal_size, why=obstacle)

    def _bring_home(self) -> str | None:
        # With the usual time-out, one long reader would stop every batch for as long.
        (usual,) = self._connection.execute("PRAGMA busy_timeout").fetchone()
        self._connection.execute(f"PRAGMA busy_timeout = {CHECKPOINT_WAIT}")
        try:
            busy, *_ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            if judge(error) is Fault.END:
                raise
            return str(error)
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {usual}")
        return "another program reads the database for long" if busy else None


def _commit(transaction: Transaction, jobs: Jobs) -> list[Any]:
    connection = transaction.connection
    outcomes: list[Any] = [None] * len(jobs)
    connection.execute("BEGIN IMMEDIATE")
    for handler, places in _grouped(jobs):
        found = handler(transaction, [jobs[place].payload for place in places])
        for place, outcome in zip(places, found, strict=True):
            outcomes[place] = outcome
    connection.execute("COMMIT")
    return outcomes


def _grouped(jobs: Jobs) -> Iterable[tuple[Handler[Any, Any], list[int]]]:
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
    if connection.in_transaction:  # whatever came next would be part of it
        raise StoreBroken("A failed write could not be rolled back. Start the receiver again.")


def _set(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
