"""Floor 2, edges: jobs: many deliveries sent again, a few in each transaction. stdlib only.

What is sent again must not stand in front of what is new: a job gives an endpoint only a few more
than are under way there, and goes on as they go out. So a job can be canceled, and an endpoint that
answers nothing has no queue of a hundred thousand when it is back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final

from receiver import ids
from receiver.endpoints import Subscription
from receiver.errors import Conflict, NotFound
from receiver.repair import JOB_MOVES, Job, JobMove, JobState
from receiver.store.connection import Connection, Held, named
from receiver.store.protocol import JobStep, NewJob
from receiver.store.verbs.entries import is_alive
from receiver.store.verbs.rows import job_of
from receiver.store.verbs.walk import Walk
from receiver.store.writer import Transaction

KEPT: Final = 1_000  # jobs that are over; those before the last so many go when another begins
WAIT: Final = 250  # milliseconds until a job looks again whether its endpoints have room
# Milliseconds until it looks again where all that is left waits for endpoints that nothing is sent
# to, or that take nothing. Enabling one wakes it.
IDLE: Final = 60_000


class Jobs:
    """The verbs. `subscriptions` gives the current endpoints, `next_id` fresh ids."""

    def __init__(
        self, subscriptions: Callable[[], Sequence[Subscription]], next_id: Callable[[], int]
    ) -> None:
        self._subscriptions = subscriptions
        self._next_id = next_id

    def add(self, tx: Transaction, new: NewJob) -> tuple[Job, bool]:
        """Queue a job, unless the same one is there; whether it is new. Raises Conflict."""
        tx.connection.hold(Held.JOBS)
        asked = new.repair.model_dump_json()
        there = _same(tx.connection, new, asked)
        if there is not None:
            return there, False
        number = max(self._next_id(), _next_above(tx.connection))
        tx.connection.execute(
            "INSERT INTO jobs (id, kind, state, project, asked, idempotency_key, total, next_at,"
            " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                number,
                new.repair.kind,
                JobState.QUEUED,
                new.repair.project,
                asked,
                new.key,
                new.total,
                new.now,
                new.now,
            ),
        )
        _forget(tx.connection)
        return read(tx.connection, number), True

    def advance(self, tx: Transaction, asked: tuple[int, int]) -> JobStep:
        """Send a few more again, and keep how far that is."""
        number, now = asked
        tx.connection.hold(Held.JOBS)
        job = read(tx.connection, number)
        if (job.state, JobMove.CANCEL) not in JOB_MOVES:
            return JobStep(job, 0)
        endpoint = job.asked.endpoint
        if endpoint and not is_alive(tx.connection, ids.parse(ids.ENDPOINT, endpoint)):
            return JobStep(_end(tx, job, JobMove.CANCEL, now, "its endpoint was deleted"), 0)
        if job.state is JobState.QUEUED:
            _move(tx, job, JobMove.START)
            tx.connection.execute("UPDATE jobs SET started_at = ? WHERE id = ?", (now, number))
        walk = Walk(tx.connection, number, job, self._subscriptions(), now, _place(tx, number))
        walk.step()
        tx.work = tx.work or bool(walk.taken)
        tx.connection.execute(
            "UPDATE jobs SET done = done + ?, place = ?, note = ?, next_at = ? WHERE id = ?",
            (
                walk.taken,
                json.dumps(walk.place),
                walk.note,
                now + _pause(walk),
                number,
            ),
        )
        if walk.finished:
            return JobStep(_end(tx, read(tx.connection, number), JobMove.FINISH, now), walk.taken)
        return JobStep(read(tx.connection, number), walk.taken)

    def cancel(self, tx: Transaction, asked: tuple[int, int]) -> Job:
        """Go no further; what was sent again goes on. Raises Conflict for a job that is over."""
        number, now = asked
        return _end_by_hand(tx, number, JobMove.CANCEL, now)

    def fail(self, tx: Transaction, asked: tuple[int, int, str]) -> Job:
        """A step met a defect: end the job, or it would meet it for ever."""
        number, now, why = asked
        return _end_by_hand(tx, number, JobMove.FAIL, now, why)


def _next_above(connection: Connection) -> int:
    # A job goes through what has a lower id. Another process may have given events theirs by a
    # clock that is ahead of ours.
    events, jobs = connection.execute(
        "SELECT (SELECT max(id) FROM events), (SELECT max(id) FROM jobs)"
    ).fetchone()
    return max(events or 0, jobs or 0) + 1


def _pause(walk: Walk) -> int:
    if walk.is_idle:
        return IDLE
    return WAIT if walk.stopped and not walk.taken else 1  # and the next one has its turn


def _same(connection: Connection, new: NewJob, asked: str) -> Job | None:
    row = connection.execute(
        "SELECT id, asked FROM jobs WHERE coalesce(project, '') = coalesce(?, '')"
        " AND idempotency_key = ?",
        (new.repair.project, new.key),
    ).fetchone()
    if row is not None and row[1] != asked:
        raise Conflict("That Idempotency-Key belongs to a job that was asked for otherwise.")
    if row is None:
        row = connection.execute(
            "SELECT id FROM jobs WHERE state IN ('queued', 'running') AND asked = ?", (asked,)
        ).fetchone()
    return None if row is None else read(connection, row[0])


def _forget(connection: Connection) -> None:
    connection.execute(
        "DELETE FROM jobs WHERE finished_at IS NOT NULL AND id <= ("
        "SELECT id FROM jobs ORDER BY id DESC LIMIT 1 OFFSET ?)",
        (KEPT,),
    )


def _place(tx: Transaction, number: int) -> list[int]:
    row = tx.connection.execute("SELECT place FROM jobs WHERE id = ?", (number,)).fetchone()
    found: list[int] = json.loads(row[0])
    return found


def _move(tx: Transaction, job: Job, move: JobMove) -> None:
    after = JOB_MOVES.get((job.state, move))
    if after is None:
        raise Conflict(f"Job {job.id} is {job.state}.", state=job.state)
    tx.connection.execute(
        "UPDATE jobs SET state = ? WHERE id = ?", (after, ids.parse(ids.JOB, job.id))
    )


def _end_by_hand(
    tx: Transaction, number: int, move: JobMove, now: int, note: str | None = None
) -> Job:
    tx.connection.hold(Held.JOBS)  # a step that is under way ends first
    return _end(tx, read(tx.connection, number), move, now, note)


def _end(tx: Transaction, job: Job, move: JobMove, now: int, note: str | None = None) -> Job:
    number = ids.parse(ids.JOB, job.id)
    _move(tx, job, move)
    tx.connection.execute(
        "UPDATE jobs SET finished_at = ?, note = ? WHERE id = ?", (now, note, number)
    )
    return read(tx.connection, number)


def read(connection: Connection, number: int) -> Job:
    """A job as it stands in this transaction."""
    rows = named(connection.execute("SELECT * FROM jobs WHERE id = ?", (number,)))
    if not rows:
        raise NotFound(f"There is no job {ids.JOB}{ids.encode(number)}.")
    return job_of(rows[0])
