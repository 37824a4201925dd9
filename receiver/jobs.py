"""Floor 3, flows: jobs. A tick is one step of the job whose turn it is; then it rests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from receiver.clock import Clock
from receiver.errors import Conflict, StoreUnavailable
from receiver.repair import Job, JobState
from receiver.store.protocol import JobStep, Store

LOOK: Final = 0.25  # seconds between two looks while nothing is to be done
REST: Final = 4.0  # times as long as a step took until the next one: others write meanwhile
LEAST_REST: Final = 0.01  # seconds

Journal = Callable[[Job], None]
Rest = Callable[[float], Awaitable[None]]


class Jobs:
    """Does what was asked for in bulk. `journal` is told of each job that is over."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        journal: Journal,
        rest: Rest = asyncio.sleep,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._clock = clock
        self._journal = journal
        self._rest = rest
        self._timer = timer

    async def run(self) -> None:
        """Tick for ever. Raises StoreUnavailable; the next call goes on where this one stopped."""
        while True:
            begun = self._timer()
            busy = await self.tick()
            pause = max(REST * (self._timer() - begun), LEAST_REST)
            await self._rest(pause if busy else LOOK)

    async def tick(self) -> JobStep | None:
        """One step of the job whose turn it is; None: no job can go on now."""
        job_id = await self._store.next_job(self._clock())
        if job_id is None:
            return None
        try:
            step = await self._store.advance_job(job_id, self._clock())
        except StoreUnavailable:
            raise
        except Exception as error:
            await self._fail(job_id, error)
            raise
        if step.job.state is not JobState.RUNNING:
            self._journal(step.job)
        return step

    async def _fail(self, job_id: str, error: Exception) -> None:
        # A defect of ours: met once and told, not every second for ever.
        why = f"a defect ({type(error).__name__}); the receiver's log has it"
        with suppress(Conflict):
            self._journal(await self._store.fail_job(job_id, self._clock(), why))
