"""The server as we run it: sockets, signals, and what it must not print."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from receiver.server import listen
from tests.doubles import ADMIN_TOKEN, LIMIT_S, Running, running
from tests.make import TASK

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


@pytest.mark.process
def test_a_long_poll_is_answered_when_the_receiver_is_told_to_stop(tmp_path: Path) -> None:
    with running(tmp_path) as receiver, httpx.Client(base_url=receiver.ready["url"]) as client:
        path = f"/v1/tasks/{TASK}"
        client.put(path, headers=HEADERS, json={"platform": "runware"}).raise_for_status()
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(
                httpx.get,
                f"{receiver.ready['url']}{path}?wait=30",
                headers=HEADERS,
                timeout=2 * LIMIT_S,
            )
            # Answered on a later connection, so the poll above has been taken in by then.
            for _ in range(20):
                client.get(path, headers=HEADERS).raise_for_status()
            receiver.process.terminate()
            assert waiting.result(2 * LIMIT_S).status_code == 200


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
