"""Floor 2, edges: a job's walk through what it sends again. stdlib only.

It goes through deliveries, then through events that have none, in the order of their ids, a chunk
of either at a time, so that a step is bounded whatever it looks for. Where an endpoint got all that
it has room for, the step ends and the next one goes on there. What an endpoint has no room for at
all is passed over, so that it is in no other one's way, and the walk begins anew at its end.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from receiver import ids
from receiver.clock import from_datetime
from receiver.deliveries import State
from receiver.endpoints import State as EndpointState
from receiver.endpoints import Subscription, types_like
from receiver.ids import ENTROPY_BITS
from receiver.repair import Job, JobKind, Repair
from receiver.store.connection import Connection
from receiver.store.verbs.entries import add_deliveries, note_resends
from receiver.store.verbs.queue import begin_rounds
from receiver.store.verbs.rows import task_key
from receiver.store.verbs.wanting import FACTS, wanting
from receiver.store.verbs.where import Where

# A step ends after so many deliveries, or when its time is over: ingest waits behind it.
MOST: Final = 100
CHUNK: Final = 100  # rows that are looked at between two looks at the clock
ROUNDS: Final = 2  # times its concurrency is what an endpoint gets ahead of what is new

_LAST: Final = (1 << 63) - 1
_DELIVERIES, _EVENTS = 0, 1

Key = tuple[int, ...]


class Walk:
    """One step. `place` is where the last one stopped, [] at the beginning."""

    def __init__(
        self,
        connection: Connection,
        number: int,
        job: Job,
        subscriptions: Sequence[Subscription],
        now: int,
        place: Sequence[int],
    ) -> None:
        self._connection = connection
        self._number = number
        self._job = job
        self._repair = job.asked
        self._now = now
        self._subscriptions = subscriptions
        self._stage, self._left, self._took = place[:3] or (_DELIVERIES, 0, 0)
        self._at: Key = tuple(place[3:]) or self._start(self._stage)
        self._room: dict[int, int] = {}
        self._served: set[int] = set()
        self._held = False
        self.is_idle = False  # a whole walk found room for nothing, or its endpoint is held
        self.taken = 0
        self.stopped = False  # there is no room for more now
        self.finished = False

    @property
    def place(self) -> list[int]:
        """Where the next step goes on."""
        return [self._stage, self._left, self._took or int(self.taken > 0), *self._at]

    @property
    def note(self) -> str | None:
        """What it waits for, beyond the usual."""
        return "an endpoint is paused or disabled: what is for it waits" if self._held else None

    def step(self) -> None:
        """Take what there is room and time for."""
        until = time.monotonic() + self._connection.patience
        while self._wanted > 0 and not self.stopped and not self.finished:
            if self._stage == _DELIVERIES:
                self._take_deliveries()
            else:
                self._take_events()
            if self.taken >= MOST or time.monotonic() > until:
                break
        limit = self._repair.limit
        self.finished = self.finished or limit == self._job.done + self.taken

    @property
    def _wanted(self) -> int:
        limit = self._repair.limit
        return MOST if limit is None else limit - self._job.done - self.taken

    def _start(self, stage: int) -> Key:
        since = first_event(self._repair) - 1
        return (since, _LAST) if stage == _DELIVERIES else (since,)

    def _take_deliveries(self) -> None:
        keys = self._connection.execute(
            f"SELECT event_id, endpoint_id FROM deliveries d{_by(self._repair)}"
            " (event_id, endpoint_id) > (?, ?) AND event_id < ?"
            " ORDER BY event_id, endpoint_id LIMIT ?",
            (*self._at, self._number, CHUNK),
        ).fetchall()
        if not keys:
            self._end_of(_DELIVERIES)
            return
        settled_by = from_datetime(self._job.created_at)
        where = matching(self._repair, settled_by)
        where.add("(d.event_id, d.endpoint_id) > (?, ?)", *self._at)
        where.add("(d.event_id, d.endpoint_id) <= (?, ?)", *keys[-1])
        found = self._connection.execute(
            f"SELECT d.event_id, d.endpoint_id FROM {joined(self._repair)}{where.clause}"
            " ORDER BY d.event_id, d.endpoint_id",
            where.values,
        ).fetchall()
        taken = self._allowed([(key, key[1]) for key in found], keys[-1])
        begin_rounds(self._connection, [(event, endpoint) for event, endpoint in taken], self._now)
        note_resends(self._connection, dict.fromkeys(event for event, _ in taken), self._now)

    def _take_events(self) -> None:
        keys = self._connection.execute(
            "SELECT id FROM events WHERE id > ? AND id < ? ORDER BY id LIMIT ?",
            (*self._at, self._number, CHUNK),
        ).fetchall()
        if not keys:
            self._end_of(_EVENTS)
            return
        self._connection.lock("events", "id", [event for (event,) in keys])
        sql, values = missing_of(self._repair, self._at[0], keys[-1][0])
        endpoint = ids.parse(ids.ENDPOINT, self._repair.endpoint or "")
        mine = [one for one in self._subscriptions if one.endpoint == endpoint]
        found = [
            ((event,), endpoint)
            for event, project, *facts in self._connection.execute(sql, values).fetchall()
            if wanting(mine, project, facts)
        ]
        taken = [event for (event,) in self._allowed(found, keys[-1])]
        for event in taken:
            add_deliveries(self._connection, event, [endpoint], self._now)
        note_resends(self._connection, taken, self._now)

    def _allowed(self, found: Sequence[tuple[Key, int]], last: Key) -> list[Key]:
        # What there is room for, in order; and the walk goes on behind it, or behind the chunk.
        allowed: list[Key] = []
        for key, endpoint in found:
            if not self._wanted:
                return allowed
            if self._has_room(endpoint):
                self.taken += 1
                self._served.add(endpoint)
                allowed.append(key)
            elif self._repair.endpoint is not None or endpoint in self._served:
                self.stopped, self.is_idle = True, self._held and not self.taken
                return allowed
            else:
                self._left = 1
                continue
            self._at = key
        self._at = last
        return allowed

    def _has_room(self, endpoint: int) -> bool:
        if endpoint not in self._room:
            self._room[endpoint] = self._room_of(endpoint)
        self._room[endpoint] -= 1
        return self._room[endpoint] >= 0

    def _room_of(self, endpoint: int) -> int:
        state, concurrency = self._connection.execute(
            "SELECT state, concurrency FROM endpoints WHERE id = ?", (endpoint,)
        ).fetchone()
        if state != EndpointState.ENABLED:
            self._held = True
            return 0
        most: int = ROUNDS * concurrency
        due: int = self._connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM deliveries INDEXED BY deliveries_due"
            " WHERE endpoint_id = ? AND state = 'pending' AND next_attempt_at <= ? LIMIT ?) r",
            (endpoint, self._now, most),
        ).fetchone()[0]
        return most - due

    def _end_of(self, stage: int) -> None:
        if stage == _DELIVERIES and self._repair.missing:
            self._stage = _EVENTS
        elif self._left:
            self.is_idle = not (self._took or self.taken)
            self._stage, self._left, self._took, self.stopped = _DELIVERIES, 0, 0, True
        else:
            self.finished = True
        self._at = self._start(self._stage)


def first_event(repair: Repair) -> int:
    """The least id that an event of a recovery's time can have: ids are never behind the clock."""
    if repair.kind is not JobKind.RECOVER or repair.since is None:
        return 0
    return from_datetime(repair.since) << ENTROPY_BITS


def _by(repair: Repair) -> str:
    # Where no index holds them alone, whatever comes is looked at: to look for a hundred among a
    # million others would be one long statement, and ingest waits behind it.
    index = _index(repair)
    return f"{index} WHERE {_state(repair)} AND" if index else " WHERE"


def _index(repair: Repair) -> str:
    return " INDEXED BY deliveries_dead" if repair.states == [State.DEAD] else ""


def _state(repair: Repair) -> str:
    # Words of ours, written out: only so the index of the dead can be used.
    if repair.states == [State.DEAD]:
        return "d.state = 'dead'"
    words = ", ".join(f"'{state}'" for state in repair.states)
    return f"d.state IN ({words})"


def joined(repair: Repair) -> str:
    """The tables that `matching` speaks of."""
    task = " LEFT JOIN tasks t ON t.n = e.task_n" if repair.task is not None else ""
    return (
        f"deliveries d{_index(repair)} JOIN endpoints ep ON ep.id = d.endpoint_id"
        f" JOIN events e ON e.id = d.event_id{task}"
    )


def matching(repair: Repair, settled_by: int) -> Where:
    """The deliveries that a job sends again: settled by its beginning, and so none twice."""
    where = Where()
    where.add(_state(repair))
    where.add("d.settled_at <= ?", settled_by)
    where.add("ep.deleted_at IS NULL")
    where.same("ep.project", repair.project)
    if repair.endpoint is not None:
        where.add("d.endpoint_id = ?", ids.parse(ids.ENDPOINT, repair.endpoint))
    where.one_of("e.type", repair.event_type and types_like(repair.event_type))
    where.same("d.last_error", repair.last_error)
    where.same("d.last_status", repair.last_status)
    if repair.task is not None:
        where.add("t.id = ?", task_key(repair.task))
    if repair.kind is JobKind.RECOVER:
        where.add("d.event_id >= ?", first_event(repair))
    between(where, "e" if repair.kind is JobKind.RECOVER else "d", repair)
    return where


def between(where: Where, table: str, repair: Repair) -> None:
    """The table's `created_at` is within the repair's times."""
    if repair.since is not None:
        where.add(f"{table}.created_at >= ?", from_datetime(repair.since))
    if repair.until is not None:
        where.add(f"{table}.created_at < ?", from_datetime(repair.until))


def missing_of(repair: Repair, after: int, to: int) -> tuple[str, Sequence[Any]]:
    """Events of a recovery's time, from one id to another, that its endpoint has no delivery of."""
    where = Where()
    where.add("e.id > ? AND e.id <= ?", after, to)
    where.add("e.type <> 'endpoint.test'")
    where.add(
        "NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event_id = e.id AND d.endpoint_id = ?)",
        ids.parse(ids.ENDPOINT, repair.endpoint or ""),
    )
    between(where, "e", repair)
    sql = (
        f"SELECT e.id, e.project, {FACTS} FROM events e LEFT JOIN tasks t ON t.n = e.task_n"
        f"{where.clause} ORDER BY e.id"
    )
    return sql, where.values
