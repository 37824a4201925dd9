"""Floor 2, edges: everything that is read. stdlib only; an engine's readers run the SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from receiver import ids
from receiver.callbacks import Callback, Kept
from receiver.costs import By, CostSum, Grouping
from receiver.deliveries import DeadLetters, Delivery, State
from receiver.endpoints import Endpoint
from receiver.errors import NotFound
from receiver.events import Event
from receiver.repair import Job
from receiver.results import Result
from receiver.store.connection import Row, Values
from receiver.store.protocol import CostPage, Page, Query
from receiver.store.seal import Seal
from receiver.store.verbs import costs, dead, lists, sent
from receiver.store.verbs.health import ENDPOINT
from receiver.store.verbs.rows import (
    attempt_of,
    callback_of,
    delivery_of,
    endpoint_of,
    event_of,
    job_of,
    kept_of,
    result_of,
    task_key,
    task_of,
)
from receiver.store.verbs.where import Where
from receiver.tasks import Task

T = TypeVar("T")

# One look-up in an index for each endpoint; a plain min() over all would read the whole queue.
# What is due while its endpoint is left alone (an open breaker, a Retry-After) is due after that.
_NEXT_DUE: Final = (
    "SELECT min(max(due, held)) FROM (SELECT coalesce(h.held_until, 0) AS held,"
    " (SELECT min(next_attempt_at) FROM deliveries WHERE state = 'pending'"
    " AND endpoint_id = e.id) AS due FROM endpoints e"
    " LEFT JOIN endpoint_health h ON h.endpoint_id = e.id"
    " WHERE e.state = 'enabled' AND e.deleted_at IS NULL) r"
)


class Readers(Protocol):
    """Connections that can't write."""

    async def open(self) -> None:
        """Open them; the database must exist."""
        ...

    async def close(self) -> None:
        """Close them. Raises StoreBroken when that can't be."""
        ...

    async def rows(self, sql: str, values: Values = ()) -> Sequence[Row]:
        """What a statement finds. Raises StoreUnavailable."""
        ...


class Reads:
    """What is asked of a store, as its readers find it."""

    def __init__(self, readers: Readers, seal: Seal) -> None:
        self._readers = readers
        self._seal = seal

    async def rows(self, sql: str, values: Values = ()) -> Sequence[Row]:
        """What a statement of another module of this room finds."""
        return await self._readers.rows(sql, values)

    async def jobs(self, query: Query) -> Page[Job]:
        """Jobs, the newest first."""
        where = Where()
        where.same("project", query.project)
        where.older(("id",), query)
        rows = await self.rows(*where.list("SELECT * FROM jobs", ("id",), query))
        return page_of(rows, query, job_of, "id")

    async def _one_row(self, what: str, sql: str, values: Values) -> Row:
        rows = await self.rows(sql, values)
        if not rows:
            raise NotFound(f"There is no {what}.")
        return rows[0]

    async def task(self, task_id: str) -> Task:
        """One task with its request."""
        row = await self._one_row(
            f"task {task_id[:60]}", "SELECT * FROM tasks WHERE id = ?", [task_key(task_id)]
        )
        return task_of(row, whole=True)

    async def results(self, task_id: str) -> Sequence[Result]:
        """A task's results in the order of arrival."""
        rows = await self.rows(
            "SELECT r.*, t.id AS task_id FROM results r JOIN tasks t ON t.n = r.task_n"
            " WHERE t.id = ? ORDER BY r.idx",
            [task_key(task_id)],
        )
        if not rows:
            await self.task(task_id)  # there is one, without results
        return [result_of(row) for row in rows]

    async def tasks(self, query: Query) -> Page[Task]:
        """Tasks, the newest first."""
        rows = await self.rows(*lists.tasks_of(query))
        return page_of(rows, query, lambda row: task_of(row, whole=False), "n")

    async def costs(self, query: Query) -> CostPage:
        """What tasks cost, group by group."""
        by = query.by or Grouping(By.MODEL)
        rows = await self.rows(*costs.page_of(by, query))
        page = page_of(rows, query, lambda row: costs.cost_of(row, by), *costs.order_of(by))
        total = None if query.before else await self._total(by, query, rows)
        return CostPage(page.data, page.next_cursor, total)

    async def _total(self, by: Grouping, query: Query, rows: Sequence[Row]) -> CostSum:
        if rows and costs.has_total(by):
            return costs.sum_of(rows[0], "all_")
        (row,) = await self.rows(*costs.total_of(query))
        return costs.sum_of(row)

    async def callback(self, callback_id: str) -> Callback:
        """One callback with its body."""
        return callback_of(await self._callback(callback_id), whole=True)

    async def kept_callback(self, callback_id: str) -> Kept:
        """One callback with its exact bytes."""
        return kept_of(await self._callback(callback_id))

    async def _callback(self, callback_id: str) -> Row:
        number = ids.parse(ids.CALLBACK, callback_id)
        return await self._one_row(
            f"callback {callback_id}", f"{lists.CALLBACK} WHERE c.id = ?", [number]
        )

    async def callbacks(self, query: Query, *, whole: bool = False) -> Page[Callback]:
        """Callbacks, the newest first; their bodies only when `whole`."""
        is_small = False
        if lists.may_be_small(query):
            ((is_small,),) = await self.rows(lists.IS_SMALL, (lists.FEW, query.project))
        rows = await self.rows(*lists.callbacks_of(query, whole=whole, is_small=bool(is_small)))
        return page_of(rows, query, lambda row: callback_of(row, whole=whole), "id")

    async def endpoint(self, endpoint_id: str) -> Endpoint:
        """One endpoint."""
        row = await self._one_row(
            f"endpoint {endpoint_id}",
            f"{ENDPOINT} WHERE e.id = ?",
            [ids.parse(ids.ENDPOINT, endpoint_id)],
        )
        return self._endpoint_of(row)

    async def endpoints(self, query: Query) -> Page[Endpoint]:
        """Endpoints, the newest first."""
        where = Where()
        where.same("e.project", query.project)
        where.older(("e.id",), query)
        rows = await self.rows(*where.list(ENDPOINT, ("e.id",), query))
        return page_of(rows, query, self._endpoint_of, "id")

    def _endpoint_of(self, row: Row) -> Endpoint:
        return endpoint_of(row, self._seal)

    async def event(self, event_id: str) -> Event:
        """One event with its payload."""
        number = ids.parse(ids.EVENT, event_id)
        row = await self._one_row(f"event {event_id}", f"{lists.EVENT} WHERE e.id = ?", [number])
        return event_of(row, whole=True)

    async def events(self, query: Query, *, whole: bool = False) -> Page[Event]:
        """Events, the newest first; their payloads only when `whole`."""
        rows = await self.rows(*lists.events_of(query))
        return page_of(rows, query, lambda row: event_of(row, whole=whole), "seq")

    async def delivery(self, delivery_id: str) -> Delivery:
        """One delivery with its attempts."""
        place = ids.parse_delivery(delivery_id)
        row = await self._one_row(
            f"delivery {delivery_id}",
            f"{sent.DELIVERY} WHERE d.event_id = ? AND d.endpoint_id = ?",
            place,
        )
        attempts = await self.rows(
            "SELECT * FROM attempts WHERE event_id = ? AND endpoint_id = ? ORDER BY number", place
        )
        delivery = delivery_of(row)
        delivery.attempt_log = [attempt_of(attempt) for attempt in attempts]
        return delivery

    async def deliveries(self, query: Query) -> Page[Delivery]:
        """Deliveries, those of the newest events first."""
        is_long = False
        if query.state == State.PENDING:
            ((is_long,),) = await self.rows(sent.IS_LONG, (sent.FEW,))
        ends = await self._endpoints_of(query)
        rows = await self.rows(*sent.page_of(query, ends, queue_is_long=bool(is_long)))
        return page_of(rows, query, delivery_of, "event_id", "endpoint_id")

    async def _endpoints_of(self, query: Query) -> Sequence[int] | None:
        asked = [ids.parse(ids.ENDPOINT, query.endpoint)] if query.endpoint else None
        if query.project is None:
            return asked
        rows = await self.rows("SELECT id FROM endpoints WHERE project = ?", [query.project])
        return [row["id"] for row in rows if asked is None or row["id"] in asked]

    async def dead_letters(self, query: Query) -> Page[DeadLetters]:
        """Dead deliveries by endpoint and cause, the largest group first."""
        rows = await self.rows(*dead.page_of(query))
        return page_of(rows, query, dead.dead_of, *dead.ORDER)

    async def next_due(self) -> int | None:
        """The earliest next attempt of the endpoints that are sent to, in milliseconds."""
        (row,) = await self.rows(_NEXT_DUE)
        due: int | None = row[0]
        return due


def page_of(rows: Sequence[Row], query: Query, view: Callable[[Row], T], *order: str) -> Page[T]:
    """Rows of a list as a page of it; one more than was asked for says that there is a next."""
    shown = rows[: query.limit]
    more = len(rows) > query.limit
    cursor = tuple(shown[-1][column] for column in order) if more else None
    return Page([view(row) for row in shown], cursor)
