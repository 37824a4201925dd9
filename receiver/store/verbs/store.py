"""Floor 2, edges: a store over SQL: its verbs, whichever engine is behind them. stdlib only."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from receiver import ids
from receiver.backups import BackupMade
from receiver.callbacks import Arrival, Callback, Kept, Receipt
from receiver.clock import Clock
from receiver.condition import StoreCondition
from receiver.deliveries import Delivery
from receiver.errors import NotFound, StoreBroken, StoreUnavailable
from receiver.events import Event
from receiver.results import Result
from receiver.store.commits import Engine, Notice
from receiver.store.connection import Connection
from receiver.store.protocol import (
    Claimed,
    CostPage,
    Page,
    Prune,
    PruneStep,
    Query,
    QueueCancel,
    Registration,
    Reprocessing,
    Settled,
    TaskChange,
    TasksAsked,
    TasksReleased,
)
from receiver.store.seal import Seal
from receiver.store.verbs import ledger, prune, queue, reconcile, registry
from receiver.store.verbs.access import Access
from receiver.store.verbs.allowances import Allowances
from receiver.store.verbs.downstream import Downstream
from receiver.store.verbs.endpoints import Directory, Endpoints
from receiver.store.verbs.feed import Feed
from receiver.store.verbs.figures import Figures
from receiver.store.verbs.logins import Logins
from receiver.store.verbs.operations import Operations
from receiver.store.verbs.reads import Readers, Reads
from receiver.store.verbs.repairs import Repairs
from receiver.store.verbs.reprocess import Reprocess, delete_callback
from receiver.store.writer import Timed, Transaction, Write, Writer, each
from receiver.tasks import Task

Listener = Callable[[set[str], bool], None]
Seen = Callable[[], Set[tuple[str, int]]]


class SqlStore(Repairs, Logins, Feed, Access, Downstream, Figures):
    """Everything that is kept. A store of its own opens and closes what is behind it.

    `shrink` gives room back after a prune, `allowances` keep the endpoints' rates. `is_shared`:
    other processes use it too.
    """

    def __init__(
        self,
        clock: Clock,
        entropy: Callable[[int], int],
        seal: Seal,
        readers: Readers,
        *,
        shrink: prune.Shrink,
        allowances: Allowances,
        is_shared: bool = False,
    ) -> None:
        self.instance = ""
        self._clock = clock
        self._seal = seal
        self._source = ids.IdSource(entropy, is_shared=is_shared)
        self._process = self._next_id() if is_shared else None
        self._listeners: list[Listener] = []
        self._timers: list[Timed] = []
        self._watched: Seen = frozenset
        self._directory = Directory(seal)
        self._readers = readers
        self._reads = Reads(readers, seal)
        self._make_handlers(shrink, allowances)

    def _start_writer(self, engine: Engine, notice: Notice) -> None:
        self._writer = Writer(engine, on_commit=self._tell, timed=self._time, notice=notice)
        self._write: Write = self._writer.call

    def _make_handlers(self, shrink: prune.Shrink, allowances: Allowances) -> None:
        # Made once: the writer groups a batch by handler.
        kept = ledger.Ledger(
            lambda: self._directory.subscriptions, self._next_id, self._source.go_on
        )
        known = registry.Registry(kept, self._next_id)
        ends = self._make_downstream(Endpoints(self._directory, self._next_id, self._seal))
        tells = Operations(lambda: self._directory.subscriptions, self._next_id)
        work = queue.Queue(
            self._directory, ends.set_state, self._seal, tells, allowances, self._process
        )
        again = Reprocess(kept, lambda: self._directory.subscriptions, self._next_id)
        self._reprocess, self._delete_callback = each(again.reprocess), each(delete_callback)
        self._record, self._register = kept.record, each(known.register)
        self._note_overdue, self._give_up = kept.note_overdue, kept.give_up
        self._change_task = each(registry.change_task)
        self._revoke_task, self._delete_task = (
            each(registry.revoke_task),
            each(registry.delete_task),
        )
        self._claim_tasks = each(reconcile.claim_tasks)
        self._release_tasks = each(reconcile.release_tasks)
        self._reconcile_task = each(reconcile.reconcile_task)
        self._claim, self._settle = work.claim, work.settle
        self._release = each(queue.release_lapsed)
        self._retry, self._cancel = each(queue.retry), each(queue.cancel)
        self._cancel_queue = each(queue.cancel_queue)
        self._make_repairs(lambda: self._directory.subscriptions, self._next_id)
        self._make_logins()
        self._make_access(self._next_id)
        self._prune = each(partial(prune.prune, shrink=shrink))
        self._ready = each(lambda tx, _: self.probe(tx.connection))

    async def close(self) -> None:
        """Commit what is queued, and let go of the database. Raises StoreBroken if that failed."""
        try:
            await self._readers.close()
        finally:
            await self._writer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _next_id(self) -> int:
        return self._source.next(self._clock())

    def go_on(self, connection: Connection) -> None:
        """Read who is sent to, and give only ids that are above those that were given."""
        self._directory.reload(connection)
        self._source.go_on(_newest_id(connection))

    def probe(self, connection: Connection) -> None:
        """Write something."""
        connection.execute(
            "INSERT INTO meta (name, value) VALUES ('ready_at', ?)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (str(self._clock()),),
        )

    def _tell(self, transaction: Transaction) -> None:
        for listener in self._listeners:
            listener(transaction.changed_tasks, transaction.work)

    def on_change(self, listener: Listener) -> None:
        """Call `listener` on the event loop after each commit."""
        self._listeners.append(listener)

    def watch_tasks(self, seen: Seen) -> None:
        """Tell listeners of other revisions than these, where other processes make them."""
        self._watched = seen

    def _time(self, jobs: int, seconds: float, committed: bool) -> None:
        for timer in self._timers:
            timer(jobs, seconds, committed)

    def on_commit(self, listener: Timed) -> None:
        """Call `listener` on the event loop after each transaction."""
        self._timers.append(listener)

    @property
    def healthy(self) -> bool:
        """False while commits fail."""
        return self._writer.healthy

    def admit(self) -> None:
        """Whether a callback's body is worth reading."""
        self._writer.admit()

    @property
    def refusal(self) -> str | None:
        """Why no callback is taken in, if so."""
        try:
            self.admit()
        except StoreUnavailable as refused:
            return str(refused)
        return None

    @abstractmethod
    async def backup(self, folder: Path, keep: int | None) -> BackupMade:
        """Copy everything into a directory, if that is ours to do."""

    @abstractmethod
    async def condition(self) -> StoreCondition:
        """How the store itself fares."""

    async def broken(self) -> StoreBroken:
        """Wait until no write can be trusted any more; why. The process has to end then."""
        return await self._writer.broken()

    async def record(self, arrival: Arrival) -> Receipt:
        """Keep one callback with everything that follows from it."""
        if arrival.task_id is not None:
            arrival.task_id = ids.canonical_task(arrival.task_id)
        return await self._write(self._record, arrival, len(arrival.body))

    async def register(self, asked: Registration) -> bool:
        """Create or complete a task."""
        asked = replace(asked, id=_canonical(asked.id))
        return await self._write(self._register, asked)

    async def change_task(self, change: TaskChange) -> None:
        """Note how a submit went."""
        await self._write(self._change_task, replace(change, id=_canonical(change.id)))

    async def revoke_task(self, change: TaskChange) -> None:
        """Refuse the tokens issued so far."""
        await self._write(self._revoke_task, replace(change, id=_canonical(change.id)))

    async def delete_task(self, change: TaskChange) -> None:
        """Remove a task."""
        await self._write(self._delete_task, replace(change, id=_canonical(change.id)))

    async def task(self, task_id: str) -> Task:
        """One task."""
        return await self._reads.task(task_id)

    async def tasks(self, query: Query) -> Page[Task]:
        """A page of tasks."""
        return await self._reads.tasks(query)

    async def results(self, task_id: str) -> Sequence[Result]:
        """A task's results."""
        return await self._reads.results(task_id)

    async def costs(self, query: Query) -> CostPage:
        """What tasks cost, group by group."""
        return await self._reads.costs(query)

    async def claim_tasks(self, asked: TasksAsked) -> Sequence[Task]:
        """Lease tasks that are due for reconcile."""
        return await self._write(self._claim_tasks, asked)

    async def release_tasks(self, released: TasksReleased) -> int:
        """End the leases of one claim early."""
        return await self._write(self._release_tasks, released)

    async def reconcile_task(self, change: TaskChange) -> None:
        """Make a task due for reconcile now."""
        await self._write(self._reconcile_task, replace(change, id=_canonical(change.id)))

    async def note_overdue(self, now: int) -> int:
        """Flag tasks past their deadline."""
        return await self._write(self._note_overdue, now)

    async def give_up(self, now: int) -> int:
        """Close tasks past their give-up."""
        return await self._write(self._give_up, now)

    async def callback(self, callback_id: str) -> Callback:
        """One callback."""
        return await self._reads.callback(callback_id)

    async def kept_callback(self, callback_id: str) -> Kept:
        """One callback with its exact bytes."""
        return await self._reads.kept_callback(callback_id)

    async def delete_callback(self, callback_id: str) -> None:
        """Drop a callback that brought nothing."""
        await self._write(self._delete_callback, ids.parse(ids.CALLBACK, callback_id))

    async def reprocess(self, asked: Reprocessing) -> Receipt:
        """Record what kept bytes say now."""
        return await self._write(self._reprocess, asked)

    async def callbacks(self, query: Query, *, whole: bool = False) -> Page[Callback]:
        """A page of callbacks."""
        return await self._reads.callbacks(query, whole=whole)

    async def event(self, event_id: str) -> Event:
        """One event."""
        return await self._reads.event(event_id)

    async def events(self, query: Query, *, whole: bool = False) -> Page[Event]:
        """A page of events."""
        return await self._reads.events(query, whole=whole)

    async def delivery(self, delivery_id: str) -> Delivery:
        """One delivery with its attempts."""
        return await self._reads.delivery(delivery_id)

    async def deliveries(self, query: Query) -> Page[Delivery]:
        """A page of deliveries."""
        return await self._reads.deliveries(query)

    async def retry(self, delivery_id: str, now: int) -> None:
        """Send a settled delivery again."""
        await self._write(self._retry, queue.ByHand(delivery_id, now))

    async def cancel(self, delivery_id: str, now: int) -> None:
        """Drop a pending delivery."""
        await self._write(self._cancel, queue.ByHand(delivery_id, now))

    async def cancel_queue(self, asked: QueueCancel) -> int:
        """Cancel some of what waits for an endpoint."""
        return await self._write(self._cancel_queue, asked)

    async def claim(
        self, *, now: int, lease_until: int, limit: int, shared: bool = False
    ) -> Sequence[Claimed]:
        """Lease due deliveries."""
        return await self._write(self._claim, queue.Ask(now, lease_until, limit, shared))

    async def settle(self, settled: Settled) -> None:
        """Keep an attempt and move its delivery."""
        await self._write(self._settle, settled)

    async def release_lapsed(self, now: int) -> int:
        """Return lapsed deliveries to pending."""
        return await self._write(self._release, now)

    async def next_due(self) -> int | None:
        """When the next delivery is due."""
        return await self._reads.next_due()

    async def prune(self, asked: Prune) -> PruneStep:
        """Drop or count a little of what is too old."""
        return await self._write(self._prune, asked)

    async def ready(self) -> None:
        """Write and commit something."""
        self.admit()
        await self._write(self._ready, None)


def _canonical(task_id: str) -> str:
    try:
        return ids.canonical_task(task_id)
    except ValueError:
        raise NotFound(f"There is no task {task_id[:60]!r}: a task's id is a UUID.") from None


def _newest_id(connection: Connection) -> int:
    tables = ("callbacks", "events", "endpoints", "jobs", "api_tokens")
    newest = [connection.execute(f"SELECT max(id) FROM {table}").fetchone()[0] for table in tables]
    return max(number or 0 for number in newest)
