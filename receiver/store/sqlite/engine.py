"""Floor 2, edges: SQLite behind the writer's thread: a file, our own checkpoints. sqlite3 only."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from receiver.errors import StoreBroken, StoreUnavailable
from receiver.store.commits import Jobs, Notice
from receiver.store.connection import Held
from receiver.store.faults import Fault
from receiver.store.sqlite import faults

IDLE_WAL: Final = 1 << 20  # bytes of WAL worth a checkpoint once nobody writes
LARGE_WAL: Final = 64 << 20  # bytes at which a checkpoint no longer waits for idleness
CHECKPOINT_WAIT: Final = 100  # milliseconds that a checkpoint may wait for readers
REST: Final = 1.0  # seconds until the next try of one that readers stood in the way of
LONGEST_REST: Final = 16.0  # of a reader that never ends, as Litestream, each try costs the wait


class Connection(sqlite3.Connection):
    """Nobody else writes, so there is nothing to lock, nor to wait for."""

    is_shared = False
    patience = 0.005
    skip_locked = ""

    def for_update(self, order: str = "") -> str:
        """What this transaction reads nobody else changes."""
        return ""

    def lock(self, table: str, column: str, keys: Iterable[int]) -> None:
        """What this transaction reads nobody else changes."""

    def hold(self, what: Held) -> None:
        """One process writes, one transaction at a time."""


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


class SqliteEngine:
    """One connection, that alone writes and checkpoints. `probe` has to write something."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        files: Files,
        probe: Callable[[Connection], object],
        notice: Notice,
    ) -> None:
        self.wal_size = 0
        self.reading = False  # somebody reads for long, so a checkpoint would wait for nothing
        self.connection: Connection
        self._connect = connect
        self._files = files
        self._probe = probe
        self._notice = notice
        self._not_before = 0.0  # the next checkpoint, in monotonic seconds
        self._rest = REST
        self._long_wal = 2 * LARGE_WAL

    def open(self) -> None:
        """Open the file. Raises what `connect` raises."""
        self.connection = self._connect()

    def close(self) -> None:
        """Bring the log home, and close the file."""
        self._checkpoint(0)
        self.connection.close()

    def parts(self, jobs: Jobs) -> Iterable[Jobs]:
        """A batch is one transaction: nothing can stand in its way."""
        return [jobs]

    def look(self) -> None:
        """Raises StoreBroken unless the files are those that were opened."""
        self._files.look()

    def begin(self) -> None:
        """Take the file's only place for writing."""
        self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """On disk on return: `synchronous` is FULL."""
        self.connection.execute("COMMIT")

    def roll_back(self) -> None:
        """Leave the transaction. Raises StoreBroken when that is not possible."""
        if self.connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # SQLite rolled back by itself
                self.connection.execute("ROLLBACK")
        if self.connection.in_transaction:  # whatever came next would be part of it
            raise StoreBroken("A failed write could not be rolled back. Start the receiver again.")

    def probe(self) -> None:
        """Write something, and commit it."""
        self.begin()
        self._probe(self.connection)
        self.commit()

    def tidy(self, *, idle: bool, shrunk: bool = False) -> None:
        """Bring the log home when it is large, nobody waits, or the file can shrink."""
        self._checkpoint(IDLE_WAL if idle else 0 if shrunk else LARGE_WAL)

    def owns(self, error: BaseException) -> bool:
        """Whether SQLite or the disk raised it."""
        return isinstance(error, sqlite3.Error | OSError)

    def judge(self, error: BaseException) -> Fault:
        """What follows from it, by SQLite's result code."""
        return faults.judge(error)

    def unavailable(self, error: Exception) -> StoreUnavailable:
        """What waiters are told."""
        return faults.unavailable(error)

    def broken(self, error: BaseException) -> StoreBroken:
        """Why the receiver ends."""
        return faults.broken(error)

    def _checkpoint(self, size: int) -> None:
        # Checkpoints are the writer's alone: SQLite before 3.51.3 can corrupt the WAL when two
        # connections checkpoint at once (sqlite.org/wal.html, "the WAL-reset bug").
        self.wal_size = self._files.wal_size
        if self.reading or self.wal_size < size or time.monotonic() < self._not_before:
            return
        obstacle = self._bring_home()
        self._files.moved_home()
        if obstacle is None:
            self._not_before, self._rest, self._long_wal = 0.0, REST, 2 * LARGE_WAL
            return
        self._not_before = time.monotonic() + self._rest
        self._rest = min(2 * self._rest, LONGEST_REST)
        if self.wal_size >= self._long_wal:
            self._long_wal = 2 * self.wal_size
            self._notice("the write-ahead log grows", bytes=self.wal_size, why=obstacle)

    def _bring_home(self) -> str | None:
        try:
            was_cut = cut_log(self.connection)
        except sqlite3.Error as error:
            if faults.judge(error) is Fault.END:
                raise
            return str(error)
        return None if was_cut else "another program reads the database for long"


def cut_log(connection: sqlite3.Connection) -> bool:
    """Copy the log into the database, and cut it; whether no reader stood in the way.

    Raises sqlite3.Error.
    """
    # With the usual time-out, one long reader would stop every batch, and a start, for as long.
    (usual,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {CHECKPOINT_WAIT}")
    try:
        (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {usual}")
    return not busy
