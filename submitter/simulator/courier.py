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

# The deadline of an attempt is its knob.
_CEILING = {"timeout": httpx.Timeout(600.0).as_dict()}
# InvalidURL and UnicodeError: a URL that passed our check, but that httpx can't use.
FAULTS = (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, UnicodeError)


class Courier:
    """Runs accepted tasks in the background. A receiver's failure is an attempt, never raised."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        group: TaskGroup,
        *,
        clock: Clock,
        sleep: Sleep,
        log: Log,
    ) -> None:
        self._transport = transport
        self._group = group
        self._clock = clock
        self._sleep = sleep
        self._log = log

    def start(self, job: Job) -> None:
        """Begin the job's results, in the order of their turns; returns at once."""
        for result in sorted(job.results, key=attrgetter("outcome.turn")):
            self._group.start_soon(self._finish, job, result)

    def ripen(self, result: Result) -> None:
        """Begin a result that nobody is called back about; returns at once."""
        self._group.start_soon(self._wait_for, result)

    async def _wait_for(self, result: Result) -> None:
        await self._sleep(result.outcome.ready_after_s)
        result.ready_at = self._clock()

    async def _finish(self, job: Job, result: Result) -> None:
        try:
            await self._wait_for(result)
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
        try:
            with anyio.fail_after(job.knobs.ack_timeout_s):
                request = _request(job.task["webhookURL"], body)
                response = await self._transport.handle_async_request(request)
                await response.aread()
                await response.aclose()
            status = response.status_code
        except FAULTS as error:
            fault = type(error).__name__  # Its text may quote the URL.
        self._log(f"callback {job.task['taskUUID']} try {number}: {status or fault}")
        return Attempt(number=number, at=at, status=status, error=fault)


def _request(url: str, body: bytes) -> httpx.Request:
    headers = {"content-type": "application/json"}
    return httpx.Request("POST", url, content=body, headers=headers, extensions=_CEILING)


@asynccontextmanager
async def working(
    transport: httpx.AsyncBaseTransport | None, *, clock: Clock, sleep: Sleep, log: Log
) -> AsyncIterator[Courier]:
    """A courier with its connections; leaving cancels whatever is still under way."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    # The transport alone: a client tells the log the whole URL, token included.
    carrier = transport or httpx.AsyncHTTPTransport(limits=limits, trust_env=False)
    async with carrier, anyio.create_task_group() as group:
        yield Courier(carrier, group, clock=clock, sleep=sleep, log=log)
        group.cancel_scope.cancel()
