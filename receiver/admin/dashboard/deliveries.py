"""Floor 4, doors: the dashboard's pages of deliveries: each attempt, and sending again. Starlette.

Many are sent again in two steps that work without a script: a page counts what its own filters
find, and its button begins the job.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from starlette.responses import Response

from receiver.access import ADMINS
from receiver.admin.dashboard.pages import PageRow, Visit
from receiver.admin.ops import Begun, Ops, Query
from receiver.clock import to_datetime
from receiver.deliveries import Attempt, Failure, State
from receiver.errors import Conflict, NotFound
from receiver.platforms.reading import dumps
from receiver.repair import Counted, RetryAsked
from receiver.shown import REDACTED

SETTLED: Final = (State.DEAD, State.SUCCEEDED, State.CANCELED)  # what can be sent again
UNSENT: Final = frozenset({"host", "content-length", "accept-encoding"})  # curl writes them itself


class DeliveryPages:
    """What goes downstream, and how it went."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[PageRow]:
        """Its pages and forms; those of one list of dead letters too."""
        return (
            PageRow("GET", "/deliveries", self._deliveries, "/v1/deliveries"),
            PageRow("GET", "/deliveries/retry", self._count, "/v1/deliveries", ADMINS),
            PageRow("POST", "/deliveries/retry", self._retry_all, "/v1/deliveries"),
            PageRow("GET", "/deliveries/{id}", self._delivery, "/v1/deliveries/{id}"),
            PageRow("POST", "/deliveries/{id}/retry", self._retry),
            PageRow("POST", "/deliveries/{id}/cancel", self._cancel),
            PageRow("GET", "/dead-letters", self._dead_letters, "/v1/deliveries/dead"),
        )

    async def _deliveries(self, visit: Visit) -> Response:
        query = visit.query
        page = await self._ops.deliveries(visit.who, query)
        return visit.show(
            "deliveries.html",
            page=page,
            states=[*State],
            failures=[*Failure],
            may_retry=query.state in SETTLED,
            hosts=await self._named(visit, {one.endpoint_id for one in page.data}),
        )

    async def _delivery(self, visit: Visit) -> Response:
        delivery, event = await self._ops.sent(visit.who, visit.id())
        try:
            endpoint = await self._ops.endpoint(visit.who, delivery.endpoint_id)
        except NotFound:  # it was deleted; its deliveries stay
            endpoint = None
        payload = dumps(event.payload)
        attempts = [*reversed(delivery.attempt_log or [])]
        return visit.show(
            "delivery.html",
            delivery=delivery,
            event=event,
            endpoint=endpoint,
            attempts=attempts,
            curls=[endpoint and curl_of(endpoint.url, attempt, payload) for attempt in attempts],
            may_retry=endpoint is not None and delivery.state in SETTLED,
            may_cancel=delivery.state is State.PENDING,
        )

    async def _retry(self, visit: Visit) -> Response:
        delivery = await self._ops.retry(visit.who, visit.id())
        return visit.go(f"/deliveries/{delivery.id}", "It is in the queue again.")

    async def _cancel(self, visit: Visit) -> Response:
        delivery = await self._ops.cancel(visit.who, visit.id())
        return visit.go(f"/deliveries/{delivery.id}", "It is canceled: nothing more is sent.")

    async def _dead_letters(self, visit: Visit) -> Response:
        page = await self._ops.dead_letters(visit.who, visit.query)
        endpoints = await self._named(visit, {group.endpoint_id for group in page.data})
        return visit.show("dead.html", page=page, endpoints=endpoints)

    async def _named(self, visit: Visit, ids: set[str]) -> Mapping[str, str]:
        if not ids:
            return {}
        listed = (await self._ops.endpoints(visit.who, Query(limit=200))).data
        return {one.id: one.url for one in listed if one.id in ids}

    async def _count(self, visit: Visit) -> Response:
        asked = _asked(visit)
        counted = cast(Counted, await self._ops.retry_all(visit.who, asked, None))
        return visit.show("retry.html", asked=asked, counted=counted)

    async def _retry_all(self, visit: Visit) -> Response:
        asked = _asked(visit).model_copy(update={"dry_run": False})
        begun = cast(Begun, await self._ops.retry_all(visit.who, asked, None))
        notice = None if begun.new else "The same job was under way already."
        return visit.go(f"/jobs/{begun.job.id}", notice)


def _asked(visit: Visit) -> RetryAsked:
    query = visit.query
    state = query.state or State.DEAD
    if state not in SETTLED:
        raise Conflict(f"What is {state} is on its way: only what is settled can be sent again.")
    names = "endpoint task event_type last_error last_status project"
    given: dict[str, Any] = {name: getattr(query, name) for name in names.split()}
    for name in ("since", "until"):
        ms = getattr(query, name)
        given[name] = None if ms is None else to_datetime(ms)
    return RetryAsked(state=state, **given)


def curl_of(url: str, attempt: Attempt, payload: str) -> str:
    """An attempt as a command for a shell, without the headers whose values were struck out.

    So it has no signature: one of its own time would be refused after five minutes in any case
    (Standard Webhooks, "Verifying webhook authenticity").
    """
    headers = [
        f"-H {shlex.quote(f'{name}: {value}')}"
        for name, value in attempt.request_headers.items()
        if name.lower() not in UNSENT and value != REDACTED
    ]
    parts = [f"curl -i -X POST {shlex.quote(url)}", *headers, f"--data-raw {shlex.quote(payload)}"]
    return " \\\n  ".join(parts)
