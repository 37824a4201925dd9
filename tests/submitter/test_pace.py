"""One rate over all questions, and a hold over all of them, in a time that passes when asked."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from submitter.pace import LONGEST_HOLD, LONGEST_PAUSE, Pace, pause_after
from tests.submitter.virtual import Time

pytestmark = pytest.mark.anyio


async def asking(pace: Pace, time: Time, count: int, times: list[float]) -> None:
    """Ask so often, and note when each turn came."""
    for _ in range(count):
        await pace.turn()
        times.append(time.now)


@pytest.mark.parametrize("pollers", [1, 2, 8])
async def test_many_ask_at_the_rate_of_one(pollers: int) -> None:
    time, times = Time(), list[float]()
    pace = Pace(4, clock=time, sleep=time.sleep)
    await time.pass_for(*(asking(pace, time, 24 // pollers, times) for _ in range(pollers)))
    assert len(times) == 24
    assert {round(after - before, 6) for before, after in pairwise(times)} == {0.25}


async def test_a_hold_stops_everybody_who_waits() -> None:
    time, times = Time(), list[float]()
    pace = Pace(1, clock=time, sleep=time.sleep)

    async def hold() -> None:
        await time.sleep(1.5)
        pace.hold(20)

    await time.pass_for(hold(), *(asking(pace, time, 1, times) for _ in range(4)))
    assert times == [0, 1, 21.5, 22.5]


async def test_whoever_has_no_patience_takes_no_turn() -> None:
    time = Time()
    pace = Pace(1, clock=time, sleep=time.sleep)
    pace.hold(10)
    assert not await pace.turn(9)
    assert time.now == 0
    await time.pass_for(pace.over_hold())
    assert (time.now, pace.held) == (10, 0)
    assert await pace.turn(0)
    assert not await pace.turn(0.5)


async def test_a_hold_has_an_end_whatever_the_platform_asks_for() -> None:
    time = Time()
    pace = Pace(1, clock=time, sleep=time.sleep)
    pace.note_trouble(10.0**9)
    assert pace.held == LONGEST_HOLD
    pace.hold(1)
    assert pace.held == LONGEST_HOLD


async def test_troubles_hold_ever_longer_until_an_answer() -> None:
    time = Time()
    pace = Pace(1, clock=time, sleep=time.sleep)
    holds = []
    for _ in range(8):
        for _answer in range(3):  # asked together, so one trouble
            pace.note_trouble(None)
        holds.append(pace.held)
        await time.pass_for(pace.over_hold())
    assert holds == [1, 2, 4, 8, 16, 32, 60, 60]
    pace.note_answer()
    pace.note_trouble(None)
    assert pace.held == 1


def test_pauses_grow_to_a_minute() -> None:
    assert [pause_after(count) for count in (1, 2, 3, 6, 7)] == [1, 2, 4, 32, 60]
    assert pause_after(10_000) == LONGEST_PAUSE


async def test_time_stands_still_for_who_does_not_wait() -> None:
    time = Time()
    await time.pass_for(asyncio.sleep(0))
    assert time.now == 0
