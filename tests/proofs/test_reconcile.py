"""The comparison of `prove reconcile` sees each way in which a task can be wrong."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver import ids
from receiver.store.sqlite import SqliteStore
from scripts.proofs.harness import Receiver
from scripts.proofs.reconcile import SHORT, Kept, World
from scripts.proofs.sink import Sink
from tests.doubles import FakeClock
from tests.make import TASK, arrival, failure, success, uuid

pytestmark = pytest.mark.anyio

MADE = Counter({uuid(1): 1, "timeoutProvider": 2})

WRONGS: Mapping[str, str] = {
    "a result is missing": "DELETE FROM results WHERE idx = 0",
    "another result": "UPDATE results SET key = 'video:other' WHERE idx = 0",
    "a result too many": "CREATE TEMP TABLE one AS SELECT * FROM results WHERE idx = 0;"
    " UPDATE one SET key = 'video:other', idx = 9, id = 9; INSERT INTO results SELECT * FROM one",
    "a wrong count": "UPDATE tasks SET succeeded = 0",
    "not complete": "UPDATE tasks SET completed_at = NULL",
    "no completion": "DELETE FROM events WHERE type = 'task.completed'",
    "two completions": "INSERT INTO events (id, type, task_n, project, created_at, payload)"
    " SELECT 1, type, task_n, project, created_at, payload FROM events"
    " WHERE type = 'task.completed'",
    "a result told twice": "INSERT INTO events (id, type, task_n, project, created_at, payload)"
    " SELECT 1, type, task_n, project, created_at, payload FROM events WHERE seq = 1",
    "no task": "UPDATE tasks SET id = x'00'",
}


@pytest.fixture
async def database(tmp_path: Path) -> Path:
    """The file of a receiver with one complete task of three results."""
    path = tmp_path / "db"
    async with await SqliteStore.open(path, clock=FakeClock()) as store:
        await store.record(arrival(success(1), failure(), failure(), expected=3))
    return path


def problems(path: Path, unseen: int = 0) -> list[str]:
    with closing(sqlite3.connect(path)) as file:
        kept = Kept(file, TASK)
        seen = {ids.EVENT + ids.encode(number) for number, _ in kept.events[unseen:]}
        return kept.problems(MADE, 3, seen)


async def test_what_is_right_is_found_right(database: Path) -> None:
    assert problems(database) == []


@pytest.mark.parametrize("wrong", WRONGS)
async def test_what_is_wrong_is_found(database: Path, wrong: str) -> None:
    with closing(sqlite3.connect(database)) as file:
        file.executescript(WRONGS[wrong])
    assert problems(database) != []


async def test_what_was_not_delivered_is_found(database: Path) -> None:
    assert [text for text in problems(database, unseen=1) if "not delivered" in text]


@pytest.mark.parametrize("slow", ["simulator", "receiver"])
async def test_who_takes_long_to_answer_is_not_settled_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """On a machine with much else to do an answer may take longer than any client waits."""
    patient = {"simulator": slow != "simulator", "receiver": slow != "receiver"}

    def control(request: httpx.Request) -> httpx.Response:
        if not patient["simulator"]:
            raise httpx.ReadTimeout("too slow", request=request)
        nothing = {"results": {"processing": 0}, "callbacks": {"waiting": 0}}
        return httpx.Response(200, json={"counters": nothing})

    async def ask(*_: object) -> dict[str, Any]:
        if not patient["receiver"]:
            raise TimeoutError
        return {"data": []}

    world = World(SHORT, Receiver(tmp_path), "http://simulator", Sink())
    monkeypatch.setattr(world, "_http", httpx.AsyncClient(transport=httpx.MockTransport(control)))
    monkeypatch.setattr(world.receiver, "ask", ask)
    assert not await world.settled()
    patient[slow] = True
    assert await world.settled()
    await world.close()
