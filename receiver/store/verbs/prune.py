"""Floor 2, edges: what is too old goes, a little at a time. stdlib only.

Each table is walked in the order of its ids, which is that of time, up to the bound; so no index is
needed that ingest would have to keep. What is still at work stays behind the walk, and is looked at
again by the next one. Children go in the same transaction as what they hang on.

Last the file shrinks, where there is one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from receiver.clock import DAY
from receiver.errors import Invalid
from receiver.ids import ENTROPY_BITS
from receiver.keeping import TOKENS, Bounds
from receiver.store.connection import Connection, Held
from receiver.store.protocol import Prune, PruneStep
from receiver.store.writer import Transaction

# A step ends after so many rows, or when its time is over: ingest waits behind it.
ROWS: Final = 200
CHUNK: Final = 20  # rows that are looked at between two looks at the clock

_MARK: Final = "bodies_dropped_to"

Found = Counter[str]
Key = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """The rows of a table after one key, up to another."""

    asked: Prune
    after: Key
    to: Key

    @property
    def values(self) -> dict[str, Any]:
        bounds, now, dry = self.asked.bounds, self.asked.now, self.asked.dry_run
        keys = {f"after{n}": part for n, part in enumerate(self.after)}
        keys |= {f"to{n}": part for n, part in enumerate(self.to)}
        ages = {name: getattr(bounds, name) for name in Bounds.__slots__}
        more = {"now": now, "given_up": now - 2 * TOKENS, "dry": int(dry), "nothing": b""}
        return {**keys, **ages, **more}


@dataclass(frozen=True, slots=True)
class _Walk:
    """One table: `keys` lists its next ids below a bound, `drop` deals with a chunk of them."""

    age: Callable[[Bounds], int]
    width: int  # integers in a key
    keys: str
    drop: Callable[[Connection, _Chunk], Found]


# Gives room back to the system at a walk's end, until a moment: what it gave, and whether there is
# more. `freed`: an earlier step gave some.
Shrink = Callable[[Transaction, Prune, float, bool], tuple[Found, bool]]


def keep_room(_tx: Transaction, _asked: Prune, _until: float, _freed: bool) -> tuple[Found, bool]:
    """What a database does that sees to its room itself."""
    return Found(), False


def prune(tx: Transaction, asked: Prune, shrink: Shrink) -> PruneStep:
    """One step of a walk through everything, from where the last one stopped. Raises Invalid."""
    tx.connection.hold(Held.PRUNE)
    found, until = Found(), time.monotonic() + tx.connection.patience
    at: Key | None = _checked(asked.place) or (0, _mark(tx.connection))
    # Bytes count like rows here: a step that gave pages back is a whole one.
    while at is not None and sum(found.values()) < ROWS and time.monotonic() < until:
        stage, *after = at
        if stage == len(_WALKS):
            counted, has_more = shrink(tx, asked, until, bool(after))
            at = (len(_WALKS), 1) if has_more else None
        else:
            counted, at = _take(tx.connection, asked, stage, tuple(after))
        found += counted
    return PruneStep(dict(found), at)


def _take(connection: Connection, asked: Prune, stage: int, after: Key) -> tuple[Found, Key]:
    walk = _WALKS[stage]
    after = after or (0,) * walk.width
    below = _below(connection, walk.age(asked.bounds), asked.now)
    keys = connection.execute(walk.keys, (*after, below, CHUNK)).fetchall()
    if not keys:
        return Found(), (stage + 1,)
    found = walk.drop(connection, _Chunk(asked, after, keys[-1]))
    return found, ((stage, *keys[-1]) if len(keys) == CHUNK else (stage + 1,))


def _below(connection: Connection, age: int, now: int) -> int:
    # A clock that was ahead once has left ids that are ahead for good: then only the rows' own
    # times tell, and all of them have to be looked at.
    (newest,) = connection.execute("SELECT max(id) FROM callbacks").fetchone()
    ahead = (newest or 0) >> ENTROPY_BITS > now + DAY
    return _LAST if age and ahead else age << ENTROPY_BITS


_LAST: Final = (1 << 63) - 1


def _checked(place: Key) -> Key:
    widths = (*(walk.width for walk in _WALKS), 1)
    if place and (place[0] >= len(widths) or len(place) not in (1, 1 + widths[place[0]])):
        raise Invalid("That cursor is not one that a prune gave.", parameter="cursor")
    return place


def look_again(connection: Connection, callback: int) -> None:
    """A callback was read after all, so its body may go: let the next walk begin before it."""
    _set_mark(connection, min(_mark(connection), callback - 1))


def _set_mark(connection: Connection, callback: int) -> None:
    connection.execute(
        "INSERT INTO meta (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (_MARK, str(callback)),
    )


def _mark(connection: Connection) -> int:
    # Callbacks stay when their bodies have gone, so without it each walk would see all of them.
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (_MARK,)).fetchone()
    return 0 if row is None else int(row[0])


# Bodies. What nobody could read, or what came too late to be taken, may hold a result that is known
# from nowhere else: it stays until somebody takes it once more, or its task goes.

_BODY_GOES: Final = (
    "id > :after0 AND id <= :to0 AND received_at < :bodies"
    " AND outcome NOT IN ('quarantined', 'expired')"
    " AND body_dropped_at IS NULL"
)


def _drop_bodies(connection: Connection, chunk: _Chunk) -> Found:
    if chunk.asked.dry_run:
        return Found(bodies=_count(connection, f"callbacks WHERE {_BODY_GOES}", chunk.values))
    _move_mark(connection, chunk)
    dropped = connection.execute(
        f"UPDATE callbacks SET body = :nothing, body_dropped_at = :now WHERE {_BODY_GOES}",
        chunk.values,
    )
    return Found(bodies=dropped.rowcount)


def _move_mark(connection: Connection, chunk: _Chunk) -> None:
    (young,) = connection.execute(
        "SELECT min(id) FROM callbacks"
        " WHERE id > :after0 AND id <= :to0 AND received_at >= :bodies",
        chunk.values,
    ).fetchone()
    if _mark(connection) >= chunk.after[0]:
        _set_mark(connection, chunk.to[0] if young is None else young - 1)


# Attempts, before and apart from their deliveries; those of a delivery in its queue stay.

_ATTEMPT_GOES: Final = (
    "(event_id, endpoint_id, number) > (:after0, :after1, :after2)"
    " AND (event_id, endpoint_id, number) <= (:to0, :to1, :to2) AND at < :attempts"
    " AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event_id = attempts.event_id"
    " AND d.endpoint_id = attempts.endpoint_id AND d.settled_at IS NULL)"
)


def _drop_attempts(connection: Connection, chunk: _Chunk) -> Found:
    if chunk.asked.dry_run:
        return Found(attempts=_count(connection, f"attempts WHERE {_ATTEMPT_GOES}", chunk.values))
    dropped = connection.execute(f"DELETE FROM attempts WHERE {_ATTEMPT_GOES}", chunk.values)
    return Found(attempts=dropped.rowcount)


# An event goes with all of its deliveries at once: while it is there, a PUT of its task may add
# deliveries to it, and must find those that were. The newest one stays: its `seq` is where the next
# one counts on, and where cursors stand.

_EVENT_GOES: Final = (
    "created_at < :events AND seq < (SELECT max(seq) FROM events)"
    " AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event_id = events.id"
    " AND (d.settled_at IS NULL OR d.settled_at >= :events))"
)


def _drop_events(connection: Connection, chunk: _Chunk) -> Found:
    going = _ids(
        connection,
        f"SELECT id FROM events WHERE id > :after0 AND id <= :to0 AND {_EVENT_GOES}",
        chunk.values,
    )
    tables = (("attempts", "event_id"), ("deliveries", "event_id"), ("resends", "event_id"))
    found = _drop_with(connection, chunk, going, (*tables, ("events", "id")))
    del found["resends"]  # a line of the feed, and nothing of its own
    return found


# A task goes when nothing has happened to it since the bound, and none of its events is left: one
# that is called back, revoked, polled or owed could be needed again, and a token of it may live.

_TASK_GOES: Final = (
    "completed_at < :tasks AND coalesce(give_up_at, 0) < :given_up"
    " AND max(coalesce(revoked_at, 0), coalesce(reconcile_at, 0), coalesce(reconcile_lease, 0))"
    " < :tasks"
    " AND NOT EXISTS (SELECT 1 FROM results WHERE task_n = n AND received_at >= :tasks)"
    " AND NOT EXISTS (SELECT 1 FROM callbacks WHERE task_n = n AND last_received_at >= :tasks)"
    " AND NOT EXISTS (SELECT 1 FROM events WHERE task_n = n"
    f" AND NOT (:dry = 1 AND {_EVENT_GOES}))"
)


def _drop_tasks(connection: Connection, chunk: _Chunk) -> Found:
    going = _ids(
        connection,
        f"SELECT n FROM tasks WHERE n > :after0 AND n <= :to0 AND {_TASK_GOES}",
        chunk.values,
    )
    return _drop_with(
        connection, chunk, going, (("results", "task_n"), ("callbacks", "task_n"), ("tasks", "n"))
    )


# Callbacks that name no task have none to go with.

_ORPHAN: Final = "outcome = 'quarantined' AND outcome <> 'recorded' AND task_n IS NULL"


def _drop_orphans(connection: Connection, chunk: _Chunk) -> Found:
    going = _ids(
        connection,
        f"SELECT id FROM callbacks WHERE {_ORPHAN} AND id > :after0 AND id <= :to0"
        " AND last_received_at < :tasks",
        chunk.values,
    )
    return _drop_with(connection, chunk, going, (("callbacks", "id"),))


# The audit log, whose rows are in the order of their times; the newest stays, as of events.

_AUDIT_GOES: Final = (
    "seq > :after0 AND seq <= :to0 AND at < :tasks AND seq < (SELECT max(seq) FROM audit)"
)


def _drop_audit(connection: Connection, chunk: _Chunk) -> Found:
    if chunk.asked.dry_run:
        return Found(audit=_count(connection, f"audit WHERE {_AUDIT_GOES}", chunk.values))
    dropped = connection.execute(f"DELETE FROM audit WHERE {_AUDIT_GOES}", chunk.values)
    return Found(audit=dropped.rowcount)


_WALKS: Final = (
    _Walk(
        lambda bounds: bounds.bodies,
        1,
        "SELECT id FROM callbacks WHERE id > ? AND id < ? ORDER BY id LIMIT ?",
        _drop_bodies,
    ),
    _Walk(
        lambda bounds: bounds.attempts,
        3,
        "SELECT event_id, endpoint_id, number FROM attempts"
        " WHERE (event_id, endpoint_id, number) > (?, ?, ?) AND event_id < ?"
        " ORDER BY event_id, endpoint_id, number LIMIT ?",
        _drop_attempts,
    ),
    _Walk(
        lambda bounds: bounds.events,
        1,
        "SELECT id FROM events WHERE id > ? AND id < ? ORDER BY id LIMIT ?",
        _drop_events,
    ),
    _Walk(
        lambda bounds: bounds.tasks,
        1,
        "SELECT n FROM tasks WHERE n > ? AND n < ? ORDER BY n LIMIT ?",
        _drop_tasks,
    ),
    _Walk(
        lambda bounds: bounds.tasks,
        1,
        f"SELECT id FROM callbacks WHERE {_ORPHAN} AND id > ? AND id < ? ORDER BY id LIMIT ?",
        _drop_orphans,
    ),
    _Walk(
        lambda bounds: bounds.tasks,
        1,
        f"SELECT seq FROM audit WHERE seq > ? AND at < (CAST(? AS BIGINT) >> {ENTROPY_BITS})"
        " ORDER BY seq LIMIT ?",
        _drop_audit,
    ),
)


def _count(connection: Connection, rows: str, values: Any) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {rows}", values).fetchone()[0])


def _ids(connection: Connection, select: str, values: dict[str, int]) -> list[int]:
    found = [row[0] for row in connection.execute(f"{select}{connection.skip_locked}", values)]
    if found and connection.is_shared:
        # Until they were held, somebody may have begun to need one: that is seen only now.
        still = {row[0] for row in connection.execute(select, values)}
        return [one for one in found if one in still]
    return found


def _drop_with(
    connection: Connection,
    chunk: _Chunk,
    going: Sequence[int],
    tables: Sequence[tuple[str, str]],
) -> Found:
    found = Found()
    for table, column in tables if going else ():
        rows = f"{table} WHERE {column} IN ({','.join('?' * len(going))})"
        if not chunk.asked.dry_run:
            found[table] = connection.execute(f"DELETE FROM {rows}", going).rowcount
        elif table != "attempts":  # none is left: they are walked first, and no younger
            found[table] = _count(connection, rows, going)
    return found
