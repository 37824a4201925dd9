"""Floor 4, doors: the routes of figures and conditions. Starlette only."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from receiver.access import ADMINS, READERS
from receiver.admin.ops import Ops, Principal
from receiver.admin.routes.answers import shown
from receiver.admin.routes.requests import query_of
from receiver.admin.routes.rows import Row
from receiver.condition import Health, Setup
from receiver.figures import EndpointReport, Overview


class FigureRoutes:
    """What an operator looks at first."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[Row]:
        """Every route."""
        return (
            Row(
                "GET",
                "/v1/overview",
                self._overview,
                READERS,
                "How all fares",
                query="project",
                answers={200: Overview},
            ),
            Row(
                "GET",
                "/v1/endpoints/{id}/health",
                self._endpoint_report,
                READERS,
                "How an endpoint fared within 24 hours",
                answers={200: EndpointReport},
            ),
            Row(
                "GET",
                "/v1/health",
                self._health,
                READERS,
                "In what condition the receiver is",
                answers={200: Health},
            ),
            Row(
                "GET",
                "/v1/settings",
                self._setup,
                ADMINS,
                "Every setting that is in force",
                answers={200: Setup},
            ),
        )

    async def _overview(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.overview(who, query_of(request)))

    async def _endpoint_report(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.endpoint_report(who, request.path_params["id"]))

    async def _health(self, who: Principal, _request: Request) -> Response:
        return shown(await self._ops.health(who))

    async def _setup(self, who: Principal, _request: Request) -> Response:
        return shown(await self._ops.setup(who))
