"""Floor 4, doors: sending again, and trying an endpoint out: the routes. Starlette and pydantic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import RootModel
from starlette.requests import Request
from starlette.responses import Response

from receiver.access import ADMINS, READERS
from receiver.admin.ops import Begun, Ops, Principal
from receiver.admin.routes.answers import listed, shown
from receiver.admin.routes.requests import body_of, given_of, key_of, parameter_of, query_of
from receiver.admin.routes.rows import Answer, Listed, Row
from receiver.clock import to_datetime
from receiver.deliveries import Delivery
from receiver.repair import (
    LOOK_BACK,
    Counted,
    Job,
    RecoverAsked,
    ReplayAsked,
    Replayed,
    RetryAsked,
)


class CountedOrBegun(RootModel[Counted | Job]):
    """What a dry run counted, or the job that was begun under this `Idempotency-Key` before."""


class RepairRoutes:
    """What an operator asks for when something did not arrive."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[Row]:
        """Every route."""
        return (*self._sending(), *self._of_jobs())

    def _sending(self) -> Sequence[Row]:
        begun: Mapping[int, Answer] = {200: CountedOrBegun, 202: Job}
        return (
            Row(
                "POST",
                "/v1/events/{id}/replay",
                self._replay,
                ADMINS,
                "Send an event again to those that want it today",
                body=ReplayAsked,
                answers={200: Replayed},
            ),
            Row(
                "POST",
                "/v1/endpoints/{id}/test",
                self._test_endpoint,
                ADMINS,
                "Send an endpoint a test",
                query="wait",
                answers={201: Delivery},
            ),
            Row(
                "POST",
                "/v1/endpoints/{id}/recover",
                self._recover,
                ADMINS,
                "Send an endpoint what it did not get, as a job",
                body=RecoverAsked,
                answers=begun,
            ),
            Row(
                "GET",
                "/v1/endpoints/{id}/recover",
                self._count_recovery,
                ADMINS,
                "Count what a recovery would send, since a day ago if not told otherwise",
                query="since until missing",
                answers={200: Counted},
            ),
            Row(
                "POST",
                "/v1/deliveries/retry",
                self._retry_all,
                ADMINS,
                "Send all deliveries of a list again, as a job",
                body=RetryAsked,
                answers=begun,
            ),
        )

    def _of_jobs(self) -> Sequence[Row]:
        return (
            Row(
                "GET",
                "/v1/jobs",
                self._jobs,
                READERS,
                "List jobs",
                query="project",
                answers={200: Listed[Job]},
            ),
            Row(
                "GET",
                "/v1/jobs/{id}",
                self._job,
                READERS,
                "One job",
                answers={200: Job},
            ),
            Row(
                "POST",
                "/v1/jobs/{id}/cancel",
                self._cancel_job,
                ADMINS,
                "Go no further with a job",
                answers={200: Job},
            ),
        )

    async def _replay(self, who: Principal, request: Request) -> Response:
        asked = await body_of(request, ReplayAsked)
        return shown(await self._ops.replay(who, request.path_params["id"], asked))

    async def _test_endpoint(self, who: Principal, request: Request) -> Response:
        endpoint_id, seconds = request.path_params["id"], parameter_of(request, "wait") or 0.0
        return shown(await self._ops.test_endpoint(who, endpoint_id, seconds), 201)

    async def _retry_all(self, who: Principal, request: Request) -> Response:
        asked = await body_of(request, RetryAsked)
        return _begun(await self._ops.retry_all(who, asked, key_of(request)))

    async def _recover(self, who: Principal, request: Request) -> Response:
        endpoint_id, key = request.path_params["id"], key_of(request)
        await self._ops.endpoint(who, endpoint_id)  # whatever the body lacks
        asked = await body_of(request, RecoverAsked)
        return _begun(await self._ops.recover(who, endpoint_id, asked, key))

    async def _count_recovery(self, who: Principal, request: Request) -> Response:
        endpoint_id = request.path_params["id"]
        await self._ops.endpoint(who, endpoint_id)  # whatever is asked of it
        since, until, missing = (given_of(request, name) for name in ("since", "until", "missing"))
        asked = RecoverAsked(
            since=to_datetime(self._ops.now()) - LOOK_BACK if since is None else to_datetime(since),
            until=None if until is None else to_datetime(until),
            missing=bool(missing),
        )
        return _begun(await self._ops.recover(who, endpoint_id, asked, None))

    async def _jobs(self, who: Principal, request: Request) -> Response:
        return listed(await self._ops.jobs(who, query_of(request)))

    async def _job(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.job(who, request.path_params["id"]))

    async def _cancel_job(self, who: Principal, request: Request) -> Response:
        return shown(await self._ops.cancel_job(who, request.path_params["id"]))


def _begun(found: Counted | Begun) -> Response:
    if isinstance(found, Counted):
        return shown(found)
    return shown(found.job, 202 if found.new else 200)
