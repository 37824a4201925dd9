"""Numbered SQL files, each applied whole or not at all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import SchemaTooNew
from receiver.platforms import runware
from receiver.platforms.items import Item
from receiver.results import tell
from receiver.store import migrate as module
from receiver.store.migrate import APPLICATION_ID, migrate, migrations, version_of
from receiver.tasks import DEADLINE, GIVE_UP, LONGEST_TTL
from tests.make import failure, success, uuid


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as found:
        yield found


def tables(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    return {row[0] for row in rows}


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [number for number, _ in migrations()] == list(range(1, len(migrations()) + 1))


def test_an_empty_file_becomes_this_releases_schema(connection: sqlite3.Connection) -> None:
    assert version_of(connection) == 0
    assert migrate(connection) == [number for number, _ in migrations()]
    assert version_of(connection) == len(migrations())
    assert connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
    wanted = {"meta", "tasks", "results", "callbacks", "events", "deliveries", "attempts"}
    assert wanted | {"endpoints"} <= tables(connection)


def test_migrating_again_does_nothing(connection: sqlite3.Connection) -> None:
    migrate(connection)
    before = connection.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall()
    assert migrate(connection) == []
    assert connection.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall() == before


def test_every_table_is_strict(connection: sqlite3.Connection) -> None:
    migrate(connection)
    found = connection.execute("PRAGMA table_list").fetchall()
    loose = {row[1] for row in found if not row[5] and not row[1].startswith("sqlite_")}
    assert loose == set()


def test_a_later_schema_is_refused_before_anything_is_touched(
    connection: sqlite3.Connection,
) -> None:
    connection.execute(f"PRAGMA user_version = {len(migrations()) + 1}")
    with pytest.raises(SchemaTooNew) as caught:
        migrate(connection)
    assert caught.value.evidence["known"] == len(migrations())
    assert tables(connection) == set()


def test_a_migration_that_fails_in_the_middle_leaves_nothing(
    connection: sqlite3.Connection,
) -> None:
    connection.execute("CREATE TABLE deliveries (x)")  # in the way of the first migration
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        migrate(connection)
    assert tables(connection) == {"deliveries"}
    assert version_of(connection) == 0


def test_a_later_migration_that_fails_leaves_nothing_of_the_earlier_ones(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [*migrations(), (len(migrations()) + 1, "CREATE TABLE tasks (x);")]
    monkeypatch.setattr(module, "migrations", lambda: broken)
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        migrate(connection)
    assert tables(connection) == set()
    assert version_of(connection) == 0


def test_a_file_is_cut_into_whole_statements() -> None:
    text = (
        "-- one; two\nCREATE TABLE a (x); -- three\n"
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN\n  SELECT ';';\n  SELECT 2;\nEND;\n"
    )
    first, second = module._statements(text)
    assert "CREATE TABLE a" in first
    assert second.strip().endswith("END;")
    assert all(sqlite3.complete_statement(found) for found in (first, second))


def test_open_tasks_of_the_first_release_get_a_deadline(connection: sqlite3.Connection) -> None:
    first, second = migrations()[:2]
    connection.executescript(first[1])
    columns = "n, id, platform, project, status, created_at, submit_state, completed_at"
    connection.execute(
        f"INSERT INTO tasks ({columns}, reconcile_at) VALUES (1, x'01', 'runware', 'default',"
        " 'pending', 7, 'submitted', NULL, 5), (2, x'02', 'runware', 'default', 'succeeded', 7,"
        " 'submitted', 9, 5)"
    )
    connection.executescript(second[1])
    found = connection.execute("SELECT deadline_at, give_up_at, reconcile_at FROM tasks")
    assert found.fetchall() == [(7 + DEADLINE, 7 + GIVE_UP, 5), (None, None, None)]


def test_open_tasks_of_an_earlier_release_get_the_ttl_of_their_request(
    connection: sqlite3.Connection,
) -> None:
    for _, text in migrations()[:5]:
        connection.executescript(text)
    connection.execute("PRAGMA user_version = 5")
    columns = "n, id, platform, project, status, created_at, submit_state, registered, request"
    rows = [
        (1, 1, '{"ttl": 60}', None),
        (2, 0, '{"ttl": 60}', None),
        (3, 1, '{"ttl": "60"}', None),
        (4, 1, '{"ttl": 1e30}', None),
        (5, 1, '{"ttl": 99999999999}', None),
        (6, 1, None, None),
        (7, 1, '{"ttl": 60}', 9),
        (8, 1, '{"ttl": -1}', None),
    ]
    for n, registered, request, completed_at in rows:
        connection.execute(
            f"INSERT INTO tasks ({columns}, completed_at) VALUES (?, ?, 'runware', 'default',"
            " 'pending', 7, 'submitted', ?, ?, ?)",
            (n, bytes([n]), registered, request, completed_at),
        )
    connection.execute(
        "INSERT INTO callbacks (id, task_n, outcome, platform, source, size, sha256, received_at,"
        " last_received_at, remote, body) VALUES (1, 3, 'progress', 'runware', 'callback', 0, x'',"
        " 1, 1, '', x'')"
    )
    assert 6 in migrate(connection)
    found = connection.execute("SELECT n, ttl, asked_at FROM tasks ORDER BY n").fetchall()
    assert found == [
        (1, 60, 7),
        (2, 60, None),  # a callback made it
        (3, None, None),  # and one was there before we can be sure of the PUT
        (4, None, 7),
        (5, LONGEST_TTL, 7),
        (6, None, 7),
        (7, None, None),
        (8, None, 7),
    ]


def test_open_tasks_keep_a_deadline_that_somebody_named(connection: sqlite3.Connection) -> None:
    for _, text in migrations()[:8]:
        connection.executescript(text)
    connection.execute("PRAGMA user_version = 8")
    columns = "n, id, platform, project, status, created_at, submit_state, deadline_at"
    for n, deadline in ((1, 7 + DEADLINE), (2, 8 + DEADLINE), (3, None)):
        values = (n, bytes([n]), deadline)
        connection.execute(
            f"INSERT INTO tasks ({columns}) VALUES (?, ?, 'runware', 'default', 'pending', 7,"
            " 'submitted', ?)",
            values,
        )
    assert 9 in migrate(connection)
    found = connection.execute("SELECT n, deadline_named FROM tasks ORDER BY n").fetchall()
    assert found == [(1, 0), (2, 1), (3, 0)]


def kept_by_the_second_schema(connection: sqlite3.Connection, item: Item, n: int) -> None:
    parts = json.dumps([(part.kind, part.id, part.url) for part in item.media])
    error = None if item.error is None else json.dumps([str(word) for word in item.error])
    seed = None if item.seed is None else str(item.seed)
    connection.execute(
        "INSERT INTO results (task_n, key, id, idx, kind, late, source, received_at, cost, seed,"
        " nsfw, media, error, raw) VALUES (?, 'k', 7, 0, ?, 0, 'callback', 1, ?, ?, ?, ?, ?, '{}')",
        (n, item.kind, item.cost, seed, item.nsfw, parts, error),
    )


@pytest.mark.parametrize(
    "body",
    [
        success(),
        success(NSFWContent=False, cost=None, seed=1 << 80),
        success(NSFWContent=True, imageUUID=uuid(9), videoURL=None, seed=None),
        failure(),
        failure(code="invalidDuration"),
    ],
)
def test_a_result_kept_in_parts_is_told_as_a_new_one_is(
    connection: sqlite3.Connection, body: dict[str, Any]
) -> None:
    for _, text in migrations()[:2]:
        connection.executescript(text)
    connection.execute("PRAGMA user_version = 2")
    (item,) = runware.parse(body, None)
    kept_by_the_second_schema(connection, item, 5)
    assert 3 in migrate(connection)
    ((told, cost),) = connection.execute("SELECT told, cost FROM results").fetchall()
    assert (json.loads(told), cost) == (json.loads(tell(item)), item.cost)
