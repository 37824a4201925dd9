"""How every store tells of events and resends in one order. A store's own test opens it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from receiver import ids
from receiver.clock import DAY, to_datetime
from receiver.deliveries import State
from receiver.errors import Conflict
from receiver.feed import START as BEGINNING
from receiver.feed import Place, Told
from receiver.store.protocol import Query, Replay, Store
from tests.doubles import START, FakeClock
from tests.make import TASK, arrival, endpoint, registration, success, uuid
from tests.receiver.store.jobs_suite import begin, recovery, repair
from tests.receiver.store.prune_suite import drop
from tests.receiver.store.repair_suite import die
from tests.receiver.store.suite import Opener, arrival_of, queued, types


async def told(store: Store, after: Place = BEGINNING) -> list[Told]:
    """The whole feed behind a place, page by page."""
    found: list[Told] = []
    while page := await store.told(found[-1].place if found else after):
        found += page
    return found


async def some_events(store: Store, count: int = 3, size: int = 0) -> list[str]:
    """So many events, one after the other; their ids."""
    for number in range(count):
        item = success(number, uuid(number), padding="x" * size)
        await store.record(arrival_of(uuid(number), item, expected=2))
    return [event.id for event in reversed((await store.events(Query(limit=200))).data)]


@pytest.mark.anyio
class FeedSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    async def test_an_empty_feed_ends_at_its_beginning(self, store: Store) -> None:
        assert await store.newest_place() == BEGINNING
        assert await told(store) == []

    async def test_events_come_in_the_order_of_their_commits(self, store: Store) -> None:
        events = await some_events(store)
        found = await told(store)
        assert [one.id for one in found] == events
        assert [one.place for one in found] == [Place(one.seq) for one in found]
        assert sorted(found, key=lambda one: one.place) == found
        assert await store.newest_place() == found[-1].place

    async def test_what_is_told_is_the_event_byte_for_byte(self, store: Store) -> None:
        await store.record(arrival(success(prompt="\u2028 \r\n é")))
        for one in await told(store):
            event = await store.event(one.id)
            assert (one.type, one.task_id, one.project) == (
                event.type,
                event.task_id,
                event.project,
            )
            assert to_datetime(one.created_at) == event.created_at
            assert one.resent_at is None
            assert one.facts == event.payload["data"]["task"]

    async def test_what_is_about_no_task_is_told_without_one(self, store: Store) -> None:
        added = await store.add_endpoint(endpoint())
        await store.test_endpoint(added.id, START)
        (one,) = await told(store)
        assert (one.type, one.task_id, one.facts) == ("endpoint.test", None, {})

    async def test_whoever_knows_a_place_gets_what_is_behind_it(self, store: Store) -> None:
        await some_events(store)
        await store.replay(Replay((await told(store))[0].id, START))
        whole = await told(store)
        assert len(whole) == 4
        for number, one in enumerate(whole, 1):
            assert await told(store, one.place) == whole[number:]

    async def test_a_replayed_event_is_told_again_in_its_turn(
        self, store: Store, clock: FakeClock
    ) -> None:
        first, *_ = await some_events(store)
        before = await store.newest_place()
        for _ in range(2):  # no endpoint wants it, but listeners may
            await store.replay(Replay(first, clock.advance(1)))
        await store.record(arrival_of(uuid(50), success(50), expected=2))
        *again, new = await told(store, before)
        assert [(one.id, one.resent_at) for one in again] == [
            (first, START + 1),
            (first, START + 2),
        ]
        assert [one.place.seq for one in again] == [before.seq] * 2
        assert (new.resent_at, new.place) == (None, Place(before.seq + 1))

    async def test_a_retried_delivery_tells_its_event_again(self, store: Store) -> None:
        added = await queued(store, 2)
        await die(store)
        dead = (await store.deliveries(Query(endpoint=added.id))).data[0]
        before = await store.newest_place()
        await store.retry(dead.id, START)
        (again,) = await told(store, before)
        assert (again.id, again.resent_at) == (dead.event_id, START)

    async def test_what_could_not_be_retried_is_not_told(self, store: Store) -> None:
        added = await queued(store)
        waiting = (await store.deliveries(Query(endpoint=added.id))).data[0]
        before = await store.newest_place()
        with pytest.raises(Conflict):
            await store.retry(waiting.id, START)
        other = await store.add_endpoint(endpoint(event_types=["task.overdue"]))
        with pytest.raises(Conflict):
            await store.replay(Replay(waiting.event_id, START, other.id))
        assert await told(store, before) == []

    async def test_a_job_tells_each_event_once_however_many_endpoints_get_it(
        self, store: Store
    ) -> None:
        await store.add_endpoint(endpoint())
        await queued(store, 3)
        await die(store)
        dead = await store.deliveries(Query(limit=200, state=State.DEAD))
        assert len(dead.data) == 6
        before = await store.newest_place()
        job = await begin(store, repair())
        await store.advance_job(job.id, START)
        again = [one.id for one in await told(store, before)]
        assert sorted(again) == sorted({one.event_id for one in dead.data})

    async def test_a_recovery_tells_what_was_missing(self, store: Store) -> None:
        events = await some_events(store)
        added = await store.add_endpoint(endpoint())
        asked = recovery(added.id, START - DAY, missing=True)
        before = await store.newest_place()
        job = await begin(store, asked)
        await store.advance_job(job.id, START)
        assert [one.id for one in await told(store, before)] == events

    async def test_a_page_is_bounded_in_bytes_but_for_its_first(self, store: Store) -> None:
        await some_events(store, 4, size=400_000)
        assert [len(await store.told(Place(seq))) for seq in range(5)] == [3, 3, 2, 1, 0]

    async def test_a_page_is_bounded_in_events(self, store: Store) -> None:
        tasks = [uuid(number) for number in range(150)]
        await asyncio.gather(
            *[store.record(arrival_of(task, success(1), expected=2)) for task in tasks]
        )
        sizes = [len(await store.told(Place(seq))) for seq in (0, 100, 149)]
        assert sizes == [100, 50, 1]

    async def test_resends_go_with_their_event_and_are_never_counted_again(
        self, store: Store, clock: FakeClock
    ) -> None:
        first, *_ = await some_events(store, 2)
        await store.replay(Replay(first, clock.advance(1)))
        seen = await store.newest_place()
        now = clock.advance(100 * DAY)
        dropped = await drop(store, now)
        assert dropped["events"] == 1
        assert "resends" not in dropped
        (kept,) = await told(store)
        await store.replay(Replay(kept.id, now))
        (again,) = await told(store, seen)
        assert again.place > seen
        assert again.id == kept.id

    @pytest.mark.parametrize(
        ("asked", "wanted"),
        [
            ("result.*", ["result.succeeded"]),
            ("*.completed,task.overdue", ["task.completed"]),
            ("*", ["result.succeeded", "task.completed"]),
            ("result.succeeded", ["result.succeeded"]),
            ("result", []),
            ("x,y", []),
        ],
    )
    async def test_lists_take_patterns_of_types(
        self, store: Store, asked: str, wanted: list[str]
    ) -> None:
        await store.add_endpoint(endpoint())
        await store.record(arrival(success()))
        assert await types(store, event_type=asked) == wanted
        found = (await store.deliveries(Query(event_type=asked))).data
        assert sorted(one.event_type for one in found) == wanted

    async def test_events_are_listed_by_what_their_task_is(self, store: Store) -> None:
        await store.register(registration(model="pixverse:1@6", tags={"team": "film"}, expected=2))
        await store.record(arrival(success(), expected=2))
        await store.record(arrival_of(uuid(5), success(5), expected=1))
        whole = (await store.events(Query())).data
        mine = [one.id for one in whole if one.task_id == TASK]
        assert (len(whole), len(mine)) == (3, 1)
        for asked in (
            Query(model="pixverse:1@6"),
            Query(tag=("team", "film")),
            Query(platform="runware", event_type="result.*", tag=("team", "film")),
        ):
            assert [one.id for one in (await store.events(asked)).data] == mine
        for asked in (Query(model="pixverse"), Query(tag=("team", "x")), Query(platform="nanogpt")):
            assert (await store.events(asked)).data == []

    async def test_any_history_is_told_once_each_from_wherever_one_stands(
        self, store: Store
    ) -> None:
        dice, at, seen = random.Random(7), BEGINNING, list[Told]()
        events: list[str] = []
        for number in range(60):
            if events and dice.random() < 0.4:
                await store.replay(Replay(dice.choice(events), START + number))
            else:
                await store.record(arrival_of(uuid(number), success(number), expected=2))
                events = [one.id for one in (await store.events(Query(limit=200))).data]
            if dice.random() < 0.3:
                seen += await told(store, at)
                at = seen[-1].place
        seen += await told(store, at)
        assert seen == await told(store)
        assert len(seen) == len({one.place for one in seen}) == 60
        assert {ids.parse(ids.EVENT, one.id) for one in seen} == {
            ids.parse(ids.EVENT, one) for one in events
        }
