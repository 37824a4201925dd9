"""Somebody sets the machine's clock by an hour while it runs: nothing storms or stalls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from receiver import deadlines, ids
from receiver.admin.ops import Ops, Principal
from receiver.clock import DAY, HOUR, MINUTE, SECOND, Clock
from receiver.deliveries import Outcome
from receiver.delivery.signing import new_secret
from receiver.delivery.worker import Worker
from receiver.errors import TokenExpired, TokenRefused
from receiver.keeping import Keep
from receiver.retention import Retention
from receiver.store.protocol import Query, TaskChange, TasksAsked
from receiver.store.seal import Seal
from receiver.store.sqlite import SqliteStore
from receiver.tasks import SubmitState, TaskSpec
from receiver.tokens import Source, TokenBox
from tests.doubles import START, Dice, ScriptedSender, SteppingClock, sent
from tests.make import KEY, TASK, arrival, claims, endpoint, registration, success

pytestmark = pytest.mark.anyio

SECRET = new_secret(bytes(range(32)))
STEPS = pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])


@dataclass
class Bench:
    """A store and a worker on a machine whose clock can be set."""

    machine: SteppingClock
    clock: Clock
    store: SqliteStore
    sender: ScriptedSender = field(default_factory=ScriptedSender)

    def worker(self, sender: ScriptedSender | None = None) -> Worker:
        return Worker(
            self.store,
            sender or self.sender,
            clock=self.clock,
            wall=self.machine.wall,
            jitter=lambda: 0.5,
            journal=lambda settled: None,
            schedule=(0, 5, 20),
        )


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    machine = SteppingClock()
    clock = machine.steady()
    async with await SqliteStore.open(tmp_path / "db", clock=machine.wall) as store:
        yield Bench(machine, clock, store)


async def deliver(worker: Worker) -> int:
    begun = await worker.tick()
    await worker.drain()
    return begun


@STEPS
async def test_a_send_under_way_is_not_made_twice(bench: Bench, step: int) -> None:
    await bench.store.add_endpoint(endpoint(event_types=["result.*"], secret=SECRET))
    await bench.store.record(arrival(success(), received_at=bench.clock()))
    worker = bench.worker()

    class Stepping(ScriptedSender):
        async def send(self, url: str, body: bytes, headers: dict[str, str]) -> Outcome:
            bench.machine.step(step)
            for _ in range(4):  # as long as an attempt may take
                bench.machine.advance(5 * SECOND)
                assert await other.tick() == 0
            return await super().send(url, body, headers)

    other = bench.worker()
    slow = Stepping()
    assert await deliver(bench.worker(slow)) == 1
    assert await deliver(worker) == 0
    assert len(slow.calls) == 1
    (delivery,) = (await bench.store.deliveries(Query())).data
    assert (delivery.state, delivery.attempts) == ("succeeded", 1)


@STEPS
async def test_a_retry_is_neither_early_nor_late_by_more_than_half(bench: Bench, step: int) -> None:
    bench.sender.outcomes = [sent(500), sent(200)]
    await bench.store.add_endpoint(endpoint(event_types=["result.*"], secret=SECRET))
    await bench.store.record(arrival(success(), received_at=bench.clock()))
    worker = bench.worker()
    assert await deliver(worker) == 1  # again in 5 s
    bench.machine.step(step)
    bench.machine.advance(3 * SECOND)
    assert await deliver(worker) == 0
    bench.machine.advance(7 * SECOND)
    assert await deliver(worker) == 1


@STEPS
async def test_a_lost_send_comes_back_in_time(bench: Bench, step: int) -> None:
    await bench.store.add_endpoint(endpoint(event_types=["result.*"], secret=SECRET))
    await bench.store.record(arrival(success(), received_at=bench.clock()))
    now = bench.clock()
    assert await bench.store.claim(now=now, lease_until=now + 35 * SECOND, limit=9)  # and dies
    bench.machine.step(step)
    worker = bench.worker()
    bench.machine.advance(22 * SECOND)
    assert await deliver(worker) == 0
    bench.machine.advance(50 * SECOND)
    assert await deliver(worker) == 1


@STEPS
async def test_consumers_get_the_time_that_the_machine_believes_in(bench: Bench, step: int) -> None:
    await bench.store.add_endpoint(endpoint(event_types=["result.*"], secret=SECRET))
    await bench.store.record(arrival(success(), received_at=bench.clock()))
    bench.machine.step(step)
    await deliver(bench.worker())
    ((_, _, headers),) = bench.sender.calls
    assert headers["webhook-timestamp"] == str((START + step) // SECOND)


@STEPS
async def test_deadlines_neither_strike_at_once_nor_stand_still(bench: Bench, step: int) -> None:
    soon = bench.clock() + 30 * MINUTE
    await bench.store.register(registration(deadline_at=soon, give_up_at=soon))
    bench.machine.step(step)
    bench.machine.advance(MINUTE)
    assert await deadlines.tick(bench.store, bench.clock) == (0, 0)
    bench.machine.advance(HOUR)
    assert (await deadlines.tick(bench.store, bench.clock))[1] == 1


@STEPS
async def test_a_reconcilers_lease_holds_and_ends(bench: Bench, step: int) -> None:
    now = bench.clock()
    await bench.store.register(registration(deadline_at=now))
    await bench.store.change_task(TaskChange(TASK, now, submit_state=SubmitState.SUBMITTED))
    await bench.store.note_overdue(now)

    async def claim() -> int:
        at = bench.clock()
        asked = TasksAsked(
            now=at, due_by=at, lease_until=at + MINUTE, limit=9, platforms=["runware"]
        )
        return len(await bench.store.claim_tasks(asked))

    assert await claim() == 1
    bench.machine.step(step)
    bench.machine.advance(30 * SECOND)
    assert await claim() == 0
    bench.machine.advance(2 * MINUTE)
    assert await claim() == 1


# Tokens


def verify(machine: SteppingClock, clock: Clock, **minted: int) -> None:
    box = TokenBox([KEY])
    token = box.mint(claims(**minted))
    box.verify(token, platform="runware", tags=[], now=clock(), wall=machine.wall())


def test_tokens_from_before_a_step_are_not_refused_in_bulk() -> None:
    for step in (HOUR, -HOUR):
        machine = SteppingClock()
        clock = machine.steady()
        machine.step(step)
        machine.advance(SECOND)
        # Minted just before, and good for half an hour more.
        verify(machine, clock, issued_at=START, expires_at=START + 30 * MINUTE)
        # Minted by another process of this machine, just after.
        verify(machine, clock, issued_at=machine.wall(), expires_at=machine.wall() + DAY)


def test_what_both_clocks_call_too_old_or_from_the_future_is_refused() -> None:
    for step in (HOUR, -HOUR):
        machine = SteppingClock()
        clock = machine.steady()
        machine.step(step)
        latest, earliest = max(START, machine.wall()), min(START, machine.wall())
        with pytest.raises(TokenRefused):
            verify(machine, clock, issued_at=latest + HOUR, expires_at=latest + DAY)
        with pytest.raises(TokenExpired):
            verify(machine, clock, issued_at=earliest - DAY, expires_at=earliest - HOUR)


@STEPS
async def test_revoking_holds_for_tokens_of_before_and_spares_those_of_after(
    bench: Bench, step: int
) -> None:
    class Anything:
        def check_url(self, url: str) -> None: ...

    box = TokenBox([KEY])
    ops = Ops(
        bench.store,
        box,
        Retention(bench.store, clock=bench.clock, keep=Keep(), journal=lambda _: None),
        public_url="https://hooks.example.com",
        guard=Anything(),
        clock=bench.clock,
        wall=bench.machine.wall,
        random_bytes=Dice().bytes,
        seals=Seal(),
    )
    admin = Principal("admin")
    bench.machine.step(step)

    async def issued() -> int:
        asked = TaskSpec(platform="runware")
        task = await ops.register_task(admin, TASK, asked, Source.CALLBACK)
        query = dict(parse_qsl(urlsplit(task.webhook_url).query))
        now = bench.clock()
        found = box.verify(query["sig"], platform="runware", tags=[], now=now, wall=now + step)
        return found.issued_at

    before = max(await issued(), bench.machine.wall())  # a submitter mints by the wall
    bench.machine.advance(1)
    await ops.revoke_task(admin, TASK)
    bench.machine.advance(1)
    after = await issued()
    (revoked,) = await bench.store._reads.rows("SELECT revoked_at FROM tasks")
    assert before <= revoked[0] < after


async def test_ids_sort_over_a_step_back_and_a_restart(tmp_path: Path) -> None:
    machine, made = SteppingClock(), list[str]()
    for number in range(4):
        async with await SqliteStore.open(tmp_path / "db", clock=machine.wall) as store:
            await store.record(arrival(success(number), expected=9))
            made = [one.id for one in reversed((await store.events(Query())).data)]
        machine.step(-HOUR if number % 2 else HOUR)
    assert len(made) == 4
    assert made == sorted(made)
    assert ids.parse(ids.EVENT, made[0])
