"""Floor 4, doors: the dashboard's pages of tasks: the live list, and one with its media. Starlette.

What a platform sent is shown as text; of its URLs only http and https become a player or a link.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from operator import attrgetter
from typing import Final, NamedTuple

from starlette.responses import Response

from receiver.admin.dashboard.pages import PageRow, Visit
from receiver.admin.dashboard.wording import counted
from receiver.admin.ops import Ops, Query
from receiver.callbacks import Callback
from receiver.deliveries import Delivery
from receiver.deliveries import State as DeliveryState
from receiver.platforms import PLATFORMS
from receiver.platforms.items import Kind
from receiver.results import Result
from receiver.tasks import Status, SubmitState, Task
from receiver.tokens import Source

LISTED: Final = 50  # callbacks and deliveries that a task's page shows; the rest has its own list
READ: Final = 8  # callbacks whose bodies it shows


class Step(NamedTuple):
    """One line of a task's timeline; `state` is what it looks like, `href` where it leads."""

    at: datetime
    state: str
    text: str
    detail: str = ""
    href: str | None = None


class TaskPages:
    """The ledger, as it fills up."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[PageRow]:
        """Its pages and forms."""
        return (
            PageRow("GET", "/tasks", self._tasks, "/v1/tasks"),
            PageRow("GET", "/tasks/{id}", self._task, "/v1/tasks/{id}"),
            PageRow("POST", "/tasks/{id}/reconcile", self._reconcile),
            PageRow("POST", "/tasks/{id}/revoke", self._revoke),
        )

    async def _tasks(self, visit: Visit) -> Response:
        page = await self._ops.tasks(visit.who, visit.query)
        return visit.show("tasks.html", page=page, statuses=[*Status], platforms=sorted(PLATFORMS))

    async def _task(self, visit: Visit) -> Response:
        task = await self._ops.task(visit.who, visit.id())
        results = await self._ops.results(visit.who, task.id)
        about = Query(limit=LISTED, task=task.id)
        callbacks = await self._ops.callbacks(visit.who, about)
        read = await self._ops.callbacks(visit.who, replace(about, limit=READ), whole=True)
        deliveries = await self._ops.deliveries(visit.who, about)
        return visit.show(
            "task.html",
            task=task,
            results=[result for result in results if not result.superseded],
            owed=max((task.expected or 0) - task.received, 0) if not task.complete else 0,
            callbacks=callbacks,
            bodies={one.id: one.body for one in read.data},
            deliveries=deliveries,
            steps=_newest_first(_steps(task, results, callbacks.data, deliveries.data)),
            may_reconcile=task.submit_state is not SubmitState.REJECTED,
        )

    async def _reconcile(self, visit: Visit) -> Response:
        task = await self._ops.reconcile_task(visit.who, visit.id())
        notice = "The task is due: the next reconciler that looks asks the platform for it."
        return visit.go(f"/tasks/{task.id}", notice)

    async def _revoke(self, visit: Visit) -> Response:
        task = await self._ops.revoke_task(visit.who, visit.id())
        notice = "Every webhookURL of this task that was issued so far is refused from now on."
        return visit.go(f"/tasks/{task.id}", notice)


def _newest_first(steps: Iterator[Step]) -> Sequence[Step]:
    return sorted(steps, key=attrgetter("at"))[::-1]


def _steps(
    task: Task,
    results: Sequence[Result],
    callbacks: Sequence[Callback],
    deliveries: Sequence[Delivery],
) -> Iterator[Step]:
    # What happened in the same moment comes in this order.
    known = "Registered" if task.registered else "First heard of, from a callback"
    yield Step(task.created_at, "calm", known)
    yield from map(_of_callback, callbacks)
    yield from map(_of_result, results)
    for delivery in deliveries:
        yield from _of_delivery(delivery)
    if task.overdue and task.deadline_at is not None:
        yield Step(task.deadline_at, "overdue", "Overdue", "its deadline has passed")
    if task.completed_at is not None:
        detail = f"{task.succeeded} succeeded, {task.failed} failed"
        yield Step(task.completed_at, task.status.value, "Complete", detail)


def _of_result(result: Result) -> Step:
    late = ", after the task was complete" if result.late else ""
    if result.error is None:
        text = f"Result {result.index + 1}{late}"
        return Step(result.received_at, Kind.SUCCEEDED, text, f"by {result.source}")
    text = f"Result {result.index + 1} failed{late}"
    return Step(result.received_at, Kind.FAILED, text, f"{result.error.code}, by {result.source}")


def _of_callback(callback: Callback) -> Step:
    repeats = f", {callback.repeats + 1} times" if callback.repeats else ""
    text = f"Callback {callback.outcome}{repeats}"
    by = "" if callback.source == Source.CALLBACK else f" by {callback.source}"
    detail = callback.reason or f"from {callback.remote}{by}"
    href = f"/callbacks/{callback.id}"
    return Step(callback.received_at, callback.outcome, text, detail, href)


def _of_delivery(delivery: Delivery) -> Iterator[Step]:
    href = f"/deliveries/{delivery.id}"
    if delivery.first_succeeded_at is not None:
        text = f"{delivery.event_type} delivered"
        detail = f"to {delivery.endpoint_id}"
        yield Step(delivery.first_succeeded_at, "succeeded", text, detail, href)
    if delivery.state is DeliveryState.DEAD and delivery.settled_at is not None:
        text = f"{delivery.event_type} given up"
        detail = f"after {counted(delivery.attempts, 'attempt')} at {delivery.endpoint_id}"
        yield Step(delivery.settled_at, "dead", text, detail, href)
