"""What docs/backup.md promises of upgrades: from the first schema on, and one release back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from receiver import ids
from receiver.deliveries import State
from receiver.errors import SchemaTooNew
from receiver.store.migrate import APPLICATION_ID, migrations
from receiver.store.postgres import PostgresStore
from receiver.store.postgres.migrate import migrations as of_postgres
from receiver.store.protocol import Query, Store
from receiver.store.sqlite import SqliteStore
from receiver.store.sqlite.restore import restore
from tests.doubles import START, FakeClock
from tests.make import TASK, arrival, items_of, registration, success, uuid, wrapped
from tests.postgres import Server
from tests.receiver.store.suite import arrival_of

pytestmark = pytest.mark.anyio

INSTANCE = "0a" * 16
CALLBACK, ENDPOINT, EVENT, RESULT = (START * 1_000 + number for number in range(4))
BODY = wrapped(success())
VIDEO = ("video", uuid(1), success()["videoURL"])


def first_release(path: Path) -> None:
    """A database of the first schema, with a row in each table."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(migrations()[0][1])
        for table, row in _rows().items():
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", [*row.values()])
        connection.execute("PRAGMA user_version = 1")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.commit()
        query = "SELECT name FROM sqlite_schema WHERE type = 'table'"
        assert {name for (name,) in connection.execute(query)} == {*_rows()}


def _rows() -> dict[str, dict[str, object]]:
    delivery = {"event_id": EVENT, "endpoint_id": ENDPOINT}
    arrived = arrival(success())
    return {
        "meta": {"name": "instance", "value": INSTANCE},
        "tasks": {
            "n": 1,
            "id": ids.task_bytes(TASK),
            "platform": "runware",
            "project": "default",
            "status": "succeeded",
            "expected": 1,
            "succeeded": 1,
            "indexed": 1,
            "cost": 471_500,
            "closed": 1,
            "created_at": START,
            "completed_at": START,
            "model": "pixverse:1@6",
            "submit_state": "submitted",
            "tags": '{"a":"b"}',
        },
        "results": {
            "task_n": 1,
            "key": items_of(success())[0].key,
            "id": RESULT,
            "idx": 0,
            "kind": "succeeded",
            "late": 0,
            "source": "callback",
            "received_at": START,
            "cost": 471_500,
            "seed": "44372",
            "media": f'[["{VIDEO[0]}","{VIDEO[1]}","{VIDEO[2]}"]]',
            "raw": '{"x":1}',
        },
        "callbacks": {
            "id": CALLBACK,
            "task_n": 1,
            "outcome": "recorded",
            "platform": "runware",
            "source": "callback",
            "size": len(BODY),
            "sha256": arrived.sha256,
            "body": BODY,
            "received_at": START,
            "last_received_at": START,
            "remote": "203.0.113.7",
        },
        "endpoints": {
            "id": ENDPOINT,
            "project": "default",
            "state": "enabled",
            "description": "d",
            "url": "https://example.com/hook",
            "event_types": '["*"]',
            "filters": "{}",
            "headers": '{"x-a":"b"}',
            "concurrency": 5,
            "created_at": START,
            "secrets": '[{"secret":"whsec_AAAA","until":null}]',
        },
        "events": {
            "seq": 1,
            "id": EVENT,
            "type": "task.completed",
            "task_n": 1,
            "project": "default",
            "created_at": START,
            "payload": b'{"type":"task.completed"}',
        },
        "deliveries": {
            **delivery,
            "state": "sending",
            "attempts": 1,
            "lease_until": START,
            "created_at": START,
        },
        "attempts": {
            **delivery,
            "number": 1,
            "at": START,
            "duration_ms": 5,
            "status": 500,
            "error": "status",
            "detail": "no",
            "request_headers": "{}",
            "response_body": b"oops",
            "truncated": 0,
        },
    }


async def check(store: Store) -> None:
    """Nothing that was kept is lost, and work goes on."""
    assert store.instance == INSTANCE
    task = await store.task(TASK)
    assert (task.status, task.cost, task.tags) == ("succeeded", 0.4715, {"a": "b"})
    (result,) = await store.results(TASK)
    assert [(part.kind, part.id, part.url) for part in result.media] == [VIDEO]
    assert (result.seed, result.raw) == (44_372, {"x": 1})
    (callback,) = (await store.callbacks(Query())).data
    assert (await store.kept_callback(callback.id)).body == BODY
    (event,) = (await store.events(Query(), whole=True)).data
    assert (event.seq, event.payload) == (1, {"type": "task.completed"})
    (listed,) = (await store.deliveries(Query())).data
    delivery = await store.delivery(listed.id)
    assert delivery.state is State.PENDING  # whoever held the lease is gone
    assert next(attempt.status for attempt in delivery.attempt_log or []) == 500
    (endpoint,) = (await store.endpoints(Query())).data
    assert endpoint.headers == {"x-a": "b"}
    assert (await store.record(arrival(success()))).outcome == "duplicate"
    (claimed,) = await store.claim(now=START, lease_until=START + 1, limit=9)
    assert claimed.secrets == ("whsec_AAAA",)


async def test_from_the_first_schema_to_this_one(tmp_path: Path) -> None:
    """By a start of the receiver; and by the restore of a backup that old."""
    path, backup = tmp_path / "reelhook.db", tmp_path / "old.db"
    first_release(path)
    first_release(backup)
    async with await SqliteStore.open(path, clock=FakeClock()) as store:
        await check(store)
    found = restore(backup, path, now=START)
    assert (found.contents.schema_version, found.contents.counts["results"]) == (1, 1)
    async with await SqliteStore.open(path, clock=FakeClock()) as store:
        await check(store)


async def test_one_release_back_is_the_backup(tmp_path: Path) -> None:
    """The older release refuses the newer schema, touches nothing, and takes its own backup."""
    path, backups = tmp_path / "reelhook.db", tmp_path / "backups"
    async with await SqliteStore.open(path, clock=FakeClock()) as store:
        await store.record(arrival_of(uuid(1), success()))
        made = await store.backup(backups, None)
    with closing(sqlite3.connect(path)) as connection:  # the newer one was here
        connection.execute("ALTER TABLE tasks ADD COLUMN of_the_next_release TEXT")
        connection.execute(f"PRAGMA user_version = {len(migrations()) + 1}")
        connection.commit()
    before = bytes_of(path)
    with pytest.raises(SchemaTooNew, match="restore a backup"):
        await SqliteStore.open(path, clock=FakeClock())
    assert bytes_of(path) == before
    restore(Path(made.path), path, now=START)
    async with await SqliteStore.open(path, clock=FakeClock()) as store:
        assert (await store.task(uuid(1))).received == 1


def bytes_of(path: Path) -> bytes:
    return path.read_bytes()


async def test_on_postgres_two_releases_go_side_by_side(postgres: Server) -> None:
    """As long as the newer schema says so; then the older one refuses, and touches nothing."""
    url, clock, newest = postgres.empty(), FakeClock(), of_postgres()[-1][0]
    database = url.rpartition("/")[2]
    async with await PostgresStore.open(url, clock=clock) as old:
        await old.record(arrival_of(uuid(1), success(1)))
        postgres.psql(
            'ALTER TABLE tasks ADD COLUMN of_the_next_release TEXT COLLATE "C";'
            f"INSERT INTO schema_migrations (number) VALUES ({newest + 1});"
            f"INSERT INTO meta (name, value) VALUES ('compatible_from', '{newest}')",
            database,
        )
        # The one that ran goes on, and another of its release starts.
        await old.register(registration(uuid(2)))
        async with await PostgresStore.open(url, clock=clock) as beside:
            await beside.record(arrival_of(uuid(2), success(2)))
            assert (await old.task(uuid(2))).received == 1
            assert (await old.condition()).schema_version == newest + 1

        postgres.psql(
            f"UPDATE meta SET value = '{newest + 1}' WHERE name = 'compatible_from'", database
        )
        with pytest.raises(SchemaTooNew):
            await PostgresStore.open(url, clock=clock)
