"""Floor 0, nouns: what events say, as types: for their description. Stdlib and pydantic.

`receiver.events` renders them by hand, since each callback does; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel

from receiver import events
from receiver.platforms.items import Kind
from receiver.results import ErrorView, MediaView
from receiver.tasks import Status


class TaskTold(BaseModel):
    """A task as it was when the event was recorded. `cost` in dollars, if any was reported."""

    id: str
    platform: str
    model: str | None
    project: str
    status: Status
    expected: int | None
    succeeded: int
    failed: int
    cost: float | None
    tags: dict[str, str]
    metadata: dict[str, Any]


class ResultSummary(BaseModel):
    """A result. `late` is there, and true, if it came after its task was complete."""

    id: str
    index: int
    kind: Literal[Kind.SUCCEEDED, Kind.FAILED]
    late: Literal[True] = True
    media: list[MediaView]
    seed: int | None
    cost: float | None
    nsfw: bool | None
    error: ErrorView | None = None


class ResultTold(ResultSummary):
    """A result with the platform's own item."""

    raw: Any


class EndpointTold(BaseModel):
    """An endpoint; of its URL the host alone, since paths and queries often are credentials."""

    id: str
    project: str
    host: str
    description: str


class DisabledTold(EndpointTold):
    """An endpoint, and why it is sent nothing any more."""

    reason: str


class TriedTold(BaseModel):
    """The endpoint that is tried out."""

    id: str
    project: str
    description: str


class DeliveryTold(BaseModel):
    """A delivery that died, and what its last attempt saw."""

    id: str
    event_id: str
    event_type: str
    task_id: str | None
    attempts: int
    created_at: datetime
    last_error: str | None
    last_status: int | None
    last_detail: str | None


class ResultData(BaseModel):
    """One result, and its task."""

    task: TaskTold
    result: ResultTold


class ResultsData(BaseModel):
    """All results of a task."""

    task: TaskTold
    results: list[ResultSummary]


class TaskData(BaseModel):
    """A task."""

    task: TaskTold


class DisabledData(BaseModel):
    """An endpoint that was disabled."""

    endpoint: DisabledTold


class ExhaustedData(BaseModel):
    """A delivery that died; `task` is there if its event is about one."""

    task: TaskTold | None = None
    endpoint: EndpointTold
    delivery: DeliveryTold


class TriedData(BaseModel):
    """An endpoint that is tried out."""

    endpoint: TriedTold


class Payload(BaseModel):
    """The body of an event; `timestamp` is when it was recorded."""

    timestamp: datetime


class ResultSucceeded(Payload):
    """A new result."""

    type: Literal["result.succeeded"]
    data: ResultData


class ResultFailed(Payload):
    """A new failure; its `result` has an `error`."""

    type: Literal["result.failed"]
    data: ResultData


class TaskCompleted(Payload):
    """The last owed result is in, or the task ended short of it. Once in a task's life."""

    type: Literal["task.completed"]
    data: ResultsData


class TaskRevised(Payload):
    """A late result changed a completed task."""

    type: Literal["task.revised"]
    data: ResultsData


class TaskOverdue(Payload):
    """The deadline passed with results missing. Once in a task's life."""

    type: Literal["task.overdue"]
    data: TaskData


class EndpointDisabled(Payload):
    """The receiver disabled an endpoint: a 410, or days of failure."""

    type: Literal["endpoint.disabled"]
    data: DisabledData


class DeliveryExhausted(Payload):
    """A delivery is dead: its last attempt failed."""

    type: Literal["delivery.exhausted"]
    data: ExhaustedData


class EndpointTest(Payload):
    """Somebody tries an endpoint out. To that one alone, whatever it subscribed to."""

    type: Literal["endpoint.test"]
    data: TriedData


PAYLOADS: Final[Mapping[str, type[Payload]]] = {
    events.RESULT_SUCCEEDED: ResultSucceeded,
    events.RESULT_FAILED: ResultFailed,
    events.TASK_COMPLETED: TaskCompleted,
    events.TASK_REVISED: TaskRevised,
    events.TASK_OVERDUE: TaskOverdue,
    events.ENDPOINT_DISABLED: EndpointDisabled,
    events.DELIVERY_EXHAUSTED: DeliveryExhausted,
    events.ENDPOINT_TEST: EndpointTest,
}
