"""Floor 4, doors: the routes of sending again, and of trying an endpoint out. Starlette only."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from receiver.admin.ops import Ops, Principal
from receiver.admin.routes.answers import shown
from receiver.admin.routes.requests import Row, body_of, seconds_of
from receiver.repair import ReplayAsked


class RepairRoutes:
    """What an operator asks for when something did not arrive."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[Row]:
        """(method, path, handler) of every route; before those with a move in their path."""
        return (
            ("POST", "/v1/events/{id}/replay", self._replay),
            ("POST", "/v1/endpoints/{id}/test", self._test_endpoint),
        )

    async def _replay(self, who: Principal, request: Request) -> Response:
        asked = await body_of(request, ReplayAsked)
        return shown(await self._ops.replay(who, request.path_params["id"], asked))

    async def _test_endpoint(self, who: Principal, request: Request) -> Response:
        endpoint_id, seconds = request.path_params["id"], seconds_of(request)
        return shown(await self._ops.test_endpoint(who, endpoint_id, seconds), 201)
