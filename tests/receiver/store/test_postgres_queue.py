"""The delivery queue in PostgreSQL while several workers have it: each delivery is one's alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from receiver import ids
from receiver.clock import SECOND
from receiver.deliveries import State
from receiver.delivery.health import BRIEFLY, STRIKES
from receiver.endpoints import Breaker, EndpointPatch
from receiver.endpoints import State as EndpointState
from receiver.store.postgres import PostgresStore
from receiver.store.postgres import store as module
from receiver.store.postgres.presence import LATE, SILENCE
from receiver.store.protocol import Claimed, EndpointChange, Query, Rotation
from tests.doubles import START, FakeClock
from tests.make import TASK, arrival, endpoint, settled, success, uuid
from tests.receiver.store.processes import (
    ask,
    deadlocks,
    gated,
    lost,
    process,
    processes,
    waiting,
)
from tests.receiver.store.suite import LEASE, arrival_of, claim, log_of, queued, states

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _who_beats_was_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 3_600.0)  # a test that takes long is no sign of life


def places(claims: Sequence[Claimed]) -> list[tuple[int, int]]:
    return [(one.event_id, one.endpoint_id) for one in claims]


# Who gets what


async def test_no_two_workers_get_the_same_delivery(both: list[PostgresStore]) -> None:
    for _ in range(3):
        await queued(both[0], 20, concurrency=100)
    claims = await asyncio.gather(*[claim(store, limit=7) for store in both * 6])
    got = [place for found in claims for place in places(found)]
    assert len(got) == len(set(got)) == 12 * 7


async def test_an_endpoints_concurrency_is_that_of_all_workers(both: list[PostgresStore]) -> None:
    await queued(both[0], 12, concurrency=5)
    claims = await asyncio.gather(*[claim(store) for store in both * 2])
    got = [one for found in claims for one in found]
    assert len(got) == 5
    await both[1].settle(settled(got[0]))
    again = await asyncio.gather(*[claim(store) for store in both])
    assert sum(map(len, again)) == 1


async def test_an_endpoints_rate_is_that_of_all_workers(url: str) -> None:
    """Also where one's clock is behind the other's: each would see the time pass anew."""
    clocks = FakeClock(), FakeClock(START - 5 * SECOND)
    async with processes(url, 2, *clocks) as (a, b):
        await queued(a, 40, concurrency=100, rate_limit=4)
        sent = 0
        for step in range(12):  # three seconds
            store, clock = ((a, clocks[0]), (b, clocks[1]))[step % 2]
            now = clock.now + step * 250 + 10 * SECOND
            sent += len(await store.claim(now=now, lease_until=now + LEASE, limit=100))
        assert 8 <= sent <= 4 + 3 * 4


async def test_a_worker_shares_its_own_places_whatever_others_have(
    both: list[PostgresStore],
) -> None:
    """One endpoint may have half of each worker's places, not half of one's."""
    a, b = both
    await queued(a, 80, concurrency=100)
    first = await a.claim(now=START, lease_until=START + LEASE, limit=40, shared=True)
    second = await b.claim(now=START, lease_until=START + LEASE, limit=40, shared=True)
    assert len(first) == len(second) == 20


async def test_one_probe_at_a_time_of_all_workers(both: list[PostgresStore]) -> None:
    a, b = both
    added = await queued(a, 30, concurrency=20)
    now = START
    for claimed in await claim(a, now, limit=STRIKES):
        now += BRIEFLY
        await a.settle(settled(claimed, State.PENDING, now=now, next_attempt_at=now))
    assert (await b.endpoint(added.id)).health.breaker is Breaker.OPEN
    assert not any(await asyncio.gather(*[claim(store, now) for store in both]))
    now += 60 * SECOND
    claims = await asyncio.gather(*[claim(store, now) for store in both * 3])
    assert sum(map(len, claims)) == 1
    (probe,) = [one for found in claims for one in found]
    await b.settle(settled(probe, now=now))
    assert (await a.endpoint(added.id)).health.breaker is Breaker.CLOSED


async def test_a_probes_answer_is_not_overwritten_by_a_claim(
    url: str, both: list[PostgresStore]
) -> None:
    """A claim that begins a probe, while the answer of an earlier attempt is being kept."""
    a, b = both
    added = await queued(a, 30, concurrency=20)
    now = START
    first, *others = await claim(a, now, limit=STRIKES + 1)
    for claimed in others:
        now += BRIEFLY
        await a.settle(settled(claimed, State.PENDING, now=now, next_attempt_at=now))
    now += 60 * SECOND
    with gated(a) as gate:
        answering = asyncio.create_task(a.settle(settled(first, now=now)))
        await gate.reached()
        claiming = asyncio.create_task(claim(b, now))
        await waiting(url)
        gate.open()
        await answering
    await claiming
    assert (await a.endpoint(added.id)).health.breaker is Breaker.CLOSED


# Order


async def test_an_ordered_endpoint_gets_its_order_from_all_workers(
    both: list[PostgresStore],
) -> None:
    a, b = both
    await a.add_endpoint(endpoint(ordered=True, concurrency=50))
    tasks = [uuid(n) for n in range(6)]
    jobs = [
        both[(n + number) % 2].record(arrival_of(task, success(number), expected=4))
        for number in range(4)
        for n, task in enumerate(tasks)
    ]
    recording = asyncio.gather(*jobs)
    begun: dict[str, list[int]] = {task: [] for task in tasks}
    async with asyncio.timeout(30):
        while sum(map(len, begun.values())) < 5 * len(tasks):
            for store, other in ((a, b), (b, a)):
                claims = await claim(store)
                for one in claims:
                    event = await store.event(ids.EVENT + ids.encode(one.event_id))
                    assert event.task_id is not None
                    begun[event.task_id].append(event.seq)
                await asyncio.gather(*[other.settle(settled(one)) for one in claims])
    await recording
    assert all(seqs == sorted(seqs) for seqs in begun.values())
    assert await a.next_due() is None


@pytest.mark.parametrize("settles_first", [True, False])
async def test_a_lane_does_not_stick_when_one_adds_while_another_settles(
    url: str, both: list[PostgresStore], settles_first: bool
) -> None:
    """Neither may rely on what the other one is about to change."""
    a, b = both
    await a.add_endpoint(endpoint(ordered=True))
    await a.record(arrival(success(1), expected=3))
    (first,) = await claim(a)
    actions = [a.settle(settled(first)), b.record(arrival(success(2), expected=3))]
    stores = [a, b]
    if not settles_first:
        actions.reverse()
        stores.reverse()
    with gated(stores[0]) as gate:
        early = asyncio.ensure_future(actions[0])
        await gate.reached()
        late = asyncio.ensure_future(actions[1])
        await waiting(url)
        gate.open()
        await asyncio.gather(early, late)
    (second,) = await claim(b)
    await a.settle(settled(second))
    await a.record(arrival(success(3), expected=3))
    assert len(await claim(a)) == 1


# Who is sent to


async def test_what_one_changes_of_an_endpoint_holds_in_the_others_next_transaction(
    both: list[PostgresStore],
) -> None:
    a, b = both
    added = await a.add_endpoint(endpoint(secret="whsec_b25l", event_types=["result.*"]))

    async def fanned_out(number: int) -> Sequence[Claimed]:
        await b.record(arrival_of(uuid(number), success(number)))
        return await claim(b)

    (claimed,) = await fanned_out(1)
    assert (claimed.url, claimed.secrets) == ("https://example.com/hook", ("whsec_b25l",))
    patch = EndpointPatch(url="https://example.com/moved", concurrency=2)
    await a.change_endpoint(EndpointChange(added.id, patch))
    await a.rotate_secret(Rotation(added.id, "whsec_dHdv", "", START, 60 * SECOND))
    (claimed,) = await fanned_out(2)
    assert claimed.url == "https://example.com/moved"
    assert claimed.secrets == ("whsec_dHdv", "whsec_b25l")
    assert list(await fanned_out(3)) == []  # two are under way
    await b.settle(settled(claimed))
    assert len(await claim(b)) == 1
    await a.set_endpoint_state(added.id, EndpointState.PAUSED, None)
    await b.settle(settled(claimed))
    assert list(await claim(b)) == []
    await a.set_endpoint_state(added.id, EndpointState.ENABLED, None)
    await a.delete_endpoint(added.id, START)
    assert list(await fanned_out(4)) == []
    assert len((await b.deliveries(Query())).data) == 3


async def test_what_was_fanned_out_to_an_endpoint_that_is_being_deleted_is_canceled(
    url: str, both: list[PostgresStore]
) -> None:
    a, b = both
    added = await a.add_endpoint(endpoint(event_types=["result.*"]))
    with gated(b) as gate:
        recording = asyncio.create_task(b.record(arrival(success(1))))
        await gate.reached()
        await a.delete_endpoint(added.id, START)
        gate.open()
        await recording
    assert await states(a) == ["pending"]
    await a.release_lapsed(START + SECOND)
    assert await states(a) == ["canceled"]


async def test_two_who_change_an_endpoint_at_once_both_have_their_change(
    url: str, both: list[PostgresStore]
) -> None:
    a, b = both
    added = await a.add_endpoint(endpoint(secret="whsec_b25l"))
    with gated(a) as gate:
        moving = EndpointChange(added.id, EndpointPatch(url="https://example.com/moved"))
        early = asyncio.create_task(a.change_endpoint(moving))
        await gate.reached()
        naming = EndpointChange(added.id, EndpointPatch(description="the new one"))
        rotating = Rotation(added.id, "whsec_dHdv", "", START, 60 * SECOND)
        late = [
            asyncio.create_task(b.change_endpoint(naming)),
            asyncio.create_task(b.rotate_secret(rotating)),
        ]
        await waiting(url)
        gate.open()
        await asyncio.gather(early, *late)
    found = await a.endpoint(added.id)
    assert (found.url, found.description) == ("https://example.com/moved", "the new one")
    rotations = [
        store.rotate_secret(Rotation(added.id, secret, "", START, 60 * SECOND))
        for store, secret in zip(both, ("whsec_dHJl", "whsec_Zm91"), strict=True)
    ]
    await asyncio.gather(*rotations)
    await a.record(arrival(success(1)))
    secrets = {secret for one in await claim(a) for secret in one.secrets}
    assert secrets >= {"whsec_dHJl", "whsec_Zm91"}


async def test_one_of_two_who_saw_the_same_revision_may_change_it(
    both: list[PostgresStore],
) -> None:
    a, _ = both
    added = await a.add_endpoint(endpoint())
    seen = added.revision
    changes = [
        store.change_endpoint(
            EndpointChange(added.id, EndpointPatch(description=str(store)), revisions=(seen,))
        )
        for store in both
    ]
    found = await asyncio.gather(*changes, return_exceptions=True)
    assert [type(one).__name__ for one in found].count("PreconditionFailed") == 1


# Who is gone


async def beats(stores: Sequence[PostgresStore], clock: FakeClock, ms: int) -> None:
    """Time passes, in which these beat as they should."""
    for _ in range(ms // (5 * SECOND)):
        clock.advance(5 * SECOND)
        for store in stores:
            await store.beat()


async def test_what_a_killed_process_had_is_anybodys_once_it_was_silent(url: str) -> None:
    clock = FakeClock()
    async with processes(url, 2, clock, clock) as (a, b):
        await queued(a, 3)
        killed = await process(url, clock, 3)
        assert len(await claim(killed, clock.now)) == 3
        await lost(killed)
        await beats([a, b], clock, SILENCE)
        assert await b.release_lapsed(clock.now) == 0  # it was there when they looked first
        await beats([a, b], clock, 5 * SECOND)
        assert await b.release_lapsed(clock.now) == 3
        assert await a.release_lapsed(clock.now) == 0
        claims = await claim(a, clock.now)
        assert len(claims) == 3
        await a.settle(settled(claims[0], now=clock.now))
        log = await log_of(a, ids.delivery_id(*places(claims)[0]))
        assert [one.error for one in log] == ["lease_lapsed", None]


async def test_whoever_goes_in_order_hands_over_what_it_had_at_once(url: str) -> None:
    async with processes(url, 2) as (a, b):
        await queued(a, 3)
        assert len(await claim(b)) == 3
        await b.close()
        assert len(await claim(a)) == 3
        ((count,),) = await ask(url, "SELECT count(*) FROM processes")
        assert count == 1


async def test_an_outage_buries_nobody(url: str) -> None:
    """Whoever is first to be back must not take the others for dead, who could not beat either."""
    clock = FakeClock()
    async with processes(url, 2, clock, clock) as (a, b):
        await queued(a, 2)
        await beats([b, a], clock, 3 * SILENCE)
        lease = clock.now + 100 * SILENCE
        claims = await b.claim(now=clock.now, lease_until=lease, limit=100)
        assert len(claims) == 2
        for outage in (LATE, SILENCE - SECOND, SILENCE, 4 * SILENCE):
            clock.advance(outage)
            await a.beat()
            assert await a.release_lapsed(clock.now) == 0
            await beats([a], clock, 10 * SECOND)
            assert await a.release_lapsed(clock.now) == 0
            await beats([b, a], clock, 2 * SILENCE)
        assert await a.release_lapsed(clock.now) == 0
        for claimed in claims:
            await b.settle(settled(claimed, now=clock.now))
        assert await states(a) == ["succeeded"] * 2


async def test_clocks_that_differ_bury_nobody(url: str) -> None:
    clocks = FakeClock(START), FakeClock(START - 10 * SILENCE)
    async with processes(url, 2, *clocks) as (a, b):
        await queued(a, 1)
        assert len(await b.claim(now=START, lease_until=START + 99 * SILENCE, limit=1)) == 1
        for _ in range(12):
            for store, clock in zip((a, b), clocks, strict=True):
                clock.advance(5 * SECOND)
                await store.beat()
        assert await a.release_lapsed(clocks[0].now) == 0


async def test_a_2xx_of_a_process_that_was_taken_for_dead_counts(url: str) -> None:
    """It only hung: what it had is due again, and its answer comes before the next attempt."""
    clock = FakeClock()
    async with processes(url, 2, clock, clock) as (a, hung):
        await queued(a, 2)
        late, again = await claim(hung, clock.now)
        await beats([a], clock, SILENCE + 5 * SECOND)
        assert await a.release_lapsed(clock.now) == 2
        await hung.settle(settled(late, now=clock.now))
        (second,) = await claim(a, clock.now)
        assert places([second]) == places([again])
        await hung.settle(settled(again, now=clock.now))  # and here it has begun
        await a.settle(
            settled(second, State.PENDING, now=clock.now, next_attempt_at=clock.now + SECOND)
        )
        assert await states(a) == ["succeeded"] * 2
        await hung.beat()
        await beats([a, hung], clock, 2 * SILENCE)
        assert await a.release_lapsed(clock.now) == 0


async def test_two_who_look_for_what_lapsed_note_it_once(both: list[PostgresStore]) -> None:
    a, b = both
    await queued(a, 20, concurrency=100)
    await claim(a)
    now = START + LEASE
    counts = await asyncio.gather(*[store.release_lapsed(now) for store in (a, b, a, b)])
    assert sum(counts) == 20
    found = Counter(await states(a))
    assert found == {"pending": 20}


async def test_many_who_record_claim_and_settle_at_once_do_not_deadlock(
    url: str,
) -> None:
    """Everything there is at once, of three processes: each event is sent once to each endpoint."""
    before = await deadlocks(url)
    async with processes(url, 3) as stores:
        for _ in range(3):
            await stores[0].add_endpoint(endpoint(concurrency=50))
        await stores[0].add_endpoint(endpoint(concurrency=50, ordered=True))
        sent: Counter[tuple[int, int]] = Counter()
        over = asyncio.Event()

        async def record(store: PostgresStore, number: int) -> None:
            for task in range(15):
                told = arrival_of(uuid(task), success(number), expected=3)
                await store.record(told)

        async def work(store: PostgresStore) -> None:
            while not over.is_set() or await store.next_due() is not None:
                claims = await claim(store)
                sent.update(places(claims))
                await asyncio.gather(*[store.settle(settled(one)) for one in claims])

        working = [asyncio.create_task(work(store)) for store in stores]
        await asyncio.gather(*[record(store, n) for n, store in enumerate(stores)])
        over.set()
        await asyncio.gather(*working)
        assert set(sent.values()) == {1}
        assert len(sent) == 15 * 4 * 4
        assert set(await states(stores[0])) == {"succeeded"}
    assert await deadlocks(url) == before


async def test_a_frozen_process_does_not_hold_up_the_others(
    url: str, both: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has what all wait for; the server takes that back, and the frozen one tries again."""
    a, b = both
    allowed: list[str] = []

    def freeze() -> None:
        """As if so much time had passed: neither what came before nor the other has so little."""
        connection = a._engine.connection
        query = "SELECT current_setting('idle_in_transaction_session_timeout')"
        allowed.append(connection.execute(query).fetchone()[0])
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
        gate.commit()

    with gated(a) as gate:
        monkeypatch.setattr(a._engine, "commit", freeze)
        frozen = asyncio.create_task(a.record(arrival(success(1), expected=2)))
        await gate.reached()
        await b.record(arrival_of(uuid(7), success(2)))
        gate.open()
        with pytest.raises(Exception, match="could not commit"):
            await frozen
    assert {*allowed} == {"10s"}
    assert (await b.tasks(Query())).data[0].id == uuid(7)
    assert TASK not in [one.id for one in (await a.tasks(Query())).data]
