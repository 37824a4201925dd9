"""Time and callbacks: lets results become ready, POSTs and uploads them. Network by httpx.

Nothing here, and no line it logs, ever shows the query of a webhookURL or of an uploadEndpoint: it
is a credential.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from random import Random

import anyio
import httpx
from anyio.abc import TaskGroup

from submitter.simulator.contract import MEDIA, retry_delay
from submitter.simulator.jobs import Attempt, Callback, Job, Result

Clock = Callable[[], datetime]
Sleep = Callable[[float], Awaitable[None]]
Log = Callable[[str], None]

JSON = "application/json"
TYPES = {"video": "video/mp4", "image": "image/jpeg"}
# The deadline of an attempt is its knob.
_CEILING = {"timeout": httpx.Timeout(600.0).as_dict()}
# InvalidURL and UnicodeError: a URL that passed our check, but that httpx can't use.
FAULTS = (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, UnicodeError)


@dataclass(frozen=True, slots=True)
class Waits:
    """Time, as an argument."""

    clock: Clock
    sleep: Sleep


@dataclass(frozen=True, slots=True)
class Unsent:
    """A request before it is made: a URL that httpx can't use fails as its attempt does."""

    method: str
    url: str
    body: bytes
    kind: str

    def made(self) -> httpx.Request:
        """The request itself."""
        headers = {"content-type": self.kind}
        return httpx.Request(
            self.method, self.url, content=self.body, headers=headers, extensions=_CEILING
        )


class Courier:
    """Runs accepted tasks in the background. A receiver's failure is an attempt, never raised."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        group: TaskGroup,
        *,
        waits: Waits,
        media: Mapping[str, bytes],
        log: Log,
    ) -> None:
        self._transport = transport
        self._group = group
        self._waits = waits
        self._media = media
        self._log = log

    def start(self, job: Job) -> None:
        """Begin the job's results, in the order of their turns; returns at once."""
        for result in sorted(job.results, key=attrgetter("outcome.turn")):
            self._group.start_soon(self._finish, job, result)

    def ripen(self, result: Result) -> None:
        """Begin a result that nobody is called back about; returns at once."""
        self._group.start_soon(self._wait_for, result)

    async def _wait_for(self, result: Result, parts: int = 1) -> None:
        await self._waits.sleep(result.outcome.ready_after_s / parts)
        result.ready_at = self._waits.clock()

    async def _finish(self, job: Job, result: Result) -> None:
        try:
            await self._report(job, result)
            await self._wait_for(result, len(result.progress) + 1)
            if job.knobs.upload == "before":
                await self._upload(job, result)
            if result.callbacks:
                await self._waits.sleep(result.outcome.callback_after_s)
                await self._call_back(job, result)
        finally:
            result.tried.set()
        if job.knobs.upload == "after":
            await self._upload(job, result)

    async def _report(self, job: Job, result: Result) -> None:
        for number, callback in enumerate(result.progress):
            await self._waits.sleep(result.outcome.ready_after_s / (len(result.progress) + 1))
            rng = job.dice.stream(f"progress/{job.results.index(result)}/{number}")
            # One that is tried again holds up neither the next nor the result.
            self._group.start_soon(self._carry, job, callback, rng)

    async def _call_back(self, job: Job, result: Result) -> None:
        index = job.results.index(result)
        for copy, callback in enumerate(result.callbacks):
            if copy and job.knobs.duplicate_after_s:
                await self._waits.sleep(job.knobs.duplicate_after_s)
            rng = job.dice.stream(f"retries/{index}/{copy}")
            await self._carry(job, callback, rng, result.tried)
            if callback.state == "lost":  # The duplicates follow a 2xx, so there are none.
                result.callbacks[copy + 1 :] = []
                return

    async def _carry(
        self, job: Job, callback: Callback, rng: Random, tried: anyio.Event | None = None
    ) -> None:
        for number in range(1, job.knobs.max_attempts + 1):
            if number > 1:
                await self._waits.sleep(retry_delay(number - 1, rng))
            request = Unsent("POST", job.task["webhookURL"], callback.body, JSON)
            attempt = await self._send(job, request, number)
            callback.attempts.append(attempt)
            if tried:
                tried.set()
            if attempt.accepted:
                callback.state = "delivered"
                return
        callback.state = "lost"

    async def _upload(self, job: Job, result: Result) -> None:
        if not job.uploads(result):
            return
        kind = MEDIA[job.task["taskType"]]
        url, body = job.task["uploadEndpoint"], self._media[kind]
        request = Unsent("PUT", url, body, TYPES[kind])
        result.upload = await self._send(job, request, 1)

    async def _send(self, job: Job, request: Unsent, number: int) -> Attempt:
        at, status, fault = self._waits.clock(), None, None
        try:
            with anyio.fail_after(job.knobs.ack_timeout_s):
                response = await self._transport.handle_async_request(request.made())
                await response.aread()
                await response.aclose()
            status = response.status_code
        except FAULTS as error:
            fault = type(error).__name__  # Its text may quote the URL.
        what = "callback" if request.method == "POST" else "upload"
        self._log(f"{what} {job.task['taskUUID']} try {number}: {status or fault}")
        return Attempt(number=number, at=at, status=status, error=fault)


@asynccontextmanager
async def working(
    transport: httpx.AsyncBaseTransport | None,
    *,
    waits: Waits,
    media: Mapping[str, bytes],
    log: Log,
) -> AsyncIterator[Courier]:
    """A courier with its connections; leaving cancels whatever is still under way."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    # The transport alone: a client tells the log the whole URL, token included.
    carrier = transport or httpx.AsyncHTTPTransport(limits=limits, trust_env=False)
    async with carrier, anyio.create_task_group() as group:
        yield Courier(carrier, group, waits=waits, media=media, log=log)
        group.cancel_scope.cancel()
