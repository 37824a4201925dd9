"""Endpoints that fare badly, with the SQLite store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from receiver.store.protocol import Store
from receiver.store.sqlite import SqliteStore
from tests.doubles import START, Dice, FakeClock, sent
from tests.receiver.store.flow_suite import FlowSuite, attempt
from tests.receiver.store.suite import Opener, queued


class TestSqliteFlow(FlowSuite):
    """The behaviour that every store has."""

    @pytest.fixture
    def open_store(self, tmp_path: Path, clock: FakeClock) -> Opener:
        dice = Dice()

        async def open_it() -> Store:
            return await SqliteStore.open(tmp_path / "db", clock=clock, entropy=dice.bits)

        return open_it

    async def test_how_a_deleted_endpoint_fared_is_forgotten(
        self, store: Store, tmp_path: Path
    ) -> None:
        added = await queued(store)
        await attempt(store, sent(500), START)
        await store.delete_endpoint(added.id, START)
        with closing(sqlite3.connect(tmp_path / "db")) as connection:
            assert connection.execute("SELECT count(*) FROM endpoint_health").fetchone() == (0,)
