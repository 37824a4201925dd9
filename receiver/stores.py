"""Floor 5, assembly: the store that DATABASE_URL names. The one place that knows every engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from receiver.clock import AgreedClock, wall_clock
from receiver.condition import Role
from receiver.errors import CannotStart
from receiver.settings import Settings, listed
from receiver.store.commits import Notice
from receiver.store.seal import Seal
from receiver.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from receiver.store.postgres import PostgresStore
    from receiver.store.verbs.store import SqlStore


async def open_store(
    settings: Settings,
    notice: Notice,
    *,
    clock: AgreedClock | None = None,
    role: Role = Role.ALL,
    rebuild: bool = False,
) -> SqlStore:
    """The store, migrated. Raises CannotStart, SettingsRefused with what to change.

    `rebuild`: an SQLite file that can't shrink yet is rewritten. `role` is what others see of this
    process. The `clock` agrees with a server's from here on.
    """
    seal = Seal(listed(settings.encryption_keys))
    if settings.on_postgres:
        clock = clock or AgreedClock()
        return await _postgres().open(
            settings.database_url,
            clock=clock,
            notice=notice,
            seal=seal,
            role=role,
            agree=clock.agree,
        )
    return await SqliteStore.open(
        settings.database_path, clock=wall_clock, notice=notice, seal=seal, rebuild=rebuild
    )


def time_of(settings: Settings, agreed: AgreedClock) -> Callable[[], int]:
    """What a steady clock follows, in nanoseconds: the server's time, where there is one."""
    return agreed.ns if settings.on_postgres else time.time_ns


def check_role(settings: Settings, role: Role) -> None:
    """Raises CannotStart where the database is one process's alone."""
    if settings.on_postgres or role is Role.ALL:
        return
    what = "`reelhook worker`" if role is Role.WORKER else "`reelhook serve --no-worker`"
    raise CannotStart(
        f"{what} shares the database with other processes, and SQLite's is one process's alone:"
        " `reelhook serve` does the work of all of them. To run them apart, set DATABASE_URL to a"
        " PostgreSQL database (postgresql://…); `reelhook migrate-store` moves what there is.",
        role=role.value,
    )


def database_of(settings: Settings) -> str:
    """What a person calls the database; without a password."""
    if not settings.on_postgres:
        return str(settings.database_path)
    parts = urlsplit(settings.database_url)
    return f"PostgreSQL at {parts.netloc.rpartition('@')[2]}{parts.path}"


def _postgres() -> type[PostgresStore]:
    try:
        from receiver.store.postgres import PostgresStore
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise CannotStart(
            "DATABASE_URL names PostgreSQL, which needs asyncpg: pip install 'reelhook[postgres]'."
        ) from None
    return PostgresStore
