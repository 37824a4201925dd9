"""Whether a store holds what was acknowledged, read by stdlib sqlite3 alone, none of our code.

For each acknowledged callback: its bytes once, its results once, one `result.*` event a result and
one `task.completed` a complete task, and one delivery of each for every endpoint that wants it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from uuid import UUID

from scripts.proofs.harness import Callback


def problems_of(
    database: Path, acknowledged: Iterable[Callback], *, sent: Mapping[str, set[str]] | None = None
) -> list[str]:
    """What is wrong with the acknowledged callbacks; [] if nothing is.

    `sent` (task -> the keys of all results ever sent) finds results that nobody sent, too.
    The file is opened read only, also beside a running receiver.
    """
    with closing(_open(database)) as connection:
        return list(_problems(connection, acknowledged, sent))


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


def _open(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)


def _problems(
    connection: sqlite3.Connection,
    acknowledged: Iterable[Callback],
    sent: Mapping[str, set[str]] | None,
) -> Iterator[str]:
    endpoints = [
        (row[0], json.loads(row[1]))
        for row in connection.execute(
            "SELECT id, event_types FROM endpoints WHERE deleted_at IS NULL"
        )
    ]
    by_task: dict[str, dict[bytes, Callback]] = {}
    for callback in acknowledged:
        by_task.setdefault(callback.task, {})[callback.sha256] = callback
    for task, callbacks in by_task.items():
        row = connection.execute(
            "SELECT n, expected, succeeded, failed FROM tasks WHERE id = ?", (UUID(task).bytes,)
        ).fetchone()
        if row is None:
            yield f"{task}: {len(callbacks)} acknowledged, and the task is not there"
            continue
        kept = _Kept(connection, task, row[0])
        yield from kept.bodies(callbacks)
        yield from kept.results(callbacks, row[2] + row[3], None if sent is None else sent[task])
        yield from kept.events(row[1])
        yield from kept.deliveries(endpoints)


class _Kept:
    """All that is kept of one task."""

    def __init__(self, connection: sqlite3.Connection, task: str, number: int) -> None:
        self._task = task
        self._connection = connection
        self._callbacks = self._all("SELECT sha256, body FROM callbacks WHERE task_n = ?", number)
        self._results = self._all("SELECT key, idx FROM results WHERE task_n = ?", number)
        self._events = self._all("SELECT id, type, payload FROM events WHERE task_n = ?", number)

    def _all(self, query: str, value: int) -> list[Any]:
        return self._connection.execute(query, (value,)).fetchall()

    def bodies(self, callbacks: Mapping[bytes, Callback]) -> Iterator[str]:
        """Each acknowledged body is there once, byte for byte."""
        found = Counter(row[0] for row in self._callbacks)
        for digest, callback in callbacks.items():
            if found[digest] != 1:
                yield f"{self._task}: {callback.keys} acknowledged, {found[digest]} callbacks kept"
        for digest, body in self._callbacks:
            if hashlib.sha256(body).digest() != digest:
                yield f"{self._task}: a body does not have its digest"

    def results(
        self, callbacks: Mapping[bytes, Callback], counted: int, sent: set[str] | None
    ) -> Iterator[str]:
        """Each acknowledged result is there, none that nobody sent, and the task counts them."""
        keys = {row[0] for row in self._results}
        owed = {key for callback in callbacks.values() for key in callback.keys}
        for key in owed - keys:
            yield f"{self._task}: result {key} acknowledged, not kept"
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
        for event, kind, _ in self._events:
            wanting = {
                endpoint
                for endpoint, patterns in endpoints
                if any(fnmatchcase(kind, pattern) for pattern in patterns)
            }
            rows = self._all("SELECT endpoint_id FROM deliveries WHERE event_id = ?", event)
            if {row[0] for row in rows} != wanting:
                yield f"{self._task}: {kind} goes to {len(rows)} endpoints, {len(wanting)} want it"
