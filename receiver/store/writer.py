"""Floor 2, edges: the one writer, as the event loop sees it.

Whatever was asked while the last commit ran, or in one turn of the event loop, becomes the next
transaction (group commit): handed over job by job, the thread would fight the loop for the
interpreter lock at every statement. A waiter is resumed only after COMMIT returned. Cancelling a
waiter cancels nothing here: a write is never split.

While nothing can be written, everybody is refused at once and the thread alone tries, now and then.
Nobody waits for ever: not for a disk that does not answer, not for a thread that died.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

from receiver.errors import Refusal, StoreBroken, StoreSaturated, StoreUnavailable
from receiver.store.commits import (
    Committer,
    Done,
    Engine,
    Handler,
    Job,
    Jobs,
    Notice,
    Told,
    Transaction,
    each,
)
from receiver.store.faults import Fault

__all__ = ["Transaction", "Write", "Writer", "each"]

Timed = Callable[[int, float, bool], None]

P = TypeVar("P")
R = TypeVar("R")

BATCH: Final = 256
CAPACITY: Final = 8_192  # jobs
HELD: Final = 64 << 20  # bytes of payload that may wait; what is parsed of it comes on top
ADMITTED: Final = 0.5  # of both; the rest is for who is already inside: bodies being read, attempts
STALL: Final = 10.0  # seconds after which waiters are told that a commit does not come back
CLOSING: Final = 10.0  # seconds that closing takes at most, for the queue and again for the thread


class Write(Protocol):
    """Runs one job of a handler in a transaction, as `Writer.call` does."""

    def __call__(self, handler: Handler[P, R], payload: P, size: int = 0) -> Awaitable[R]: ...


class Writer:
    """The event loop's side: takes jobs in and tells waiters.

    The `engine` is used on the thread, `on_commit` and `timed` on the event loop: that is told of
    each transaction how many jobs it had, how many seconds it took, and whether it was committed.
    `capacity` counts jobs, `held` the bytes of their payloads.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        on_commit: Callable[[Transaction], None],
        notice: Notice,
        timed: Timed = lambda jobs, seconds, committed: None,
        capacity: int = CAPACITY,
        held: int = HELD,
    ) -> None:
        self._on_commit = on_commit
        self._timed = timed
        self._notice = notice
        self._capacity = capacity
        self._most_held = held
        self._waiting: Jobs = []
        self._working: Jobs = []
        self._held = 0
        self._refusal: StoreUnavailable | None = StoreUnavailable("The store is not open.")
        self._is_final = False  # the refusal above stays
        self._is_failing = False  # it is told, and it passes
        self._broken: asyncio.Future[StoreBroken]
        self._drained = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._engine = engine
        self._committer = Committer(engine, Told(self._settle, self._accept, self._break))

    @property
    def depth(self) -> int:
        """How many jobs wait for a commit."""
        return len(self._waiting) + len(self._working)

    @property
    def wal_size(self) -> int:
        """Bytes of the write-ahead log at the last look."""
        return self._engine.wal_size

    @property
    def healthy(self) -> bool:
        """False while nothing is taken in: not open, closed, failing, broken."""
        return self._refusal is None

    async def start(self) -> None:
        """Open the connection on the thread. Raises what `connect` raises."""
        self._loop = asyncio.get_running_loop()
        self._broken = self._loop.create_future()
        opened: asyncio.Future[None] = self._loop.create_future()
        # A daemon, since a disk that never answers must not keep the process from ending.
        self._thread = threading.Thread(
            target=self._committer.run,
            args=(self._loop, opened),
            name="reelhook-writer",
            daemon=True,
        )
        self._thread.start()
        await opened
        self._accept()

    async def broken(self) -> StoreBroken:
        """Wait until no write can be trusted any more; why."""
        return await asyncio.shield(self._broken)

    async def close(self) -> None:
        """Commit what was asked, checkpoint, close the connection, end the thread.

        Raises StoreBroken when that was not possible, after CLOSING seconds at the latest.
        """
        if not self._is_final:
            self._refusal, self._is_final = StoreUnavailable("The store is closed."), True
        if self._thread is None:
            return
        if self._closing is None:
            self._closing = self._loop.create_task(self._close(self._thread))
        await asyncio.shield(self._closing)  # whoever else closes waits for the same end

    async def _close(self, thread: threading.Thread) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING):
                while self.depth:
                    await self._drained.wait()
        self._committer.batches.put(None)
        await self._loop.run_in_executor(None, thread.join, CLOSING)
        if thread.is_alive() or self.depth:
            self._break(StoreBroken("The disk does not answer; what waited was not stored."))
        if self._broken.done():
            raise self._broken.result().again()

    def admit(self) -> None:
        """Whether a callback's body is worth reading. Raises StoreUnavailable, StoreSaturated."""
        if self._refusal is not None:
            raise self._refusal.again()
        if self.depth >= self._capacity * ADMITTED or self._held >= self._most_held * ADMITTED:
            raise StoreSaturated

    async def call(self, handler: Handler[P, R], payload: P, size: int = 0) -> R:
        """Run one job of `handler` in the next transaction and wait for its commit.

        `size`: bytes of a payload that is not small. Raises StoreSaturated when too much waits,
        StoreUnavailable when nothing was committed, as far as the waiter can know, and the Refusal
        that the handler gave as this job's outcome.
        """
        if self._refusal is not None:
            raise self._refusal.again()
        if self.depth >= self._capacity or self._held >= self._most_held:
            raise StoreSaturated
        future: asyncio.Future[R] = self._loop.create_future()
        self._held += size
        self._drained.clear()
        self._waiting.append(Job(handler, payload, future, size))
        if len(self._waiting) == 1:
            # After this turn of the loop: whatever else it brings goes along.
            self._loop.call_soon(self._hand_over)
        # The thread never looks at the future, so a cancelled waiter leaves the job whole.
        return await future

    def _hand_over(self) -> None:
        if self._working:
            return
        if not self._waiting:
            self._drained.set()
            return
        self._working, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        self._alarm = self._loop.call_later(STALL, self._stall)
        self._committer.batches.put(self._working)

    def _settle(self, done: Sequence[Done]) -> None:
        if self._broken.done():
            return
        self._end_batch()
        for part in done:
            self._tell(part)
        if done[-1].fault is Fault.ENVIRONMENT and done[-1].error is not None:
            self._refuse(self._engine.unavailable(done[-1].error))
        else:
            self._accept()
        self._hand_over()
        for part in done:
            if part.seconds is not None:
                self._timed(len(part.jobs), part.seconds, part.committed is not None)
            if part.committed is not None:
                self._on_commit(part.committed)

    def _tell(self, done: Done) -> None:
        """Let the waiters go on."""
        if done.error is not None:
            is_the_engines = self._engine.owns(done.error)
            _fail(done.jobs, self._engine.unavailable(done.error) if is_the_engines else done.error)
            return
        for job, outcome in zip(done.jobs, done.outcomes, strict=True):
            if job.future.done():
                continue
            if isinstance(outcome, Refusal):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)

    def _end_batch(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._forget(self._working)
        self._working = []

    def _forget(self, jobs: Jobs) -> None:
        self._held -= sum(job.size for job in jobs)

    def _accept(self) -> None:
        if self._is_final or self._refusal is None:
            return
        if self._is_failing:
            self._notice("the store can write again")
        self._refusal, self._is_failing = None, False

    def _refuse(self, reason: StoreUnavailable) -> None:
        # Whatever waits would wait for the same, each batch after its own time-out.
        _fail(self._waiting, reason)
        self._forget(self._waiting)
        self._waiting = []
        if not self._is_final:
            self._notice("the store can't write", error=str(reason))
            self._refusal, self._is_failing = reason, True

    def _stall(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._break(StoreBroken("The thread that writes is gone. Start the receiver again."))
            return
        reason = StoreUnavailable("The disk takes too long to commit.", seconds=STALL)
        self._refuse(reason)
        _fail(self._working, reason)  # the job stays with the thread, and may still be committed

    def _break(self, reason: StoreBroken) -> None:
        if self._broken.done():
            return
        self._broken.set_result(reason)
        self._refusal, self._is_final = reason, True
        self._refuse(reason)
        _fail(self._working, reason)
        self._end_batch()
        self._drained.set()


def _fail(jobs: Jobs, error: Exception) -> None:
    for job in jobs:
        if not job.future.done():
            fresh = error.again() if isinstance(error, StoreUnavailable) else error
            job.future.set_exception(fresh)
