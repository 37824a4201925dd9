"""Repair, with the SQLite store, and how it looks for what is broken."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from receiver.clock import SECOND
from receiver.store.migrate import migrate
from receiver.store.protocol import Query, Store
from receiver.store.sqlite import SqliteStore
from receiver.store.verbs import dead, jobs
from tests.doubles import Dice, FakeClock
from tests.receiver.store.jobs_suite import JobsSuite, begin, repair
from tests.receiver.store.operations_suite import OperationsSuite
from tests.receiver.store.repair_suite import RepairSuite
from tests.receiver.store.suite import Opener


class TestSqliteRepair(RepairSuite):
    """The behaviour that every store has."""

    @pytest.fixture
    def open_store(self, tmp_path: Path, clock: FakeClock) -> Opener:
        dice = Dice()

        async def open_it() -> Store:
            return await SqliteStore.open(tmp_path / "db", clock=clock, entropy=dice.bits)

        return open_it


class TestSqliteJobs(JobsSuite):
    """The behaviour that every store has."""

    @pytest.fixture
    def open_store(self, tmp_path: Path, clock: FakeClock) -> Opener:
        dice = Dice()

        async def open_it() -> Store:
            return await SqliteStore.open(tmp_path / "db", clock=clock, entropy=dice.bits)

        return open_it

    async def test_of_jobs_that_are_over_the_latest_are_kept(
        self, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(jobs, "KEPT", 2)
        made = []
        for number in range(5):
            made.append((await begin(store, repair(limit=number + 1))).id)
            if number != 1:
                await store.advance_job(made[-1], clock.advance(SECOND))
        kept = [job.id for job in (await store.jobs(Query())).data]
        assert kept == [made[4], made[3], made[1]]  # the last of them is still open


class TestSqliteOperations(OperationsSuite):
    """The behaviour that every store has."""

    @pytest.fixture
    def open_store(self, tmp_path: Path, clock: FakeClock) -> Opener:
        dice = Dice()

        async def open_it() -> Store:
            return await SqliteStore.open(tmp_path / "db", clock=clock, entropy=dice.bits)

        return open_it


def test_a_million_dead_letters_are_counted_off_an_index_and_not_sorted(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "db")) as connection:
        migrate(connection)
        sql, values = dead.page_of(Query(project="film", since=1, before=(7, 7, 7)))
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    inner = plan[: plan.index("SCAN g")]
    assert any("deliveries_dead_by_cause" in step for step in inner)
    assert [step for step in inner if "TEMP B-TREE" in step] == []
