"""Floor 2, edges: what tasks cost, summed up. stdlib only; no SQL is run here.

The results of each task are summed first, task after task: both tables are stored in that order, so
nothing is sorted but the groups, and a task counts once in its group. Where a task is in one group
alone, the total is the sum of the groups; by day it is not, and a page of tasks never sees all.

There is no index behind it. One over (received_at, cost, kind, superseded) took 300 MB with four
million results, and a place in every write of ingest; it made a quarter of them quicker to sum up
by day (0.7 s for 1.6 s), and all of them slower (4.1 s for 3.6 s by model).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from receiver import ids
from receiver.clock import DAY, to_datetime
from receiver.costs import By, Cost, CostSum, Grouping
from receiver.platforms.reading import dollars
from receiver.store.protocol import Query
from receiver.store.verbs.rows import Row
from receiver.store.verbs.where import Where, tag_path
from receiver.tasks import MOST_COST

Statement = tuple[str, Sequence[Any]]

# An amount is bounded as a task's is: SQLite refuses a sum beyond 64 bits.
# CROSS JOIN keeps the tables in this order (sqlite.org/optoverview.html, "Manual control").
_PER_TASK: Final = (
    f"SELECT {{value}} AS value, t.n AS n, min(sum(min(r.cost, {MOST_COST})), {MOST_COST}) AS cost,"
    " count(*) AS results,"
    " count(r.cost) AS priced, count(*) FILTER (WHERE r.kind = 'failed') AS failed"
    " FROM tasks t CROSS JOIN results r ON r.task_n = t.n"
)
_SUMS: Final = (
    "sum(cost) AS cost, sum(results) AS results, sum(priced) AS priced, sum(failed) AS failed,"
    " count(*) AS tasks"
)
_TOTALS: Final = ", ".join(
    f"sum({name}) OVER () AS all_{name}"
    for name in ("cost", "results", "priced", "failed", "tasks")
)
_VALUES: Final = {
    By.TASK: "t.id",
    By.MODEL: "t.model",
    By.DAY: f"r.received_at / {DAY}",
    By.TAG: "json_extract(t.tags, ?)",
    By.PROJECT: "t.project",
    By.PLATFORM: "t.platform",
}


def page_of(grouping: Grouping, query: Query) -> Statement:
    """One page of groups: the newest tasks or days first, else those that cost most."""
    where = _where(grouping, query)
    if grouping.by is By.TASK:
        where.older(("t.n",), query)
        select, values = f"{_PER_TASK.format(value='t.id')}{where.clause}", where.values
        sql = f"SELECT *, 1 AS tasks FROM ({select} GROUP BY t.n ORDER BY t.n DESC LIMIT ?) g"
        return sql, [*values, query.limit + 1]
    inner, outer = _per_task(grouping, where), Where(*where.values)
    if grouping.by is By.DAY:
        outer.older(("value",), query)
        return outer.list(f"SELECT * FROM ({_groups(inner)}) g", ("value",), query)
    outer.older(("paid", "first"), query)
    paid = f"SELECT *, coalesce(cost, 0) AS paid, {_TOTALS} FROM ({_groups(inner)}) g"
    return outer.list(f"SELECT * FROM ({paid}) p", ("paid", "first"), query)


def total_of(query: Query) -> Statement:
    """The sum of everything that the query lets through."""
    grouping = Grouping(By.TASK)
    where = _where(grouping, query)
    return f"SELECT {_SUMS} FROM ({_per_task(grouping, where)}) each_task", where.values


def _where(grouping: Grouping, query: Query) -> Where:
    where = Where(*[tag_path(grouping.tag)] * (grouping.by is By.TAG))
    where.add("r.superseded = 0")
    for name in ("platform", "model", "status", "project"):
        where.same(f"t.{name}", getattr(query, name))
    where.tagged("t.tags", query)
    where.since_until("r.received_at", query)
    return where


def _per_task(grouping: Grouping, where: Where) -> str:
    also = ", value" if grouping.by is By.DAY else ""
    select = _PER_TASK.format(value=_VALUES[grouping.by])
    return f"{select}{where.clause} GROUP BY t.n{also}"


def _groups(inner: str) -> str:
    return f"SELECT value, min(n) AS first, {_SUMS} FROM ({inner}) each_task GROUP BY value"


def order_of(grouping: Grouping) -> Sequence[str]:
    """The columns of a row that are its place in the list."""
    return {By.TASK: ("n",), By.DAY: ("value",)}.get(grouping.by, ("paid", "first"))


def has_total(grouping: Grouping) -> bool:
    """Whether each row of a page carries the total too."""
    return grouping.by not in (By.TASK, By.DAY)


def sum_of(row: Row, prefix: str = "") -> CostSum:
    """A sum; with the prefix `all_` the total that a row carries."""
    found = {name: row[f"{prefix}{name}"] or 0 for name in ("results", "failed", "tasks")}
    without = found["results"] - (row[f"{prefix}priced"] or 0)
    return CostSum(cost=dollars(row[f"{prefix}cost"]), without_cost=without, **found)


def cost_of(row: Row, grouping: Grouping) -> Cost:
    """A group with its sum."""
    return Cost(value=_value(row["value"], grouping.by), **sum_of(row).model_dump())


def _value(stored: Any, by: By) -> str | None:
    if by is By.TASK:
        return ids.task_text(stored)
    return to_datetime(stored * DAY).date().isoformat() if by is By.DAY else stored
