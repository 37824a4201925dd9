"""Floor 2, edges: deliveries enter their queue, each in its lane if its endpoint is ordered.

A lane holds the open deliveries of one task to one endpoint; the first of them alone has a time to
be tried at. So order costs a claim nothing, and whoever settles one lets the next one go. Late
results and what is retried by hand keep out of lanes: those after them have gone. stdlib only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Final

from receiver.store.connection import Connection

Lane = tuple[int, int]  # endpoint, task
# A delivery to queue: event, endpoint, now, and the task whose order it may have to keep. No class:
# ingest makes some for every callback.
Due = tuple[int, int, int, int | None]

_OPEN: Final = (
    "FROM deliveries INDEXED BY deliveries_lanes WHERE endpoint_id = ?2 AND lane = {lane}"
    " AND state IN ('pending', 'sending')"
)
_QUEUE: Final = (
    "INSERT INTO deliveries (event_id, endpoint_id, state, next_attempt_at, created_at)"
    " VALUES (?1, ?2, 'pending', ?3, ?3) ON CONFLICT DO NOTHING"
)
_QUEUE_IN_LANE: Final = (
    "INSERT INTO deliveries"
    " (event_id, endpoint_id, state, next_attempt_at, created_at, lane)"
    f" VALUES (?1, ?2, 'pending', CASE WHEN EXISTS (SELECT 1 {_OPEN.format(lane='?4')}"
    " AND event_id < ?1) THEN NULL ELSE CAST(?3 AS BIGINT) END, ?3, ?4) ON CONFLICT DO NOTHING"
)
_LET_NEXT_GO: Final = (
    "UPDATE deliveries SET next_attempt_at = ?1 WHERE endpoint_id = ?2"
    f" AND event_id = (SELECT min(event_id) {_OPEN.format(lane='?3')})"
    " AND state = 'pending' AND next_attempt_at IS NULL"
)


def queue(connection: Connection, due: Sequence[Due], ordered: Set[int]) -> None:
    """Queue deliveries, in the order of their events; what is there already stays as it is."""
    free, in_lane = due, list[Due]()
    if ordered:
        in_lane = [one for one in due if one[1] in ordered and one[3] is not None]
        free = [one for one in due if one[1] not in ordered or one[3] is None]
    connection.executemany(_QUEUE, [one[:3] for one in free])
    connection.executemany(_QUEUE_IN_LANE, in_lane)


def let_next_go(connection: Connection, lanes: Iterable[Lane], now: int) -> None:
    """Something of these lanes was settled: the first that is still open may be tried."""
    lanes = set(lanes)
    # Whoever adds to a lane has its task: so either sees what the other one did.
    connection.lock("tasks", "n", {task for _, task in lanes})
    connection.executemany(_LET_NEXT_GO, [(now, *lane) for lane in sorted(lanes)])
