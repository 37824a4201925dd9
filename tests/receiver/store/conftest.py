"""What the tests of a store share: a PostgreSQL database that is empty, and two processes on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from receiver.store.postgres import PostgresStore
from tests.postgres import Server
from tests.receiver.store.processes import processes


@pytest.fixture
def url(postgres: Server) -> str:
    """A database that has this release's tables, and nothing in them."""
    return postgres.wiped()


@pytest.fixture
async def both(url: str) -> AsyncIterator[list[PostgresStore]]:
    """Two stores on it, as two processes would have."""
    async with processes(url) as stores:
        yield stores
