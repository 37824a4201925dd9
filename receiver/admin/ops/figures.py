"""Floor 3, flows: how it all fares: the use cases of figures and conditions. The store's protocol.

Figures are kept for a second: whoever looks at them in the meantime costs nothing, and those who
ask at the same time wait for one answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from receiver.admin.ops.asking import Desk, Principal
from receiver.clock import MINUTE, SECOND, to_datetime
from receiver.condition import Check, Grade, Health, Setting, Setup, StoreCondition, worst
from receiver.errors import Forbidden
from receiver.figures import Answers, EndpointReport, Overview
from receiver.metrics import Metrics
from receiver.store.protocol import OverviewAsked, Query

FRESH: Final = SECOND  # for so many milliseconds figures are shown again
TIGHT: Final = 1 << 30  # bytes of free disk below which somebody should know
LAGS: Final = MINUTE  # what is due for longer is not being sent


@dataclass(frozen=True, slots=True)
class Running:
    """What the process tells of itself. `started_at` in milliseconds."""

    version: str = ""
    started_at: int = 0
    settings: Sequence[Setting] = ()
    backups: Path = Path("backups")  # where they go
    # Whether the worker's loop turns; None: there is none in this process.
    is_alive: Callable[[], bool | None] = lambda: True
    metrics: Metrics = field(default_factory=Metrics)


class FigureOps(Desk):
    """What an operator looks at first."""

    public_url: str
    _running: Running

    def _begin_figures(self, running: Running) -> None:
        self._running = running
        self._known: dict[str | None, Overview] = {}
        self._one_by_one = asyncio.Lock()

    async def overview(self, who: Principal, query: Query) -> Overview:
        """How all fares in what the principal may see, or in the query's project."""
        project = who.within(query).project
        async with self._one_by_one:
            found = await self._overview(project)
        if who.project is not None:
            return found
        since = to_datetime(self._running.started_at)
        answers = Answers(since=since, outcomes=dict(self._running.metrics.answers))
        return found.model_copy(update={"answers": answers})

    async def _overview(self, project: str | None) -> Overview:
        now = self._clock()
        oldest = to_datetime(now - FRESH)
        # Of every project that is asked for once, nothing stays.
        self._known = {key: one for key, one in self._known.items() if one.at > oldest}
        if project not in self._known:
            self._known[project] = await self.store.overview(OverviewAsked(now, project))
        return self._known[project]

    async def endpoint_report(self, who: Principal, endpoint_id: str) -> EndpointReport:
        """How one endpoint fared lately. Raises NotFound."""
        who.see((await self.store.endpoint(endpoint_id)).project)
        reports = await self.store.endpoint_reports([endpoint_id], self._clock())
        if not reports:  # deleted in between
            await self.store.endpoint(endpoint_id)
        return reports[0]

    async def endpoint_reports(
        self, who: Principal, endpoints: Sequence[str]
    ) -> Mapping[str, EndpointReport]:
        """How these endpoints fared, of a page that the principal has seen."""
        reports = await self.store.endpoint_reports(endpoints, self._clock())
        return {report.id: report for report in reports}

    async def health(self, who: Principal) -> Health:
        """In what condition the receiver is. Raises Forbidden to a project."""
        _check_whole(who)
        store, overview = await self.store.condition(), await self.overview(who, Query())
        checks = [*self._checks(store, overview)]
        return Health(
            grade=worst(checks),
            version=self._running.version,
            instance=self.store.instance,
            started_at=to_datetime(self._running.started_at),
            public_url=self.public_url,
            checks=checks,
            store=store,
        )

    def _checks(self, store: StoreCondition, overview: Overview) -> Iterator[Check]:
        yield _store_check(store)
        yield _disk_check(store)
        yield self._worker_check(store)
        yield self._queue_check(overview)
        yield _endpoints_check(overview)

    def _worker_check(self, store: StoreCondition) -> Check:
        is_alive = self._running.is_alive()
        if is_alive is None:
            return _workers_check(store)
        if is_alive:
            return Check(name="worker", grade=Grade.OK, detail="Deliveries go out.")
        detail = "The worker stands still: the log says why. A restart begins it anew."
        return Check(name="worker", grade=Grade.FAILING, detail=detail)

    def _queue_check(self, overview: Overview) -> Check:
        due = overview.queue.oldest_due_at
        late = 0 if due is None else (overview.at - due).total_seconds()
        if late * SECOND <= LAGS:
            return Check(
                name="queue", grade=Grade.OK, detail="Nothing waits longer than it has to."
            )
        detail = (
            f"A delivery has been due for {late:.0f} s: its endpoint is slow, failing or limited."
        )
        return Check(name="queue", grade=Grade.WARNING, detail=detail)

    async def setup(self, who: Principal) -> Setup:
        """Every setting that is in force, secrets as set or not. Raises Forbidden to a project."""
        _check_whole(who)
        return Setup(settings=list(self._running.settings))


def _check_whole(who: Principal) -> None:
    if who.project is not None:
        raise Forbidden(f"How the receiver is run is not up to the project {who.project!r}.")


def _store_check(store: StoreCondition) -> Check:
    if store.refusal is not None:
        return Check(name="store", grade=Grade.FAILING, detail=store.refusal)
    return Check(name="store", grade=Grade.OK, detail="Callbacks are taken in.")


def _workers_check(store: StoreCondition) -> Check:
    count = sum(one.role.works for one in store.processes or ())
    if count:
        return Check(name="worker", grade=Grade.OK, detail=f"{count} processes deliver.")
    detail = "No process delivers: start `reelhook worker`."
    return Check(name="worker", grade=Grade.FAILING, detail=detail)


def _disk_check(store: StoreCondition) -> Check:
    if store.free is None:
        detail = "The database server sees to its disk: watch it there."
        return Check(name="disk", grade=Grade.OK, detail=detail)
    left = f"{store.free >> 20:,} MiB are left on the disk of the database."
    grade = Grade.OK if store.free >= TIGHT else Grade.WARNING
    return Check(name="disk", grade=grade, detail=left)


def _endpoints_check(overview: Overview) -> Check:
    now = overview.endpoints
    if not now.failing and not now.disabled:
        return Check(name="endpoints", grade=Grade.OK, detail="No endpoint fails.")
    detail = f"Endpoints that fail at present: {now.failing}; disabled: {now.disabled}."
    return Check(name="endpoints", grade=Grade.WARNING, detail=detail)
