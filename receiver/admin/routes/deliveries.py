"""Floor 4, doors: the routes of events and deliveries. Starlette only."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from receiver.access import ADMINS, READERS
from receiver.admin.ops import Ops, Principal
from receiver.admin.routes.answers import listed, shown
from receiver.admin.routes.requests import query_of
from receiver.admin.routes.rows import Listed, Row
from receiver.deliveries import DeadLetters, Delivery
from receiver.events import Event


class DeliveryRoutes:
    """What goes downstream, and how it went."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[Row]:
        """Every route."""
        return (*self._of_events(), *self._of_deliveries(), *self._moves())

    def _of_events(self) -> Sequence[Row]:
        return (
            Row(
                "GET",
                "/v1/events",
                self._events,
                READERS,
                "List events",
                query="event_type task platform model tag project since until",
                answers={200: Listed[Event]},
            ),
            Row(
                "GET",
                "/v1/events/{id}",
                self._event,
                READERS,
                "One event with its payload",
                answers={200: Event},
            ),
        )

    def _of_deliveries(self) -> Sequence[Row]:
        return (
            Row(
                "GET",
                "/v1/deliveries",
                self._deliveries,
                READERS,
                "List deliveries",
                query="state endpoint task event event_type last_error last_status project"
                " since until",
                answers={200: Listed[Delivery]},
            ),
            Row(
                "GET",
                "/v1/deliveries/dead",
                self._dead_letters,
                READERS,
                "Dead letters by endpoint and cause",
                query="endpoint project since until",
                answers={200: Listed[DeadLetters]},
            ),
            Row(
                "GET",
                "/v1/deliveries/{id}",
                self._delivery,
                READERS,
                "One delivery with its attempts",
                answers={200: Delivery},
            ),
        )

    def _moves(self) -> Sequence[Row]:
        return (
            Row(
                "POST",
                "/v1/deliveries/{id}/retry",
                self._retry,
                ADMINS,
                "Send a settled delivery again",
                answers={200: Delivery},
            ),
            Row(
                "POST",
                "/v1/deliveries/{id}/cancel",
                self._cancel,
                ADMINS,
                "Drop a waiting delivery",
                answers={200: Delivery},
            ),
        )

    async def _events(self, who: Principal, request: Request) -> Response:
        return listed(await self._ops.events(who, query_of(request)))

    async def _event(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.event(who, request.path_params["id"]))

    async def _deliveries(self, who: Principal, request: Request) -> Response:
        return listed(await self._ops.deliveries(who, query_of(request)))

    async def _dead_letters(self, who: Principal, request: Request) -> Response:
        return listed(await self._ops.dead_letters(who, query_of(request)))

    async def _delivery(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.delivery(who, request.path_params["id"]))

    async def _retry(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.retry(who, request.path_params["id"]))

    async def _cancel(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.cancel(who, request.path_params["id"]))
