"""Floor 1, decisions: what one batch of arrivals changes, as rows. Pure; stores carry it out.

Both stores load the tasks of a batch, call `plan`, and write what it lists, in one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from receiver.callbacks import Arrival, Outcome, Receipt
from receiver.endpoints import Subscription
from receiver.events import Announcement, announce
from receiver.platforms.items import Kind
from receiver.platforms.reading import dumps
from receiver.results import ResultState, differs
from receiver.tasks import Changes, TaskState, absorb, facts_of
from receiver.tokens import Source

NextId = Callable[[], int]


@dataclass(slots=True)
class CallbackRow:
    """A callback to keep; its task is named by the task's id."""

    id: int
    task_id: str | None
    outcome: Outcome
    reason: str | None
    arrival: Arrival


@dataclass(slots=True)
class EventRow:
    """An event to keep, with the endpoints it goes to."""

    id: int
    task_id: str
    project: str
    announcement: Announcement
    created_at: int
    endpoints: list[int]


@dataclass(slots=True)
class Plan:
    """Everything that one batch writes. Receipts stand in the order of the arrivals."""

    receipts: list[Receipt] = field(default_factory=list)
    created: dict[str, TaskState] = field(default_factory=dict)
    touched: dict[str, TaskState] = field(default_factory=dict)
    callbacks: list[CallbackRow] = field(default_factory=list)
    repeats: list[tuple[str | None, Arrival]] = field(default_factory=list)
    replaced_progress: list[str] = field(default_factory=list)
    results: list[tuple[str, ResultState]] = field(default_factory=list)
    changed_results: list[tuple[str, ResultState]] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)


# A body's outcome is the first of these that one of its items has (design §4).
_PRECEDENCE: Final = (Outcome.RECORDED, Outcome.CONFLICT, Outcome.DUPLICATE, Outcome.PROGRESS)

# Why a body is quarantined that could be parsed; the other reasons are the parser's.
NAMES_NO_TASK: Final = "names_no_task"
FOREIGN: Final = "foreign_items"  # items of other tasks, beside own ones
UNKNOWN: Final = "unknown_items"  # beside known ones
UNKNOWN_SHAPE: Final = "unknown_shape"  # nothing but those, or none at all

# What somebody has to look at; it may fill no disk.
NOISE: Final = frozenset({Outcome.CONFLICT, Outcome.QUARANTINED, Outcome.EXPIRED})


# What no token vouches for has its bounds: whoever reads a static key can send what he likes.
MOST_ORPHANS: Final = 1_000  # kept bodies that name no task
MOST_STRANGERS: Final = 10_000  # open tasks that nobody registered


@dataclass(slots=True)
class Room:
    """How many more of them may be kept."""

    orphans: int = MOST_ORPHANS
    strangers: int = MOST_STRANGERS


class Recorder:
    """Plans one batch over loaded `tasks`, the digests of kept bodies, and the subscriptions."""

    def __init__(
        self,
        tasks: dict[str, TaskState],
        kept: set[tuple[str | None, bytes]],
        subscriptions: Sequence[Subscription],
        next_id: NextId,
        room: Room | None = None,
    ) -> None:
        self.plan = Plan()
        self._tasks = tasks
        self._kept = kept
        self._subscriptions = subscriptions
        self._filtered = any(found.filters for found in subscriptions)
        self._next_id = next_id
        self._room = room or Room()

    def record(self, arrivals: Iterable[Arrival]) -> Plan:
        """The plan for these arrivals, in their order."""
        for arrival in arrivals:
            self.plan.receipts.append(self._record_one(arrival))
        return self.plan

    def _record_one(self, arrival: Arrival) -> Receipt:
        if arrival.task_id is None:
            return self._keep_orphan(arrival)
        task = self._tasks.get(arrival.task_id)
        if task is not None and arrival.source is Source.POLL and not arrival.expired:
            task.note_poll()
        if task is not None and task.is_revoked(arrival.issued_at):
            return Receipt(Outcome.REVOKED)
        if arrival.expired:
            return self._keep_expired(task, arrival)
        if task is None:
            if arrival.jti is None and not self._takes_stranger():
                return Receipt(Outcome.LIMITED)
            task = self._create(arrival.task_id, arrival)
        if arrival.unreadable is not None:
            return self._quarantine(task, arrival, arrival.unreadable)
        return self._take(task, arrival)

    def _takes_stranger(self) -> bool:
        self._room.strangers -= 1
        return self._room.strangers >= 0

    def _keep_orphan(self, arrival: Arrival) -> Receipt:
        if (None, arrival.sha256) in self._kept:
            self.plan.repeats.append((None, arrival))
            return Receipt(Outcome.QUARANTINED)
        if self._room.orphans <= 0:
            return Receipt(Outcome.LIMITED)
        self._room.orphans -= 1
        self._kept.add((None, arrival.sha256))
        reason = arrival.unreadable or NAMES_NO_TASK
        row = CallbackRow(self._next_id(), None, Outcome.QUARANTINED, reason, arrival)
        self.plan.callbacks.append(row)
        return Receipt(Outcome.QUARANTINED)

    def _create(self, task_id: str, arrival: Arrival) -> TaskState:
        task = TaskState(
            id=task_id,
            platform=arrival.platform,
            project=arrival.project,
            expected=arrival.expected,
            tags=dumps(dict(arrival.tags)),
        )
        self._tasks[task.id] = self.plan.created[task.id] = task
        return task

    def _take(self, task: TaskState, arrival: Arrival) -> Receipt:
        if all(item.kind is Kind.UNKNOWN for item in arrival.items):
            return self._quarantine(task, arrival, UNKNOWN_SHAPE)
        now, before = arrival.received_at, task.expected
        task.expected = before or arrival.expected
        if self._would_flood(task, arrival):
            task.expected = before
            return Receipt(Outcome.LIMITED)
        came = self._came(arrival)
        changes = absorb(task, arrival.items, source=arrival.source, now=now, came=came)
        outcome = _outcome_of(changes)
        self._touch(task)
        failed = any(item.kind is Kind.FAILED for item in arrival.items)
        task.confirm_submit(arrival.source, failed=failed)
        known = self._is_kept(task, arrival)
        if (arrival.foreign or changes.unknown) and not known:
            self._keep_part(task, arrival, FOREIGN if arrival.foreign else UNKNOWN)
        self._keep_by(outcome, task, arrival, known)
        self._write_changes(task, changes, now)
        return Receipt(outcome, len(changes.new))

    def _came(self, arrival: Arrival) -> int:
        return arrival.received_at

    def _would_flood(self, task: TaskState, arrival: Arrival) -> bool:
        # Only what holds no owed result may be refused, and a poll is our own.
        if arrival.source is Source.POLL:
            return False
        new = {item.key for item in arrival.items if item.key and item.key not in task.results}
        if new:
            return task.indexed + len(new) > task.result_limit
        if task.noise < task.noise_limit or self._is_kept(task, arrival):
            return False
        return any(
            item.key in task.results and differs(task.results[item.key], item)
            for item in arrival.items
        )

    def _quarantine(self, task: TaskState, arrival: Arrival, reason: str) -> Receipt:
        known = self._is_kept(task, arrival)
        own = arrival.source is Source.POLL
        if task.noise >= task.noise_limit and not own and not known:
            return Receipt(Outcome.LIMITED)
        self._touch(task)
        task.ask_reconcile(arrival.source, arrival.received_at)
        self._keep(task, arrival, Outcome.QUARANTINED, reason, known)
        return Receipt(Outcome.QUARANTINED)

    def _keep_expired(self, task: TaskState | None, arrival: Arrival) -> Receipt:
        if task is not None and task.completed_at is None and task.noise < task.noise_limit:
            self._touch(task)
            task.ask_reconcile(arrival.source, arrival.received_at)
            self._keep(task, arrival, Outcome.EXPIRED, None, self._is_kept(task, arrival))
        return Receipt(Outcome.EXPIRED)

    def _keep_part(self, task: TaskState, arrival: Arrival, reason: str) -> None:
        # A part that was not taken may be what the task lacks.
        task.ask_reconcile(arrival.source, arrival.received_at)
        if task.noise < task.noise_limit or arrival.source is Source.POLL:
            self._keep(task, arrival, Outcome.QUARANTINED, reason, known=False)

    def _keep_by(self, outcome: Outcome, task: TaskState, arrival: Arrival, known: bool) -> None:
        if outcome is Outcome.DUPLICATE:
            task.duplicates += 1
            if task.duplicates > task.noise_limit and not known:
                return  # counted; its bytes would only fill the disk
        if outcome is Outcome.PROGRESS:
            self._replace_progress(task)
        self._keep(task, arrival, outcome, None, known)

    def _replace_progress(self, task: TaskState) -> None:
        # Only the latest is kept, also among those of this very batch.
        self.plan.replaced_progress.append(task.id)
        self.plan.callbacks = [
            row
            for row in self.plan.callbacks
            if row.task_id != task.id or row.outcome is not Outcome.PROGRESS
        ]

    def _is_kept(self, task: TaskState, arrival: Arrival) -> bool:
        return (task.id, arrival.sha256) in self._kept

    def _keep(
        self,
        task: TaskState,
        arrival: Arrival,
        outcome: Outcome,
        reason: str | None,
        known: bool,
    ) -> None:
        # `known`: the bytes came before. A part of a mixed body has a row beside its body's.
        if known and outcome not in (Outcome.RECORDED, Outcome.PROGRESS):
            self.plan.repeats.append((task.id, arrival))
            return
        self._kept.add((task.id, arrival.sha256))
        if outcome in NOISE:
            task.noise += 1
        self.plan.callbacks.append(CallbackRow(self._next_id(), task.id, outcome, reason, arrival))

    def _touch(self, task: TaskState) -> None:
        if task.id not in self.plan.created:
            self.plan.touched[task.id] = task

    def _write_changes(self, task: TaskState, changes: Changes, now: int) -> None:
        for result in changes.new:
            result.id = self._next_id()
            self.plan.results.append((task.id, result))
        for result in (*changes.filled, *changes.superseded):
            self.plan.changed_results.append((task.id, result))
        self.tell(task, announce(task, changes, now), now)

    def tell(self, task: TaskState, announcements: Iterable[Announcement], now: int) -> None:
        """Record announcements of a task as events, each with the endpoints that want it."""
        facts = self._facts_of(task) if self._filtered else {}
        for announcement in announcements:
            wanting = self._matching(task.project, announcement.type, facts)
            row = EventRow(self._next_id(), task.id, task.project, announcement, now, wanting)
            self.plan.events.append(row)

    def wanting(self, task: TaskState, payload: Mapping[str, Any]) -> list[int]:
        """The endpoints that want an event told earlier, by what is known of its task now."""
        facts = self._facts_of(task)
        facts["status"] = payload["data"]["task"]["status"]
        return self._matching(task.project, payload["type"], facts)

    def _facts_of(self, task: TaskState) -> dict[str, Any]:
        return facts_of(task, _parsed(task.tags), _parsed(task.metadata))

    def _matching(self, project: str, event_type: str, facts: Mapping[str, Any]) -> list[int]:
        return [
            subscription.endpoint
            for subscription in self._subscriptions
            if subscription.project == project and subscription.wants(event_type, facts)
        ]

    def date(self, task: TaskState) -> None:
        """Plan what a ttl that was not known before says of the results that are there."""
        dated = [(task.id, result) for result in task.date_results()]
        self.plan.changed_results.extend(dated)

    def change(self, task: TaskState, changes: Changes, now: int) -> None:
        """Plan changes that came from the receiver itself (a deadline), not from an arrival."""
        self._touch(task)
        self._write_changes(task, changes, now)


@lru_cache(maxsize=1_024)
def _parsed(text: str) -> Mapping[str, Any]:
    found = json.loads(text)
    return found if isinstance(found, dict) else {}


def _outcome_of(changes: Changes) -> Outcome:
    counts = (len(changes.new), changes.conflicts, changes.duplicates, changes.progress)
    return next(one for one, count in zip(_PRECEDENCE, counts, strict=True) if count)
