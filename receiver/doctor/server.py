"""Floor 5, assembly: what a PostgreSQL server lacks that a receiver needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

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
    return [*_of(found)]


def _of(found: Survey) -> Iterator[Finding]:
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
