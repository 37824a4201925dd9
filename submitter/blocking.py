"""Floor 3, flows: the submitter for Flask and scripts: the same one, on a loop of its own thread.

A thin facade over anyio's blocking portal, not a twin: each method hands over to the async one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from receiver.client import Result, Task
from submitter.errors import Finding, SubmitterError
from submitter.requests.wire import Request
from submitter.submit import Draft, SubmittedTask, Submitter


class BlockingTask:
    """A submitted task, for code that waits by standing still."""

    def __init__(self, task: SubmittedTask, portal: BlockingPortal) -> None:
        self._task = task
        self._portal = portal

    @property
    def id(self) -> str:
        """The taskUUID."""
        return self._task.id

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What the rules had to say."""
        return self._task.warnings

    def results(self) -> Iterator[Result]:
        """Each result once, in the order of arrival, until the task is complete."""
        stream = self._task.results()
        while (result := self._portal.call(_next, stream)) is not None:
            yield result

    def wait(self, timeout: float | None = None) -> Task:
        """The complete task. Raises WaitTimedOut after `timeout` seconds."""
        return self._portal.call(self._task.wait, timeout)


async def _next(stream: AsyncIterator[Result]) -> Result | None:
    return await anext(stream, None)


class BlockingSubmitter:
    """`make` gives the Submitter, inside the loop that it will live on."""

    def __init__(self, make: Callable[[], Submitter]) -> None:
        self._make = make
        self._stack = ExitStack()
        self._portal: BlockingPortal
        self._submitter: Submitter

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **options: Any) -> Self:
        """As Submitter.from_env."""
        return cls(lambda: Submitter.from_env(environ, **options))

    def open(self) -> Self:
        """Start the loop; `close` ends it. A `with` block does both."""
        with ExitStack() as stack:  # ends the loop again when `make` fails
            self._portal = stack.enter_context(start_blocking_portal())
            self._submitter = self._portal.call(self._make)
            stack.callback(self._portal.call, self._submitter.close)
            self._stack = stack.pop_all()
        return self

    def close(self) -> None:
        """Close the connections and end the loop."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def submit(
        self,
        model: str | Request,
        parameters: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> BlockingTask:
        """As Submitter.submit."""

        async def submit() -> SubmittedTask:
            return await self._submitter.submit(model, parameters, **options)

        return BlockingTask(self._portal.call(submit), self._portal)

    def submit_many(self, drafts: Sequence[Draft]) -> list[BlockingTask | SubmitterError]:
        """As Submitter.submit_many."""
        told = self._portal.call(self._submitter.submit_many, drafts)
        return [
            one if isinstance(one, SubmitterError) else BlockingTask(one, self._portal)
            for one in told
        ]

    def resume(self, task_id: str, *, run: str | None = None) -> BlockingTask:
        """As Submitter.resume."""

        async def resume() -> SubmittedTask:
            return await self._submitter.resume(task_id, run=run)

        return BlockingTask(self._portal.call(resume), self._portal)
