"""The feed, with the SQLite store, and how it looks for what comes next."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from receiver import ids
from receiver.clock import DAY
from receiver.store.migrate import migrate
from receiver.store.protocol import Query, Replay, Store
from receiver.store.sqlite import SqliteStore
from receiver.store.verbs import feed, lists
from tests.doubles import Dice, FakeClock
from tests.receiver.store.feed_suite import FeedSuite, some_events
from tests.receiver.store.prune_suite import drop
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


@pytest.mark.parametrize("asked", ["task.overdue", "endpoint.*,delivery.*", "task.revised"])
@pytest.mark.parametrize("before", [None, (1_000,)])
def test_the_few_are_found_without_reading_the_many(
    tmp_path: Path, asked: str, before: tuple[int, ...] | None
) -> None:
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as connection:
        migrate(connection)
        sql, values = lists.events_of(Query(event_type=asked, before=before))
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
        assert "events_rare (type=?" in plan[0]
        assert "SCAN" not in " ".join(plan)


@pytest.mark.anyio
async def test_nothing_is_left_of_what_was_resent_once_it_is_dropped(tmp_path: Path) -> None:
    clock = FakeClock()
    async with await SqliteStore.open(tmp_path / "db", clock=clock) as store:
        first, last = await some_events(store, 2)
        for event in (first, last, first):
            await store.replay(Replay(event, clock()))
        await drop(store, clock.advance(100 * DAY))
        rows = await store._reads.rows("SELECT event_id FROM resends")
    assert [row[0] for row in rows] == [ids.parse(ids.EVENT, last)]
