"""What tasks cost, with the SQLite store, and how it looks for it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from receiver.costs import Grouping
from receiver.store.migrate import migrate
from receiver.store.protocol import Query, Store
from receiver.store.sqlite import SqliteStore
from receiver.store.verbs import costs
from tests.doubles import Dice, FakeClock
from tests.receiver.store.costs_suite import CostsSuite
from tests.receiver.store.suite import Opener


class TestSqliteCosts(CostsSuite):
    """The behaviour that every store has."""

    @pytest.fixture
    def open_store(self, tmp_path: Path, clock: FakeClock) -> Opener:
        dice = Dice()

        async def open_it() -> Store:
            return await SqliteStore.open(tmp_path / "db", clock=clock, entropy=dice.bits)

        return open_it


def plan_of(path: Path, statement: costs.Statement) -> list[str]:
    """What SQLite does for a statement, step by step."""
    with closing(sqlite3.connect(path)) as connection:
        migrate(connection)
        sql, values = statement
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


def test_a_page_of_tasks_is_read_from_its_place_and_sorts_nothing(tmp_path: Path) -> None:
    query = Query(before=(7,), project="film", since=1)
    plan = plan_of(tmp_path / "db", costs.page_of(Grouping.read("task"), query))
    assert any(step.startswith("SEARCH t USING INDEX tasks_by_project") for step in plan)
    assert any(step.startswith("SEARCH r USING PRIMARY KEY") for step in plan)
    assert [step for step in plan if "TEMP B-TREE" in step] == []


@pytest.mark.parametrize("by", ["model", "tag:team", "project", "platform"])
def test_of_a_million_results_only_their_groups_are_sorted(tmp_path: Path, by: str) -> None:
    plan = plan_of(tmp_path / "db", costs.page_of(Grouping.read(by), Query()))
    inner = plan[: plan.index("SCAN each_task")]
    assert any(step.startswith("SEARCH r USING PRIMARY KEY") for step in inner)
    assert [step for step in inner if "TEMP B-TREE" in step] == []
