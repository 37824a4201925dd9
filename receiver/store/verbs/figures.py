"""Floor 2, edges: a store's figures, each within a bound. stdlib only.

Every statement looks at so many rows of an index at most, and at what is newest first, so that a
full database answers as fast as a new one. Ids sort by time: `id >= ?` is a time in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from receiver import ids
from receiver.clock import DAY, HOUR, to_datetime
from receiver.endpoints import State as EndpointState
from receiver.events import RESULT_FAILED, RESULT_SUCCEEDED
from receiver.figures import (
    HOURS,
    Attention,
    CallbacksLately,
    CostToday,
    EndpointReport,
    EndpointsNow,
    Figure,
    Overview,
    QueueNow,
    ResultsLately,
    TasksNow,
    percentile,
    rate,
    strip,
)
from receiver.platforms.reading import dollars
from receiver.store.protocol import OverviewAsked
from receiver.store.verbs.health import ENDPOINT, health_shown
from receiver.store.verbs.reads import Reads
from receiver.store.verbs.rows import Row
from receiver.tasks import MOST_COST
from receiver.tokens import DEFAULT_PROJECT

BOUND: Final = 10_000  # rows that a figure is made of, at most

# What names no task came with a static key, whose tasks are the default project's.
_OWNER: Final = f"coalesce(t.project, '{DEFAULT_PROJECT}')"
_OWNED: Final = (
    f"SELECT c.*, {_OWNER} AS project FROM callbacks c LEFT JOIN tasks t ON t.n = c.task_n"
)
_MINE: Final = "(CAST(:project AS TEXT) IS NULL OR project = :project)"
_COUNT: Final = (
    f"SELECT count(*) AS seen, count(*) FILTER (WHERE {_MINE}) AS count"
    " FROM ({rows} LIMIT :most) bounded"
)

_LAST: Final = (
    "SELECT max(last_received_at) AS at FROM ("
    f"SELECT * FROM ({_OWNED} ORDER BY c.id DESC LIMIT :few) bounded"
    f" UNION ALL SELECT * FROM ({_OWNED} WHERE c.repeats > 0"
    f" ORDER BY c.last_received_at DESC LIMIT :few) bounded) bounded WHERE {_MINE}"
)
_OPEN: Final = _COUNT.format(
    rows="SELECT project FROM tasks INDEXED BY tasks_give_up WHERE completed_at IS NULL"
)
_OVERDUE: Final = _COUNT.format(
    rows="SELECT project FROM tasks INDEXED BY tasks_overdue"
    " WHERE overdue = 1 AND completed_at IS NULL"
)
_RESULTS: Final = (
    f"SELECT count(*) AS seen, min(created_at) AS since,"
    f" count(*) FILTER (WHERE type = '{RESULT_SUCCEEDED}' AND {_MINE}) AS succeeded,"
    f" count(*) FILTER (WHERE type = '{RESULT_FAILED}' AND {_MINE}) AS failed"
    " FROM (SELECT type, created_at, project FROM events WHERE id >= :hour"
    " ORDER BY id DESC LIMIT :most) bounded"
)
_CALLBACKS: Final = (
    "SELECT outcome, count(*) AS seen, min(received_at) AS since,"
    f" count(*) FILTER (WHERE {_MINE}) AS count"
    f" FROM ({_OWNED} WHERE c.id >= :hour ORDER BY c.id DESC LIMIT :most) bounded GROUP BY outcome"
)
_REPEATED: Final = _COUNT.format(
    rows=f"{_OWNED} WHERE c.repeats > 0 AND c.last_received_at >= :since"
)
_ODD: Final = _COUNT.format(
    rows=f"SELECT {_OWNER} AS project FROM callbacks c INDEXED BY callbacks_odd"
    " LEFT JOIN tasks t ON t.n = c.task_n WHERE c.outcome = '{outcome}' AND c.outcome <> 'recorded'"
)
_ENDPOINT_OF: Final = "(CAST(:project AS TEXT) IS NULL OR e.project = :project)"
# CROSS JOIN keeps the tables in this order (sqlite.org/optoverview.html, "Manual control").
_WAITING: Final = (
    "SELECT count(*) AS count, count(*) FILTER (WHERE state <> 'enabled') AS held FROM ("
    "SELECT e.state FROM endpoints e CROSS JOIN deliveries d INDEXED BY deliveries_due"
    " ON d.endpoint_id = e.id AND d.state = 'pending'"
    f" WHERE e.deleted_at IS NULL AND {_ENDPOINT_OF} LIMIT :most) bounded"
)
_DEAD: Final = (
    "SELECT count(*) AS count FROM (SELECT 1 FROM endpoints e"
    " CROSS JOIN deliveries d INDEXED BY deliveries_dead_by_cause"
    " ON d.endpoint_id = e.id AND d.state = 'dead'"
    f" WHERE e.deleted_at IS {{gone}} AND {_ENDPOINT_OF} LIMIT :most) bounded"
)
_OLDEST_DUE: Final = (
    "SELECT min(due) AS at FROM (SELECT (SELECT min(next_attempt_at) FROM deliveries"
    " WHERE state = 'pending' AND endpoint_id = e.id) AS due FROM endpoints e"
    f" WHERE e.state = 'enabled' AND e.deleted_at IS NULL AND {_ENDPOINT_OF}) bounded"
    " WHERE due <= :now"
)
_ENDPOINTS: Final = (
    "SELECT e.state, count(*) AS count, count(*) FILTER (WHERE h.breaker <> 'closed') AS failing"
    " FROM endpoints e LEFT JOIN endpoint_health h ON h.endpoint_id = e.id"
    f" WHERE e.deleted_at IS NULL AND {_ENDPOINT_OF} GROUP BY e.state"
)
# Each result came with a callback of the same day, and that names its task.
_TODAY: Final = "FROM callbacks WHERE id >= :midnight ORDER BY id DESC LIMIT :most"
_COST: Final = (
    f"SELECT sum(min(r.cost, {MOST_COST})) AS cost,"
    f" (SELECT count(*) FROM (SELECT 1 {_TODAY}) bounded) AS seen"
    f" FROM (SELECT DISTINCT task_n FROM (SELECT task_n {_TODAY}) bounded) c"
    " CROSS JOIN tasks t ON t.n = c.task_n CROSS JOIN results r ON r.task_n = t.n"
    " WHERE (CAST(:project AS TEXT) IS NULL OR t.project = :project)"
    " AND r.received_at >= :midnight_ms AND r.superseded = 0"
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked, as the values of the statements' marks."""

    now: int
    project: str | None

    def values(self) -> dict[str, Any]:
        midnight = self.now // DAY * DAY
        # One row more than the bound says whether there are more.
        return {
            "now": self.now,
            "project": self.project,
            "few": 1 if self.project is None else BOUND,
            "most": BOUND + 1,
            "since": self.now - HOUR,
            "hour": _id_at(self.now - HOUR),
            "midnight": _id_at(midnight),
            "midnight_ms": midnight,
        }


class Figures:
    """A part of SqlStore."""

    _reads: Reads

    async def overview(self, asked: OverviewAsked) -> Overview:
        """How it all fares."""
        of = _Asked(asked.now, asked.project)
        waiting = await self._row(_WAITING, of)
        return Overview(
            at=to_datetime(asked.now),
            project=asked.project,
            last_callback_at=_moment((await self._row(_LAST, of))["at"]),
            tasks=TasksNow(
                open=await self._count(_OPEN, of), overdue=await self._count(_OVERDUE, of)
            ),
            results=_results(await self._row(_RESULTS, of), of),
            callbacks=await self._callbacks_lately(of),
            queue=QueueNow(
                waiting=_figure(waiting["count"]),
                held=min(waiting["held"], BOUND),
                oldest_due_at=_moment((await self._row(_OLDEST_DUE, of))["at"]),
            ),
            attention=await self._attention(of),
            endpoints=_endpoints(await self._reads.rows(_ENDPOINTS, of.values())),
            cost_today=_cost(await self._row(_COST, of)),
        )

    async def _row(self, sql: str, of: _Asked) -> Row:
        (row,) = await self._reads.rows(sql, of.values())
        return row

    async def _count(self, sql: str, of: _Asked) -> Figure:
        row = await self._row(sql, of)
        return Figure(count=min(row["count"], BOUND), complete=row["seen"] <= BOUND)

    async def _callbacks_lately(self, of: _Asked) -> CallbacksLately:
        rows = await self._reads.rows(_CALLBACKS, of.values())
        seen, since = (
            sum(row["seen"] for row in rows),
            min((row["since"] for row in rows), default=0),
        )
        return CallbacksLately(
            since=_since(of, seen, since),
            outcomes={row["outcome"]: row["count"] for row in rows if row["count"]},
            repeated=await self._count(_REPEATED, of),
        )

    async def _attention(self, of: _Asked) -> Attention:
        dead = await self._row(_DEAD.format(gone="NULL"), of)
        gone = await self._row(_DEAD.format(gone="NOT NULL"), of)
        return Attention(
            quarantined=await self._count(_ODD.replace("{outcome}", "quarantined"), of),
            conflict=await self._count(_ODD.replace("{outcome}", "conflict"), of),
            dead=_figure(dead["count"]),
            dead_of_deleted=_figure(gone["count"]),
        )

    async def endpoint_reports(
        self, endpoints: Sequence[str], now: int
    ) -> Sequence[EndpointReport]:
        """How some endpoints fared lately, in the order asked; those that are gone are left out."""
        numbers = [ids.parse(ids.ENDPOINT, endpoint) for endpoint in endpoints]
        if not numbers:
            return []
        marks = ", ".join("?" * len(numbers))
        rows = await self._reads.rows(
            _REPORT.format(endpoints=f"{ENDPOINT} WHERE e.id IN ({marks})"),
            (BOUND + 1, BOUND + 1, *numbers),
        )
        hours = await self._reads.rows(
            f"SELECT * FROM endpoint_hours WHERE endpoint_id IN ({marks}) AND hour > ?",
            (*numbers, now // HOUR - HOURS),
        )
        found = {row["id"]: row for row in rows}
        fared: dict[int, list[Row]] = {}
        for row in hours:
            fared.setdefault(row["endpoint_id"], []).append(row)
        return [
            _report(found[number], fared.get(number, ()), now)
            for number in numbers
            if number in found
        ]


_REPORT: Final = (
    "SELECT x.*, (SELECT count(*) FROM (SELECT 1 FROM deliveries INDEXED BY deliveries_due"
    " WHERE state = 'pending' AND endpoint_id = x.id LIMIT ?) bounded) AS waiting,"
    " (SELECT count(*) FROM (SELECT 1 FROM deliveries INDEXED BY deliveries_dead_by_cause"
    " WHERE state = 'dead' AND endpoint_id = x.id LIMIT ?) bounded) AS dead,"
    " (SELECT min(next_attempt_at) FROM deliveries INDEXED BY deliveries_due"
    " WHERE state = 'pending' AND endpoint_id = x.id) AS due FROM ({endpoints}) x"
)


def _id_at(ms: int) -> int:
    return max(ms, 0) << ids.ENTROPY_BITS


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else to_datetime(ms)


def _figure(count: int) -> Figure:
    return Figure(count=min(count, BOUND), complete=count <= BOUND)


def _since(of: _Asked, seen: int, oldest: int) -> datetime:
    return to_datetime(oldest if seen > BOUND else of.now - HOUR)


def _results(row: Row, of: _Asked) -> ResultsLately:
    succeeded, failed = row["succeeded"], row["failed"]
    return ResultsLately(
        since=_since(of, row["seen"], row["since"]),
        succeeded=succeeded,
        failed=failed,
        success_rate=rate(succeeded, failed),
    )


def _endpoints(rows: Sequence[Row]) -> EndpointsNow:
    counts = {row["state"]: row["count"] for row in rows}
    failing = sum(row["failing"] for row in rows if row["state"] == EndpointState.ENABLED)
    return EndpointsNow(
        **{state.value: counts.get(state, 0) for state in EndpointState}, failing=failing
    )


def _cost(row: Row) -> CostToday:
    return CostToday(cost=dollars(row["cost"]), complete=row["seen"] <= BOUND)


def _report(row: Row, hours: Sequence[Row], now: int) -> EndpointReport:
    by_hour: dict[int, list[int]] = {}
    widths: dict[int, int] = {}
    for found in hours:
        by_hour.setdefault(found["hour"], [0, 0])[found["ok"]] += found["attempts"]
        width = found["within_ms"]
        widths[width] = widths.get(width, 0) + found["attempts"]
    failed, succeeded = (sum(counts[ok] for counts in by_hour.values()) for ok in (0, 1))
    due = row["due"] if row["state"] == EndpointState.ENABLED else None
    return EndpointReport(
        id=ids.ENDPOINT + ids.encode(row["id"]),
        state=row["state"],
        health=health_shown(row),
        hours=strip(now, by_hour),
        attempts=failed + succeeded,
        success_rate=rate(succeeded, failed),
        p95_ms=percentile(widths),
        waiting=_figure(row["waiting"]),
        dead=_figure(row["dead"]),
        oldest_due_at=_moment(due) if due is not None and due <= now else None,
    )
