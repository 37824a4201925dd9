"""What every store says of itself in figures, each of them within a bound."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from receiver import ids
from receiver.clock import DAY, HOUR, MINUTE, SECOND, to_datetime
from receiver.deliveries import Failure, State
from receiver.endpoints import Breaker
from receiver.endpoints import State as EndpointState
from receiver.figures import HOURS, EndpointReport, Figure, Overview
from receiver.store.protocol import OverviewAsked, Query, Store
from tests.doubles import START, FakeClock, sent
from tests.make import OTHER, TASK, arrival, endpoint, failure, registration, settled, success, uuid
from tests.receiver.store.suite import LEASE, Opener, arrival_of, claim, overdue, queued


def whole(count: int) -> Figure:
    """A count that is complete."""
    return Figure(count=count, complete=True)


async def overview(store: Store, now: int = START, project: str | None = None) -> Overview:
    return await store.overview(OverviewAsked(now, project))


async def report(store: Store, endpoint_id: str, now: int = START) -> EndpointReport:
    """How one endpoint fared."""
    (found,) = await store.endpoint_reports([endpoint_id], now)
    return found


async def attempt(store: Store, now: int = START, *, took: int = 12, **settling: Any) -> None:
    """Send what is due, all of it ending alike."""
    good = settling.pop("good", True)
    outcome = sent(200) if good else sent(500)
    outcome = type(outcome)(outcome.status, outcome.failure, outcome.detail, took)
    for claimed in await store.claim(now=now, lease_until=now + LEASE, limit=100):
        state = State.SUCCEEDED if good else State.DEAD
        await store.settle(settled(claimed, state, now=now, outcome=outcome, **settling))


@pytest.mark.anyio
class FiguresSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    async def test_nothing_is_none_and_zero(self, store: Store) -> None:
        found = await overview(store)
        assert found.at == to_datetime(START)
        assert found.last_callback_at is None
        assert found.tasks.model_dump() == {
            "open": {"count": 0, "complete": True},
            "overdue": {"count": 0, "complete": True},
        }
        assert (found.results.succeeded, found.results.success_rate) == (0, None)
        assert found.results.since == to_datetime(START - HOUR)
        assert (found.callbacks.outcomes, found.callbacks.repeated) == ({}, whole(0))
        assert (found.queue.waiting, found.queue.held) == (whole(0), 0)
        assert found.queue.oldest_due_at is None
        assert found.attention.dead == whole(0)
        assert found.endpoints.model_dump() == dict.fromkeys(
            ("enabled", "paused", "disabled", "failing"), 0
        )
        assert (found.cost_today.cost, found.cost_today.complete) == (None, True)

    async def test_callbacks_and_results_of_the_last_hour(
        self, store: Store, clock: FakeClock
    ) -> None:
        await store.record(arrival(success(1), received_at=START))
        now = clock.advance(HOUR + MINUTE)
        for number in (2, 3):
            await store.record(arrival_of(uuid(number), success(number), received_at=now))
        await store.record(arrival_of(uuid(4), failure(), received_at=now))
        await store.record(arrival(body=b"{", received_at=now))
        found = await overview(store, now)
        assert found.last_callback_at == to_datetime(now)
        assert (found.results.succeeded, found.results.failed) == (2, 1)
        assert found.results.success_rate == pytest.approx(2 / 3)
        assert found.callbacks.outcomes == {"recorded": 3, "quarantined": 1}
        assert found.attention.quarantined == whole(1)
        later = await overview(store, now + 2 * HOUR)
        assert (later.results.succeeded, later.callbacks.outcomes) == (0, {})
        assert later.attention.quarantined == whole(1)

    async def test_a_repeat_of_an_old_callback_is_the_last_one(
        self, store: Store, clock: FakeClock
    ) -> None:
        await store.record(arrival(success(1)))
        await store.record(arrival_of(uuid(2), success(2)))
        now = clock.advance(2 * HOUR)
        await store.record(arrival(success(1), received_at=now))
        found = await overview(store, now)
        assert found.last_callback_at == to_datetime(now)
        assert found.callbacks.repeated == whole(1)
        assert (await overview(store, now + 2 * HOUR)).callbacks.repeated == whole(0)

    async def test_conflicts_wait_for_a_person(self, store: Store) -> None:
        await store.record(arrival(success(1)))
        await store.record(arrival(success(1, seed=1)))
        found = await overview(store)
        assert found.attention.conflict == whole(1)
        assert found.callbacks.outcomes == {"recorded": 1, "conflict": 1}

    async def test_open_and_overdue_tasks(self, store: Store) -> None:
        await store.register(registration(OTHER))
        await overdue(store, TASK)
        await store.record(arrival_of(uuid(3), success(3)))  # complete
        found = (await overview(store)).tasks
        assert (found.open, found.overdue) == (whole(2), whole(1))
        await store.record(arrival(success()))
        found = (await overview(store)).tasks
        assert (found.open, found.overdue) == (whole(1), whole(0))

    async def test_a_queue_tells_what_is_held_and_since_when_it_is_due(
        self, store: Store, clock: FakeClock
    ) -> None:
        await queued(store, 2)
        held = await queued(store, 1)
        await store.set_endpoint_state(held.id, EndpointState.PAUSED, None)
        now = clock.advance(MINUTE)
        queue = (await overview(store, now)).queue
        # The first endpoint got the event of the second one's task too.
        assert (queue.waiting, queue.held) == (whole(4), 1)
        assert queue.oldest_due_at == to_datetime(START)
        assert (await overview(store, START - 1)).queue.oldest_due_at is None
        await attempt(store, now, good=False)
        assert (await overview(store, now)).attention.dead == whole(3)

    async def test_the_dead_of_a_deleted_endpoint_want_nobody(self, store: Store) -> None:
        gone = await queued(store, 1)
        await queued(store, 2)  # which the first one gets, too
        await attempt(store, START, good=False)
        await store.delete_endpoint(gone.id, START)
        found = (await overview(store)).attention
        assert (found.dead, found.dead_of_deleted) == (whole(2), whole(3))
        dead = (await store.deliveries(Query(state=State.DEAD))).data
        assert {one.endpoint_id for one in dead if one.endpoint_deleted} == {gone.id}
        assert sum(one.endpoint_deleted for one in dead) == 3

    async def test_endpoints_by_state(self, store: Store) -> None:
        for state in (EndpointState.PAUSED, EndpointState.DISABLED, EndpointState.ENABLED):
            added = await store.add_endpoint(endpoint())
            await store.set_endpoint_state(added.id, state, None)
        gone = await store.add_endpoint(endpoint())
        await store.delete_endpoint(gone.id, START)
        found = (await overview(store)).endpoints
        assert (found.enabled, found.paused, found.disabled, found.failing) == (1, 1, 1, 0)

    async def test_an_endpoint_that_answers_nothing_is_failing(
        self, store: Store, clock: FakeClock
    ) -> None:
        await failing(store, clock)
        assert (await overview(store, clock.now)).endpoints.failing == 1

    async def test_what_today_cost_is_of_results_of_today(
        self, store: Store, clock: FakeClock
    ) -> None:
        midnight = START // DAY * DAY
        clock.now = midnight - SECOND
        await store.record(arrival(success(1), expected=2, received_at=midnight - SECOND))
        clock.now = midnight
        await store.record(arrival(success(2, cost=0.25), expected=2, received_at=midnight))
        await store.record(arrival_of(uuid(5), success(3, cost=0.5), received_at=midnight))
        found = (await overview(store, midnight + HOUR)).cost_today
        assert (found.cost, found.complete) == (0.75, True)

    async def test_a_project_sees_its_own(self, store: Store) -> None:
        own = await store.add_endpoint(endpoint("film", event_types=["result.*"]))
        await store.register(registration(TASK, project="film", expected=2))
        await store.record(arrival(success(1), expected=2, project="film"))
        await store.record(arrival_of(uuid(2), success(2, cost=8)))
        await store.record(arrival(body=b"{", task_id=uuid(4)))
        await store.record(arrival(body=b"{", project="film"))
        film, other = [await overview(store, project=name) for name in ("film", "music")]
        everybody = await overview(store)
        assert film.project == "film"
        assert film.last_callback_at == to_datetime(START)
        assert film.results.succeeded == 1
        assert film.callbacks.outcomes == {"recorded": 1, "quarantined": 1}
        assert film.attention.quarantined == whole(1)
        assert (film.queue.waiting, film.endpoints.enabled) == (whole(1), 1)
        assert film.cost_today.cost == pytest.approx(0.4715)
        assert other.last_callback_at is None
        assert (other.results.succeeded, other.callbacks.outcomes) == (0, {})
        assert (other.queue.waiting, other.endpoints.enabled) == (whole(0), 0)
        assert (other.attention.quarantined, other.cost_today.cost) == (whole(0), None)
        assert (other.tasks.open, everybody.tasks.open) == (whole(0), whole(2))
        assert everybody.attention.quarantined == whole(2)
        await store.set_endpoint_state(own.id, EndpointState.PAUSED, None)
        assert (await overview(store, project="film")).queue.held == 1

    async def test_a_report_has_a_strip_of_a_day(self, store: Store, clock: FakeClock) -> None:
        clock.now = (START // HOUR + 1) * HOUR
        begun = clock.now
        added = await queued(store, 2)
        await attempt(store, begun, took=100)
        await store.record(arrival_of(uuid(9), success(9), received_at=clock.advance(2 * HOUR)))
        await attempt(store, clock.now, took=900, good=False)
        found = await report(store, added.id, clock.now)
        assert [hour.at for hour in found.hours][-3:] == [
            to_datetime(begun + hour * HOUR) for hour in range(3)
        ]
        strip = [(hour.succeeded, hour.failed) for hour in found.hours]
        assert strip == [(0, 0)] * (HOURS - 3) + [(2, 0), (0, 0), (0, 1)]
        assert found.attempts == 3
        assert found.success_rate == pytest.approx(2 / 3)
        assert found.p95_ms is not None
        assert 900 <= found.p95_ms <= 900 * 1.2
        assert (found.waiting, found.dead, found.oldest_due_at) == (whole(0), whole(1), None)
        assert found.health.last_success_at == to_datetime(begun)

    async def test_a_report_forgets_after_a_day(self, store: Store, clock: FakeClock) -> None:
        clock.now = (START // HOUR + 1) * HOUR
        added = await queued(store, 1)
        await attempt(store, clock.now)
        assert (await report(store, added.id, clock.now + (HOURS - 1) * HOUR)).attempts == 1
        found = await report(store, added.id, clock.now + HOURS * HOUR)
        assert (found.attempts, found.success_rate, found.p95_ms) == (0, None, None)

    async def test_a_report_tells_what_waits(self, store: Store, clock: FakeClock) -> None:
        added = await queued(store, 3)
        found = await report(store, added.id, clock.advance(MINUTE))
        assert (found.waiting, found.oldest_due_at) == (whole(3), to_datetime(START))
        await store.set_endpoint_state(added.id, EndpointState.PAUSED, None)
        found = await report(store, added.id, clock.now)
        assert (found.state, found.oldest_due_at) == (EndpointState.PAUSED, None)

    async def test_a_report_has_the_breaker(self, store: Store, clock: FakeClock) -> None:
        added = await failing(store, clock)
        assert (await report(store, added, clock.now)).health.breaker is Breaker.OPEN

    async def test_reports_come_in_the_order_asked(self, store: Store) -> None:
        first, second = [(await store.add_endpoint(endpoint())).id for _ in range(2)]
        gone = ids.ENDPOINT + ids.encode(1)
        for asked in ([first, second], [second, gone, first]):
            found = await store.endpoint_reports(asked, START)
            assert [one.id for one in found] == [one for one in asked if one != gone]
        assert list(await store.endpoint_reports([], START)) == []

    async def test_a_store_tells_how_it_fares(self, store: Store) -> None:
        found = await store.condition()
        assert found.engine
        assert found.version
        assert found.schema_version > 0
        assert found.size > 0
        assert found.free is None or found.free > 0
        assert found.refusal is None


async def failing(store: Store, clock: FakeClock) -> str:
    """An endpoint whose breaker has opened."""
    added = await queued(store, 1)
    for number in range(12):
        (delivery,) = (await store.deliveries(Query(endpoint=added.id))).data
        for claimed in await claim(store, clock.advance(MINUTE)):
            outcome = sent(None, Failure.CONNECT)
            await store.settle(settled(claimed, State.DEAD, now=clock.now, outcome=outcome))
            if number < 11:
                await store.retry(delivery.id, clock.now)
    return added.id
