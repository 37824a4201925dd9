"""NanoGPT's endpoints under /api, over its desk. Touches Starlette."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from submitter.simulator.jobs import Result
from submitter.simulator.nanogpt.desk import Call, NanoDesk, Refused
from submitter.simulator.nanogpt.errors import Answer

Handle = Callable[[Call], Awaitable[Answer]]


class Doors:
    """The routes of one desk; `start` sets an accepted run's result going."""

    def __init__(self, desk: NanoDesk, start: Callable[[Result], None]) -> None:
        self._desk = desk
        self._start = start
        self._answered = 0

    def routes(self) -> list[Route]:
        """Submits, the three ways to ask, and the discovery of models."""
        desk, start = self._desk, self._start
        video = "/api/generate-video"
        return [
            self._route("POST", video, lambda call: desk.submit(call, start)),
            self._route("POST", f"{video}/extend", lambda call: desk.extend(call, start)),
            self._route("GET", "/api/video/status", desk.status),
            self._route("GET", f"{video}/status", desk.legacy),
            self._route("GET", f"{video}/recover", desk.recover),
            self._route("GET", "/api/v1/video-models", desk.models),
        ]

    def _route(self, method: str, path: str, handle: Handle) -> Route:
        async def endpoint(request: Request) -> Response:
            call = Call(
                headers=request.headers,
                query=request.query_params,
                body=await request.body(),
                base_url=str(request.base_url),
            )
            try:
                answer = await handle(call)
            except Refused as refused:
                answer = refused.answer
            return self._respond(answer)

        return Route(path, endpoint, methods=[method])

    def _respond(self, answer: Answer) -> Response:
        self._answered += 1
        headers = {"x-request-id": str(UUID(int=self._answered)), **dict(answer.headers)}
        return JSONResponse(answer.body, answer.status, headers)
