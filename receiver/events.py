"""Floor 0, nouns: an event, one message for downstream, and the exact bytes it is sent as. Pure.

The payload is rendered once, when the event is recorded, and never again: every attempt and every
replay signs the same bytes (Standard Webhooks 1.0, "signature scheme").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from receiver import ids
from receiver.clock import to_rfc3339
from receiver.platforms.items import Kind
from receiver.platforms.reading import dollars, dumps
from receiver.results import ResultState
from receiver.tasks import Changes, TaskState

RESULT_SUCCEEDED: Final = "result.succeeded"
RESULT_FAILED: Final = "result.failed"
TASK_COMPLETED: Final = "task.completed"
TASK_REVISED: Final = "task.revised"
TASK_OVERDUE: Final = "task.overdue"
ENDPOINT_TEST: Final = "endpoint.test"
ENDPOINT_DISABLED: Final = "endpoint.disabled"
DELIVERY_EXHAUSTED: Final = "delivery.exhausted"
TYPES: Final = (
    RESULT_SUCCEEDED,
    RESULT_FAILED,
    TASK_COMPLETED,
    TASK_REVISED,
    TASK_OVERDUE,
    ENDPOINT_DISABLED,
    DELIVERY_EXHAUSTED,
    ENDPOINT_TEST,
)
# What the receiver tells of itself, and not of a task.
OPERATIONAL: Final = frozenset({ENDPOINT_DISABLED, DELIVERY_EXHAUSTED, ENDPOINT_TEST})


class Announcement(NamedTuple):
    """An event about to be recorded."""

    type: str
    payload: bytes
    late: bool = False  # about what came after its task was complete: in nobody's order


class Event(BaseModel):
    """An event as the API shows it; `payload` only on the single object."""

    id: str
    seq: int
    type: str
    task_id: str | None
    project: str
    created_at: datetime
    payload: Any = None


def announce(task: TaskState, changes: Changes, now: int) -> list[Announcement]:
    """The events that follow from what a body changed, in the order they are told.

    New results must have their ids. `task.completed` comes last, and once in a task's life.
    """
    task_text = _task(task)
    told = [
        _render(
            _RESULT_TYPE[result.kind],
            task_text,
            f'"result":{_result(result, True)}',
            now,
            late=result.late,
        )
        for result in changes.new
    ]
    if changes.completed or changes.revised:
        kind = TASK_COMPLETED if changes.completed else TASK_REVISED
        listed = ",".join(_result(result, False) for result in _live(task.results.values()))
        late = not changes.completed
        told.append(_render(kind, task_text, f'"results":[{listed}]', now, late=late))
    return told


def is_late(payload: Mapping[str, Any]) -> bool:
    """Whether an event that was told is about what came after its task was complete."""
    late: bool = payload["data"].get("result", {}).get("late", False)
    return late or payload["type"] == TASK_REVISED


def announce_overdue(task: TaskState, now: int) -> Announcement:
    """The one `task.overdue` of a task whose deadline has passed."""
    return _render(TASK_OVERDUE, _task(task), "", now)


def announce_test(endpoint: str, project: str, description: str, now: int) -> Announcement:
    """An event that only tries an endpoint out; it is told to that one alone."""
    about = {"id": endpoint, "project": project, "description": description}
    return _about(ENDPOINT_TEST, {"endpoint": about}, now)


def announce_disabled(endpoint: Mapping[str, Any], now: int) -> Announcement:
    """The receiver stopped sending to an endpoint; `reason` says why."""
    return _about(ENDPOINT_DISABLED, {"endpoint": endpoint}, now)


def announce_exhausted(
    task: Mapping[str, Any] | None,
    endpoint: Mapping[str, Any],
    delivery: Mapping[str, Any],
    now: int,
) -> Announcement:
    """A delivery died. `task`, as its event told of it, is what filters look at."""
    about = {} if task is None else {"task": task}
    return _about(DELIVERY_EXHAUSTED, {**about, "endpoint": endpoint, "delivery": delivery}, now)


def sentence(payload: Mapping[str, Any]) -> str:
    """An operational event in words for a person."""
    endpoint, delivery = payload["data"]["endpoint"], payload["data"].get("delivery")
    where = f"endpoint {endpoint['id']} ({endpoint['host']}, project {endpoint['project']})"
    if delivery is None:
        return f"Reelhook disabled {where}: {endpoint['reason']}. Its queue is held."
    status = delivery["last_status"]
    cause = delivery["last_error"] if status is None else f"status {status}"
    return (
        f"Reelhook gave up on {delivery['id']} ({delivery['event_type']}) for {where} after"
        f" {delivery['attempts']} attempts: {cause}."
    )


def _about(kind: str, data: Mapping[str, Any], now: int) -> Announcement:
    text = dumps({"type": kind, "timestamp": to_rfc3339(now), "data": data})
    return Announcement(kind, text.encode())


_RESULT_TYPE: Final = {Kind.SUCCEEDED: RESULT_SUCCEEDED, Kind.FAILED: RESULT_FAILED}


def _live(results: Iterable[ResultState]) -> list[ResultState]:
    return sorted(
        (result for result in results if not result.superseded), key=lambda found: found.index
    )


def _render(kind: str, task: str, rest: str, now: int, *, late: bool = False) -> Announcement:
    comma = "," if rest else ""
    text = (
        f'{{"type":"{kind}","timestamp":"{to_rfc3339(now)}","data":{{"task":{task}{comma}{rest}}}}}'
    )
    return Announcement(kind, text.encode(), late)


def _task(task: TaskState) -> str:
    return (
        f'{{"id":"{task.id}","platform":{_quoted(task.platform)},"model":{_quoted(task.model)},'
        f'"project":{_quoted(task.project)},"status":"{task.status.value}",'
        f'"expected":{_number(task.expected)},"succeeded":{task.succeeded},"failed":{task.failed},'
        f'"cost":{_number(dollars(task.cost))},"tags":{task.tags},"metadata":{task.metadata}}}'
    )


@lru_cache(maxsize=1_024)
def _quoted(text: str | None) -> str:
    return dumps(text)


def _number(value: float | None) -> str:
    return "null" if value is None else repr(value)


def _result(result: ResultState, with_raw: bool) -> str:
    late = '"late":true,' if result.late else ""
    raw = f',"raw":{result.raw}' if with_raw else ""
    return (
        f'{{"id":"{ids.RESULT}{ids.encode(result.id)}","index":{result.index},'
        f'"kind":"{result.kind.value}",{late}{result.told[1:-1]}{raw}}}'
    )
