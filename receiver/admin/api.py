"""Floor 4, doors: the HTTP API under /v1, each route one use case. Starlette only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from receiver.admin.auth import PRINCIPAL, Auth
from receiver.admin.openapi.routes import DescriptionRoutes
from receiver.admin.ops import NOTHING, Ops, Principal
from receiver.admin.routes.access import AccessRoutes
from receiver.admin.routes.answers import EXCEPTION_HANDLERS
from receiver.admin.routes.callbacks import CallbackRoutes
from receiver.admin.routes.deliveries import DeliveryRoutes
from receiver.admin.routes.endpoints import EndpointRoutes
from receiver.admin.routes.figures import FigureRoutes
from receiver.admin.routes.logins import LoginRoutes
from receiver.admin.routes.metrics import MetricRoutes
from receiver.admin.routes.once import once
from receiver.admin.routes.repair import RepairRoutes
from receiver.admin.routes.requests import check_parameters
from receiver.admin.routes.rows import HTML, ROW, Row
from receiver.admin.routes.tasks import TaskRoutes
from receiver.admin.routes.upkeep import UpkeepRoutes
from receiver.admin.sessions import SAFE
from receiver.admin.stream import StreamRoutes
from receiver.errors import NotFound, Unauthenticated

__all__ = ["EXCEPTION_HANDLERS", "MAX_BODY", "Api"]

MAX_BODY: Final = 16 << 20  # bytes: a task's request may carry images


class Api:
    """The routes that need a token: those under /v1, and what describes them."""

    def __init__(self, ops: Ops, auth: Auth) -> None:
        self._ops = ops
        self._auth = auth

    def table(self) -> Sequence[Row]:
        """Every method of every path."""
        rows = (
            *TaskRoutes(self._ops).table(),
            *CallbackRoutes(self._ops).table(),
            *EndpointRoutes(self._ops).table(),
            *DeliveryRoutes(self._ops).table(),
            *RepairRoutes(self._ops).table(),
            *LoginRoutes(self._ops).table(),
            *StreamRoutes(self._ops).table(),
            *FigureRoutes(self._ops).table(),
            *MetricRoutes(self._ops).table(),
            *AccessRoutes(self._ops).table(),
            *UpkeepRoutes(self._ops).table(),
        )
        return (*rows, *DescriptionRoutes(rows).table())

    def routes(self) -> list[Route]:
        """The table for Starlette, which takes the first path that fits: named ones before ids."""
        # One route a path, so that a 405 names every method that the path has.
        paths: dict[str, dict[str, Row]] = {}
        for row in sorted(self.table(), key=_named_first):
            paths.setdefault(row.path, {})[row.method] = row
        return [
            Route(path, self._guarded(rows), methods=[*rows], max_body_size=MAX_BODY)
            for path, rows in paths.items()
        ]

    def _guarded(self, rows: Mapping[str, Row]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            row = rows["GET" if request.method == "HEAD" else request.method]
            try:
                who = await self._auth.principal(request)
            except Unauthenticated:
                if not _is_for_people(row, request):
                    raise
                return RedirectResponse(f"/login?{urlencode({'next': row.path})}", 303)
            request.scope[PRINCIPAL], request.scope[ROW] = who.name, row
            who.allow(row.scopes)
            check_parameters(request)
            try:
                return await self._answer(who, request, row)
            except NotFound:
                if who.project is None:
                    raise
            raise NotFound(NOTHING)  # what is another project's is told of in the same words

        return endpoint

    async def _answer(self, who: Principal, request: Request, row: Row) -> Response:
        response = await once(self._ops, who, request, row.handler)
        if request.method in SAFE and "wait" in request.query_params:
            await self._auth.check(who)  # a token may be taken back while somebody waits
        return response


def _is_for_people(row: Row, request: Request) -> bool:
    """Whether a browser asks for a page, and its person can log in."""
    is_page = row.bodies(200) == (HTML,)
    given = "authorization" in request.headers
    return is_page and not given and HTML in request.headers.get("accept", "")


def _named_first(row: Row) -> list[bool]:
    return [part.startswith("{") for part in row.path.split("/")]
