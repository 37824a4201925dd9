"""Two workers over one store: each attempt is sent by one of them, once, whatever they do when."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.clock import DAY, SECOND
from receiver.deliveries import State
from receiver.delivery.guard import Guard
from receiver.delivery.sender import Sender
from receiver.delivery.signing import new_secret
from receiver.delivery.worker import LEASE, Worker
from receiver.store.protocol import Claimed, Query
from receiver.store.sqlite import SqliteStore
from tests.doubles import FakeClock, Heard
from tests.make import endpoint, success, uuid
from tests.receiver.sender.remotes import request, serving
from tests.receiver.store.suite import arrival_of

SECRET = new_secret(bytes(range(32)))
SCHEDULE = (0, 1, 1, 1)
TAKEN = b"HTTP/1.1 204 X\r\n\r\n"
BROKEN = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
LIMIT_S = 60.0


class NotedWorker(Worker):
    """Notes which attempts it makes."""

    def __init__(self, made: Counter[tuple[int, int, int]], *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._made = made

    async def deliver(self, claimed: Claimed) -> None:
        self._made[claimed.event_id, claimed.endpoint_id, claimed.attempt] += 1
        await super().deliver(claimed)


@dataclass
class Pair:
    """Two workers, their store, and a consumer that fails every other time."""

    store: SqliteStore
    clock: FakeClock
    workers: list[NotedWorker]
    made: Counter[tuple[int, int, int]]
    visits: Counter[tuple[str, str]] = field(default_factory=Counter)  # path and webhook-id

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One kept connection."""
        while True:
            heard = Heard(*await request(reader))
            key = heard.head.split(" ")[1], heard.headers["webhook-id"]
            self.visits[key] += 1
            writer.write(TAKEN if self.visits[key] % 2 == 0 else BROKEN)
            await writer.drain()

    async def do(self, step: str) -> None:
        """One thing that happens."""
        one, other = self.workers
        match step:
            case "one ticks":
                await one.tick()
            case "the other ticks":
                await other.tick()
            case "both tick":
                await asyncio.gather(one.tick(), other.tick())
            case "attempts end":
                await asyncio.gather(one.drain(), other.drain())
            case "time passes":
                self.clock.advance(2 * SECOND)
            case "leases lapse":
                self.clock.advance(LEASE)

    async def finish(self) -> None:
        """Until nothing is due any more."""
        while await self.store.next_due() is not None:
            for step in ("both tick", "attempts end", "time passes"):
                await self.do(step)
        await self.do("attempts end")

    async def is_open(self) -> bool:
        """Whether a delivery is not settled."""
        pages = [
            await self.store.deliveries(Query(limit=1, state=state))
            for state in (State.PENDING, State.SENDING)
        ]
        return any(page.data for page in pages)

    async def check(self, *ends: str) -> None:
        """Each attempt was made once, and is one visit and one row."""
        assert set(self.made.values()) <= {1}
        deliveries = (await self.store.deliveries(Query(limit=200))).data
        assert sum(each.attempts for each in deliveries) == self.visits.total() == len(self.made)
        for each in deliveries:
            log = (await self.store.delivery(each.id)).attempt_log or ()
            assert [attempt.number for attempt in log] == list(range(1, each.attempts + 1))
            assert each.state in ends


@asynccontextmanager
async def pair(folder: Path, events: int, lease: int = LEASE) -> AsyncIterator[Pair]:
    clock, made = FakeClock(), Counter[tuple[int, int, int]]()
    guard = Guard([ip_network("127.0.0.0/8")])
    async with (
        await SqliteStore.open(folder / "db", clock=clock) as store,
        Sender(guard) as first,
        Sender(guard) as second,
    ):
        both = [
            NotedWorker(
                made,
                store,
                sender,
                clock=clock,
                wall=clock,
                jitter=lambda: 0.5,
                journal=lambda _: None,
                schedule=SCHEDULE,
                in_flight=4,
                lease=lease,
            )
            for sender in (first, second)
        ]
        here = Pair(store, clock, both, made)
        async with serving(here.serve) as port:
            for name in ("a", "b"):
                url = f"http://127.0.0.1:{port}/{name}"
                await store.add_endpoint(endpoint(secret=SECRET, url=url, concurrency=3))
            for number in range(events):
                await store.record(arrival_of(uuid(number), success(number), expected=2))
            yield here


STEPS = st.sampled_from(
    ["one ticks", "the other ticks", "both tick", "attempts end", "time passes", "leases lapse"]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, max_size=14))
def test_no_order_of_things_sends_an_attempt_twice(steps: list[str]) -> None:
    async def play(folder: Path) -> None:
        async with asyncio.timeout(LIMIT_S), pair(folder, events=4) as here:
            for step in steps:
                await here.do(step)
            await here.finish()
            # Who loses a lease may lose the answer with it, so that a schedule may run out.
            await here.check("succeeded", "dead")

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder)))


@pytest.mark.anyio
async def test_two_loops_share_many_deliveries(tmp_path: Path) -> None:
    # The clock races ahead of the attempts here, and none of them is to lapse.
    async with asyncio.timeout(LIMIT_S), pair(tmp_path, events=90, lease=DAY) as here:
        loops = [asyncio.create_task(worker.run()) for worker in here.workers]
        # Not by what is due: what was claimed a moment ago is neither due nor running yet.
        while await here.is_open():
            here.clock.advance(SECOND)
            await asyncio.sleep(0)
        for loop in loops:
            loop.cancel()
        await asyncio.wait(loops)
        await here.check("succeeded")
        assert here.visits.total() == 360
