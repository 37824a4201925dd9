"""Floor 3, flows: what a caller wants generated, checked and made into a task."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from submitter.errors import Finding, InvalidTask
from submitter.media import inline
from submitter.platforms.catalogue import SHIPPED
from submitter.requests.wire import Request
from submitter.rules import check, check_task, modern
from submitter.tasks import GenerationTask, new_task_id, task_id_for_key

# Bytes of one array, as JSON: images may stand in it, and a body of some hundred megabytes is
# refused somewhere on its way. A task that is larger goes alone.
LARGEST_BATCH: Final = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One task that is wanted; `Submitter.submit` says what each field means.

    `model` is a model's name, or a typed request that has it and the parameters; further parameters
    go over those. Local files (`pathlib.Path`) may stand anywhere among them.
    """

    model: str | Request
    parameters: Mapping[str, Any] = field(default_factory=dict)
    number_results: int = 1
    tags: Mapping[str, str] | None = None
    metadata: Mapping[str, Any] | None = None
    idempotency_key: str | None = None
    task_id: str | None = None
    strict: bool = False
    deadline_at: datetime | None = None
    give_up_at: datetime | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A draft that may be sent: its task, and what the rules had to say."""

    task: GenerationTask
    warnings: tuple[Finding, ...] = ()
    key: str | None = None
    deadline_at: datetime | None = None
    give_up_at: datetime | None = None
    traceparent: str | None = None


def prepared(
    draft: Draft, platform: str, project: str, random_bytes: Callable[[int], bytes]
) -> Prepared:
    """A draft as a task of the platform, in the names that are sent today.

    Reads local files, so async callers use a thread. Raises InvalidTask and UnusableMedia.
    """
    model, parameters = _asked(draft, platform)
    task = GenerationTask.of(
        parameters,
        id=_id(draft, project, random_bytes),
        platform=platform,
        model=model,
        tags=draft.tags,
        metadata=draft.metadata,
    )
    warnings = (*_too_many(task), *check_task(task, strict=draft.strict))
    if any(finding.severity == "error" for finding in warnings):
        raise InvalidTask(findings=warnings)
    # The findings speak of the user's names, so these are rewritten last.
    task = replace(task, parameters=modern(platform, model, task.parameters))
    return Prepared(
        task,
        warnings,
        draft.idempotency_key,
        draft.deadline_at,
        draft.give_up_at,
        draft.traceparent,
    )


def findings_of(draft: Draft, platform: str) -> tuple[Finding, ...]:
    """What the rules have to say about a draft. Raises InvalidTask for what is no request at all.

    Raises UnusableMedia as well: local files are read, since rules look at media.
    """
    model, parameters = _asked(draft, platform)
    task = GenerationTask.of(parameters, id="", platform=platform, model=model)
    return (*_too_many(task), *check(platform, model, parameters, strict=draft.strict))


def _asked(draft: Draft, platform: str) -> tuple[str, dict[str, Any]]:
    """The model, and all parameters with local files encoded."""
    given, model = dict(draft.parameters), draft.model
    if isinstance(model, Request):
        if model.platform != platform:
            text = f"This is a request for {model.platform}, and the submitter is for {platform}."
            raise invalid("other_platform", "", text)
        given, model = {**model.parameters(), **given}, str(getattr(model, "model", ""))
    if draft.idempotency_key == "":
        raise invalid("empty", "idempotency_key", "An idempotency key is not empty.")
    parameters = inline({"numberResults": draft.number_results, **given})
    try:
        json.dumps(parameters, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid("not_json", "", f"The parameters are not JSON: {error}.") from None
    return model, parameters


def _too_many(task: GenerationTask) -> Iterator[Finding]:
    most = SHIPPED[task.platform].most_results
    if most < task.number_results and most == 1:
        text = "One task gives one result here; submit it more often for more of them."
        yield Finding("error", "too_many_results", "numberResults", text, (1,))


def _id(draft: Draft, project: str, random_bytes: Callable[[int], bytes]) -> str:
    if draft.task_id is not None:
        return draft.task_id.lower()
    if draft.idempotency_key is not None:
        return task_id_for_key(project, draft.idempotency_key)
    return new_task_id(random_bytes(16))


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
