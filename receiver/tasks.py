"""Floor 0, nouns: a task, its results, and what a body's items change. Pure.

`absorb` is the one truth that every store calls inside its transaction. A task's status is never
stored by hand: it follows from its counts (`status_of`). docs/states.md draws it.

    pending → partial → succeeded | partially_failed | failed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from receiver import tracing
from receiver.clock import HOUR, MINUTE
from receiver.platforms import PLATFORMS, POLLED
from receiver.platforms.items import Category, Item, Kind, PlatformError
from receiver.platforms.reading import dumps, integer_of
from receiver.results import ResultState, date, differs, expiry, fill, made_after, tell
from receiver.tokens import Source

PROJECT: Final = r"^[A-Za-z0-9_.-]{1,64}$"  # how a project may be called
MOST_EXPECTED: Final = 100  # results that one task may owe
MOST_COST: Final = 10**12  # micro-dollars of a task; sums of sums still fit into 64 bits
DEADLINE: Final = 15 * MINUTE  # from its creation until a task is overdue, if nothing is known
GIVE_UP: Final = 24 * HOUR  # and until what is missing is recorded as failed
LONGEST_TTL: Final = 100 * 365 * 24 * 3600  # seconds; a longer one is not told apart
MISSED: Final = "deadlineExceeded"
_MISSED_KEY: Final = "missed:"  # never a platform's own key


class Status(StrEnum):
    """How far a task is."""

    PENDING = "pending"
    PARTIAL = "partial"
    SUCCEEDED = "succeeded"
    PARTIALLY_FAILED = "partially_failed"
    FAILED = "failed"


COMPLETE: Final = frozenset({Status.SUCCEEDED, Status.PARTIALLY_FAILED, Status.FAILED})


class SubmitState(StrEnum):
    """What we know about the platform having taken the task."""

    REGISTERED = "registered"  # in the ledger, nothing sent yet as far as we know
    SUBMITTED = "submitted"  # the platform said yes, or called back
    REJECTED = "rejected"  # the platform said no
    UNKNOWN = "unknown"  # the request timed out after it was sent


_UNSURE: Final = frozenset({SubmitState.REGISTERED, SubmitState.UNKNOWN})


@dataclass(slots=True)
class TaskState:
    """A task within the ledger, with the results it has."""

    id: str
    platform: str
    project: str
    expected: int | None
    model: str | None = None
    tags: str = "{}"  # JSON text: it is copied into every event as it is
    metadata: str = "{}"
    succeeded: int = 0
    failed: int = 0
    missed: int = 0  # of `failed`: placeholders for what never came
    indexed: int = 0  # the next result's index
    cost: int | None = None
    closed: bool = False  # complete whatever the count says
    overdue: bool = False
    noise: int = 0  # kept bodies that recorded nothing
    duplicates: int = 0
    completed_at: int | None = None
    revoked_at: int | None = None
    reconcile_at: int | None = None  # due for a poll; of a completed task: asked for by hand
    reconcile_lease: int | None = None  # until when one poller has it
    ttl: int | None = None  # seconds that the platform keeps a result
    asked_at: int | None = None  # registered then, before the platform was asked for anything
    took: int | None = (
        None  # ms from then until it is complete now, if that says how long others do
    )
    submit_state: SubmitState = SubmitState.SUBMITTED
    results: dict[str, ResultState] = field(default_factory=dict)

    @property
    def received(self) -> int:
        """Distinct results so far."""
        return self.succeeded + self.failed

    @property
    def status(self) -> Status:
        """Where the counts put the task."""
        return status_of(self.expected, self.succeeded, self.failed, self.closed)

    def ask_reconcile(self, source: Source, now: int) -> None:
        """Something is odd, so a poll is due; not after a poll, which would find the same again."""
        if self.completed_at is None and source is not Source.POLL:
            self.reconcile_at = now

    def note_poll(self) -> None:
        """A poll's answer has come: its lease ends, and a completed task is left alone again."""
        self.reconcile_lease = None
        if self.completed_at is not None:
            self.reconcile_at = None

    @property
    def noise_limit(self) -> int:
        """How many bodies that record nothing are kept (design §4)."""
        return 2 * (self.expected or 1) + 8

    @property
    def result_limit(self) -> int:
        """How many results are taken at all: what is owed, and some that nobody asked for."""
        return (self.expected or MOST_EXPECTED) + self.noise_limit

    def is_revoked(self, issued_at: int) -> bool:
        """Whether a token issued at that moment was revoked since."""
        return self.revoked_at is not None and issued_at <= self.revoked_at

    def expiry(self, source: Source, came: int) -> str | None:
        """Until when the media of a result that came then are there at least; None: not known."""
        if self.ttl is None:  # mostly
            return None
        return expiry(self.ttl, made_after(source, self.asked_at, came))

    def date_results(self) -> list[ResultState]:
        """The results whose media get an expiry now, since their ttl was not known before."""
        return [
            known
            for known in self.results.values()
            if date(known, self.expiry(known.source, known.received_at))
        ]

    def confirm_submit(self, source: Source, *, failed: bool) -> None:
        """What a body proves of the platform having taken the task: it did, unless the answer to
        the submit tells of a failure."""
        if source is Source.SUBMIT and failed:
            self.submit_state = SubmitState.REJECTED
        elif source is not Source.DEADLINE and self.submit_state in _UNSURE:
            self.submit_state = SubmitState.SUBMITTED


def status_of(expected: int | None, succeeded: int, failed: int, closed: bool) -> Status:
    """A task's status. `expected` None (a static key, not registered) is never full by count."""
    received = succeeded + failed
    if not closed and (expected is None or received < expected):
        return Status.PARTIAL if received else Status.PENDING
    if not failed:
        return Status.SUCCEEDED
    return Status.PARTIALLY_FAILED if succeeded else Status.FAILED


@dataclass(slots=True)
class Changes:
    """What one body changed in a task."""

    new: list[ResultState] = field(default_factory=list)
    filled: list[ResultState] = field(default_factory=list)
    superseded: list[ResultState] = field(default_factory=list)
    conflicts: int = 0
    duplicates: int = 0
    progress: int = 0
    unknown: int = 0
    completed: bool = False
    revised: bool = False


def absorb(
    task: TaskState,
    items: Sequence[Item],
    *,
    source: Source,
    now: int,
    came: int | None = None,
) -> Changes:
    """Take a body's items into `task` and say what changed. New results have the id 0 until stored.

    One body is one step: it completes a task at most once, and revises a completed one once. It
    `came` now, unless it is an old one that is taken once more.
    """
    changes = Changes()
    came = now if came is None else came
    was_complete = task.completed_at is not None
    for item in _in_order(items, source):
        _absorb_item(task, item, changes, source, came)
    if _closes(source, items, changes):
        task.closed = True
    _settle(task, changes, was_complete, now)
    if changes.completed:
        task.took = _took(task, source, came)
    if any(result.kind is Kind.FAILED for result in changes.new) and source is Source.CALLBACK:
        task.ask_reconcile(source, now)  # one error callback may stand for the whole task
    return changes


def _in_order(items: Sequence[Item], source: Source) -> Sequence[Item]:
    # What a snapshot can't show any more is looked at last: by then it is clear what is missing.
    return sorted(items, key=_is_gone) if source is Source.POLL else items


def _is_gone(item: Item) -> bool:
    return item.error is not None and item.error.category is Category.NOT_FOUND


def _absorb_item(task: TaskState, item: Item, changes: Changes, source: Source, came: int) -> None:
    if item.kind is Kind.PROGRESS:
        changes.progress += 1
    elif item.kind is Kind.UNKNOWN:
        changes.unknown += 1
    elif (known := task.results.get(item.key)) is not None:
        _compare(task, known, item, changes)
    elif source is Source.POLL and _is_gone(item) and not _lacks_one(task, changes):
        changes.duplicates += 1  # media that expired after we had them: the same result again
    else:
        _add(task, item, changes, source, came)


def _lacks_one(task: TaskState, changes: Changes) -> bool:
    # What is missing may also be what is still in work.
    came = task.received - task.missed
    return not changes.progress and (task.expected is None or came < task.expected)


def _add(task: TaskState, item: Item, changes: Changes, source: Source, came: int) -> None:
    result = ResultState(
        id=0,
        key=item.key,
        index=task.indexed,
        kind=item.kind,
        source=source,
        received_at=came,
        told=tell(item, task.expiry(source, came)),
        cost=item.cost,
        raw=item.raw,
        late=task.completed_at is not None,
    )
    task.results[item.key] = result
    task.indexed += 1
    _count(task, item)
    changes.new.append(result)
    if task.missed and source is not Source.DEADLINE:
        _supersede(task, changes)


def _count(task: TaskState, item: Item) -> None:
    if item.kind is Kind.SUCCEEDED:
        task.succeeded += 1
    else:
        task.failed += 1
    if item.cost is not None:
        _charge(task, item.cost)


def _charge(task: TaskState, cost: int) -> None:
    # An amount is the platform's word, and no database keeps a sum beyond 64 bits.
    task.cost = min((task.cost or 0) + cost, MOST_COST)


def _supersede(task: TaskState, changes: Changes) -> None:
    # What was missing has come after all: it takes the place of one placeholder.
    for result in task.results.values():
        if result.key.startswith(_MISSED_KEY) and not result.superseded:
            result.superseded = True
            task.missed -= 1
            task.failed -= 1
            changes.superseded.append(result)
            return


def _compare(task: TaskState, known: ResultState, item: Item, changes: Changes) -> None:
    if differs(known, item):
        known.conflicts += 1
        changes.conflicts += 1
        changes.filled.append(known)
        return
    changes.duplicates += 1
    lacked = fill(known, item, task.expiry(known.source, known.received_at))
    if "cost" in lacked:
        _charge(task, item.cost or 0)
    if lacked:
        changes.filled.append(known)


def _closes(source: Source, items: Sequence[Item], changes: Changes) -> bool:
    if source is Source.SUBMIT:
        return any(item.kind is Kind.FAILED for item in items)
    if source is Source.POLL:
        # A snapshot of the whole task in which nothing is still working.
        return bool(items) and not changes.progress and not changes.unknown
    return source is Source.DEADLINE


def _settle(task: TaskState, changes: Changes, was_complete: bool, now: int) -> None:
    if was_complete:
        changes.revised = bool(changes.new)
    elif task.received and task.status in COMPLETE:
        task.completed_at = now
        task.reconcile_at = None
        changes.completed = True


def _took(task: TaskState, source: Source, came: int) -> int | None:
    if task.failed or task.asked_at is None or came < task.asked_at:
        return None
    # Of what was lost, a poll says when it was looked for: if that made deadlines, each would make
    # the next one longer.
    looked_for = task.overdue and task.platform not in POLLED
    if source is Source.CALLBACK or (source is Source.POLL and not looked_for):
        return came - task.asked_at
    return None


def missing(task: TaskState) -> list[Item]:
    """The failures that a given-up task gets for what never came (error `deadlineExceeded`)."""
    owed = max((task.expected or 1) - task.received, 0)
    message = "No callback and no poll brought this result before the task was given up."
    error = PlatformError(MISSED, Category.TIMEOUT, message)
    return [
        Item(
            Kind.FAILED,
            task.id,
            f"{_MISSED_KEY}{ordinal}",
            dumps({"taskUUID": task.id, "status": "error", "code": MISSED, "message": message}),
            error=error,
        )
        for ordinal in range(owed)
    ]


def give_up(task: TaskState, now: int) -> Changes:
    """Record what is missing as failed and close the task."""
    changes = absorb(task, missing(task), source=Source.DEADLINE, now=now)
    task.missed += len(changes.new)
    return changes


Traceparent = Annotated[
    str,
    AfterValidator(tracing.parse),
    Field(max_length=tracing.LONGEST, json_schema_extra={"pattern": tracing.SHAPE}),
]


class TaskSpec(BaseModel):
    """`PUT /v1/tasks/{id}`: what the submitter knows before it submits."""

    model_config = ConfigDict(extra="forbid")

    platform: str = Field(pattern=r"^[a-z0-9_-]{1,32}$", json_schema_extra={"enum": [*PLATFORMS]})
    model: str | None = Field(default=None, max_length=200)
    expected: int = Field(default=1, ge=1, le=MOST_EXPECTED)
    project: str | None = Field(default=None, pattern=PROJECT)
    tags: dict[str, str] = Field(default_factory=dict, max_length=20)
    metadata: dict[str, Any] = Field(default_factory=dict)
    request: dict[str, Any] | None = None
    platform_id: str | None = Field(default=None, max_length=200)
    deadline_at: datetime | None = None
    give_up_at: datetime | None = None
    client_ref: str | None = Field(default=None, max_length=200)
    traceparent: Traceparent | None = None

    @property
    def ttl(self) -> int | None:
        """The seconds after which the platform deletes what it makes of the request, if it says."""
        seconds = integer_of((self.request or {}).get("ttl"))
        return None if seconds is None or seconds < 1 else min(seconds, LONGEST_TTL)


class TaskClaim(BaseModel):
    """`POST /v1/tasks/claim`: how many tasks that are due for reconcile, and for how long.

    `platforms`: of these alone; all of them when it is not named.

    With `due_by`, those alone that were due at that moment: who polls until nothing is due would
    otherwise meet its first tasks again, once their backoff is over.
    """

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=20, ge=1, le=100)
    lease_s: int = Field(default=60, ge=5, le=600)
    platforms: list[str] | None = Field(default=None, min_length=1, max_length=100)
    due_by: datetime | None = None


class TaskRelease(BaseModel):
    """`POST /v1/tasks/release`: hand back tasks of one claim before its lease lapses.

    `polled` False: nobody asked the platform, so they are due again at once, as if never claimed.
    """

    model_config = ConfigDict(extra="forbid")

    tasks: list[str] = Field(min_length=1, max_length=100)
    lease_until: datetime
    polled: bool = False


class TaskPatch(BaseModel):
    """`PATCH /v1/tasks/{id}`: how the submit ended. `registered` asks for the right to send.

    A platform that can't be asked after our id needs more: whoever sends says so before (`unknown`,
    `was` registered, `lease`), so that a crash is never mistaken for nothing sent.
    """

    model_config = ConfigDict(extra="forbid")

    platform_id: str | None = Field(default=None, max_length=200)
    submit_state: SubmitState | None = None
    was: SubmitState | None = None  # change it only if the state is still this one
    lease: bool | None = None  # keep others from submitting; default: with `registered` alone


class Task(BaseModel):
    """A task as the API shows it. `cost` in dollars, as reported by the platform."""

    id: str
    platform: str
    platform_id: str | None
    model: str | None
    project: str
    status: Status
    overdue: bool
    expected: int | None
    received: int
    succeeded: int
    failed: int
    cost: float | None
    tags: dict[str, str]
    metadata: dict[str, Any]
    submit_state: SubmitState
    registered: bool = True  # False: known from a callback alone
    client_ref: str | None = None
    traceparent: str | None = None
    created_at: datetime
    deadline_at: datetime | None
    give_up_at: datetime | None
    completed_at: datetime | None
    expected_duration_s: float | None = None  # half of the last ones of its model took no longer
    revision: int
    request: dict[str, Any] | None = None

    @property
    def complete(self) -> bool:
        """Whether every owed result is in, or the task was closed short of them."""
        return self.status in COMPLETE


class RegisteredTask(Task):
    """The answer to a PUT: the task, a fresh signed URL, and whether this call may submit it."""

    webhook_url: str = Field(repr=False)
    may_submit: bool


class ClaimedTask(Task):
    """A task to poll, the signed URL to which the platform's answer is posted, and by when."""

    webhook_url: str = Field(repr=False)
    lease_until: datetime


def facts_of(
    task: TaskState, tags: Mapping[str, Any], metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """What an endpoint's filters may look at."""
    return {
        "platform": task.platform,
        "model": task.model,
        "status": task.status.value,
        "tags": tags,
        "metadata": metadata,
    }
