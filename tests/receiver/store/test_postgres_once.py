"""What several processes may ask of a PostgreSQL at once, and one of them gets."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

from receiver import ids
from receiver.clock import DAY, MINUTE, SECOND
from receiver.deliveries import State
from receiver.endpoints import State as EndpointState
from receiver.errors import Conflict, KeyInUse
from receiver.keeping import Bounds, Keep
from receiver.repair import JobState
from receiver.store.postgres import PostgresStore
from receiver.store.protocol import Holder, NewJob, NewLogin, Prune, Query, Replay, TaskChange
from receiver.store.verbs import jobs
from receiver.store.verbs.walk import Walk
from tests.doubles import START
from tests.make import TASK, arrival, endpoint, registration, settled, success, uuid
from tests.receiver.store.access_suite import once
from tests.receiver.store.jobs_suite import begin, repair
from tests.receiver.store.processes import (
    LIMIT_S,
    ask,
    briefly,
    deadlocks,
    gated,
)
from tests.receiver.store.suite import arrival_of, claim, claim_tasks, overdue, queued

pytestmark = pytest.mark.anyio


async def test_one_of_two_requests_with_a_key_does_the_work(both: list[PostgresStore]) -> None:
    first = [store.begin_once(once()) for store in both * 4]
    found = await asyncio.gather(*first, return_exceptions=True)
    assert Counter(type(one) for one in found) == {type(None): 1, KeyInUse: 7}
    later = [store.begin_once(once(START + MINUTE)) for store in both * 2]
    found = await asyncio.gather(*later, return_exceptions=True)  # whoever had it is gone
    assert Counter(type(one) for one in found) == {type(None): 1, KeyInUse: 3}


async def test_a_login_link_is_burnt_by_one(both: list[PostgresStore]) -> None:
    digest = bytes(32)
    await both[0].add_login(NewLogin(digest, "admin", START, START + MINUTE))
    found = await asyncio.gather(*[store.take_login(digest, START) for store in both * 4])
    assert Counter(found) == {Holder("admin"): 1, None: 7}


async def test_a_task_that_is_due_is_one_pollers(both: list[PostgresStore]) -> None:
    a, b = both
    for number in range(20):
        await overdue(a, uuid(number))
    claims = await asyncio.gather(*[claim_tasks(store, limit=6) for store in (a, b, a, b)])
    got = [task for found in claims for task in found]
    assert len(got) == len(set(got)) == 20


async def test_a_job_that_two_advance_sends_nothing_twice(
    url: str, both: list[PostgresStore]
) -> None:
    a, b = both
    before = await deadlocks(url)
    await queued(a, 30, concurrency=40)
    for claimed in await claim(a):
        await a.settle(settled(claimed, State.DEAD))
    asked = NewJob(repair(), START, 30, None)
    with gated(a) as gate:
        adding = [asyncio.create_task(store.add_job(asked)) for store in both]
        await gate.reached()
        await briefly(adding[1])
        gate.open()
        found = await asyncio.gather(*adding)
    assert sorted(new for _, new in found) == [False, True]
    assert len({job.id for job, _ in found}) == 1
    job, _ = found[0]
    await ask(url, "UPDATE jobs SET state = 'running'")  # its start alone would hold its row
    with gated(a) as gate:
        early = asyncio.create_task(a.advance_job(job.id, START))
        await gate.reached()
        late = asyncio.create_task(b.advance_job(job.id, START))
        await briefly(late)
        gate.open()
        await asyncio.gather(early, late)
    assert (await b.job(job.id)).state is JobState.DONE
    assert (await b.job(job.id)).done == 30
    resends = await ask(url, "SELECT event_id FROM resends")
    assert len(resends) == len(set(resends)) == 30
    assert await deadlocks(url) == before


async def test_a_job_that_is_being_canceled_takes_no_step_more(both: list[PostgresStore]) -> None:
    a, b = both
    await queued(a, 30, concurrency=5)
    while await _settled_dead(a):
        pass
    job = await begin(a, repair())
    assert (await b.advance_job(job.id, START + SECOND)).taken > 0
    await _settled_dead(b)
    with gated(a) as gate:
        canceling = asyncio.create_task(a.cancel_job(job.id, START + SECOND))
        await gate.reached()
        stepping = asyncio.create_task(b.advance_job(job.id, START + 2 * SECOND))
        await briefly(stepping)
        gate.open()
        assert (await canceling).state is JobState.CANCELED
    assert (await stepping).taken == 0
    with pytest.raises(Conflict):
        await a.cancel_job(job.id, START + SECOND)


async def _settled_dead(store: PostgresStore) -> list[str]:
    claims = await claim(store)
    for claimed in claims:
        await store.settle(settled(claimed, State.DEAD))
    return [ids.EVENT + ids.encode(one.event_id) for one in claims]


async def test_a_job_is_woken_by_an_endpoint_that_is_enabled_while_it_steps(
    both: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has seen that the endpoint is paused, and is about to wait for long."""
    a, b = both
    added = await queued(a, 3)
    await _settled_dead(a)
    await a.set_endpoint_state(added.id, EndpointState.PAUSED, None)
    job, now = await begin(a, repair()), START + SECOND
    await a.advance_job(job.id, START)  # it runs, and its start holds its row no more
    reached, go_on, pause = threading.Event(), threading.Event(), jobs._pause

    def paused(walk: Walk) -> int:
        reached.set()
        assert go_on.wait(LIMIT_S)
        return pause(walk)

    monkeypatch.setattr(jobs, "_pause", paused)
    stepping = asyncio.create_task(a.advance_job(job.id, now))
    assert await asyncio.to_thread(reached.wait, LIMIT_S)
    enabling = asyncio.create_task(b.set_endpoint_state(added.id, EndpointState.ENABLED, None))
    await briefly(enabling)
    go_on.set()
    await asyncio.gather(stepping, enabling)
    assert await a.next_job(now + SECOND) == job.id


async def _pruned(store: PostgresStore, now: int, bounds: Bounds) -> Counter[str]:
    counts: Counter[str] = Counter()
    place: tuple[int, ...] | None = ()
    while place is not None:
        step = await store.prune(Prune(now, bounds, place))
        counts.update(step.counts)
        place = step.place
    return counts


async def test_two_who_prune_drop_each_thing_once(url: str, both: list[PostgresStore]) -> None:
    a, _ = both
    await a.add_endpoint(endpoint())
    for number in range(40):
        await a.record(arrival_of(uuid(number), success(1)))
    await ask(url, "UPDATE deliveries SET state = 'succeeded', settled_at = 1")
    now = START + 500 * DAY
    found = await asyncio.gather(*[_pruned(store, now, Keep().bounds(now)) for store in both])
    total = found[0] + found[1]
    assert total["tasks"] == 39  # the newest event stays, and with it its task
    assert total["events"] == 79
    assert total["results"] == 39


async def test_a_prune_leaves_what_somebody_begins_to_need(
    url: str, both: list[PostgresStore]
) -> None:
    """An event that is being sent again, and a task whose late result is being kept."""
    a, b = both
    await a.add_endpoint(endpoint(event_types=["result.*"]))
    for number in range(3):
        await a.record(arrival_of(uuid(number), success(1)))
    await _settled_dead(a)
    now = START + 500 * DAY
    with gated(a) as gate:
        (dead,) = [one for one in (await a.deliveries(Query())).data if one.task_id == uuid(0)]
        sending = asyncio.create_task(a.retry(dead.id, now))
        await gate.reached()
        await _pruned(b, now, Keep().bounds(now))
        gate.open()
        await sending
    assert (await a.event(dead.event_id)).id == dead.event_id
    (claimed,) = await claim(a, now)
    assert ids.EVENT + ids.encode(claimed.event_id) == dead.event_id


async def test_a_late_result_is_not_pruned_with_its_task(
    url: str, both: list[PostgresStore]
) -> None:
    a, b = both
    await a.record(arrival(success(1)))
    await a.record(arrival_of(uuid(9), success(1)))
    now = START + 500 * DAY
    await ask(url, "DELETE FROM events WHERE seq < (SELECT max(seq) FROM events)")
    with gated(a) as gate:
        recording = asyncio.create_task(a.record(arrival(success(2), received_at=now)))
        await gate.reached()
        await _pruned(b, now, Keep().bounds(now))
        gate.open()
        await recording
    assert (await b.task(TASK)).received == 2
    assert len(await b.results(TASK)) == 2


async def test_a_put_meets_a_prune_of_its_events(url: str, both: list[PostgresStore]) -> None:
    """It may give them deliveries: none of those may be left without its event."""
    a, b = both
    await a.record(arrival(success(1)))
    await a.record(arrival_of(uuid(9), success(1)))
    now = START + 500 * DAY
    with gated(a) as gate:
        asked = registration(TASK, now=now, expected=1, model="pixverse:1@6")
        putting = asyncio.create_task(a.register(asked))
        await gate.reached()
        await _pruned(b, now, Keep().bounds(now))
        gate.open()
        await putting
    assert len((await b.events(Query(task=TASK))).data) == 2


async def test_a_replay_meets_the_deletion_of_its_endpoint(both: list[PostgresStore]) -> None:
    a, b = both
    added = await a.add_endpoint(endpoint(event_types=["result.*"]))
    await a.record(arrival(success(1)))
    await _settled_dead(a)
    (event,) = (await a.events(Query(event_type="result.succeeded"))).data
    with gated(a) as gate:
        replaying = asyncio.create_task(a.replay(Replay(event.id, START)))
        await gate.reached()
        deleting = asyncio.create_task(b.delete_endpoint(added.id, START))
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(replaying, deleting)
    await b.release_lapsed(START + SECOND)
    assert [one.state.value for one in (await a.deliveries(Query())).data] == ["canceled"]


async def test_one_who_revokes_and_one_who_records_leave_both(both: list[PostgresStore]) -> None:
    a, b = both
    await a.record(arrival(success(1), expected=4))
    await asyncio.gather(
        a.revoke_task(TaskChange(TASK, START + SECOND)),
        b.record(arrival(success(2), expected=4, issued_at=START + MINUTE)),
    )
    assert (await a.task(TASK)).received == 2
    late = await b.record(arrival(success(3), expected=4, issued_at=START))
    assert late.outcome.value == "revoked"
