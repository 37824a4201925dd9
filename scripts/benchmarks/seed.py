"""Fills a store as a long life would: complete tasks of four results, all told and delivered.

Rows are made by SQL inside SQLite, since a million tasks have nineteen million rows.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from receiver.clock import DAY
from receiver.ids import ENTROPY_BITS
from receiver.store.migrate import migrate

LIFE: Final = 30 * DAY  # milliseconds over which the tasks are spread
_URL: Final = "https://vm.runware.ai/video/os/a15d18/ws/5/vi/"

# `i` numbers the tasks; ids are (milliseconds << 21 | number), as receiver/ids.py makes them.
_TASKS: Final = """
WITH RECURSIVE k(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM k WHERE i + 1 < :tasks)
INSERT INTO tasks (n, id, platform, project, status, expected, succeeded, indexed, cost,
                   created_at, completed_at, submit_state, deadline_at, give_up_at, tags, model)
SELECT (:since + i * :step) << :bits, randomblob(16), 'runware', 'default', 'succeeded', 4, 4, 4,
       1886000, :since + i * :step, :since + i * :step + 90000, 'submitted',
       :since + i * :step + 900000, :since + i * :step + 86400000,
       '{"projectId":"proj_789"}', 'pixverse:1@6'
  FROM k
"""
_RESULTS: Final = f"""
INSERT INTO results (task_n, key, id, idx, kind, late, source, received_at, cost, told, raw)
SELECT n, 'video:' || lower(hex(randomblob(16))), n + 1 + value, value, 'succeeded', 0, 'callback',
       created_at + 20000 * (value + 1), 471500,
       '{{"media":[{{"kind":"video","id":"' || lower(hex(randomblob(16))) || '","url":"{_URL}'
       || lower(hex(randomblob(16))) || '.mp4","expires_at":null}}],"seed":44372,"cost":0.4715,'
       || '"nsfw":null}}',
       '{{"taskType":"videoInference","videoURL":"{_URL}' || lower(hex(randomblob(16)))
       || '.mp4","seed":44372,"cost":0.4715}}'
  FROM tasks CROSS JOIN json_each('[0,1,2,3]')
"""
_CALLBACKS: Final = """
INSERT INTO callbacks (id, task_n, outcome, platform, source, jti, size, sha256, received_at,
                       last_received_at, remote, body)
SELECT id, task_n, 'recorded', 'runware', 'callback', randomblob(16), length(raw), randomblob(32),
       received_at, received_at, '127.0.0.1', CAST(raw AS BLOB)
  FROM results
"""
_EVENTS: Final = """
INSERT INTO events (id, type, task_n, project, created_at, payload)
SELECT id, 'result.succeeded', task_n, 'default', received_at,
       CAST('{"data":{"task":{},"result":' || told || ',"raw":' || raw || '}}' AS BLOB)
  FROM results
UNION ALL
SELECT n + 5, 'task.completed', n, 'default', completed_at,
       CAST('{"data":{"task":{},"results":["' || hex(zeroblob(560)) || '"]}}' AS BLOB)
  FROM tasks
"""
_ENDPOINT: Final = """
INSERT INTO endpoints (id, project, state, url, description, event_types, filters, headers,
                       concurrency, secrets, created_at)
VALUES (1, 'default', 'paused', 'https://sink.invalid/hook', '', '["result.*"]',
        '{}', '{}', 64, '[]', :since)
"""
_DELIVERIES: Final = """
INSERT INTO deliveries (event_id, endpoint_id, state, attempts, first_succeeded_at, created_at,
                        settled_at)
SELECT id, 1, 'succeeded', 1, created_at, created_at, created_at FROM events ORDER BY id
"""


def seed(path: Path, tasks: int, age: int = DAY) -> dict[str, int]:
    """Make the store at `path` with so many tasks, the youngest of so many milliseconds of age.

    Returns the rows by table, and the file's bytes.
    """
    step = max(LIFE // tasks, 1)
    values = {
        "tasks": tasks,
        "since": time.time_ns() // 1_000_000 - LIFE - age,
        "step": step,
        "bits": ENTROPY_BITS,
    }
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = off")
        connection.execute("PRAGMA synchronous = off")  # a store that is made for a measurement
        connection.execute("PRAGMA cache_size = -1000000")
        migrate(connection)
        for statement in (_TASKS, _RESULTS, _CALLBACKS, _EVENTS, _ENDPOINT, _DELIVERIES):
            connection.execute("BEGIN")
            connection.execute(statement, values)
            connection.execute("COMMIT")
        held = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("tasks", "results", "callbacks", "events", "deliveries")
        }
    return {**held, "bytes": path.stat().st_size}
