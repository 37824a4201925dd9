"""A checker that sees nothing proves nothing: each kind of loss must be found."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from scripts.proofs.harness import Callback, Line, Receiver, callbacks_of
from scripts.proofs.stored import integrity_of, problems_of, succeeded_of

pytestmark = pytest.mark.process

LOSSES: Mapping[str, str] = {
    "a callback": "DELETE FROM callbacks WHERE id = (SELECT max(id) FROM callbacks)",
    "a callback kept twice": "INSERT INTO callbacks (task_n, outcome, platform, source, size,"
    " sha256, received_at, last_received_at, remote, body) SELECT task_n, outcome, platform,"
    " source, size, sha256, received_at, last_received_at, remote, body FROM callbacks LIMIT 1",
    "a byte of a callback": "UPDATE callbacks SET body = substr(body, 2)",
    "a result": "DELETE FROM results WHERE id = (SELECT max(id) FROM results)",
    "a result that nobody sent": "UPDATE results SET key = 'video:other' WHERE idx = 0",
    "a count": "UPDATE tasks SET succeeded = 0 WHERE n = (SELECT max(n) FROM tasks)",
    "a task": "DELETE FROM tasks WHERE n = (SELECT max(n) FROM tasks)",
    "an event": "DELETE FROM events WHERE type = 'result.succeeded'",
    "a completion": "DELETE FROM events WHERE type = 'task.completed'",
    "an event told twice": "INSERT INTO events (id, type, task_n, project, created_at, payload)"
    " SELECT 1, type, task_n, project, created_at, payload FROM events WHERE seq = 1",
    "a delivery": "DELETE FROM deliveries WHERE event_id = (SELECT max(event_id) FROM deliveries)",
    "a delivery to nobody": "INSERT INTO deliveries (event_id, endpoint_id, state, created_at)"
    " SELECT event_id, endpoint_id + 1, state, created_at FROM deliveries LIMIT 1",
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Callback]]:
    """A killed receiver's database and what it had acknowledged: tasks of one and two results."""
    folder = tmp_path_factory.mktemp("kept")
    callbacks = callbacks_of(1) + callbacks_of(2)

    async def post_all() -> Path:
        async with Receiver(folder) as receiver:
            await receiver.add_endpoint()
            line = await Line.open(receiver.port)
            for callback in callbacks:
                answer = await line.ask(callback.request)
                assert answer is not None
                assert answer.said == "recorded"
            line.close()
            assert await receiver.end(signal.SIGKILL) == -signal.SIGKILL
            return receiver.database

    return asyncio.run(post_all()), callbacks


def sent_of(callbacks: list[Callback]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for callback in callbacks:
        found.setdefault(callback.task, set()).update(callback.keys)
    return found


def copy_of(database: Path, folder: Path) -> Path:
    for name in (database.name, f"{database.name}-wal"):
        shutil.copy(database.with_name(name), folder / name)
    return folder / database.name


def test_what_was_acknowledged_is_there(kept: tuple[Path, list[Callback]]) -> None:
    database, callbacks = kept
    assert problems_of(database, callbacks, sent=sent_of(callbacks)) == []
    assert integrity_of(database) == []
    assert succeeded_of(database) == set()


@pytest.mark.parametrize("loss", LOSSES)
def test_each_kind_of_loss_is_found(
    loss: str, kept: tuple[Path, list[Callback]], tmp_path: Path
) -> None:
    database, callbacks = copy_of(kept[0], tmp_path), kept[1]
    with closing(sqlite3.connect(database)) as connection, connection:
        assert connection.execute(LOSSES[loss]).rowcount > 0
    assert problems_of(database, callbacks, sent=sent_of(callbacks)) != []


@pytest.mark.parametrize("table", ["callbacks", "results"])
def test_a_callback_in_doubt_may_be_missing_but_not_in_part(
    table: str, kept: tuple[Path, list[Callback]], tmp_path: Path
) -> None:
    database = copy_of(kept[0], tmp_path)
    never_came = callbacks_of(1)
    assert problems_of(database, [], in_doubt=[*kept[1], *never_came]) == []
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(f"DELETE FROM {table}")
        connection.execute("UPDATE tasks SET succeeded = 0")
    found = problems_of(database, [], in_doubt=kept[1])
    assert any("not both" in problem for problem in found)
