"""Floor 2, edges: lists that have more to them than their conditions. No SQL is run here.

SQLite knows nothing of how many rows have a value, so each list is told by which index it goes: one
whose order is the list's, so that it stops when a page is full.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from receiver.endpoints import types_like
from receiver.events import RESULT_SUCCEEDED, TASK_COMPLETED
from receiver.store.protocol import Query
from receiver.store.verbs.where import Where
from receiver.tasks import Status
from receiver.tokens import DEFAULT_PROJECT

Statement = tuple[str, Sequence[Any]]

_OF_TASK: Final = "LEFT JOIN tasks t ON t.n = e.task_n"
EVENT: Final = f"SELECT e.*, t.id AS task_id FROM events e {_OF_TASK}"
# Nearly all there is. The index of the others is used where its condition stands word for word.
COMMON: Final = (RESULT_SUCCEEDED, TASK_COMPLETED)
RARE: Final = f"e.type NOT IN {COMMON}"
# What names no task came with a static key, whose tasks are the default project's.
_OWNER: Final = f"coalesce(t.project, '{DEFAULT_PROJECT}')"
_WHOLE: Final = f"SELECT c.*, t.id AS task_id, {_OWNER} AS project"
_OF_CALLBACKS: Final = "FROM callbacks c LEFT JOIN tasks t ON t.n = c.task_n"
CALLBACK: Final = f"{_WHOLE} {_OF_CALLBACKS}"
# A body may be a megabyte: a list reads none that it does not show.
_LISTED: Final = (
    "SELECT c.id, c.jti, c.platform, c.source, c.outcome, c.reason, c.size, c.sha256,"
    " c.received_at, c.repeats, c.last_received_at, c.remote, c.body_dropped_at, t.id AS task_id"
)
# The callbacks of so few tasks are sorted in no time; where a project has more, a page of them is
# full before long.
FEW: Final = 2_000
IS_SMALL: Final = (
    "SELECT count(*) <= ?1 FROM (SELECT 1 FROM tasks INDEXED BY tasks_by_project"
    " WHERE project = ?2 LIMIT ?1 + 1) few"
)
_SEARCHED: Final = ("model", "client_ref", "platform_id", "tags", "metadata")


def rare_types(query: Query) -> Sequence[str] | None:
    """The types that a query asks for, if all of them are rare."""
    types = types_like(query.event_type) if query.event_type else None
    return None if types is None or {*types} & {*COMMON} else types


def may_be_small(query: Query) -> bool:
    """Whether it matters how many tasks a list of callbacks has to do with."""
    is_odd = query.outcome not in (None, "recorded")
    return query.project not in (None, DEFAULT_PROJECT) and not (is_odd or query.task)


def callbacks_of(query: Query, *, whole: bool, is_small: bool) -> Statement:
    """Callbacks, the newest first; `is_small`: a project's, which has few tasks."""
    where = Where()
    where.same("c.outcome", query.outcome)
    if query.outcome not in (None, "recorded"):
        # As the index of the odd ones says it: of a bound value SQLite can't tell.
        where.add("c.outcome <> 'recorded'")
    if query.orphan is not None:
        where.add("c.task_n IS NULL" if query.orphan else "c.task_n IS NOT NULL")
    where.same("t.project" if is_small else _OWNER, query.project)
    where.of_task("c.task_n", query.task)
    where.since_until("c.received_at", query)
    where.older(("c.id",), query)
    tables = _OF_CALLBACKS
    if is_small:
        # CROSS JOIN keeps the tables in this order (sqlite.org/optoverview.html, "Manual control").
        tables = (
            "FROM tasks t INDEXED BY tasks_by_project"
            " CROSS JOIN callbacks c INDEXED BY callbacks_by_task ON c.task_n = t.n"
        )
    return where.list(f"{_WHOLE if whole else _LISTED} {tables}", ("c.id",), query)


def events_of(query: Query) -> Statement:
    """Events, the newest first. What is asked of their task is so as the ledger has it today."""
    where = Where()
    if query.event_type:
        where.one_of("e.type", types_like(query.event_type))
    index = ""
    if query.task:
        pass  # which leads to a few by itself
    elif rare_types(query) is not None:
        index = " INDEXED BY events_rare"
        where.add(RARE)
    elif query.project is not None:
        index = " INDEXED BY events_by_project"
    where.same("e.project", query.project)
    where.of_task("e.task_n", query.task)
    where.same("t.platform", query.platform)
    where.same("t.model", query.model)
    where.tagged("t.tags", query)
    where.since_until("e.created_at", query)
    where.older(("e.seq",), query)
    select = f"SELECT e.*, t.id AS task_id FROM events e{index} {_OF_TASK}"
    return where.list(select, ("e.seq",), query)


def tasks_of(query: Query) -> Statement:
    """Tasks, the newest first."""
    where = Where()
    where.same("platform", query.platform)
    where.same("model", query.model)
    where.same("status", query.status)
    where.same("project", query.project)
    if query.overdue is not None:
        where.add(f"overdue = {int(query.overdue)}")  # written out, so that an index serves
    where.same("registered", query.registered)
    where.since_until("created_at", query)
    where.older(("n",), query)
    where.tagged("tags", query)
    if query.q:
        where.search(_SEARCHED, query.q)
    return where.list(f"SELECT * FROM tasks{_index_of_tasks(query)}", ("n",), query)


def _index_of_tasks(query: Query) -> str:
    if query.overdue:
        return " INDEXED BY tasks_ever_overdue"
    if query.status not in (None, Status.SUCCEEDED):  # which few have, sooner or later
        return " INDEXED BY tasks_by_status"
    if query.project is not None:
        return " INDEXED BY tasks_by_project"
    return "" if query.status is None else " INDEXED BY tasks_by_status"
