"""Floor 2, edges: the SQLite store: one file, one writer, a lock against a second process."""

from __future__ import annotations

import fcntl
import os
import random
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from receiver import directories, ids
from receiver.callbacks import Arrival, Callback, Kept, Receipt
from receiver.clock import Clock
from receiver.deliveries import Delivery
from receiver.errors import CannotStart, NotFound, StoreBroken, StoreLocked
from receiver.events import Event
from receiver.results import Result
from receiver.store.commits import Notice
from receiver.store.migrate import check_owner, make_shrinkable, migrate
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
    Store,
    TaskChange,
    TasksAsked,
    TasksReleased,
)
from receiver.store.seal import Seal
from receiver.store.sqlite import answers, ledger, prune, queue, reconcile, registry
from receiver.store.sqlite.access import Access
from receiver.store.sqlite.downstream import Downstream
from receiver.store.sqlite.endpoints import Directory, Endpoints
from receiver.store.sqlite.feed import Feed
from receiver.store.sqlite.figures import Figures
from receiver.store.sqlite.logins import Logins
from receiver.store.sqlite.operations import Operations
from receiver.store.sqlite.place import JOURNAL_LIMIT, LEAST_FREE, Place, check_place
from receiver.store.sqlite.reads import Reads
from receiver.store.sqlite.repairs import Repairs
from receiver.store.sqlite.reprocess import Reprocess, delete_callback
from receiver.store.sqlite.secrets import check_seal, take_over
from receiver.store.writer import Timed, Transaction, Write, Writer, each
from receiver.tasks import Task

Listener = Callable[[set[str], bool], None]

# WAL and FULL: a commit is on disk when COMMIT returns, power cuts included (sqlite.org/pragma.html
# #pragma_synchronous). Checkpoints are the writer's, so the automatic ones are off.
PRAGMAS: Final = (
    ("journal_mode", "wal", "wal"),
    ("synchronous", "FULL", 2),
    ("busy_timeout", "5000", 5000),
    ("foreign_keys", "ON", 1),
    ("wal_autocheckpoint", "0", 0),
    ("journal_size_limit", str(JOURNAL_LIMIT), JOURNAL_LIMIT),
    ("trusted_schema", "OFF", 0),
)


class SqliteStore(Repairs, Logins, Feed, Access, Downstream, Figures):
    """Everything that is kept, in one file. Use `open`."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        entropy: Callable[[int], int],
        notice: Notice,
        least_free: int,
        rebuild: bool,
        seal: Seal,
    ) -> None:
        self.path = path
        self._seal = seal
        self._rebuild = rebuild
        self._notice = notice
        self.instance = ""
        self._clock = clock
        self._source = ids.IdSource(entropy)
        self._listeners: list[Listener] = []
        self._timers: list[Timed] = []
        self._lock: int | None = None
        self._directory = Directory(seal)
        self._reads = Reads(str(path), seal)
        self._place = Place(path, least_free=least_free)
        self._writer = Writer(
            self._connect,
            files=self._place,
            probe=self._probe,
            on_commit=self._tell,
            timed=self._time,
            notice=notice,
        )
        self._write: Write = self._writer.call
        self._make_handlers()

    def _make_handlers(self) -> None:
        # Made once: the writer groups a batch by handler.
        kept = ledger.Ledger(lambda: self._directory.subscriptions, self._next_id)
        known = registry.Registry(kept, self._next_id)
        ends = self._make_downstream(Endpoints(self._directory, self._next_id, self._seal))
        tells = Operations(lambda: self._directory.subscriptions, self._next_id)
        work = queue.Queue(self._directory, ends.set_state, self._seal, tells)
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
        self._prune = each(prune.prune)
        self._ready = each(lambda tx, _: self._probe(tx.connection))

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Clock,
        entropy: Callable[[int], int] = random.getrandbits,  # ids must differ, not be secret
        notice: Notice = lambda event, **evidence: None,
        least_free: int = LEAST_FREE,
        rebuild: bool = False,
        seal: Seal | None = None,
    ) -> Self:
        """Lock, migrate and open the database. Raises StoreLocked, SchemaTooNew, CannotStart.

        `notice` is told what an operator should know; below `least_free` bytes of room on the disk
        `admit` refuses. `rebuild` rewrites a file that can't shrink yet, which takes as much room.
        `seal` keeps endpoints' credentials; without one they stand in clear.
        """
        seal = seal or Seal()
        store = cls(check_place(path), clock, entropy, notice, least_free, rebuild, seal)
        store._take_lock()
        try:
            await store._writer.start()
            await store._reads.open()
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Commit what is queued and release the file. Raises StoreBroken when that failed."""
        try:
            await self._reads.close()
            await self._writer.close()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _take_lock(self) -> None:
        # The lock stands beside the database: SQLite's own locks live inside it, and closing any
        # descriptor of the file would drop those (POSIX).
        try:
            directories.make(self.path.parent)
            lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._not_writable(error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise StoreLocked(
                f"Another process has {self.path} open. Stop it first, or give this one its own"
                " REELHOOK_DATA_DIR.",
                path=str(self.path),
            ) from None
        self._lock = lock

    def _not_writable(self, error: OSError) -> CannotStart:
        return CannotStart(
            f"{error.filename or self.path} can't be written: {error.strerror}. The receiver's user"
            f" has to be able to write {self.path.parent}; or set REELHOOK_DATA_DIR.",
            path=str(self.path),
        )

    def _connect(self) -> sqlite3.Connection:
        # Secrets and payloads are inside; SQLite gives -wal and -shm the mode of the database.
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise self._not_writable(error) from error
        connection = sqlite3.connect(self.path, isolation_level=None, cached_statements=1_024)
        try:
            self._set_up(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            raise CannotStart(f"{self.path} can't be opened: {error}. {_remedy(error)}") from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        # Before the first pragma: what is not ours, or can't be opened, stays as it is.
        check_owner(connection)
        check_seal(connection, self._seal)
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # heeded by an empty file alone
        for name, value, expected in PRAGMAS:
            connection.execute(f"PRAGMA {name} = {value}")
            found = connection.execute(f"PRAGMA {name}").fetchone()[0]
            if found != expected:
                raise CannotStart(f"SQLite keeps {name} at {found!r}, not {expected!r}.")
        migrate(connection)
        take_over(connection, self._seal)
        if self._rebuild:
            make_shrinkable(connection)
        self._start(connection)
        # After a crash the log may show commits that no fsync ever confirmed. Once they are in the
        # database, what we answer about them (`duplicate`) is true after a power cut as well.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert self._lock is not None  # noqa: S101
        self._place.begin(self._lock)

    def _start(self, connection: sqlite3.Connection) -> None:
        self._directory.reload(connection)
        self._source.go_on(_newest_id(connection))
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "INSERT OR IGNORE INTO meta (name, value) VALUES ('instance', ?)",
            (secrets.token_hex(16),),
        )
        queue.release_all(Transaction(connection), self._clock())
        answers.drop_unfinished(connection)
        connection.execute("COMMIT")
        query = "SELECT value FROM meta WHERE name = 'instance'"
        self.instance = connection.execute(query).fetchone()[0]

    def _next_id(self) -> int:
        return self._source.next(self._clock())

    def _probe(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO meta (name, value) VALUES ('ready_at', ?)",
            (str(self._clock()),),
        )

    def _tell(self, transaction: Transaction) -> None:
        for listener in self._listeners:
            listener(transaction.changed_tasks, transaction.work)

    def on_change(self, listener: Listener) -> None:
        """Call `listener` on the event loop after each commit."""
        self._listeners.append(listener)

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

    @property
    def wal_size(self) -> int:
        """Bytes of the write-ahead log at the last look."""
        return self._writer.wal_size

    def admit(self) -> None:
        """Whether a callback's body is worth reading."""
        self._writer.admit()
        self._place.admit()

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


def _newest_id(connection: sqlite3.Connection) -> int:
    tables = ("callbacks", "events", "endpoints", "jobs", "api_tokens")
    newest = [connection.execute(f"SELECT max(id) FROM {table}").fetchone()[0] for table in tables]
    return max(number or 0 for number in newest)


def _remedy(error: sqlite3.DatabaseError) -> str:
    name = str(getattr(error, "sqlite_errorname", ""))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "Another program holds it; end that first."
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return "Look after the disk: the room that is left, and what dmesg says of it."
    return "Restore a backup; or move the file away, with its -wal file, to begin anew."


def _is_store(store: SqliteStore) -> Store:
    return store  # mypy proves that the class keeps the protocol
