"""Floor 4, doors: the routes of events and deliveries. Starlette only."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from receiver.admin.ops import Ops, Principal
from receiver.admin.routes.answers import listed, shown
from receiver.admin.routes.requests import Row, query_of


class DeliveryRoutes:
    """What goes downstream, and how it went."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[Row]:
        """(method, path, handler) of every route."""
        return (
            ("GET", "/v1/events", self._events),
            ("GET", "/v1/events/{id}", self._event),
            ("GET", "/v1/deliveries", self._deliveries),
            ("GET", "/v1/deliveries/dead", self._dead_letters),
            ("GET", "/v1/deliveries/{id}", self._delivery),
            ("POST", "/v1/deliveries/{id}/{move}", self._move_delivery),
        )

    async def _events(self, who: Principal, request: Request) -> Response:
        names = "event_type task project since until"
        return listed(await self._ops.events(who, query_of(request, names)))

    async def _event(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.event(who, request.path_params["id"]))

    async def _deliveries(self, who: Principal, request: Request) -> Response:
        names = "state endpoint task event_type project since until"
        return listed(await self._ops.deliveries(who, query_of(request, names)))

    async def _dead_letters(self, who: Principal, request: Request) -> Response:
        names = "endpoint project since until"
        return listed(await self._ops.dead_letters(who, query_of(request, names)))

    async def _delivery(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.delivery(who, request.path_params["id"]))

    async def _move_delivery(self, who: Principal, request: Request) -> Response:
        move = {"retry": self._ops.retry, "cancel": self._ops.cancel}.get(
            request.path_params["move"]
        )
        if move is None:
            raise HTTPException(404)
        return shown(await move(who, request.path_params["id"]))
