"""When retention works, and what it says: the ticks, under a clock that is told the time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from receiver.clock import DAY, HOUR, MINUTE, SECOND
from receiver.errors import StoreUnavailable
from receiver.keeping import Bounds, Keep
from receiver.retention import JUMP, LOOK, REST, ROUND, STEADY, Retention
from receiver.store.protocol import Prune, PruneStep, Query
from receiver.store.sqlite import SqliteStore
from tests.doubles import START, FakeClock
from tests.make import success, uuid
from tests.receiver.store.suite import arrival_of

pytestmark = pytest.mark.anyio

YEARS = 400 * DAY


@dataclass
class Spy:
    """A store that keeps what it was asked, and whose disk is full for a moment."""

    store: SqliteStore
    fails_at: int = 0
    asked: list[Prune] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        return sum(asked.place == () for asked in self.asked)

    async def prune(self, asked: Prune) -> PruneStep:
        self.asked.append(asked)
        if len(self.asked) == self.fails_at:
            raise StoreUnavailable
        return await self.store.prune(asked)


@dataclass
class Scene:
    """Retention over a real store, the clock, and what was told."""

    retention: Retention
    store: SqliteStore
    clock: FakeClock
    told: list[Mapping[str, int]]
    rests: list[float]

    async def run_for(self, ms: int) -> int:
        """So long, looking once a minute as the loop does; how many ticks were busy."""
        busy = 0
        for _ in range(ms // MINUTE):
            self.clock.advance(MINUTE)
            while await self.retention.tick():
                busy += 1
        return busy

    def replace_store(self, spy: Spy) -> Spy:
        self.retention._store = spy  # type: ignore[assignment]
        return spy

    async def left(self) -> int:
        return len((await self.store.tasks(Query(limit=200))).data)


@asynccontextmanager
async def scene(path: Path, tasks: int = 50, keep: Keep | None = None) -> AsyncIterator[Scene]:
    """A store with tasks of long ago, and retention that has just started."""
    clock = FakeClock(START - YEARS)
    async with await SqliteStore.open(path, clock=clock) as store:
        arrivals = [arrival_of(uuid(n), success(n), received_at=clock()) for n in range(tasks)]
        await asyncio.gather(*[store.record(arrival) for arrival in arrivals])
        clock.now = START
        told: list[Mapping[str, int]] = []
        rests: list[float] = []

        async def rest(seconds: float) -> None:
            rests.append(seconds)
            clock.advance(round(seconds * SECOND))

        retention = Retention(
            store,
            clock=clock,
            keep=keep or Keep(),
            journal=told.append,
            rest=rest,
            timer=lambda: 0.0,  # however long it takes, unless a test has its own
        )
        yield Scene(retention, store, clock, told, rests)


def test_bounds_are_days_before_now() -> None:
    bounds = Keep(raw=30, events=90, tasks=365).bounds(START)
    assert (bounds.bodies, bounds.attempts) == (START - 30 * DAY, START - 30 * DAY)
    assert bounds.events == START - 90 * DAY
    assert START - 366 * DAY < bounds.tasks < START - 365 * DAY


def test_no_attempt_outlives_its_delivery() -> None:
    assert Keep(raw=0, events=90).bounds(START).attempts == START - 90 * DAY
    assert Keep(raw=100, events=90).bounds(START).attempts == START - 90 * DAY


def test_zero_is_no_bound_and_no_bound_lies_before_1970() -> None:
    assert Keep(0, 0, 0).bounds(START) == Bounds()
    assert Keep(1, 1, 1).bounds(HOUR) == Bounds()


async def test_it_waits_until_the_clock_has_run_evenly_for_an_hour(tmp_path: Path) -> None:
    async with scene(tmp_path / "db") as at:
        assert not await at.retention.tick()
        assert await at.run_for(STEADY - MINUTE) == 0
        assert await at.left() == 50
        assert await at.run_for(MINUTE) > 0
        assert await at.left() == 1  # that of the newest event


@pytest.mark.parametrize("jump", [JUMP + 1, YEARS, -1, -YEARS])
async def test_after_a_jump_of_the_clock_it_waits_again(tmp_path: Path, jump: int) -> None:
    async with scene(tmp_path / "db") as at:
        await at.retention.tick()
        await at.run_for(STEADY - MINUTE)
        at.clock.advance(jump)
        assert not await at.retention.tick()
        assert await at.run_for(STEADY - MINUTE) == 0
        assert await at.left() == 50


async def test_a_clock_that_is_ahead_for_a_while_costs_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path / "db", keep=Keep(0, 900, 900)) as at:
        await at.retention.tick()
        await at.run_for(2 * STEADY)
        for jump in (YEARS * 3, -YEARS * 3):
            at.clock.advance(jump)
            await at.run_for(STEADY - MINUTE)
        await at.run_for(2 * STEADY)
        assert await at.left() == 50


async def test_a_round_of_a_wrong_clock_puts_off_no_other(tmp_path: Path) -> None:
    async with scene(tmp_path / "db") as at:
        at.clock.advance(YEARS)
        await at.retention.tick()
        await at.run_for(STEADY)
        at.clock.advance(-YEARS)
        spy = at.replace_store(Spy(at.store))
        await at.run_for(STEADY + MINUTE)
        assert spy.rounds == 1


async def test_rounds_are_hours_apart(tmp_path: Path) -> None:
    async with scene(tmp_path / "db") as at:
        await at.retention.tick()
        await at.run_for(STEADY)
        spy = at.replace_store(Spy(at.store))
        await at.run_for(ROUND - MINUTE)
        assert spy.asked == []
        await at.run_for(3 * ROUND)
        assert spy.rounds == 3


async def test_what_went_is_told_once_at_the_end(tmp_path: Path) -> None:
    async with scene(tmp_path / "db") as at:
        await at.retention.tick()
        await at.run_for(STEADY + 2 * ROUND)
        (told,) = at.told
        assert (told["bodies"], told["events"], told["tasks"]) == (50, 99, 49)


async def test_a_long_round_is_told_of_once_a_minute(tmp_path: Path) -> None:
    async with scene(tmp_path / "db", tasks=600) as at:
        await at.retention.tick()
        await at.run_for(STEADY - MINUTE)
        at.clock.advance(MINUTE)
        steps = 1
        while await at.retention.tick():
            at.clock.advance(MINUTE // 2)
            steps += 1
        assert 2 < len(at.told) <= steps // 2 + 1
        assert sum(told.get("tasks", 0) for told in at.told) == 599


async def test_it_goes_on_where_it_was_when_the_store_is_back(tmp_path: Path) -> None:
    async with scene(tmp_path / "db", tasks=600) as at:
        spy = at.replace_store(Spy(at.store, fails_at=2))
        await at.retention.tick()
        await at.run_for(STEADY - MINUTE)
        at.clock.advance(MINUTE)
        assert await at.retention.tick()
        with pytest.raises(StoreUnavailable):
            await at.retention.tick()
        assert await at.retention.tick()
        assert spy.asked[2].place == spy.asked[1].place != ()
        assert spy.asked[2].bounds == spy.asked[0].bounds


async def test_the_loop_looks_once_a_minute_and_rests_longer_than_it_works(tmp_path: Path) -> None:
    async with scene(tmp_path / "db", tasks=600) as at:
        at.replace_store(Spy(at.store, fails_at=8))
        at.retention._timer = ticking()
        with pytest.raises(StoreUnavailable):
            await at.retention.run()
        looks = STEADY // MINUTE
        assert at.rests == [LOOK] * looks + [REST * 1.0] * 7


async def test_by_hand_a_call_takes_a_few_seconds(tmp_path: Path) -> None:
    async with scene(tmp_path / "db", tasks=600) as at:
        at.retention._timer = ticking()
        pruned, place = await at.retention.by_hand((), dry_run=False)
        assert (pruned.dry_run, pruned.bodies > 0) == (False, True)
        total, calls = pruned.tasks, 1
        while place is not None:
            pruned, place = await at.retention.by_hand(place, dry_run=False)
            total, calls = total + pruned.tasks, calls + 1
        assert (total, await at.left(), calls > 2) == (599, 1, True)
        assert min(at.rests) > REST


def ticking() -> Callable[[], float]:
    """A timer on which each look costs a second."""
    seconds = count()
    return lambda: float(next(seconds))


async def test_by_hand_it_goes_on_to_the_end(tmp_path: Path) -> None:
    async with scene(tmp_path / "db") as at:
        counted, place = await at.retention.by_hand((), dry_run=True)
        assert (counted.tasks, counted.dry_run, place) == (49, True, None)
        assert at.told == []
        dropped, place = await at.retention.by_hand((), dry_run=False)
        assert (dropped.tasks, dropped.dry_run, place) == (49, False, None)
        assert [told["tasks"] for told in at.told] == [49]
        assert await at.left() == 1
