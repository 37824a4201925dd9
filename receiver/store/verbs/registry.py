"""Floor 2, edges: the writes that submitters and operators ask of a task. stdlib only.

The right to submit is a lease: whoever creates a task has it, and whoever comes later gets it only
when it is free and nothing says that the platform took the task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from receiver.clock import SECOND
from receiver.errors import Conflict, NotFound
from receiver.events import is_late
from receiver.expectations import SAMPLES, expect
from receiver.platforms.reading import dumps
from receiver.store.connection import Row, named
from receiver.store.protocol import Registration, TaskChange
from receiver.store.verbs.lanes import queue
from receiver.store.verbs.ledger import Ledger, load
from receiver.store.verbs.reconcile import begin_polling
from receiver.store.verbs.rows import json_of, task_key
from receiver.store.writer import Transaction
from receiver.tasks import GIVE_UP, SubmitState, absorb
from receiver.tokens import Source

# What the latest of a model took in a project; of another one's nobody is told. An index has it.
LATEST: Final = (
    "SELECT took FROM tasks WHERE platform = ? AND model = ? AND project = ? AND took IS NOT NULL"
    " ORDER BY n DESC LIMIT ?"
)
SUBMIT_LEASE: Final = 120 * SECOND  # longer than any submit may take


class Registry:
    """Registration, over the ledger that records what follows from it."""

    def __init__(self, ledger: Ledger, next_id: Callable[[], int]) -> None:
        self._ledger = ledger
        self._next_id = next_id

    def register(self, tx: Transaction, asked: Registration) -> bool:
        """Create a task, or fill in what an existing one lacks. True: this call may submit it."""
        key = task_key(asked.id)
        lock = tx.connection.for_update()
        rows = named(tx.connection.execute(f"SELECT * FROM tasks WHERE id = ?{lock}", (key,)))
        tx.changed_tasks.add(asked.id)
        if not rows:
            self._create(tx, asked, key)
            begin_polling(tx, key, asked.now)
            return True
        (row,) = rows
        _check_same(asked, row)
        _fill(tx, asked, key)
        if row["ttl"] is None and asked.spec.ttl is not None:
            self._date(tx, asked)
        begin_polling(tx, key, asked.now)
        if row["expected"] is None:
            self._complete(tx, asked)
        if _lacked(row):
            self._match_again(tx, asked)
        return False

    def _date(self, tx: Transaction, asked: Registration) -> None:
        # What was told stays as it was; what is told from now on, and the API, have the expiry.
        loaded = load(tx.connection, {asked.id})
        recorder = self._ledger.recorder(loaded)
        recorder.date(loaded.tasks[asked.id])
        self._ledger.write(tx, recorder.plan, loaded, asked.now)

    def _complete(self, tx: Transaction, asked: Registration) -> None:
        # Knowing how many are owed may show that all of them are in.
        loaded = load(tx.connection, {asked.id})
        recorder, task = self._ledger.recorder(loaded), loaded.tasks[asked.id]
        changes = absorb(task, [], source=Source.CALLBACK, now=asked.now)
        recorder.change(task, changes, asked.now)
        self._ledger.write(tx, recorder.plan, loaded, asked.now)

    def _match_again(self, tx: Transaction, asked: Registration) -> None:
        # Events told before the PUT were matched without its model, tags and metadata. An endpoint
        # that is younger than the event (ids sort by time) is told nothing old.
        loaded = load(tx.connection, {asked.id})
        recorder, task = self._ledger.recorder(loaded), loaded.tasks[asked.id]
        told = tx.connection.execute(
            # No prune may take one that is given deliveries.
            "SELECT id, payload FROM events WHERE task_n = ? ORDER BY id"
            f"{tx.connection.for_update()}",
            (loaded.numbers[asked.id],),
        ).fetchall()
        due = [
            (event, endpoint, asked.now, None if is_late(fact) else loaded.numbers[asked.id])
            for event, fact in [(event, json_of(payload)) for event, payload in told]
            for endpoint in recorder.wanting(task, fact)
            if endpoint < event
        ]
        queue(tx.connection, due, self._ledger.ordered)
        tx.work = tx.work or bool(due)

    def _create(self, tx: Transaction, asked: Registration, key: bytes) -> None:
        spec = asked.spec
        give_up_at = _or(asked.give_up_at, asked.now + GIVE_UP)
        found = expect(_took(tx, asked), longest=give_up_at - asked.now)
        tx.connection.execute(
            "INSERT INTO tasks (n, id, platform, project, status, expected, created_at,"
            " deadline_at, give_up_at, submit_state, submit_lease, platform_id, model, client_ref,"
            " tags, metadata, request, ttl, asked_at, expected_took, deadline_named, traceparent,"
            " registered)"
            f" VALUES ({', '.join('?' * 22)}, 1)",
            (
                self._next_id(),
                key,
                spec.platform,
                asked.project,
                "pending",
                spec.expected,
                asked.now,
                _or(asked.deadline_at, asked.now + found.deadline),
                give_up_at,
                SubmitState.REGISTERED,
                asked.now + SUBMIT_LEASE,
                spec.platform_id,
                spec.model,
                spec.client_ref,
                dumps(spec.tags),
                dumps(spec.metadata),
                None if spec.request is None else dumps(spec.request),
                spec.ttl,
                asked.now,
                found.duration,
                asked.deadline_at is not None,
                spec.traceparent,
            ),
        )


def _took(tx: Transaction, asked: Registration) -> list[int]:
    spec = asked.spec
    rows = tx.connection.execute(LATEST, (spec.platform, spec.model, asked.project, SAMPLES))
    return [took for (took,) in rows]


def _or(named: int | None, default: int) -> int:
    return default if named is None else named


def _fill(tx: Transaction, asked: Registration, key: bytes) -> None:
    # A deadline that nobody named is replaced by one that is. It is not worked out anew: of a task
    # that a callback created nobody knows when it began.
    spec = asked.spec
    tx.connection.execute(
        "UPDATE tasks SET expected = coalesce(expected, ?), model = coalesce(model, ?),"
        " platform_id = coalesce(platform_id, ?), client_ref = coalesce(client_ref, ?),"
        " deadline_at = iif(deadline_named = 1, deadline_at, coalesce(?, deadline_at)),"
        " deadline_named = max(deadline_named, ?),"
        " give_up_at = iif(give_up_at = created_at + ?, coalesce(?, give_up_at), give_up_at),"
        " request = coalesce(request, ?), ttl = coalesce(ttl, ?),"
        " traceparent = coalesce(traceparent, ?),"
        " tags = iif(tags = '{}', ?, tags), metadata = iif(metadata = '{}', ?, metadata),"
        " registered = 1, revision = revision + 1 WHERE id = ?",
        (
            spec.expected,
            spec.model,
            spec.platform_id,
            spec.client_ref,
            asked.deadline_at,
            asked.deadline_at is not None,
            GIVE_UP,
            asked.give_up_at,
            None if spec.request is None else dumps(spec.request),
            spec.ttl,
            spec.traceparent,
            dumps(spec.tags),
            dumps(spec.metadata),
            key,
        ),
    )


def _lacked(row: Row) -> bool:
    return row["model"] is None or row["tags"] == "{}" or row["metadata"] == "{}"


def _check_same(asked: Registration, row: Row) -> None:
    expected, platform, project = row["expected"], row["platform"], row["project"]
    if project != asked.project or platform != asked.spec.platform:
        raise Conflict(
            f"Task {asked.id} belongs to platform {platform}, project {project}.", task=asked.id
        )
    if expected is not None and expected != asked.spec.expected:
        raise Conflict(
            f"Task {asked.id} expects {expected} results, not {asked.spec.expected}."
            " Use a new task id for another request.",
            expected=expected,
        )


def change_task(tx: Transaction, change: TaskChange) -> None:
    """Note how a submit went. `registered` leases the right to submit, or raises Conflict.

    Only one caller can take a task from `registered` to `unknown` with `was`: that one sends it.
    """
    key = task_key(change.id)
    row = tx.connection.execute(
        f"SELECT submit_state, submit_lease FROM tasks WHERE id = ?{tx.connection.for_update()}",
        (key,),
    ).fetchone()
    if row is None:
        raise NotFound(f"There is no task {change.id}.")
    state, lease = row
    if change.was not in (None, state):
        raise Conflict(f"Task {change.id} is {state}, not {change.was}.", submit_state=state)
    if change.submit_state in (SubmitState.REGISTERED, SubmitState.UNKNOWN):
        lease = _leased(change, state, lease)
    tx.connection.execute(
        "UPDATE tasks SET submit_state = coalesce(?, submit_state), submit_lease = ?,"
        " platform_id = coalesce(?, platform_id), revision = revision + 1 WHERE id = ?",
        (_settled(state, change.submit_state), lease, change.platform_id, key),
    )
    begin_polling(tx, key, change.now)
    tx.changed_tasks.add(change.id)


def _leased(change: TaskChange, state: str, lease: int | None) -> int | None:
    by_default = change.submit_state is SubmitState.REGISTERED
    if not (by_default if change.lease is None else change.lease):
        return None  # its submitter has stopped trying, so another may find out at once
    about_to_send = change.was is SubmitState.REGISTERED and not by_default
    if not about_to_send:  # who is, has the lease of the registration; and `was` lets one through
        _check_free(change, state, lease)
    return change.now + SUBMIT_LEASE


def _settled(current: str, asked: SubmitState | None) -> SubmitState | None:
    # A callback that came before the submit's answer knows better than a time-out does.
    decided = current in (SubmitState.SUBMITTED, SubmitState.REJECTED)
    return None if decided and asked in (SubmitState.UNKNOWN, SubmitState.REGISTERED) else asked


def _check_free(change: TaskChange, state: str, lease: int | None) -> None:
    if state in (SubmitState.SUBMITTED, SubmitState.REJECTED):
        raise Conflict(f"Task {change.id} is already {state}.", submit_state=state)
    if lease is not None and lease > change.now:
        raise Conflict(
            f"Task {change.id} is being submitted by another caller; its lease ends in"
            f" {(lease - change.now) // SECOND + 1} s.",
            lease_until=lease,
        )


def revoke_task(tx: Transaction, change: TaskChange) -> None:
    """From now on, every token of the task that was issued before is refused with 410."""
    changed = tx.connection.execute(
        "UPDATE tasks SET revoked_at = ?, revision = revision + 1 WHERE id = ?",
        (change.now, task_key(change.id)),
    )
    if not changed.rowcount:
        raise NotFound(f"There is no task {change.id}.")
    tx.changed_tasks.add(change.id)


def delete_task(tx: Transaction, change: TaskChange) -> None:
    """Remove a task with its callbacks and results; its events and deliveries stay."""
    row = tx.connection.execute(
        "DELETE FROM tasks WHERE id = ? RETURNING n", (task_key(change.id),)
    ).fetchone()
    if row is None:
        raise NotFound(f"There is no task {change.id}.")
    tx.connection.execute("DELETE FROM results WHERE task_n = ?", row)
    tx.connection.execute("DELETE FROM callbacks WHERE task_n = ?", row)
    tx.changed_tasks.add(change.id)
