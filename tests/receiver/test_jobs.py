"""The jobs' flow, tick by tick, over a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import StoreUnavailable
from receiver.jobs import LEAST_REST, LOOK, Jobs
from receiver.repair import JOB_MOVES, Job, JobMove, JobState
from receiver.store.sqlite import SqliteStore
from tests.doubles import START, FakeClock
from tests.receiver.store.jobs_suite import begin, repair
from tests.receiver.store.repair_suite import die
from tests.receiver.store.suite import queued

pytestmark = pytest.mark.anyio


class Enough(Exception):
    """Ends a loop."""


@dataclass
class Bench:
    """Jobs that only move when told."""

    store: SqliteStore
    clock: FakeClock
    over: list[Job] = field(default_factory=list)
    rests: list[float] = field(default_factory=list)

    def jobs(self, **options: Any) -> Jobs:
        return Jobs(self.store, clock=self.clock, journal=self.over.append, **options)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock = FakeClock()
    async with await SqliteStore.open(tmp_path / "db", clock=clock) as store:
        yield Bench(store, clock)


async def test_nothing_to_do_is_done_quietly(bench: Bench) -> None:
    assert await bench.jobs().tick() is None
    assert bench.over == []


async def test_a_job_is_done_step_by_step_and_told_once(bench: Bench) -> None:
    await queued(bench.store, 3)
    await die(bench.store)
    await begin(bench.store, repair(), bench.clock.advance(1))
    jobs = bench.jobs()
    step = await jobs.tick()
    assert step is not None
    assert (step.taken, step.job.state) == (3, JobState.DONE)
    assert await jobs.tick() is None
    assert [job.done for job in bench.over] == [3]


async def test_it_rests_after_a_step_and_looks_again_after_a_while(bench: Bench) -> None:
    """Others write meanwhile: four times as long as a step took."""
    await begin(bench.store, repair())
    times = iter([0.0, 2.0, 2.0, 2.5])

    async def rest(seconds: float) -> None:
        bench.rests.append(seconds)
        if len(bench.rests) == 2:
            raise Enough

    with pytest.raises(Enough):
        await bench.jobs(rest=rest, timer=lambda: next(times)).run()
    assert bench.rests == [8.0, LOOK]


async def test_the_shortest_rest_is_no_spin(bench: Bench) -> None:
    await begin(bench.store, repair())

    async def rest(seconds: float) -> None:
        bench.rests.append(seconds)
        raise Enough

    with pytest.raises(Enough):
        await bench.jobs(rest=rest, timer=lambda: 0.0).run()
    assert bench.rests == [LEAST_REST]


async def test_a_defect_ends_the_job_and_is_raised(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await begin(bench.store, repair())

    async def broken(_job: str, _now: int) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(bench.store, "advance_job", broken)
    jobs = bench.jobs()
    with pytest.raises(ZeroDivisionError):
        await jobs.tick()
    failed = await bench.store.job(job.id)
    assert failed.state is JobState.FAILED
    assert "ZeroDivisionError" in (failed.note or "")
    assert bench.over == [failed]
    assert await jobs.tick() is None


async def test_a_store_that_is_away_fails_no_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await begin(bench.store, repair())

    async def away(_job: str, _now: int) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "advance_job", away)
        with pytest.raises(StoreUnavailable):
            await bench.jobs().tick()
    assert (await bench.store.job(job.id)).state is JobState.QUEUED
    assert await bench.jobs().tick() is not None


async def test_a_job_that_was_canceled_while_it_met_a_defect_stays_canceled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await begin(bench.store, repair())

    async def broken(job_id: str, now: int) -> None:
        await bench.store.cancel_job(job_id, now)
        raise ZeroDivisionError

    monkeypatch.setattr(bench.store, "advance_job", broken)
    with pytest.raises(ZeroDivisionError):
        await bench.jobs().tick()
    assert (await bench.store.job(job.id)).state is JobState.CANCELED


async def test_a_stop_in_the_middle_leaves_the_job_to_the_next_start(bench: Bench) -> None:
    job = await begin(bench.store, repair(), START)
    running = asyncio.create_task(bench.jobs().run())
    while (await bench.store.job(job.id)).state is not JobState.DONE:  # noqa: ASYNC110
        await asyncio.sleep(0)
    running.cancel()
    assert isinstance((await asyncio.gather(running, return_exceptions=True))[0], BaseException)


def test_the_table_of_jobs_is_the_one_that_was_agreed() -> None:
    open_states = {JobState.QUEUED, JobState.RUNNING}
    assert {state for state, _ in JOB_MOVES} == open_states
    assert {move for _, move in JOB_MOVES} == set(JobMove)
    assert set(JOB_MOVES.values()) | {JobState.QUEUED} == set(JobState)
