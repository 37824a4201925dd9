"""What every store must do for ordered endpoints, and with a queue that is canceled by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import strategies as st

from receiver import ids
from receiver.clock import HOUR, SECOND, to_datetime
from receiver.deliveries import State
from receiver.endpoints import EndpointPatch
from receiver.endpoints import State as EndpointState
from receiver.errors import NotFound
from receiver.store.protocol import Claimed, EndpointChange, Query, QueueCancel, Store
from tests.doubles import START, FakeClock
from tests.make import OTHER, TASK, arrival, endpoint, registration, settled, success
from tests.receiver.store.suite import LEASE, Opener, arrival_of, claim, queued, states


async def names(store: Store, claims: Sequence[Claimed]) -> list[str]:
    """What was claimed, each as its event's type with the index of its result."""
    found = []
    for claimed in claims:
        event = await store.event(ids.EVENT + ids.encode(claimed.event_id))
        index = event.payload["data"].get("result", {}).get("index", "")
        found.append(f"{event.type} {index}".strip())
    return found


async def next_of(store: Store, now: int = START) -> tuple[Claimed, str]:
    """The one delivery that may go now."""
    (claimed,) = claims = await claim(store, now)
    (name,) = await names(store, claims)
    return claimed, name


async def told(store: Store, results: int = 3, **spec: Any) -> None:
    """An ordered endpoint and a task that is complete with so many results."""
    await store.add_endpoint(endpoint(ordered=True, **spec))
    for number in range(results):
        await store.record(arrival(success(number), expected=results))


async def cancel_queue(store: Store, name: str, now: int = START, limit: int = 1_000) -> int:
    return await store.cancel_queue(QueueCancel(name, now, limit))


async def play(store: Store, data: st.DataObject) -> None:
    """Two tasks, told to one endpoint; attempts end as they may."""
    await store.add_endpoint(endpoint(ordered=True, concurrency=100))
    pending = [(task, n) for n in range(4) for task in (TASK, OTHER)]
    begun: dict[str, list[int]] = {TASK: [], OTHER: []}
    for now in count(START):
        if pending and not data.draw(st.booleans()):
            task, n = pending.pop(0)
            await store.record(arrival_of(task, success(n), expected=4, received_at=now))
        claims = await claim(store, now)
        lanes = [claimed.lane for claimed in claims]
        assert len(lanes) == len(set(lanes))
        for claimed in claims:
            event = await store.event(ids.EVENT + ids.encode(claimed.event_id))
            assert event.task_id is not None
            begun[event.task_id].append(event.seq)
            kind = data.draw(st.sampled_from([State.SUCCEEDED, State.DEAD, State.PENDING]))
            due = now if kind is State.PENDING else None
            await store.settle(settled(claimed, kind, now=now, next_attempt_at=due))
        if not pending and await store.next_due() is None:
            break
    assert all(seqs == sorted(seqs) for seqs in begun.values())
    assert [len(set(seqs)) for seqs in begun.values()] == [5, 5]


@pytest.mark.anyio
class OrderSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    async def test_an_endpoint_is_not_ordered_unless_it_asks(self, store: Store) -> None:
        assert not (await store.add_endpoint(endpoint())).ordered
        added = await store.add_endpoint(endpoint(ordered=True))
        assert added.ordered
        change = EndpointChange(added.id, EndpointPatch(ordered=False))
        assert not (await store.change_endpoint(change)).ordered

    async def test_results_come_in_order_and_completed_last(self, store: Store) -> None:
        await told(store)
        order = []
        for _ in range(4):
            claimed, name = await next_of(store)
            order.append(name)
            await store.settle(settled(claimed))
        results = [f"result.succeeded {index}" for index in range(3)]
        assert order == [*results, "task.completed"]
        assert list(await claim(store)) == []

    async def test_results_of_one_body_come_in_order_too(self, store: Store) -> None:
        await store.add_endpoint(endpoint(ordered=True))
        await store.record(arrival(success(1), success(2), expected=2))
        assert [one.next_attempt_at for one in (await store.deliveries(Query())).data] == [
            None,
            None,
            to_datetime(START),
        ]
        assert (await next_of(store))[1] == "result.succeeded 0"

    @pytest.mark.parametrize("end", [State.SUCCEEDED, State.DEAD])
    async def test_the_next_goes_when_the_one_before_is_settled_however(
        self, store: Store, end: State
    ) -> None:
        await told(store, 2)
        first, _ = await next_of(store)
        await store.settle(settled(first, end, now=START + 7))
        assert (await next_of(store, START + 7))[1] == "result.succeeded 1"

    async def test_the_others_wait_while_the_first_is_tried_again(self, store: Store) -> None:
        await told(store, 2)
        first, _ = await next_of(store)
        later = settled(first, State.PENDING, next_attempt_at=START + HOUR)
        await store.settle(later)
        assert list(await claim(store, START + HOUR - 1)) == []
        assert await store.next_due() == START + HOUR
        again, name = await next_of(store, START + HOUR)
        assert (name, again.attempt) == ("result.succeeded 0", 2)

    async def test_a_lease_that_lapses_lets_nobody_pass(self, store: Store) -> None:
        await told(store, 2)
        first, _ = await next_of(store)
        await store.release_lapsed(START + LEASE)
        again, name = await next_of(store, START + LEASE)
        assert (name, again.attempt) == ("result.succeeded 0", 2)
        await store.settle(settled(first))  # stale: the second attempt is under way
        assert list(await claim(store, START + LEASE)) == []

    async def test_a_2xx_that_arrives_late_lets_the_next_one_go(self, store: Store) -> None:
        await told(store, 2)
        first, _ = await next_of(store)
        await store.release_lapsed(START + LEASE)
        await store.settle(settled(first))
        assert (await next_of(store, START + LEASE))[1] == "result.succeeded 1"

    async def test_canceling_the_first_lets_the_next_one_go(self, store: Store) -> None:
        await told(store, 2)
        *_, first = (await store.deliveries(Query())).data
        await store.cancel(first.id, START)
        assert (await next_of(store))[1] == "result.succeeded 1"

    async def test_canceling_one_that_waits_lets_nobody_pass(self, store: Store) -> None:
        await told(store, 3)
        _, _, second, _ = (await store.deliveries(Query())).data
        await store.cancel(second.id, START)
        first, name = await next_of(store)
        assert name == "result.succeeded 0"
        await store.settle(settled(first))
        assert (await next_of(store))[1] == "result.succeeded 2"

    async def test_tasks_do_not_wait_for_each_other(self, store: Store) -> None:
        await told(store, 2)
        await store.record(arrival_of(OTHER, success(7), expected=2))
        assert await names(store, await claim(store)) == ["result.succeeded 0"] * 2

    async def test_endpoints_do_not_wait_for_each_other(self, store: Store) -> None:
        await store.add_endpoint(endpoint())
        await told(store, 2)
        assert len(await claim(store)) == 3 + 1

    async def test_what_the_endpoint_does_not_want_is_not_waited_for(self, store: Store) -> None:
        await told(store, 3, event_types=["task.completed"])
        assert (await next_of(store))[1] == "task.completed"

    async def test_a_late_result_waits_for_nobody_and_nobody_for_it(self, store: Store) -> None:
        await told(store, 1)
        await store.record(arrival(success(9)))
        found = await names(store, await claim(store))
        assert sorted(found) == ["result.succeeded 0", "result.succeeded 1", "task.revised"]

    async def test_a_retry_by_hand_waits_for_nobody_and_nobody_for_it(self, store: Store) -> None:
        await told(store, 2)
        first, _ = await next_of(store)
        await store.settle(settled(first, State.DEAD))
        await store.retry(ids.delivery_id(first.event_id, first.endpoint_id), START)
        found = await claim(store)
        assert sorted(await names(store, found)) == ["result.succeeded 0", "result.succeeded 1"]
        by_hand = next(one for one in found if one.event_id == first.event_id)
        in_order = next(one for one in found if one.event_id != first.event_id)
        await store.settle(settled(by_hand, State.PENDING, next_attempt_at=START + HOUR))
        await store.settle(settled(in_order))
        assert (await next_of(store))[1] == "task.completed"

    async def test_a_put_that_tells_more_keeps_the_order(self, store: Store) -> None:
        await store.add_endpoint(endpoint(ordered=True, filters={"model": "pixverse:*"}))
        await store.record(arrival(success(1), success(2), expected=2))
        assert await states(store) == []
        await store.register(registration(TASK, model="pixverse:1@6", expected=2))
        order = []
        for _ in range(3):
            claimed, name = await next_of(store)
            order.append(name)
            await store.settle(settled(claimed))
        assert order == ["result.succeeded 0", "result.succeeded 1", "task.completed"]

    async def test_what_waits_in_order_stays_so_when_the_endpoint_changes_its_mind(
        self, store: Store
    ) -> None:
        await told(store, 2)
        (only,) = (await store.endpoints(Query())).data
        await store.change_endpoint(EndpointChange(only.id, EndpointPatch(ordered=False)))
        first, _ = await next_of(store)
        await store.record(arrival_of(OTHER, success(7), success(8), expected=3))
        assert len(await claim(store)) == 2
        await store.settle(settled(first))
        assert (await next_of(store))[1] == "result.succeeded 1"

    async def test_a_deleted_endpoint_takes_its_lanes_along(self, store: Store) -> None:
        await told(store, 2)
        (only,) = (await store.endpoints(Query())).data
        claimed, _ = await next_of(store)
        await store.delete_endpoint(only.id, START)
        await store.settle(settled(claimed, State.PENDING, next_attempt_at=START))
        assert await states(store) == ["canceled"] * 3

    async def test_what_is_due_at_once_goes_in_the_order_of_its_events(self, store: Store) -> None:
        """Wherever the rows lie: to send the newest one again first puts it before the others."""
        await queued(store, 20, concurrency=20)
        for claimed in (events := await claim(store)):
            await store.settle(settled(claimed, State.DEAD))
        for claimed in sorted(events, key=lambda one: -one.event_id):
            await store.retry(ids.delivery_id(claimed.event_id, claimed.endpoint_id), START)
        again = [claimed.event_id for claimed in await claim(store)]
        assert again == sorted(claimed.event_id for claimed in events)

    # A queue that is canceled by hand

    async def test_a_queue_is_canceled_by_hand_step_by_step(self, store: Store) -> None:
        added = await queued(store, 5)
        spared = await queued(store, 1)
        assert await cancel_queue(store, added.id, START + 9, limit=3) == 3
        assert await cancel_queue(store, added.id, START + 9, limit=4) == 3
        assert await cancel_queue(store, added.id, START + 9, limit=4) == 0
        assert await states(store, endpoint=added.id) == ["canceled"] * 6
        assert await states(store, endpoint=spared.id) == ["pending"]
        (one, *_) = (await store.deliveries(Query(endpoint=added.id))).data
        assert (one.settled_at, one.next_attempt_at) == (to_datetime(START + 9), None)

    async def test_what_is_under_way_or_came_later_is_not_canceled(self, store: Store) -> None:
        added = await queued(store, 2)
        (claimed,) = await claim(store, limit=1)
        await store.record(arrival_of(OTHER, success(7), expected=2, received_at=START + 1))
        assert await cancel_queue(store, added.id) == 1
        await store.settle(settled(claimed))
        assert sorted(await states(store)) == ["canceled", "pending", "succeeded"]

    async def test_the_held_queue_of_a_disabled_endpoint_can_be_canceled(
        self, store: Store
    ) -> None:
        added = await queued(store, 2)
        await store.set_endpoint_state(added.id, EndpointState.DISABLED, "failing")
        assert await cancel_queue(store, added.id) == 2
        await store.set_endpoint_state(added.id, EndpointState.ENABLED, None)
        assert list(await claim(store)) == []

    async def test_what_waits_in_order_is_canceled_too_and_what_comes_later_goes(
        self, store: Store
    ) -> None:
        await told(store, 1)
        (only,) = (await store.endpoints(Query())).data
        await store.record(
            arrival_of(OTHER, success(7), success(8), expected=3, received_at=START + SECOND)
        )
        assert await cancel_queue(store, only.id) == 2
        assert (await next_of(store, START + SECOND))[1] == "result.succeeded 0"

    async def test_the_queue_of_no_endpoint_can_not_be_canceled(self, store: Store) -> None:
        with pytest.raises(NotFound):
            await cancel_queue(store, "nonsense")
