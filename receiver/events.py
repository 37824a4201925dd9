"""Floor 0, nouns: an event, one message for downstream, and the exact bytes it is sent as. Pure.

The payload is rendered once, when the event is recorded, and never again: every attempt and every
replay signs the same bytes (Standard Webhooks 1.0, "signature scheme").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel

from receiver import ids
from receiver.clock import to_rfc3339
from receiver.platforms.items import Kind
from receiver.platforms.reading import dumps
from receiver.tasks import Changes, ResultState, TaskState

RESULT_SUCCEEDED: Final = "result.succeeded"
RESULT_FAILED: Final = "result.failed"
TASK_COMPLETED: Final = "task.completed"
TASK_REVISED: Final = "task.revised"
TASK_OVERDUE: Final = "task.overdue"
TYPES: Final = (RESULT_SUCCEEDED, RESULT_FAILED, TASK_COMPLETED, TASK_REVISED, TASK_OVERDUE)


@dataclass(frozen=True, slots=True)
class Announcement:
    """An event about to be recorded."""

    type: str
    payload: bytes


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
        _render(_RESULT_TYPE[result.kind], task_text, f'"result":{_result(result, True)}', now)
        for result in changes.new
    ]
    if changes.completed or changes.revised:
        kind = TASK_COMPLETED if changes.completed else TASK_REVISED
        listed = ",".join(_result(result, False) for result in _live(task.results.values()))
        told.append(_render(kind, task_text, f'"results":[{listed}]', now))
    return told


def announce_overdue(task: TaskState, now: int) -> Announcement:
    """The one `task.overdue` of a task whose deadline has passed."""
    return _render(TASK_OVERDUE, _task(task), "", now)


_RESULT_TYPE: Final = {Kind.SUCCEEDED: RESULT_SUCCEEDED, Kind.FAILED: RESULT_FAILED}


def _live(results: Iterable[ResultState]) -> list[ResultState]:
    return sorted(
        (result for result in results if not result.superseded), key=lambda found: found.index
    )


def _render(kind: str, task: str, rest: str, now: int) -> Announcement:
    comma = "," if rest else ""
    text = (
        f'{{"type":"{kind}","timestamp":"{to_rfc3339(now)}","data":{{"task":{task}{comma}{rest}}}}}'
    )
    return Announcement(kind, text.encode())


def _task(task: TaskState) -> str:
    head = dumps(
        {
            "id": task.id,
            "platform": task.platform,
            "model": task.model,
            "project": task.project,
            "status": task.status.value,
            "expected": task.expected,
            "succeeded": task.succeeded,
            "failed": task.failed,
            "cost": dollars(task.cost),
        }
    )
    return f'{head[:-1]},"tags":{task.tags},"metadata":{task.metadata}}}'


def _result(result: ResultState, with_raw: bool) -> str:
    told: dict[str, Any] = {"id": ids.RESULT + ids.encode(result.id), "index": result.index}
    if not with_raw:
        told["kind"] = result.kind.value
    told["media"] = [
        {"kind": part.kind, "id": part.id, "url": part.url, "expires_at": None}
        for part in result.media
    ]
    told |= {"seed": result.seed, "cost": dollars(result.cost), "nsfw": result.nsfw}
    if result.late:
        told["late"] = True
    if result.error is not None:
        told["error"] = {
            "code": result.error.code,
            "category": result.error.category.value,
            "message": result.error.message,
            "retryable": result.error.retryable,
        }
    text = dumps(told)
    return f'{text[:-1]},"raw":{result.raw}}}' if with_raw else text


def dollars(micros: int | None) -> float | None:
    """Micro-dollars as dollars."""
    return None if micros is None else micros / 1_000_000
