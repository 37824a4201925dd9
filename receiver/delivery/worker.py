"""Floor 3, flows: the delivery worker: claim, sign, send, decide, settle.

The loop is thin: `tick` claims once and starts what it got; `deliver` is one attempt. The store is
the truth, a wake-up is only a hint, so a lost hint costs a pause and never a delivery.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from receiver import ids
from receiver.clock import MINUTE, SECOND, Clock
from receiver.deliveries import Failure, Outcome
from receiver.delivery.health import longest_pause
from receiver.delivery.policy import SCHEDULE, decide, undated
from receiver.delivery.signing import SignatureRefused, sign
from receiver.errors import CannotStart, StoreUnavailable
from receiver.store.protocol import Claimed, Settled, Store
from receiver.tracing import HEADER, HEADERS, SPAN_BYTES, child

IN_FLIGHT: Final = 256
PAUSE: Final = 5.0  # seconds between looks when nobody wakes us
SETTLE_PAUSE: Final = 0.5  # seconds between tries to keep how an attempt went
SHORT_PAUSE: Final = 0.1  # something was begun, or is due while its endpoint has no room for it
COMMIT: Final = 15 * SECOND  # what a lease grants to lookups of the store and to a slow commit


def lease_of(deadline_s: float) -> int:
    """Milliseconds that a delivery is leased for, so that no attempt outlives its lease."""
    return round(deadline_s * SECOND) + COMMIT


LEASE: Final = lease_of(20.0)


def check_lease(lease: int, deadline_s: float) -> None:
    """Raises CannotStart for a lease that an attempt could outlive: it would be made twice at once.

    `lease` is in milliseconds, `deadline_s` what the sender grants an attempt.
    """
    least = lease_of(deadline_s)
    if lease < least:
        raise CannotStart(
            f"A delivery is leased for {lease / SECOND:g} s, but an attempt may take"
            f" {deadline_s:g} s and its commit {COMMIT / SECOND:g} s more: lease it for at least"
            f" {least / SECOND:g} s, or give the sender the deadline that is set"
            " (REELHOOK_DELIVERY_DEADLINE).",
            lease_ms=lease,
            least_ms=least,
        )


class Sends(Protocol):
    """One HTTP try; a remote failure is a value."""

    async def send(self, url: str, body: bytes, headers: dict[str, str]) -> Outcome: ...


class Journal(Protocol):
    """Writes the one canonical line of an attempt."""

    def __call__(self, settled: Settled) -> None: ...


class Worker:
    """Delivers what the store says is due. `jitter` gives numbers in [0, 1), `random_bytes(n)` the
    names of spans.

    `clock` is a steady one, by which leases and retries go; `wall` dates signatures. `lease` is in
    milliseconds and has to outlive the sender's deadline. `patience`: seconds that a stop waits for
    the attempts under way, before they are given up.
    """

    def __init__(
        self,
        store: Store,
        sender: Sends,
        *,
        clock: Clock,
        wall: Clock,
        jitter: Callable[[], float],
        journal: Journal,
        schedule: Sequence[int] = SCHEDULE,
        in_flight: int = IN_FLIGHT,
        lease: int = LEASE,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        patience: float = 0.0,
    ) -> None:
        self._store = store
        self._sender = sender
        self._clock = clock
        self._wall = wall
        self._jitter = jitter
        self._journal = journal
        self._schedule = tuple(schedule)
        self._limit = in_flight
        self._lease = lease
        self._patience = patience
        self._random = random_bytes
        self._running: set[asyncio.Task[None]] = set()
        self._awake = asyncio.Event()
        self._next_release = 0
        self._beat = clock()
        store.on_change(self._hear)

    def _hear(self, _tasks: set[str], work: bool) -> None:
        if work:
            self._awake.set()

    @property
    def alive(self) -> bool:
        """Whether the loop has turned lately."""
        return self._clock() - self._beat < MINUTE

    async def run(self) -> None:
        """Deliver until cancelled; attempts under way are then given up to their leases."""
        try:
            while True:
                self._awake.clear()
                await self._wait(await self._turn())
        finally:
            if self._running and self._patience:
                await asyncio.wait(self._running, timeout=self._patience)
            for task in self._running:
                task.cancel()

    async def _turn(self) -> int:
        self._beat = self._clock()
        try:
            return await self.tick()
        except StoreUnavailable:
            return 0  # the store says when it is back: by the next turn that succeeds

    async def tick(self) -> int:
        """Claim what is due and begin to send it; how many were begun."""
        now = self._clock()
        if now >= self._next_release:
            self._next_release = now + 5 * SECOND
            await self._store.release_lapsed(now)
        room = self._limit - len(self._running)
        if room <= 0:
            return 0
        claims = await self._store.claim(
            now=now, lease_until=now + self._lease, limit=room, shared=True
        )
        for claimed in claims:
            task = asyncio.create_task(self.deliver(claimed))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return len(claims)

    async def drain(self) -> None:
        """Wait until the attempts under way are settled."""
        while self._running:
            await asyncio.wait(self._running)

    async def _wait(self, begun: int) -> None:
        # What was begun may take its whole deadline, while what else there is falls due.
        pause = SHORT_PAUSE if begun else await self._pause()
        # Not wait_for: before Python 3.12 it swallows a cancellation that meets a wake-up, and the
        # receiver would never stop (github.com/python/cpython/issues/86296).
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._awake.wait()

    async def _pause(self) -> float:
        try:
            due = await self._store.next_due()
        except StoreUnavailable:
            return PAUSE  # and never out of the loop, which would give up what is under way
        if due is None:
            return PAUSE
        return min(max((due - self._clock()) / SECOND, SHORT_PAUSE), PAUSE)

    async def deliver(self, claimed: Claimed) -> None:
        """One attempt, from signing to settling."""
        started = self._clock()
        try:
            headers = self._headers(claimed)
        except SignatureRefused as error:
            detail = f"Nothing was sent: {error}. Rotate the endpoint's secret."
            outcome = Outcome(None, Failure.SIGNING, detail, 0)
        else:
            answer = await self._sender.send(claimed.url, claimed.payload, headers)
            outcome = undated(answer, self._wall())
        await self._settle(claimed, outcome, started)

    def _headers(self, claimed: Claimed) -> dict[str, str]:
        event = ids.EVENT + ids.encode(claimed.event_id)
        own, traced = claimed.headers, {}
        if claimed.traceparent is not None:
            # An endpoint that is older than this may name one itself.
            own = {name: value for name, value in own.items() if name.lower() not in HEADERS}
            traced = {HEADER: child(claimed.traceparent, self._random(SPAN_BYTES))}
        timestamp = self._wall() // SECOND  # the consumer compares it with its own
        return {
            **own,
            **traced,
            "content-type": "application/json",
            "webhook-id": event,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(
                claimed.secrets,
                event_id=event,
                timestamp=timestamp,
                body=claimed.payload,
                ed25519_keys=claimed.private_keys,
            ),
        }

    async def _settle(self, claimed: Claimed, outcome: Outcome, started: int) -> None:
        now, schedule = self._clock(), claimed.schedule or self._schedule
        decision = decide(
            outcome,
            attempt=claimed.round_attempt,
            schedule=schedule,
            now=now,
            jitter=self._jitter(),
        )
        settled = Settled(
            claimed,
            outcome,
            decision.state,
            decision.next_attempt_at,
            started,
            now,
            decision.disable,
            longest_pause(schedule),
        )
        if await self._is_kept(settled):
            self._journal(settled)

    async def _is_kept(self, settled: Settled) -> bool:
        # While its lease lasts nobody else makes the attempt, so what is known of it can wait for
        # the disk. After that it is made again: at least once.
        while True:
            try:
                await self._store.settle(settled)
            except StoreUnavailable:
                if self._clock() >= settled.started_at + self._lease:
                    return False
                await asyncio.sleep(SETTLE_PAUSE)
            else:
                return True
