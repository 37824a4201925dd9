"""Floor 4, doors: the routes of endpoints. Starlette only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from receiver.access import ADMINS, READERS
from receiver.admin.ops import Ops, Principal
from receiver.admin.routes.answers import listed, shown
from receiver.admin.routes.requests import (
    body_of,
    parameter_of,
    query_of,
    revision_of,
    revisions_of,
)
from receiver.admin.routes.rows import Handler, Listed, Row
from receiver.deliveries import QueueCanceled
from receiver.endpoints import (
    Endpoint,
    EndpointAsked,
    EndpointPatch,
    Preview,
    PreviewAsked,
    RotateAsked,
    State,
)

# What each move makes of an endpoint, and what it is for.
MOVES: Final[Mapping[str, tuple[State, str]]] = {
    "pause": (State.PAUSED, "Hold an endpoint's queue"),
    "disable": (State.DISABLED, "Hold an endpoint's queue for long"),
    "resume": (State.ENABLED, "Send what waits again"),
    "enable": (State.ENABLED, "Send what waits again"),
}


class EndpointRoutes:
    """Registered downstream callbacks."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[Row]:
        """Every route."""
        return (*self._reading(), *self._changing(), *self._operating(), *self._moving())

    def _reading(self) -> Sequence[Row]:
        return (
            Row(
                "GET",
                "/v1/endpoints",
                self._endpoints,
                READERS,
                "List endpoints",
                query="project",
                answers={200: Listed[Endpoint]},
            ),
            Row(
                "GET",
                "/v1/endpoints/{id}",
                self._endpoint,
                READERS,
                "One endpoint and how it fares",
                headers="if-none-match",
                answers={200: Endpoint, 304: None},
            ),
            Row(
                "POST",
                "/v1/endpoints/preview",
                self._preview,
                READERS,
                "Which of the latest events an endpoint would have got",
                query="project",
                body=PreviewAsked,
                answers={200: Preview},
            ),
        )

    def _changing(self) -> Sequence[Row]:
        return (
            Row(
                "POST",
                "/v1/endpoints",
                self._add_endpoint,
                ADMINS,
                "Register an endpoint; the answer alone has its secret",
                query="project",
                body=EndpointAsked,
                answers={201: Endpoint},
            ),
            Row(
                "PATCH",
                "/v1/endpoints/{id}",
                self._patch_endpoint,
                ADMINS,
                "Change an endpoint",
                headers="if-match",
                body=EndpointPatch,
                answers={200: Endpoint},
            ),
            Row(
                "DELETE",
                "/v1/endpoints/{id}",
                self._delete_endpoint,
                ADMINS,
                "Delete an endpoint and cancel what waits for it",
                headers="if-match",
                answers={204: None},
            ),
        )

    def _operating(self) -> Sequence[Row]:
        return (
            Row(
                "POST",
                "/v1/endpoints/{id}/rotate-secret",
                self._rotate_secret,
                ADMINS,
                "Make a new secret; the answer alone has it",
                headers="if-match",
                body=RotateAsked,
                answers={200: Endpoint},
            ),
            Row(
                "POST",
                "/v1/endpoints/{id}/cancel",
                self._cancel_queue,
                ADMINS,
                "Cancel what waits for an endpoint",
                answers={200: QueueCanceled},
            ),
        )

    def _moving(self) -> Sequence[Row]:
        return [
            Row(
                "POST",
                f"/v1/endpoints/{{id}}/{move}",
                self._move(state),
                ADMINS,
                summary,
                headers="if-match",
                answers={200: Endpoint},
            )
            for move, (state, summary) in MOVES.items()
        ]

    async def _endpoints(self, who: Principal, request: Request) -> Response:
        return listed(await self._ops.endpoints(who, query_of(request)))

    async def _add_endpoint(self, who: Principal, request: Request) -> Response:
        spec = await body_of(request, EndpointAsked)
        endpoint = await self._ops.add_endpoint(who, spec, parameter_of(request, "project"))
        return _shown(endpoint, 201)

    async def _endpoint(self, who: Principal, request: Request) -> Response:
        endpoint = await self._ops.endpoint(who, request.path_params["id"])
        if endpoint.revision == revision_of(request):
            return Response(status_code=304, headers=_etag(endpoint))
        return _shown(endpoint)

    async def _patch_endpoint(self, who: Principal, request: Request) -> Response:
        patch = await body_of(request, EndpointPatch)
        endpoint_id, revisions = request.path_params["id"], revisions_of(request)
        return _shown(await self._ops.change_endpoint(who, endpoint_id, patch, revisions))

    async def _delete_endpoint(self, who: Principal, request: Request) -> Response:
        await self._ops.delete_endpoint(who, request.path_params["id"], revisions_of(request))
        return Response(status_code=204)

    async def _rotate_secret(self, who: Principal, request: Request) -> Response:
        asked = await body_of(request, RotateAsked)
        endpoint_id, revisions = request.path_params["id"], revisions_of(request)
        return _shown(await self._ops.rotate_secret(who, endpoint_id, asked, revisions))

    async def _preview(self, who: Principal, request: Request) -> Response:
        asked = await body_of(request, PreviewAsked)
        return shown(await self._ops.preview(who, asked, parameter_of(request, "project")))

    async def _cancel_queue(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.cancel_queue(who, request.path_params["id"]))

    def _move(self, state: State) -> Handler:
        async def move(who: Principal, request: Request) -> Response:
            endpoint_id, revisions = request.path_params["id"], revisions_of(request)
            return _shown(await self._ops.move_endpoint(who, endpoint_id, state, revisions))

        return move


def _shown(endpoint: Endpoint, status: int = 200) -> Response:
    return shown(endpoint, status, _etag(endpoint))


def _etag(endpoint: Endpoint) -> Mapping[str, str]:
    return {"etag": f'"{endpoint.revision}"'}
