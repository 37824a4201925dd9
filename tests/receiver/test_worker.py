"""The delivery worker, tick by tick, over a real store; only the network is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from receiver import ids
from receiver.clock import DAY, MINUTE, SECOND, from_datetime, to_datetime
from receiver.deliveries import Delivery, Failure, Outcome, State
from receiver.delivery import worker
from receiver.delivery.guard import Guard
from receiver.delivery.sender import Sender
from receiver.delivery.signing import new_secret, verify
from receiver.delivery.worker import LEASE, Worker, check_lease, lease_of
from receiver.endpoints import Breaker, EndpointPatch
from receiver.endpoints import State as EndpointState
from receiver.errors import CannotStart, StoreUnavailable
from receiver.store.protocol import EndpointChange, Query, Settled
from receiver.store.sqlite import SqliteStore
from receiver.store.writer import Transaction
from tests.doubles import START, Consumer, FakeClock, ScriptedSender, consuming, sent
from tests.make import arrival, endpoint, success, uuid
from tests.receiver.store.bench import no_room, until
from tests.receiver.store.suite import arrival_of

SECRET = new_secret(bytes(range(32)))
SCHEDULE = (0, 5, 20)
LIMIT_S = 30.0

pytestmark = pytest.mark.anyio


@dataclass
class Bench:
    """A worker that only moves when told."""

    store: SqliteStore
    clock: FakeClock
    sender: ScriptedSender = field(default_factory=ScriptedSender)
    settled: list[Settled] = field(default_factory=list)

    def worker(self, sender: Any = None, **options: Any) -> Worker:
        return Worker(
            self.store,
            sender or self.sender,
            clock=self.clock,
            wall=options.pop("wall", self.clock),
            jitter=lambda: 0.5,
            journal=lambda settled: self.settled.append(settled),
            schedule=SCHEDULE,
            **options,
        )

    async def deliver(self, worker: Worker) -> int:
        begun = await worker.tick()
        await worker.drain()
        return begun

    async def delivery(self) -> Delivery:
        (found,) = (await self.store.deliveries(Query())).data
        return await self.store.delivery(found.id)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock = FakeClock()
    async with await SqliteStore.open(tmp_path / "db", clock=clock) as store:
        yield Bench(store, clock)


async def due(bench: Bench, deliveries: int = 1, **spec: Any) -> None:
    """An endpoint with so many deliveries waiting."""
    await bench.store.add_endpoint(endpoint(event_types=["result.*"], secret=SECRET, **spec))
    for number in range(deliveries):
        await bench.store.record(arrival_of(uuid(number), success(number), expected=2))


async def test_nothing_to_do_is_done_quietly(bench: Bench) -> None:
    assert await bench.deliver(bench.worker()) == 0
    assert bench.sender.calls == []


async def test_a_due_delivery_is_signed_sent_and_settled(bench: Bench) -> None:
    await due(bench, headers={"X-Team": "a"})
    assert await bench.deliver(bench.worker()) == 1
    ((url, body, headers),) = bench.sender.calls
    delivery = await bench.delivery()
    event = await bench.store.event(delivery.event_id)
    assert url == "https://example.com/hook"
    assert (headers["X-Team"], headers["content-type"]) == ("a", "application/json")
    assert headers["webhook-id"] == event.id
    assert headers["webhook-timestamp"] == str(START // SECOND)
    verify([SECRET], headers, body, now=START // SECOND)
    assert (delivery.state, delivery.attempts) == ("succeeded", 1)
    (journaled,) = bench.settled
    assert (journaled.state, journaled.started_at) == ("succeeded", START)


@pytest.mark.parametrize("way", ["succeeded", "dead", "canceled"])
async def test_what_is_sent_again_by_hand_goes_out_under_its_id(bench: Bench, way: str) -> None:
    bench.sender.outcomes = [sent(204)] if way == "succeeded" else [sent(500)]
    await due(bench, schedule=[0])
    worker, before = bench.worker(), await bench.delivery()
    if way == "canceled":
        await bench.store.cancel(before.id, bench.clock())
    else:
        assert await bench.deliver(worker) == 1
    assert (await bench.delivery()).state == way
    sent_before, bench.sender.outcomes = len(bench.sender.calls), [sent(204)]
    await bench.store.retry(before.id, bench.clock())
    assert await bench.deliver(worker) == 1
    after = await bench.delivery()
    assert [call[2]["webhook-id"] for call in bench.sender.calls[sent_before:]] == [before.event_id]
    assert (after.state, after.attempts) == ("succeeded", sent_before + 1)


async def test_a_failure_follows_the_schedule_with_the_same_id_and_body(bench: Bench) -> None:
    bench.sender.outcomes = [sent(500), sent(None, Failure.TIMEOUT), sent(204)]
    await due(bench)
    worker = bench.worker()
    begun = []
    for ms in (0, 4_999, 1, 19_999, 1, 10**9):
        bench.clock.advance(ms)
        begun.append(await bench.deliver(worker))
    assert begun == [1, 0, 1, 0, 1, 0]
    assert len({(headers["webhook-id"], body) for _, body, headers in bench.sender.calls}) == 1
    stamps = [int(headers["webhook-timestamp"]) for _, _, headers in bench.sender.calls]
    assert stamps == [START // SECOND + wait for wait in (0, 5, 25)]
    assert (await bench.delivery()).state == "succeeded"


@pytest.mark.parametrize("apart", [-DAY // 2, 0, DAY // 2])
async def test_a_date_in_retry_after_goes_by_the_clock_on_the_wall(
    bench: Bench, apart: int
) -> None:
    await due(bench)
    until = formatdate((bench.clock() + apart + MINUTE) // SECOND, usegmt=True)
    bench.sender.outcomes = [replace(sent(503), retry_after=until)]
    await bench.deliver(bench.worker(wall=lambda: bench.clock() + apart))
    minute = to_datetime(START + MINUTE)
    assert (await bench.delivery()).next_attempt_at == minute
    (shown,) = (await bench.store.endpoints(Query())).data
    assert shown.health.held_until == minute


async def test_a_secret_that_can_not_sign_fails_the_attempt_and_says_so(bench: Bench) -> None:
    await bench.store.add_endpoint(endpoint(event_types=["result.*"], secret="whsec_?"))
    await bench.store.record(arrival_of(uuid(0), success(0), expected=2))
    assert await bench.deliver(bench.worker()) == 1
    assert bench.sender.calls == []
    delivery = await bench.delivery()
    (attempt,) = delivery.attempt_log or []
    assert (delivery.state, attempt.error, attempt.status) == ("pending", "signing", None)
    assert "Rotate" in (attempt.detail or "")


async def test_after_the_last_failure_a_delivery_is_dead(bench: Bench) -> None:
    bench.sender.outcomes = [sent(500)]
    await due(bench)
    worker = bench.worker()
    for _ in range(5):
        await bench.deliver(worker)
        bench.clock.advance(MINUTE)
    delivery = await bench.delivery()
    assert (delivery.state, delivery.attempts, delivery.last_error) == ("dead", 3, "status")
    assert len(delivery.attempt_log or ()) == 3


async def test_an_endpoint_may_have_its_own_schedule(bench: Bench) -> None:
    bench.sender.outcomes = [sent(500)]
    await due(bench, schedule=[0])
    await bench.deliver(bench.worker())
    assert (await bench.delivery()).state == "dead"


async def test_a_410_disables_the_endpoint(bench: Bench) -> None:
    bench.sender.outcomes = [sent(410)]
    await due(bench, 3, concurrency=1)
    worker = bench.worker()
    await bench.deliver(worker)
    (shown,) = (await bench.store.endpoints(Query())).data
    assert (shown.state, shown.reason) == (EndpointState.DISABLED, "gone")
    bench.clock.advance(MINUTE)
    assert await bench.deliver(worker) == 0


async def test_a_dead_endpoint_costs_a_probe_now_and_then_and_no_delivery_an_attempt(
    bench: Bench,
) -> None:
    bench.sender.outcomes = [sent(None, Failure.CONNECT)]
    await due(bench, 20, concurrency=10, schedule=[0, 10, 10, 10])
    worker = bench.worker()
    assert [await bench.deliver(worker), await bench.deliver(worker)] == [10, 10]
    begun = []
    for _ in range(10):
        bench.clock.advance(12 * SECOND)  # whatever the jitter, everything is due
        begun.append(await bench.deliver(worker))
    assert begun[:2] == [10, 1]  # at the second round of failures the breaker opens
    assert set(begun[2:]) <= {0, 1}
    (shown,) = (await bench.store.endpoints(Query())).data
    assert shown.health.breaker is Breaker.OPEN
    waiting = (await bench.store.deliveries(Query(state=State.PENDING))).data
    assert sum(delivery.attempts for delivery in waiting) == len(bench.sender.calls)
    assert len(waiting) == 20  # nothing died of the outage


async def test_a_delivery_dies_with_its_schedule_however_long_its_endpoint_is_away(
    bench: Bench,
) -> None:
    bench.sender.outcomes = [sent(500)]
    await due(bench, 30, concurrency=10, schedule=[0, 1, 1])
    worker = bench.worker()
    for _ in range(400):
        await bench.deliver(worker)
        bench.clock.advance(SECOND)
    found = (await bench.store.deliveries(Query())).data
    assert {(delivery.state, delivery.attempts) for delivery in found} == {("dead", 3)}
    assert len(bench.sender.calls) == 90


async def test_the_pause_lasts_until_a_breaker_lets_a_probe_through(bench: Bench) -> None:
    bench.sender.outcomes = [sent(500)]
    await due(bench, 12, concurrency=10, schedule=[0, 10, 10])
    worker = bench.worker()
    for _ in range(3):
        await bench.deliver(worker)
        bench.clock.advance(10 * SECOND)
    (shown,) = (await bench.store.endpoints(Query())).data
    assert shown.health.held_until is not None
    bench.clock.now = from_datetime(shown.health.held_until) - 3 * SECOND
    assert await bench.deliver(worker) == 0
    assert await worker._pause() == 3.0


async def test_no_more_is_claimed_than_can_be_sent_at_once(bench: Bench) -> None:
    await due(bench, 5, concurrency=100)
    stuck = asyncio.Event()

    class Slow(ScriptedSender):
        async def send(self, url: str, body: bytes, headers: dict[str, str]) -> Outcome:
            await stuck.wait()
            return await super().send(url, body, headers)

    worker = bench.worker(Slow(), in_flight=2)
    assert [await worker.tick(), await worker.tick()] == [2, 0]
    stuck.set()
    await worker.drain()
    assert [await bench.deliver(worker), await bench.deliver(worker)] == [2, 1]


async def test_the_lease_of_a_worker_that_died_is_given_to_the_next(bench: Bench) -> None:
    await due(bench)
    await bench.store.claim(now=START, lease_until=START + LEASE, limit=1)
    worker = bench.worker()
    assert await bench.deliver(worker) == 0
    bench.clock.advance(LEASE)
    assert await bench.deliver(worker) == 1
    delivery = await bench.delivery()
    assert [attempt.error for attempt in delivery.attempt_log or ()] == ["lease_lapsed", None]


@pytest.mark.parametrize("deadline_s", [0.25, 20.0, 300.0])
async def test_a_lease_outlives_the_deadline(bench: Bench, deadline_s: float) -> None:
    await due(bench)
    dead = bench.worker(Forgetful(), lease=lease_of(deadline_s))
    assert await bench.deliver(dead) == 1
    heir = bench.worker()
    bench.clock.advance(round(deadline_s * SECOND) + 5 * SECOND)
    assert await bench.deliver(heir) == 0
    bench.clock.advance(lease_of(deadline_s))
    assert await bench.deliver(heir) == 1


@pytest.mark.parametrize("deadline_s", [0.25, 20.0, 300.0])
def test_a_lease_that_an_attempt_could_outlive_is_refused(deadline_s: float) -> None:
    check_lease(lease_of(deadline_s), deadline_s)
    with pytest.raises(CannotStart, match="REELHOOK_DELIVERY_DEADLINE") as caught:
        check_lease(lease_of(deadline_s) - 1, deadline_s)
    assert caught.value.evidence["least_ms"] == lease_of(deadline_s)


class Forgetful(ScriptedSender):
    """Its worker never hears how an attempt ended, as if the process had died."""

    async def send(self, url: str, body: bytes, headers: dict[str, str]) -> Outcome:
        raise asyncio.CancelledError


async def test_an_attempt_that_could_not_be_settled_is_made_again(bench: Bench) -> None:
    await due(bench)
    with ExitStack() as disk:

        class Filling(ScriptedSender):
            async def send(self, url: str, body: bytes, headers: dict[str, str]) -> Outcome:
                disk.enter_context(no_room(bench.store.path))
                bench.clock.advance(LEASE)
                return await super().send(url, body, headers)

        await bench.deliver(bench.worker(Filling()))
        assert bench.settled == []
    await until(lambda: bench.store.healthy)
    bench.clock.advance(LEASE)
    assert await bench.deliver(bench.worker()) == 1
    assert (await bench.delivery()).attempts == 2


async def test_how_an_attempt_went_waits_for_the_disk_as_long_as_its_lease(bench: Bench) -> None:
    await due(bench)
    with ExitStack() as disk:

        class Filling(ScriptedSender):
            async def send(self, url: str, body: bytes, headers: dict[str, str]) -> Outcome:
                disk.enter_context(no_room(bench.store.path))
                return await super().send(url, body, headers)

        sender = Filling()
        worker = bench.worker(sender)
        assert await worker.tick() == 1
        await until(lambda: sender.calls and not bench.store.healthy)
    bench.clock.advance(LEASE - 1)
    await worker.drain()
    assert len(bench.settled) == 1
    delivery = await bench.delivery()
    assert (delivery.state, delivery.attempts) == ("succeeded", 1)
    assert len(sender.calls) == 1


async def heard_within(consumer: Consumer) -> tuple[str, dict[str, str], bytes]:
    async with asyncio.timeout(LIMIT_S):
        found = await consumer.heard.get()
    return found.head.partition(" ")[0], found.headers, found.body


async def test_the_loop_delivers_what_is_recorded_while_it_runs_and_ends_when_told(
    bench: Bench,
) -> None:
    guard = Guard([ip_network("127.0.0.0/8")])
    async with consuming() as consumer, Sender(guard) as sender:
        await bench.store.add_endpoint(endpoint(secret=SECRET, url=consumer.url))
        worker = bench.worker(sender)
        loop = asyncio.create_task(worker.run())
        await bench.store.record(arrival(success()))
        heard = [await heard_within(consumer) for _ in range(2)]
        assert {method for method, _, _ in heard} == {"POST"}
        for _, headers, body in heard:
            verify([SECRET], headers, body, now=START // SECOND)
        await until(lambda: len(bench.settled) == 2)
        assert worker.alive
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop
    assert {found.state for found in (await bench.store.deliveries(Query())).data} == {"succeeded"}


async def test_a_wake_up_at_the_same_moment_does_not_keep_a_worker_from_ending(
    bench: Bench,
) -> None:
    worker = bench.worker()
    loop = asyncio.create_task(worker.run())
    await until(lambda: bench.store._writer.depth == 0 and worker._awake._waiters)
    worker._awake.set()
    loop.cancel()
    async with asyncio.timeout(LIMIT_S):
        await asyncio.wait([loop])
    assert loop.cancelled()


async def test_a_worker_that_stands_still_is_not_alive(bench: Bench) -> None:
    worker = bench.worker()
    assert worker.alive
    bench.clock.advance(MINUTE)
    assert not worker.alive


async def test_a_turn_while_nothing_can_be_stored_is_survived(bench: Bench) -> None:
    await due(bench)
    worker = bench.worker()
    with no_room(bench.store.path):
        assert await worker._turn() == 0
    await until(lambda: bench.store.healthy)
    bench.clock.advance(MINUTE)
    assert await worker._turn() == 1
    await worker.drain()


async def test_a_disk_that_can_not_be_read_gives_up_nothing_that_is_under_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await due(bench)
    sending, answered = asyncio.Event(), asyncio.Event()

    class Slow(ScriptedSender):
        async def send(self, url: str, body: bytes, headers: dict[str, str]) -> Outcome:
            sending.set()
            await answered.wait()
            return await super().send(url, body, headers)

    asked = asyncio.Event()

    async def unreadable() -> int | None:
        asked.set()
        raise StoreUnavailable

    monkeypatch.setattr(bench.store, "next_due", unreadable)
    loop = asyncio.create_task(bench.worker(Slow()).run())
    async with asyncio.timeout(LIMIT_S):
        await sending.wait()
        bench.store._tell(Transaction(bench.store._writer._committer._engine.connection, work=True))
        await asked.wait()
        answered.set()
        await until(lambda: bench.settled)
    assert not loop.done()
    loop.cancel()
    await asyncio.wait([loop])


async def test_an_attempt_that_hangs_delays_no_retry_of_another(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "PAUSE", 3_600.0)  # so that nothing but a look of its own helps

    class Hanging(ScriptedSender):
        async def send(self, url: str, body: bytes, headers: dict[str, str]) -> Outcome:
            self.calls.append((url, body, headers))
            if "hangs" in url:
                bench.clock.advance(5 * SECOND)  # the other's retry is due
                await asyncio.Event().wait()
            return sent(500)

    sender = Hanging()
    await due(bench)
    loop = asyncio.create_task(bench.worker(sender).run())
    await until(lambda: bench.settled)
    hanging = endpoint(event_types=["result.*"], secret=SECRET, url="https://hangs.example/")
    other = (await bench.store.endpoints(Query())).data[0]
    await bench.store.change_endpoint(
        EndpointChange(other.id, EndpointPatch(event_types=["task.*"]), "")
    )
    await bench.store.add_endpoint(hanging)
    await bench.store.record(arrival_of(uuid(9), success(9), expected=2))
    await until(lambda: len(bench.settled) == 2)
    loop.cancel()
    await asyncio.wait([loop])
    assert [url.split("/")[2] for url, _, _ in sender.calls] == [
        "example.com",
        "hangs.example",
        "example.com",
    ]


async def test_the_pause_lasts_until_something_is_due(bench: Bench) -> None:
    worker = bench.worker()
    assert await worker._pause() == 5.0
    bench.sender.outcomes = [sent(500)]
    await due(bench)
    assert await worker._pause() == 0.1
    await bench.deliver(worker)
    assert await worker._pause() == 5.0
    bench.clock.advance(3 * SECOND)
    assert await worker._pause() == 2.0


async def test_every_delivery_has_an_id_of_its_event_and_endpoint(bench: Bench) -> None:
    await due(bench)
    await bench.deliver(bench.worker())
    delivery = await bench.delivery()
    event, number = ids.parse_delivery(delivery.id)
    assert delivery.event_id == ids.EVENT + ids.encode(event)
    assert delivery.endpoint_id == ids.ENDPOINT + ids.encode(number)
