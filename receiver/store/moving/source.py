"""Floor 2, edges: the SQLite file that a store leaves. sqlite3 only.

The receiver's own lock is held, so that nobody writes. What a start of the receiver would do is
done first: the schema is brought to this release's, what was under way becomes pending.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from receiver.errors import CannotStart
from receiver.store.commits import Transaction
from receiver.store.migrate import check_owner, migrate, version_of
from receiver.store.moving.tables import Sum, Table, storable
from receiver.store.sqlite.engine import Connection
from receiver.store.sqlite.lock import take_lock
from receiver.store.sqlite.place import check_place
from receiver.store.sqlite.store import PRAGMAS
from receiver.store.verbs import answers, queue

ROWS: Final = 2_000  # of a batch
BYTES: Final = 8 << 20  # of texts and bodies in a batch, or one row of more


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows, and the place behind them; `changed` of their texts are not as they were."""

    rows: list[list[Any]]
    place: str
    changed: int


class Source:
    """A database that nobody has open. `with` closes it, and lets go of its lock."""

    def __init__(self, path: Path, *, now: int, dry_run: bool) -> None:
        """Raises CannotStart, StoreLocked, SchemaTooNew. A dry run changes nothing in it."""
        self.path = check_place(path)
        if not self.path.is_file():
            raise CannotStart(f"There is no database {self.path}.", path=str(self.path))
        self._lock = take_lock(self.path)
        try:
            self.connection = self._connected(now, dry_run)
        except sqlite3.DatabaseError as error:
            os.close(self._lock)
            raise CannotStart(f"{self.path} can't be opened: {error}.") from error
        except BaseException:
            os.close(self._lock)
            raise

    def _connected(self, now: int, dry_run: bool) -> Connection:
        mode = "ro" if dry_run else "rw"
        uri = f"file:{quote(str(self.path))}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, factory=Connection)
        try:
            # Bytes that are no UTF-8 have to come through, to be told of.
            connection.text_factory = lambda data: data.decode(errors="surrogateescape")
            check_owner(connection)
            if not version_of(connection):
                raise CannotStart(f"{self.path} is empty: there is nothing to move.")
            if not dry_run:
                _as_a_start_does(connection, now)
        except BaseException:
            connection.close()
            raise
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.connection.close()
        os.close(self._lock)

    @property
    def instance(self) -> str:
        """Of which receiver it is. Raises CannotStart where none ever opened it."""
        query = "SELECT value FROM meta WHERE name = 'instance'"
        row = self.connection.execute(query).fetchone()
        if row is None:
            raise CannotStart(f"{self.path} was never opened by a receiver.")
        return str(row[0])

    def columns(self, table: Table) -> list[str]:
        """Of a table, those of its key first; none where an older schema lacks it."""
        rows = self.connection.execute("SELECT name FROM pragma_table_info(?)", (table.name,))
        found = [name for (name,) in rows]
        return [*table.key, *(name for name in found if name not in table.key)] if found else []

    def count(self, table: Table) -> int:
        """How many rows there are to move."""
        query = f"SELECT count(*) FROM {table.name}{table.where}"
        return int(self.connection.execute(query).fetchone()[0])

    def batches(self, table: Table, place: str | None) -> Iterator[Batch]:
        """The rows behind a place, in the order of their keys."""
        rows, changed, size, last = list[list[Any]](), 0, 0, place or ""
        for row in self._rows(table, place):
            found, altered = storable(row)
            rows.append(found)
            changed += altered
            size += sum(len(value) for value in found if isinstance(value, str | bytes))
            last = _place_of(row[: len(table.key)])
            if len(rows) >= ROWS or size >= BYTES:
                yield Batch(rows, last, changed)
                rows, changed, size = [], 0, 0
        if rows:
            yield Batch(rows, last, changed)

    def _rows(self, table: Table, place: str | None) -> Iterator[Sequence[Any]]:
        columns, key = ", ".join(self.columns(table)), ", ".join(table.key)
        where, values = table.where, list[Any]()
        if place is not None:
            values = _key_of(place)
            marks = ", ".join("CAST(? AS TEXT)" if kind else "?" for kind, _ in values)
            where = f"{where} {'AND' if where else 'WHERE'} ({key}) > ({marks})"
        query = f"SELECT {columns} FROM {table.name}{where} ORDER BY {key}"
        yield from self.connection.execute(query, [value for _, value in values])

    def sum(self, table: Table) -> Sum:
        """The digest of a table as the other side has to have it."""
        return Sum().plus(storable(row)[0] for row in self._rows(table, None))

    def greatest(self, table: Table) -> int:
        """The greatest number that was given in a table; some may be gone since."""
        query = f"SELECT coalesce(max({table.given}), 0) FROM {table.name}"
        found = int(self.connection.execute(query).fetchone()[0])
        query = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?"
        return max(found, int(self.connection.execute(query, (table.name,)).fetchone()[0]))


def _as_a_start_does(connection: Connection, now: int) -> None:
    for name, value, _ in PRAGMAS:
        connection.execute(f"PRAGMA {name} = {value}")
    migrate(connection)
    connection.execute("BEGIN IMMEDIATE")
    queue.release_all(Transaction(connection), now)
    answers.drop_unfinished(connection)
    connection.execute("COMMIT")


def _place_of(key: Sequence[Any]) -> str:
    # A text of PostgreSQL holds no NUL; JSON writes it in ASCII.
    return json.dumps(
        [{"hex": value.hex()} if isinstance(value, bytes) else value for value in key]
    )


def _key_of(place: str) -> list[tuple[bool, Any]]:
    """Of each column whether it is a text, and its value: as bytes, whatever they are."""
    found = list[tuple[bool, Any]]()
    for value in json.loads(place):
        if isinstance(value, str):
            found.append((True, value.encode(errors="surrogateescape")))
        else:
            found.append((False, bytes.fromhex(value["hex"]) if isinstance(value, dict) else value))
    return found
