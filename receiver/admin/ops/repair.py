"""Floor 3, flows: the use cases of sending again, and of trying an endpoint out. The protocol."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from receiver.access import Action
from receiver.admin.ops.asking import Principal, moment
from receiver.admin.ops.deliveries import DeliveryOps
from receiver.admin.ops.endpoints import EndpointOps
from receiver.admin.ops.watch import MAX_WAIT, Watch
from receiver.clock import to_datetime
from receiver.deliveries import Delivery, State
from receiver.repair import (
    Counted,
    Job,
    JobKind,
    RecoverAsked,
    Repair,
    ReplayAsked,
    Replayed,
    RetryAsked,
)
from receiver.store.protocol import NewJob, Page, Query, Replay, Store

LOOK: Final = 0.05  # seconds between two looks, however much is delivered meanwhile


@dataclass(frozen=True, slots=True)
class Begun:
    """A job that somebody asked for; not `new`: it was there already."""

    job: Job
    new: bool


class RepairOps(EndpointOps, DeliveryOps):
    """What an operator does when something did not arrive."""

    watch: Watch

    async def replay(self, who: Principal, event_id: str, asked: ReplayAsked) -> Replayed:
        """Send an event again to those that want it today. Raises Conflict when the named doesn't.

        An existing delivery gets a new round of attempts, a missing one is made.
        """
        event = await self.event(who, event_id)
        if asked.endpoint is not None:
            await self.endpoint(who, asked.endpoint)
        store = self._by(who, Action.EVENT_REPLAY, event_id, event.project, endpoint=asked.endpoint)
        return await store.replay(Replay(event_id, self._clock(), asked.endpoint))

    async def test_endpoint(self, who: Principal, endpoint_id: str, seconds: float) -> Delivery:
        """Send an endpoint its own `endpoint.test`; after its attempt, or after so many seconds."""
        endpoint = await self.endpoint(who, endpoint_id)
        store = self._by(
            who,
            Action.ENDPOINT_TEST,
            endpoint.id,
            endpoint.project,
            of=lambda made: {"delivery": made},
        )
        delivery_id = await store.test_endpoint(endpoint_id, self._clock())
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, MAX_WAIT)):
                await self._attempted(delivery_id)
        return await self.delivery(who, delivery_id)

    async def _attempted(self, delivery_id: str) -> None:
        with self.watch.listening() as moved:
            while not self.watch.is_over:
                if (await self.store.delivery(delivery_id)).attempt_log:
                    return
                await moved.wait()
                moved.clear()
                await asyncio.sleep(LOOK)

    async def retry_all(
        self, who: Principal, asked: RetryAsked, key: str | None
    ) -> Counted | Begun:
        """Send all deliveries of a list again, as a job; or count them."""
        if asked.endpoint is not None:
            await self.endpoint(who, asked.endpoint)
        repair = Repair(
            kind=JobKind.RETRY,
            states=[asked.state],
            project=who.within(Query(project=asked.project)).project,
            endpoint=asked.endpoint,
            task=asked.task,
            event_type=asked.event_type,
            last_error=asked.last_error,
            last_status=asked.last_status,
            since=_time(asked.since, "since"),
            until=_time(asked.until, "until"),
            limit=asked.limit,
        )
        return await self._begin(who, repair, key, dry_run=asked.dry_run)

    async def recover(
        self, who: Principal, endpoint_id: str, asked: RecoverAsked, key: str | None
    ) -> Counted | Begun:
        """Send an endpoint what it did not get of a time's events, as a job; or count it."""
        repair = Repair(
            kind=JobKind.RECOVER,
            states=[State.DEAD, State.CANCELED],
            project=(await self.endpoint(who, endpoint_id)).project,
            endpoint=endpoint_id,
            since=_time(asked.since, "since"),
            until=_time(asked.until, "until"),
            missing=asked.missing,
            limit=asked.limit,
        )
        return await self._begin(who, repair, key, dry_run=asked.dry_run)

    async def _begin(
        self, who: Principal, repair: Repair, key: str | None, *, dry_run: bool
    ) -> Counted | Begun:
        counted = await self.store.count_repair(repair)
        if dry_run:
            return counted
        total = counted.count if counted.complete else None
        store = self._noting_job(who, repair)
        return Begun(*await store.add_job(NewJob(repair, self._clock(), total, key)))

    def _noting_job(self, who: Principal, repair: Repair) -> Store:
        by_endpoint = repair.kind is JobKind.RECOVER
        asked = repair.model_dump(mode="json", exclude_none=True, exclude={"kind", "project"})
        named = "job" if by_endpoint else "target"
        return self._by(
            who,
            Action.ENDPOINT_RECOVER if by_endpoint else Action.DELIVERIES_RETRY,
            repair.endpoint if by_endpoint else None,
            repair.project,
            of=lambda made: {named: made[0].id} if made[1] else None,
            asked=asked,
        )

    async def jobs(self, who: Principal, query: Query) -> Page[Job]:
        """A page of jobs."""
        return await self.store.jobs(who.within(query))

    async def job(self, who: Principal, job_id: str) -> Job:
        """One job."""
        job = await self.store.job(job_id)
        who.see(job.project)
        return job

    async def cancel_job(self, who: Principal, job_id: str) -> Job:
        """Go no further; what was sent again goes on."""
        job = await self.job(who, job_id)
        store = self._by(who, Action.JOB_CANCEL, job.id, job.project)
        return await store.cancel_job(job_id, self._clock())


def _time(given: datetime | None, name: str) -> datetime | None:
    found = moment(given, name)
    return None if found is None else to_datetime(found)
