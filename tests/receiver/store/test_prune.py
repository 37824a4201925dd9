"""What is dropped when it is old: the suite, and what only a file can do wrong."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from receiver.callbacks import Outcome
from receiver.clock import DAY, wall_clock
from receiver.keeping import Keep
from receiver.store.migrate import migrate
from receiver.store.protocol import Prune, Query, Store
from receiver.store.sqlite import SqliteStore
from receiver.store.writer import each
from tests.doubles import START, Dice, FakeClock
from tests.make import TASK, arrival, endpoint, settled, success, uuid
from tests.receiver.store.killing import acknowledged_before_a_kill
from tests.receiver.store.prune_suite import PruneSuite, drop
from tests.receiver.store.pruning import OLD_TASKS
from tests.receiver.store.suite import Opener, arrival_of, claim


class TestSqlitePrune(PruneSuite):
    """The behaviour that every store has."""

    @pytest.fixture
    def open_store(self, tmp_path: Path, clock: FakeClock) -> Opener:
        dice = Dice()

        async def open_it() -> Store:
            return await SqliteStore.open(tmp_path / "db", clock=clock, entropy=dice.bits)

        return open_it


OLD: Final = START - 400 * DAY
MANY: Final = 600


async def filled(store: SqliteStore, clock: FakeClock, count: int = MANY, then: int = OLD) -> None:
    """Old tasks with a delivered result each, big enough to see in the file; one is young."""
    clock.now = then
    await store.add_endpoint(endpoint(event_types=["result.*"], concurrency=1_000))
    await asyncio.gather(
        *[
            store.record(arrival_of(uuid(n), success(n, note="x" * 3_000), received_at=then))
            for n in range(count)
        ]
    )
    while claimed := await claim(store, then):
        await asyncio.gather(*[store.settle(settled(one, now=then)) for one in claimed])
    clock.now = then - OLD + START
    await store.record(arrival(success()))


def checkpointed(path: Path) -> int:
    """The file's size in bytes, with nothing left in the WAL. The store is closed."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    return path.stat().st_size


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.mark.anyio
async def test_the_file_shrinks_while_callbacks_come_in(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "db"
    async with await SqliteStore.open(path, clock=clock) as store:
        await filled(store, clock)
    before = checkpointed(path)
    async with await SqliteStore.open(path, clock=clock) as store:
        numbers, pruned = count(10_000), asyncio.Event()

        async def ingest() -> None:
            while not pruned.is_set():
                number = next(numbers)
                receipt = await store.record(arrival_of(uuid(number), success(number)))
                assert receipt.outcome is Outcome.RECORDED

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(ingest())
            found = await drop(store, START)
            await store.ready()  # the commit after the checkpoint that cuts the file
            after = path.stat().st_size  # the main file alone, as it is on disk at this moment
            pruned.set()
        assert (found["tasks"], found["deliveries"]) == (MANY, MANY)
        recorded = next(numbers)
        assert recorded > 10_004
        for number in range(10_000, recorded):
            assert (await store.task(uuid(number))).received == 1
    assert after < before / 3
    assert checkpointed(path) < before / 3


@pytest.mark.anyio
async def test_a_tenth_of_the_file_stays_free_for_what_comes_next(
    tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "db"
    async with await SqliteStore.open(path, clock=clock) as store:
        await filled(store, clock)
        clock.now = OLD + 100 * DAY  # the bodies and events go, the tasks stay
        await drop(store, clock())
    with closing(sqlite3.connect(path)) as connection:
        free = connection.execute("PRAGMA freelist_count").fetchone()[0]
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    assert 0 < free <= pages / 10


@pytest.mark.anyio
async def test_a_dry_run_gives_nothing_back(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "db"
    async with await SqliteStore.open(path, clock=clock) as store:
        await filled(store, clock)
        bounds, pages = Keep().bounds(START), pages_of(path)
        place: tuple[int, ...] | None = ()
        while place is not None and pages_of(path) == pages:
            place = (await store.prune(Prune(START, bounds, place))).place
        assert place is not None  # it has begun to shrink, and is not done
        pages = pages_of(path)
        step = await store.prune(Prune(START, bounds, place, dry_run=True))
        assert (step.counts, step.place, pages_of(path)) == ({}, None, pages)


@pytest.mark.anyio
async def test_a_file_of_an_earlier_release_shrinks_once_it_is_rebuilt(
    tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        migrate(connection)
    async with await SqliteStore.open(path, clock=clock) as store:
        await filled(store, clock)
        pages = pages_of(path)
        assert (await drop(store, START))["tasks"] == MANY
        assert pages_of(path) >= pages
    before = checkpointed(path)
    async with await SqliteStore.open(path, clock=clock, rebuild=True) as store:
        instance = store.instance
        assert (await store.task(TASK)).received == 1
    assert checkpointed(path) < before / 3
    async with await SqliteStore.open(path, clock=clock) as store:
        assert store.instance == instance
        await filled(store, clock, then=START)
        await drop(store, clock())
    assert checkpointed(path) < before / 3


def pages_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA page_count").fetchone()[0])


async def statements(
    store: SqliteStore, now: int, keep: Keep | None = None, *, dry_run: bool = False
) -> list[str]:
    """Every statement of one whole prune, as the writer ran it."""
    seen: list[str] = []
    await on_the_writer(store, lambda connection: connection.set_trace_callback(seen.append))
    await drop(store, now, keep, dry_run=dry_run)
    await on_the_writer(store, lambda connection: connection.set_trace_callback(None))
    return [sql for sql in seen if not sql.startswith(("BEGIN", "COMMIT"))]


async def plan_of(store: SqliteStore, sql: str) -> list[str]:
    """How SQLite finds the rows of a statement."""

    def explain(connection: sqlite3.Connection) -> list[str]:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]

    plan: list[str] = await on_the_writer(store, explain)
    return plan


async def on_the_writer(store: SqliteStore, do: Callable[[Any], Any]) -> Any:
    return await store._writer.call(each(lambda tx, _: do(tx.connection)), None)


@pytest.mark.anyio
async def test_every_statement_finds_its_rows_by_an_index(tmp_path: Path, clock: FakeClock) -> None:
    async with await SqliteStore.open(tmp_path / "db", clock=clock) as store:
        await filled(store, clock, 30)
        await store.record(arrival(task_id=None, unreadable="names_no_task", received_at=OLD))
        for dry_run in (True, False):
            seen = await statements(store, START + 400 * DAY, dry_run=dry_run)
            assert dry_run or any(sql.startswith("DELETE FROM callbacks") for sql in seen)
            for sql in seen:
                if sql.startswith("PRAGMA"):
                    continue
                assert [step for step in await plan_of(store, sql) if "SCAN" in step] == [], sql


@pytest.mark.anyio
async def test_when_nothing_is_too_old_a_prune_is_a_handful_of_look_ups(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with await SqliteStore.open(tmp_path / "db", clock=clock) as store:
        await filled(store, clock)
        keep = Keep(raw=30, events=0, tasks=0)  # bodies are dropped, their rows stay
        await drop(store, START, keep)
        changes = await on_the_writer(store, lambda connection: connection.total_changes)
        assert len(await statements(store, START, keep)) < 20
        assert await on_the_writer(store, lambda one: one.total_changes) == changes


@pytest.mark.process
@pytest.mark.anyio
async def test_a_kill_in_the_middle_of_a_prune_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "db"
    acknowledged = await acknowledged_before_a_kill("pruning", path, 100)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    old = Query(limit=OLD_TASKS, until=wall_clock() - 300 * DAY)
    async with await SqliteStore.open(path, clock=wall_clock) as store:
        left = (await store.callbacks(old)).data
        gone = [callback for callback in left if callback.body_dropped_at is not None]
        assert gone or len(left) < OLD_TASKS  # it was killed in the middle
        assert left
        await drop(store, wall_clock())
        assert (await store.tasks(old)).data == []
        for number in acknowledged:
            assert (await store.task(uuid(number))).received == 1
