"""Floor 2, edges: an event and its deliveries, made one by one. stdlib only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from receiver.store.connection import Connection, Held


def add_event(connection: Connection, row: tuple[Any, ...]) -> None:
    """Keep an event: its id, type, the number of its task, project, time and payload."""
    connection.hold(Held.EVENTS)
    connection.execute(
        "INSERT INTO events (id, type, task_n, project, created_at, payload)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        row,
    )


def add_deliveries(
    connection: Connection,
    event: int,
    endpoints: Iterable[int],
    now: int,
    *,
    round_: int = 0,
) -> set[int]:
    """Queue an event for these endpoints; those that had no delivery of it before."""
    return {
        endpoint
        for endpoint in endpoints
        if connection.execute(
            "INSERT INTO deliveries (event_id, endpoint_id, state, round,"
            " next_attempt_at, created_at) VALUES (?, ?, 'pending', ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (event, endpoint, round_, now, now),
        ).rowcount
    }


def note_resends(connection: Connection, events: Iterable[int], now: int) -> None:
    """Tell the feed that these events are sent again; whoever hears it is not asked for each."""
    connection.hold(Held.EVENTS)
    connection.executemany(
        "INSERT INTO resends (after_seq, event_id, at)"
        " VALUES ((SELECT max(seq) FROM events), ?, ?)",
        [(event, now) for event in events],
    )


def is_alive(connection: Connection, endpoint: int) -> bool:
    """Whether an endpoint is there in this very transaction, whatever was known before it."""
    query = "SELECT 1 FROM endpoints WHERE id = ? AND deleted_at IS NULL"
    return connection.execute(query, (endpoint,)).fetchone() is not None
