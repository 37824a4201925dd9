"""The tick that flags overdue tasks and gives up on the hopeless ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver import deadlines
from receiver.store.sqlite import SqliteStore
from tests.doubles import START, FakeClock
from tests.make import TASK, registration, uuid


@pytest.mark.anyio
async def test_a_tick_does_what_is_due_now_and_does_it_once(tmp_path: Path) -> None:
    clock = FakeClock()
    async with await SqliteStore.open(tmp_path / "db", clock=clock) as store:
        await store.register(registration(deadline_at=START + 10, give_up_at=START + 20))
        assert await deadlines.tick(store, clock) == (0, 0)
        clock.advance(10)
        assert await deadlines.tick(store, clock) == (1, 0)
        assert await deadlines.tick(store, clock) == (0, 0)
        clock.advance(10)
        assert await deadlines.tick(store, clock) == (0, 1)
        assert await deadlines.tick(store, clock) == (0, 0)
        task = await store.task(TASK)
        assert (task.overdue, task.status) == (True, "failed")


@pytest.mark.anyio
async def test_a_receiver_that_was_away_catches_up_in_ticks(tmp_path: Path) -> None:
    clock = FakeClock()
    async with await SqliteStore.open(tmp_path / "db", clock=clock) as store:
        for number in range(510):
            await store.register(registration(uuid(number), deadline_at=START, give_up_at=START))
        overdue, given_up = 0, 0
        for _ in range(3):
            one, other = await deadlines.tick(store, clock)
            overdue, given_up = overdue + one, given_up + other
        assert given_up == 510
        assert overdue >= 500
