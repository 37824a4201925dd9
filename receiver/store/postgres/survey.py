"""Floor 2, edges: what can be seen of a PostgreSQL database without changing it. asyncpg only."""

from __future__ import annotations

from dataclasses import dataclass

from receiver.errors import CannotStart
from receiver.store.postgres.connection import PARTING, check_durable, is_pooled, reach
from receiver.store.postgres.faults import owns, told
from receiver.store.postgres.migrate import IS_OURS, migrations


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
        raw = await reach(url, statement_cache_size=0)
    except Exception as error:
        if not owns(error):
            raise
        raise CannotStart(f"PostgreSQL can't be reached: {told(error)}.") from error
    try:
        await check_durable(raw)
        pooled = await is_pooled(raw)
        async with raw.transaction(readonly=True):  # one session, also behind a pooler
            ours = await raw.fetchval(IS_OURS)
            schema = await raw.fetchval("SELECT max(number) FROM schema_migrations") if ours else 0
            version = await raw.fetchval("SHOW server_version")
        return Survey(str(version), int(schema or 0), migrations()[-1][0], pooled)
    finally:
        await raw.close(timeout=PARTING)
