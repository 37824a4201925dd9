"""Whether a store holds what was acknowledged, read by stdlib sqlite3 and none of our SQL.

For each acknowledged callback: its bytes once, its results once, one `result.*` event a result and
one `task.completed` a complete task, and one delivery of each for every endpoint that wants it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from uuid import UUID

from receiver import ids
from scripts.proofs.harness import Callback


def problems_of(
    database: Path,
    acknowledged: Iterable[Callback],
    *,
    in_doubt: Iterable[Callback] = (),
    sent: Mapping[str, set[str]] | None = None,
) -> list[str]:
    """What is wrong with the acknowledged callbacks; [] if nothing is.

    One `in_doubt` (sent, no whole answer came) may be there or not, but whole: never in parts.
    `sent` (task -> the keys of all results ever sent) finds results that nobody sent, too.
    The file is opened read only, also beside a running receiver that gets no callbacks meanwhile.
    """
    with closing(_open(database)) as connection:
        return list(_problems(connection, acknowledged, in_doubt, sent))


def integrity_of(database: Path) -> list[str]:
    """What `PRAGMA integrity_check` says; [] if ok."""
    with closing(_open(database)) as connection:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    return [] if found == ["ok"] else found


def counts_of(database: Path) -> dict[str, int]:
    """Rows by table."""
    with closing(_open(database)) as connection:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("tasks", "callbacks", "results", "events", "deliveries", "attempts")
        }


def succeeded_of(database: Path) -> set[str]:
    """The `webhook-id` of every event that some endpoint is said to have taken."""
    with closing(_open(database)) as connection:
        rows = connection.execute("SELECT event_id FROM deliveries WHERE state = 'succeeded'")
        return {ids.EVENT + ids.encode(row[0]) for row in rows}


def _open(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)


def _problems(
    connection: sqlite3.Connection,
    acknowledged: Iterable[Callback],
    in_doubt: Iterable[Callback],
    sent: Mapping[str, set[str]] | None,
) -> Iterator[str]:
    endpoints = [
        (row[0], json.loads(row[1]))
        for row in connection.execute(
            "SELECT id, event_types FROM endpoints WHERE deleted_at IS NULL"
        )
    ]
    for task, asked in _by_task(acknowledged, in_doubt).items():
        row = connection.execute(
            "SELECT n, expected, succeeded, failed FROM tasks WHERE id = ?", (UUID(task).bytes,)
        ).fetchone()
        if row is not None:
            kept = _Kept(connection, task, row[0])
            yield from kept.bodies(asked)
            yield from kept.results(asked, row[2] + row[3], None if sent is None else sent[task])
            yield from kept.events(row[1])
            yield from kept.deliveries(endpoints)
        elif asked.acknowledged:
            yield f"{task}: {len(asked.acknowledged)} acknowledged, and the task is not there"


@dataclass(slots=True)
class _Asked:
    """The callbacks of one task that are looked for, by digest."""

    acknowledged: dict[bytes, Callback] = field(default_factory=dict)
    in_doubt: dict[bytes, Callback] = field(default_factory=dict)


def _by_task(
    acknowledged: Iterable[Callback], in_doubt: Iterable[Callback]
) -> Mapping[str, _Asked]:
    found: dict[str, _Asked] = defaultdict(_Asked)
    for callback in acknowledged:
        found[callback.task].acknowledged[callback.sha256] = callback
    for callback in in_doubt:
        found[callback.task].in_doubt[callback.sha256] = callback
    return found


class _Kept:
    """All that is kept of one task."""

    def __init__(self, connection: sqlite3.Connection, task: str, number: int) -> None:
        self._task = task
        self._connection = connection
        self._callbacks = self._all("SELECT sha256, body FROM callbacks WHERE task_n = ?", number)
        self._results = self._all("SELECT key, idx FROM results WHERE task_n = ?", number)
        self._events = self._all("SELECT id, type, payload FROM events WHERE task_n = ?", number)

        self._deliveries = self._all(
            "SELECT event_id, endpoint_id FROM deliveries"
            " WHERE event_id IN (SELECT id FROM events WHERE task_n = ?)",
            number,
        )

    def _all(self, query: str, value: int) -> list[Any]:
        return self._connection.execute(query, (value,)).fetchall()

    def bodies(self, asked: _Asked) -> Iterator[str]:
        """Each acknowledged body is there once, byte for byte; one in doubt at most once."""
        found = Counter(row[0] for row in self._callbacks)
        for digest, callback in asked.acknowledged.items():
            if found[digest] != 1:
                yield f"{self._task}: {callback.keys} acknowledged, {found[digest]} callbacks kept"
        for digest, callback in asked.in_doubt.items():
            if found[digest] > 1:
                yield f"{self._task}: {callback.keys} in doubt, {found[digest]} callbacks kept"
        for digest, body in self._callbacks:
            if hashlib.sha256(body).digest() != digest:
                yield f"{self._task}: a body does not have its digest"

    def results(self, asked: _Asked, counted: int, sent: set[str] | None) -> Iterator[str]:
        """Each acknowledged result is there, none that nobody sent, and the task counts them."""
        keys = {row[0] for row in self._results}
        bodies = {row[0] for row in self._callbacks}
        for callback in asked.acknowledged.values():
            for key in set(callback.keys) - keys:
                yield f"{self._task}: result {key} acknowledged, not kept"
        for digest, callback in asked.in_doubt.items():
            if any((key in keys) != (digest in bodies) for key in callback.keys):
                yield f"{self._task}: of {callback.keys} either body or result is kept, not both"
        if sent is not None and keys - sent:
            yield f"{self._task}: results that nobody sent: {keys - sent}"
        if counted != len(keys):
            yield f"{self._task}: counts {counted} results, has {len(keys)}"

    def events(self, expected: int) -> Iterator[str]:
        """One event a result, which names it, and one completion of a complete task."""
        told = Counter(
            json.loads(payload)["data"]["result"]["index"]
            for _, kind, payload in self._events
            if kind.startswith("result.")
        )
        for key, index in self._results:
            if told[index] != 1:
                yield f"{self._task}: result {key} told {told[index]} times"
        if told.total() != len(self._results):
            yield f"{self._task}: {told.total()} events for {len(self._results)} results"
        completions = sum(kind == "task.completed" for _, kind, _ in self._events)
        if completions != (len(self._results) == expected):
            yield f"{self._task}: {completions} task.completed for {len(self._results)} results"

    def deliveries(self, endpoints: Iterable[tuple[int, list[str]]]) -> Iterator[str]:
        """One delivery for every event and endpoint that wants it."""
        found: dict[int, set[int]] = defaultdict(set)
        for event, endpoint in self._deliveries:
            found[event].add(endpoint)
        for event, kind, _ in self._events:
            wanting = {
                endpoint
                for endpoint, patterns in endpoints
                if any(fnmatchcase(kind, pattern) for pattern in patterns)
            }
            if found[event] != wanting:
                yield f"{self._task}: {kind} for {found[event]}, and {wanting} want it"
