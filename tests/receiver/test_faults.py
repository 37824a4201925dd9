"""A real receiver on ground that gives way: how it starts, goes on or ends, and what it answers."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.clock import DAY, wall_clock
from receiver.tokens import TokenBox, webhook_url
from tests.doubles import (
    ADMIN_TOKEN,
    ENVIRON,
    LIMIT_S,
    ROOT,
    Answer,
    Running,
    Wire,
    environment,
    running,
    wire,
)
from tests.make import KEY, claims, success, uuid, wrapped

pytestmark = pytest.mark.process

_numbers = count(1)


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    # What these processes can't write, a measurement of their coverage can't either.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    with running(tmp_path) as found:
        yield found


@pytest.fixture
def unheard(tmp_path: Path) -> Iterator[Running]:
    """A receiver whose log nobody reads any more."""
    process = subprocess.Popen(
        [sys.executable, "-m", "receiver", "serve"],
        cwd=ROOT,
        env=environment(tmp_path, **ENVIRON),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert process.stderr is not None
        process.stderr.close()
        yield Running(process, ready, tmp_path)
        process.kill()


def database(receiver: Running) -> Path:
    return receiver.folder / "data" / "reelhook.db"


def path_of(task: str) -> str:
    now = wall_clock()
    minted = claims(task=task, issued_at=now, expires_at=now + DAY)
    return webhook_url("", "runware", TokenBox([KEY]).mint(minted), {})


def post(receiver: Running, task: str | None = None) -> httpx.Response:
    """A callback of a task of its own."""
    task = task or uuid(next(_numbers))
    body = wrapped(success(1, task))
    return httpx.post(receiver.ready["url"] + path_of(task), content=body, timeout=LIMIT_S)


def ready(receiver: Running) -> int:
    return httpx.get(receiver.ready["url"] + "/readyz", timeout=LIMIT_S).status_code


def until(condition: Callable[[], object]) -> None:
    """Wait for something that a receiver does of itself."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")


def assert_unavailable(answer: httpx.Response | Answer) -> None:
    found = answer.status_code if isinstance(answer, httpx.Response) else answer.status
    assert (found, answer.headers["retry-after"]) == (503, "2")
    assert answer.headers["connection"] == "close"


async def refused_without_its_body(receiver: Running) -> Answer:
    """The answer to a callback of which nothing but the head was sent."""
    async with wire(receiver.port) as found:
        head = f"POST {path_of(uuid(next(_numbers)))} HTTP/1.1\r\nhost: x\r\n"
        await found.send(f"{head}content-length: 100000\r\n\r\n".encode())
        answer = await found.answer()
        assert await found.ended() == b""
    return answer


@contextmanager
def no_room(receiver: Running) -> Iterator[None]:
    """While inside, the receiver can write nothing more to its log."""
    size = Path(f"{database(receiver)}-wal").stat().st_size
    pid = receiver.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


# While it runs


@pytest.mark.anyio
async def test_a_disk_without_room_is_answered_with_503_and_passes(receiver: Running) -> None:
    assert post(receiver).status_code == 200
    with no_room(receiver):
        task = uuid(next(_numbers))
        assert_unavailable(post(receiver, task))
        assert ready(receiver) == 503
        assert_unavailable(await refused_without_its_body(receiver))
    until(lambda: ready(receiver) == 200)
    assert post(receiver, task).json() == {"status": "recorded", "results": 1}
    assert "store_unavailable" in receiver.stderr()


@pytest.mark.anyio
async def test_a_foreign_lock_is_answered_with_503_and_passes(receiver: Running) -> None:
    assert post(receiver).status_code == 200
    with closing(sqlite3.connect(database(receiver), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor() as threads:
            for answer in threads.map(lambda _: post(receiver), range(20)):
                assert_unavailable(answer)
        assert ready(receiver) == 503
        assert_unavailable(await refused_without_its_body(receiver))
        other.execute("ROLLBACK")
    until(lambda: ready(receiver) == 200)
    assert post(receiver).json() == {"status": "recorded", "results": 1}


def test_a_database_that_was_deleted_ends_it_and_is_not_silently_replaced(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as receiver:
        assert post(receiver).status_code == 200
        database(receiver).unlink()
        assert receiver.process.wait(LIMIT_S) == 1
        (line,) = [
            json.loads(line)
            for line in receiver.stderr().splitlines()
            if '"the receiver ends"' in line
        ]
        assert (line["level"], line["code"], line["exit_code"]) == ("error", "store_broken", 1)
        assert "restore a backup" in line["error"]
    code, said = started(tmp_path)
    assert code == 3
    assert "reelhook.db-wal is there" in said


def test_it_is_unready_and_refuses_until_it_ends(receiver: Running) -> None:
    with ThreadPoolExecutor() as threads:
        database(receiver).with_name("reelhook.db.lock").unlink()
        answers = threads.submit(until_gone, receiver).result(LIMIT_S)
    assert receiver.process.wait(LIMIT_S) == 1
    later = answers[[answer.status_code for answer in answers].index(503) :]
    assert later
    for answer in later:
        assert_unavailable(answer)
        assert answer.json()["code"] == "store_unavailable"


def until_gone(receiver: Running) -> list[httpx.Response]:
    answers = []
    while True:
        try:
            answers.append(post(receiver))
        except httpx.TransportError:
            return answers


def test_a_signal_ends_it_also_while_nothing_can_be_written(receiver: Running) -> None:
    assert post(receiver).status_code == 200
    with no_room(receiver):
        assert_unavailable(post(receiver))
        receiver.process.send_signal(signal.SIGTERM)
        assert receiver.process.wait(LIMIT_S) == 0
    assert "Traceback" not in receiver.stderr()


# Nothing can be written for as long as another program holds the database, and each write is
# tried for five seconds: longer than these stops may take.


@asynccontextmanager
async def held_up(receiver: Running, asked: int = 3) -> AsyncIterator[list[Wire]]:
    """Connections whose callbacks wait for the disk, and one that waits to register a task."""
    assert post(receiver).status_code == 200
    with closing(sqlite3.connect(database(receiver), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with AsyncExitStack() as stack:
            lines = [await stack.enter_async_context(wire(receiver.port)) for _ in range(asked + 2)]
            for line in lines[:asked]:
                task = uuid(next(_numbers))
                await line.send(request("POST", path_of(task), wrapped(success(1, task))))
            registered = f"/v1/tasks/{uuid(next(_numbers))}"
            await lines[asked].send(request("PUT", registered, b'{"platform":"runware"}'))
            await lines[-1].send(request("GET", "/healthz"))  # later, so the others are taken in
            assert (await lines[-1].answer()).status == 200
            yield lines[:-1]
        # It is released only now.


def request(method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.anyio
@pytest.mark.parametrize(("grace", "signals"), [("2", 1), ("3600", 2)])
async def test_a_stop_that_the_disk_holds_up_ends_with_the_grace(
    tmp_path: Path, grace: str, signals: int
) -> None:
    with running(tmp_path, REELHOOK_GRACE=grace) as receiver:
        async with held_up(receiver) as lines:
            receiver.process.terminate()
            for _ in range(signals - 1):
                await stopping(receiver)
                receiver.process.terminate()
            for line in lines:
                answer = await line.answer()
                assert_unavailable(answer)
                assert answer.json["code"] == "stopping"
            # Not 0, which it would be a while after the disk has given in.
            assert receiver.process.wait(LIMIT_S) == 1
        said = receiver.stderr()
    assert "Traceback" not in said
    assert "does not answer" in last_line(said)["error"]
    told = [line for line in lines_of(said) if line.get("status") == 503]
    assert [line.get("outcome") for line in told].count("stopping") == 3
    assert all("jti" in line for line in told if line["event"] == "callback")
    assert [line["route"] for line in told if line["event"] == "request"] == ["/v1/tasks/{id}"]


async def stopping(receiver: Running) -> None:
    """Wait until a first signal was heard: nobody new is let in."""
    with suppress(OSError):
        while True:
            async with wire(receiver.port):
                await asyncio.sleep(0.01)


def lines_of(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def last_line(said: str) -> dict[str, Any]:
    return lines_of(said)[-1]


def test_a_log_that_nobody_reads_costs_no_callback_and_no_stop(unheard: Running) -> None:
    assert post(unheard).status_code == 200
    unheard.process.send_signal(signal.SIGTERM)
    assert unheard.process.wait(LIMIT_S) == 0


@pytest.mark.parametrize("full", ["stdout", "stderr"])
def test_what_it_can_not_say_when_it_starts_ends_it_not(tmp_path: Path, full: str) -> None:
    with open("/dev/full", "wb") as no_room_left:
        process = subprocess.Popen(
            [sys.executable, "-m", "receiver", "serve"],
            cwd=ROOT,
            env=environment(tmp_path, **ENVIRON),
            stdout=no_room_left if full == "stdout" else subprocess.DEVNULL,
            stderr=no_room_left if full == "stderr" else subprocess.DEVNULL,
        )
    with process:
        try:
            left = tmp_path / "data" / "local.json"
            until(lambda: left.exists() and "url" in json.loads(left.read_text()))
            url = json.loads(left.read_text())["url"]
            assert httpx.get(f"{url}/readyz", timeout=LIMIT_S).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT_S) == 0
        finally:
            process.kill()


def test_a_broken_store_ends_it_although_nobody_reads_why(unheard: Running) -> None:
    assert post(unheard).status_code == 200
    database(unheard).unlink()
    with suppress(httpx.HTTPError):
        post(unheard)
    assert unheard.process.wait(LIMIT_S) == 1


def test_it_says_that_more_processes_than_one_are_not_to_be_had(tmp_path: Path) -> None:
    with running(tmp_path, WEB_CONCURRENCY="4") as receiver:
        (line,) = [json.loads(line) for line in receiver.stderr().splitlines() if "asked" in line]
    assert line["asked"] == 4
    assert "WEB_CONCURRENCY is clamped to 1" in line["event"]


# How it refuses to start


def started(folder: Path, **environ: str) -> tuple[int, str]:
    """The exit code of a receiver that should not start, and its last words."""
    found = subprocess.run(
        [sys.executable, "-m", "receiver", "serve"],
        cwd=ROOT,
        env=environment(folder, **{**ENVIRON, **environ}),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert found.stdout == ""
    assert "Traceback" not in found.stderr
    return found.returncode, found.stderr


def a_directory(path: Path) -> None:
    path.mkdir(parents=True)


def a_log_alone(path: Path) -> None:
    path.parent.mkdir(parents=True)
    Path(f"{path}-wal").write_bytes(b"what was acknowledged last")


def rubbish(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database " * 1_000)


def theirs(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")


def later(path: Path) -> None:
    theirs(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (a_directory, "is a directory"),
        (a_log_alone, "Put the database back"),
        (rubbish, "Restore a backup"),
        (theirs, "another program"),
        (later, "Install the release"),
    ],
)
def test_what_stands_in_the_databases_place_is_refused_and_left_alone(
    tmp_path: Path, made: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "data" / "reelhook.db"
    made(path)
    before = content_of(path)
    code, words = started(tmp_path)
    assert (code, said in words) == (3, True), words
    assert content_of(path) == before


def content_of(path: Path) -> dict[str, Any]:
    found = [path, Path(f"{path}-wal")]
    return {one.name: one.read_bytes() if one.is_file() else one.exists() for one in found}


@pytest.mark.parametrize(
    "environ", [{"REELHOOK_DATA_DIR": "/proc/nowhere"}, {"DATABASE_URL": "sqlite:////proc/db"}]
)
def test_a_directory_that_can_not_be_written_is_refused(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    code, said = started(tmp_path, **environ)
    assert (code, "can't be written" in said) == (3, True), said
    assert "REELHOOK_DATA_DIR" in said
