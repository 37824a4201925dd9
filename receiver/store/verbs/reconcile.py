"""Floor 2, edges: tasks that are due for reconcile: claimed, handed back, asked for. stdlib only.

A claim moves a task to its next due time at once, so that a poller which dies delays it and loses
nothing. The lease keeps a second poller away until the first one's answer has come, or lapses.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from receiver.errors import Conflict, NotFound
from receiver.platforms import POLLED
from receiver.reconciling import first_due, next_due
from receiver.store.connection import Connection, Row, named
from receiver.store.protocol import TaskChange, TasksAsked, TasksReleased
from receiver.store.verbs.rows import task_key, task_of
from receiver.store.writer import Transaction
from receiver.tasks import SubmitState, Task


def claim_tasks(tx: Transaction, asked: TasksAsked) -> Sequence[Task]:
    """Lease the tasks that have been due for longest."""
    rows = _due(tx.connection, asked)
    tx.connection.executemany(
        "UPDATE tasks SET reconcile_at = ?, reconcile_lease = ?,"
        " reconcile_attempts = reconcile_attempts + 1 WHERE n = ?",
        [(_next_due(row, asked.now), asked.lease_until, row["n"]) for row in rows],
    )
    return [task_of(row, whole=False) for row in rows]


def _due(connection: Connection, asked: TasksAsked) -> Sequence[Row]:
    # A rejected task is over; a poll may call it `processing` for ever. One that is `registered`
    # is polled: an SDK that was given a URL tells us of its submit by nothing but callbacks. Not
    # where there are none: without a run, nor a submit, there is nothing to ask after.
    found = connection.execute(
        "SELECT * FROM tasks WHERE reconcile_at <= ? AND coalesce(reconcile_lease, 0) <= ?"
        f" AND submit_state <> ? AND platform IN ({_marks(asked.platforms)})"
        " AND project = coalesce(?, project)"
        " AND (platform_id IS NOT NULL OR submit_state <> ?"
        f" OR platform NOT IN ({_marks(POLLED)}))"
        f" ORDER BY reconcile_at, n LIMIT ?{connection.skip_locked}",
        (
            min(asked.due_by, asked.now),
            asked.now,
            SubmitState.REJECTED,
            *asked.platforms,
            asked.project,
            SubmitState.REGISTERED,
            *POLLED,
            asked.limit,
        ),
    )
    return named(found)


def _next_due(row: Row, now: int) -> int | None:
    return next_due(
        row["reconcile_attempts"] + 1,
        now=now,
        complete=row["completed_at"] is not None,
        polled=row["platform"] in POLLED and row["platform_id"] is not None,
        give_up_at=row["give_up_at"],
    )


def _marks(values: Collection[str]) -> str:
    return ", ".join("?" * len(values))


def begin_polling(tx: Transaction, key: bytes, now: int) -> None:
    """Make a task due soon that its platform, which does not call back, has taken or may have."""
    row = tx.connection.execute(
        "SELECT platform_id, submit_state, give_up_at FROM tasks"
        f" WHERE id = ? AND completed_at IS NULL AND platform IN ({_marks(POLLED)})",
        (key, *POLLED),
    ).fetchone()
    if row is None or (row[0] is None and row[1] == SubmitState.REGISTERED):
        return
    due = first_due(now=now, run_known=row[0] is not None, give_up_at=row[2])
    tx.connection.execute(
        "UPDATE tasks SET reconcile_at = min(coalesce(reconcile_at, ?), ?) WHERE id = ?",
        (due, due, key),
    )


def release_tasks(tx: Transaction, released: TasksReleased) -> int:
    """End the leases of one claim; a lease that lapsed and is somebody else's by now stays."""
    due = "" if released.polled else _AS_IF_NEVER_CLAIMED
    given = [] if released.polled else [released.now]
    changed = tx.connection.executemany(
        f"UPDATE tasks SET reconcile_lease = NULL{due}"
        " WHERE id = ? AND reconcile_lease = ? AND project = coalesce(?, project)",
        [(*given, task_key(task), released.lease_until, released.project) for task in released.ids],
    )
    return changed.rowcount


_AS_IF_NEVER_CLAIMED: Final = (
    ", reconcile_at = ?, reconcile_attempts = max(reconcile_attempts - 1, 0)"
)


def reconcile_task(tx: Transaction, change: TaskChange) -> None:
    """Make a task due now, whoever holds its lease, and begin its backoff anew."""
    key = task_key(change.id)
    row = tx.connection.execute(
        "SELECT submit_state, platform, platform_id FROM tasks WHERE id = ?", (key,)
    ).fetchone()
    if row is None:
        raise NotFound(f"There is no task {change.id}.")
    _check_pollable(change.id, *row)
    tx.connection.execute(
        "UPDATE tasks SET reconcile_at = ?, reconcile_lease = NULL, reconcile_attempts = 0"
        " WHERE id = ?",
        (change.now, key),
    )


def _check_pollable(task: str, state: str, platform: str, platform_id: str | None) -> None:
    if state == SubmitState.REJECTED:
        raise Conflict(
            f"The platform rejected task {task}: there is nothing to fetch. Use a new task id"
            " for another try.",
            submit_state=state,
        )
    if platform in POLLED and platform_id is None and state == SubmitState.REGISTERED:
        raise Conflict(
            f"Nothing is known to have been sent for task {task}. PATCH it with the platform_id"
            f" that {platform} gave its run.",
            submit_state=state,
        )
