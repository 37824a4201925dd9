"""Floor 2, edges: what can be seen of a PostgreSQL database without changing it. asyncpg only."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from receiver.clock import agreed
from receiver.errors import CannotStart
from receiver.store.postgres.connection import PARTING, TIME, check_durable, is_pooled, reach
from receiver.store.postgres.faults import owns, told
from receiver.store.postgres.migrate import IS_OURS, migrations


@dataclass(frozen=True, slots=True)
class Survey:
    """A database as it is: `schema` 0 is an empty one, `newest` what this release makes of it.

    `ahead`: by so many nanoseconds its clock is ahead of this machine's, for certain.
    """

    version: str
    schema: int
    newest: int
    pooled: bool
    ahead: int = 0


async def survey(url: str, wall: Callable[[], int] = time.time_ns) -> Survey:
    """Look at a database; `wall` gives nanoseconds. Raises CannotStart for one of no use."""
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
            asked = wall()
            ahead = agreed(0, asked, 1_000 * await raw.fetchval(TIME), wall())
        return Survey(str(version), int(schema or 0), migrations()[-1][0], pooled, ahead)
    finally:
        await raw.close(timeout=PARTING)
