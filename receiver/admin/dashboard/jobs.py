"""Floor 4, doors: the dashboard's pages of jobs, as they go on. Starlette only."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from receiver.admin.dashboard.pages import PageRow, Visit
from receiver.admin.ops import Ops
from receiver.repair import JobState


class JobPages:
    """Many deliveries sent again."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[PageRow]:
        """Its pages and forms."""
        return (
            PageRow("GET", "/jobs", self._jobs, "/v1/jobs"),
            PageRow("GET", "/jobs/{id}", self._job, "/v1/jobs/{id}"),
            PageRow("POST", "/jobs/{id}/cancel", self._cancel),
        )

    async def _jobs(self, visit: Visit) -> Response:
        return visit.show("jobs.html", page=await self._ops.jobs(visit.who, visit.query))

    async def _job(self, visit: Visit) -> Response:
        job = await self._ops.job(visit.who, visit.id())
        is_open = job.state in (JobState.QUEUED, JobState.RUNNING)
        return visit.show("job.html", job=job, is_open=is_open)

    async def _cancel(self, visit: Visit) -> Response:
        job = await self._ops.cancel_job(visit.who, visit.id())
        return visit.go(f"/jobs/{job.id}", "It goes no further. What it sent again goes on.")
