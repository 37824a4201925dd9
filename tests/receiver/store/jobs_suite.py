"""How every store sends many deliveries again. A store's own test opens it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from receiver import ids
from receiver.clock import HOUR, MINUTE, SECOND, to_datetime
from receiver.deliveries import Failure, State
from receiver.endpoints import State as EndpointState
from receiver.errors import Conflict, NotFound
from receiver.repair import Counted, Job, JobKind, JobState, Repair
from receiver.store.protocol import Claimed, NewJob, Query, Store
from receiver.store.verbs import repairs
from tests.doubles import START, FakeClock, sent
from tests.make import endpoint, settled, success, uuid
from tests.receiver.store.repair_suite import all_deliveries, die
from tests.receiver.store.suite import Opener, arrival_of, claim, queued


def repair(**changes: Any) -> Repair:
    """Dead deliveries, all of them."""
    return Repair(**({"kind": JobKind.RETRY, "states": [State.DEAD]} | changes))


def recovery(endpoint_id: str, since: int = START, **changes: Any) -> Repair:
    """What an endpoint did not get since then."""
    asked: dict[str, Any] = {
        "kind": JobKind.RECOVER,
        "states": [State.DEAD, State.CANCELED],
        "project": "default",
        "endpoint": endpoint_id,
        "since": to_datetime(since),
    }
    return Repair(**(asked | changes))


async def begin(store: Store, asked: Repair, now: int = START, key: str | None = None) -> Job:
    """A job of its own."""
    counted = await store.count_repair(asked)
    job, new = await store.add_job(NewJob(asked, now, counted.count, key))
    assert new
    return job


async def drain(store: Store, clock: FakeClock, job: Job) -> tuple[Job, list[Claimed]]:
    """Step until the job is over, with endpoints that take all that they get."""
    sent: list[Claimed] = []
    for _ in range(500):
        now = clock.advance(SECOND)
        job = (await store.advance_job(job.id, now)).job
        claims = await claim(store, now, 1_000)
        for claimed in claims:
            await store.settle(settled(claimed, now=now))
        sent += claims
        if job.state not in (JobState.QUEUED, JobState.RUNNING) and not claims:
            return job, sent
    raise AssertionError("the job goes on for ever")


@pytest.mark.anyio
class JobsSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    async def test_a_job_of_one_cause_leaves_the_others(
        self, store: Store, clock: FakeClock
    ) -> None:
        await queued(store, 3)
        outcomes = (sent(503), sent(500), sent(None, Failure.DNS))
        for claimed, outcome in zip(await claim(store), outcomes, strict=True):
            await store.settle(settled(claimed, State.DEAD, outcome=outcome))
        for cause, status in ((Failure.STATUS, 503), (Failure.DNS, None)):
            asked = repair(last_error=cause, last_status=status)
            assert (await store.count_repair(asked)).count == 1
            (listed,) = (await store.deliveries(Query(last_error=cause, last_status=status))).data
            assert (listed.last_error, listed.last_status) == (cause, status)
        assert (await store.count_repair(repair(last_error=Failure.STATUS))).count == 2
        assert (await store.count_repair(repair(event_type="result.*,task.*"))).count == 3
        assert (await store.count_repair(repair(event_type="task.*"))).count == 0
        job = await begin(store, repair(last_error=Failure.STATUS, last_status=500))
        _, again = await drain(store, clock, job)
        assert len(again) == 1
        left = (await store.dead_letters(Query())).data
        assert {(one.error, one.status) for one in left} == {("status", 503), ("dns", None)}

    async def test_a_job_sends_all_again_and_says_how_far_it_is(
        self, store: Store, clock: FakeClock
    ) -> None:
        await queued(store, 7)
        dead = {(one.event_id, one.attempt) for one in await die(store)}
        job = await begin(store, repair())
        assert (job.state, job.total, job.done, job.started_at) == (JobState.QUEUED, 7, 0, None)
        done, sent = await drain(store, clock, job)
        assert (done.state, done.done, done.note) == (JobState.DONE, 7, None)
        assert done.started_at is not None
        assert done.finished_at is not None
        assert done.created_at < done.started_at <= done.finished_at
        assert {(one.event_id, one.attempt - 1) for one in sent} == dead
        assert {one.round_attempt for one in sent} == {1}
        assert (await store.dead_letters(Query())).data == []

    async def test_a_job_that_finds_nothing_is_done(self, store: Store, clock: FakeClock) -> None:
        job = await begin(store, repair())
        step = await store.advance_job(job.id, START)
        assert (step.job.state, step.job.done, step.taken) == (JobState.DONE, 0, 0)
        assert (await store.advance_job(job.id, START)).taken == 0
        assert await store.next_job(clock.advance(HOUR)) is None

    async def test_a_step_looks_at_few_whatever_it_looks_for(
        self, store: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store._writer._engine.connection, "patience", 0.0)  # a chunk is a step
        monkeypatch.setattr("receiver.store.verbs.walk.CHUNK", 3)
        await queued(store, 10)
        *others, last = await claim(store)
        for claimed in others:
            await store.settle(settled(claimed))
        await store.settle(settled(last, State.DEAD))
        job = await begin(store, repair(states=[State.DEAD, State.CANCELED]))
        taken = [(await store.advance_job(job.id, clock.advance(SECOND))).taken for _ in range(5)]
        assert taken == [0, 0, 0, 1, 0]
        assert (await store.job(job.id)).state is JobState.DONE

    async def test_an_endpoint_gets_only_a_little_more_than_it_has_under_way(
        self, store: Store, clock: FakeClock
    ) -> None:
        await queued(store, 10, concurrency=2)
        for _ in range(5):
            await die(store)
        job = await begin(store, repair())
        assert (await store.advance_job(job.id, START)).taken == 4
        assert await store.next_job(START + 1) == job.id
        assert (await store.advance_job(job.id, START)).taken == 0  # those wait still
        assert await store.next_job(START + 1) is None
        assert await store.next_job(clock.advance(SECOND)) == job.id
        sending = await claim(store, clock())
        assert len(sending) == 2
        assert (await store.advance_job(job.id, clock())).taken == 2
        for claimed in sending:
            await store.settle(settled(claimed, now=clock()))
        _, sent = await drain(store, clock, job)
        assert len(sent) == 8  # beside the first two

    async def test_what_is_new_waits_for_no_more_than_that(
        self, store: Store, clock: FakeClock
    ) -> None:
        added = await queued(store, 30, concurrency=1)
        for _ in range(30):
            await die(store)
        job = await begin(store, repair())
        await store.advance_job(job.id, START)
        now = clock.advance(SECOND)
        await store.record(arrival_of(uuid(7), success(7), expected=2, received_at=now))
        (fresh,) = [
            one for one in await all_deliveries(store, endpoint=added.id) if one.attempts == 0
        ]
        order: list[str] = []
        while fresh.id not in order:
            await store.advance_job(job.id, now)
            for one in await claim(store, now):
                order.append(ids.delivery_id(one.event_id, one.endpoint_id))
                await store.settle(settled(one, now=now))
            now = clock.advance(SECOND)
        assert len(order) <= 4  # of thirty

    async def test_a_paused_endpoint_is_waited_for_and_in_nobodys_way(
        self, store: Store, clock: FakeClock
    ) -> None:
        held = await queued(store, 3)
        await queued(store, 5)
        await die(store)
        await store.set_endpoint_state(held.id, EndpointState.PAUSED, None)
        job = await begin(store, repair())
        assert job.total == 3 + 5 + 5  # it heard of the other's tasks, too
        for _ in range(3):
            await store.advance_job(job.id, clock.advance(MINUTE))
        job = await store.job(job.id)
        assert (job.state, job.done) == (JobState.RUNNING, 5)
        assert "paused" in (job.note or "")
        assert await store.next_job(clock()) is None
        await store.set_endpoint_state(held.id, EndpointState.ENABLED, None)
        done, _ = await drain(store, clock, job)
        assert (done.state, done.done) == (JobState.DONE, 13)

    @pytest.mark.parametrize("for_one", [True, False], ids=["of one endpoint", "of all"])
    async def test_waiting_for_a_paused_endpoint_costs_a_look_a_minute_and_ends_at_once(
        self, store: Store, clock: FakeClock, for_one: bool
    ) -> None:
        held = await queued(store, 3)
        await die(store)
        await store.set_endpoint_state(held.id, EndpointState.PAUSED, None)
        job = await begin(store, repair(endpoint=held.id if for_one else None))
        assert (await store.advance_job(job.id, clock())).taken == 0
        assert await store.next_job(clock.advance(MINUTE - 1)) is None
        assert await store.next_job(clock() + 1) == job.id
        await store.set_endpoint_state(held.id, EndpointState.ENABLED, None)
        assert await store.next_job(clock()) == job.id
        assert (await store.advance_job(job.id, clock())).taken == 3

    async def test_a_limit_takes_the_oldest(self, store: Store, clock: FakeClock) -> None:
        await queued(store, 5)
        dead = sorted(one.event_id for one in await die(store))
        job = await begin(store, repair(limit=2))
        done, sent = await drain(store, clock, job)
        assert (done.total, done.done) == (2, 2)
        assert [one.event_id for one in sent] == dead[:2]

    async def test_what_dies_again_is_not_sent_once_more_by_the_same_job(
        self, store: Store, clock: FakeClock
    ) -> None:
        await queued(store, 6, concurrency=1)
        for _ in range(6):
            await die(store)
        job = await begin(store, repair())
        attempts: Counter[int] = Counter()
        for _ in range(50):
            now = clock.advance(SECOND)
            await store.advance_job(job.id, now)
            attempts.update(one.event_id for one in await die(store, now))
        job = await store.job(job.id)
        assert (job.state, job.done) == (JobState.DONE, 6)
        assert set(attempts.values()) == {1}

    @pytest.mark.parametrize("state", [State.DEAD, State.SUCCEEDED])
    async def test_who_waits_for_one_endpoint_sends_nothing_twice_to_another(
        self, store: Store, clock: FakeClock, state: State
    ) -> None:
        """The job looks through all of it again and again meanwhile."""
        held, busy = await queued(store, 3), await queued(store, 3)
        for claimed in await claim(store):
            await store.settle(settled(claimed, state))
        await store.set_endpoint_state(held.id, EndpointState.PAUSED, None)
        job = await begin(store, repair(states=[state]))
        sent: list[str] = []
        for _ in range(10):
            now = clock.advance(MINUTE)
            await store.advance_job(job.id, now)
            for claimed in await claim(store, now):
                sent.append(ids.ENDPOINT + ids.encode(claimed.endpoint_id))
                await store.settle(settled(claimed, state, now=now))
        assert sent == [busy.id] * 3
        assert (await store.job(job.id)).state is JobState.RUNNING

    async def test_a_canceled_job_goes_no_further(self, store: Store, clock: FakeClock) -> None:
        await queued(store, 10, concurrency=2)
        for _ in range(5):
            await die(store)
        job = await begin(store, repair())
        await store.advance_job(job.id, START)
        canceled = await store.cancel_job(job.id, clock.advance(SECOND))
        assert (canceled.state, canceled.done) == (JobState.CANCELED, 4)
        assert await store.next_job(clock.advance(HOUR)) is None
        assert (await store.advance_job(job.id, clock())).taken == 0
        for again in (store.cancel_job(job.id, START), store.fail_job(job.id, START, "why")):
            with pytest.raises(Conflict):
                await again
        assert len(await claim(store, clock())) == 2  # what it sent again goes on

    async def test_a_job_that_met_a_defect_is_over_and_says_why(self, store: Store) -> None:
        job = await begin(store, repair())
        failed = await store.fail_job(job.id, START, "a defect")
        assert (failed.state, failed.note) == (JobState.FAILED, "a defect")
        assert await store.next_job(START) is None

    async def test_a_double_click_is_one_job(self, store: Store, clock: FakeClock) -> None:
        await queued(store)
        await die(store)
        job = await begin(store, repair(), key="k")
        for key in ("k", None, "other"):
            again = await store.add_job(NewJob(repair(), START, 1, key))
            assert again == (job, False)
        with pytest.raises(Conflict):
            await store.add_job(NewJob(repair(limit=1), START, 1, "k"))
        await drain(store, clock, job)
        assert (await store.add_job(NewJob(repair(), START, 0, "k")))[1] is False
        other, new = await store.add_job(NewJob(repair(project="p"), START, 0, "k"))
        assert (new, other.id != job.id) == (True, True)  # a key is its project's
        assert (await store.add_job(NewJob(repair(), START, 0, None)))[1] is True

    async def test_two_at_once_are_one_job(self, store: Store) -> None:
        asked = [store.add_job(NewJob(repair(), START, 1, "k")) for _ in range(20)]
        found = await asyncio.gather(*asked)
        assert sum(new for _, new in found) == 1
        assert len({job.id for job, _ in found}) == 1

    async def test_a_job_for_a_deleted_endpoint_is_canceled(
        self, store: Store, clock: FakeClock
    ) -> None:
        added = await queued(store, 10, concurrency=1)
        for _ in range(10):
            await die(store)
        one = await begin(store, repair(endpoint=added.id))
        every = await begin(store, repair())
        await store.advance_job(one.id, START)
        await store.delete_endpoint(added.id, clock.advance(SECOND))
        ended = (await store.advance_job(one.id, clock())).job
        assert (ended.state, ended.done) == (JobState.CANCELED, 2)
        assert "deleted" in (ended.note or "")
        assert (await store.advance_job(every.id, clock())).job.state is JobState.DONE
        assert await claim(store, clock()) == []
        assert {one.state for one in await all_deliveries(store)} == {State.DEAD, State.CANCELED}

    async def test_a_job_goes_on_after_a_restart(
        self, store: Store, open_store: Opener, clock: FakeClock
    ) -> None:
        await queued(store, 12, concurrency=2)
        for _ in range(6):
            await die(store)
        job = await begin(store, repair())
        await store.advance_job(job.id, START)
        await store.close()
        again = await open_store()
        try:
            assert (await again.job(job.id)).done == 4
            assert await again.next_job(clock.advance(SECOND)) == job.id
            done, sent = await drain(again, clock, job)
            assert (done.state, done.done, len(sent)) == (JobState.DONE, 12, 12)
        finally:
            await again.close()

    async def test_jobs_take_turns(self, store: Store, clock: FakeClock) -> None:
        first = await queued(store, 8, concurrency=1)
        other = await queued(store, 1, concurrency=1)
        for _ in range(9):
            await die(store)
        jobs = [await begin(store, repair(endpoint=one.id)) for one in (first, other)]
        turns = []
        for _ in range(2):
            job_id = await store.next_job(clock())
            assert job_id is not None
            turns.append(job_id)
            await store.advance_job(job_id, clock())
            clock.advance(10)
        assert turns == [job.id for job in jobs]

    async def test_jobs_are_listed_page_by_page(self, store: Store) -> None:
        jobs = [await begin(store, repair(limit=n + 1), key=f"{n}") for n in range(3)]
        page = await store.jobs(Query(limit=2))
        assert [job.id for job in page.data] == [jobs[2].id, jobs[1].id]
        rest = await store.jobs(Query(limit=2, before=page.next_cursor))
        assert [job.id for job in rest.data] == [jobs[0].id]
        assert (await store.jobs(Query(project="film"))).data == []
        with pytest.raises(NotFound):
            await store.job("job_0000000000001")
        for verb in (store.cancel_job, store.advance_job):
            with pytest.raises(NotFound):
                await verb("job_0000000000001", START)

    # Which

    async def test_a_job_takes_what_the_list_shows_whatever_is_asked(
        self, store: Store, clock: FakeClock
    ) -> None:
        dice = random.Random(11)
        ends = [await queued(store, 4, concurrency=dice.randrange(1, 4)) for _ in range(3)]
        project = await store.add_endpoint(endpoint("other", event_types=["*"]))
        for _ in range(20):
            now = clock.advance(SECOND)
            for number, claimed in enumerate(await claim(store, now)):
                state = dice.choice([State.DEAD, State.SUCCEEDED, State.DEAD])
                await store.settle(settled(claimed, state, now=now + number % 2))
        clock.advance(SECOND)
        some = (await all_deliveries(store))[3]
        filters: list[dict[str, Any]] = [
            {"state": State.DEAD},
            {"state": State.SUCCEEDED},
            {"state": State.CANCELED},
            {"state": State.DEAD, "endpoint": ends[1].id},
            {"state": State.SUCCEEDED, "task": some.task_id},
            {"state": State.DEAD, "event_type": "result.succeeded"},
            {"state": State.DEAD, "event_type": "task.completed"},
            {"state": State.DEAD, "project": "other"},
            {"state": State.DEAD, "endpoint": project.id},
            {"state": State.DEAD, "since": START + 1},
            {"state": State.SUCCEEDED, "until": START},
        ]
        for asked in filters:
            listed = {one.id: one.attempts for one in await all_deliveries(store, **asked)}
            given = {name: value for name, value in asked.items() if name != "state"}
            for name in ("since", "until"):
                if name in given:
                    given[name] = to_datetime(given[name])
            job = await begin(store, repair(states=[asked["state"]], **given), clock())
            assert job.total == len(listed)
            done, sent = await drain(store, clock, job)
            again = {
                ids.delivery_id(one.event_id, one.endpoint_id): one.attempt - 1 for one in sent
            }
            assert (done.state, done.done) == (JobState.DONE, len(listed))
            assert again == listed

    @pytest.mark.parametrize("asked", [{"task": ""}, {"task": "a"}, {"endpoint": ""}])
    async def test_what_is_no_id_is_not_found(self, store: Store, asked: dict[str, Any]) -> None:
        with pytest.raises(NotFound):
            await store.count_repair(repair(states=[State.SUCCEEDED], **asked))

    @pytest.mark.parametrize("state", [State.SUCCEEDED, State.DEAD])
    async def test_a_pattern_of_types_that_matches_none_counts_none(
        self, store: Store, clock: FakeClock, state: State
    ) -> None:
        await queued(store, 2)
        for claimed in await claim(store, clock()):
            await store.settle(settled(claimed, state, now=clock()))
        asked = repair(states=[state], event_type="result.nothing,")
        assert await store.count_repair(asked) == Counted(count=0, complete=True)
        done, sent = await drain(store, clock, await begin(store, asked, clock()))
        assert (done.state, done.done, sent) == (JobState.DONE, 0, [])

    # Recover

    async def test_a_recovery_sends_what_an_endpoint_did_not_get_since_then(
        self, store: Store, clock: FakeClock
    ) -> None:
        added = await store.add_endpoint(endpoint(event_types=["result.*"]))
        other = await store.add_endpoint(endpoint(event_types=["result.*"]))
        for number in range(6):
            now = clock.advance(MINUTE)
            await store.record(
                arrival_of(uuid(number), success(number), expected=2, received_at=now)
            )
        mine = await all_deliveries(store, endpoint=added.id)
        await store.cancel(mine[0].id, clock())  # the newest
        await die(store, clock())
        await store.retry(mine[1].id, clock())
        for claimed in await claim(store, clock()):
            await store.settle(settled(claimed, now=clock()))  # that one it got
        since, until = START + 2 * MINUTE, START + 6 * MINUTE
        asked = recovery(added.id, since, until=to_datetime(until))
        counted = await store.count_repair(asked)
        assert (counted.count, counted.complete) == (3, True)  # 2, 3 and 4 minutes
        assert (await store.count_repair(recovery(added.id, since))).count == 4
        job = await begin(store, recovery(added.id, since), clock())
        done, sent = await drain(store, clock, job)
        assert (done.done, done.total) == (4, 4)
        assert {one.endpoint_id for one in sent} == {ids.parse(ids.ENDPOINT, added.id)}
        assert {ids.delivery_id(one.event_id, one.endpoint_id) for one in sent} == {
            one.id for one in (mine[0], *mine[2:5])
        }
        assert len(await all_deliveries(store, endpoint=other.id, state=State.DEAD)) == 6

    async def test_a_recovery_of_what_is_missing_makes_the_deliveries_that_are_wanted(
        self, store: Store, clock: FakeClock
    ) -> None:
        await store.add_endpoint(endpoint())
        for number in range(8):
            now = clock.advance(MINUTE)
            model = {"tags": {"team": "film" if number % 2 else "music"}}
            await store.record(
                arrival_of(uuid(number), success(number), expected=2, received_at=now, **model)
            )
        added = await store.add_endpoint(
            endpoint(event_types=["result.*"], filters={"tags.team": "film"}, concurrency=1)
        )
        await store.add_endpoint(endpoint("other"))
        asked = recovery(added.id, START + 3 * MINUTE, missing=True)
        counted = await store.count_repair(asked)
        assert (counted.count, counted.complete) == (3, True)  # 4, 6 and 8 minutes
        assert (await store.count_repair(recovery(added.id, missing=True, limit=2))).count == 2
        early = recovery(added.id, missing=True, until=to_datetime(START + 6 * MINUTE))
        assert (await store.count_repair(early)).count == 2  # 2 and 4 minutes
        job = await begin(store, asked, clock())
        await store.record(
            arrival_of(uuid(9), success(9), expected=2, received_at=clock(), tags={"team": "film"})
        )
        done, sent = await drain(store, clock, job)
        mine = [one for one in sent if ids.ENDPOINT + ids.encode(one.endpoint_id) == added.id]
        assert (done.state, done.done) == (JobState.DONE, 3)
        assert len(mine) == 4  # the new one is none of the job's
        again = await begin(store, recovery(added.id, START, missing=True), clock())
        assert again.total == 1  # that of 2 minutes
        assert (await drain(store, clock, again))[0].done == 1

    async def test_what_is_missing_and_takes_long_to_count_is_not_called_all(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await queued(store, 3)
        added = await store.add_endpoint(endpoint())
        monkeypatch.setattr(repairs, "COUNTING", 0)
        counted = await store.count_repair(recovery(added.id, missing=True))
        assert (counted.count, counted.complete) == (0, False)
