"""Which store a proof is of: SQLite's file, or a database of its own on a real PostgreSQL.

Without a URL a private server is started from Debian's package, and ended with the proof.
"""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from scripts.proofs.postgres import Server, private

SQLITE: Final = "sqlite"
POSTGRES: Final = "postgres"


def add_options(parser: argparse.ArgumentParser) -> None:
    """`--store` and `--database-url`."""
    parser.add_argument("--store", choices=(SQLITE, POSTGRES), default=SQLITE)
    add_url(parser)


def add_url(parser: argparse.ArgumentParser) -> None:
    """`--database-url`."""
    parser.add_argument(
        "--database-url",
        help="of a PostgreSQL on which databases may be made; without it a private one is started",
    )


def is_strict(asked: argparse.Namespace) -> bool:
    """Whether a proof that can't be made here is one that failed."""
    return bool(asked.ci) or os.environ.get("REELHOOK_CI") == "1"


class Databases:
    """A PostgreSQL on which databases may be made. `server`: if it is our own."""

    def __init__(self, url: str, server: Server | None = None) -> None:
        self._url = url
        self.server = server

    async def make(self) -> str:
        """The URL of a database that has nothing in it."""
        name = f"reelhook_proof_{secrets.token_hex(6)}"
        await self._run(f'CREATE DATABASE "{name}"')
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{name}"))

    async def drop(self, url: str) -> None:
        """Drop one that was made, whoever is connected to it."""
        await self._run(f'DROP DATABASE "{urlsplit(url).path[1:]}" WITH (FORCE)')

    @asynccontextmanager
    async def one(self) -> AsyncIterator[str]:
        """The URL of an empty database, while inside."""
        url = await self.make()
        try:
            yield url
        finally:
            await self.drop(url)

    async def _run(self, sql: str) -> None:
        raw = await asyncpg.connect(self._url)
        try:
            await raw.execute(sql)
        finally:
            await raw.close()


@asynccontextmanager
async def databases(url: str | None, *, on_disk: bool) -> AsyncIterator[Databases]:
    """Somebody's server, or a private one. Raises NotInstalled."""
    async with AsyncExitStack() as stack:
        if url is not None:
            yield Databases(url)
            return
        server = stack.enter_context(private(on_disk=on_disk))
        yield Databases(server.url(), server)


@asynccontextmanager
async def chosen(asked: argparse.Namespace) -> AsyncIterator[Databases | None]:
    """What `--store` and `--database-url` say; None: SQLite. Raises NotInstalled."""
    if asked.store == SQLITE:
        yield None
        return
    async with databases(asked.database_url, on_disk=not asked.ci) as found:
        yield found


@asynccontextmanager
async def one_of(found: Databases | None) -> AsyncIterator[dict[str, str]]:
    """The settings of a receiver whose store is fresh."""
    if found is None:
        yield {}
        return
    async with found.one() as url:
        yield {"DATABASE_URL": url}
