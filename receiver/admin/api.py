"""Floor 4, doors: the HTTP API under /v1, each route one use case. Starlette and pydantic only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.admin.auth import PRINCIPAL, Auth
from receiver.admin.ops import Ops, Page, Principal
from receiver.admin.routes.answers import EXCEPTION_HANDLERS, INERT, cursor_text, listed, shown
from receiver.admin.routes.deliveries import DeliveryRoutes
from receiver.admin.routes.endpoints import EndpointRoutes
from receiver.admin.routes.repair import RepairRoutes
from receiver.admin.routes.requests import (
    Handler,
    Row,
    body_of,
    cursor_of,
    one_of,
    query_of,
    revision_of,
    seconds_of,
)
from receiver.callbacks import Reprocess
from receiver.keeping import PruneAsked
from receiver.tasks import TaskClaim, TaskPatch, TaskRelease, TaskSpec
from receiver.tokens import Source

__all__ = ["EXCEPTION_HANDLERS", "MAX_BODY", "Api"]

MAX_BODY: Final = 16 << 20  # bytes: a task's request may carry images


class Api:
    """The routes under /v1."""

    def __init__(self, ops: Ops, auth: Auth) -> None:
        self._ops = ops
        self._auth = auth

    def routes(self) -> list[Route]:
        """Every route, as a table."""
        table: Sequence[Row] = (
            ("GET", "/v1/tasks", self._tasks),
            ("POST", "/v1/tasks/claim", self._claim_tasks),
            ("POST", "/v1/tasks/release", self._release_tasks),
            ("PUT", "/v1/tasks/{id}", self._put_task),
            ("PATCH", "/v1/tasks/{id}", self._patch_task),
            ("GET", "/v1/tasks/{id}", self._task),
            ("DELETE", "/v1/tasks/{id}", self._delete_task),
            ("GET", "/v1/tasks/{id}/results", self._results),
            ("POST", "/v1/tasks/{id}/revoke", self._revoke_task),
            ("POST", "/v1/tasks/{id}/reconcile", self._reconcile_task),
            ("GET", "/v1/costs", self._costs),
            ("GET", "/v1/callbacks", self._callbacks),
            ("GET", "/v1/callbacks/{id}", self._callback),
            ("DELETE", "/v1/callbacks/{id}", self._delete_callback),
            ("GET", "/v1/callbacks/{id}/body", self._callback_body),
            ("POST", "/v1/callbacks/{id}/reprocess", self._reprocess),
            *RepairRoutes(self._ops).table(),
            *EndpointRoutes(self._ops).table(),
            *DeliveryRoutes(self._ops).table(),
            ("POST", "/v1/prune", self._prune),
        )
        # One route a path, so that a 405 names every method that the path has.
        paths: dict[str, dict[str, Handler]] = {}
        for method, path, handler in table:
            paths.setdefault(path, {})[method] = handler
        return [
            Route(path, self._guarded(handlers), methods=[*handlers], max_body_size=MAX_BODY)
            for path, handlers in paths.items()
        ]

    def _guarded(self, handlers: Mapping[str, Handler]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            who = self._auth.principal(request)
            request.scope[PRINCIPAL] = who.name
            method = "GET" if request.method == "HEAD" else request.method
            return await handlers[method](who, request)

        return endpoint

    async def _put_task(self, who: Principal, request: Request) -> Response:
        spec = await body_of(request, TaskSpec)
        source = one_of(Source, request.query_params.get("src", "callback"), "src")
        task = await self._ops.register_task(who, request.path_params["id"], spec, source)
        return shown(task, 201 if task.may_submit else 200)

    async def _patch_task(self, who: Principal, request: Request) -> Response:
        patch = await body_of(request, TaskPatch)
        return shown(await self._ops.change_task(who, request.path_params["id"], patch))

    async def _task(self, who: Principal, request: Request) -> Response:
        known = revision_of(request)
        task_id, wait = request.path_params["id"], seconds_of(request)
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
        return JSONResponse({"released": released})

    async def _reconcile_task(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.reconcile_task(who, request.path_params["id"]))

    async def _tasks(self, who: Principal, request: Request) -> Response:
        names = "status platform model overdue registered tag project since until q"
        return listed(await self._ops.tasks(who, query_of(request, names)))

    async def _results(self, who: Principal, request: Request) -> Response:
        results = await self._ops.results(who, request.path_params["id"])
        return listed(Page(results, None))

    async def _costs(self, who: Principal, request: Request) -> Response:
        names = "by status platform model project tag since until"
        page = await self._ops.costs(who, query_of(request, names))
        total = "null" if page.total is None else page.total.model_dump_json()
        return listed(page, f'"total":{total},')

    async def _callbacks(self, who: Principal, request: Request) -> Response:
        names = "outcome task orphan project since until"
        return listed(await self._ops.callbacks(who, query_of(request, names)))

    async def _callback(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.callback(who, request.path_params["id"]))

    async def _callback_body(self, who: Principal, request: Request) -> Response:
        callback_id = request.path_params["id"]
        body = await self._ops.callback_body(who, callback_id)
        name = {"content-disposition": f'attachment; filename="{callback_id}"'}
        return Response(body, 200, {**INERT, **name}, media_type="application/octet-stream")

    async def _delete_callback(self, who: Principal, request: Request) -> Response:
        await self._ops.delete_callback(who, request.path_params["id"])
        return Response(status_code=204)

    async def _reprocess(self, who: Principal, request: Request) -> Response:
        asked = await body_of(request, Reprocess)
        return shown(await self._ops.reprocess(who, request.path_params["id"], asked))

    async def _prune(self, who: Principal, request: Request) -> Response:
        asked = await body_of(request, PruneAsked)
        place = cursor_of(asked.cursor) or ()
        pruned, place_next = await self._ops.prune(who, place, dry_run=asked.dry_run)
        return shown(pruned.model_copy(update={"next_cursor": cursor_text(place_next)}))
