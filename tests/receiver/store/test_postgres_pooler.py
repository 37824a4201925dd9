"""The PostgreSQL store behind PgBouncer, where each transaction has another session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from receiver.callbacks import Outcome
from receiver.clock import SECOND
from receiver.feed import START as BEGINNING
from receiver.store.connection import Held
from receiver.store.postgres import PostgresStore
from receiver.store.postgres.connection import asked_whether_pooled
from receiver.store.protocol import Query, Store
from tests.doubles import START, Dice, FakeClock
from tests.make import arrival, endpoint, registration, settled, success, uuid
from tests.pooler import pooling
from tests.postgres import Server
from tests.receiver.store.feed_suite import FeedSuite
from tests.receiver.store.processes import LIMIT_S, holding, intruder, processes, waiting
from tests.receiver.store.suite import Opener, arrival_of, claim, states, types

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def pooler(postgres: Server) -> Iterator[int]:
    with pooling(postgres) as port:
        yield port


@pytest.fixture
def url(postgres: Server, pooler: int) -> str:
    """Where the pooler is, with a database that has nothing in it."""
    return postgres.wiped().replace(f":{postgres.port}/", f":{pooler}/")


class _Pooled:
    @pytest.fixture
    def open_store(self, url: str, clock: FakeClock) -> Opener:
        dice = Dice()

        async def open_it() -> Store:
            return await PostgresStore.open(url, clock=clock, entropy=dice.bits)

        return open_it


class TestPooledFeed(_Pooled, FeedSuite):
    """The behaviour that every store has: statements of every kind."""


async def test_a_pooler_is_noticed(url: str, postgres: Server) -> None:
    assert await asked_whether_pooled(url)
    assert not await asked_whether_pooled(postgres.url())


async def test_all_that_a_receiver_does_works_behind_it(url: str) -> None:
    """Many clients on few sessions: no statement meets the session of another one's."""
    async with processes(url, 4) as stores:
        added = await stores[0].add_endpoint(endpoint(concurrency=50, rate_limit=1_000))
        over = asyncio.Event()

        async def read(store_number: int) -> None:
            store = stores[store_number % 4]
            while not over.is_set():
                await asyncio.gather(
                    store.tasks(Query(limit=200)),
                    store.events(Query(limit=3)),
                    store.endpoint(added.id),
                    store.condition(),
                    store.told(BEGINNING),
                    store.next_due(),
                )

        async def write(number: int) -> None:
            store = stores[number % 4]
            await store.register(registration(uuid(number), expected=2))
            for n in range(2):
                told = await store.record(arrival_of(uuid(number), success(n), expected=2))
                assert told.outcome is Outcome.RECORDED
            for claimed in await store.claim(
                now=START + number, lease_until=START + 60 * SECOND, limit=5
            ):
                await store.settle(settled(claimed))

        reading = [asyncio.create_task(read(n)) for n in range(8)]
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*[write(number) for number in range(40)])
        over.set()
        await asyncio.gather(*reading)
        assert (await types(stores[0])).count("task.completed") == 40
        while claims := await claim(stores[1], START + SECOND, limit=200):
            await asyncio.gather(*[stores[2].settle(settled(claimed)) for claimed in claims])
        assert set(await states(stores[3])) == {"succeeded"}


async def test_what_one_alone_may_do_is_held_through_it(url: str, postgres: Server) -> None:
    """Advisory locks are the transaction's, whichever session that is."""
    async with processes(url, 2) as (a, b), intruder(url, holding(Held.EVENTS)):
        direct = url.rpartition("@")[0] + f"@127.0.0.1:{postgres.port}/" + url.rpartition("/")[2]
        recording = [
            asyncio.create_task(store.record(arrival_of(uuid(n), success(n))))
            for n, store in enumerate((a, b))
        ]
        await waiting(direct, 2)
        assert not any(task.done() for task in recording)
    await asyncio.gather(*recording)


async def test_processes_start_at_once_behind_it(postgres: Server, pooler: int) -> None:
    url = postgres.empty().replace(f":{postgres.port}/", f":{pooler}/")
    async with processes(url, 1) as (a,), processes(url, 1) as (b,):
        assert a.instance == b.instance
        await a.record(arrival(success(1)))
        heard = asyncio.Event()
        b.on_change(lambda _tasks, _work: heard.set())
        await b.look()
        await a.record(arrival_of(uuid(5), success(1)))
        async with asyncio.timeout(LIMIT_S):
            await heard.wait()
