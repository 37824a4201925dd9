"""What every store must do with endpoints that fare badly: throttle, breaker, long failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest

from receiver import ids
from receiver.clock import DAY, HOUR, MINUTE, SECOND, to_datetime
from receiver.deliveries import Failure, Outcome, State
from receiver.delivery.health import BRIEFLY, FIRST_PAUSE, LONG_FAILURE, STRIKES
from receiver.endpoints import Breaker, Endpoint, EndpointHealth, EndpointPatch
from receiver.endpoints import State as EndpointState
from receiver.store.protocol import Claimed, EndpointChange, Query, Store
from tests.doubles import START, FakeClock, sent
from tests.make import endpoint, settled
from tests.receiver.store.suite import LEASE, Opener, claim, queued, states

OPENED = START + BRIEFLY
TIMED_OUT = sent(None, Failure.TIMEOUT)


async def attempt(store: Store, what: Outcome, now: int, limit: int = 100) -> int:
    """Claim, and settle all of it in this way; how much that was. Retries are due at once."""
    claims = await claim(store, now, limit)
    for claimed in claims:
        state = State.SUCCEEDED if what.failure is None else State.PENDING
        due = None if what.failure is None else now
        gone = "gone" if what.status == 410 else None
        news = settled(claimed, state, now=now, outcome=what, next_attempt_at=due, disable=gone)
        await store.settle(news)
    return len(claims)


async def shared(store: Store, limit: int) -> Sequence[Claimed]:
    """What a worker with so many free places gets."""
    return await store.claim(now=START, lease_until=START + LEASE, limit=limit, shared=True)


async def move(store: Store, one: Endpoint) -> None:
    """Give an endpoint another URL."""
    patch = EndpointPatch(url="https://elsewhere.example/")
    await store.change_endpoint(EndpointChange(one.id, patch, ""))


async def fail_until_open(store: Store) -> None:
    """Let the only endpoint fail from START on, until its breaker opens at OPENED."""
    await attempt(store, sent(500), START, limit=1)
    for _ in range(STRIKES - 1):
        await attempt(store, sent(500), OPENED, limit=1)


async def health(store: Store) -> EndpointHealth:
    (only,) = (await store.endpoints(Query())).data
    assert (await store.endpoint(only.id)).health == only.health
    return only.health


@pytest.mark.anyio
class FlowSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    async def test_an_endpoint_that_nothing_was_sent_to_fares_well(self, store: Store) -> None:
        added = await queued(store)
        assert added.health == await health(store)
        assert added.health == EndpointHealth(
            breaker=Breaker.CLOSED,
            consecutive_failures=0,
            failing_since=None,
            concurrency=None,
            held_until=None,
            last_success_at=None,
            last_failure_at=None,
        )

    async def test_health_says_how_the_last_attempts_went(self, store: Store) -> None:
        await queued(store, 2)
        await attempt(store, sent(200), START, limit=1)
        await attempt(store, sent(500), START + 1, limit=1)
        await attempt(store, sent(500), START + 2, limit=1)
        found = await health(store)
        assert (found.breaker, found.consecutive_failures) == (Breaker.CLOSED, 2)
        assert found.failing_since == to_datetime(START + 1)
        assert found.last_success_at == to_datetime(START)
        assert found.last_failure_at == to_datetime(START + 2)

    async def test_what_has_too_much_gets_half_and_then_one_more_a_success(
        self, store: Store
    ) -> None:
        await queued(store, 30, concurrency=8)
        assert await attempt(store, TIMED_OUT, START, limit=1) == 1
        assert (await health(store)).concurrency == 4
        sizes = []
        for n in range(1, 4):
            sizes.append(await attempt(store, sent(200), START + n))
        assert sizes == [4, 8, 8]
        assert (await health(store)).concurrency is None

    async def test_a_throttled_endpoint_is_in_nobodys_way(self, store: Store) -> None:
        await queued(store, 4, concurrency=1)
        await attempt(store, sent(429), START)
        await queued(store, 8, concurrency=8)
        assert len(await claim(store)) == 9

    async def test_retry_after_holds_every_delivery_of_the_endpoint(self, store: Store) -> None:
        await queued(store, 3, concurrency=1)
        busy = Outcome(503, Failure.STATUS, "A sentence.", 1, retry_after="60")
        assert await attempt(store, busy, START) == 1
        assert (await health(store)).held_until == to_datetime(START + MINUTE)
        assert await store.next_due() == START + MINUTE
        assert list(await claim(store, START + MINUTE - 1)) == []
        assert len(await claim(store, START + MINUTE)) == 1

    async def test_retry_after_is_for_one_delivery_where_later_ones_are_taken(
        self, store: Store
    ) -> None:
        await queued(store, 3, concurrency=2)
        refused, taken = await claim(store)
        busy = Outcome(503, Failure.STATUS, "A sentence.", 1, retry_after="60")
        later = START + MINUTE
        await store.settle(settled(refused, State.PENDING, outcome=busy, next_attempt_at=later))
        assert list(await claim(store)) == []
        await store.settle(settled(taken))
        assert len(await claim(store)) == 1

    async def test_a_dead_endpoint_costs_one_probe_at_a_time_and_its_queue_waits(
        self, store: Store
    ) -> None:
        await queued(store, 20, concurrency=10)
        await fail_until_open(store)
        found = await health(store)
        assert (found.breaker, found.concurrency) == (Breaker.OPEN, 1)
        assert found.held_until == to_datetime(OPENED + FIRST_PAUSE)
        assert await store.next_due() == OPENED + FIRST_PAUSE
        assert list(await claim(store, OPENED + FIRST_PAUSE - 1)) == []
        (probe,) = await claim(store, OPENED + FIRST_PAUSE)
        assert (await health(store)).breaker is Breaker.HALF_OPEN
        assert list(await claim(store, OPENED + FIRST_PAUSE)) == []
        now = OPENED + FIRST_PAUSE + SECOND
        failed = settled(probe, State.PENDING, now=now, outcome=sent(500), next_attempt_at=now)
        await store.settle(failed)
        assert (await health(store)).held_until == to_datetime(now + 2 * FIRST_PAUSE)
        made = [one.attempts for one in (await store.deliveries(Query())).data]
        assert sum(made) == STRIKES + 1
        assert await states(store) == ["pending"] * 20

    async def test_a_probe_that_succeeds_lets_the_queue_go_gently(self, store: Store) -> None:
        await queued(store, 20, concurrency=4)
        await fail_until_open(store)
        now = OPENED + FIRST_PAUSE
        sizes = []
        for n in range(6):
            sizes.append(await attempt(store, sent(204), now + n))
        assert sizes == [1, 1, 2, 4, 4, 4]
        assert (await health(store)).breaker is Breaker.CLOSED

    async def test_a_probe_whose_worker_died_is_made_again(self, store: Store) -> None:
        await queued(store, 3)
        await fail_until_open(store)
        now = OPENED + FIRST_PAUSE
        assert len(await claim(store, now)) == 1
        await store.release_lapsed(now + LEASE)
        assert len(await claim(store, now + LEASE - 1)) == 0
        assert len(await claim(store, now + LEASE)) == 1
        assert list(await claim(store, now + LEASE)) == []

    async def test_a_breaker_that_is_open_with_nothing_due_stays_so(self, store: Store) -> None:
        await queued(store)
        await fail_until_open(store)
        (only,) = (await store.deliveries(Query())).data
        await store.cancel(only.id, START)
        assert list(await claim(store, START + HOUR)) == []
        assert (await health(store)).breaker is Breaker.OPEN
        await queued(store)
        assert len((await store.endpoints(Query())).data) == 2

    async def test_how_endpoints_fare_is_there_after_closing_and_opening_again(
        self, open_store: Opener
    ) -> None:
        store = await open_store()
        await queued(store, 3)
        await fail_until_open(store)
        before = await health(store)
        await store.close()
        store = await open_store()
        assert await health(store) == before
        assert list(await claim(store, OPENED + FIRST_PAUSE - 1)) == []
        assert len(await claim(store, OPENED + FIRST_PAUSE)) == 1
        await store.close()

    async def test_five_days_of_failure_disable_and_hold_the_queue(self, store: Store) -> None:
        added = await queued(store, 2)
        await attempt(store, sent(422), START, limit=1)
        await attempt(store, sent(422), START + LONG_FAILURE - 1, limit=1)
        assert (await store.endpoint(added.id)).state is EndpointState.ENABLED
        await attempt(store, sent(422), START + LONG_FAILURE, limit=1)
        shown = await store.endpoint(added.id)
        assert (shown.state, shown.reason) == (EndpointState.DISABLED, "failing")
        assert await states(store) == ["pending", "pending"]
        assert list(await claim(store, START + 9 * DAY)) == []
        assert await store.next_due() is None

    async def test_a_success_begins_the_five_days_anew(self, store: Store) -> None:
        added = await queued(store, 3)
        await attempt(store, sent(500), START, limit=1)
        await attempt(store, sent(200), START + DAY, limit=1)
        await attempt(store, sent(500), START + LONG_FAILURE, limit=1)
        assert (await store.endpoint(added.id)).state is EndpointState.ENABLED

    async def test_enabling_forgets_what_was_and_lets_the_held_queue_go_gently(
        self, store: Store
    ) -> None:
        added = await queued(store, 20, concurrency=4)
        await fail_until_open(store)
        await attempt(store, sent(410), OPENED + FIRST_PAUSE)
        assert (await store.endpoint(added.id)).reason == "gone"
        shown = await store.set_endpoint_state(added.id, EndpointState.ENABLED, None)
        assert (shown.health.breaker, shown.health.consecutive_failures) == (Breaker.CLOSED, 0)
        assert (shown.health.failing_since, shown.health.held_until) == (None, None)
        sizes = []
        for n in range(4):
            sizes.append(await attempt(store, sent(200), OPENED + FIRST_PAUSE + n))
        assert sizes == [1, 2, 4, 4]

    async def test_what_fared_well_before_a_pause_goes_on_as_it_did(self, store: Store) -> None:
        added = await queued(store, 8, concurrency=4)
        await attempt(store, sent(200), START, limit=1)
        await store.set_endpoint_state(added.id, EndpointState.PAUSED, "why")
        await store.set_endpoint_state(added.id, EndpointState.ENABLED, None)
        assert len(await claim(store)) == 4

    async def test_a_410_tells_what_was_disabled_by_hand_nothing_new(self, store: Store) -> None:
        added = await queued(store)
        (claimed,) = await claim(store)
        await store.set_endpoint_state(added.id, EndpointState.DISABLED, "disabled by hand")
        gone = settled(claimed, State.DEAD, outcome=sent(410), disable="gone")
        await store.settle(gone)
        assert (await store.endpoint(added.id)).reason == "disabled by hand"

    async def test_a_patch_leaves_health_as_it_is(self, store: Store) -> None:
        added = await queued(store, 3, concurrency=8)
        await attempt(store, TIMED_OUT, START, limit=1)
        shown = await store.change_endpoint(
            EndpointChange(added.id, EndpointPatch(concurrency=6), "")
        )
        assert shown.health == await health(store)
        assert shown.health.concurrency == 4

    async def test_another_url_is_another_endpoint(self, store: Store) -> None:
        added = await queued(store, 9, concurrency=8)
        await attempt(store, sent(500), START, limit=1)
        busy = Outcome(503, Failure.STATUS, "A sentence.", 1, retry_after="3600")
        await attempt(store, busy, START, limit=1)
        assert list(await claim(store, START + MINUTE)) == []
        await move(store, added)
        found = await health(store)
        assert (found.held_until, found.failing_since) == (None, None)
        assert found.last_failure_at == to_datetime(START)
        assert len(await claim(store, START + MINUTE)) == 1  # one by one at first, as enabled ones

    async def test_what_the_last_url_answers_says_nothing_of_the_new_one(
        self, store: Store
    ) -> None:
        added = await queued(store, 8, concurrency=8)
        gone, bad, good, _ = await claim(store, limit=4)
        await move(store, added)
        await store.settle(
            settled(gone, State.PENDING, outcome=sent(410), next_attempt_at=START, disable="gone")
        )
        await store.settle(settled(bad, State.PENDING, next_attempt_at=START))
        await store.settle(settled(good))
        shown = await store.endpoint(added.id)
        assert (shown.state, shown.reason) == (EndpointState.ENABLED, None)
        assert shown.health == added.health
        assert Counter(await states(store)) == {"pending": 6, "succeeded": 1, "sending": 1}

    async def test_attempts_of_many_endpoints_in_one_batch_are_told_apart(
        self, store: Store
    ) -> None:
        well, ill = await queued(store, 2), await queued(store, 2)
        for claimed in await claim(store):
            is_ill = claimed.endpoint_id == ids.parse(ids.ENDPOINT, ill.id)
            state = State.PENDING if is_ill else State.SUCCEEDED
            due = START if is_ill else None
            await store.settle(settled(claimed, state, next_attempt_at=due))
        assert (await store.endpoint(ill.id)).health.consecutive_failures == 2
        assert (await store.endpoint(well.id)).health.consecutive_failures == 0

    async def test_who_may_have_a_thousand_at_once_leaves_as_many_places_as_it_gets(
        self, store: Store
    ) -> None:
        greedy = await queued(store, 40, concurrency=1_000)
        assert len(await shared(store, 32)) == 16
        assert await shared(store, 16) == []
        modest = await queued(store, 12)
        found = Counter(one.endpoint_id for one in await shared(store, 16))
        assert found == {ids.parse(ids.ENDPOINT, modest.id): 10}
        found = Counter(one.endpoint_id for one in await claim(store))  # a worker for it alone
        assert found == {ids.parse(ids.ENDPOINT, greedy.id): 40 + 12 - 16}

    async def test_ten_at_once_are_nobodys_loss(self, store: Store) -> None:
        await queued(store, 20, concurrency=100)
        assert len(await shared(store, 8)) == 8
        assert len(await shared(store, 4)) == 2

    async def test_a_scarce_place_goes_round_those_that_wait_and_no_others(
        self, store: Store
    ) -> None:
        idle = endpoint(event_types=["task.overdue"])
        for _ in range(4):
            await store.add_endpoint(idle)
        waiting = [await queued(store, 5), await queued(store, 5)]
        for _ in range(4):
            await store.add_endpoint(idle)
        found = [one.endpoint_id for _ in range(6) for one in await shared(store, 1)]
        assert found == [ids.parse(ids.ENDPOINT, one.id) for one in waiting] * 3
