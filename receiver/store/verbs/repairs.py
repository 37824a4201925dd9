"""Floor 2, edges: the store's verbs of repair: what failed is seen, and sent again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Final

from receiver import ids
from receiver.deliveries import DeadLetters
from receiver.endpoints import Subscription
from receiver.errors import NotFound
from receiver.repair import Counted, Job, Repair, Replayed
from receiver.store.protocol import Alert, JobStep, NewJob, Page, Query, Replay
from receiver.store.verbs.jobs import Jobs
from receiver.store.verbs.operations import drop_alerts
from receiver.store.verbs.reads import Reads
from receiver.store.verbs.replays import Replays
from receiver.store.verbs.rows import job_of
from receiver.store.verbs.walk import first_event, joined, matching, missing_of
from receiver.store.verbs.wanting import wanting
from receiver.store.writer import Write, each

COUNTING: Final = 4.0  # seconds that counting what is missing may take; clients wait for 10
CHUNK: Final = 500  # events that are looked at between two looks at the clock
_LAST: Final = (1 << 63) - 1
# CROSS JOIN keeps the tables in this order (sqlite.org/optoverview.html, "Manual control"). Without
# it SQLite walks all events in the order of their ids, since it can't know that alerts are few: a
# second and more of a store that has lived long, every few seconds.
ALERTS: Final = (
    "SELECT e.id, e.payload FROM alerts a CROSS JOIN events e ON e.id = a.event_id"
    " ORDER BY a.event_id LIMIT ?"
)


class Repairs:
    """A part of SqlStore."""

    _write: Write
    _reads: Reads

    def _make_repairs(
        self, subscriptions: Callable[[], Sequence[Subscription]], next_id: Callable[[], int]
    ) -> None:
        self._subscribed = subscriptions
        replays, jobs = Replays(subscriptions, next_id), Jobs(subscriptions, next_id)
        self._replay, self._test = each(replays.replay), each(replays.test)
        self._add_job, self._advance_job = each(jobs.add), each(jobs.advance)
        self._drop_alerts = each(drop_alerts)
        self._cancel_job, self._fail_job = each(jobs.cancel), each(jobs.fail)

    async def dead_letters(self, query: Query) -> Page[DeadLetters]:
        """Dead deliveries by endpoint and cause."""
        return await self._reads.dead_letters(query)

    async def alerts(self, limit: int) -> Sequence[Alert]:
        """Operational events that were not told yet."""
        rows = await self._reads.rows(ALERTS, (limit,))
        return [Alert(ids.EVENT + ids.encode(row[0]), json.loads(row[1])) for row in rows]

    async def drop_alerts(self, events: Sequence[str]) -> None:
        """These were told, or given up."""
        await self._write(self._drop_alerts, events)

    async def replay(self, asked: Replay) -> Replayed:
        """Send an event again to those that want it today."""
        return await self._write(self._replay, asked)

    async def test_endpoint(self, endpoint_id: str, now: int) -> str:
        """Queue an `endpoint.test` for one endpoint."""
        number = ids.parse(ids.ENDPOINT, endpoint_id)
        return await self._write(self._test, (number, now))

    async def count_repair(self, repair: Repair) -> Counted:
        """How many deliveries a job would send again."""
        where = matching(repair, _LAST)
        ((count,),) = await self._reads.rows(
            f"SELECT count(*) FROM {joined(repair)}{where.clause}", where.values
        )
        missing, complete = await self._missing(repair) if repair.missing else (0, True)
        found = count + missing
        if repair.limit is not None and found >= repair.limit:
            return Counted(count=repair.limit, complete=True)
        return Counted(count=found, complete=complete)

    async def _missing(self, repair: Repair) -> tuple[int, bool]:
        until, found, after = time.monotonic() + COUNTING, 0, first_event(repair) - 1
        endpoint = ids.parse(ids.ENDPOINT, repair.endpoint or "")
        mine = [one for one in self._subscribed() if one.endpoint == endpoint]
        while time.monotonic() < until:
            keys = await self._reads.rows(
                "SELECT id FROM events WHERE id > ? ORDER BY id LIMIT ?", (after, CHUNK)
            )
            if not keys:
                return found, True
            sql, values = missing_of(repair, after, keys[-1][0])
            for _, project, *facts in await self._reads.rows(sql, values):
                found += bool(wanting(mine, project, facts))
            after = keys[-1][0]
        return found, False

    async def add_job(self, new: NewJob) -> tuple[Job, bool]:
        """Queue a job, unless the same one is there; whether it is new."""
        return await self._write(self._add_job, new)

    async def job(self, job_id: str) -> Job:
        """One job."""
        number = ids.parse(ids.JOB, job_id)
        rows = await self._reads.rows("SELECT * FROM jobs WHERE id = ?", (number,))
        if not rows:
            raise NotFound(f"There is no job {job_id}.")
        return job_of(rows[0])

    async def jobs(self, query: Query) -> Page[Job]:
        """A page of jobs."""
        return await self._reads.jobs(query)

    async def next_job(self, now: int) -> str | None:
        """The open job whose turn it is."""
        rows = await self._reads.rows(
            "SELECT id FROM jobs WHERE state IN ('queued', 'running') AND next_at <= ?"
            " ORDER BY next_at, id LIMIT 1",
            (now,),
        )
        return ids.JOB + ids.encode(rows[0][0]) if rows else None

    async def advance_job(self, job_id: str, now: int) -> JobStep:
        """Send a few more again."""
        return await self._write(self._advance_job, (ids.parse(ids.JOB, job_id), now))

    async def cancel_job(self, job_id: str, now: int) -> Job:
        """Go no further."""
        return await self._write(self._cancel_job, (ids.parse(ids.JOB, job_id), now))

    async def fail_job(self, job_id: str, now: int, why: str) -> Job:
        """End a job that met a defect."""
        return await self._write(self._fail_job, (ids.parse(ids.JOB, job_id), now, why))
