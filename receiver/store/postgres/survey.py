"""Floor 2, edges: what can be seen of a PostgreSQL database without changing it. asyncpg only."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from receiver.errors import CannotStart
from receiver.store.postgres.connection import CONNECTING, check_durable, is_pooled
from receiver.store.postgres.faults import owns
from receiver.store.postgres.migrate import migrations


@dataclass(frozen=True, slots=True)
class Survey:
    """A database as it is: `schema` 0 is an empty one, `newest` what this release makes of it."""

    version: str
    schema: int
    newest: int
    pooled: bool


async def survey(url: str) -> Survey:
    """Look at a database. Raises CannotStart for one that can't be used."""
    try:
        raw = await asyncpg.connect(url, timeout=CONNECTING, statement_cache_size=0)
    except Exception as error:
        if not owns(error):
            raise
        told = str(error).partition("\n")[0] or type(error).__name__
        raise CannotStart(f"PostgreSQL can't be reached: {told}.") from error
    try:
        await check_durable(raw)
        there = await raw.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL")
        schema = await raw.fetchval("SELECT max(number) FROM schema_migrations") if there else 0
        version = await raw.fetchval("SHOW server_version")
        return Survey(str(version), int(schema or 0), migrations()[-1][0], await is_pooled(raw))
    finally:
        await raw.close()
