"""Floor 2, edges: which processes use a database, by their heartbeats. stdlib only.

A delivery's lease outlives its attempt, so that nobody sends it a second time while it is under
way. Of a process that is gone nobody has to wait for that: when it has not been seen for SILENCE,
or has said that it ends, what it leased is anybody's. Who was silent itself, as all are while the
database is away, judges nobody until it has been seen for as long.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Final

from receiver.clock import SECOND, to_datetime
from receiver.condition import Process, Role
from receiver.store.connection import Row
from receiver.store.verbs import queue
from receiver.store.writer import Transaction

BEAT: Final = 5.0  # seconds between beats
SILENCE: Final = 20 * SECOND  # milliseconds after which a process counts as gone

_BEAT: Final = (
    "INSERT INTO processes (id, role, host, pid, started_at, seen_at) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at"
)


SEEN: Final = (
    "SELECT role, host, pid, started_at, seen_at FROM processes WHERE seen_at > ? ORDER BY id"
)


class Presence:
    """This process among the others; `number` is its id."""

    def __init__(self, number: int, role: Role, started_at: int) -> None:
        self.number = number
        self._role = role
        self._started_at = started_at
        self._since = self._last = started_at

    def beat(self, tx: Transaction, now: int) -> None:
        """Be seen."""
        if now - self._last >= SILENCE:
            self._since = now
        self._last = now
        host = socket.gethostname()
        tx.connection.execute(
            _BEAT, (self.number, self._role, host, os.getpid(), self._started_at, now)
        )

    def release_lapsed(self, tx: Transaction, now: int) -> int:
        """Return what lapsed, and what processes held that are gone; how much."""
        if self._last - self._since >= SILENCE:
            self._bury(tx, now)
        return queue.release_lapsed(tx, now)

    def _bury(self, tx: Transaction, now: int) -> None:
        gone = tx.connection.execute(
            f"SELECT id FROM processes WHERE seen_at <= ?{tx.connection.skip_locked}",
            (self._last - SILENCE,),
        ).fetchall()
        _let_go(tx, [row[0] for row in gone], now)

    def leave(self, tx: Transaction, now: int) -> int:
        """This process ends: what it leased is anybody's, at once."""
        _let_go(tx, [self.number], now)
        return queue.release_lapsed(tx, now)


def process_of(row: Row) -> Process:
    """A process as others see it."""
    return Process(
        role=row["role"],
        host=row["host"],
        pid=row["pid"],
        started_at=to_datetime(row["started_at"]),
        seen_at=to_datetime(row["seen_at"]),
    )


def _let_go(tx: Transaction, processes: Sequence[int], now: int) -> None:
    rows = [(now, process) for process in processes]
    tx.connection.executemany(
        "UPDATE deliveries SET lease_until = ? WHERE state = 'sending' AND leased_by = ?", rows
    )
    tx.connection.executemany(
        "DELETE FROM processes WHERE id = ?", [(process,) for process in processes]
    )
