"""Floor 0, nouns: sending again: a replay, and jobs over many deliveries with their state table.

What changes a job's state is named in `JOB_MOVES`; the stores apply it, the page docs/states.md
draws it, and a test holds the two together. Stdlib and pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from receiver.deliveries import Failure, State


class ReplayAsked(BaseModel):
    """`POST /v1/events/{id}/replay`: to all that want the event today, or to one of them."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str | None = None


class Replayed(BaseModel):
    """What a replay came to. `waiting` were on their way already, and are left alone."""

    event_id: str
    created: int
    retried: int
    waiting: int
    deliveries: list[str]


Settled = Literal[State.SUCCEEDED, State.DEAD, State.CANCELED]
Bound = Annotated[int, Field(ge=1)]
Status = Annotated[int, Field(ge=100, le=999)]  # of HTTP


LOOK_BACK: Final = timedelta(days=1)  # what a recovery begins with, until another time is given


class RetryAsked(BaseModel):
    """`POST /v1/deliveries/retry`: those of a list, as `GET /v1/deliveries` shows it.

    `last_error` and `last_status` are the cause that a group of dead letters has.
    """

    model_config = ConfigDict(extra="forbid")

    state: Settled = State.DEAD
    endpoint: str | None = None
    task: str | None = None
    event_type: str | None = None
    last_error: Failure | None = None
    last_status: Status | None = None
    project: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: Bound | None = None
    dry_run: bool = True


class RecoverAsked(BaseModel):
    """`POST /v1/endpoints/{id}/recover`: what the endpoint did not get of the events of a time.

    `missing`: also those that it wants today and that were never meant for it.
    """

    model_config = ConfigDict(extra="forbid")

    since: datetime
    until: datetime | None = None
    missing: bool = False
    limit: Bound | None = None
    dry_run: bool = True


class JobKind(StrEnum):
    """What a job does."""

    RETRY = "retry"
    RECOVER = "recover"


class Repair(BaseModel):
    """What a job sends again, the oldest events first; `limit` deliveries at most.

    `since` and `until` are times of the delivery for a retry, of the event for a recovery.
    """

    kind: JobKind
    states: list[State]
    project: str | None = None
    endpoint: str | None = None
    task: str | None = None
    event_type: str | None = None
    last_error: str | None = None
    last_status: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    missing: bool = False
    limit: int | None = None


class Counted(BaseModel):
    """What a dry run found. Not `complete`: it took too long to count, and there are more."""

    dry_run: Literal[True] = True
    count: int
    complete: bool


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELED = "canceled"
    FAILED = "failed"


class JobMove(StrEnum):
    """What may happen to a job."""

    START = "start"  # its first step
    FINISH = "finish"  # nothing is left, or as many as were asked for are done
    CANCEL = "cancel"  # by hand, or its endpoint was deleted
    FAIL = "fail"  # a defect; the log has it


JOB_MOVES: Final[Mapping[tuple[JobState, JobMove], JobState]] = {
    (JobState.QUEUED, JobMove.START): JobState.RUNNING,
    (JobState.QUEUED, JobMove.CANCEL): JobState.CANCELED,
    (JobState.QUEUED, JobMove.FAIL): JobState.FAILED,
    (JobState.RUNNING, JobMove.FINISH): JobState.DONE,
    (JobState.RUNNING, JobMove.CANCEL): JobState.CANCELED,
    (JobState.RUNNING, JobMove.FAIL): JobState.FAILED,
}


class Job(BaseModel):
    """Many deliveries sent again, a few at a time. `total`: as counted before, None if not known.

    `note` says what it waits for, or why it ended.
    """

    id: str
    kind: JobKind
    state: JobState
    project: str | None
    asked: Repair
    total: int | None
    done: int
    note: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
