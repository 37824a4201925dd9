"""Floor 3, flows: the figures that Prometheus asks for, again and again. The store's protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from receiver.admin.ops.asking import Principal
from receiver.admin.ops.backups import BackupOps
from receiver.admin.ops.figures import Running
from receiver.clock import SECOND
from receiver.errors import StoreUnavailable
from receiver.figures import EndpointReport
from receiver.metrics import MEDIA_TYPE, Seen, rendered
from receiver.store.protocol import OverviewAsked, Query

FRESH: Final = 5 * SECOND  # what the store said is shown again for so many milliseconds
LISTED: Final = 100  # endpoints with metrics of their own, the newest; a series costs a scrape
AT_ONCE: Final = 10  # endpoints that are asked after before callbacks have their turn again

__all__ = ["MEDIA_TYPE", "MetricOps"]


class MetricOps(BackupOps):
    """What is measured."""

    def _begin_metrics(self, running: Running) -> None:
        self._begin_figures(running)
        self._scraping = asyncio.Lock()
        self._measured: tuple[int, Seen] | None = None

    async def metrics(self, who: Principal) -> bytes:
        """All metrics, in Prometheus's text format. Raises Forbidden to a project."""
        who.of_all("How the receiver is run")
        async with self._scraping:  # who asks at the same time waits for one answer
            seen = await self._measure()
        samples = self._running.metrics.samples(seen)
        return await asyncio.to_thread(rendered, samples)

    async def _measure(self) -> Seen:
        now = self._clock()
        if self._measured is None or not 0 <= now - self._measured[0] < FRESH:
            self._measured = now, await self._ask(now)
        return self._measured[1]

    async def _ask(self, now: int) -> Seen:
        running = self._running
        try:
            overview = await self.store.overview(OverviewAsked(now))
            condition, reports = await self.store.condition(), await self._reports(now)
        except StoreUnavailable:  # what the process counts is told all the same
            return Seen(running.version, running.is_alive())
        return Seen(running.version, running.is_alive(), overview, condition, reports)

    async def _reports(self, now: int) -> Sequence[EndpointReport]:
        page = await self.store.endpoints(Query(limit=LISTED))
        names = [endpoint.id for endpoint in page.data]
        return [
            report
            for place in range(0, len(names), AT_ONCE)
            for report in await self.store.endpoint_reports(names[place : place + AT_ONCE], now)
        ]
