"""Floor 5, assembly: what a PostgreSQL server lacks that a receiver needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from receiver.clock import APART_NS
from receiver.doctor.findings import Finding, error, ok, warning
from receiver.errors import CannotStart
from receiver.settings import Settings

if TYPE_CHECKING:
    from receiver.store.postgres.survey import Survey


async def database(settings: Settings) -> list[Finding]:
    """Whether it answers, keeps what it acknowledges, and which release wrote it."""
    try:
        from receiver.store.postgres.survey import survey
    except ModuleNotFoundError:
        fix = "pip install 'reelhook[postgres]'"
        return [error("database", "asyncpg is not installed, which PostgreSQL needs.", fix)]
    try:
        found = await survey(settings.database_url)
    except CannotStart as refused:
        fix = "Look at DATABASE_URL, and at the server; nothing starts before that."
        return [error("database", str(refused), fix)]
    return [*told(found)]


def told(found: Survey) -> Iterator[Finding]:
    """What follows from what was seen of it."""
    about = f"PostgreSQL {found.version}, schema {found.schema}"
    if found.schema > found.newest:
        text = f"{about}; this release knows {found.newest}."
        yield warning("database", text, "Finish the deployment, or go back by a backup.")
    elif found.schema < found.newest:
        yield ok("database", f"{about}; `reelhook migrate` brings it to {found.newest}.")
    else:
        yield ok("database", f"{about}.")
    if found.pooled:
        text = "A pooler is in front: nothing stays prepared, and nobody can listen."
        yield ok("pooler", f"{text} What others commit is seen within a second.")
    yield _clock(found.ahead)


def _clock(ahead: int) -> Finding:
    if abs(ahead) <= APART_NS:
        return ok("database clock", "The server shows the same time as this machine.")
    side = "behind" if ahead > 0 else "ahead of"
    text = f"This machine's clock is {abs(ahead) / 1e9:,.0f} s {side} that of the database's server"
    fix = "Let NTP set both: tokens and signatures carry this machine's time."
    return warning("database clock", f"{text}, by which leases and schedules go.", fix)
