"""Floor 5, assembly: the whole service out of its parts; the one place that knows them all."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from receiver import __version__, ids, loops, tracing
from receiver.admin.api import EXCEPTION_HANDLERS, Api
from receiver.admin.auth import Auth
from receiver.admin.dashboard.door import Dashboard
from receiver.admin.ops import Ops, Running
from receiver.admin.sessions import Sessions
from receiver.alerts import Alerts
from receiver.clock import Clock
from receiver.condition import Role
from receiver.deliveries import Outcome
from receiver.delivery.guard import Guard
from receiver.delivery.policy import SCHEDULE
from receiver.delivery.sender import Sender
from receiver.delivery.worker import Journal as AttemptJournal
from receiver.delivery.worker import Worker, check_lease, lease_of
from receiver.errors import StoreUnavailable
from receiver.ingest import Ingest
from receiver.ingest import Journal as RequestJournal
from receiver.jobs import Jobs
from receiver.jobs import Journal as JobJournal
from receiver.journal import PROBES, Answering, Journaled, internal_error, named
from receiver.keeping import Keep
from receiver.limits import FailureLimit
from receiver.log import Log
from receiver.metrics import Metrics
from receiver.problems import MEDIA_TYPE, REQUEST_ID, problem
from receiver.repair import Job, JobState
from receiver.retention import Retention
from receiver.sessions import SessionBox
from receiver.settings import Settings, listed, new_key
from receiver.store.protocol import Alert, Settled, Store
from receiver.store.seal import Seal, key_for
from receiver.tokens import Claims, TokenBox

WEBHOOKS: Final = "/webhooks/"
METRICS: Final = "/metrics"
LOGINS: Final = 10  # that may fail from one address in a minute


@dataclass(frozen=True, slots=True)
class Service:
    """The application and what runs beside it."""

    role: Role
    app: Starlette
    ingest: Ingest
    ops: Ops
    worker: Worker
    retention: Retention
    jobs: Jobs
    alerts: Alerts
    metrics: Metrics


def build(
    settings: Settings,
    *,
    store: Store,
    sender: Sender,
    guard: Guard,
    clock: Clock,
    wall: Clock,
    log: Log,
    public_url: str,
    role: Role = Role.ALL,
) -> Service:
    """The service over an open store and sender. Nothing runs before its lifespan starts.

    `role` WEB delivers nothing and does nothing that falls due; WORKER shows no more than how it
    fares.
    Raises CannotStart when the sender may take longer than a delivery is leased for.
    `clock` is a steady one; `wall` is what the system says, jumps included.
    """
    tokens, metrics = TokenBox(listed(settings.signing_keys)), Metrics()
    store.on_commit(metrics.committed)
    retention = _retention(settings, store, clock, log)
    worker = _worker(settings, store, sender, clock, wall, log, metrics, role)
    ops = Ops(
        store,
        tokens,
        retention,
        public_url=public_url,
        guard=guard,
        clock=clock,
        wall=wall,
        random_bytes=secrets.token_bytes,
        seals=Seal([key_for("answers", key) for key in listed(settings.signing_keys)]),
        running=_running(settings, worker if role.works else None, clock(), metrics),
    )
    jobs = Jobs(store, clock=clock, journal=_job_journal(log))
    alerts = Alerts(store, sender, settings.alert_url, clock=clock, journal=AlertJournal(log))
    ingest = Ingest(
        store.record,
        store.admit,
        tokens,
        clock=clock,
        wall=wall,
        failures=FailureLimit(clock),
        journal=_request_journal(log, metrics),
        static_keys=listed(settings.static_keys),
    )
    api, pages = _doors(settings, store, ops, clock)
    probes = _probes(store, worker if role.works else None)
    doors = [Route("/webhooks/{platform}", ingest), *api.routes(), *pages.routes()]
    if role is Role.WORKER:
        doors = [route for route in api.routes() if route.path == METRICS]
    turns = loops.of_all(ops, log)
    if role.works:
        turns |= loops.of_work(store, worker, retention, jobs, alerts, clock, log)
    app = Starlette(
        routes=[*probes, *doors],
        exception_handlers={**EXCEPTION_HANDLERS, 404: _lost(pages)},
        lifespan=loops.lifespan(ops, turns, log),
    )
    # A redirect would carry the token in its Location.
    app.router.redirect_slashes = False
    return Service(role, app, ingest, ops, worker, retention, jobs, alerts, metrics)


def _worker(
    settings: Settings,
    store: Store,
    sender: Sender,
    clock: Clock,
    wall: Clock,
    log: Log,
    metrics: Metrics,
    role: Role,
) -> Worker:
    lease = lease_of(settings.delivery_deadline)
    check_lease(lease, sender.deadline_s)
    return Worker(
        store,
        sender,
        clock=clock,
        wall=wall,
        jitter=random.random,
        journal=_attempt_journal(log, metrics),
        schedule=settings.schedule or SCHEDULE,
        lease=lease,
        patience=settings.grace if role is Role.WORKER else 0.0,
    )


def _doors(settings: Settings, store: Store, ops: Ops, clock: Clock) -> tuple[Api, Dashboard]:
    sessions = Sessions(ops, SessionBox(settings.admin_token or new_key()), store.instance)
    auth = Auth(ops, settings.admin_token, sessions)
    api = Api(ops, auth)
    failures = FailureLimit(clock, LOGINS)
    return api, Dashboard(ops, auth, sessions, api.table(), failures.note)


def _lost(pages: Dashboard) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def lost(request: Request, error: Exception) -> Response:
        page = pages.lost(request)
        if page is not None:
            return page
        refused: Response = await EXCEPTION_HANDLERS[HTTPException](request, error)
        return refused

    return lost


def _retention(settings: Settings, store: Store, clock: Clock, log: Log) -> Retention:
    return Retention(
        store,
        clock=clock,
        keep=Keep(settings.retention_raw, settings.retention_events, settings.retention_tasks),
        journal=lambda dropped: log.info("retention", **dropped),
    )


def _running(settings: Settings, worker: Worker | None, now: int, metrics: Metrics) -> Running:
    return Running(
        version=__version__,
        started_at=now,
        settings=settings.shown(),
        backups=settings.backup_path,
        is_alive=lambda: None if worker is None else worker.alive,
        metrics=metrics,
    )


class AlertJournal:
    """Writes what operational events tell, without what is a consumer's own: its task."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def tell(self, payload: Mapping[str, Any]) -> None:
        """One line for each."""
        endpoint, delivery = payload["data"]["endpoint"], payload["data"].get("delivery")
        about = {"endpoint": endpoint["id"], "host": endpoint["host"]}
        if delivery is None:
            self._log.error("endpoint disabled", reason=endpoint["reason"], **about)
            return
        names = ("event_type", "attempts", "last_error", "last_status")
        facts = {name: delivery[name] for name in names}
        self._log.error("delivery exhausted", delivery=delivery["id"], **facts, **about)

    def give_up(self, alerts: Sequence[Alert], outcome: Outcome) -> None:
        """The URL itself is a credential, so it is not said."""
        self._log.error(
            "alerts not sent to REELHOOK_ALERT_URL",
            count=len(alerts),
            first=alerts[0].id,
            status=outcome.status,
            failure=outcome.failure and outcome.failure.value,
        )


def _job_journal(log: Log) -> JobJournal:
    def journal(job: Job) -> None:
        write = log.error if job.state is JobState.FAILED else log.info
        write(
            "job",
            job=job.id,
            kind=job.kind.value,
            state=job.state.value,
            done=job.done,
            total=job.total,
            note=job.note,
        )

    return journal


def _probes(store: Store, worker: Worker | None) -> list[Route]:
    async def healthz(_request: Request) -> Response:
        return _uncached({"status": "ok", "instance": store.instance})

    async def readyz(_request: Request) -> Response:
        try:
            await store.ready()
        except StoreUnavailable as error:
            return _uncached({"status": "not ready", "reason": str(error)}, 503)
        if worker is not None and not worker.alive:
            return _uncached({"status": "not ready", "reason": "the worker stands still"}, 503)
        return _uncached({"status": "ready", "instance": store.instance})

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def _uncached(body: dict[str, str], status: int = 200) -> Response:
    return JSONResponse(body, status, {"cache-control": "no-store"})


def _request_journal(log: Log, metrics: Metrics) -> RequestJournal:
    def journal(
        outcome: str,
        status: int,
        claims: Claims | None,
        remote: str,
        size: int,
        seconds: float,
        request_id: str,
    ) -> None:
        metrics.answered(str(outcome), seconds)
        found = {} if claims is None else {"task": claims.task, "jti": claims.jti.hex()}
        log.info(
            "callback",
            outcome=str(outcome),
            status=status,
            remote=remote,
            size=size,
            duration_ms=round(seconds * 1000, 1),
            request_id=request_id,
            **found,
        )

    return journal


def _attempt_journal(log: Log, metrics: Metrics) -> AttemptJournal:
    def journal(settled: Settled) -> None:
        claimed, outcome = settled.claimed, settled.outcome
        metrics.attempted(outcome, settled.state)
        log.info(
            "attempt",
            delivery=ids.delivery_id(claimed.event_id, claimed.endpoint_id),
            task=claimed.task,
            number=claimed.attempt,
            status=outcome.status,
            failure=outcome.failure and outcome.failure.value,
            state=settled.state.value,
            duration_ms=outcome.duration_ms,
            **_traced(outcome),
        )

    return journal


def _traced(outcome: Outcome) -> dict[str, str]:
    sent = (outcome.request_headers or {}).get(tracing.HEADER)
    if sent is None:
        return {}
    return {"trace": tracing.trace_of(sent), "span": tracing.span_of(sent)}


class FrontDoor:
    """Leads callbacks straight to ingest, past the layers that they have no use for. Pure ASGI.

    With a `public_port` (REELHOOK_ADMIN_PORT is set), that socket shows the public routes alone.
    """

    def __init__(self, service: Service, log: Log, public_port: int | None = None) -> None:
        self._app = service.app
        self._ingest = service.ingest
        self._takes_callbacks = service.role is not Role.WORKER
        self._log = log
        self._metrics = service.metrics
        self._rest = Journaled(self._past_the_port, log)
        self._public_port = public_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is there; from outside, the rest is not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Only a stop cancels; uvicorn would take what is let through for an error of ours.
        platform = scope["path"].removeprefix(WEBHOOKS)
        is_webhook = platform != scope["path"] and platform and "/" not in platform
        if not (self._takes_callbacks and is_webhook):
            with contextlib.suppress(asyncio.CancelledError):
                await self._rest(scope, receive, send)
            return
        scope["path_params"], scope[REQUEST_ID] = {"platform": platform}, named(scope)
        try:
            await self._ingest(scope, receive, send)
        except asyncio.CancelledError:
            return
        except Exception:  # a defect of ours, before it wrote its line
            self._metrics.answers["internal"] += 1
            name = scope[REQUEST_ID]
            self._log.exception("callback", outcome="internal", status=500, request_id=name)
            await internal_error(scope, receive, Answering(send, name).send)

    async def _past_the_port(self, scope: Scope, receive: Receive, send: Send) -> None:
        outside = self._public_port is not None and scope["server"][1] == self._public_port
        if outside and scope["path"] not in PROBES:
            named = {"request_id": scope[REQUEST_ID]}
            body = problem(404, "not_found", "There is nothing here.", **named)
            await Response(body, 404, media_type=MEDIA_TYPE)(scope, receive, send)
            return
        await self._app(scope, receive, send)
