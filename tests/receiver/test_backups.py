"""`POST /v1/backup`, `reelhook backup` and `restore`: what they answer, and the drill of it all."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.doubles import ADMIN_TOKEN, LIMIT_S, Running, assembled, running
from tests.make import success, uuid
from tests.receiver.history import took
from tests.receiver.shell import reelhook
from tests.receiver.test_access import made as token_made


@pytest.mark.anyio
async def test_a_backup_goes_where_the_settings_say_and_leaves_a_row(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    async with assembled(tmp_path, REELHOOK_BACKUP_DIR=str(folder)) as receiver:
        made = took(await receiver.client.post("/v1/backup", json={"keep": 3}))
        assert Path(made["path"]).parent == folder
        assert made["counts"]["meta"] == 1
        (row, *_) = took(await receiver.client.get("/v1/audit"))["data"]
        assert (row["action"], row["details"]["sha256"]) == ("backup", made["sha256"])

        named = await receiver.client.post("/v1/backup", json={"path": "/tmp/mine.db"})
        assert named.status_code == 422  # a request never says where
        token = (await token_made(receiver, project="film"))["token"]
        own = {"authorization": f"Bearer {token}"}
        assert (await receiver.stranger.post("/v1/backup", headers=own)).status_code == 403


class Calls:
    """The tasks whose callbacks were acknowledged so far."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._more = threading.Condition()

    def note(self, task: str) -> None:
        with self._more:
            self.done.append(task)
            self._more.notify_all()

    def after(self, enough: int) -> list[str]:
        """What there is once so many are."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.done) >= enough, LIMIT_S)
            return [*self.done]


@contextmanager
def calling(receiver: Running, workers: int = 4) -> Iterator[Calls]:
    """A platform that calls without end."""
    calls, numbers, over = Calls(), count(1), threading.Event()

    def call() -> None:
        with asking(receiver) as api:
            while not over.is_set():
                number = next(numbers)
                try:
                    found = took(api.put(f"/v1/tasks/{uuid(number)}", json={"platform": "runware"}))
                    url = urlsplit(found["webhook_url"])._replace(scheme="", netloc="").geturl()
                    took(api.post(url, json={"data": [success(number, uuid(number))]}))
                except httpx.TransportError:  # it was killed
                    return
                calls.note(uuid(number))

    threads = [threading.Thread(target=call) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield calls
    finally:
        over.set()
        for thread in threads:
            thread.join(LIMIT_S)


def asking(receiver: Running) -> httpx.Client:
    token = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    return httpx.Client(base_url=receiver.ready["url"], trust_env=False, headers=token)


@pytest.mark.process
def test_the_drill(tmp_path: Path) -> None:
    """A backup under load, a kill, a restore: what was acknowledged before it began is there."""
    database, mine = tmp_path / "data" / "reelhook.db", tmp_path / "mine.db"
    token = {"REELHOOK_ADMIN_TOKEN": ADMIN_TOKEN}
    with running(tmp_path) as receiver, calling(receiver) as calls:
        before = calls.after(50)
        said = reelhook(tmp_path, "backup", "--json", "--to", str(mine), **token)
        assert said.code == 0, said.err
        (made,) = said.json
        calls.after(len(calls.done) + 50)
        assert reelhook(tmp_path, "restore", made["path"]).code == 3  # it runs
        receiver.process.send_signal(signal.SIGKILL)
        receiver.process.wait(LIMIT_S)
        instance = receiver.ready["instance"]
    log = Path(f"{database}-wal")
    assert log.stat().st_size > 0  # what a restore must not let in
    assert hashlib.sha256(mine.read_bytes()).hexdigest() == made["sha256"]

    said = reelhook(tmp_path, "restore", str(mine), "--json")
    assert said.code == 0, said.err
    (restored,) = said.json
    assert not log.exists()
    assert restored["instance"] == restored["previous_instance"] == instance
    with running(tmp_path) as receiver, asking(receiver) as api:
        assert receiver.ready["instance"] == instance
        found = {*_tasks(api)}
        assert {*before} <= found
        assert {*calls.done} - found  # since the backup: they are the platform's to tell again
        assert len(found) <= restored["counts"]["tasks"] <= made["counts"]["tasks"]
        assert took(api.get("/v1/health"))["grade"] == "ok"


def _tasks(api: httpx.Client) -> list[str]:
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        place = {"cursor": cursor} if cursor else {}
        page = took(api.get("/v1/tasks", params={"limit": 200, "status": "succeeded", **place}))
        found += [task["id"] for task in page["data"]]
        cursor = page["next_cursor"]
    return found


@pytest.mark.process
def test_a_postgres_database_is_restored_by_its_own_tools(tmp_path: Path) -> None:
    url = "postgresql://reelhook@127.0.0.1/reelhook"
    said = reelhook(tmp_path, "restore", "x.dump", DATABASE_URL=url)
    assert (said.code, "pg_restore" in said.err) == (2, True)
