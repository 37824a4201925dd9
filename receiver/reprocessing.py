"""Floor 1, decisions: kept bytes taken once more, once a parser can read them. Pure.

The same parse and the same recording as a fresh arrival's, but nobody sent anything: the callback
keeps its row and its time, no poll becomes due, and what it told before is not counted again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from receiver.callbacks import Arrival, Kept, Outcome, Receipt, by_task, read
from receiver.endpoints import Subscription
from receiver.platforms.items import Item
from receiver.recording import FOREIGN, NAMES_NO_TASK, NOISE, UNKNOWN, NextId, Recorder
from receiver.tasks import TaskState

_READ: Final = frozenset({Outcome.RECORDED, Outcome.CONFLICT, Outcome.DUPLICATE, Outcome.PROGRESS})


def arrivals_of(kept: Kept, body: bytes, now: int) -> list[Arrival]:
    """What kept bytes say by today's parser, as arrivals; the first, of `now`, has the row.

    A static key says nothing of the task, so what is kept under none may name several by now.
    The others get rows of their own, which came when the bytes did.
    """
    items, unreadable = read(kept.platform, body, None if kept.jti is None else kept.task_id)
    if kept.task_id is not None:
        own = [item for item in items if item.task_id == kept.task_id]
        # Beside a static key nothing is foreign: each task that was named has its own row.
        foreign = 0 if kept.jti is None else len(items) - len(own)
        return [_arrival(kept, body, now, kept.task_id, own, foreign, unreadable)]
    found = by_task(items)
    named: list[str | None] = [task for task in found if task is not None]
    first, *others = named or [None]
    came = kept.received_at
    return [
        _arrival(kept, body, now, first, found[first], 0, unreadable),
        *[_arrival(kept, body, came, other, found[other], 0, unreadable) for other in others],
    ]


def _arrival(
    kept: Kept,
    body: bytes,
    now: int,
    task: str | None,
    items: Sequence[Item],
    foreign: int,
    unreadable: str | None,
) -> Arrival:
    return Arrival(
        task_id=task,
        platform=kept.platform,
        project=kept.project,
        expected=None,  # a task that is known has it
        source=kept.source,
        issued_at=kept.received_at,  # what came after a revocation came with a later token
        jti=kept.jti,
        body=body,
        sha256=hashlib.sha256(body).digest(),
        received_at=now,
        remote=kept.remote,
        tags=kept.tags,
        items=items,
        foreign=foreign,
        unreadable=unreadable,
    )


@dataclass(slots=True)
class Row:
    """What the store keeps beside the bytes, and what it shall say from now on."""

    id: int
    has_task: bool
    outcome: Outcome
    reason: str | None
    received_at: int

    @property
    def is_noise(self) -> bool:
        """Whether it takes room of its task's."""
        return self.has_task and self.outcome in NOISE


class Reprocessor(Recorder):
    """Plans one kept callback's second reading over its loaded task, and changes its `row`."""

    def __init__(
        self,
        tasks: dict[str, TaskState],
        subscriptions: Sequence[Subscription],
        next_id: NextId,
        row: Row,
    ) -> None:
        super().__init__(tasks, set(), subscriptions, next_id)
        self._row = row
        self._was_read = row.outcome in _READ or row.reason in (FOREIGN, UNKNOWN)
        self._part: str | None = None

    def reprocess(self, arrival: Arrival) -> Receipt:
        """The plan's one receipt; REVOKED and LIMITED mean that nothing must be written."""
        if arrival.task_id is None:
            self._row.reason = arrival.unreadable or NAMES_NO_TASK
            return Receipt(Outcome.QUARANTINED)
        task = self._tasks.get(arrival.task_id)
        if task is not None and task.is_revoked(arrival.issued_at):
            return Receipt(Outcome.REVOKED)
        task = task or self._create(arrival.task_id, arrival)
        if arrival.unreadable is not None:
            return self._quarantine(task, arrival, arrival.unreadable)
        return self._take(task, arrival)

    def _take(self, task: TaskState, arrival: Arrival) -> Receipt:
        counted = [(result, result.conflicts) for result in task.results.values()]
        receipt = super()._take(task, arrival)
        if self._was_read:
            for result, conflicts in counted:
                result.conflicts = conflicts
        return receipt

    def _came(self, arrival: Arrival) -> int:
        return self._row.received_at

    def _would_flood(self, task: TaskState, arrival: Arrival) -> bool:
        new = {item.key for item in arrival.items if item.key and item.key not in task.results}
        return bool(new) and task.indexed + len(new) > task.result_limit

    def _quarantine(self, task: TaskState, arrival: Arrival, reason: str) -> Receipt:
        self._rewrite(task, Outcome.QUARANTINED, FOREIGN if arrival.foreign else reason)
        return Receipt(Outcome.QUARANTINED)

    def _keep_part(self, task: TaskState, arrival: Arrival, reason: str) -> None:
        self._part = reason

    def _keep_by(self, outcome: Outcome, task: TaskState, arrival: Arrival, known: bool) -> None:
        self._rewrite(task, outcome, self._part)

    def _rewrite(self, task: TaskState, outcome: Outcome, reason: str | None) -> None:
        row = self._row
        if row.outcome is Outcome.RECORDED:
            return  # it stays the one that brought its results
        if reason is not None and outcome is not Outcome.RECORDED:
            outcome = Outcome.QUARANTINED  # a part of it still waits for somebody
        if change := (outcome in NOISE) - row.is_noise:
            task.noise += change
            self._touch(task)
        row.outcome, row.reason = outcome, reason
