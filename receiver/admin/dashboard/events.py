"""Floor 4, doors: the dashboard's pages of events, and sending one again. Starlette only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.responses import Response

from receiver.admin.dashboard.pages import PageRow, Visit
from receiver.admin.ops import Ops, Query
from receiver.events import ENDPOINT_TEST, TYPES
from receiver.repair import ReplayAsked

UNWANTED: Final = (
    "No endpoint wants it today, so it was sent to none: add one, or change the event types of one."
)
LISTED: Final = 50  # deliveries that an event's page shows; the rest has its own list


class EventPages:
    """What downstream was told."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[PageRow]:
        """Its pages and forms."""
        return (
            PageRow("GET", "/events", self._events, "/v1/events"),
            PageRow("GET", "/events/{id}", self._event, "/v1/events/{id}"),
            PageRow("POST", "/events/{id}/replay", self._replay),
        )

    async def _events(self, visit: Visit) -> Response:
        page = await self._ops.events(visit.who, visit.query)
        return visit.show("events.html", page=page, types=TYPES)

    async def _event(self, visit: Visit) -> Response:
        event = await self._ops.event(visit.who, visit.id())
        deliveries = await self._ops.deliveries(visit.who, Query(event=event.id, limit=LISTED))
        endpoints = await self._ops.endpoints(visit.who, Query(project=event.project, limit=100))
        return visit.show(
            "event.html",
            event=event,
            deliveries=deliveries,
            endpoints=endpoints.data,
            may_replay=event.type != ENDPOINT_TEST,  # which is for one endpoint, once
        )

    async def _replay(self, visit: Visit) -> Response:
        asked = ReplayAsked(endpoint=visit.form.get("endpoint") or None)
        found = await self._ops.replay(visit.who, visit.id(), asked)
        parts = [
            f"{count} {word}"
            for count, word in (
                (found.created, "made anew"),
                (found.retried, "sent again"),
                (found.waiting, "on their way already"),
            )
            if count
        ]
        told = f"Deliveries: {', '.join(parts)}." if parts else UNWANTED
        return visit.go(f"/events/{found.event_id}", told)
