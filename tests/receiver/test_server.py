"""The server as we run it: sockets, signals, and what it must not print."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from receiver.clock import DAY, wall_clock
from receiver.server import listen
from receiver.tokens import TokenBox, webhook_url
from tests.doubles import ADMIN_TOKEN, LIMIT_S, Running, running, wire
from tests.make import KEY, TASK, claims, success, uuid, wrapped

HEADERS = {"authorization": f"Bearer {ADMIN_TOKEN}"}
PUBLIC = ["/healthz", "/readyz", "/webhooks/runware"]
PRIVATE = ["/v1/tasks", "/v1/endpoints", "/", "/metrics", "/openapi.json", "/v1", "/healthz/x"]


def test_a_socket_listens_where_it_was_asked_to() -> None:
    for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        with listen(host, 0) as found:
            assert found.family == family
            assert found.getsockname()[1] > 0
            with socket.create_connection(found.getsockname()[:2], LIMIT_S):
                pass


def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_open() -> None:
    with listen("127.0.0.1", 0) as found, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", found.getsockname()[1])


@pytest.mark.process
def test_it_says_where_it_is_once_it_can_be_reached(tmp_path: Path) -> None:
    with running(tmp_path) as receiver:
        assert set(receiver.ready) == {"event", "url", "admin_url", "public_url", "instance"}
        assert receiver.ready["event"] == "ready"
        found = httpx.get(receiver.ready["url"] + "/healthz")
        assert (found.status_code, found.json()) == (
            200,
            {"status": "ok", "instance": receiver.ready["instance"]},
        )
        assert httpx.get(receiver.ready["url"] + "/readyz").json()["status"] == "ready"
        assert {"server", "date"}.isdisjoint(found.headers)
        local = json.loads((tmp_path / "data" / "local.json").read_text())
        assert local["url"] == receiver.ready["admin_url"]


@pytest.mark.process
def test_another_receiver_of_the_same_data_does_not_start(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with (
        running(tmp_path),
        pytest.raises(AssertionError, match="REELHOOK_DATA_DIR"),
        running(tmp_path / "second", REELHOOK_DATA_DIR=data),
    ):
        pass


@pytest.mark.process
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(tmp_path: Path, sent: signal.Signals) -> None:
    with running(tmp_path) as receiver:
        receiver.process.send_signal(sent)
        assert receiver.process.wait(LIMIT_S) == 0
        assert "Traceback" not in receiver.stderr()
        assert "reelhook.db-wal" not in os.listdir(tmp_path / "data")


def asking(target: str) -> bytes:
    """A request of an admin."""
    head = f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}"
    return f"{head}\r\n\r\n".encode()


@pytest.mark.anyio
@pytest.mark.process
async def test_a_long_poll_is_answered_when_the_receiver_is_told_to_stop(tmp_path: Path) -> None:
    path = f"/v1/tasks/{TASK}"
    with running(tmp_path) as receiver:
        async with httpx.AsyncClient(base_url=receiver.ready["url"], headers=HEADERS) as client:
            (await client.put(path, json={"platform": "runware"})).raise_for_status()
        async with wire(receiver.port) as waiting, wire(receiver.port) as later:
            await waiting.send(asking(f"{path}?wait=30"))
            # Answered on a later connection, so the poll above has been taken in by then.
            await later.send(asking(path))
            assert (await later.answer()).status == 200
            receiver.process.terminate()
            assert (await waiting.answer()).status == 200


HALF_HEAD = b"POST /webhooks/runware HTTP/1.1\r\nHo"


def half_body(number: int) -> tuple[bytes, bytes]:
    """An authentic callback, cut in the middle of its body."""
    task, now = uuid(number), wall_clock()
    minted = claims(task=task, issued_at=now, expires_at=now + DAY)
    path = webhook_url("", "runware", TokenBox([KEY]).mint(minted), {})
    body = wrapped(success(number, task))
    whole = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    return whole[:-20], whole[-20:]


def tasks_of(folder: Path) -> set[str]:
    """The tasks that have a result in the file."""
    with closing(sqlite3.connect(folder / "data" / "reelhook.db")) as connection:
        rows = connection.execute("SELECT id FROM tasks WHERE succeeded = 1").fetchall()
    return {str(UUID(bytes=row[0])) for row in rows}


@pytest.mark.anyio
@pytest.mark.process
async def test_what_was_being_sent_at_a_signal_is_answered_and_kept(tmp_path: Path) -> None:
    with running(tmp_path, REELHOOK_GRACE="6") as receiver:
        async with AsyncExitStack() as stack:
            lines = [await stack.enter_async_context(wire(receiver.port)) for _ in range(51)]
            idle, half, silent = [
                await stack.enter_async_context(wire(receiver.port)) for _ in range(3)
            ]
            for number, line in enumerate(lines):
                await line.send(half_body(number)[0])
            await half.send(HALF_HEAD)
            await idle.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            await idle.answer()
            receiver.process.terminate()
            for line in (idle, half, silent):
                assert await line.ended() == b""
            # All at once: one after the other, on a slow disk, would take the grace.
            for number, line in enumerate(lines[:50]):
                await line.send(half_body(number)[1])
            for line in lines[:50]:
                found = await line.answer()
                assert (found.status, found.json["status"], found.closes) == (200, "recorded", True)
                assert await line.ended() == b""
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", receiver.port)
            # One never sends the rest: told to come again, before the grace is over.
            found = await lines[50].answer()
            assert (found.status, found.json["code"]) == (503, "stopping")
            assert receiver.process.wait(LIMIT_S) == 0
        assert "Traceback" not in receiver.stderr()
        assert "Cancel" not in receiver.stderr()  # the grace was not used up
    assert "reelhook.db-wal" not in os.listdir(tmp_path / "data")
    assert tasks_of(tmp_path) == {uuid(number) for number in range(50)}


@pytest.mark.anyio
@pytest.mark.process
async def test_a_second_signal_waits_for_nobody(tmp_path: Path) -> None:
    with running(tmp_path, REELHOOK_GRACE="3600") as receiver:
        async with wire(receiver.port) as line:
            await line.send(half_body(1)[0])
            async with wire(receiver.port) as other:  # answered later, so the body is begun
                await other.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                await other.answer()
                receiver.process.terminate()
                assert await other.ended() == b""
            receiver.process.terminate()
            assert receiver.process.wait(LIMIT_S) == 0
            assert (await line.answer()).status == 503
            assert await line.ended() == b""
        assert "Traceback" not in receiver.stderr()


@pytest.mark.anyio
@pytest.mark.process
async def test_more_connections_than_files_were_allowed_at_first(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = max(map(int, os.listdir("/proc/self/fd"))) + 100  # this process needs some to start it
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        with running(tmp_path) as receiver:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            async with AsyncExitStack() as stack:
                for _ in range(few + 72):
                    await stack.enter_async_context(wire(receiver.port))
                async with wire(receiver.port) as line:
                    await line.send(b"".join(half_body(1)))
                    assert (await line.answer()).status == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.process
def test_believing_every_forwarded_address_is_warned_of(tmp_path: Path) -> None:
    with running(tmp_path, FORWARDED_ALLOW_IPS="*") as receiver:
        assert "FORWARDED_ALLOW_IPS=*" in receiver.stderr()


@pytest.mark.anyio
@pytest.mark.process
async def test_what_was_refused_is_counted_in_the_log(tmp_path: Path) -> None:
    with running(tmp_path) as receiver:
        for _ in range(3):
            async with wire(receiver.port) as line:
                await line.send(b"\x16\x03\x01")
                assert (await line.answer()).status == 400
    lines = [json.loads(text) for text in receiver.stderr().splitlines() if text[:1] == "{"]
    assert sum(found["malformed"] for found in lines if found["event"] == "refused") == 3


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("two"), REELHOOK_ADMIN_PORT="0") as found:
        assert found.ready["url"] != found.ready["admin_url"]
        yield found


@pytest.mark.process
@pytest.mark.parametrize("path", PRIVATE)
def test_the_public_socket_has_nothing_but_the_public_routes(split: Running, path: str) -> None:
    for host in ("x", split.ready["admin_url"].removeprefix("http://")):
        headers = {**HEADERS, "host": host, "x-forwarded-host": host}
        found = httpx.get(split.ready["url"] + path, headers=headers)
        assert (found.status_code, found.json()["code"]) == (404, "not_found")


@pytest.mark.process
@pytest.mark.parametrize("path", PUBLIC)
def test_the_public_routes_are_on_both(split: Running, path: str) -> None:
    for url in (split.ready["url"], split.ready["admin_url"]):
        assert httpx.get(url + path).status_code in (200, 405)


@pytest.mark.process
def test_the_api_is_on_the_other_socket(split: Running) -> None:
    found = httpx.get(split.ready["admin_url"] + "/v1/tasks", headers=HEADERS)
    assert found.json() == {"data": [], "next_cursor": None}
    assert httpx.get(split.ready["admin_url"] + "/v1/tasks").status_code == 401


@pytest.mark.process
def test_a_webhook_url_leads_to_the_public_socket(split: Running) -> None:
    found = httpx.put(
        f"{split.ready['admin_url']}/v1/tasks/{TASK}",
        headers=HEADERS,
        json={"platform": "runware"},
    )
    assert found.json()["webhook_url"].startswith(split.ready["url"] + "/webhooks/runware?")


@pytest.mark.process
def test_a_receiver_that_can_not_listen_says_so(tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        refused = pytest.raises(AssertionError, match=f"127.0.0.1:{port}.*Set PORT")
        with refused, running(tmp_path, PORT=str(port)):
            pass
