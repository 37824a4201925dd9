"""Floor 2, edges: the writes of endpoints, and the cache of who is sent to. stdlib only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from receiver import ids
from receiver.delivery.rotation import Key, live, rotated
from receiver.delivery.signing import public_key
from receiver.endpoints import (
    Endpoint,
    EndpointSpec,
    Signature,
    State,
    Subscription,
    as_patterns,
)
from receiver.errors import NotFound, PreconditionFailed
from receiver.platforms.reading import dumps
from receiver.store.connection import Connection, Held, named
from receiver.store.protocol import EndpointChange, NewEndpoint, Revisions, Rotation
from receiver.store.seal import Seal
from receiver.store.verbs import health
from receiver.store.verbs.rows import endpoint_of, json_of
from receiver.store.verbs.secrets import (
    PRIVATE_KEYS,
    SECRETS,
    headers_of,
    headers_text,
    keys_of,
    keys_text,
)
from receiver.store.writer import Transaction


@dataclass(frozen=True, slots=True)
class Target:
    """What sending to an endpoint needs."""

    id: int
    url: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    secrets: tuple[Key, ...] = field(repr=False)
    private_keys: tuple[Key, ...] = field(repr=False)  # none unless it asks for v1a
    schedule: tuple[int, ...] | None
    concurrency: int
    rate_limit: float | None

    # Asked at each claim: this lives as long as nobody changes an endpoint.
    def secrets_at(self, now: int) -> tuple[str, ...]:
        """The secrets that sign at this moment, the newest first."""
        return live(self.secrets, now)

    def private_keys_at(self, now: int) -> tuple[str, ...]:
        """The Ed25519 keys that sign at this moment, the newest first."""
        return live(self.private_keys, now)


class Directory:
    """The endpoints as fan-out and claim see them; reloaded by the writer after each change.

    It lives on the writer's thread: `reload` runs after the commit that changed something.
    """

    def __init__(self, seal: Seal) -> None:
        self._seal = seal
        self.subscriptions: Sequence[Subscription] = ()
        self.targets: Sequence[Target] = ()

    def reload(self, connection: Connection) -> None:
        """Read all endpoints that are not deleted."""
        rows = connection.execute(
            "SELECT id, project, state, url, event_types, filters, headers, rate_limit,"
            " concurrency, schedule, secrets, signatures, private_keys, ordered"
            " FROM endpoints WHERE deleted_at IS NULL ORDER BY id"
        ).fetchall()
        self.subscriptions = [_subscription(row) for row in rows]
        self.targets = [_target(row, self._seal) for row in rows if row[2] == State.ENABLED]


def _subscription(row: Sequence[Any]) -> Subscription:
    filters = {name: as_patterns(wanted) for name, wanted in json_of(row[5]).items()}
    return Subscription(row[0], row[1], tuple(json_of(row[4])), filters, ordered=bool(row[13]))


def _target(row: Sequence[Any], seal: Seal) -> Target:
    number, schedule = row[0], json_of(row[9])
    with_v1a = Signature.V1A in json_of(row[11])
    return Target(
        id=number,
        url=row[3],
        headers=headers_of(seal, number, row[6]),
        secrets=keys_of(seal, number, SECRETS, row[10]),
        private_keys=keys_of(seal, number, PRIVATE_KEYS, row[12]) if with_v1a else (),
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
    revisions: Revisions = None


@dataclass(frozen=True, slots=True)
class Deletion:
    """An endpoint that somebody lets go; `now` in milliseconds."""

    endpoint: int
    now: int
    revisions: Revisions = None


# What they send again may be for an endpoint that was held until now.
_WAKE_JOBS: Final = "UPDATE jobs SET next_at = 0 WHERE state IN ('queued', 'running')"

_NEXT_DIRECTORY: Final = (
    "UPDATE meta SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT) WHERE name = 'directory'"
)

# The columns of what a user sets.
_SPEC: Final = (
    "url",
    "description",
    "event_types",
    "filters",
    "headers",
    "rate_limit",
    "concurrency",
    "schedule",
    "signatures",
    "ordered",
)


class Endpoints:
    """The endpoints' verbs; each leaves the directory as it stored it."""

    def __init__(self, directory: Directory, next_id: Callable[[], int], seal: Seal) -> None:
        self._directory = directory
        self._next_id = next_id
        self._seal = seal

    def add(self, tx: Transaction, new: NewEndpoint) -> Endpoint:
        """Store a new endpoint."""
        number = self._next_id()
        secrets = self._keys_text(number, SECRETS, [Key(new.secret)])
        tx.connection.execute(
            f"INSERT INTO endpoints ({', '.join(_SPEC)}, id, project, state, secrets, created_at)"
            f" VALUES ({', '.join('?' * len(_SPEC))}, ?, ?, ?, ?, ?)",
            (
                *self._spec_row(number, new.spec),
                number,
                new.project,
                State.ENABLED,
                secrets,
                new.now,
            ),
        )
        if Signature.V1A in new.spec.signatures:
            self._make_key(tx, number, new.private_key)
        return self._changed(tx, number)

    def change(self, tx: Transaction, change: EndpointChange) -> Endpoint:
        """Apply a patch; a new URL is used from the next attempt, and is believed to be well."""
        number = ids.parse(ids.ENDPOINT, change.id)
        current = self._take(tx.connection, number, change.revisions)
        spec = change.patch.of(current)
        if spec.url != current.url:
            health.begin_anew(tx.connection, number)
            tx.work = True
        tx.connection.execute(
            f"UPDATE endpoints SET {' = ?, '.join(_SPEC)} = ? WHERE id = ?",
            (*self._spec_row(number, spec), number),
        )
        # Made once: consumers keep the public half, also while v1a is not asked for.
        if Signature.V1A in spec.signatures and current.public_key is None:
            self._make_key(tx, number, change.private_key)
        return self._changed(tx, number)

    def _make_key(self, tx: Transaction, number: int, key: str) -> None:
        tx.connection.execute(
            "UPDATE endpoints SET private_keys = ?, public_key = ? WHERE id = ?",
            (self._keys_text(number, PRIVATE_KEYS, [Key(key)]), public_key(key), number),
        )

    def rotate(self, tx: Transaction, rotation: Rotation) -> Endpoint:
        """Put a new secret in front, and a new Ed25519 key if there is one."""
        number = ids.parse(ids.ENDPOINT, rotation.id)
        public = self._take(tx.connection, number, rotation.revisions).public_key
        self._rotate(tx.connection, number, SECRETS, rotation.secret, rotation)
        if public is not None:
            self._rotate(tx.connection, number, PRIVATE_KEYS, rotation.private_key, rotation)
            tx.connection.execute(
                "UPDATE endpoints SET public_key = ? WHERE id = ?",
                (public_key(rotation.private_key), number),
            )
        return self._changed(tx, number)

    def _rotate(
        self, connection: Connection, number: int, column: str, new: str, asked: Rotation
    ) -> None:
        query = f"SELECT {column} FROM endpoints WHERE id = ?"
        (text,) = connection.execute(query, (number,)).fetchone()
        keys = keys_of(self._seal, number, column, text)
        keys = rotated(keys, new, now=asked.now, overlap=asked.overlap)
        connection.execute(
            f"UPDATE endpoints SET {column} = ? WHERE id = ?",
            (self._keys_text(number, column, keys), number),
        )

    def set_state(self, tx: Transaction, change: StateChange) -> Endpoint:
        """Enable, pause or disable. What is enabled by hand is believed to be well."""
        if change.state is State.ENABLED:
            tx.connection.hold(Held.JOBS)  # one that is about to wait for it would not be woken
        self._take(tx.connection, change.endpoint, change.revisions)
        if change.state is State.ENABLED:
            health.begin_anew(tx.connection, change.endpoint)
            tx.connection.execute(_WAKE_JOBS)
        tx.connection.execute(
            "UPDATE endpoints SET state = ?, reason = ? WHERE id = ?",
            (change.state, change.reason, change.endpoint),
        )
        tx.work = True
        return self._changed(tx, change.endpoint)

    def delete(self, tx: Transaction, asked: Deletion) -> None:
        """Forget an endpoint and cancel its queue; its past deliveries stay readable."""
        number, now = asked.endpoint, asked.now
        self._take(tx.connection, number, asked.revisions)
        tx.connection.execute(
            "UPDATE endpoints SET deleted_at = ?, state = 'disabled', secrets = '[]',"
            " private_keys = '[]', headers = '{}' WHERE id = ?",
            (now, number),
        )
        health.forget(tx.connection, number)
        tx.connection.execute(
            "UPDATE deliveries SET state = 'canceled', next_attempt_at = NULL, settled_at = ?"
            " WHERE endpoint_id = ? AND state = 'pending'",
            (now, number),
        )
        self._reload_later(tx)

    def _changed(self, tx: Transaction, number: int) -> Endpoint:
        tx.connection.execute(
            "UPDATE endpoints SET revision = revision + 1 WHERE id = ?", (number,)
        )
        self._reload_later(tx)
        return self._read(tx.connection, number)

    def _reload_later(self, tx: Transaction) -> None:
        if tx.connection.is_shared:  # the others read it anew with their next transaction
            tx.connection.execute(_NEXT_DIRECTORY)
        # What is rolled back must not be sent to.
        tx.after_commit.append(lambda: self._directory.reload(tx.connection))

    def _take(self, connection: Connection, number: int, revisions: Revisions) -> Endpoint:
        # What is read here is written back, whole: nobody may change it in between.
        connection.lock("endpoints", "id", [number])
        return self._read(connection, number, revisions)

    def _read(self, connection: Connection, number: int, revisions: Revisions = None) -> Endpoint:
        rows = named(connection.execute(f"{health.ENDPOINT} WHERE e.id = ?", (number,)))
        if not rows:
            raise NotFound(f"There is no endpoint {ids.ENDPOINT}{ids.encode(number)}.")
        (row,) = rows
        if revisions is not None and row["revision"] not in revisions:
            raise PreconditionFailed(revision=row["revision"])
        return endpoint_of(row, self._seal)

    def _keys_text(self, number: int, column: str, keys: Sequence[Key]) -> str:
        return keys_text(self._seal, number, column, keys)

    def _spec_row(self, number: int, spec: EndpointSpec) -> tuple[Any, ...]:
        """The values of `_SPEC`, in that order."""
        return (
            spec.url,
            spec.description,
            dumps(spec.event_types),
            dumps(spec.filters),
            headers_text(self._seal, number, spec.headers),
            spec.rate_limit,
            spec.concurrency,
            None if spec.schedule is None else dumps(spec.schedule),
            dumps(spec.signatures),
            spec.ordered,
        )
