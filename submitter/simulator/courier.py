"""Time and callbacks: lets results become ready, and POSTs them. Touches the network by httpx.

Nothing here, and no line it logs, ever shows the query of a webhookURL: it is a credential.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from operator import attrgetter
from random import Random

import anyio
import httpx
from anyio.abc import TaskGroup

from submitter.simulator.contract import retry_delay
from submitter.simulator.jobs import Attempt, Callback, Job, Result

Clock = Callable[[], datetime]
Sleep = Callable[[float], Awaitable[None]]
Log = Callable[[str], None]

# InvalidURL and UnicodeError: a URL that passed our check, but that httpx can't use.
FAULTS = (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, UnicodeError)


class Courier:
    """Runs accepted tasks in the background. A receiver's failure is an attempt, never raised."""

    def __init__(
        self, client: httpx.AsyncClient, group: TaskGroup, *, clock: Clock, sleep: Sleep, log: Log
    ) -> None:
        self._client = client
        self._group = group
        self._clock = clock
        self._sleep = sleep
        self._log = log

    def start(self, job: Job) -> None:
        """Begin the job's results, in the order of their turns; returns at once."""
        for result in sorted(job.results, key=attrgetter("outcome.turn")):
            self._group.start_soon(self._finish, job, result)

    async def _finish(self, job: Job, result: Result) -> None:
        try:
            await self._sleep(result.outcome.ready_after_s)
            result.ready_at = self._clock()
            if result.callbacks:
                await self._sleep(result.outcome.callback_after_s)
                await self._call_back(job, result)
        finally:
            result.tried.set()

    async def _call_back(self, job: Job, result: Result) -> None:
        index = job.results.index(result)
        for copy, callback in enumerate(result.callbacks):
            rng = job.dice.stream(f"retries/{index}/{copy}")
            await self._carry(job, result, callback, rng)
            if callback.state == "lost":  # The duplicates follow a 2xx, so there are none.
                result.callbacks[copy + 1 :] = []
                return

    async def _carry(self, job: Job, result: Result, callback: Callback, rng: Random) -> None:
        for number in range(1, job.knobs.max_attempts + 1):
            if number > 1:
                await self._sleep(retry_delay(number - 1, rng))
            attempt = await self._post(job, callback.body, number)
            callback.attempts.append(attempt)
            result.tried.set()
            if attempt.accepted:
                callback.state = "delivered"
                return
        callback.state = "lost"

    async def _post(self, job: Job, body: bytes, number: int) -> Attempt:
        at, status, fault = self._clock(), None, None
        headers = {"content-type": "application/json"}
        try:
            with anyio.fail_after(job.knobs.ack_timeout_s):
                url = job.task["webhookURL"]
                response = await self._client.post(url, content=body, headers=headers)
            status = response.status_code
        except FAULTS as error:
            fault = type(error).__name__  # Its text may quote the URL.
        self._log(f"callback {job.task['taskUUID']} try {number}: {status or fault}")
        return Attempt(number=number, at=at, status=status, error=fault)


@asynccontextmanager
async def working(
    transport: httpx.AsyncBaseTransport | None, *, clock: Clock, sleep: Sleep, log: Log
) -> AsyncIterator[Courier]:
    """A courier with its one client; leaving cancels whatever is still under way."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    client = httpx.AsyncClient(
        transport=transport,
        limits=limits,
        timeout=600.0,  # A ceiling only: the deadline of an attempt is its knob.
        trust_env=False,
        follow_redirects=False,
    )
    async with client, anyio.create_task_group() as group:
        yield Courier(client, group, clock=clock, sleep=sleep, log=log)
        group.cancel_scope.cancel()
