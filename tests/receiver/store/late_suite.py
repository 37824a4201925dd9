"""What every store must do with news of an attempt whose lease had lapsed: no send without need."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from receiver import ids
from receiver.deliveries import State
from receiver.store.protocol import Claimed, Query, Settled, Store
from tests.doubles import START, FakeClock, sent
from tests.make import endpoint, settled
from tests.receiver.store.order_suite import next_of, told
from tests.receiver.store.suite import LEASE, Opener, claim, log_of, queued, states

LAPSED = START + LEASE
LATER = LAPSED + LEASE


def failed(claimed: Claimed, state: State = State.PENDING, now: int = LAPSED) -> Settled:
    due = now if state is State.PENDING else None
    return settled(claimed, state, now=now, outcome=sent(500), next_attempt_at=due)


async def two_under_way(store: Store) -> tuple[Claimed, Claimed]:
    """The first attempt's lease has lapsed, and the second one has begun."""
    (first,) = await claim(store)
    await store.release_lapsed(LAPSED)
    (second,) = await claim(store, LAPSED)
    return first, second


@pytest.mark.anyio
class LateSuite:
    """The behaviour. A concrete test class provides `open_store`."""

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.mark.parametrize("end", [State.PENDING, State.DEAD])
    async def test_after_a_2xx_that_came_late_a_failure_leads_to_no_other_attempt(
        self, store: Store, end: State
    ) -> None:
        await queued(store)
        first, second = await two_under_way(store)
        await store.settle(settled(first, now=LAPSED))
        assert await states(store) == ["sending"]
        await store.settle(failed(second, end))
        (shown,) = (await store.deliveries(Query())).data
        assert (shown.state, shown.last_error, shown.last_status) == ("succeeded", None, 200)
        assert shown.first_succeeded_at == shown.settled_at
        assert list(await claim(store, LATER)) == []
        assert [one.status for one in await log_of(store, shown.id)] == [200, 500]

    async def test_nobody_is_told_that_what_is_spared_was_exhausted(self, store: Store) -> None:
        await queued(store)
        await store.add_endpoint(endpoint(event_types=["delivery.*"]))
        first, second = await two_under_way(store)
        await store.settle(settled(first, now=LAPSED))
        await store.settle(failed(second, State.DEAD))
        assert len((await store.deliveries(Query())).data) == 1

    async def test_nor_does_a_lease_that_lapses(self, store: Store) -> None:
        await queued(store)
        first, _ = await two_under_way(store)
        await store.settle(settled(first, now=LAPSED))
        assert await store.release_lapsed(LATER) == 1
        assert await states(store) == ["succeeded"]
        assert list(await claim(store, LATER)) == []

    async def test_a_2xx_of_the_first_counts_after_the_second_failed_too(
        self, store: Store
    ) -> None:
        await queued(store)
        first, second = await two_under_way(store)
        await store.settle(failed(second))
        await store.settle(settled(first, now=LAPSED))
        assert await states(store) == ["succeeded"]

    async def test_a_retry_by_hand_is_not_answered_by_what_was_sent_before_it(
        self, store: Store
    ) -> None:
        await queued(store)
        (first,) = await claim(store)
        await store.release_lapsed(LAPSED)
        name = ids.delivery_id(first.event_id, first.endpoint_id)
        await store.cancel(name, LAPSED)
        await store.retry(name, LAPSED)
        await store.settle(settled(first, now=LAPSED))
        assert await states(store) == ["pending"]
        (again,) = await claim(store, LAPSED)
        await store.settle(failed(again))
        assert await states(store) == ["pending"]

    async def test_a_failure_that_came_late_moves_nothing(self, store: Store) -> None:
        await queued(store)
        first, second = await two_under_way(store)
        await store.settle(failed(first, State.DEAD))
        assert await states(store) == ["sending"]
        await store.settle(settled(second, now=LAPSED))
        assert await states(store) == ["succeeded"]

    @pytest.mark.parametrize("end", ["fails", "lapses"])
    async def test_the_next_in_order_goes_when_one_is_spared(self, store: Store, end: str) -> None:
        await told(store, 2)
        first, _ = await next_of(store)
        await store.release_lapsed(LAPSED)
        second, _ = await next_of(store, LAPSED)
        await store.settle(settled(first, now=LAPSED))
        if end == "fails":
            await store.settle(failed(second))
        else:
            await store.release_lapsed(LATER)
        assert (await next_of(store, LATER))[1] == "result.succeeded 1"
