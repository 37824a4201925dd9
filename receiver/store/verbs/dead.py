"""Floor 2, edges: dead letters by endpoint and cause, as SQL. stdlib only; no SQL is run here.

The groups are read off an index that holds dead letters alone, in its order: nothing is sorted but
the groups themselves, so that a million dead letters are counted in about a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from receiver import ids
from receiver.clock import to_datetime
from receiver.deliveries import DeadLetters
from receiver.store.protocol import Query
from receiver.store.verbs.where import Where

Statement = tuple[str, Sequence[Any]]

ORDER: Final = ("count", "example", "endpoint_id")  # the largest group first; no two are alike


def page_of(query: Query) -> Statement:
    """The groups of a query's `endpoint`, `project`, `since` and `until`, the largest first."""
    inner = Where()
    inner.add("d.state = 'dead'")
    inner.same("d.endpoint_id", query.endpoint and ids.parse(ids.ENDPOINT, query.endpoint))
    inner.since_until("d.created_at", query)
    outer = Where(*inner.values)
    outer.same("e.project", query.project)
    outer.older([f"g.{name}" for name in ORDER], query)
    select = (
        "SELECT g.*, e.project, e.deleted_at FROM ("
        "SELECT d.endpoint_id, d.last_error, d.last_status, count(*) AS count,"
        " min(d.created_at) AS oldest, max(d.created_at) AS newest, max(d.event_id) AS example"
        f" FROM deliveries d INDEXED BY deliveries_dead_by_cause{inner.clause}"
        " GROUP BY d.endpoint_id, d.last_error, d.last_status) g"
        " JOIN endpoints e ON e.id = g.endpoint_id"
    )
    return outer.list(select, [f"g.{name}" for name in ORDER], query)


def dead_of(row: Mapping[str, Any] | Any) -> DeadLetters:
    """A group out of its row."""
    return DeadLetters(
        endpoint_id=ids.ENDPOINT + ids.encode(row["endpoint_id"]),
        endpoint_deleted=row["deleted_at"] is not None,
        project=row["project"],
        error=row["last_error"],
        status=row["last_status"],
        count=row["count"],
        oldest=to_datetime(row["oldest"]),
        newest=to_datetime(row["newest"]),
        example=ids.delivery_id(row["example"], row["endpoint_id"]),
    )
