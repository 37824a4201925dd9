"""Figures, with the SQLite store: the suite, and that no statement reads everything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from receiver.errors import StoreFull
from receiver.store.protocol import OverviewAsked, Store
from receiver.store.sqlite import SqliteStore
from receiver.store.verbs import figures
from tests.doubles import START, Dice, FakeClock
from tests.make import arrival, failure, registration, success, uuid
from tests.receiver.store.figures_suite import FiguresSuite, overview, report, whole
from tests.receiver.store.suite import Opener, arrival_of, queued


class TestSqliteFigures(FiguresSuite):
    """The behaviour that every store has."""

    @pytest.fixture
    def open_store(self, tmp_path: Path, clock: FakeClock) -> Opener:
        dice = Dice()

        async def open_it() -> Store:
            return await SqliteStore.open(tmp_path / "db", clock=clock, entropy=dice.bits)

        return open_it


@pytest.mark.anyio
async def test_a_figure_stops_at_its_bound_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "BOUND", 3)
    async with await SqliteStore.open(tmp_path / "db", clock=FakeClock()) as store:
        added = await queued(store, 5)
        for number in range(50, 55):
            await store.register(registration(uuid(number)))
            await store.record(arrival(body=b"{", task_id=uuid(number + 10)))
        found = await overview(store)
        assert (found.tasks.open.count, found.tasks.open.complete) == (3, False)
        assert (found.queue.waiting.count, found.queue.waiting.complete) == (3, False)
        assert (found.attention.quarantined.count, found.attention.quarantined.complete) == (
            3,
            False,
        )
        assert found.cost_today.complete is False
        assert found.results.succeeded == 4  # the fourth says that there may be more
        assert (await report(store, added.id)).waiting.complete is False


@pytest.mark.anyio
async def test_a_rate_over_a_part_of_the_hour_says_since_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "BOUND", 2)
    clock = FakeClock()
    async with await SqliteStore.open(tmp_path / "db", clock=clock) as store:
        for number in range(1, 4):
            now = clock.advance(1_000)
            await store.record(arrival_of(uuid(number), failure(), expected=9, received_at=now))
        found = await overview(store, clock.now)
        assert found.results.since == found.callbacks.since
        assert found.results.since.timestamp() * 1_000 == START + 1_000
        await store.record(arrival(success(), received_at=clock.advance(1)))
        found = await overview(store, clock.now)  # the third event is the task's completion
        assert found.results.success_rate == pytest.approx(1 / 2)


@pytest.mark.anyio
async def test_no_statement_reads_a_whole_table(tmp_path: Path) -> None:
    """SCAN is a walk: of an index in its order, of endpoints, or of what was bounded before."""
    async with await SqliteStore.open(tmp_path / "db", clock=FakeClock()) as store:
        statements = [
            text.replace("{outcome}", "conflict")
            for name, text in vars(figures).items()
            if re.fullmatch(r"_[A-Z_]+", name)
            and isinstance(text, str)
            and text.startswith("SELECT")
        ]
        of = figures._Asked(START, "film")
        plans = []
        for sql in statements:
            if ":" in sql and "{" not in sql:
                plan = await store._reads.rows(f"EXPLAIN QUERY PLAN {sql}", of.values())
                plans += [row["detail"] for row in plan]
        assert len(plans) > 20
        bare = [line for line in plans if line.startswith("SCAN") and "USING" not in line]
        allowed = re.compile(r"SCAN (e|c|bounded|\(subquery-\d+\)|\(join-\d+\))( |$)")
        assert [line for line in bare if not allowed.match(line)] == []


@pytest.mark.anyio
async def test_a_full_disk_is_told(tmp_path: Path) -> None:
    async with await SqliteStore.open(
        tmp_path / "db", clock=FakeClock(), least_free=1 << 60
    ) as store:
        refusal = (await store.condition()).refusal
        assert refusal is not None
        assert "MiB are left" in refusal
        with pytest.raises(StoreFull):
            store.admit()
        assert (await store.overview(OverviewAsked(START))).tasks.open == whole(0)
