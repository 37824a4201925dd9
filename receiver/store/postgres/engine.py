"""Floor 2, edges: PostgreSQL behind the writer's thread: a connection at a time. asyncpg only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

import asyncpg

from receiver.errors import CannotStart, StoreBroken, StoreUnavailable
from receiver.store.commits import Jobs, grouped
from receiver.store.faults import Fault
from receiver.store.postgres import faults
from receiver.store.postgres.connection import (
    ANSWERING,
    MIGRATING,
    PARTING,
    PostgresConnection,
    Raw,
    asked_whether_pooled,
    check_durable,
    connect,
)

Use = Callable[[PostgresConnection], object]

# A process that is frozen, or whose machine is gone, holds what all others wait for: the server
# takes it back. Set here, since a pooler lets no session keep a setting.
_BEGIN: Final = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '10s'"


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
        try:
            self.pooled = self._loop.run_until_complete(asked_whether_pooled(self._url))
            self.connection = PostgresConnection(self._connect(), self._loop)
            self.connection.answering = MIGRATING
            self._set_up(self.connection)
            self.connection.answering = ANSWERING
        except BaseException:
            self._end()
            raise

    def _connect(self) -> Raw:
        raw = self._loop.run_until_complete(connect(self._url, self.pooled))
        try:
            self._loop.run_until_complete(check_durable(raw))
        except BaseException:
            raw.terminate()
            raise
        return raw

    def _connect_again(self) -> Raw:
        try:
            return self._connect()
        except CannotStart as refused:  # what was good enough at the start is not any more
            raise StoreUnavailable(str(refused)) from refused

    def close(self) -> None:
        """End the connection, and the loop."""
        raw = self.connection.raw
        with contextlib.suppress(Exception):  # a server that is gone says no good-bye
            self._within(PARTING, raw.close())
        self._end()

    def _end(self) -> None:
        if hasattr(self, "connection"):
            self.connection.raw.terminate()
        self._loop.run_until_complete(asyncio.sleep(0))  # what was cut off hears of it
        self._loop.close()

    def _within(self, seconds: float, answer: Coroutine[Any, Any, object]) -> None:
        async def wait() -> None:
            async with asyncio.timeout(seconds):
                await answer

        self._loop.run_until_complete(wait())

    def parts(self, jobs: Jobs) -> Iterable[Jobs]:
        """A transaction for each verb: several in one would lock in any order, and deadlock."""
        return [[jobs[place] for place in places] for _, places in grouped(jobs)]

    def look(self) -> None:
        """The server sees to its files."""

    def begin(self) -> None:
        """Begin a transaction, on a new connection if the last one ended."""
        self._loop.run_until_complete(_turn())
        if self.connection.raw.is_closed():
            self.connection.raw = self._connect_again()
        self.connection.run(_BEGIN)
        self._begun(self.connection)

    def commit(self) -> None:
        """Durable on return, as far as the server is: `synchronous_commit` is on."""
        if self.connection.run("COMMIT") != "COMMIT":  # one that failed ends so, without an error
            raise asyncpg.InFailedSQLTransactionError("the transaction was rolled back")

    def roll_back(self) -> None:
        """Leave the transaction. A connection that can't is ended, and the server rolls back."""
        raw = self.connection.raw
        if raw.is_closed() or not raw.is_in_transaction():
            return
        try:
            self._within(PARTING, raw.execute("ROLLBACK"))
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
        """What follows from it, by its SQLSTATE. What a server was set to when a connection began
        stays so for that one: it is not used again where that may be the trouble."""
        fault = faults.judge(error)
        if fault is Fault.ENVIRONMENT:
            self.connection.raw.terminate()
        return fault

    def unavailable(self, error: Exception) -> StoreUnavailable:
        """What waiters are told."""
        return faults.unavailable(error)

    def broken(self, error: BaseException) -> StoreBroken:
        """Why the receiver ends."""
        return faults.broken(error)


async def _turn() -> None:
    # The loop stands still between transactions: a server's good-bye of meanwhile is heard only so.
    for _ in range(3):
        await asyncio.sleep(0)
