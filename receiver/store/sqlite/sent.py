"""Floor 2, edges: the list of deliveries, as SQL. stdlib only; no SQL is run here.

A page is cut out of the deliveries alone wherever the filters are about them, and only its rows are
joined to their events. States that few deliveries have stand in an index of their own, which is
used only where the state is written out: a bound value could be any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from receiver import ids
from receiver.deliveries import State
from receiver.endpoints import types_like
from receiver.store.protocol import Query
from receiver.store.sqlite.where import Where

Statement = tuple[str, Sequence[Any]]

PLACE: Final = ("d.event_id", "d.endpoint_id")
FEW: Final = 10_000  # of deliveries that wait; so many are sorted in no time
_JOINED: Final = " JOIN events e ON e.id = d.event_id LEFT JOIN tasks t ON t.n = e.task_n"
_COLUMNS: Final = "SELECT d.*, e.type, e.project, t.id AS task_id"
DELIVERY: Final = f"{_COLUMNS} FROM deliveries d{_JOINED}"  # a WHERE of one's own may follow
_INDEX: Final[Mapping[State, str]] = {
    State.DEAD: "deliveries_dead",
    State.CANCELED: "deliveries_canceled",
    State.SENDING: "deliveries_sending",
}
# Those that wait are in the order of their next attempt: good for few of them.
IS_LONG: Final = (
    "SELECT count(*) > ?1 FROM (SELECT 1 FROM deliveries INDEXED BY deliveries_due"
    " WHERE state = 'pending' LIMIT ?1 + 1)"
)


def page_of(query: Query, *, queue_is_long: bool) -> Statement:
    """One page of deliveries, those of the newest events first."""
    where = Where()
    where.one_of("e.type", query.event_type and types_like(query.event_type))
    where.same("e.project", query.project)
    where.of_task("e.task_n", query.task)
    is_about_events = bool(where.clause)
    _add_own(where, query)
    table = f"deliveries d{_index_for(query, queue_is_long)}"
    if is_about_events:
        return where.list(f"{_COLUMNS} FROM {table}{_JOINED}", PLACE, query)
    cut, values = where.list(f"SELECT * FROM {table}", PLACE, query)
    by = ", ".join(f"{column} DESC" for column in PLACE)
    return f"{_COLUMNS} FROM ({cut}) d{_JOINED} ORDER BY {by}", values


def _add_own(where: Where, query: Query) -> None:
    if query.state is not None:
        where.add(f"d.state = '{State(query.state).value}'")  # a word of ours
    where.same("d.last_error", query.last_error)
    where.same("d.last_status", query.last_status)
    where.same("d.event_id", query.event and ids.parse(ids.EVENT, query.event))
    where.same("d.endpoint_id", query.endpoint and ids.parse(ids.ENDPOINT, query.endpoint))
    where.since_until("d.created_at", query)
    where.older(PLACE, query)


def _index_for(query: Query, queue_is_long: bool) -> str:
    if query.state is None or query.task or query.event:  # which lead to a few by themselves
        return ""
    if query.state == State.PENDING:
        return " NOT INDEXED" if queue_is_long else " INDEXED BY deliveries_due"
    name = _INDEX.get(State(query.state))
    return "" if name is None else f" INDEXED BY {name}"
