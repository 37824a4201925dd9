"""Floor 4, doors: the routes of tasks and what they cost. Starlette and pydantic."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from receiver import tracing
from receiver.access import ADMINS, LEDGER, READERS, SUBMITTERS
from receiver.admin.ops import Ops, Page, Principal
from receiver.admin.routes.answers import listed, shown
from receiver.admin.routes.requests import body_of, parameter_of, query_of, revision_of
from receiver.admin.routes.rows import Listed, Row
from receiver.costs import Cost, CostSum
from receiver.results import Result
from receiver.tasks import (
    ClaimedTask,
    RegisteredTask,
    Task,
    TaskClaim,
    TaskPatch,
    TaskRelease,
    TaskSpec,
)
from receiver.tokens import Source


class Released(BaseModel):
    """How many of the tasks were still leased."""

    released: int


class ListedClaims(BaseModel):
    """What a claim got; there is no next page, claim again."""

    data: list[ClaimedTask]
    next_cursor: None


class ListedResults(BaseModel):
    """All results of a task."""

    data: list[Result]
    next_cursor: None


class ListedCosts(Listed[Cost]):
    """A page of groups; `total`, on the first page alone, is over all of them."""

    total: CostSum | None


class TaskRoutes:
    """The ledger."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[Row]:
        """Every route."""
        return (*self._reading(), *self._submitting(), *self._managing())

    def _reading(self) -> Sequence[Row]:
        task = "/v1/tasks/{id}"
        return (
            Row(
                "GET",
                "/v1/tasks",
                self._tasks,
                LEDGER,
                "List tasks",
                query="status platform model overdue registered tag project since until q",
                answers={200: Listed[Task]},
            ),
            Row(
                "GET",
                task,
                self._task,
                LEDGER,
                "One task, now or at its next change",
                query="wait",
                headers="if-none-match",
                answers={200: Task, 304: None},
            ),
            Row(
                "GET",
                f"{task}/results",
                self._results,
                LEDGER,
                "A task's results",
                answers={200: ListedResults},
            ),
            Row(
                "GET",
                "/v1/costs",
                self._costs,
                READERS,
                "What tasks cost, in groups",
                query="by status platform model project tag since until",
                answers={200: ListedCosts},
            ),
        )

    def _submitting(self) -> Sequence[Row]:
        task = "/v1/tasks/{id}"
        return (
            Row(
                "PUT",
                task,
                self._put_task,
                SUBMITTERS,
                "Register a task and get its webhookURL",
                query="src",
                headers=tracing.HEADER,
                body=TaskSpec,
                answers={200: RegisteredTask, 201: RegisteredTask},
            ),
            Row(
                "PATCH",
                task,
                self._patch_task,
                SUBMITTERS,
                "Note how a submit went",
                body=TaskPatch,
                answers={200: Task},
            ),
            Row(
                "POST",
                "/v1/tasks/claim",
                self._claim_tasks,
                SUBMITTERS,
                "Lease tasks that are due for a poll",
                body=TaskClaim,
                answers={200: ListedClaims},
            ),
            Row(
                "POST",
                "/v1/tasks/release",
                self._release_tasks,
                SUBMITTERS,
                "Hand leased tasks back",
                body=TaskRelease,
                answers={200: Released},
            ),
            Row(
                "POST",
                f"{task}/reconcile",
                self._reconcile_task,
                SUBMITTERS,
                "Make a task due for a poll now",
                answers={200: Task},
            ),
        )

    def _managing(self) -> Sequence[Row]:
        task = "/v1/tasks/{id}"
        return (
            Row(
                "POST",
                f"{task}/revoke",
                self._revoke_task,
                ADMINS,
                "Refuse every webhookURL issued so far",
                answers={200: Task},
            ),
            Row(
                "DELETE",
                task,
                self._delete_task,
                ADMINS,
                "Delete a task with its results and callbacks",
                answers={204: None},
            ),
        )

    async def _put_task(self, who: Principal, request: Request) -> Response:
        spec = await body_of(request, TaskSpec)
        if spec.traceparent is None:
            spec.traceparent = tracing.given(request.headers.get(tracing.HEADER))
        source = parameter_of(request, "src") or Source.CALLBACK
        task = await self._ops.register_task(who, request.path_params["id"], spec, source)
        return shown(task, 201 if task.may_submit else 200)

    async def _patch_task(self, who: Principal, request: Request) -> Response:
        patch = await body_of(request, TaskPatch)
        return shown(await self._ops.change_task(who, request.path_params["id"], patch))

    async def _task(self, who: Principal, request: Request) -> Response:
        known = revision_of(request)
        task_id, wait = request.path_params["id"], parameter_of(request, "wait") or 0.0
        if wait:
            task = await self._ops.wait_task(who, task_id, known, wait)
        else:
            task = await self._ops.task(who, task_id)
        etag = {"etag": f'"{task.revision}"'}
        if task.revision == known:
            return Response(status_code=304, headers=etag)
        return shown(task, headers=etag)

    async def _delete_task(self, who: Principal, request: Request) -> Response:
        await self._ops.delete_task(who, request.path_params["id"])
        return Response(status_code=204)

    async def _revoke_task(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.revoke_task(who, request.path_params["id"]))

    async def _claim_tasks(self, who: Principal, request: Request) -> Response:
        claimed = await self._ops.claim_tasks(who, await body_of(request, TaskClaim))
        return listed(Page(claimed, None))

    async def _release_tasks(self, who: Principal, request: Request) -> Response:
        released = await self._ops.release_tasks(who, await body_of(request, TaskRelease))
        return shown(Released(released=released))

    async def _reconcile_task(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.reconcile_task(who, request.path_params["id"]))

    async def _tasks(self, who: Principal, request: Request) -> Response:
        return listed(await self._ops.tasks(who, query_of(request)))

    async def _results(self, who: Principal, request: Request) -> Response:
        results = await self._ops.results(who, request.path_params["id"])
        return listed(Page(results, None))

    async def _costs(self, who: Principal, request: Request) -> Response:
        page = await self._ops.costs(who, query_of(request))
        total = "null" if page.total is None else page.total.model_dump_json()
        return listed(page, f'"total":{total},')
