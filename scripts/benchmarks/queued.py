"""Fills a store with deliveries that are due, by SQL, and reads what became of them.

The endpoints are made by the receiver itself, so that their rows are what it makes today.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from receiver import ids
from receiver.ids import ENTROPY_BITS
from scripts.benchmarks.ingest import DATABASE, ask, receiving

# A result.succeeded as it is sent; %d is where its number goes.
PAYLOAD: Final = (
    '{"type":"result.succeeded","timestamp":"2026-11-20T19:40:04.120Z","data":{"task":'
    '{"id":"24cd5dff-cb81-4db5-8506-b72a9425f9d1","platform":"runware","model":"pixverse:1@6",'
    '"project":"default","status":"partial","expected":4,"succeeded":1,"failed":0,"cost":0.4715,'
    '"tags":{"projectId":"proj_789"},"metadata":{}},"result":{"id":"res_01hzkq3v9w8g7","index":0,'
    '"kind":"succeeded","media":[{"kind":"video","id":"b3f1a7a8-5d0f-4f5e-9d51-3f3c1f2a9a01","url":'
    '"https://vm.runware.ai/video/os/a15d18/ws/5/vi/b3f1a7a8-5d0f-4f5e-9d51-3f3c1f2a9a01.mp4",'
    '"expires_at":null}],"seed":%d,"cost":0.4715,"nsfw":null,"raw":{"taskType":"videoInference",'
    '"taskUUID":"24cd5dff-cb81-4db5-8506-b72a9425f9d1",'
    '"videoUUID":"b3f1a7a8-5d0f-4f5e-9d51-3f3c1f2a9a01","videoURL":'
    '"https://vm.runware.ai/video/os/a15d18/ws/5/vi/b3f1a7a8-5d0f-4f5e-9d51-3f3c1f2a9a01.mp4",'
    '"seed":44372,"cost":0.4715}}}}'
)

_EVENTS: Final = """
WITH RECURSIVE k(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM k WHERE i + 1 < :count)
INSERT INTO events (id, type, project, created_at, payload)
SELECT (:since << :bits) + i, 'result.succeeded', 'default', :since,
       CAST(printf(:payload, i) AS BLOB) FROM k
"""
_DELIVERIES: Final = """
INSERT INTO deliveries (event_id, endpoint_id, state, next_attempt_at, created_at)
SELECT v.id, e.id, 'pending', v.created_at, v.created_at
  FROM events v CROSS JOIN endpoints e ORDER BY v.id, e.id
"""


async def register(folder: Path, urls: Sequence[str], concurrency: int) -> list[str]:
    """Endpoints that want results, in a new store; their ids."""
    async with receiving(folder) as url:
        return [await asyncio.to_thread(add, url, target, concurrency) for target in urls]


def add(url: str, target: str, concurrency: int) -> str:
    """Register an endpoint that wants results at a running receiver; its id."""
    spec = {"url": target, "event_types": ["result.*"], "concurrency": concurrency}
    return str(ask(f"{url}/v1/endpoints", "POST", spec)["id"])


def fill(folder: Path, events: int) -> int:
    """Make so many events, due at every endpoint since a minute; the bytes of the file."""
    path = folder / DATABASE
    values = {
        "count": events,
        "since": time.time_ns() // 1_000_000 - 60_000,
        "bits": ENTROPY_BITS,
        "payload": PAYLOAD.replace("%", "%%").replace("%%d", "%d"),
    }
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -1000000")
        for statement in (_EVENTS, _DELIVERIES):
            connection.execute("BEGIN")
            connection.execute(statement, values if statement is _EVENTS else {})
            connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return path.stat().st_size


def _asked(folder: Path, query: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(f"file:{folder / DATABASE}?mode=ro", uri=True)) as connection:
        return connection.execute(query, values).fetchall()


def settled(folder: Path, endpoint: str) -> int:
    """How many deliveries of an endpoint have succeeded."""
    query = "SELECT count(*) FROM deliveries WHERE endpoint_id = ? AND state = 'succeeded'"
    return int(_asked(folder, query, ids.parse(ids.ENDPOINT, endpoint))[0][0])


async def until_settled(folder: Path, endpoint: str, count: int, limit_s: float) -> None:
    """Wait until so many deliveries have succeeded. Raises SystemExit after `limit_s`."""
    until = time.monotonic() + limit_s
    while (found := settled(folder, endpoint)) < count:
        if time.monotonic() > until:
            raise SystemExit(f"{found} of {count} deliveries settled in {limit_s:g} s")
        await asyncio.sleep(0.2)


def told(folder: Path, endpoint: str) -> set[str]:
    """The events that an endpoint got, as the store has it."""
    query = "SELECT event_id FROM deliveries WHERE endpoint_id = ? AND state = 'succeeded'"
    rows = _asked(folder, query, ids.parse(ids.ENDPOINT, endpoint))
    return {ids.EVENT + ids.encode(row[0]) for row in rows}


def answered(folder: Path, endpoint: str) -> int:
    """How many attempts at an endpoint were answered."""
    query = "SELECT count(*) FROM attempts WHERE endpoint_id = ? AND status IS NOT NULL"
    return int(_asked(folder, query, ids.parse(ids.ENDPOINT, endpoint))[0][0])


def failures(folder: Path, endpoint: str) -> dict[str, int]:
    """The attempts of an endpoint that failed, by class."""
    query = (
        "SELECT error, count(*) FROM attempts WHERE endpoint_id = ? AND error IS NOT NULL"
        " GROUP BY error"
    )
    return dict(_asked(folder, query, ids.parse(ids.ENDPOINT, endpoint)))


def seconds(folder: Path) -> float:
    """From the first attempt to the last settling."""
    query = "SELECT (SELECT max(settled_at) FROM deliveries) - (SELECT min(at) FROM attempts)"
    return float(_asked(folder, query)[0][0]) / 1_000
