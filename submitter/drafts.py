"""Floor 3, flows: what a caller wants generated, checked and made into a task."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from submitter.errors import Finding, InvalidTask
from submitter.platforms.protocol import Platform
from submitter.rules import check_task
from submitter.tasks import GenerationTask, new_task_id, task_id_for_key

# Bytes of one array, as JSON: images may stand in it, and a body of some hundred megabytes is
# refused somewhere on its way. A task that is larger goes alone.
LARGEST_BATCH: Final = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One task that is wanted; `Submitter.submit` says what each field means."""

    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    number_results: int = 1
    tags: Mapping[str, str] | None = None
    metadata: Mapping[str, Any] | None = None
    idempotency_key: str | None = None
    task_id: str | None = None
    strict: bool = False
    deadline_at: datetime | None = None
    give_up_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A draft that may be sent: its task, and what the rules had to say."""

    task: GenerationTask
    warnings: tuple[Finding, ...] = ()
    key: str | None = None
    deadline_at: datetime | None = None
    give_up_at: datetime | None = None


def prepared(
    draft: Draft, platform: Platform, project: str, random_bytes: Callable[[int], bytes]
) -> Prepared:
    """A draft as a task of the platform. Raises InvalidTask."""
    _check_arguments(draft)
    task = GenerationTask.of(
        {"numberResults": draft.number_results, **draft.parameters},
        id=_id(draft, project, random_bytes),
        platform=platform.name,
        model=draft.model,
        tags=draft.tags,
        metadata=draft.metadata,
    )
    warnings = _check(task, platform, draft.strict)
    return Prepared(task, warnings, draft.idempotency_key, draft.deadline_at, draft.give_up_at)


def _id(draft: Draft, project: str, random_bytes: Callable[[int], bytes]) -> str:
    if draft.task_id is not None:
        return draft.task_id.lower()
    if draft.idempotency_key is not None:
        return task_id_for_key(project, draft.idempotency_key)
    return new_task_id(random_bytes(16))


def _check_arguments(draft: Draft) -> None:
    if draft.idempotency_key == "":
        raise invalid("empty", "idempotency_key", "An idempotency key is not empty.")
    try:
        json.dumps(draft.parameters, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid("not_json", "", f"The parameters are not JSON: {error}.") from None


def _check(task: GenerationTask, platform: Platform, strict: bool) -> tuple[Finding, ...]:
    findings = tuple(check_task(task, strict=strict))
    if any(finding.severity == "error" for finding in findings):
        raise InvalidTask(findings=findings)
    if task.number_results > platform.most_results:
        text = f"{platform.name} gives {platform.most_results} at most; submit it several times."
        raise invalid("too_many_results", "numberResults", text)
    return findings


def invalid(code: str, parameter: str, message: str) -> InvalidTask:
    """One fault as the error that stops a task."""
    return InvalidTask(findings=(Finding("error", code, parameter, message),))


def batches(tasks: Sequence[Prepared], most: int) -> Iterator[list[Prepared]]:
    """Tasks in their order, in lists of at most `most` tasks and LARGEST_BATCH bytes."""
    batch: list[Prepared] = []
    size = 0
    for task in tasks:
        weight = len(json.dumps(task.task.parameters))
        if batch and (len(batch) == most or size + weight > LARGEST_BATCH):
            yield batch
            batch, size = [], 0
        batch.append(task)
        size += weight
    if batch:
        yield batch
