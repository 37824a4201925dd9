"""Floor 4, doors: the dashboard's first page. Starlette only."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from receiver.admin.dashboard.pages import PageRow, Visit
from receiver.admin.ops import Ops, Query


class OverviewPages:
    """What an operator looks at first."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[PageRow]:
        """Its pages."""
        return (PageRow("GET", "/", self._overview),)

    async def _overview(self, visit: Visit) -> Response:
        callbacks = await self._ops.callbacks(visit.who, Query(limit=1))
        tasks = await self._ops.tasks(visit.who, Query(limit=10))
        last = callbacks.data[0].last_received_at if callbacks.data else None
        return visit.show("overview.html", last_callback=last, tasks=tasks.data)
