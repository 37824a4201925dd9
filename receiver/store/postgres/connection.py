"""Floor 2, edges: a connection to PostgreSQL as the writer's thread uses it. asyncpg only.

Verbs are plain functions on the writer's thread, which has an event loop of its own to wait in for
each answer. Behind a pooler that gives every transaction another session (PgBouncer's transaction
mode) no statement can stay prepared, and nobody can listen: that is found out, not set.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg

from receiver.errors import CannotStart
from receiver.store.connection import Held, Values
from receiver.store.postgres.speech import Statement, translated

T = TypeVar("T")

CONNECTING: Final = 10.0  # seconds until a server counts as gone
ANSWERING: Final = 60.0  # seconds that one statement may take
CACHED: Final = 1_024  # prepared statements
_NAMESPACE: Final = 0x5265656C  # "Reel": of the advisory locks

Raw: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def connect(url: str) -> Raw:
    """A connection that prepares statements only where they stay. Raises what asyncpg does."""
    raw = await asyncpg.connect(
        url, timeout=CONNECTING, command_timeout=ANSWERING, statement_cache_size=0
    )
    try:
        if await is_pooled(raw):
            await prepare(raw)
            return raw
    except BaseException:
        raw.terminate()
        raise
    await raw.close()
    raw = await asyncpg.connect(
        url,
        timeout=CONNECTING,
        command_timeout=ANSWERING,
        statement_cache_size=CACHED,
        max_cached_statement_lifetime=0,
    )
    await prepare(raw)
    return raw


async def is_pooled(raw: Raw) -> bool:
    """Whether a pooler answers: it makes up the process id that the protocol's start tells."""
    return bool(await raw.fetchval("SELECT pg_backend_pid()") != raw.get_server_pid())


async def prepare(raw: Raw) -> None:
    """All that is summed up here is whole: a sum of bigints is a numeric."""
    await raw.set_type_codec(
        "numeric", encoder=str, decoder=int, schema="pg_catalog", format="text"
    )


def locked(what: Held) -> str:
    """The statement that waits for one of the things that one transaction at a time may do."""
    return f"SELECT pg_advisory_xact_lock({_NAMESPACE}, {zlib.crc32(what.name.encode()) >> 1})"


class Rows:
    """What a statement found or changed."""

    def __init__(self, rows: Sequence[Any], rowcount: int) -> None:
        self._rows = iter(rows)
        self.rowcount = rowcount
        self.description = [(name,) for name in rows[0].keys()] if rows else []  # noqa: SIM118

    def fetchone(self) -> Any:
        """The next row, None at the end."""
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows


class PostgresConnection:
    """One connection, and the loop in which its thread waits."""

    is_shared = True
    patience = 0.05  # each statement is a way to the server and back; other processes go on
    skip_locked = " FOR UPDATE SKIP LOCKED"

    def __init__(self, raw: Raw, loop: asyncio.AbstractEventLoop) -> None:
        self.raw = raw
        self._loop = loop

    def for_update(self, order: str = "") -> str:
        """Wait for each row that is found, in that order."""
        return f" ORDER BY {order} FOR UPDATE" if order else " FOR UPDATE"

    def wait(self, answer: Coroutine[Any, Any, T]) -> T:
        """Wait on this thread."""
        return self._loop.run_until_complete(answer)

    def execute(self, sql: str, values: Values = (), /) -> Rows:
        """Run a statement."""
        statement = translated(sql)
        return self.wait(self._run(statement, statement.bind(values)))

    async def _run(self, statement: Statement, values: Sequence[Any]) -> Rows:
        if statement.returns:
            rows = await self.raw.fetch(statement.sql, *values)
            return Rows(rows, len(rows))
        done = await self.raw.execute(statement.sql, *values)
        count = done.rpartition(" ")[2]
        return Rows((), int(count) if count.isdecimal() else -1)

    def executemany(self, sql: str, rows: Iterable[Values], /) -> Rows:
        """Run a statement for each of these rows, all of them sent at once."""
        statement = translated(sql)
        bound = [statement.bind(row) for row in rows]
        if not bound:
            return Rows((), 0)
        if len(bound) == 1:
            return self.wait(self._run(statement, bound[0]))
        if not statement.counted:
            self.wait(self.raw.executemany(statement.sql, bound))
            return Rows((), -1)
        return Rows((), len(self.wait(self.raw.fetchmany(statement.counted, bound))))

    def run_script(self, text: str) -> None:
        """Run several statements that have no marks."""
        self.wait(self.raw.execute(text))

    def lock(self, table: str, column: str, keys: Iterable[int]) -> None:
        """Wait for these rows, in the order of their keys, and keep them."""
        found = sorted(keys)
        if found:
            sql = f"SELECT 1 FROM {table} WHERE {column} = ANY($1::bigint[]) ORDER BY {column}"
            self.wait(self.raw.fetch(f"{sql} FOR UPDATE", found))

    def hold(self, what: Held) -> None:
        """Wait until nobody else does that, and keep them from it until this transaction ends."""
        self.wait(self.raw.fetch(locked(what)))


async def check_durable(raw: Raw) -> None:
    """Raises CannotStart for a server that acknowledges what a crash would lose."""
    for name, why in (
        ("synchronous_commit", "a commit returns before it is on disk"),
        ("fsync", "nothing is on disk for certain"),
    ):
        if await raw.fetchval(f"SHOW {name}") == "off":
            raise CannotStart(
                f"PostgreSQL has {name} = off: {why}, and a platform is told that it is. Set it"
                f" to on (`ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();`).",
                setting=name,
            )
    if await raw.fetchval("SHOW server_encoding") != "UTF8":
        raise CannotStart(
            "The database's encoding has to be UTF8: CREATE DATABASE … ENCODING UTF8."
        )
