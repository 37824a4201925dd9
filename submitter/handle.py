"""Floor 3, flows: a submitted task: its id at once, its results as they come."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import stamina

from receiver.client import Client, Result, Task, Unreachable
from submitter.errors import Finding, LedgerUnavailable, WaitTimedOut

T = TypeVar("T")

PATIENCE: Final = 60.0  # seconds that a receiver may be away, as for a deploy
LONG_POLL: Final = 25.0  # seconds; the receiver answers earlier when the task changes


@dataclass(slots=True)
class SubmittedTask:
    """A task that is on its way. Iterate over `results()`, or `wait()` for all of them."""

    id: str
    warnings: tuple[Finding, ...] = ()
    in_flight: bool = False  # another caller is submitting it at this moment
    webhook_url: str = field(default="", repr=False)
    _client: Client | None = field(default=None, repr=False)

    async def results(self) -> AsyncIterator[Result]:
        """Each result once, in the order of arrival, until the task is complete."""
        told = 0
        async for task in self._changes(None):
            if task.received > told or task.complete:
                found = await self._ask(lambda ledger: ledger.results(self.id))
                for result in found[told:]:
                    yield result
                told = len(found)

    async def wait(self, timeout: float | None = None) -> Task:
        """The complete task. Raises WaitTimedOut after `timeout` seconds."""
        async for task in self._changes(timeout):
            if task.complete:
                return task
        raise AssertionError("changes end with a complete task")

    async def _changes(self, timeout: float | None) -> AsyncIterator[Task]:
        begun, revision = time.monotonic(), None
        while True:
            left = LONG_POLL if timeout is None else timeout - (time.monotonic() - begun)
            if left <= 0 and revision is not None:  # whatever the timeout, one look is free
                raise WaitTimedOut(task_id=self.id, waited_s=timeout or 0)
            wait = min(left, LONG_POLL) if revision is not None else 0
            task = await self._ask(partial(_look, self.id, wait, revision))
            if task is not None:
                revision = task.revision
                yield task
                if task.complete:
                    return

    async def _ask(self, ask: Callable[[Client], Awaitable[T]]) -> T:
        """Ask the ledger, through a restart of the receiver if need be."""
        if self._client is None:
            raise LedgerUnavailable(task_id=self.id, reason="it was submitted without one")
        try:
            async for attempt in stamina.retry_context(
                on=Unreachable, attempts=None, timeout=PATIENCE, wait_initial=0.2, wait_max=3.0
            ):
                with attempt:
                    return await ask(self._client)
        except Unreachable as error:
            said = f"{error} Task {self.id} goes on: wait for it again later."
            raise LedgerUnavailable(said, task_id=self.id, reason=str(error)) from None
        raise AssertionError("stamina ends with a result or an exception")


async def _look(task_id: str, wait: float, revision: int | None, ledger: Client) -> Task | None:
    return await ledger.task(task_id, wait=wait, revision=revision)
