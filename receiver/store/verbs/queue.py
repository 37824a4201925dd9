"""Floor 2, edges: the writes of the delivery queue: claim, settle, lapse, retry. stdlib only.

The states move as `receiver.deliveries.MOVES` says. A claim asks each endpoint for its own due
deliveries, in turn, so a dead endpoint's queue is never in another one's way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from receiver import ids
from receiver.clock import HOUR
from receiver.deliveries import Failure, State
from receiver.delivery.health import WELL, Health, probe, room
from receiver.endpoints import CONCURRENCY
from receiver.endpoints import State as EndpointState
from receiver.errors import Conflict, NotFound
from receiver.platforms.reading import dumps
from receiver.store.connection import Connection, Held
from receiver.store.protocol import Claimed, QueueCancel, Settled
from receiver.store.seal import Seal
from receiver.store.verbs import health, hours
from receiver.store.verbs.allowances import Allowances
from receiver.store.verbs.endpoints import Directory, StateChange, Target
from receiver.store.verbs.entries import note_resends
from receiver.store.verbs.lanes import Lane, let_next_go
from receiver.store.verbs.operations import Operations
from receiver.store.verbs.secrets import without_headers
from receiver.store.writer import Transaction

Leased = tuple[int, int, int, int | None]  # event, attempts, those when the schedule began, lane

KEPT_BODY: Final = 4_096  # bytes of an endpoint's answer that an attempt keeps


@dataclass(frozen=True, slots=True)
class Ask:
    """One claim: how many deliveries at most, and until when they are leased.

    `shared`: no endpoint gets more of them than it leaves to the others.
    """

    now: int
    lease_until: int
    limit: int
    shared: bool = False


class Queue:
    """The queue's verbs. The directory has who may be sent to, in a stable order.

    `process`: who leases, where several do.
    """

    def __init__(
        self,
        directory: Directory,
        set_state: Callable[[Transaction, StateChange], object],
        seal: Seal,
        operations: Operations,
        allowances: Allowances,
        process: int | None = None,
    ) -> None:
        self._seal = seal
        self._operations = operations
        self._directory = directory
        self._set_state = set_state
        self._served = 0  # the endpoint that was last given something
        self._allowances = allowances
        self._lease_to = "" if process is None else f", leased_by = {process}"
        of_mine = "" if process is None else f" FILTER (WHERE leased_by = {process})"
        self._busy = _BUSY.format(of_mine=of_mine)

    def claim(self, tx: Transaction, asks: Sequence[Ask]) -> Sequence[Sequence[Claimed]]:
        """Lease due deliveries, endpoint by endpoint."""
        tx.connection.hold(Held.CLAIMS)
        return [self._claim(tx.connection, ask) for ask in asks]

    def _claim(self, connection: Connection, ask: Ask) -> list[Claimed]:
        targets = self._in_turn(connection, ask.now)
        if not targets:  # as after most commits: of what they brought nothing is due
            return []
        self._allowances.load(connection)
        busy = {endpoint: counts for endpoint, *counts in connection.execute(self._busy)}
        short = health.short_of(connection, [target.id for target in targets])
        taken: list[tuple[Target, Leased]] = []
        probed: dict[int, Health] = {}
        for target in targets:
            fares, (sending, mine) = short.get(target.id, WELL), busy.get(target.id, (0, 0))
            free = room(fares, concurrency=target.concurrency, busy=sending, now=ask.now)
            free = min(free, _share(ask, mine, len(taken)), self._allowed(target, ask.now))
            if free > 0 and (rows := self._lease(connection, target.id, ask, free)):
                self._spend(target, len(rows))
                self._served = target.id
                taken += [(target, row) for row in rows]
                if fares is not (after := probe(fares, ask.lease_until)):
                    probed[target.id] = after
        health.keep(connection, probed)
        self._allowances.keep(connection)
        return _with_payloads(connection, taken, ask.now)

    def settle(self, tx: Transaction, news: Sequence[Settled]) -> Sequence[None]:
        """Keep each attempt as a row, move its delivery, disable what asked to be left alone."""
        dying = self._operations.dying(tx.connection, news)
        _settle(tx.connection, news, self._seal)
        hours.add(tx.connection, news)
        for endpoint, reason in health.note(tx.connection, news).items():
            self._set_state(tx, StateChange(endpoint, EndpointState.DISABLED, reason))
            self._operations.tell_disabled(tx, endpoint, reason, news[-1].now)
        self._operations.tell_exhausted(tx, dying, news[-1].now)
        tx.work = True  # a place became free
        return [None] * len(news)

    def _in_turn(self, connection: Connection, now: int) -> list[Target]:
        # Whoever was served last comes last, so a scarce limit is shared.
        waiting = _waiting(connection, now)
        targets = [target for target in self._directory.targets if target.id in waiting]
        return sorted(targets, key=lambda target: target.id <= self._served)

    def _lease(self, connection: Connection, endpoint: int, ask: Ask, room: int) -> list[Leased]:
        rows: list[Leased] = connection.execute(
            "WITH due AS (SELECT event_id FROM deliveries INDEXED BY deliveries_due"
            " WHERE endpoint_id = ? AND state = 'pending' AND next_attempt_at <= ?"
            f" ORDER BY next_attempt_at LIMIT ?{connection.skip_locked})"
            " UPDATE deliveries SET state = 'sending', attempts = attempts + 1, lease_until = ?,"
            f" next_attempt_at = NULL{self._lease_to} WHERE endpoint_id = ?"
            " AND event_id IN (SELECT event_id FROM due)"
            " RETURNING event_id, attempts, round, lane",
            (endpoint, ask.now, room, ask.lease_until, endpoint),
        ).fetchall()
        return sorted(rows)  # by event: an UPDATE returns its rows in any order

    def _allowed(self, target: Target, now: int) -> int:
        if target.rate_limit is None:
            return target.concurrency
        return self._allowances.left(target.id, target.rate_limit, now)

    def _spend(self, target: Target, count: int) -> None:
        if target.rate_limit is not None:
            self._allowances.spend(target.id, count)


def _waiting(connection: Connection, now: int) -> set[int]:
    # One statement: of a thousand endpoints most have nothing due, and asking each of them by
    # itself took longer than all that the others had.
    rows = connection.execute(
        "SELECT e.id FROM endpoints e WHERE e.state = 'enabled' AND EXISTS ("
        "SELECT 1 FROM deliveries INDEXED BY deliveries_due WHERE endpoint_id = e.id"
        " AND state = 'pending' AND next_attempt_at <= ?)",
        (now,),
    )
    return {row[0] for row in rows}


def _share(ask: Ask, sending: int, taken: int) -> int:
    """How many more an endpoint may have that has `sending` of this worker's places already.

    Ten at least, else no more than stay free: who is set to a thousand at once and hangs must not
    have all of them.
    """
    left = ask.limit - taken
    if not ask.shared:
        return left
    return min(left, max(CONCURRENCY - sending, (left - sending + 1) // 2))


# By endpoint: how many are under way, and how many of them this process has.
_BUSY: Final = (
    "SELECT endpoint_id, count(*), count(*){of_mine} FROM deliveries WHERE state = 'sending'"
    " GROUP BY endpoint_id"
)


def _with_payloads(
    connection: Connection, taken: list[tuple[Target, Leased]], now: int
) -> list[Claimed]:
    if not taken:
        return []
    events = sorted({row[0] for _, row in taken})
    marks = ",".join("?" * len(events))
    rows = connection.execute(
        "SELECT e.id, e.payload, t.id, t.traceparent FROM events e"
        f" LEFT JOIN tasks t ON t.n = e.task_n WHERE e.id IN ({marks})",
        events,
    )
    told = {event: about for event, *about in rows}
    return [
        Claimed(
            event_id=event,
            endpoint_id=target.id,
            attempt=attempts,
            round_attempt=attempts - began,
            url=target.url,
            headers=target.headers,
            secrets=target.secrets_at(now),
            schedule=target.schedule,
            payload=payload,
            private_keys=target.private_keys_at(now),
            lane=lane,
            task=None if task is None else ids.task_text(task),
            traceparent=traceparent,
        )
        for target, (event, attempts, began, lane) in taken
        for payload, task, traceparent in (told[event],)
    ]


# The 2xx of an attempt whose lease had lapsed, if the next attempt has not begun.
_ARRIVE_LATE: Final = (
    "UPDATE deliveries SET state = 'succeeded', next_attempt_at = NULL, settled_at = ?1,"
    " last_error = NULL, last_status = ?5, first_succeeded_at = coalesce(first_succeeded_at, ?1)"
    " WHERE event_id = ?2 AND endpoint_id = ?3 AND state = 'pending' AND round < ?4"
    " AND EXISTS (SELECT 1 FROM attempts WHERE event_id = ?2 AND endpoint_id = ?3 AND number = ?4"
    " AND error = 'lease_lapsed')"
)
# If that had begun, it is the last one, however it ends: `state` is where it stands then.
_SPARE: Final = (
    "UPDATE deliveries SET state = 'succeeded', next_attempt_at = NULL, lease_until = NULL,"
    " settled_at = ?1, last_error = NULL, last_status = good.status,"
    " first_succeeded_at = coalesce(first_succeeded_at, ?1)"
    " FROM (SELECT number, status FROM attempts WHERE event_id = ?2 AND endpoint_id = ?3"
    " AND error IS NULL ORDER BY number DESC LIMIT 1) AS good"
    " WHERE event_id = ?2 AND endpoint_id = ?3 AND attempts = ?4 AND state = '{state}'"
    " AND good.number > round"
)
_SPARE_FAILED: Final = _SPARE.format(state="sending")
_SPARE_LAPSED: Final = _SPARE.format(state="pending")


_MOVE: Final = (
    "UPDATE deliveries SET state = ?, next_attempt_at = ?, lease_until = NULL, settled_at = ?,"
    " last_error = ?, last_status = ?, first_succeeded_at = coalesce(first_succeeded_at, ?)"
    " WHERE event_id = ? AND endpoint_id = ? AND attempts = ? AND state = 'sending'"
)


_ATTEMPT: Final = (
    "event_id, endpoint_id, number, at, duration_ms, status, error, detail, request_headers,"
    " response_body, truncated"
)
_KEEP_ATTEMPT: Final = (
    f"INSERT INTO attempts ({_ATTEMPT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (event_id, endpoint_id, number) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _ATTEMPT.split(", ")[3:])
)


def _settle(connection: Connection, news: Sequence[Settled], seal: Seal) -> None:
    good = [one for one in news if one.state is State.SUCCEEDED]
    bad = [one for one in news if one.state is not State.SUCCEEDED]
    moved = connection.executemany(_MOVE, [_move_row(one) for one in good])
    if good and moved.rowcount < len(good):  # seldom; before what lapsed is overwritten
        late = [(*_place_of(one), one.outcome.status) for one in good]
        connection.executemany(_ARRIVE_LATE, late)
    connection.executemany(
        _KEEP_ATTEMPT,
        [_attempt_row(one, seal) for one in news],
    )
    connection.executemany(_SPARE_FAILED, [_place_of(one) for one in bad])
    connection.executemany(_MOVE, [_move_row(one) for one in bad])
    _cancel_orphans(connection, {one.claimed.endpoint_id for one in news}, news[-1].now)
    let_next_go(connection, _lanes_of(news), news[-1].now)


def _lanes_of(news: Sequence[Settled]) -> set[Lane]:
    return {
        (settled.claimed.endpoint_id, settled.claimed.lane)
        for settled in news
        if settled.claimed.lane is not None
    }


def _place_of(settled: Settled) -> tuple[int, int, int, int]:
    claimed = settled.claimed
    return settled.now, claimed.event_id, claimed.endpoint_id, claimed.attempt


def _attempt_row(settled: Settled, seal: Seal) -> tuple[Any, ...]:
    claimed = settled.claimed
    outcome = without_headers(seal, settled.outcome, claimed.headers)
    return (
        claimed.event_id,
        claimed.endpoint_id,
        claimed.attempt,
        settled.started_at,
        outcome.duration_ms,
        outcome.status,
        outcome.failure,
        outcome.detail,
        dumps(dict(outcome.request_headers or {})),
        outcome.response_body[:KEPT_BODY],
        outcome.truncated or len(outcome.response_body) > KEPT_BODY,
    )


def _move_row(settled: Settled) -> tuple[Any, ...]:
    claimed, outcome = settled.claimed, settled.outcome
    succeeded = settled.state is State.SUCCEEDED
    return (
        settled.state,
        settled.next_attempt_at,
        None if settled.state is State.PENDING else settled.now,
        outcome.failure,
        outcome.status,
        settled.now if succeeded else None,
        claimed.event_id,
        claimed.endpoint_id,
        claimed.attempt,
    )


def _cancel_orphans(connection: Connection, endpoints: set[int], now: int) -> None:
    # An attempt in flight while its endpoint was deleted must not come back.
    if not endpoints:
        return
    marks = ",".join("?" * len(endpoints))
    connection.execute(
        f"{_CANCEL} (SELECT id FROM endpoints WHERE id IN ({marks}) AND deleted_at IS NOT NULL)",
        [now, *endpoints],
    )


_CANCEL: Final = (
    "UPDATE deliveries SET state = 'canceled', next_attempt_at = NULL, settled_at = ?"
    " WHERE state = 'pending' AND endpoint_id IN"
)


def release_lapsed(tx: Transaction, now: int) -> int:
    """Return what nobody settled to pending; each lost try stays visible as an attempt."""
    return _release(tx, now, deleted_since=now - HOUR)


def release_all(tx: Transaction, now: int) -> int:
    """At start: whoever held a lease is gone, since one process alone opens the file."""
    tx.connection.execute("UPDATE deliveries SET lease_until = ? WHERE state = 'sending'", (now,))
    return _release(tx, now, deleted_since=0)


def _release(tx: Transaction, now: int, deleted_since: int) -> int:
    rows = tx.connection.execute(
        "UPDATE deliveries SET state = 'pending', next_attempt_at = ?, last_error = ?,"
        " last_status = NULL, lease_until = NULL WHERE state = 'sending' AND lease_until <= ?"
        " RETURNING event_id, endpoint_id, attempts, lane",
        (now, Failure.LEASE_LAPSED, now),
    ).fetchall()
    lost = [row[:3] for row in rows]
    _note_lapsed(tx.connection, lost, now)
    tx.connection.executemany(_SPARE_LAPSED, [(now, *row) for row in lost])
    let_next_go(tx.connection, {row[1::2] for row in rows if row[3] is not None}, now)
    _cancel_orphans(tx.connection, {row[1] for row in rows}, now)
    # Also what a callback in the very batch of its endpoint's deletion was still fanned out to.
    tx.connection.execute(
        f"{_CANCEL} (SELECT id FROM endpoints WHERE deleted_at >= ?)", (now, deleted_since)
    )
    tx.work = tx.work or bool(rows)
    return len(rows)


_LOST: Final = "The process that sent it ended before it could say."


def _note_lapsed(connection: Connection, rows: Sequence[Any], now: int) -> None:
    connection.executemany(
        f"INSERT INTO attempts ({_ATTEMPT}) VALUES (?, ?, ?, ?, 0, NULL, ?, ?, '{{}}', ?, 0)"
        " ON CONFLICT DO NOTHING",
        [(*row, now, Failure.LEASE_LAPSED, _LOST, b"") for row in rows],
    )


@dataclass(frozen=True, slots=True)
class ByHand:
    """A delivery and the moment somebody asked."""

    delivery: str
    now: int


def retry(tx: Transaction, asked: ByHand) -> None:
    """Begin the schedule anew for a settled delivery, whatever it settled as."""
    event, endpoint = ids.parse_delivery(asked.delivery)
    if not begin_rounds(tx.connection, [(event, endpoint)], asked.now):
        _refuse(tx.connection, event, endpoint, "retried")
    note_resends(tx.connection, [event], asked.now)
    tx.work = True


def begin_rounds(connection: Connection, deliveries: Iterable[tuple[int, int]], now: int) -> int:
    """Begin the schedule anew for what is settled of these (event, endpoint); how many were."""
    deliveries = list(deliveries)
    connection.lock("events", "id", {event for event, _ in deliveries})  # no prune may take them
    return connection.executemany(
        "UPDATE deliveries SET state = 'pending', next_attempt_at = ?, round = attempts,"
        " lane = NULL, settled_at = NULL WHERE event_id = ? AND endpoint_id = ?"
        " AND state IN ('succeeded', 'dead', 'canceled')"
        " AND EXISTS (SELECT 1 FROM endpoints WHERE id = endpoint_id AND deleted_at IS NULL)",
        [(now, *delivery) for delivery in deliveries],
    ).rowcount


def cancel(tx: Transaction, asked: ByHand) -> None:
    """Drop a pending delivery from its queue."""
    event, endpoint = ids.parse_delivery(asked.delivery)
    lanes = tx.connection.execute(
        "UPDATE deliveries SET state = 'canceled', next_attempt_at = NULL, settled_at = ?"
        " WHERE event_id = ? AND endpoint_id = ? AND state = 'pending' RETURNING lane",
        (asked.now, event, endpoint),
    ).fetchall()
    if not lanes:
        _refuse(tx.connection, event, endpoint, "canceled")
    _after_cancel(tx, endpoint, lanes, asked.now)


def cancel_queue(tx: Transaction, asked: QueueCancel) -> int:
    """Drop some of what waits for an endpoint since before somebody asked; how many."""
    endpoint = ids.parse(ids.ENDPOINT, asked.endpoint)
    lanes = tx.connection.execute(
        "UPDATE deliveries SET state = 'canceled', next_attempt_at = NULL, settled_at = ?"
        " WHERE endpoint_id = ? AND event_id IN ("
        "SELECT event_id FROM deliveries INDEXED BY deliveries_due WHERE endpoint_id = ?"
        " AND state = 'pending' AND created_at <= ? LIMIT ?) RETURNING lane",
        (asked.now, endpoint, endpoint, asked.now, asked.limit),
    ).fetchall()
    _after_cancel(tx, endpoint, lanes, asked.now)
    return len(lanes)


def _after_cancel(tx: Transaction, endpoint: int, lanes: Sequence[Any], now: int) -> None:
    ended = {(endpoint, lane) for (lane,) in lanes if lane is not None}
    let_next_go(tx.connection, ended, now)
    tx.work = tx.work or bool(ended)


def _refuse(connection: Connection, event: int, endpoint: int, verb: str) -> None:
    name = ids.delivery_id(event, endpoint)
    row = connection.execute(
        "SELECT d.state, e.deleted_at FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id"
        " WHERE d.event_id = ? AND d.endpoint_id = ?",
        (event, endpoint),
    ).fetchone()
    if row is None:
        raise NotFound(f"There is no delivery {name}.")
    if row[1] is not None:
        raise Conflict("The endpoint of this delivery was deleted.")
    raise Conflict(f"Delivery {name} is {row[0]}, so it can't be {verb}.", state=row[0])
