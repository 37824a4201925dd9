"""Floor 2, edges: which processes use a database, by their heartbeats. stdlib only.

A delivery's lease outlives its attempt, so that nobody sends it a second time while it is under
way. Of a process that is gone nobody has to wait for that: when it has said that it ends, when it
ran on this very machine and does no more, or when nobody saw it beat for SILENCE, what it leased is
anybody's.

How long that is, each process measures itself: by its own clock, from beat to beat of its own. Two
clocks that differ bury nobody. Neither does a database that was away: whoever could not beat in
time has seen nothing of the others either, and begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from receiver.clock import SECOND, to_datetime
from receiver.condition import Process, Role
from receiver.store.connection import Held, Row
from receiver.store.postgres import kernel
from receiver.store.verbs import queue
from receiver.store.writer import Transaction
from receiver.whereabouts import Whereabouts, is_gone

BEAT: Final = 5.0  # seconds between beats
SILENCE: Final = 20 * SECOND  # milliseconds after which a process counts as gone
LATE: Final = 8 * SECOND  # milliseconds between two beats of which none is missing

_BEAT: Final = (
    "INSERT INTO processes (id, role, host, pid, machine, born, started_at, seen_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at"
)
_OTHERS: Final = "SELECT id, seen_at, host, pid, machine, born FROM processes WHERE id <> ?"
SEEN: Final = (
    "SELECT role, host, pid, started_at, seen_at FROM processes WHERE seen_at > ? ORDER BY id"
)


@dataclass(frozen=True, slots=True)
class _Other:
    """Another process: where it runs, its last beat by its own clock, and since when by ours."""

    where: Whereabouts
    beat: int
    since: int


class Presence:
    """This process among the others; `number` is its id. `born` is what is_gone asks."""

    def __init__(
        self,
        number: int,
        role: Role,
        born: Callable[[int], int | None] = kernel.born,
    ) -> None:
        self.number = number
        self._here = here = kernel.here()
        self._me = (number, role, here.host, here.pid, here.machine, here.born)
        self._born = born
        self._started_at: int | None = None  # the first beat
        self._beat_at = 0
        self._heard: dict[int, _Other] = {}

    def beat(self, tx: Transaction, now: int) -> None:
        """Be seen, and see who else is there."""
        if self._started_at is None:
            self._started_at = now
        tx.connection.execute(_BEAT, (*self._me, self._started_at, now))
        others = tx.connection.execute(_OTHERS, (self.number,)).fetchall()
        tx.after_commit.append(lambda: self._hear(others, now))

    def _hear(self, others: Sequence[Row], now: int) -> None:
        before = self._heard if 0 <= now - self._beat_at <= LATE else {}
        self._beat_at = now
        self._heard = {}
        for number, beat, *where in others:
            last = before.get(number)
            since = last.since if last is not None and last.beat == beat else now
            self._heard[number] = _Other(Whereabouts(*where), beat, since)

    def release_lapsed(self, tx: Transaction, now: int) -> int:
        """Return what lapsed, and what processes held that are gone; how much."""
        for number, other in self._heard.items():
            if is_gone(other.where, self._here, self._born):
                # A claim that it had begun is committed by now, or never will be.
                tx.connection.hold(Held.CLAIMS)
                self._bury(tx, number, now)
            elif self._beat_at - other.since >= SILENCE and _is_silent(tx, number, other.beat):
                self._bury(tx, number, now)
        return queue.release_lapsed(tx, now)

    def _bury(self, tx: Transaction, number: int, now: int) -> None:
        _let_go(tx, number, now)
        tx.after_commit.append(lambda: self._forget(number))

    def _forget(self, number: int) -> None:
        self._heard.pop(number, None)

    def leave(self, tx: Transaction, now: int) -> int:
        """This process ends: what it leased is anybody's, at once."""
        _let_go(tx, self.number, now)
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


def _is_silent(tx: Transaction, process: int, beat: int) -> bool:
    query = f"SELECT 1 FROM processes WHERE id = ? AND seen_at = ?{tx.connection.skip_locked}"
    return tx.connection.execute(query, (process, beat)).fetchone() is not None


def _let_go(tx: Transaction, process: int, now: int) -> None:
    tx.connection.execute(
        "UPDATE deliveries SET lease_until = ? WHERE state = 'sending' AND leased_by = ?",
        (now, process),
    )
    tx.connection.execute("DELETE FROM processes WHERE id = ?", (process,))
