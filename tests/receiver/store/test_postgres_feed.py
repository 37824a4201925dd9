"""The feed of a PostgreSQL that several processes write: nothing is skipped, and all hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from receiver.admin.ops import ADMIN, Ops
from receiver.admin.ops.broadcast import Broadcaster
from receiver.delivery.guard import Guard
from receiver.endpoints import State as EndpointState
from receiver.errors import NotFound
from receiver.feed import START as BEGINNING
from receiver.feed import Told
from receiver.keeping import Keep
from receiver.retention import Retention
from receiver.store.postgres import PostgresStore, readers
from receiver.store.postgres import store as module
from receiver.store.protocol import Query, Replay, TaskChange
from receiver.store.seal import Seal
from receiver.tasks import SubmitState
from receiver.tokens import TokenBox
from tests.doubles import PUBLIC_URL, START, Dice, FakeClock
from tests.make import KEY, TASK, arrival, endpoint, processing, registration, success, uuid
from tests.receiver.store.processes import LIMIT_S, ask, briefly, gated, processes, waiting
from tests.receiver.store.suite import arrival_of, claim

pytestmark = pytest.mark.anyio


@pytest.fixture
async def both(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[PostgresStore]]:
    monkeypatch.setattr(module, "LOOK", 3_600.0)  # who looks does so since it was told, or asked
    async with processes(url) as stores:
        yield stores


async def test_what_commits_late_is_behind_what_was_committed_before(
    url: str, both: list[PostgresStore]
) -> None:
    """Whoever has its place first and commits last is not behind where a reader stands."""
    a, b = both
    with gated(a) as gate:
        slow = asyncio.create_task(a.record(arrival_of(uuid(1), success(1))))
        await gate.reached()
        fast = asyncio.create_task(b.record(arrival_of(uuid(2), success(2))))
        await briefly(fast)
        seen = list(await b.told(BEGINNING))
        gate.open()
        await asyncio.gather(slow, fast)
    after = seen[-1].place if seen else BEGINNING
    seen += await b.told(after)
    assert len(seen) == 4
    assert {one.task_id for one in seen} == {uuid(1), uuid(2)}


@pytest.mark.parametrize("again", ["replay", "retry"])
async def test_what_is_sent_again_is_not_skipped_either(
    url: str, both: list[PostgresStore], again: str
) -> None:
    a, b = both
    await a.add_endpoint(endpoint(event_types=["result.*"]))
    await a.record(arrival_of(uuid(1), success(1), expected=2))
    (event,) = await a.told(BEGINNING)
    (delivery,) = (await a.deliveries(Query())).data
    await a.cancel(delivery.id, START)
    with gated(a) as gate:
        sending = a.retry if again == "retry" else lambda _id, now: a.replay(Replay(event.id, now))
        slow = asyncio.ensure_future(sending(delivery.id, START))
        await gate.reached()
        fast = asyncio.create_task(b.record(arrival_of(uuid(2), success(2))))
        await waiting(url)
        seen = list(await b.told(event.place))
        gate.open()
        await asyncio.gather(slow, fast)
    after = seen[-1].place if seen else event.place
    seen += await b.told(after)
    assert [one.resent_at is not None for one in seen] == [True, False, False]


async def test_who_watches_in_one_process_hears_what_another_commits(
    both: list[PostgresStore],
) -> None:
    """By notice, in order, nothing twice: events and what is sent again."""
    a, b = both
    broadcaster = Broadcaster(b)
    running = asyncio.create_task(broadcaster.run())
    try:
        with broadcaster.watching(BEGINNING) as watcher:
            jobs = [
                (a, b)[number % 2].record(arrival_of(uuid(number), success(1)))
                for number in range(40)
            ]
            await asyncio.gather(*jobs)
            heard: list[Told] = []
            async with asyncio.timeout(LIMIT_S):
                while len(heard) < 80:
                    heard += await watcher.next(1.0)
                places = [one.place for one in heard]
                assert places == sorted(set(places))
                await a.replay(Replay(heard[7].id, START))
                (again,) = await watcher.next(LIMIT_S)
            assert (again.id, again.resent_at) == (heard[7].id, START)
    finally:
        running.cancel()


async def test_whoever_is_told_of_nothing_finds_it_by_looking(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a pooler nobody can listen. A look finds all of it, however much that is."""
    monkeypatch.setattr(module, "MOST", 7)
    monkeypatch.setattr(module, "LOOK", 3_600.0)
    monkeypatch.setattr(readers.PostgresReaders, "notify", _nobody)
    async with processes(url) as (a, b):
        told: list[tuple[set[str], bool]] = []
        b.on_change(lambda tasks, work: told.append((set(tasks), work)))
        await b.look()
        assert told == []
        added = await a.add_endpoint(endpoint())
        await b.look()
        assert told.pop() == (set(), True)  # it may be one that work waits for
        tasks = [uuid(number) for number in range(10)]
        for task in tasks:
            await a.record(arrival_of(task, success(1)))
        assert told == []
        await b.look()
        assert set().union(*[found for found, _ in told]) == set(tasks)
        told.clear()
        await b.look()
        assert told == []
        await a.set_endpoint_state(added.id, EndpointState.PAUSED, None)
        await b.look()
        assert told.pop() == (set(), True)
        (delivery, *_) = (await a.deliveries(Query())).data
        await a.cancel(delivery.id, START)
        await a.retry(delivery.id, START)
        await b.look()
        assert told.pop() == (set(), True)


async def _nobody(_readers: object, _channel: str) -> None:
    """A hint that is lost."""


async def test_a_worker_is_woken_by_what_another_process_takes_in(
    both: list[PostgresStore],
) -> None:
    a, b = both
    woken = asyncio.Event()
    await a.add_endpoint(endpoint())
    b.on_change(lambda _tasks, work: woken.set() if work else None)
    await a.record(arrival(success(1)))
    async with asyncio.timeout(LIMIT_S):
        await woken.wait()
    assert len(await claim(b)) == 2


def ops_of(store: PostgresStore) -> Ops:
    """The use cases of a process."""
    clock = FakeClock()
    return Ops(
        store,
        TokenBox([KEY]),
        Retention(store, clock=clock, keep=Keep(), journal=lambda _: None),
        public_url=PUBLIC_URL,
        guard=Guard(),
        clock=clock,
        wall=clock,
        random_bytes=Dice().bytes,
        seals=Seal(),
    )


@pytest.mark.parametrize("told", [True, False])
async def test_a_long_poll_hears_of_what_another_process_changes_of_its_task(
    url: str, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Also where no event says so: by the hint, or where nobody can be told by the next look."""
    monkeypatch.setattr(module, "LOOK", 3_600.0)
    if not told:
        monkeypatch.setattr(readers.PostgresReaders, "notify", _nobody)
    async with processes(url) as (a, b):
        ops = ops_of(b)
        await a.register(registration())

        async def revision_after(change: Callable[[], Awaitable[object]]) -> int:
            known = (await b.task(TASK)).revision
            spelled = TASK.replace("-", "").upper()
            waits = asyncio.create_task(ops.wait_task(ADMIN, spelled, known, 30.0))
            async with asyncio.timeout(LIMIT_S / 2):
                while (TASK, known) not in ops.watch.seen():  # noqa: ASYNC110 - nobody is told
                    await asyncio.sleep(0)
                await change()
                if not told:
                    await b.look()
                return (await waits).revision

        for change in (
            lambda: a.change_task(TaskChange(TASK, START, SubmitState.SUBMITTED)),
            lambda: a.register(registration(model="pixverse:1@6")),
            lambda: a.record(arrival(processing())),
            lambda: a.revoke_task(TaskChange(TASK, START)),
        ):
            assert await revision_after(change) == (await a.task(TASK)).revision
        with pytest.raises(NotFound):
            await revision_after(lambda: a.delete_task(TaskChange(TASK, START)))
        assert ops.watch.seen() == set()


async def test_a_stream_goes_on_behind_what_a_prune_left(
    url: str, both: list[PostgresStore]
) -> None:
    """Places are given once: the newest event stays, and no restart of a server gives them anew."""
    a, b = both
    await a.record(arrival_of(uuid(1), success(1)))
    place = await b.newest_place()
    await ask(url, "DELETE FROM events WHERE seq < $1", place.seq)
    await b.record(arrival_of(uuid(2), success(1)))
    assert [one.seq for one in await a.told(place)] == [place.seq + 1, place.seq + 2]
