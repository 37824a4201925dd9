"""The simulator as a Starlette app: its routes and its life. Touches Starlette, its own files."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from submitter.simulator import plans
from submitter.simulator.config import SimulatorConfig
from submitter.simulator.contract import Json
from submitter.simulator.courier import Clock, Courier, Log, Sleep, Waits, working
from submitter.simulator.desk import Call, Desk
from submitter.simulator.jobs import Ledger
from submitter.simulator.nanogpt import routes as nanogpt_routes
from submitter.simulator.nanogpt.desk import NanoDesk
from submitter.simulator.panel import Panel

HERE = Path(__file__).parent
SAMPLES = {"video": ("sample.mp4", "video/mp4"), "image": ("sample.jpg", "image/jpeg")}


def utc_now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def silent(line: str) -> None:
    """A log that keeps nothing."""


def published_pairs() -> list[Json]:
    """The nine PixVerse V4 and V5.5 examples that Runware publishes: name, request, response."""
    pairs: list[Json] = json.loads((HERE / "published.json").read_bytes())["pairs"]
    return pairs


def build(
    config: SimulatorConfig,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    clock: Clock = utc_now,
    sleep: Sleep = anyio.sleep,
    log: Log = silent,
) -> Starlette:
    """Both platforms as an app; callbacks leave through `transport` (the real network if None).

    `sleep` is every wait of the simulation: results, retries, hangs. The app must run its lifespan.
    `app.state.close()` lets go of requests that hang, for a server that wants to end.
    """
    ledger = Ledger()
    published = plans.by_task(published_pairs())
    panel = Panel(config.knobs, sleep)
    desk = Desk(config, panel, ledger, published=published, clock=clock)
    doors = Doors(desk, panel, ledger, clock)
    nanogpt = NanoDesk(config, panel, ledger, clock=clock)
    routes = nanogpt_routes.Doors(nanogpt, lambda result: doors.courier.ripen(result)).routes()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        media = {kind: (HERE / name).read_bytes() for kind, (name, _) in SAMPLES.items()}
        waits = Waits(clock, sleep)
        async with working(transport, waits=waits, media=media, log=log) as courier:
            doors.courier = courier
            yield

    app = Starlette(routes=[*doors.routes(), *routes], lifespan=lifespan)
    app.state.close = panel.close
    return app


class Doors:
    """The routes of Runware, of all media, and of the simulator's own controls."""

    courier: Courier  # There from the lifespan's start to its end.

    def __init__(self, desk: Desk, panel: Panel, ledger: Ledger, clock: Clock) -> None:
        self._desk = desk
        self._panel = panel
        self._ledger = ledger
        self._clock = clock

    def routes(self) -> list[Route]:
        """The platform's endpoint, its media, and the simulator's own controls."""
        return [
            Route("/", self.tasks, methods=["POST"]),
            Route("/v1", self.tasks, methods=["POST"]),
            Route("/video/{media:uuid}.mp4", self.video),
            Route("/image/{media:uuid}.jpg", self.image),
            Route("/_control", self.show, methods=["GET"]),
            Route("/_control", self.turn, methods=["POST"]),
            Route("/_control/tasks", self.list_tasks, methods=["GET"]),
            Route("/_control/tasks", self.forget_tasks, methods=["DELETE"]),
        ]

    async def tasks(self, request: Request) -> Response:
        """Runware's one endpoint: an array of tasks in, `data` and `errors` out."""
        call = Call(
            body=await request.body(),
            authorization=request.headers.get("authorization"),
            base_url=str(request.base_url),
            is_dry_run=request.headers.get("x-runware-dry-run") == "1",
        )
        reply = await self._desk.answer(call, self.courier.start)
        headers = {"retry-after": reply.retry_after} if reply.retry_after else None
        return JSONResponse(reply.body(), reply.status, headers)

    async def video(self, request: Request) -> Response:
        """The sample clip under any id; 410 or 404 when the task's ttl is over."""
        return self._media(request, "video")

    async def image(self, request: Request) -> Response:
        """The sample still under any id; 410 or 404 when the task's ttl is over."""
        return self._media(request, "image")

    def _media(self, request: Request, kind: str) -> Response:
        if gone := self._ledger.gone(str(request.path_params["media"]), self._clock()):
            return JSONResponse({"error": "expired"}, gone)
        name, media_type = SAMPLES[kind]
        return FileResponse(HERE / name, media_type=media_type)

    async def show(self, request: Request) -> Response:
        """The knobs and the counters."""
        return self._state()

    async def turn(self, request: Request) -> Response:
        """Turn knobs for future tasks; 400 with what is wrong, and then none was turned."""
        try:
            self._panel.turn(_mapping(await request.body()))
        except ValidationError as fault:
            wrong = fault.errors(include_url=False, include_context=False, include_input=False)
            return JSONResponse({"errors": wrong}, 400)
        except ValueError as fault:
            return JSONResponse({"errors": [{"msg": str(fault)}]}, 400)
        return self._state()

    def _state(self) -> Response:
        knobs = self._panel.knobs.model_dump()
        return JSONResponse({"knobs": knobs, "counters": self._ledger.progress()})

    async def list_tasks(self, request: Request) -> Response:
        """Every task with each attempt of each callback."""
        return JSONResponse({"data": list(self._ledger.listing())})

    async def forget_tasks(self, request: Request) -> Response:
        """Forget all tasks, so that their taskUUIDs are new again."""
        self._ledger.forget()
        return Response(status_code=204)


def _mapping(body: bytes) -> dict[str, Any]:
    value = json.loads(body)
    if not isinstance(value, dict):
        raise ValueError("the body must be a JSON object of knobs")
    return value
