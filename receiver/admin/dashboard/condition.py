"""Floor 4, doors: the dashboard's pages of the receiver itself: health, settings. Starlette."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from receiver.admin.dashboard.pages import PageRow, Visit
from receiver.admin.ops import Ops, Query


class ConditionPages:
    """In what condition the receiver is, and how it is set up."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[PageRow]:
        """Its pages."""
        return (
            PageRow("GET", "/health", self._health, "/v1/health", of_all=True),
            PageRow("GET", "/settings", self._settings, "/v1/settings", of_all=True),
        )

    async def _health(self, visit: Visit) -> Response:
        health = await self._ops.health(visit.who)
        overview = await self._ops.overview(visit.who, Query())
        return visit.show("health.html", health=health, overview=overview)

    async def _settings(self, visit: Visit) -> Response:
        return visit.show("settings.html", setup=await self._ops.setup(visit.who))
