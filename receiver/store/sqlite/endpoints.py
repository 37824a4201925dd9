"""Floor 2, edges: the writes of endpoints, and the cache of who is sent to. sqlite3 only."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from receiver import ids
from receiver.endpoints import (
    Endpoint,
    EndpointPatch,
    EndpointSpec,
    State,
    Subscription,
    as_patterns,
)
from receiver.errors import NotFound
from receiver.platforms.reading import dumps
from receiver.store.protocol import NewEndpoint
from receiver.store.sqlite.rows import endpoint_of, json_of
from receiver.store.writer import Transaction


@dataclass(frozen=True, slots=True)
class Target:
    """What sending to an endpoint needs."""

    id: int
    url: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    schedule: tuple[int, ...] | None
    concurrency: int
    rate_limit: float | None


class Directory:
    """The endpoints as fan-out and claim see them; reloaded by the writer after each change.

    It lives on the writer's thread: `reload` runs after the commit that changed something.
    """

    def __init__(self) -> None:
        self.subscriptions: Sequence[Subscription] = ()
        self.targets: Sequence[Target] = ()

    def reload(self, connection: sqlite3.Connection) -> None:
        """Read all endpoints that are not deleted."""
        rows = connection.execute(
            "SELECT id, project, state, url, event_types, filters, headers, rate_limit,"
            " concurrency, schedule, secrets FROM endpoints WHERE deleted_at IS NULL ORDER BY id"
        ).fetchall()
        self.subscriptions = [_subscription(row) for row in rows]
        self.targets = [_target(row) for row in rows if row[2] == State.ENABLED]


def _subscription(row: Sequence[Any]) -> Subscription:
    filters = {name: as_patterns(wanted) for name, wanted in json_of(row[5]).items()}
    return Subscription(row[0], row[1], tuple(json_of(row[4])), filters)


def _target(row: Sequence[Any]) -> Target:
    schedule = json_of(row[9])
    return Target(
        id=row[0],
        url=row[3],
        headers=json_of(row[6]),
        secrets=tuple(entry["secret"] for entry in json_of(row[10])),
        schedule=None if schedule is None else tuple(schedule),
        concurrency=row[8],
        rate_limit=row[7],
    )


@dataclass(frozen=True, slots=True)
class StateChange:
    """An endpoint's new state, by hand or after a 410."""

    endpoint: int
    state: State
    reason: str | None


class Endpoints:
    """The endpoints' verbs; each leaves the directory as it stored it."""

    def __init__(self, directory: Directory, next_id: Any) -> None:
        self._directory = directory
        self._next_id = next_id

    def add(self, tx: Transaction, new: NewEndpoint) -> Endpoint:
        """Store a new endpoint."""
        number = self._next_id()
        secrets = dumps([{"secret": new.secret, "until": None}])
        tx.connection.execute(
            "INSERT INTO endpoints (url, description, event_types, filters, headers, rate_limit,"
            " concurrency, schedule, id, project, state, secrets, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*_spec_row(new.spec), number, new.project, State.ENABLED, secrets, new.now),
        )
        return self._changed(tx, number)

    def change(self, tx: Transaction, asked: tuple[int, EndpointPatch]) -> Endpoint:
        """Apply a patch; a new URL is used from the next attempt."""
        number, patch = asked
        current = _read(tx.connection, number)
        spec = EndpointSpec.model_validate(
            current.model_dump(include=set(EndpointSpec.model_fields))
            | patch.model_dump(exclude_unset=True)
        )
        tx.connection.execute(
            "UPDATE endpoints SET url = ?, description = ?, event_types = ?, filters = ?,"
            " headers = ?, rate_limit = ?, concurrency = ?, schedule = ? WHERE id = ?",
            (*_spec_row(spec), number),
        )
        return self._changed(tx, number)

    def set_state(self, tx: Transaction, change: StateChange) -> Endpoint:
        """Enable, pause or disable."""
        _read(tx.connection, change.endpoint)
        tx.connection.execute(
            "UPDATE endpoints SET state = ?, reason = ? WHERE id = ?",
            (change.state, change.reason, change.endpoint),
        )
        tx.work = True
        return self._changed(tx, change.endpoint)

    def delete(self, tx: Transaction, asked: tuple[int, int]) -> None:
        """Forget an endpoint and cancel its queue; its past deliveries stay readable."""
        number, now = asked
        _read(tx.connection, number)
        tx.connection.execute(
            "UPDATE endpoints SET deleted_at = ?, state = 'disabled', secrets = '[]' WHERE id = ?",
            (now, number),
        )
        tx.connection.execute(
            "UPDATE deliveries SET state = 'canceled', next_attempt_at = NULL, settled_at = ?"
            " WHERE endpoint_id = ? AND state = 'pending'",
            (now, number),
        )
        self._reload_later(tx)

    def _changed(self, tx: Transaction, number: int) -> Endpoint:
        self._reload_later(tx)
        return _read(tx.connection, number)

    def _reload_later(self, tx: Transaction) -> None:
        # What is rolled back must not be sent to.
        tx.after_commit.append(lambda: self._directory.reload(tx.connection))


def _read(connection: sqlite3.Connection, number: int) -> Endpoint:
    cursor = connection.execute(
        "SELECT * FROM endpoints WHERE id = ? AND deleted_at IS NULL", (number,)
    )
    cursor.row_factory = sqlite3.Row
    row = cursor.fetchone()
    if row is None:
        raise NotFound(f"There is no endpoint {ids.ENDPOINT}{ids.encode(number)}.")
    return endpoint_of(row)


def _spec_row(spec: EndpointSpec) -> tuple[Any, ...]:
    return (
        spec.url,
        spec.description,
        dumps(spec.event_types),
        dumps(spec.filters),
        dumps(spec.headers),
        spec.rate_limit,
        spec.concurrency,
        None if spec.schedule is None else dumps(spec.schedule),
    )
