"""Floor 2, edges: the list of deliveries, as SQL. stdlib only; no SQL is run here.

A page is cut out of the deliveries alone wherever the filters are about them, and only its rows are
joined to their events. States that few deliveries have stand in an index of their own, which is
used only where the state is written out: a bound value could be any. A project's deliveries are
those of its endpoints: each gives a page of its own, and the newest of all of these are the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from receiver import ids
from receiver.deliveries import State
from receiver.endpoints import types_like
from receiver.store.protocol import Query
from receiver.store.verbs.lists import RARE, rare_types
from receiver.store.verbs.where import Where

Statement = tuple[str, Sequence[Any]]

PLACE: Final = ("d.event_id", "d.endpoint_id")
_BY: Final = ", ".join(f"{column} DESC" for column in PLACE)
ARMS: Final = 100  # endpoints of a project that are looked at one by one; SQLite takes 500
FEW: Final = 10_000  # of deliveries that wait; so many are sorted in no time
_JOINED: Final = " JOIN events e ON e.id = d.event_id LEFT JOIN tasks t ON t.n = e.task_n"
_COLUMNS: Final = (
    "SELECT d.*, e.type, e.project, t.id AS task_id,"
    # Not joined, so that no plan begins with the endpoints.
    " (SELECT deleted_at FROM endpoints WHERE id = d.endpoint_id) IS NOT NULL AS endpoint_deleted"
)
DELIVERY: Final = f"{_COLUMNS} FROM deliveries d{_JOINED}"  # a WHERE of one's own may follow
_INDEX: Final[Mapping[State, str]] = {
    State.DEAD: "deliveries_dead",
    State.CANCELED: "deliveries_canceled",
    State.SENDING: "deliveries_sending",
    State.PENDING: "deliveries_due",
}
# Those that wait are in the order of their next attempt: good for few of them.
IS_LONG: Final = (
    "SELECT count(*) > ?1 FROM (SELECT 1 FROM deliveries INDEXED BY deliveries_due"
    " WHERE state = 'pending' LIMIT ?1 + 1) few"
)


def page_of(query: Query, ends: Sequence[int] | None, *, queue_is_long: bool) -> Statement:
    """One page of deliveries, those of the newest events first.

    `ends` are the endpoints of the query's endpoint or project; None: those of all.
    """
    way = _joined if query.event_type or query.task else _cut
    if query.task or query.event:  # which lead to a few by themselves
        return way(query, ends, "")
    index = _index_for(query, queue_is_long)
    if index:
        return way(query, ends, f" INDEXED BY {index}")
    if rare_types(query) is not None:
        return _of_rare_types(query, ends)
    if ends is not None and len(ends) <= ARMS:
        return _arms(query, ends)
    return way(query, ends, " NOT INDEXED")


def _cut(query: Query, ends: Sequence[int] | None, index: str) -> Statement:
    cut, values = _own(query, ends).list(f"SELECT * FROM deliveries d{index}", PLACE, query)
    return f"{_COLUMNS} FROM ({cut}) d{_JOINED} ORDER BY {_BY}", values


def _joined(query: Query, ends: Sequence[int] | None, index: str) -> Statement:
    where = _own(query, ends)
    where.one_of("e.type", query.event_type and types_like(query.event_type))
    where.of_task("e.task_n", query.task)
    return where.list(f"{_COLUMNS} FROM deliveries d{index}{_JOINED}", PLACE, query)


def _of_rare_types(query: Query, ends: Sequence[int] | None) -> Statement:
    where = _own(query, ends)
    where.one_of("e.type", rare_types(query))
    where.add(RARE)
    if query.before:
        where.add("e.id <= ?", query.before[0])
    # CROSS JOIN keeps the tables in this order (sqlite.org/optoverview.html, "Manual control").
    tables = (
        "events e INDEXED BY events_rare_by_id CROSS JOIN deliveries d ON d.event_id = e.id"
        " LEFT JOIN tasks t ON t.n = e.task_n"
    )
    return where.list(f"{_COLUMNS} FROM {tables}", ("e.id", "d.endpoint_id"), query)


def _arms(query: Query, ends: Sequence[int]) -> Statement:
    arms, values = list[str](), list[Any]()
    joined = " CROSS JOIN events e ON e.id = d.event_id" if query.event_type else ""
    for end in ends or (0,):
        where = _own(query, None)
        where.add("d.endpoint_id = ?", end)
        where.one_of("e.type", query.event_type and types_like(query.event_type))
        select = f"SELECT d.* FROM deliveries d INDEXED BY deliveries_by_endpoint{joined}"
        arm, bound = where.list(select, PLACE[:1], query)
        arms.append(f"SELECT * FROM ({arm}) arm")
        values += bound
    every = f"({' UNION ALL '.join(arms)}) d"
    cut = f"SELECT * FROM {every} ORDER BY {_BY} LIMIT ?"
    return f"{_COLUMNS} FROM ({cut}) d{_JOINED} ORDER BY {_BY}", [*values, query.limit + 1]


def _own(query: Query, ends: Sequence[int] | None) -> Where:
    where = Where()
    if query.state is not None:
        where.add(f"d.state = '{State(query.state).value}'")  # a word of ours
    where.same("d.last_error", query.last_error)
    where.same("d.last_status", query.last_status)
    where.same("d.event_id", query.event and ids.parse(ids.EVENT, query.event))
    if ends is not None:
        where.one_of("+d.endpoint_id", ends)  # with a +, so that no index of endpoints is taken
    where.since_until("d.created_at", query)
    where.older(PLACE, query)
    return where


def _index_for(query: Query, queue_is_long: bool) -> str | None:
    if query.state is None or (query.state == State.PENDING and queue_is_long):
        return None
    return _INDEX.get(State(query.state))
