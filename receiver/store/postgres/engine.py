"""Floor 2, edges: PostgreSQL behind the writer's thread: a connection at a time. asyncpg only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from receiver.errors import StoreBroken, StoreUnavailable
from receiver.store.commits import Jobs, grouped
from receiver.store.faults import Fault
from receiver.store.postgres import faults
from receiver.store.postgres.connection import PostgresConnection, Raw, check_durable, connect

Use = Callable[[PostgresConnection], object]


class PostgresEngine:
    """One connection of the writer's thread, and that thread's event loop.

    `set_up` is called with the first connection, `begun` in every transaction, `probe` has to write
    something.
    """

    wal_size = 0  # the server sees to its log

    def __init__(self, url: str, *, set_up: Use, begun: Use, probe: Use) -> None:
        self._url = url
        self._set_up = set_up
        self._begun = begun
        self._probe = probe
        self._loop: asyncio.AbstractEventLoop
        self.connection: PostgresConnection

    def open(self) -> None:
        """Connect, and bring the database to this release's schema. Raises CannotStart."""
        self._loop = asyncio.new_event_loop()
        self.connection = PostgresConnection(self._connect(), self._loop)
        try:
            self._set_up(self.connection)
        except BaseException:
            self.close()
            raise

    def _connect(self) -> Raw:
        raw = self._loop.run_until_complete(connect(self._url))
        try:
            self._loop.run_until_complete(check_durable(raw))
        except BaseException:
            raw.terminate()
            raise
        return raw

    def close(self) -> None:
        """End the connection, and the loop."""
        with contextlib.suppress(OSError, TimeoutError):  # a server that is gone says no goodbye
            self._loop.run_until_complete(self.connection.raw.close(timeout=5.0))
        self._loop.close()

    def parts(self, jobs: Jobs) -> Iterable[Jobs]:
        """A transaction for each verb: several in one would lock in any order, and deadlock."""
        return [[jobs[place] for place in places] for _, places in grouped(jobs)]

    def look(self) -> None:
        """The server sees to its files."""

    def begin(self) -> None:
        """Begin a transaction, on a new connection if the last one ended."""
        if self.connection.raw.is_closed():
            self.connection.raw = self._connect()
        self.connection.execute("BEGIN")
        self._begun(self.connection)

    def commit(self) -> None:
        """Durable on return, as far as the server is: `synchronous_commit` is on."""
        self.connection.execute("COMMIT")

    def roll_back(self) -> None:
        """Leave the transaction. A connection that can't is ended, and the server rolls back."""
        raw = self.connection.raw
        if raw.is_closed():
            return
        try:
            if raw.is_in_transaction():
                self.connection.execute("ROLLBACK")
        except Exception:
            raw.terminate()

    def probe(self) -> None:
        """Write something, and commit it."""
        self.begin()
        self._probe(self.connection)
        self.commit()

    def tidy(self, *, idle: bool, shrunk: bool = False) -> None:
        """The server sees to its log."""

    def owns(self, error: BaseException) -> bool:
        """Whether the server or the way to it raised it."""
        return faults.owns(error)

    def judge(self, error: BaseException) -> Fault:
        """What follows from it, by its SQLSTATE."""
        return faults.judge(error)

    def unavailable(self, error: Exception) -> StoreUnavailable:
        """What waiters are told."""
        return faults.unavailable(error)

    def broken(self, error: BaseException) -> StoreBroken:
        """Why the receiver ends."""
        return faults.broken(error)
