"""Floor 2, edges: everything that is read, on connections that can't write. aiosqlite only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from sqlite3 import Error, Row
from typing import Any, Final, TypeVar
from urllib.parse import quote

import aiosqlite

from receiver import ids
from receiver.callbacks import Callback, Kept
from receiver.costs import By, CostSum, Grouping
from receiver.deliveries import DeadLetters, Delivery, State
from receiver.endpoints import Endpoint
from receiver.errors import NotFound, StoreBroken, StoreUnavailable
from receiver.events import Event
from receiver.repair import Job
from receiver.results import Result
from receiver.store.faults import Fault, judge
from receiver.store.protocol import CostPage, Page, Query
from receiver.store.seal import Seal
from receiver.store.sqlite import costs, dead, lists, sent
from receiver.store.sqlite.health import ENDPOINT
from receiver.store.sqlite.rows import (
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
from receiver.store.sqlite.where import Where
from receiver.tasks import Task

T = TypeVar("T")
Values = Iterable[Any] | Mapping[str, Any]  # of a statement's marks, in their order or by name

CONNECTIONS: Final = 2
CLOSING: Final = 10.0  # seconds that closing them takes at most

# One look-up in an index for each endpoint; a plain min() over all would read the whole queue.
# What is due while its endpoint is left alone (an open breaker, a Retry-After) is due after that.
_NEXT_DUE: Final = (
    "SELECT min(max(due, held)) FROM (SELECT coalesce(h.held_until, 0) AS held,"
    " (SELECT min(next_attempt_at) FROM deliveries WHERE state = 'pending'"
    " AND endpoint_id = e.id) AS due FROM endpoints e"
    " LEFT JOIN endpoint_health h ON h.endpoint_id = e.id"
    " WHERE e.state = 'enabled' AND e.deleted_at IS NULL)"
)


class Reads:
    """A few read-only connections, each used by one query at a time."""

    def __init__(self, path: str, seal: Seal) -> None:
        self._path = path
        self._seal = seal
        # First come, first served. A queue of connections is not: who is woken by one that was put
        # back finds it gone, to whoever put it back and asks again, and stands last once more.
        self._turn = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[aiosqlite.Connection] = []
        self._all: list[aiosqlite.Connection] = []

    async def open(self) -> None:
        """Open the connections; the database must exist."""
        for _ in range(CONNECTIONS):
            connection = await aiosqlite.connect(
                f"file:{quote(self._path)}?mode=ro", uri=True, isolation_level=None
            )
            self._all.append(connection)
            connection.row_factory = Row
            for pragma in ("query_only = 1", "busy_timeout = 5000", "wal_autocheckpoint = 0"):
                await connection.execute(f"PRAGMA {pragma}")
            self._idle.append(connection)

    async def close(self) -> None:
        """Close every connection: an aiosqlite thread left open would hang the exit.

        Raises StoreBroken when the disk does not let go of one.
        """
        try:
            async with asyncio.timeout(CLOSING):
                for connection in self._all:
                    await connection.close()
        except TimeoutError:
            raise StoreBroken("The disk does not answer a reader.") from None

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[aiosqlite.Connection]:
        async with self._turn:
            connection = self._idle.pop()
            try:
                yield connection
            finally:
                self._idle.append(connection)

    async def _all_rows(self, sql: str, values: Values = ()) -> Sequence[Row]:
        bound: Any = values if isinstance(values, Mapping) else tuple(values)
        async with self._connection() as connection:
            try:
                return list(await connection.execute_fetchall(sql, bound))
            except Error as error:
                if judge(error) is Fault.JOB:
                    raise
                raise StoreUnavailable(f"The database could not be read: {error}.") from error

    async def rows(self, sql: str, values: Values = ()) -> Sequence[Row]:
        """What a statement of another module of this room finds."""
        return await self._all_rows(sql, values)

    async def jobs(self, query: Query) -> Page[Job]:
        """Jobs, the newest first."""
        where = Where()
        where.same("project", query.project)
        where.older(("id",), query)
        rows = await self._all_rows(*where.list("SELECT * FROM jobs", ("id",), query))
        return page_of(rows, query, job_of, "id")

    async def _one_row(self, what: str, sql: str, values: Iterable[Any]) -> Row:
        rows = await self._all_rows(sql, values)
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
        rows = await self._all_rows(
            "SELECT r.*, t.id AS task_id FROM results r JOIN tasks t ON t.n = r.task_n"
            " WHERE t.id = ? ORDER BY r.idx",
            [task_key(task_id)],
        )
        if not rows:
            await self.task(task_id)  # there is one, without results
        return [result_of(row) for row in rows]

    async def tasks(self, query: Query) -> Page[Task]:
        """Tasks, the newest first."""
        rows = await self._all_rows(*lists.tasks_of(query))
        return page_of(rows, query, lambda row: task_of(row, whole=False), "n")

    async def costs(self, query: Query) -> CostPage:
        """What tasks cost, group by group."""
        by = query.by or Grouping(By.MODEL)
        rows = await self._all_rows(*costs.page_of(by, query))
        page = page_of(rows, query, lambda row: costs.cost_of(row, by), *costs.order_of(by))
        total = None if query.before else await self._total(by, query, rows)
        return CostPage(page.data, page.next_cursor, total)

    async def _total(self, by: Grouping, query: Query, rows: Sequence[Row]) -> CostSum:
        if rows and costs.has_total(by):
            return costs.sum_of(rows[0], "all_")
        (row,) = await self._all_rows(*costs.total_of(query))
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
            ((is_small,),) = await self._all_rows(lists.IS_SMALL, (lists.FEW, query.project))
        rows = await self._all_rows(
            *lists.callbacks_of(query, whole=whole, is_small=bool(is_small))
        )
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
        rows = await self._all_rows(*where.list(ENDPOINT, ("e.id",), query))
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
        rows = await self._all_rows(*lists.events_of(query))
        return page_of(rows, query, lambda row: event_of(row, whole=whole), "seq")

    async def delivery(self, delivery_id: str) -> Delivery:
        """One delivery with its attempts."""
        place = ids.parse_delivery(delivery_id)
        row = await self._one_row(
            f"delivery {delivery_id}",
            f"{sent.DELIVERY} WHERE d.event_id = ? AND d.endpoint_id = ?",
            place,
        )
        attempts = await self._all_rows(
            "SELECT * FROM attempts WHERE event_id = ? AND endpoint_id = ? ORDER BY number", place
        )
        delivery = delivery_of(row)
        delivery.attempt_log = [attempt_of(attempt) for attempt in attempts]
        return delivery

    async def deliveries(self, query: Query) -> Page[Delivery]:
        """Deliveries, those of the newest events first."""
        is_long = False
        if query.state == State.PENDING:
            ((is_long,),) = await self._all_rows(sent.IS_LONG, (sent.FEW,))
        ends = await self._endpoints_of(query)
        rows = await self._all_rows(*sent.page_of(query, ends, queue_is_long=bool(is_long)))
        return page_of(rows, query, delivery_of, "event_id", "endpoint_id")

    async def _endpoints_of(self, query: Query) -> Sequence[int] | None:
        asked = [ids.parse(ids.ENDPOINT, query.endpoint)] if query.endpoint else None
        if query.project is None:
            return asked
        rows = await self._all_rows("SELECT id FROM endpoints WHERE project = ?", [query.project])
        return [row["id"] for row in rows if asked is None or row["id"] in asked]

    async def dead_letters(self, query: Query) -> Page[DeadLetters]:
        """Dead deliveries by endpoint and cause, the largest group first."""
        rows = await self._all_rows(*dead.page_of(query))
        return page_of(rows, query, dead.dead_of, *dead.ORDER)

    async def next_due(self) -> int | None:
        """The earliest next attempt of the endpoints that are sent to, in milliseconds."""
        (row,) = await self._all_rows(_NEXT_DUE)
        due: int | None = row[0]
        return due


def page_of(rows: Sequence[Row], query: Query, view: Callable[[Row], T], *order: str) -> Page[T]:
    """Rows of a list as a page of it; one more than was asked for says that there is a next."""
    shown = rows[: query.limit]
    more = len(rows) > query.limit
    cursor = tuple(shown[-1][column] for column in order) if more else None
    return Page([view(row) for row in shown], cursor)
