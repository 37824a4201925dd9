"""Floor 4, doors: the route that Prometheus scrapes. Starlette only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from receiver.access import READERS
from receiver.admin.ops import Ops, Principal
from receiver.admin.ops.metrics import MEDIA_TYPE
from receiver.admin.routes.rows import Row

TEXT: Final = "text/plain"


class MetricRoutes:
    """What is measured."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[Row]:
        """Every route."""
        return (
            Row(
                "GET",
                "/metrics",
                self._metrics,
                READERS,
                "What is measured, for Prometheus",
                answers={200: TEXT},
            ),
        )

    async def _metrics(self, who: Principal, _request: Request) -> Response:
        body = await self._ops.metrics(who)
        return Response(body, headers={"content-type": MEDIA_TYPE, "cache-control": "no-store"})
