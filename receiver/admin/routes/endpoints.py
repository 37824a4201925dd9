"""Floor 4, doors: the routes of endpoints. Starlette only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from receiver.admin.ops import Ops, Principal
from receiver.admin.routes.answers import listed, shown
from receiver.admin.routes.requests import Row, body_of, query_of
from receiver.endpoints import EndpointAsked, EndpointPatch, PreviewAsked, RotateAsked, State

MOVES: Final[Mapping[str, State]] = {
    "pause": State.PAUSED,
    "disable": State.DISABLED,
    "resume": State.ENABLED,
    "enable": State.ENABLED,
}


class EndpointRoutes:
    """Registered downstream callbacks."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[Row]:
        """(method, path, handler) of every route."""
        return (
            ("GET", "/v1/endpoints", self._endpoints),
            ("POST", "/v1/endpoints", self._add_endpoint),
            ("POST", "/v1/endpoints/preview", self._preview),
            ("GET", "/v1/endpoints/{id}", self._endpoint),
            ("PATCH", "/v1/endpoints/{id}", self._patch_endpoint),
            ("DELETE", "/v1/endpoints/{id}", self._delete_endpoint),
            ("POST", "/v1/endpoints/{id}/rotate-secret", self._rotate_secret),
            ("POST", "/v1/endpoints/{id}/cancel", self._cancel_queue),
            ("POST", "/v1/endpoints/{id}/{move}", self._move_endpoint),
        )

    async def _endpoints(self, who: Principal, request: Request) -> Response:
        return listed(await self._ops.endpoints(who, query_of(request, "project")))

    async def _add_endpoint(self, who: Principal, request: Request) -> Response:
        spec = await body_of(request, EndpointAsked)
        endpoint = await self._ops.add_endpoint(who, spec, request.query_params.get("project"))
        return shown(endpoint, 201)

    async def _endpoint(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.endpoint(who, request.path_params["id"]))

    async def _patch_endpoint(self, who: Principal, request: Request) -> Response:
        patch = await body_of(request, EndpointPatch)
        return shown(await self._ops.change_endpoint(who, request.path_params["id"], patch))

    async def _delete_endpoint(self, who: Principal, request: Request) -> Response:
        await self._ops.delete_endpoint(who, request.path_params["id"])
        return Response(status_code=204)

    async def _rotate_secret(self, who: Principal, request: Request) -> Response:
        asked = await body_of(request, RotateAsked)
        return shown(await self._ops.rotate_secret(who, request.path_params["id"], asked))

    async def _preview(self, who: Principal, request: Request) -> Response:
        asked = await body_of(request, PreviewAsked)
        return shown(await self._ops.preview(who, asked, request.query_params.get("project")))

    async def _cancel_queue(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.cancel_queue(who, request.path_params["id"]))

    async def _move_endpoint(self, who: Principal, request: Request) -> Response:
        state = MOVES.get(request.path_params["move"])
        if state is None:
            raise HTTPException(404)
        return shown(await self._ops.move_endpoint(who, request.path_params["id"], state))
