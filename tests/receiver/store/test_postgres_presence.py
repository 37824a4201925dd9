"""Real processes that share a PostgreSQL. One is killed: its neighbours see it at once.

The clock of one is wrong: it goes by the server's.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest

from receiver.clock import HOUR, SECOND, AgreedClock, SteadyClock
from receiver.doctor import server as doctor
from receiver.doctor.findings import Level
from receiver.store.postgres import PostgresStore
from receiver.store.postgres.survey import survey
from receiver.whereabouts import NOBODY
from tests.doubles import START, FakeClock
from tests.receiver.store.claiming import claimer
from tests.receiver.store.processes import ask, gated, lost, process, processes, waiting
from tests.receiver.store.suite import claim, queued

pytestmark = pytest.mark.anyio


async def buried(store: PostgresStore) -> int:
    """What a store takes over by now, however often it beats. No time has passed."""
    await store.beat()
    return await store.release_lapsed(START)


async def test_what_a_killed_neighbour_had_is_its_successors_at_once(url: str) -> None:
    async with processes(url, 1) as (early,):
        await queued(early, 3, concurrency=3)
        async with claimer(url) as (killed, count):
            assert (count, await buried(early)) == (3, 0)
            killed.kill()
            await killed.wait()
            async with processes(url, 1) as (successor,):
                assert await successor.release_lapsed(START) == 3
                assert len(await claim(successor)) == 3
            assert await buried(early) == 0
            ((left,),) = await ask(url, "SELECT count(*) FROM processes")
            assert left == 1


ELSEWHERE = (
    "machine = NULL, born = NULL",  # of the release before
    "machine = replace(machine, 'pid:', 'pid:4')",  # in a container: the pid is one of others
    "machine = replace(machine, '-', '+')",  # on another machine
    "host = host || '2'",
)


async def test_who_may_run_elsewhere_is_waited_for(url: str) -> None:
    async with processes(url, 1) as (store,):
        await queued(store, 1)
        async with claimer(url) as (killed, _):
            killed.kill()
            await killed.wait()
        await ask(url, f"CREATE TABLE kept AS SELECT * FROM processes WHERE pid = {killed.pid}")
        for change in ELSEWHERE:
            await ask(url, "DELETE FROM processes WHERE id = (SELECT id FROM kept)")
            await ask(url, "INSERT INTO processes SELECT * FROM kept")
            await ask(url, f"UPDATE processes SET {change} WHERE pid = {killed.pid}")
            assert await buried(store) == 0
        await ask(url, "DROP TABLE kept")


async def test_what_was_being_leased_when_it_was_killed_is_not_left_behind(url: str) -> None:
    """Its COMMIT may be under way: whoever buries it first lets that come home."""
    async with processes(url, 1) as (successor,):
        await queued(successor, 1)
        killed = await process(url, FakeClock(), 3)
        with gated(killed) as gate:
            leasing = asyncio.create_task(claim(killed))
            await gate.reached()
            await successor.beat()
            successor._presence._born = lambda pid: NOBODY
            burying = asyncio.create_task(successor.release_lapsed(START))
            await waiting(url)
            gate.open()
            assert len(await leasing) == 1
            assert await burying == 1
        await lost(killed)


async def test_the_living_are_never_buried(url: str) -> None:
    """Not a neighbour, and not who has the same number since it is the same process."""
    async with processes(url, 2) as stores:
        await queued(stores[0], 4, concurrency=4)
        async with claimer(url) as (_, count):
            assert count == 4
            for _ in range(3):
                assert [await buried(store) for store in stores] == [0, 0]
    for store in stores:
        assert store._presence._here.machine is not None, "nobody could be buried here"


def time_after(seconds: int) -> int:
    """What a clock shows that is ahead by so much, in nanoseconds."""
    return time.time_ns() + seconds * 10**9


@pytest.mark.parametrize("by", [2 * HOUR, -2 * HOUR])
async def test_leases_are_as_long_for_who_has_the_wrong_time(url: str, by: int) -> None:
    wrong, right = AgreedClock(partial(time_after, by // SECOND)), AgreedClock()
    stores = [
        await PostgresStore.open(url, clock=clock, agree=clock.agree) for clock in (wrong, right)
    ]
    clocks = SteadyClock(wrong.ns), SteadyClock(right.ns)
    try:
        await queued(stores[0], 2, concurrency=2)
        for store, clock in zip(stores, clocks, strict=True):
            now = clock()
            assert len(await store.claim(now=now, lease_until=now + HOUR, limit=1)) == 1
        for store, clock in zip(stores, clocks, strict=True):
            assert await store.release_lapsed(clock()) == 0
            assert len((await store.condition()).processes or ()) == 2
    finally:
        for store in stores:
            await store.close()


async def test_the_doctor_says_when_the_servers_time_is_another(url: str) -> None:
    for seconds, said in (
        (0, "the same time as this machine"),
        (60, "clock is 60 s ahead of that of the database's server"),
        (-60, "clock is 60 s behind that of the database's server"),
    ):
        found = await survey(url, partial(time_after, seconds))
        (finding,) = [one for one in doctor.told(found) if one.check == "database clock"]
        assert said in finding.text
        assert finding.level == (Level.WARNING if seconds else Level.OK)
