"""How every store lets what went wrong be seen and sent again. A store's own test opens it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from receiver import ids
from receiver.clock import MINUTE, SECOND, to_datetime, to_rfc3339
from receiver.deliveries import DeadLetters, Delivery, Failure, State
from receiver.delivery.policy import SCHEDULE, decide
from receiver.endpoints import State as EndpointState
from receiver.errors import Conflict, NotFound
from receiver.repair import Replayed
from receiver.store.protocol import Claimed, Query, Replay, Store, TaskChange
from tests.doubles import START, FakeClock, sent
from tests.make import TASK, arrival, endpoint, registration, settled, success
from tests.receiver.store.suite import Opener, claim, queued

CAUSES = (
    sent(500),
    sent(404),
    sent(None, Failure.TIMEOUT),
    sent(None, Failure.DNS),
    sent(302, Failure.REDIRECT),
)


async def die(store: Store, now: int = START, *causes: int) -> Sequence[Claimed]:
    """Claim what is due, and let it die of these causes in turn."""
    claims = await claim(store, now)
    for number, claimed in enumerate(claims):
        outcome = CAUSES[causes[number % len(causes)] if causes else 0]
        await store.settle(settled(claimed, State.DEAD, now=now, outcome=outcome))
    return claims


async def all_deliveries(store: Store, **query: Any) -> list[Delivery]:
    return list((await store.deliveries(Query(limit=200, **query))).data)


async def dead_pages(store: Store, **query: Any) -> list[DeadLetters]:
    """Every group, page by page."""
    page = await store.dead_letters(Query(**query))
    found = list(page.data)
    while page.next_cursor is not None:
        page = await store.dead_letters(Query(**query, before=page.next_cursor))
        found += page.data
    return found


@pytest.mark.anyio
class RepairSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    # Dead letters

    async def test_where_nothing_died_there_is_no_group(self, store: Store) -> None:
        await queued(store)
        assert (await store.dead_letters(Query())).data == []

    async def test_the_dead_are_counted_by_endpoint_and_cause(
        self, store: Store, clock: FakeClock
    ) -> None:
        first = await queued(store, 2)
        await die(store, START, 0, 2)
        second = await queued(store, 3)
        await die(store, clock.advance(MINUTE), 0)
        groups = (await store.dead_letters(Query())).data
        assert [
            (group.endpoint_id, group.error, group.status, group.count) for group in groups
        ] == [
            (first.id, "status", 500, 4),  # it heard of the second one's tasks, too
            (second.id, "status", 500, 3),
            (first.id, "timeout", None, 1),
        ]

    async def test_a_group_says_from_when_to_when_and_shows_its_newest(
        self, store: Store, clock: FakeClock
    ) -> None:
        added = await queued(store, 3)
        await die(store)
        (group,) = (await store.dead_letters(Query())).data
        dead = [one for one in await all_deliveries(store) if one.endpoint_id == added.id]
        assert group.example == max(one.id for one in dead)
        assert group.oldest == min(one.created_at for one in dead)
        assert group.newest == max(one.created_at for one in dead) == to_datetime(START)
        assert (group.project, group.endpoint_deleted) == ("default", False)
        shown = await store.delivery(group.example)
        assert (shown.last_error, shown.last_status) == ("status", 500)

    async def test_what_is_sent_again_is_dead_no_more(self, store: Store) -> None:
        await queued(store, 2)
        await die(store)
        (group,) = (await store.dead_letters(Query())).data
        await store.retry(group.example, START)
        (group,) = (await store.dead_letters(Query())).data
        assert group.count == 1

    async def test_the_dead_of_a_deleted_endpoint_are_marked(self, store: Store) -> None:
        added = await queued(store)
        await die(store)
        await store.delete_endpoint(added.id, START)
        (group,) = (await store.dead_letters(Query())).data
        assert group.endpoint_deleted

    async def test_groups_are_those_of_the_list_whatever_is_asked(
        self, store: Store, clock: FakeClock
    ) -> None:
        """Against a count of every dead delivery of the list, over causes made at random."""
        dice = random.Random(7)
        ends = [await queued(store, 4) for _ in range(3)]
        other = await store.add_endpoint(endpoint("other", event_types=["result.*"]))
        for _ in range(6):
            await die(store, clock.advance(SECOND), *[dice.randrange(5) for _ in range(7)])
            for one in await all_deliveries(store, state=State.DEAD):
                if dice.random() < 0.3:
                    await store.retry(one.id, clock.advance(SECOND))
        asked: dict[str, Any]
        for asked in ({}, {"endpoint": ends[0].id}, {"project": "default"}):
            dead = await all_deliveries(store, state=State.DEAD, **asked)
            wanted = Counter((one.endpoint_id, one.last_error, one.last_status) for one in dead)
            groups = await dead_pages(store, limit=2, **asked)
            counted = {(one.endpoint_id, one.error, one.status): one.count for one in groups}
            assert counted == wanted
            assert len(groups) == len(counted)
            assert [one.count for one in groups] == sorted(wanted.values(), reverse=True)
        for asked in ({"project": "other"}, {"endpoint": other.id}, {"until": START}):
            assert await dead_pages(store, **asked) == []
        assert await dead_pages(store, since=START) != []

    # Replay

    async def test_a_replay_begins_a_new_round_of_each_settled_delivery(
        self, store: Store, clock: FakeClock
    ) -> None:
        added = await queued(store)
        await die(store)
        (dead,) = await all_deliveries(store)
        now = clock.advance(MINUTE)
        found = await store.replay(Replay(dead.event_id, now))
        assert (found.created, found.retried, found.waiting) == (0, 1, 0)
        assert found.deliveries == [dead.id]
        (claimed,) = await claim(store, now)
        assert (claimed.attempt, claimed.round_attempt) == (2, 1)
        assert ids.EVENT + ids.encode(claimed.event_id) == dead.event_id
        await store.settle(settled(claimed, now=now))
        again = await store.replay(Replay(dead.event_id, now, added.id))
        assert (again.created, again.retried) == (0, 1)  # though it had succeeded

    async def test_a_replay_goes_to_who_wants_the_event_today(self, store: Store) -> None:
        before = await queued(store)
        await die(store)
        (dead,) = await all_deliveries(store)
        later = await store.add_endpoint(endpoint(event_types=["result.*"]))
        await store.add_endpoint(endpoint(event_types=["task.*"]))
        await store.add_endpoint(endpoint("other", event_types=["*"]))
        await store.delete_endpoint(before.id, START)
        found = await store.replay(Replay(dead.event_id, START))
        assert (found.created, found.retried, len(found.deliveries)) == (1, 0, 1)
        (claimed,) = await claim(store)
        assert ids.ENDPOINT + ids.encode(claimed.endpoint_id) == later.id

    async def test_what_is_on_its_way_is_left_alone_by_a_replay(self, store: Store) -> None:
        await queued(store)
        (claimed,) = await claim(store)
        event = ids.EVENT + ids.encode(claimed.event_id)
        found = await store.replay(Replay(event, START))
        assert (found.created, found.retried, found.waiting) == (0, 0, 1)
        assert await claim(store) == []

    async def test_filters_of_a_replay_see_the_task_as_it_is_known_today(
        self, store: Store
    ) -> None:
        await store.record(arrival(success()))
        await store.register(registration(model="pixverse:1@6", metadata={"team": "film"}))
        film = await store.add_endpoint(
            endpoint(event_types=["result.*"], filters={"metadata.team": "film"})
        )
        done = await store.add_endpoint(
            endpoint(event_types=["result.*"], filters={"status": "succeeded", "model": "pix*"})
        )
        await store.add_endpoint(endpoint(filters={"metadata.team": "music"}))
        result, _ = reversed((await store.events(Query())).data)
        found = await store.replay(Replay(result.id, START))
        assert sorted(one[-13:] for one in found.deliveries) == [film.id[3:], done.id[3:]]
        await store.delete_task(TaskChange(TASK, START))
        again = await store.replay(Replay(result.id, START))
        assert again.deliveries == []  # what was told before the PUT names no model

    async def test_a_replay_to_one_that_does_not_want_the_event_says_so(self, store: Store) -> None:
        await queued(store)
        other = await store.add_endpoint(endpoint(event_types=["task.*"]))
        (event,) = (await store.events(Query())).data
        with pytest.raises(Conflict) as caught:
            await store.replay(Replay(event.id, START, other.id))
        assert caught.value.evidence["event_type"] == "result.succeeded"
        with pytest.raises(NotFound):
            await store.replay(Replay(ids.EVENT + ids.encode(7), START))

    # Test

    async def test_a_test_is_queued_for_its_endpoint_alone_and_tried_once(
        self, store: Store
    ) -> None:
        await store.add_endpoint(endpoint())
        tried = await store.add_endpoint(endpoint(event_types=["task.*"], description="ours"))
        delivery = await store.delivery(await store.test_endpoint(tried.id, START))
        assert (delivery.event_type, delivery.endpoint_id) == ("endpoint.test", tried.id)
        assert (delivery.task_id, delivery.attempts, delivery.state) == (None, 0, "pending")
        event = await store.event(delivery.event_id)
        assert event.payload == {
            "type": "endpoint.test",
            "timestamp": to_rfc3339(START),
            "data": {"endpoint": {"id": tried.id, "project": "default", "description": "ours"}},
        }
        (claimed,) = await claim(store)
        news = decide(sent(500), attempt=claimed.round_attempt, schedule=SCHEDULE, now=1, jitter=0)
        assert news.state is State.DEAD
        await store.settle(settled(claimed, State.DEAD))
        await store.retry(delivery.id, START)
        (again,) = await claim(store)
        assert (again.attempt, again.round_attempt) == (2, 1)

    async def test_a_test_is_not_replayed_to_others(self, store: Store) -> None:
        added = await store.add_endpoint(endpoint(event_types=["endpoint.*"]))
        delivery = await store.delivery(await store.test_endpoint(added.id, START))
        with pytest.raises(Conflict, match="for one endpoint"):
            await store.replay(Replay(delivery.event_id, START))

    @pytest.mark.parametrize("state", [EndpointState.PAUSED, EndpointState.DISABLED])
    async def test_where_the_queue_is_held_a_test_says_so(
        self, store: Store, state: EndpointState
    ) -> None:
        added = await store.add_endpoint(endpoint())
        await store.set_endpoint_state(added.id, state, None)
        with pytest.raises(Conflict) as caught:
            await store.test_endpoint(added.id, START)
        assert caught.value.evidence["state"] == state
        assert (await store.events(Query())).data == []
        await store.delete_endpoint(added.id, START)
        with pytest.raises(NotFound):
            await store.test_endpoint(added.id, START)

    async def test_a_replay_or_test_beside_the_deletion_of_its_endpoint_sends_nothing(
        self, store: Store
    ) -> None:
        """All in one transaction, before anybody reads anew which endpoints there are."""
        added = await queued(store)
        await die(store)
        (dead,) = await all_deliveries(store)
        found = await asyncio.gather(
            store.delete_endpoint(added.id, START),
            store.replay(Replay(dead.event_id, START)),
            store.test_endpoint(added.id, START),
            return_exceptions=True,
        )
        assert isinstance(found[1], Replayed)
        assert found[1].deliveries == []
        assert isinstance(found[2], NotFound)
        assert (await store.delivery(dead.id)).state is State.DEAD

    async def test_a_callback_beside_the_deletion_of_its_endpoint_waits_for_nobody(
        self, store: Store
    ) -> None:
        added = await store.add_endpoint(endpoint(event_types=["result.*"]))
        await asyncio.gather(
            store.delete_endpoint(added.id, START), store.record(arrival(success(1)))
        )
        await store.release_lapsed(START + SECOND)
        assert [one.state for one in await all_deliveries(store)] in ([], [State.CANCELED])

    async def test_an_attempt_that_lapses_long_after_the_deletion_comes_back_to_nobody(
        self, store: Store
    ) -> None:
        added = await queued(store)
        assert len(await claim(store)) == 1
        await store.delete_endpoint(added.id, START)
        await store.release_lapsed(START + 120 * MINUTE)
        assert [one.state for one in await all_deliveries(store)] == [State.CANCELED]
