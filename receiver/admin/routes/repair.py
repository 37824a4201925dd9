"""Floor 4, doors: the routes of sending again, and of trying an endpoint out. Starlette only."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from receiver.admin.ops import Begun, Ops, Principal
from receiver.admin.routes.answers import listed, shown
from receiver.admin.routes.requests import Row, body_of, key_of, query_of, seconds_of
from receiver.repair import Counted, RecoverAsked, ReplayAsked, RetryAsked


class RepairRoutes:
    """What an operator asks for when something did not arrive."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[Row]:
        """(method, path, handler) of every route; before those with a move in their path."""
        return (
            ("POST", "/v1/events/{id}/replay", self._replay),
            ("POST", "/v1/endpoints/{id}/test", self._test_endpoint),
            ("POST", "/v1/endpoints/{id}/recover", self._recover),
            ("POST", "/v1/deliveries/retry", self._retry_all),
            ("GET", "/v1/jobs", self._jobs),
            ("GET", "/v1/jobs/{id}", self._job),
            ("POST", "/v1/jobs/{id}/cancel", self._cancel_job),
        )

    async def _replay(self, who: Principal, request: Request) -> Response:
        asked = await body_of(request, ReplayAsked)
        return shown(await self._ops.replay(who, request.path_params["id"], asked))

    async def _test_endpoint(self, who: Principal, request: Request) -> Response:
        endpoint_id, seconds = request.path_params["id"], seconds_of(request)
        return shown(await self._ops.test_endpoint(who, endpoint_id, seconds), 201)

    async def _retry_all(self, who: Principal, request: Request) -> Response:
        asked = await body_of(request, RetryAsked)
        return _begun(await self._ops.retry_all(who, asked, key_of(request)))

    async def _recover(self, who: Principal, request: Request) -> Response:
        endpoint_id, key = request.path_params["id"], key_of(request)
        await self._ops.endpoint(who, endpoint_id)  # whatever the body lacks
        asked = await body_of(request, RecoverAsked)
        return _begun(await self._ops.recover(who, endpoint_id, asked, key))

    async def _jobs(self, who: Principal, request: Request) -> Response:
        return listed(await self._ops.jobs(who, query_of(request, "project")))

    async def _job(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.job(who, request.path_params["id"]))

    async def _cancel_job(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.cancel_job(who, request.path_params["id"]))


def _begun(found: Counted | Begun) -> Response:
    if isinstance(found, Counted):
        return shown(found)
    return shown(found.job, 202 if found.new else 200)
