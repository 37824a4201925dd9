"""Floor 2, edges: the PostgreSQL database that a store comes to. asyncpg only.

How far the move is stands in a table of the target, written in the transaction of each batch; as
long as that table is there no receiver starts on the database (receiver/store/postgres/migrate.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Final, Self

from receiver.errors import CannotStart
from receiver.store.connection import Held
from receiver.store.moving.source import Batch
from receiver.store.moving.tables import TABLES, Sum, Table
from receiver.store.postgres.address import host_of
from receiver.store.postgres.connection import (
    PostgresConnection,
    check_durable,
    connect,
    time_of,
)
from receiver.store.postgres.faults import owns, told
from receiver.store.postgres.migrate import MOVING, migrate, version_of
from receiver.store.postgres.presence import SEEN, SILENCE

AHEAD: Final = 200  # rows that are read at once
_PROGRESS: Final = f"""
CREATE TABLE IF NOT EXISTS {MOVING} (
    name    TEXT COLLATE "C" PRIMARY KEY,
    place   TEXT COLLATE "C" NOT NULL,
    rows    BIGINT NOT NULL,
    changed BIGINT NOT NULL
)
"""


class Target:
    """A database that no receiver uses. `with` closes the connection to it."""

    def __init__(self, url: str) -> None:
        """Raises CannotStart where it can't be reached, or loses what it acknowledges."""
        self.host = host_of(url)
        self._loop = asyncio.new_event_loop()
        try:
            with self._reached():
                raw = self._loop.run_until_complete(connect(url))
        except BaseException:
            self._loop.close()
            raise
        self.connection = PostgresConnection(raw, self._loop)
        try:
            with self._reached():
                self.connection.wait(check_durable(raw))
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        with suppress(OSError, TimeoutError):  # a server that is gone says no goodbye
            self._loop.run_until_complete(self.connection.raw.close(timeout=5.0))
        self._loop.close()

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not owns(error):
                raise
            raise CannotStart(
                f"PostgreSQL at {self.host} can't be used: {told(error)}. What is done of the move"
                " stays; the same command goes on with it.",
                host=self.host,
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction, while no receiver begins to start. Raises CannotStart."""
        with self._reached():
            self.connection.execute("BEGIN")
            try:
                self.connection.hold(Held.SCHEMA)
                yield
                self.connection.execute("COMMIT")
            except Exception:
                if not self.connection.raw.is_closed():
                    self.connection.execute("ROLLBACK")
                raise
            except BaseException:
                self.connection.raw.terminate()  # amid an answer; the server rolls back
                raise

    def whose(self) -> str | None:
        """The instance whose store it is, or is becoming; None: it has nothing in it."""
        with self._reached():
            if not version_of(self.connection):
                return None
            name = MOVING if self.is_moving() else "meta"
            column = "place" if name == MOVING else "value"
            query = f"SELECT {column} FROM {name} WHERE name = 'instance'"
            row = self.connection.execute(query).fetchone()
            return None if row is None else str(row[0])

    def is_moving(self) -> bool:
        """Whether a move has begun here and is not done."""
        query = f"SELECT to_regclass('{MOVING}') IS NOT NULL"
        return bool(self.connection.execute(query).fetchone()[0])

    def rows_of_its_own(self) -> list[str]:
        """The tables that hold something."""
        with self._reached():
            if not version_of(self.connection):
                return []
            return [
                table.name
                for table in TABLES
                if self.connection.execute(
                    f"SELECT 1 FROM {table.name}{table.where} LIMIT 1"
                ).fetchone()
            ]

    def alive(self) -> list[str]:
        """The processes that use it, which beat by its server's clock."""
        with self._reached():
            if not version_of(self.connection):
                return []
            now = time_of(self.connection) // 1_000_000
            rows = self.connection.execute(SEEN, (now - SILENCE,)).fetchall()
            return [f"{row['role']} {row['host']}/{row['pid']}" for row in rows]

    def begin(self, instance: str) -> None:
        """Make the tables, and note whose they become. Goes on where that is done."""
        with self._reached():
            migrate(self.connection, moving=True)
        with self.transaction():
            self.connection.execute(_PROGRESS)
            self.connection.execute(
                f"INSERT INTO {MOVING} (name, place, rows, changed)"
                " VALUES ('instance', ?, 0, 0) ON CONFLICT DO NOTHING",
                (instance,),
            )

    def place(self, table: Table) -> tuple[str | None, int]:
        """Where the move of a table goes on, and how many texts it changed so far."""
        query = f"SELECT place, changed FROM {MOVING} WHERE name = ?"
        with self._reached():
            row = self.connection.execute(query, (f"table {table.name}",)).fetchone()
        return (None, 0) if row is None else (str(row[0]), int(row[1]))

    def take(self, table: Table, columns: Sequence[str], batch: Batch) -> None:
        """Keep a batch, and how far that brings the move."""
        with self.transaction():
            copied = self.connection.raw.copy_records_to_table(
                table.name, records=batch.rows, columns=columns
            )
            self.connection.wait(copied)
            self.connection.execute(
                f"INSERT INTO {MOVING} AS was (name, place, rows, changed) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET place = excluded.place,"
                " rows = was.rows + excluded.rows, changed = was.changed + excluded.changed",
                (f"table {table.name}", batch.place, len(batch.rows), batch.changed),
            )

    def columns(self, table: Table) -> set[str]:
        """Of a table, once the schema is there."""
        rows = self.connection.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND table_name = ?",
            (table.name,),
        ).fetchall()
        return {row[0] for row in rows}

    def sum(self, table: Table, columns: Sequence[str]) -> Sum:
        """The digest of a table."""
        query = f"SELECT {', '.join(columns)} FROM {table.name}{table.where}"
        with self._reached():
            return self.connection.wait(self._sum(query))

    async def _sum(self, query: str) -> Sum:
        found, rows = Sum(), list[Any]()
        async with self.connection.raw.transaction(readonly=True):
            async for row in self.connection.raw.cursor(query, prefetch=AHEAD):
                rows.append(row)
                if len(rows) >= AHEAD:
                    found, rows = found.plus(map(tuple, rows)), []
        return found.plus(map(tuple, rows))

    def finish(self, greatest: dict[Table, int]) -> None:
        """Let numbers go on behind these, and receivers start."""
        with self.transaction():
            for table, number in greatest.items():
                if number:
                    query = "SELECT setval(pg_get_serial_sequence(?, ?), ?)"
                    self.connection.execute(query, (table.name, table.given, number))
            self.connection.execute(f"DROP TABLE {MOVING}")
        with self._reached():
            self.connection.execute("ANALYZE")  # else the first hours are planned for empty tables
