"""The feed, with the SQLite store, and how it looks for what comes next."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from receiver.store.migrate import migrate
from receiver.store.protocol import Store
from receiver.store.sqlite import SqliteStore, feed
from tests.doubles import Dice, FakeClock
from tests.receiver.store.feed_suite import FeedSuite
from tests.receiver.store.suite import Opener


class TestSqliteFeed(FeedSuite):
    """The behaviour that every store has."""

    @pytest.fixture
    def open_store(self, tmp_path: Path, clock: FakeClock) -> Opener:
        dice = Dice()

        async def open_it() -> Store:
            return await SqliteStore.open(tmp_path / "db", clock=clock, entropy=dice.bits)

        return open_it


def test_a_page_costs_what_it_holds_however_much_is_stored(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as connection:
        migrate(connection)
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {feed._TOLD}", [0] * 4)]
        assert "SEARCH events USING INTEGER PRIMARY KEY (rowid>?)" in plan
        assert any("resends USING" in step and "resends_by_place" in step for step in plan)
        ends = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {feed._NEWEST}")]
        tables = {"events", "resends", "e", "tasks", "t"}
        assert not {step.split()[1] for step in plan + ends if step.startswith("SCAN")} & tables
