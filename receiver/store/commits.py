"""Floor 2, edges: the writer's thread: one connection, whole batches. stdlib only.

A verb is a function `handler(transaction, payloads) -> outcomes`. A batch is one transaction, or as
many as its engine wants. If one fails, each of its jobs is tried alone, so that a poison row fails
alone; what else a failure means its engine says. The thread never looks at a waiter: it tells the
event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, Protocol, TypeVar

from receiver.errors import Refusal, StoreBroken, StoreUnavailable
from receiver.store.connection import Connection
from receiver.store.faults import Fault

P = TypeVar("P")
R = TypeVar("R")

IDLE: Final = 0.25  # seconds without a batch that count as nobody writing
TICK: Final = 1.0  # seconds between an idle thread's looks, and its tries while it can't write
TRIES: Final = 6  # of what other writers stood in the way of


@dataclass(slots=True)
class Transaction:
    """What a handler writes through, and what it tells the waiting world after the commit."""

    connection: Connection
    changed_tasks: set[str] = field(default_factory=set)
    work: bool = False  # deliveries became due
    shrunk: bool = False  # the file has less to hold: a checkpoint cuts it
    after_commit: list[Callable[[], None]] = field(default_factory=list)  # on the writer's thread


Handler = Callable[[Transaction, Sequence[P]], Sequence[R | Refusal]]


class Notice(Protocol):
    """Tells whoever runs the receiver; may be called on the writer's thread."""

    def __call__(self, event: str, **evidence: Any) -> object: ...


class Engine(Protocol):
    """The database, as the thread sees it. Whatever fails is judged by the engine itself."""

    @property
    def wal_size(self) -> int:
        """Bytes that a log holds and the database does not yet, at the last look."""
        ...

    @property
    def connection(self) -> Connection:
        """The one that writes."""
        ...

    def open(self) -> None:
        """Connect. Raises what keeps the receiver from starting."""
        ...

    def close(self) -> None:
        """Bring home what is left, and end the connection."""
        ...

    def parts(self, jobs: Jobs) -> Iterable[Jobs]:
        """The transactions that a batch is made of."""
        ...

    def look(self) -> None:
        """Raises StoreBroken unless it is still the database that was opened."""
        ...

    def begin(self) -> None:
        """Begin a transaction."""
        ...

    def commit(self) -> None:
        """Durable on return."""
        ...

    def roll_back(self) -> None:
        """Leave the transaction, if there is one. Raises StoreBroken when that is not possible."""
        ...

    def probe(self) -> None:
        """Write something in a transaction, reaching for the database anew if need be."""
        ...

    def tidy(self, *, idle: bool, shrunk: bool = False) -> None:
        """After a batch, or while nobody writes: what the engine has to do between them."""
        ...

    def owns(self, error: BaseException) -> bool:
        """Whether the engine raised it, and not our own code."""
        ...

    def judge(self, error: BaseException) -> Fault:
        """What follows from an exception that a write raised."""
        ...

    def unavailable(self, error: Exception) -> StoreUnavailable:
        """What the waiters of a write are told that could not be committed."""
        ...

    def broken(self, error: BaseException) -> StoreBroken:
        """Why the receiver ends, and what to do about it."""
        ...


@dataclass(slots=True)
class Job(Generic[P, R]):
    handler: Handler[P, R]
    payload: P
    future: asyncio.Future[R]
    size: int


Jobs = list[Job[Any, Any]]


@dataclass(slots=True)
class Done:
    """A transaction that was tried, and how it went."""

    jobs: Jobs
    outcomes: Sequence[Any] = ()
    committed: Transaction | None = None
    error: Exception | None = None
    fault: Fault | None = None
    seconds: float | None = None  # from its begin to its end; None: it was not even tried


@dataclass(frozen=True, slots=True)
class Told:
    """What the thread tells the event loop."""

    settled: Callable[[Sequence[Done]], None]
    recovered: Callable[[], None]
    broken: Callable[[StoreBroken], None]


class Committer:
    """The thread's side: one connection, one transaction at a time."""

    def __init__(self, engine: Engine, told: Told) -> None:
        self.batches: SimpleQueue[Jobs | None] = SimpleQueue()
        self._engine = engine
        self._told = told
        self._owed: list[Callable[[], None]] = []
        self._ailing = False
        self._loop: asyncio.AbstractEventLoop

    def run(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Future[None]) -> None:
        """What the thread does from its start to its end."""
        self._loop = loop
        try:
            self._engine.open()
        except BaseException as error:
            self._post(_set, opened, error)
            return
        self._post(_set, opened, None)
        try:
            self._work()
            self._engine.close()
        except BaseException as error:
            # The connection stays open: closing it is one more checkpoint, and nothing that the
            # disk says is to be trusted. What is in the log is there after a restart.
            self._post(self._told.broken, self._engine.broken(error))

    def _post(self, tell: Callable[..., None], *values: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(tell, *values)

    def _work(self) -> None:
        patience = IDLE
        while True:
            try:
                batch = self.batches.get(timeout=patience)
            except Empty:
                self._tick()
                patience = TICK
                continue
            if batch is None:
                return
            shrunk = self._perform(batch)
            self._engine.tidy(idle=False, shrunk=shrunk)
            patience = IDLE

    def _tick(self) -> None:
        self._engine.look()
        if self._ailing:
            self._try_again()
        self._engine.tidy(idle=True)

    def _try_again(self) -> None:
        # An empty commit succeeds on a full disk, so only a write of our own tells.
        try:
            self._engine.probe()
        except Exception as error:
            if self._engine.judge(error) is Fault.END:
                raise
            self._engine.roll_back()
        else:
            self._ailing = False
            self._post(self._told.recovered)

    def _perform(self, batch: Jobs) -> bool:
        done: list[Done] = []
        for part in self._engine.parts(batch):
            done += self._perform_part(part, done)
        self._ailing = done[-1].fault is Fault.ENVIRONMENT
        self._post(self._told.settled, done)
        return any(part.committed is not None and part.committed.shrunk for part in done)

    def _perform_part(self, jobs: Jobs, before: Sequence[Done]) -> list[Done]:
        if before and before[-1].fault is Fault.ENVIRONMENT:  # the rest would only repeat it
            return [Done(jobs, error=before[-1].error, fault=before[-1].fault)]
        first = self._attempt(jobs)
        if len(jobs) == 1 or first.fault is not Fault.JOB:
            return [first]
        done: list[Done] = []
        for job in jobs:
            done += self._perform_part([job], done)
        return done

    def _attempt(self, jobs: Jobs) -> Done:
        done = self._attempt_once(jobs)
        for _ in range(TRIES - 1):
            if done.fault is not Fault.AGAIN:
                break
            done = self._attempt_once(jobs)
        if done.fault is Fault.AGAIN:
            done.fault = Fault.JOB
        return done

    def _attempt_once(self, jobs: Jobs) -> Done:
        transaction, begun = Transaction(self._engine.connection), time.perf_counter()
        try:
            self._engine.look()
            outcomes = self._commit(transaction, jobs)
            self._engine.look()  # a commit into a file that was deleted is not one
        except Exception as error:
            fault = self._engine.judge(error)
            if fault is Fault.END:
                raise
            self._engine.roll_back()
            return Done(jobs, error=error, fault=fault, seconds=time.perf_counter() - begun)
        seconds = time.perf_counter() - begun
        self._owed += transaction.after_commit
        self._follow_up()
        return Done(jobs, outcomes, transaction, seconds=seconds)

    def _commit(self, transaction: Transaction, jobs: Jobs) -> list[Any]:
        outcomes: list[Any] = [None] * len(jobs)
        self._engine.begin()
        for handler, places in grouped(jobs):
            found = handler(transaction, [jobs[place].payload for place in places])
            for place, outcome in zip(places, found, strict=True):
                outcomes[place] = outcome
        self._engine.commit()
        return outcomes

    def _follow_up(self) -> None:
        # What was committed has happened, whatever fails now: it must not be tried a second time.
        # A follow-up that can't read the database yet is owed to the next commit.
        try:
            while self._owed:
                self._owed[0]()
                self._owed.pop(0)
        except Exception as error:
            if not self._engine.owns(error):
                raise


def grouped(jobs: Jobs) -> Iterable[tuple[Handler[Any, Any], list[int]]]:
    """The handlers of a batch, each with the places of its jobs."""
    groups: dict[Handler[Any, Any], list[int]] = {}
    for place, job in enumerate(jobs):
        groups.setdefault(job.handler, []).append(place)
    return groups.items()


def each(verb: Callable[[Transaction, P], R]) -> Handler[P, R]:
    """A handler out of a verb for one payload, which refuses only before it writes."""

    def handler(transaction: Transaction, payloads: Sequence[P]) -> list[R | Refusal]:
        return [_one(verb, transaction, payload) for payload in payloads]

    return handler


def _one(verb: Callable[[Transaction, P], R], transaction: Transaction, payload: P) -> R | Refusal:
    try:
        return verb(transaction, payload)
    except Refusal as refusal:
        return refusal


def _set(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
