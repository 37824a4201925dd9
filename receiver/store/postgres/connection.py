"""Floor 2, edges: a connection to PostgreSQL as the writer's thread uses it. asyncpg only.

Verbs are plain functions on the writer's thread, which has an event loop of its own to wait in for
each answer. Behind a pooler that gives every transaction another session (PgBouncer's transaction
mode) no statement can stay prepared, and nobody can listen: that is found out, not set.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg
from asyncpg import connect_utils

from receiver.errors import CannotStart
from receiver.store.connection import Held, Values
from receiver.store.postgres.address import checked
from receiver.store.postgres.speech import Statement, translated

T = TypeVar("T")

CONNECTING: Final = 10.0  # seconds until a server counts as gone
PARTING: Final = 5.0  # seconds that a rollback or a good-bye may take
ANSWERING: Final = 30.0  # seconds that one statement may take
MIGRATING: Final = 86_400.0  # one that rewrites a large table, or waits for whoever does
CACHED: Final = 1_024  # prepared statements
_NAMESPACE: Final = 0x5265656C  # "Reel": of the advisory locks

Raw: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@cache
def _hear_what_is_lost() -> None:
    """Have asyncpg hear how its question whether a server speaks TLS ended, also when nobody waits.

    Once an attempt is ended just as the socket is there, nobody does, and asyncio would report the
    error of that question as one that was never retrieved. asyncpg has no way in for that; where a
    release has no such question any more, nothing is left to hear.
    """
    question = getattr(connect_utils, "TLSUpgradeProto", None)
    if question is None:
        return
    lost = question.connection_lost

    def connection_lost(self: Any, error: Exception | None) -> None:
        lost(self, error)
        if not self.on_data.cancelled():
            self.on_data.exception()  # now it was heard; who does wait is told all the same

    question.connection_lost = connection_lost


async def reach(url: str, **options: Any) -> Raw:
    """A connection as asyncpg makes it. Raises CannotStart for a URL that is none, without its
    password, and what asyncpg does for a server that refuses."""
    checked(url)
    _hear_what_is_lost()  # of a pool's connections, too: each store first reaches its server here
    try:
        return await asyncpg.connect(url, timeout=CONNECTING, **options)
    except asyncpg.ClientConfigurationError as error:  # it names parameters, and files
        raise CannotStart(f"DATABASE_URL can't be used: {error}.") from None


async def connect(url: str, pooled: bool | None = None) -> Raw:
    """A connection that prepares statements only where they stay. Raises as `reach` does.

    `pooled`: whether a pooler is in front, if that is known.
    """
    if pooled is None:
        pooled = await asked_whether_pooled(url)
    kept = 0 if pooled else CACHED
    raw = await reach(url, statement_cache_size=kept, max_cached_statement_lifetime=0)
    try:
        await prepare(raw)
    except BaseException:
        raw.terminate()
        raise
    return raw


async def asked_whether_pooled(url: str) -> bool:
    """Whether a pooler answers there, by a connection of its own: one that prepares nothing."""
    raw = await reach(url, statement_cache_size=0)
    try:
        return await is_pooled(raw)
    finally:
        await raw.close(timeout=PARTING)


async def is_pooled(raw: Raw) -> bool:
    """Whether a pooler answers: it makes up the process id that the protocol's start tells."""
    # In a transaction, as all is that a pooler may see: else it could give the statement's parse to
    # one session and its execution to another.
    async with raw.transaction():
        return bool(await raw.fetchval("SELECT pg_backend_pid()") != raw.get_server_pid())


async def prepare(raw: Raw) -> None:
    """All that is summed up here is whole: a sum of bigints is a numeric."""
    async with raw.transaction():
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
        self.answering = ANSWERING
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
            rows = await self.raw.fetch(statement.sql, *values, timeout=self.answering)
            return Rows(rows, len(rows))
        done = await self.raw.execute(statement.sql, *values, timeout=self.answering)
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
            self.wait(self.raw.executemany(statement.sql, bound, timeout=self.answering))
            return Rows((), -1)
        changed = self.raw.fetchmany(statement.counted, bound, timeout=self.answering)
        return Rows((), len(self.wait(changed)))

    def run(self, text: str) -> str:
        """Run statements that have no marks; what the server calls what the last of them did."""
        return self.wait(self.raw.execute(text, timeout=self.answering))

    def lock(self, table: str, column: str, keys: Iterable[int]) -> None:
        """Wait for these rows, in the order of their keys, and keep them."""
        found = sorted(keys)
        if found:
            sql = f"SELECT 1 FROM {table} WHERE {column} = ANY($1::bigint[]) ORDER BY {column}"
            self.wait(self.raw.fetch(f"{sql} FOR UPDATE", found, timeout=self.answering))

    def hold(self, what: Held) -> None:
        """Wait until nobody else does that, and keep them from it until this transaction ends."""
        self.wait(self.raw.fetch(locked(what), timeout=self.answering))


# Of this very moment, and not of the transaction's begin. In microseconds, which is what it has.
TIME: Final = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"


def time_of(connection: PostgresConnection) -> int:
    """What time the server has, in nanoseconds since 1970."""
    return int(connection.execute(TIME).fetchone()[0]) * 1_000


_SETTINGS: Final = (
    "SELECT current_setting('synchronous_commit'), current_setting('fsync'),"
    " current_setting('server_encoding')"
)


async def check_durable(raw: Raw) -> None:
    """Raises CannotStart for a server that acknowledges what a crash would lose."""
    async with raw.transaction():
        ((commits, syncs, encoding),) = await raw.fetch(_SETTINGS)
    why = lossy(commits, syncs)
    if why is not None:
        raise CannotStart(why)
    if encoding != "UTF8":
        raise CannotStart(
            "The database's encoding has to be UTF8: CREATE DATABASE … ENCODING UTF8."
        )


def lossy(synchronous_commit: str, fsync: str) -> str | None:
    """What a server's settings lose of what it acknowledged, and what to change; None: nothing."""
    for name, value, why in (
        ("synchronous_commit", synchronous_commit, "a commit returns before it is on disk"),
        ("fsync", fsync, "nothing is on disk for certain"),
    ):
        if value == "off":
            return (
                f"PostgreSQL has {name} = off: {why}, and a platform is told that it is. Set it to"
                f" on (`ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();`; a role or a"
                " database may have a setting of its own)."
            )
    return None
