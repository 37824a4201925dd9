"""Floor 3, flows: fetch the results whose callback never came, and post them to the task's own URL.

The ledger says which tasks are due and leases them to us; the platform is asked within one rate;
its answer goes through the same door as a callback. What became of it is the receiver's to decide,
and when to ask again is the ledger's: a task that gets no answer here comes back by itself.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from receiver.client import ApiRefused, ClaimedTask, Client, Unreachable
from submitter import door
from submitter.errors import PlatformUnavailable
from submitter.platforms.runware import LONGEST_WAIT, Runware, Snapshot

LIMIT: Final = 20  # tasks a batch
RATE: Final = 5.0  # questions to the platform a second
IDLE: Final = 5.0  # seconds before we ask the ledger again when little was due

Sleep = Callable[[float], Awaitable[None]]
_OK: Final = 200
_TOO_MANY: Final = 429


class Found(StrEnum):
    """What one poll found."""

    POSTED = "posted"  # the platform's answer is in the ledger
    UNKNOWN = "unknown"  # the platform has no such task
    UNAVAILABLE = "unavailable"  # the platform did not say
    REFUSED = "refused"  # the receiver's door did not take the answer


@dataclass(frozen=True, slots=True)
class Polled:
    """One task and what its poll found; `detail` says why nothing was."""

    task: str
    found: Found
    detail: str = ""


class Pace:
    """One rate over all questions. `clock` in seconds; a Retry-After holds everything back."""

    def __init__(self, rate: float, *, clock: Callable[[], float], sleep: Sleep) -> None:
        self.interval = 1 / rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()

    async def turn(self) -> None:
        """Wait until the next question may be asked."""
        while (wait := self._free_at - self._clock()) > 0:
            await self._sleep(wait)
        self._free_at = self._clock() + self.interval

    def hold(self, seconds: float) -> None:
        """Ask nothing for so long."""
        self._free_at = max(self._free_at, self._clock() + seconds)


def _ignore(_polled: Polled) -> None:
    """For who does not want to hear of each poll."""


async def tick(
    platform: Runware,
    ledger: Client,
    *,
    pace: Pace,
    limit: int = LIMIT,
    tell: Callable[[Polled], None] = _ignore,
) -> int:
    """Claim a batch and poll each of its tasks; how many there were. `tell` hears of every poll.

    Raises Unreachable and ApiRefused when the ledger gives nothing out.
    """
    await pace.turn()  # a platform that asked for patience gets it before we lease
    claimed = await ledger.claim_tasks(limit=limit, lease_s=_lease(limit, pace))
    for task in claimed:
        try:
            snapshot = await _look(platform, task.id, pace)
        except PlatformUnavailable as error:
            tell(Polled(task.id, Found.UNAVAILABLE, error.reason))
            if _hold(pace, error) > LONGEST_WAIT:
                break  # the rest is due again when the lease lapses
        else:
            tell(await _posted(task, snapshot))
    return len(claimed)


async def run(
    platform: Runware,
    ledger: Client,
    *,
    pace: Pace,
    sleep: Sleep,
    limit: int = LIMIT,
    tell: Callable[[Polled], None] = _ignore,
) -> None:
    """Tick until canceled. Raises ApiRefused when the ledger will never let us."""
    while True:
        try:
            claimed = await tick(platform, ledger, pace=pace, limit=limit, tell=tell)
        except Unreachable:
            claimed = 0
        except ApiRefused as error:
            if error.status < 500:
                raise
            claimed = 0
        if claimed < limit:
            await sleep(IDLE)


def _lease(limit: int, pace: Pace) -> int:
    # Two questions a task, and as much again for slow answers.
    return min(max(60, math.ceil(4 * limit * pace.interval)), 600)


def _hold(pace: Pace, error: PlatformUnavailable) -> float:
    after = error.retry_after_s or (1.0 if error.http_status == _TOO_MANY else 0.0)
    pace.hold(after)
    return after


async def _look(platform: Runware, task_id: str, pace: Pace) -> Snapshot | None:
    for ask in (platform.fetch, platform.fetch_archived):
        await pace.turn()
        if (snapshot := await ask(task_id)).known:
            return snapshot
    return None


async def _posted(task: ClaimedTask, snapshot: Snapshot | None) -> Polled:
    if snapshot is None:
        return Polled(task.id, Found.UNKNOWN)
    try:
        status = await door.post(task.webhook_url, snapshot.content)
    except OSError as error:
        return Polled(task.id, Found.REFUSED, f"its door does not answer ({error})")
    if status != _OK:
        return Polled(task.id, Found.REFUSED, f"its door answered {status}")
    return Polled(task.id, Found.POSTED)
