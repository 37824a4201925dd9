"""Floor 2, edges: operational events, in the transaction of what they tell of. stdlib only.

They make no loops: what is told of an operational event's own delivery is told to nobody, and no
endpoint is told of its own disabling.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from receiver import ids
from receiver.clock import to_rfc3339
from receiver.deliveries import State
from receiver.endpoints import Subscription, facts_in
from receiver.events import (
    OPERATIONAL,
    Announcement,
    announce_disabled,
    announce_exhausted,
)
from receiver.shown import without_addresses
from receiver.store.connection import Connection
from receiver.store.protocol import Settled
from receiver.store.verbs.entries import add_deliveries, add_event, is_alive
from receiver.store.verbs.rows import json_of
from receiver.store.writer import Transaction

_DYING: Final = (
    "SELECT e.type, json_extract(CAST(e.payload AS TEXT), '$.data.task'), t.id, d.created_at"
    " FROM deliveries d JOIN events e ON e.id = d.event_id LEFT JOIN tasks t ON t.n = e.task_n"
    " WHERE d.event_id = ? AND d.endpoint_id = ? AND d.attempts = ? AND d.state = 'sending'"
)
_DEAD: Final = "SELECT 1 FROM deliveries WHERE event_id = ? AND endpoint_id = ? AND state = 'dead'"
_ENDPOINT: Final = (
    "SELECT project, url, description FROM endpoints WHERE id = ? AND deleted_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class Dying:
    """An attempt that is about to be a delivery's last, and what is told of the delivery."""

    event: int
    endpoint: int
    delivery: Mapping[str, Any]
    task: Mapping[str, Any] | None


class Operations:
    """Tells of deliveries that died and endpoints that were disabled."""

    def __init__(
        self, subscriptions: Callable[[], Sequence[Subscription]], next_id: Callable[[], int]
    ) -> None:
        self._subscriptions = subscriptions
        self._next_id = next_id

    def dying(self, connection: Connection, news: Sequence[Settled]) -> list[Dying]:
        """Which deliveries these attempts let die; to be asked before they do.

        After that, stale news of an attempt would look like the news itself.
        """
        last = {
            (one.claimed.event_id, one.claimed.endpoint_id, one.claimed.attempt): one
            for one in news
            if one.state is State.DEAD
        }
        found: list[Dying] = []
        for key, settled in last.items():
            row = connection.execute(_DYING, key).fetchone()
            if row is not None and row[0] not in OPERATIONAL:
                found.append(_dying(settled, row))
        return found

    def tell_exhausted(self, tx: Transaction, dying: Sequence[Dying], now: int) -> None:
        """Record `delivery.exhausted` for each that is dead: a 2xx that came late may spare it."""
        for one in dying:
            place = (one.event, one.endpoint)
            about = _about(tx.connection, one.endpoint)
            if about is not None and tx.connection.execute(_DEAD, place).fetchone():
                told = announce_exhausted(one.task, about, one.delivery, now)
                self._record(tx, told, about["project"], now)

    def tell_disabled(self, tx: Transaction, endpoint: int, reason: str, now: int) -> None:
        """Record `endpoint.disabled`, for all but that endpoint."""
        about = _about(tx.connection, endpoint)
        if about is not None:
            told = announce_disabled({**about, "reason": reason}, now)
            self._record(tx, told, about["project"], now, but=endpoint)

    def _record(
        self, tx: Transaction, told: Announcement, project: str, now: int, but: int = 0
    ) -> None:
        event, facts = self._next_id(), facts_in(json.loads(told.payload))
        add_event(tx.connection, (event, told.type, None, project, now, told.payload))
        tx.connection.execute("INSERT INTO alerts (event_id) VALUES (?)", (event,))
        wanting = [
            one.endpoint
            for one in self._subscriptions()
            if one.project == project and one.endpoint != but and one.wants(told.type, facts)
        ]
        alive = [endpoint for endpoint in wanting if is_alive(tx.connection, endpoint)]
        add_deliveries(tx.connection, event, alive, now)
        tx.work = tx.work or bool(wanting)


def _dying(settled: Settled, row: Sequence[Any]) -> Dying:
    claimed, outcome = settled.claimed, settled.outcome
    event_type, task, task_id, created_at = row
    delivery = {
        "id": ids.delivery_id(claimed.event_id, claimed.endpoint_id),
        "event_id": ids.EVENT + ids.encode(claimed.event_id),
        "event_type": event_type,
        "task_id": None if task_id is None else ids.task_text(task_id),
        "attempts": claimed.attempt,
        "created_at": to_rfc3339(created_at),
        "last_error": outcome.failure,
        "last_status": outcome.status,
        # It goes to a project, which is not told what is behind the names that it gave.
        "last_detail": without_addresses(outcome.detail),
    }
    return Dying(claimed.event_id, claimed.endpoint_id, delivery, json_of(task))


def _about(connection: Connection, endpoint: int) -> dict[str, Any] | None:
    # Of its URL the host alone: paths and queries hold credentials (many chats' are nothing else).
    row = connection.execute(_ENDPOINT, (endpoint,)).fetchone()
    if row is None:
        return None
    project, url, description = row
    return {
        "id": ids.ENDPOINT + ids.encode(endpoint),
        "project": project,
        "host": urlsplit(url).hostname or "",
        "description": description,
    }


def drop_alerts(tx: Transaction, events: Sequence[str]) -> None:
    """These were told, or given up."""
    tx.connection.executemany(
        "DELETE FROM alerts WHERE event_id = ?", [(ids.parse(ids.EVENT, one),) for one in events]
    )
