"""What a PostgreSQL database holds, as a SQLite file: so one judge reads both stores.

Tables are copied as they are at one moment, column by column, by asyncpg and none of our SQL.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import asyncpg

TABLES: Final = ("tasks", "callbacks", "results", "events", "endpoints", "deliveries", "attempts")
LOOKED_UP: Final = (  # judges look at one task after the other
    "CREATE INDEX by_task ON tasks (id)",
    "CREATE INDEX by_run ON tasks (platform_id)",
    "CREATE INDEX callbacks_of ON callbacks (task_n)",
    "CREATE INDEX results_of ON results (task_n)",
    "CREATE INDEX events_of ON events (task_n)",
    "CREATE INDEX deliveries_of ON deliveries (event_id)",
    "CREATE INDEX attempts_of ON attempts (event_id, endpoint_id)",
)
CHUNK: Final = 5_000  # rows

Raw = Any  # asyncpg's connection


async def copy(url: str, file: Path) -> None:
    """Make `file` anew, with all that the database has now."""
    raw = await asyncpg.connect(url)
    try:
        with closing(_fresh(file)) as made:
            async with raw.transaction(isolation="repeatable_read", readonly=True):
                for table in TABLES:
                    await _copy(raw, table, made)
            for index in LOOKED_UP:
                made.execute(index)
            made.commit()
    finally:
        await raw.close()


def _fresh(file: Path) -> sqlite3.Connection:
    file.unlink(missing_ok=True)
    made = sqlite3.connect(file)
    made.execute("PRAGMA synchronous = OFF")
    return made


async def _copy(raw: Raw, table: str, made: sqlite3.Connection) -> None:
    query = await raw.prepare(f"SELECT * FROM {table}")
    names = [attribute.name for attribute in query.get_attributes()]
    made.execute(f"CREATE TABLE {table} ({', '.join(names)})")
    marks = ", ".join("?" * len(names))
    cursor = await query.cursor()
    while rows := await cursor.fetch(CHUNK):
        made.executemany(f"INSERT INTO {table} VALUES ({marks})", _tuples(rows))


def _tuples(rows: list[Any]) -> Iterator[tuple[Any, ...]]:
    return (tuple(row) for row in rows)


_HEAPS: Final = """
SELECT format('%s, block %s: %s', c.oid::regclass, found.blkno, found.msg)
  FROM pg_class c, LATERAL verify_heapam(c.oid) AS found
 WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
"""
_INDEXES: Final = """
SELECT bt_index_check(i.indexrelid, true)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
 WHERE a.amname = 'btree' AND c.relnamespace = 'public'::regnamespace
"""


async def damage_in(url: str) -> list[str]:
    """What amcheck finds in all tables and their indexes; [] if nothing, or if it may not look."""
    raw = await asyncpg.connect(url)
    try:
        await raw.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
        found = [row[0] for row in await raw.fetch(_HEAPS)]
        await raw.fetch(_INDEXES)
    except asyncpg.InsufficientPrivilegeError:
        sys.stderr.write("amcheck is for superusers: nothing was looked at\n")
        return []
    except asyncpg.IndexCorruptedError as error:
        return [str(error)]
    finally:
        await raw.close()
    return found
