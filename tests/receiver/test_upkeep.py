"""`POST /v1/prune` and `reelhook prune`: what they count, ask and drop."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from receiver.admin.ops import Principal
from receiver.clock import DAY, MINUTE, wall_clock
from receiver.errors import Forbidden
from receiver.retention import STEADY
from receiver.store.protocol import Query
from receiver.store.sqlite import SqliteStore
from tests import warm
from tests.doubles import LIMIT_S, ROOT, START, Assembled, assembled, environment, running
from tests.make import success, uuid
from tests.receiver.store.suite import arrival_of
from tests.receiver.test_app import until

TASKS = 40


async def fill(store: SqliteStore, then: int) -> None:
    """Tasks of long ago."""
    arrivals = [arrival_of(uuid(n), success(n), received_at=then) for n in range(TASKS)]
    await asyncio.gather(*[store.record(arrival) for arrival in arrivals])


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path) as found:
        found.clock.now = START - 400 * DAY
        await fill(found.store, found.clock())
        found.clock.now = START
        yield found


async def left(receiver: Assembled) -> int:
    return len((await receiver.store.tasks(Query(limit=200))).data)


async def prune(receiver: Assembled, **body: Any) -> dict[str, Any]:
    answer = await receiver.client.post("/v1/prune", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def told(receiver: Assembled) -> list[dict[str, Any]]:
    return [dict(entry) for entry in receiver.log if entry["event"] == "retention"]


@pytest.mark.anyio
async def test_it_counts_until_it_is_told_to_drop(receiver: Assembled) -> None:
    counted = await prune(receiver)
    assert (counted["dry_run"], counted["tasks"], counted["next_cursor"]) == (True, TASKS - 1, None)
    assert (await left(receiver), told(receiver)) == (TASKS, [])
    dropped = await prune(receiver, dry_run=False)
    assert dropped == {**counted, "dry_run": False, "freed_bytes": dropped["freed_bytes"]}
    assert await left(receiver) == 1
    (line,) = told(receiver)
    assert (line["tasks"], line["bodies"], line["log_level"]) == (TASKS - 1, TASKS, "info")


@pytest.mark.anyio
async def test_a_cursor_goes_on_where_a_request_stopped(receiver: Assembled) -> None:
    receiver.service.retention._timer = iter(range(0, 1_000_000, 5)).__next__
    dropped, calls = 0, 0
    cursor = None
    while calls == 0 or cursor is not None:
        answer = await prune(receiver, dry_run=False, cursor=cursor)
        dropped, cursor, calls = dropped + answer["tasks"], answer["next_cursor"], calls + 1
    assert (dropped, await left(receiver), calls > 1) == (TASKS - 1, 1, True)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "body",
    [
        {"dry_run": "perhaps"},
        {"cursor": "x"},
        {"cursor": "0" * 12 + "9"},
        {"cursor": "-".join(["0" * 13] * 9)},
        {"days": 3},
    ],
)
async def test_what_it_does_not_understand_is_refused(
    receiver: Assembled, body: dict[str, Any]
) -> None:
    answer = await receiver.client.post("/v1/prune", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


@pytest.mark.anyio
async def test_no_project_decides_over_all(receiver: Assembled) -> None:
    assert (await receiver.stranger.post("/v1/prune", json={})).status_code == 401
    with pytest.raises(Forbidden):
        await receiver.service.ops.prune(Principal("app", "mine"), (), dry_run=True)


@pytest.mark.anyio
async def test_the_settings_say_for_how_long(tmp_path: Path) -> None:
    days = {f"REELHOOK_RETENTION_{name}": "0" for name in ("RAW", "EVENTS", "TASKS")}
    async with assembled(tmp_path, **days) as receiver:
        receiver.clock.now = START - 400 * DAY
        await fill(receiver.store, receiver.clock())
        receiver.clock.now = START
        assert (await prune(receiver, dry_run=False))["tasks"] == 0
        assert await left(receiver) == TASKS


@pytest.mark.anyio
async def test_a_body_that_is_gone_says_so(receiver: Assembled) -> None:
    api = receiver.client
    await prune(receiver, dry_run=False)
    (listed,) = (await api.get("/v1/callbacks")).json()["data"]
    shown = (await api.get(f"/v1/callbacks/{listed['id']}")).json()
    assert (shown["body"], shown["size"] > 0) == (None, True)
    assert shown["body_dropped_at"] == listed["body_dropped_at"]
    assert shown["body_dropped_at"].startswith("2026-")
    assert (await api.get(f"/v1/callbacks/{listed['id']}/body")).status_code == 404
    again = await api.post(f"/v1/callbacks/{listed['id']}/reprocess", json={})
    assert (again.status_code, "not kept" in again.json()["detail"]) == (409, True)


@pytest.mark.anyio
async def test_a_running_receiver_drops_by_itself(receiver: Assembled) -> None:
    async def rest(_seconds: float) -> None:
        receiver.clock.advance(MINUTE)
        await asyncio.sleep(0)

    receiver.service.retention._rest = rest
    app = receiver.service.app
    async with app.router.lifespan_context(app):
        # A round is told of in parts, at most once a minute of its clock.
        await until(lambda: sum(line.get("tasks", 0) for line in told(receiver)) == TASKS - 1)
    assert receiver.clock() >= START + STEADY
    assert await left(receiver) == 1


@pytest.mark.anyio
async def test_while_nothing_can_be_written_it_is_said_and_tried_again(
    receiver: Assembled,
) -> None:
    async def rest(_seconds: float) -> None:
        receiver.clock.advance(MINUTE)
        await asyncio.sleep(0)

    receiver.service.retention._rest = rest
    await receiver.store._writer.close()
    app = receiver.service.app
    async with app.router.lifespan_context(app):
        await until(lambda: told(receiver))
    (line,) = told(receiver)
    assert (line["log_level"], line["error"]) == ("warning", "The store is closed.")


# Commands


async def seed(folder: Path) -> None:
    then = wall_clock() - 400 * DAY
    async with await SqliteStore.open(folder / "data" / "reelhook.db", clock=lambda: then) as store:
        await fill(store, then)


def reelhook(
    folder: Path, *arguments: str, stdin: int = subprocess.DEVNULL
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        warm.reelhook(*arguments),
        cwd=ROOT,
        env=environment(folder),
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=2 * LIMIT_S,
        check=False,
    )


def typed(folder: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command at a terminal, where somebody types."""
    keyboard, terminal = pty.openpty()
    try:
        os.write(keyboard, text.encode())
        return reelhook(folder, *arguments, stdin=terminal)
    finally:
        os.close(terminal)
        os.close(keyboard)


@pytest.mark.process
def test_the_command_counts_asks_and_drops(tmp_path: Path) -> None:
    asyncio.run(seed(tmp_path))
    with running(tmp_path, REELHOOK_ADMIN_TOKEN="", REELHOOK_SIGNING_KEYS=""):
        counted = json.loads(reelhook(tmp_path, "prune", "--dry-run", "--json").stdout)
        assert (counted["dry_run"], counted["tasks"]) == (True, TASKS - 1)

        refused = typed(tmp_path, "n\n", "prune")
        assert (refused.returncode, refused.stdout.strip()) == (1, "")
        assert f"{TASKS - 1} tasks" in refused.stderr
        assert json.loads(reelhook(tmp_path, "prune", "--dry-run", "--json").stdout) == counted

        agreed = typed(tmp_path, "y\n", "prune", "--json")
        assert agreed.returncode == 0, agreed.stderr
        dropped = json.loads(agreed.stdout)
        assert (dropped["dry_run"], dropped["tasks"]) == (False, TASKS - 1)

        nothing = typed(tmp_path, "", "prune")
        assert (nothing.returncode, nothing.stdout) == (0, "")
        assert "Nothing is older" in nothing.stderr

        found = reelhook(tmp_path, "callbacks", "list", "--json").stdout
        shown = reelhook(tmp_path, "callbacks", "show", json.loads(found)["id"])
        assert "body_dropped_at" in shown.stdout
        assert "not kept any more" in shown.stderr


@pytest.mark.process
@pytest.mark.parametrize("arguments", [["--yes"], []])
def test_without_a_terminal_or_with_yes_nobody_is_asked(
    tmp_path: Path, arguments: list[str]
) -> None:
    asyncio.run(seed(tmp_path))
    with running(tmp_path, REELHOOK_ADMIN_TOKEN="", REELHOOK_SIGNING_KEYS=""):
        done = reelhook(tmp_path, "prune", *arguments)
        assert (done.returncode, f"tasks              {TASKS - 1}" in done.stdout) == (0, True)


@pytest.mark.process
def test_migrate_rewrites_a_file_that_can_not_shrink(tmp_path: Path) -> None:
    path = tmp_path / "data" / "reelhook.db"
    asyncio.run(seed(tmp_path))

    def mode() -> int:
        with closing(sqlite3.connect(path)) as connection:
            return int(connection.execute("PRAGMA auto_vacuum").fetchone()[0])

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
    assert mode() == 0
    assert reelhook(tmp_path, "migrate").returncode == 0
    assert mode() == 2
