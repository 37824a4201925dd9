"""What every store must drop when it is old, and what it never may. Its test gives `open_store`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from receiver.callbacks import Outcome
from receiver.clock import DAY, HOUR, to_datetime
from receiver.deliveries import State
from receiver.endpoints import State as EndpointState
from receiver.errors import Invalid, NotFound
from receiver.keeping import Bounds, Keep
from receiver.reconciling import BACKOFF
from receiver.reprocessing import arrivals_of
from receiver.store.protocol import Prune, Query, Reprocessing, Store, TaskChange
from receiver.tokens import Source
from tests.doubles import START, FakeClock
from tests.make import (
    OTHER,
    TASK,
    arrival,
    endpoint,
    failure,
    processing,
    registration,
    settled,
    success,
    uuid,
    wrapped,
)
from tests.receiver.store.suite import (
    Opener,
    arrival_of,
    claim,
    claim_tasks,
    log_of,
    outcomes,
    states,
    types,
)

RAW, EVENTS, TASKS = 30 * DAY, 90 * DAY, 365 * DAY + HOUR


async def drop(
    store: Store, now: int, keep: Keep | None = None, *, dry_run: bool = False
) -> Counter[str]:
    """Everything that is too old at a moment, step by step to the end; what went, by kind."""
    found, bounds = Counter[str](), (keep or Keep()).bounds(now)
    place: tuple[int, ...] = ()
    while True:
        step = await store.prune(Prune(now, bounds, place, dry_run))
        found.update(step.counts)
        if step.place is None:
            del found["freed_bytes"]
            return found
        place = step.place


async def bodies(store: Store) -> list[str | None]:
    """The bodies of all callbacks, oldest first."""
    listed = (await store.callbacks(Query(limit=200))).data
    return [(await store.callback(callback.id)).body for callback in reversed(listed)]


async def send_all(store: Store, now: int, state: State = State.SUCCEEDED) -> None:
    """Claim what is due and settle it."""
    for claimed in await claim(store, now):
        await store.settle(settled(claimed, state, now=now))


async def newest(store: Store, now: int) -> None:
    """Something that happened later: the newest event is never dropped."""
    await store.record(arrival_of(OTHER, success(999), received_at=now))


@pytest.mark.anyio
class PruneSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    # Bodies

    async def test_an_old_body_goes_and_its_callback_stays(self, store: Store) -> None:
        await store.record(arrival(success()))
        (before,) = (await store.callbacks(Query())).data
        assert await drop(store, START + RAW) == {}
        assert await drop(store, START + RAW + 1) == {"bodies": 1}
        callback = await store.callback(before.id)
        assert (callback.body, callback.body_dropped_at) == (None, to_datetime(START + RAW + 1))
        assert (callback.sha256, callback.size) == (before.sha256, before.size)
        assert (callback.outcome, callback.task_id) == (Outcome.RECORDED, TASK)
        assert [result.raw for result in await store.results(TASK)] == [success()]
        assert await drop(store, START + RAW + 2) == {}

    async def test_a_younger_body_stays(self, store: Store, clock: FakeClock) -> None:
        await store.record(arrival(success(1), expected=2))
        later = clock.advance(DAY)
        young = arrival(success(2), received_at=later)
        await store.record(young)
        assert await drop(store, START + RAW + 1) == {"bodies": 1}
        assert await bodies(store) == [None, young.body.decode()]
        assert await drop(store, later + RAW + 1) == {"bodies": 1}

    async def test_a_body_is_dropped_once_wherever_a_prune_begins(self, store: Store) -> None:
        await store.record(arrival(success(1), expected=2))
        await store.record(arrival(success(2)))
        now = START + RAW + 1
        await drop(store, now)
        (callback, *_) = (await store.callbacks(Query())).data
        for again in (now + DAY, now + 2 * DAY):
            step = await store.prune(Prune(again, Keep().bounds(again), (0, 0)))
            assert step.counts == {}
        assert (await store.callback(callback.id)).body_dropped_at == to_datetime(now)

    async def test_the_same_bytes_are_known_when_the_body_is_gone(self, store: Store) -> None:
        await store.add_endpoint(endpoint())
        await store.record(arrival(success()))
        await drop(store, START + RAW + 1)
        receipt = await store.record(arrival(success(), received_at=START + RAW + 2))
        assert receipt.outcome is Outcome.DUPLICATE
        (callback,) = (await store.callbacks(Query())).data
        assert (callback.repeats, callback.body_dropped_at is None) == (1, False)
        assert await types(store) == ["result.succeeded", "task.completed"]

    async def test_what_nobody_could_read_is_kept_until_its_task_goes(self, store: Store) -> None:
        await store.record(arrival(body=b"not json"))
        await store.record(arrival(success()))
        await newest(store, START)
        assert await drop(store, START + RAW + 1) == {"bodies": 2}
        assert await bodies(store) == ["not json", None, None]
        found = await drop(store, START + TASKS + 1)
        assert (found["tasks"], found["callbacks"]) == (1, 2)
        assert await bodies(store) == [None]

    async def test_what_was_read_after_all_is_kept_no_longer(self, store: Store) -> None:
        unread = arrival(body=wrapped(success()))
        assert (await store.record(unread)).outcome is Outcome.QUARANTINED
        now = START + RAW + 1
        assert await drop(store, now) == {}
        callback = await self._read_again(store, now)
        assert await drop(store, now) == {"bodies": 1}
        assert (await store.kept_callback(callback)).body is None

    async def test_what_was_read_in_time_holds_up_nothing(self, store: Store) -> None:
        await store.record(arrival_of(OTHER, success(2)))
        await store.record(arrival(body=wrapped(success())))
        await self._read_again(store, START)
        assert await drop(store, START + RAW + 1) == {"bodies": 2}

    async def _read_again(self, store: Store, now: int) -> str:
        (callback, *_) = (await store.callbacks(Query())).data
        kept = await store.kept_callback(callback.id)
        assert kept.body is not None
        asked = Reprocessing(kept.id, arrivals_of(kept, kept.body, now), now)
        assert (await store.reprocess(asked)).outcome is Outcome.RECORDED
        return callback.id

    async def test_a_body_that_names_no_task_goes_when_a_task_would(self, store: Store) -> None:
        await store.record(arrival(task_id=None, unreadable="names_no_task", body=b"{}"))
        assert await drop(store, START + TASKS) == {}
        assert await bodies(store) == ["{}"]
        assert await drop(store, START + TASKS + 1) == {"callbacks": 1}
        assert await bodies(store) == []

    async def test_the_bodies_of_conflicts_duplicates_and_progress_go(self, store: Store) -> None:
        await store.record(arrival(success(1), expected=3))
        for odd, outcome in (
            (arrival(success(1, cost=9.0)), Outcome.CONFLICT),
            (arrival(success(1, note="x")), Outcome.DUPLICATE),
            (arrival(processing()), Outcome.PROGRESS),
        ):
            assert (await store.record(odd)).outcome is outcome
        assert await drop(store, START + RAW + 1) == {"bodies": 4}

    async def test_what_came_too_late_to_be_taken_is_kept(self, store: Store) -> None:
        await store.record(arrival(success(1), expected=2))
        await store.record(arrival(success(2), expired=True))
        assert await outcomes(store) == ["recorded", "expired"]
        assert await drop(store, START + RAW + 1) == {"bodies": 1}
        assert (await bodies(store))[1] is not None

    async def test_an_orphan_that_came_again_stays(self, store: Store) -> None:
        orphan: dict[str, Any] = {"task_id": None, "unreadable": "names_no_task", "jti": None}
        await store.record(arrival(body=b"{}", **orphan))
        await store.record(arrival(body=b"{}", **orphan, received_at=START + DAY))
        assert await drop(store, START + TASKS + DAY) == {}
        assert await drop(store, START + TASKS + DAY + 1) == {"callbacks": 1}

    async def test_what_counts_is_when_it_was_received(self, store: Store) -> None:
        # A clock that was set leaves ids that are older than what they name, for a day at most.
        for number in range(50):
            at = START + HOUR if number in (1, 45) else START
            await store.record(arrival(success(number), expected=50, received_at=at))
        assert await drop(store, START + RAW + 1) == {"bodies": 48}
        assert await drop(store, START + RAW + 1) == {}
        assert await drop(store, START + RAW + HOUR + 1) == {"bodies": 2}

    async def test_a_clock_that_was_ahead_once_does_not_end_retention(
        self, store: Store, clock: FakeClock
    ) -> None:
        await store.add_endpoint(endpoint(event_types=["result.*"], concurrency=100))
        clock.advance(10 * TASKS)
        await store.record(arrival_of(uuid(1), success(1), received_at=clock()))
        clock.now = START
        for number in range(2, 40):  # their ids go on from where the wrong clock was
            await store.record(arrival_of(uuid(number), success(number), received_at=START))
        await send_all(store, START)
        later = clock.advance(400 * DAY)
        await store.record(arrival_of(uuid(50), success(50), received_at=later))
        found = await drop(store, later)
        assert (found["bodies"], found["attempts"], found["deliveries"]) == (38, 38, 38)
        assert (found["tasks"], found["results"]) == (38, 38)
        assert await drop(store, later) == {}
        assert (await drop(store, later + RAW + 1))["bodies"] == 1

    # Attempts

    async def test_old_attempts_go_and_their_delivery_stays(self, store: Store) -> None:
        await store.add_endpoint(endpoint(event_types=["result.*"]))
        await store.record(arrival(success()))
        await send_all(store, START)
        found = await drop(store, START + RAW + 1)
        assert found == {"bodies": 1, "attempts": 1}
        (delivery,) = (await store.deliveries(Query())).data
        assert (delivery.state, delivery.attempts) == (State.SUCCEEDED, 1)
        assert await log_of(store, delivery.id) == []

    async def test_attempts_of_what_still_waits_stay(self, store: Store) -> None:
        await store.add_endpoint(endpoint(event_types=["result.*"]))
        await store.record(arrival(success()))
        (claimed,) = await claim(store)
        await store.settle(settled(claimed, State.PENDING, next_attempt_at=START + DAY))
        assert (await drop(store, START + TASKS + 1))["attempts"] == 0
        (delivery,) = (await store.deliveries(Query())).data
        assert len(await log_of(store, delivery.id)) == 1

    async def test_a_young_attempt_of_an_old_delivery_stays(
        self, store: Store, clock: FakeClock
    ) -> None:
        await store.add_endpoint(endpoint(event_types=["result.*"]))
        await store.record(arrival(success()))
        await send_all(store, START, State.DEAD)
        later = clock.advance(20 * DAY)
        (delivery,) = (await store.deliveries(Query())).data
        await store.retry(delivery.id, later)
        await send_all(store, later)
        assert (await drop(store, START + RAW + 1))["attempts"] == 1
        assert [attempt.number for attempt in await log_of(store, delivery.id)] == [2]
        assert (await drop(store, later + RAW + 1))["attempts"] == 1

    # Events and deliveries

    async def test_an_event_goes_with_its_deliveries(self, store: Store) -> None:
        await store.add_endpoint(endpoint(event_types=["result.*"]))
        await store.record(arrival(success()))
        await send_all(store, START)
        await newest(store, START)
        await drop(store, START + EVENTS)
        assert len(await types(store)) == 4
        found = await drop(store, START + EVENTS + 1)
        assert (found["events"], found["deliveries"]) == (2, 1)
        assert await types(store) == ["result.succeeded", "task.completed"]
        task = await store.task(TASK)
        assert (task.received, task.succeeded, task.status) == (1, 1, "succeeded")
        assert len(await store.results(TASK)) == 1

    async def test_an_event_that_nobody_wanted_goes(self, store: Store) -> None:
        await store.record(arrival(success()))
        await newest(store, START)
        assert (await drop(store, START + EVENTS + 1))["events"] == 3

    @pytest.mark.parametrize("state", [EndpointState.PAUSED, EndpointState.DISABLED])
    async def test_a_held_queue_is_kept_whatever_its_age(
        self, store: Store, state: EndpointState
    ) -> None:
        added = await store.add_endpoint(endpoint(event_types=["result.*"]))
        await store.record(arrival(success()))
        await newest(store, START)
        await store.set_endpoint_state(added.id, state, "by hand")
        much_later = START + 10 * TASKS
        found = await drop(store, much_later)
        assert (found["deliveries"], found["tasks"]) == (0, 0)
        assert await states(store) == ["pending", "pending"]
        await store.set_endpoint_state(added.id, EndpointState.ENABLED, None)
        claimed = await claim(store, much_later)
        assert [b"result.succeeded" in one.payload for one in claimed] == [True, True]

    async def test_what_is_being_sent_is_kept(self, store: Store) -> None:
        await store.add_endpoint(endpoint(event_types=["result.*"]))
        await store.record(arrival(success()))
        await newest(store, START)
        await claim(store)
        found = await drop(store, START + 10 * TASKS)
        assert (found["deliveries"], found["tasks"]) == (0, 0)
        assert await states(store) == ["sending", "sending"]

    async def test_a_delivery_is_kept_as_long_as_one_beside_it(
        self, store: Store, clock: FakeClock
    ) -> None:
        first = await store.add_endpoint(endpoint(event_types=["result.*"]))
        other = await store.add_endpoint(endpoint(event_types=["result.*"]))
        await store.set_endpoint_state(other.id, EndpointState.PAUSED, "by hand")
        await store.record(arrival(success()))
        await send_all(store, START)
        await store.delete_endpoint(first.id, START)
        assert (await drop(store, START + EVENTS + 1))["deliveries"] == 0
        later = clock.advance(EVENTS)
        await store.delete_endpoint(other.id, later)
        await newest(store, later)
        assert (await drop(store, later + EVENTS))["deliveries"] == 0
        assert (await drop(store, later + EVENTS + 1))["deliveries"] == 2

    async def test_what_settled_late_is_kept_from_then_on(
        self, store: Store, clock: FakeClock
    ) -> None:
        await store.add_endpoint(endpoint(event_types=["result.*"]))
        await store.record(arrival(success()))
        later = clock.advance(80 * DAY)
        await send_all(store, later)
        await newest(store, later)
        assert (await drop(store, later + EVENTS))["deliveries"] == 0
        assert (await drop(store, later + EVENTS + 1))["deliveries"] == 1

    async def test_the_newest_event_stays_so_that_numbers_are_never_used_twice(
        self, store: Store, clock: FakeClock
    ) -> None:
        for number in range(3):
            await store.record(arrival_of(uuid(number), success(number)))
        (last, *_) = (await store.events(Query())).data
        later = clock.advance(10 * TASKS)
        await drop(store, later)
        assert [event.seq for event in (await store.events(Query())).data] == [last.seq]
        await newest(store, later)
        page = await store.events(Query(limit=1))
        assert [event.seq for event in page.data] == [last.seq + 2]
        older = await store.events(Query(before=page.next_cursor))
        assert [event.seq for event in older.data] == [last.seq + 1, last.seq]

    # Nothing goes out twice

    async def test_a_duplicate_of_a_told_result_is_told_to_nobody(self, store: Store) -> None:
        await store.add_endpoint(endpoint())
        await store.record(arrival(success()))
        await send_all(store, START)
        await newest(store, START)
        await drop(store, START + EVENTS + 1)
        again = await store.record(arrival(success(note="x"), received_at=START + EVENTS + 2))
        assert again.outcome is Outcome.DUPLICATE
        assert await types(store, task=TASK) == []
        assert await states(store, task=TASK) == []

    async def test_a_put_queues_nothing_for_events_that_are_gone(self, store: Store) -> None:
        await store.add_endpoint(endpoint(filters={"tags.team": "a"}))
        await store.add_endpoint(endpoint(event_types=["result.*"]))
        await store.record(arrival(success()))
        await send_all(store, START)
        await newest(store, START)
        await drop(store, START + EVENTS + 1)
        await store.register(registration(tags={"team": "a"}, now=START + EVENTS + 2))
        assert await states(store, task=TASK) == []

    async def test_a_late_token_of_a_task_that_is_gone_leaves_nothing(self, store: Store) -> None:
        await store.record(arrival(success()))
        await newest(store, START)
        await drop(store, START + TASKS + 1)
        late = arrival(success(), received_at=START + TASKS + 2, expired=True)
        assert (await store.record(late)).outcome is Outcome.EXPIRED
        with pytest.raises(NotFound):
            await store.task(TASK)
        assert await outcomes(store) == ["recorded"]

    # Tasks

    async def test_an_old_task_goes_with_all_that_is_its(self, store: Store) -> None:
        await store.record(arrival(success(1), failure(), expected=2))
        await store.record(arrival(success(1)))
        await newest(store, START)
        assert (await drop(store, START + TASKS))["tasks"] == 0
        found = await drop(store, START + TASKS + 1)
        assert (found["tasks"], found["results"], found["callbacks"]) == (1, 2, 2)
        with pytest.raises(NotFound):
            await store.task(TASK)
        assert [task.id for task in (await store.tasks(Query())).data] == [OTHER]

    async def test_an_open_task_stays(self, store: Store) -> None:
        await store.record(arrival(success(), expected=2))
        await store.record(arrival(body=b"not json"))
        await newest(store, START)
        assert (await drop(store, START + 10 * TASKS))["tasks"] == 0
        assert (await store.task(TASK)).received == 1
        assert await bodies(store) == [None, "not json", None]

    async def test_a_task_that_a_put_completed_is_as_old_as_that(
        self, store: Store, clock: FakeClock
    ) -> None:
        await store.record(arrival(success(), expected=None))
        later = clock.advance(100 * DAY)
        await store.register(registration(now=later))
        await newest(store, later)
        assert (await drop(store, later + TASKS))["tasks"] == 0
        assert (await drop(store, later + TASKS + 1))["tasks"] == 1

    async def test_a_task_stays_as_long_as_its_events(self, store: Store) -> None:
        await store.record(arrival(success()))
        await newest(store, START)
        for_ever = Keep(events=0)
        assert (await drop(store, START + 10 * TASKS, for_ever))["tasks"] == 0
        assert (await drop(store, START + 10 * TASKS))["tasks"] == 1

    @pytest.mark.parametrize(
        "event", ["late", "repeated", "revoked", "asked", "leased", "last leased", "owed"]
    )
    async def test_a_task_to_which_something_happened_since_stays(
        self, store: Store, clock: FakeClock, event: str
    ) -> None:
        later = START + 100 * DAY
        owed_until = later + TASKS if event == "owed" else None
        await store.register(registration(give_up_at=owed_until))
        await store.record(arrival(success()))
        clock.advance(100 * DAY)
        await self._happen(store, event, later)
        await newest(store, later + 2)
        assert (await drop(store, later + TASKS))["tasks"] == 0
        assert (await store.task(TASK)).complete
        # Times to come lie a little after the moment: of a poll, and of the last token.
        assert (await drop(store, later + TASKS + DAY))["tasks"] == 1
        with pytest.raises(NotFound):
            await store.task(TASK)

    async def _happen(self, store: Store, event: str, now: int) -> None:
        if event == "late":
            await store.record(arrival(success(2), received_at=now))
        elif event == "repeated":
            await store.record(arrival(success(), received_at=now))
        elif event == "revoked":
            await store.revoke_task(TaskChange(TASK, now))
        elif event in ("asked", "leased", "last leased"):
            await store.reconcile_task(TaskChange(TASK, now))
            for _ in range({"asked": 0, "leased": 1}.get(event, len(BACKOFF) + 1)):
                assert await claim_tasks(store, now) == [TASK]
                now += HOUR

    async def test_a_poll_of_an_old_task_finds_it(self, store: Store) -> None:
        # Without it, the poll would make the task anew and tell its results a second time.
        await store.record(arrival(success()))
        await newest(store, START)
        now = START + TASKS + DAY
        await store.reconcile_task(TaskChange(TASK, now))
        await claim_tasks(store, now)
        await drop(store, now)
        receipt = await store.record(arrival(success(), source=Source.POLL, received_at=now))
        assert receipt.outcome is Outcome.DUPLICATE

    # Steps

    async def test_zero_keeps_for_ever(self, store: Store) -> None:
        await store.add_endpoint(endpoint())
        await store.record(arrival(success()))
        await send_all(store, START)
        await newest(store, START)
        assert await drop(store, START + 100 * TASKS, Keep(0, 0, 0)) == {}

    @pytest.mark.parametrize("moments", [(RAW, EVENTS, TASKS), (TASKS,), (EVENTS, TASKS)])
    async def test_a_dry_run_counts_what_goes_and_drops_nothing(
        self, store: Store, moments: Sequence[int]
    ) -> None:
        await store.add_endpoint(endpoint())
        for number in range(30):
            await store.record(arrival_of(uuid(number), success(number)))
        await send_all(store, START)
        await store.record(arrival(task_id=None, unreadable="names_no_task", body=b"{}"))
        for at in moments:
            now = START + at + 1
            counted = await drop(store, now, dry_run=True)
            assert await drop(store, now, dry_run=True) == counted
            assert await drop(store, now) == counted
            assert await drop(store, now) == {}

    async def test_a_dry_run_knows_that_events_may_be_kept_for_longer(self, store: Store) -> None:
        await store.record(arrival(success()))
        await newest(store, START)
        keep, now = Keep(raw=0, events=2 * 365, tasks=365), START + TASKS + 1
        assert await drop(store, now, keep, dry_run=True) == {}
        assert await drop(store, now, keep) == {}

    async def test_a_step_is_small_and_the_next_one_goes_on(self, store: Store) -> None:
        numbers = range(500)
        await asyncio.gather(*[store.record(arrival_of(uuid(n), success(n))) for n in numbers])
        bounds, found, steps = Keep().bounds(START + RAW + 1), Counter[str](), 0
        place: tuple[int, ...] | None = ()
        while place is not None:
            step = await store.prune(Prune(START + RAW + 1, bounds, place))
            assert sum(step.counts.values()) <= 300
            found.update(step.counts)
            place, steps = step.place, steps + 1
        assert (found, steps > 1) == ({"bodies": 500}, True)

    async def test_work_goes_on_between_two_steps(self, store: Store) -> None:
        numbers = range(300)
        await asyncio.gather(*[store.record(arrival_of(uuid(n), success(n))) for n in numbers])
        now = START + TASKS + 1
        bounds = Keep().bounds(now)
        place: tuple[int, ...] | None = ()
        recorded = 1_000
        while place is not None:
            step, receipt = await asyncio.gather(
                store.prune(Prune(now, bounds, place)),
                store.record(arrival_of(uuid(recorded), success(recorded), received_at=now)),
            )
            assert receipt.outcome is Outcome.RECORDED
            place, recorded = step.place, recorded + 1
        kept = {task.id for task in (await store.tasks(Query(limit=200))).data}
        assert kept == {uuid(number) for number in range(1_000, recorded)}

    @pytest.mark.parametrize("place", [(9,), (0, 1, 2), (1, 5), (3, 1, 1), (99, 0)])
    async def test_a_place_that_no_step_gave_is_refused(
        self, store: Store, place: tuple[int, ...]
    ) -> None:
        with pytest.raises(Invalid, match="cursor"):
            await store.prune(Prune(START, Bounds(), place))
