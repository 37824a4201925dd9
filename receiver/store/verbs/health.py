"""Floor 2, edges: how endpoints fare, as rows. stdlib only.

They are read where they are needed and not cached: one look-up a batch of claims, one a batch of
attempts, both by a handful of keys. So the state is that of this very transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from typing import Any, Final

from receiver.clock import to_datetime
from receiver.delivery.health import (
    WELL,
    Health,
    Seen,
    disabling,
    follow,
    is_well,
    reset,
    width_of,
)
from receiver.delivery.policy import succeeded
from receiver.endpoints import Breaker, EndpointHealth
from receiver.endpoints import State as EndpointState
from receiver.store.connection import Connection, Row
from receiver.store.protocol import Settled

_NAMES: Final = tuple(field.name for field in fields(Health))
COLUMNS: Final = ", ".join(f"h.{name}" for name in _NAMES)  # of `endpoint_health h`
# Every endpoint that is not deleted; a WHERE of one's own may follow.
ENDPOINT: Final = (
    f"SELECT e.*, {COLUMNS} FROM (SELECT * FROM endpoints WHERE deleted_at IS NULL) e"
    " LEFT JOIN endpoint_health h ON h.endpoint_id = e.id"
)
_UPSERT: Final = (
    f"INSERT INTO endpoint_health (endpoint_id, {', '.join(_NAMES)})"
    f" VALUES (?{', ?' * len(_NAMES)}) ON CONFLICT (endpoint_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _NAMES)
)


@dataclass(frozen=True, slots=True)
class Found:
    """An endpoint as a batch of attempts finds it."""

    health: Health
    url: str
    concurrency: int
    is_disabled: bool


def health_of(row: Sequence[Any]) -> Health:
    """A health out of its columns, in their order; WELL where there is no row."""
    return WELL if row[0] is None else Health(Breaker(row[0]), *row[1:])


def health_shown(row: Row) -> EndpointHealth:
    """The health of a row of ENDPOINT, as the API shows it."""
    health, concurrency = health_of([row[name] for name in _NAMES]), row["concurrency"]
    width = width_of(health, concurrency)
    return EndpointHealth(
        breaker=health.breaker,
        consecutive_failures=health.failures,
        failing_since=_moment(health.failing_since),
        concurrency=width if width < concurrency else None,
        held_until=_moment(health.held_until),
        last_success_at=_moment(health.last_success_at),
        last_failure_at=_moment(health.last_failure_at),
    )


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else to_datetime(ms)


def short_of(connection: Connection, probed: Iterable[int]) -> dict[int, Health]:
    """The health of all endpoints that get less at once than they were set to.

    It stays as it is of those that are about to be probed, if they have to be.
    """
    found = _short(connection)
    if connection.is_shared:
        broken = [one for one in probed if found.get(one, WELL).breaker is not Breaker.CLOSED]
        if broken:
            connection.lock("endpoints", "id", broken)
            return _short(connection)
    return found


def _short(connection: Connection) -> dict[int, Health]:
    rows = connection.execute(
        f"SELECT endpoint_id, {COLUMNS} FROM endpoint_health h"
        " WHERE breaker <> 'closed' OR width IS NOT NULL OR held_until IS NOT NULL"
    )
    return {endpoint: health_of(row) for endpoint, *row in rows}


def keep(connection: Connection, healths: Mapping[int, Health]) -> None:
    """Write what changed."""
    if healths:
        connection.executemany(
            _UPSERT, [(number, *astuple(h)) for number, h in sorted(healths.items())]
        )


def begin_anew(connection: Connection, endpoint: int) -> None:
    """An endpoint, which the caller has locked, was enabled by hand, or has another URL."""
    found = _found(connection, [endpoint])[endpoint]
    keep(connection, {endpoint: reset(found.health)})


def forget(connection: Connection, endpoint: int) -> None:
    """An endpoint was deleted: no claim has to look at how it fared."""
    connection.execute("DELETE FROM endpoint_health WHERE endpoint_id = ?", (endpoint,))


def note(connection: Connection, news: Sequence[Settled]) -> dict[int, str]:
    """Let each attempt's endpoint fare better or worse; the endpoints to disable, and why."""
    told: dict[int, list[Settled]] = {}
    for settled in news:
        told.setdefault(settled.claimed.endpoint_id, []).append(settled)
    connection.lock("endpoints", "id", told)
    found, healths, disabled = _found(connection, told), dict[int, Health](), dict[int, str]()
    for number, one in found.items():  # who was deleted meanwhile is not among them
        # What its last URL answered says nothing of where it is now: a 410 least of all.
        news_of_it = [settled for settled in told[number] if settled.claimed.url == one.url]
        healths[number], reason = _fare(one, news_of_it)
        if reason is not None and not one.is_disabled:
            disabled[number] = reason
    keep(connection, healths)
    return disabled


def _fare(found: Found, told: Sequence[Settled]) -> tuple[Health, str | None]:
    health, reason = found.health, None
    if is_well(health) and all(succeeded(settled.outcome) for settled in told):
        told = told[-1:]  # the others change nothing more, and each costs as much as its rows
    for settled in told:
        health = follow(health, _seen(settled, found))
        reason = reason or settled.disable or disabling(health, settled.now)
    return health, reason


def _seen(settled: Settled, found: Found) -> Seen:
    return Seen(
        settled.outcome, settled.started_at, settled.now, found.concurrency, settled.longest_pause
    )


def _found(connection: Connection, endpoints: Iterable[int]) -> dict[int, Found]:
    numbers = list(endpoints)
    rows = connection.execute(
        f"SELECT e.id, e.url, e.concurrency, e.state, {COLUMNS} FROM endpoints e"
        " LEFT JOIN endpoint_health h ON h.endpoint_id = e.id"
        f" WHERE e.id IN ({', '.join('?' * len(numbers))}) AND e.deleted_at IS NULL",
        numbers,
    )
    return {
        number: Found(health_of(row), url, concurrency, state == EndpointState.DISABLED)
        for number, url, concurrency, state, *row in rows
    }
