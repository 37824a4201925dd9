"""Floor 2, edges: the writes of the ledger: arrivals and deadlines. stdlib only.

Each function runs inside the writer's transaction. What changes is decided by `receiver.recording`
and `receiver.tasks`; here it is loaded and stored, a whole batch with one statement a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from receiver import ids
from receiver.callbacks import Arrival, Receipt
from receiver.endpoints import Subscription
from receiver.events import announce_overdue
from receiver.platforms.items import Kind
from receiver.platforms.reading import dumps
from receiver.recording import MOST_ORPHANS, MOST_STRANGERS, NextId, Plan, Recorder, Room
from receiver.results import ResultState
from receiver.store.connection import Connection, Held
from receiver.store.verbs.lanes import queue
from receiver.store.writer import Transaction
from receiver.tasks import DEADLINE, GIVE_UP, SubmitState, TaskState, give_up
from receiver.tokens import Source

_TASK_FIELDS: Final = (  # as TaskState has them
    "n, id, platform, project, expected, model, tags, metadata, succeeded, failed, missed, indexed,"
    " cost, closed, overdue, noise, duplicates, completed_at, revoked_at, reconcile_at,"
    " reconcile_lease, ttl, asked_at, submit_state"
)
# Calling an enum's class takes longer than reading a whole row.
_KINDS: Final = {str(kind): kind for kind in Kind}
_SOURCES: Final = {str(source): source for source in Source}
_SUBMIT_STATES: Final = {str(state): state for state in SubmitState}
_RESULT_FIELDS: Final = (
    "task_n, key, id, idx, kind, late, superseded, conflicts, source, received_at, cost, told"
)


def _marks(count: int) -> str:
    return ",".join("?" * count)


@dataclass(slots=True)
class Loaded:
    """The tasks of a batch, with the numbers under which they are stored."""

    tasks: dict[str, TaskState]
    numbers: dict[str, int]  # task id -> n


class Ledger:
    """The ledger's verbs. `subscriptions` gives the current endpoints, `next_id` fresh ids, which
    are above what `go_on` was told."""

    def __init__(
        self,
        subscriptions: Callable[[], Sequence[Subscription]],
        next_id: Callable[[], int],
        go_on: Callable[[int], None],
    ) -> None:
        self._subscriptions = subscriptions
        self._next_id: NextId = next_id
        self._go_on = go_on

    def record(self, tx: Transaction, arrivals: Sequence[Arrival]) -> Sequence[Receipt]:
        """Store a batch of arrivals with everything that follows from them."""
        if any(arrival.jti is None for arrival in arrivals):
            tx.connection.hold(Held.STRANGERS)
        loaded = load(tx.connection, {a.task_id for a in arrivals if a.task_id is not None})
        kept = _kept(tx.connection, loaded)
        room = _room(tx.connection, arrivals, kept)
        recorder = Recorder(loaded.tasks, kept, self._subscriptions(), self._next_id, room)
        plan = recorder.record(arrivals)
        self.write(tx, plan, loaded, arrivals[0].received_at)
        return plan.receipts

    def recorder(self, loaded: Loaded) -> Recorder:
        """A recorder over loaded tasks, for changes that no arrival brings."""
        return Recorder(loaded.tasks, set(), self._subscriptions(), self._next_id)

    def note_overdue(self, tx: Transaction, nows: Sequence[int]) -> Sequence[int]:
        """Flag tasks whose deadline has passed, each with its one `task.overdue`; the count."""
        return [self._note_overdue(tx, now) for now in nows]

    def _note_overdue(self, tx: Transaction, now: int) -> int:
        due = tx.connection.execute(
            "SELECT id FROM tasks WHERE completed_at IS NULL AND overdue = 0 AND deadline_at <= ?"
            f" LIMIT 500{tx.connection.skip_locked}",
            (now,),
        ).fetchall()
        loaded = load(tx.connection, {ids.task_text(row[0]) for row in due})
        recorder = self.recorder(loaded)
        for task in loaded.tasks.values():
            task.overdue = True
            task.reconcile_at = min(task.reconcile_at or now, now)  # whatever its backoff
            recorder.plan.touched[task.id] = task
            recorder.tell(task, [announce_overdue(task, now)], now)
        self.write(tx, recorder.plan, loaded, now)
        return len(due)

    def give_up(self, tx: Transaction, nows: Sequence[int]) -> Sequence[int]:
        """Record `deadlineExceeded` for what is missing of tasks past their give-up; the count."""
        return [self._give_up(tx, now) for now in nows]

    def _give_up(self, tx: Transaction, now: int) -> int:
        due = tx.connection.execute(
            "SELECT id FROM tasks WHERE completed_at IS NULL AND give_up_at <= ?"
            f" LIMIT 500{tx.connection.skip_locked}",
            (now,),
        ).fetchall()
        loaded = load(tx.connection, {ids.task_text(row[0]) for row in due})
        recorder = self.recorder(loaded)
        for task in loaded.tasks.values():
            recorder.change(task, give_up(task, now), now)
        self.write(tx, recorder.plan, loaded, now)
        return len(due)

    @property
    def ordered(self) -> Set[int]:
        """The endpoints that keep the order of a task's events."""
        return {found.endpoint for found in self._subscriptions() if found.ordered}

    def write(self, tx: Transaction, plan: Plan, loaded: Loaded, now: int) -> None:
        """Store a plan."""
        for task in plan.created:
            loaded.numbers[task] = self._next_id()
        _insert_tasks(tx.connection, plan, loaded.numbers, now)
        _insert_callbacks(tx.connection, plan, loaded.numbers)
        _insert_results(tx.connection, plan, loaded.numbers)
        if plan.events:
            self._give_places(tx.connection, plan)
        if _insert_events(tx.connection, plan, loaded.numbers, self.ordered):
            tx.work = True
        tx.changed_tasks.update(plan.created, plan.touched)

    def _give_places(self, connection: Connection, plan: Plan) -> None:
        # Lanes, and whoever reads a task's events by their ids, rely on the order of the commits;
        # another process may have a clock that is ahead, or the greater part of the same moment.
        connection.hold(Held.EVENTS)
        if not connection.is_shared:
            return
        (newest,) = connection.execute("SELECT max(id) FROM events").fetchone()
        if newest is not None and newest > plan.events[0].id:
            self._go_on(newest)
            for row in plan.events:
                row.id = self._next_id()


def load(connection: Connection, wanted: set[str]) -> Loaded:
    if not wanted:
        return Loaded({}, {})
    keys = [ids.task_bytes(task) for task in wanted]
    rows = connection.execute(
        f"SELECT {_TASK_FIELDS} FROM tasks WHERE id IN ({_marks(len(keys))})"
        f"{connection.for_update('n')}",
        keys,
    ).fetchall()
    loaded = Loaded({}, {})
    by_number: dict[int, TaskState] = {}
    for row in rows:
        task = _task_of(row)
        loaded.tasks[task.id] = by_number[row[0]] = task
        loaded.numbers[task.id] = row[0]
    _load_results(connection, [n for n, task in by_number.items() if task.indexed], by_number)
    return loaded


def _load_results(connection: Connection, numbers: list[int], tasks: dict[int, TaskState]) -> None:
    if not numbers:
        return
    for row in connection.execute(
        f"SELECT {_RESULT_FIELDS} FROM results WHERE task_n IN ({_marks(len(numbers))})",
        numbers,
    ):
        tasks[row[0]].results[row[1]] = _result_of(row)


def _task_of(row: Sequence[Any]) -> TaskState:
    task = TaskState(ids.task_text(row[1]), *row[2:-1])
    task.submit_state = _SUBMIT_STATES[row[-1]]
    return task


def _result_of(row: Sequence[Any]) -> ResultState:
    return ResultState(
        id=row[2],
        key=row[1],
        index=row[3],
        kind=_KINDS[row[4]],
        late=bool(row[5]),
        superseded=bool(row[6]),
        conflicts=row[7],
        source=_SOURCES[row[8]],
        received_at=row[9],
        cost=row[10],
        told=row[11],
    )


def _room(
    connection: Connection, arrivals: Sequence[Arrival], kept: set[tuple[str | None, bytes]]
) -> Room | None:
    # Of a batch without static keys nothing has to be asked.
    if all(arrival.jti is not None for arrival in arrivals):
        return None
    orphans = connection.execute("SELECT sha256 FROM callbacks WHERE task_n IS NULL").fetchall()
    kept.update((None, digest) for (digest,) in orphans)
    strangers = connection.execute(
        "SELECT count(*) FROM tasks WHERE expected IS NULL AND completed_at IS NULL"
    ).fetchone()[0]
    return Room(MOST_ORPHANS - len(orphans), MOST_STRANGERS - strangers)


def _kept(connection: Connection, loaded: Loaded) -> set[tuple[str | None, bytes]]:
    # Only a task that has had a callback can have a repeated one.
    names = {
        loaded.numbers[task.id]: task.id
        for task in loaded.tasks.values()
        if task.indexed or task.noise
    }
    if not names:
        return set()
    rows = connection.execute(
        f"SELECT task_n, sha256 FROM callbacks WHERE task_n IN ({_marks(len(names))})",
        list(names),
    )
    return {(names[number], digest) for number, digest in rows}


def _insert_tasks(connection: Connection, plan: Plan, numbers: dict[str, int], now: int) -> None:
    if plan.created:
        connection.executemany(
            "INSERT INTO tasks (n, id, platform, project, created_at, tags, expected, status,"
            " succeeded, failed, missed, indexed, cost, closed, overdue, noise, duplicates,"
            " completed_at, reconcile_at, reconcile_lease, submit_state, deadline_at,"
            f" give_up_at) VALUES ({_marks(23)})",
            [
                (
                    numbers[task.id],
                    ids.task_bytes(task.id),
                    task.platform,
                    task.project,
                    now,
                    task.tags,
                    *_counts(task),
                    now + DEADLINE,
                    now + GIVE_UP,
                )
                # Two who make the same tasks wait for one another, and never both of them.
                for task in sorted(plan.created.values(), key=attrgetter("id"))
            ],
        )
    if plan.touched:
        connection.executemany(
            "UPDATE tasks SET expected = ?, status = ?, succeeded = ?, failed = ?, missed = ?,"
            " indexed = ?, cost = ?, closed = ?, overdue = ?, noise = ?, duplicates = ?,"
            " completed_at = ?, reconcile_at = ?, reconcile_lease = ?, submit_state = ?,"
            " revision = revision + 1 WHERE n = ?",
            [(*_counts(task), numbers[task.id]) for task in plan.touched.values()],
        )
        # Apart, once in a task's life: no other update has to look at the index of it.
        connection.executemany(
            "UPDATE tasks SET took = ? WHERE n = ?",
            [(t.took, numbers[t.id]) for t in plan.touched.values() if t.took is not None],
        )


def _counts(task: TaskState) -> tuple[Any, ...]:
    return (
        task.expected,
        task.status,
        task.succeeded,
        task.failed,
        task.missed,
        task.indexed,
        task.cost,
        task.closed,
        task.overdue,
        task.noise,
        task.duplicates,
        task.completed_at,
        task.reconcile_at,
        task.reconcile_lease,
        task.submit_state,
    )


def _insert_callbacks(connection: Connection, plan: Plan, numbers: dict[str, int]) -> None:
    if plan.replaced_progress:
        connection.executemany(
            "DELETE FROM callbacks WHERE task_n = ? AND outcome = 'progress'",
            [(numbers[task],) for task in plan.replaced_progress],
        )
    connection.executemany(
        "INSERT INTO callbacks (id, task_n, outcome, reason, platform, source, jti, size, sha256,"
        f" received_at, last_received_at, remote, body) VALUES ({_marks(13)})",
        [
            (
                row.id,
                None if row.task_id is None else numbers[row.task_id],
                row.outcome,
                row.reason,
                row.arrival.platform,
                row.arrival.source,
                row.arrival.jti,
                len(row.arrival.body),
                row.arrival.sha256,
                row.arrival.received_at,
                row.arrival.received_at,
                row.arrival.remote,
                row.arrival.body,
            )
            for row in plan.callbacks
        ],
    )
    if plan.repeats:
        connection.executemany(
            "UPDATE callbacks SET repeats = repeats + 1, last_received_at = ?"
            " WHERE task_n IS NOT DISTINCT FROM ? AND sha256 = ?",
            [(a.received_at, task and numbers[task], a.sha256) for task, a in plan.repeats],
        )
    orphans = [row for row in plan.callbacks if row.task_id is None and row.arrival.tags]
    connection.executemany(
        "UPDATE callbacks SET tags = ? WHERE id = ?",
        [(dumps(dict(row.arrival.tags)), row.id) for row in orphans],
    )


def _insert_results(connection: Connection, plan: Plan, numbers: dict[str, int]) -> None:
    connection.executemany(
        f"INSERT INTO results ({_RESULT_FIELDS}, raw) VALUES ({_marks(13)})",
        [(numbers[task], *_result_row(result), result.raw) for task, result in plan.results],
    )
    if plan.changed_results:
        connection.executemany(
            "UPDATE results SET superseded = ?, conflicts = ?, cost = ?, told = ?"
            " WHERE task_n = ? AND key = ?",
            [
                (
                    result.superseded,
                    result.conflicts,
                    result.cost,
                    result.told,
                    numbers[task],
                    result.key,
                )
                for task, result in plan.changed_results
            ],
        )


def _result_row(result: ResultState) -> tuple[Any, ...]:
    return (
        result.key,
        result.id,
        result.index,
        result.kind,
        result.late,
        result.superseded,
        result.conflicts,
        result.source,
        result.received_at,
        result.cost,
        result.told,
    )


def _insert_events(
    connection: Connection, plan: Plan, numbers: dict[str, int], ordered: Set[int]
) -> bool:
    connection.executemany(
        "INSERT INTO events (id, type, task_n, project, created_at, payload)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        [
            (
                row.id,
                row.announcement.type,
                numbers[row.task_id],
                row.project,
                row.created_at,
                row.announcement.payload,
            )
            for row in plan.events
        ],
    )
    due = [
        (row.id, endpoint, row.created_at, None if row.announcement.late else numbers[row.task_id])
        for row in plan.events
        for endpoint in row.endpoints
    ]
    queue(connection, due, ordered)
    return bool(due)
