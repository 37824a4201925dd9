"""Floor 2, edges: what a verb writes through, whichever engine is behind it. stdlib only.

It is the part of `sqlite3.Connection` that verbs use, so that SQLite pays nothing for having a
sibling. Statements are written in the SQL that both engines speak (docs/decisions/0012), with
SQLite's marks. Where several processes write at once more is needed, and SQLite ignores it: what a
process relies on it holds, until its transaction ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

Values = Sequence[Any] | Mapping[str, Any]  # of a statement's marks, in their order or by name
Row = Any  # its values are found by a column's name, or by its place


class Held(Enum):
    """What one transaction at a time may do, over all processes that write."""

    EVENTS = "give events and resends their places, which are in the order of commits"
    CLAIMS = "lease deliveries, which counts what is under way at each endpoint"
    PRUNE = "drop what is too old"
    JOBS = "queue a job, or go on with one"
    SCHEMA = "bring the schema to another release's"
    STRANGERS = "take in what no token vouches for, which has a bound"
    ANSWERS = "begin a request that has an Idempotency-Key"


class Found(Protocol):
    """What a statement found or changed."""

    @property
    def rowcount(self) -> int:
        """How many rows an INSERT, UPDATE or DELETE touched."""
        ...

    @property
    def description(self) -> Any:
        """A sequence for each column, whose first part is its name."""
        ...

    def fetchone(self) -> Any:
        """The next row, None at the end."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection in a transaction."""

    is_shared: bool  # other processes write too
    patience: float  # seconds that a verb may take which has much to do; others wait behind it
    skip_locked: str  # what a SELECT ends with that leaves out the rows somebody else has

    def for_update(self, order: str = "") -> str:
        """What a SELECT of one table ends with whose rows are about to be changed.

        Each row is waited for, in that order, so that no two wait for each other.
        """
        ...

    def execute(self, sql: str, values: Values = (), /) -> Found:
        """Run a statement."""
        ...

    def executemany(self, sql: str, rows: Iterable[Values], /) -> Found:
        """Run a statement for each of these rows."""
        ...

    def lock(self, table: str, column: str, keys: Iterable[int]) -> None:
        """Wait for these rows, in the order of their keys, and keep them; for what is read next."""
        ...

    def hold(self, what: Held) -> None:
        """Wait until nobody else does that, and keep them from it until this transaction ends."""
        ...


def named(found: Found) -> list[dict[str, Any]]:
    """Rows by the names of their columns."""
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found]
