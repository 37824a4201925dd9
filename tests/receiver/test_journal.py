"""One canonical line a request: what stands in it, and what a stranger can't put there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from receiver.tokens import TokenBox, webhook_url
from tests.doubles import Assembled, assembled, running, wire
from tests.make import JTI, KEY, TASK, claims, registration, success, wrapped

pytestmark = pytest.mark.anyio

Line = MutableMapping[str, Any]
PATH = webhook_url("", "runware", TokenBox([KEY]).mint(claims()), {})


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path) as found:
        yield found


def only_line(receiver: Assembled, event: str = "request") -> Line:
    (line,) = receiver.log
    assert line["event"] == event
    return line


async def test_a_request_has_one_line_with_its_route_and_not_its_path(
    receiver: Assembled,
) -> None:
    await receiver.store.register(registration())
    response = await receiver.client.get(f"/v1/tasks/{TASK}", params={"wait": "0"})
    line = only_line(receiver)
    assert response.status_code == 200
    assert (line["log_level"], line["method"], line["status"]) == ("info", "GET", 200)
    assert (line["route"], line["principal"]) == ("/v1/tasks/{id}", "admin")
    assert line["remote"] == "127.0.0.1"
    assert line["duration_ms"] >= 0
    assert f"/{TASK}" not in str(line)
    assert line["task"] == TASK
    assert "wait" not in str(line)


@pytest.mark.parametrize(
    ("method", "path", "status", "route"),
    [
        ("GET", "/v1/tasks", 401, "/v1/tasks"),
        ("POST", "/v1/tasks", 405, "/v1/tasks"),
        ("GET", "/nothing?sig=secret", 404, None),
        ("GET", "/webhooks/?sig=secret", 404, None),
        ("GET", "/webhooks/a/b?sig=secret", 404, None),
    ],
)
async def test_a_refused_request_has_its_line_too(
    receiver: Assembled, method: str, path: str, status: int, route: str | None
) -> None:
    response = await receiver.stranger.request(method, path)
    line = only_line(receiver)
    assert response.status_code == line["status"] == status
    assert (line["route"], line["principal"]) == (route, None)
    assert "secret" not in str(line)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_are_told_at_debug_level_alone(receiver: Assembled, path: str) -> None:
    await receiver.stranger.get(path)
    line = only_line(receiver)
    assert (line["log_level"], line["route"]) == ("debug", path)


async def test_a_reconciler_that_is_answered_fills_no_log(receiver: Assembled) -> None:
    """It asks for each platform every second, whether there is anything or not."""
    claim = {"platforms": ["runware"], "limit": 8}
    answer = await receiver.client.post("/v1/tasks/claim", json=claim)
    assert answer.status_code == 200, answer.text
    line = only_line(receiver)
    assert (line["log_level"], line["route"]) == ("debug", "/v1/tasks/claim")


async def test_a_reconciler_that_is_refused_does(receiver: Assembled) -> None:
    assert (await receiver.stranger.post("/v1/tasks/claim", json={})).status_code == 401
    assert only_line(receiver)["log_level"] == "info"


async def test_a_callback_has_a_line_of_its_own_and_no_other(receiver: Assembled) -> None:
    body = wrapped(success())
    response = await receiver.stranger.post(PATH, content=body)
    line = only_line(receiver, "callback")
    assert (line["outcome"], line["status"], line["size"]) == ("recorded", 200, len(body))
    assert (line["task"], line["jti"], line["remote"]) == (TASK, JTI.hex(), "127.0.0.1")
    assert line["duration_ms"] >= 0
    assert line["request_id"] == response.headers["x-request-id"]
    again = await receiver.stranger.post(PATH, content=body, headers={"x-request-id": "of-a-proxy"})
    assert again.headers["x-request-id"] == receiver.log[-1]["request_id"] == "of-a-proxy"
    assert line["request_id"] != "of-a-proxy"


async def test_a_line_says_whom_a_request_was_about_if_somebody_known_asked(
    receiver: Assembled,
) -> None:
    api, about = (
        receiver.client,
        ["task", "delivery", "endpoint", "event_id", "callback", "job", "api_token"],
    )
    added = (await api.post("/v1/endpoints", json={"url": "https://example.com/hook"})).json()["id"]
    await api.post(f"/v1/endpoints/{added}/test")
    (delivery,) = (await api.get("/v1/deliveries")).json()["data"]
    for path, found in (
        (f"/v1/endpoints/{added}", {"endpoint": added}),
        (f"/v1/deliveries/{delivery['id']}", {"delivery": delivery["id"]}),
        (f"/v1/events/{delivery['event_id']}", {"event_id": delivery["event_id"]}),
        (f"/v1/tasks/{TASK.upper()}/results", {"task": TASK}),
        (f"/endpoints/{added}", {}),
        ("/v1/deliveries/dlv_nonsense", {}),
        ("/v1/tasks/sig=secret", {}),
        ("/v1/tasks", {}),
    ):
        await api.get(path)
        assert {name: receiver.log[-1][name] for name in about & receiver.log[-1].keys()} == found
        await receiver.stranger.get(path)
        assert not about & receiver.log[-1].keys()


async def test_a_defect_at_the_door_has_its_line_and_its_name(
    receiver: Assembled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver.service.ingest, "_admit", lambda _scope: 1 / 0)
    response = await receiver.stranger.post(PATH, content=b"{}")
    line = only_line(receiver, "callback")
    assert (response.status_code, line["outcome"], line["status"]) == (500, "internal", 500)
    name = response.headers["x-request-id"]
    assert line["request_id"] == response.json()["request_id"] == name


async def test_a_callback_that_is_refused_unread_has_no_size(receiver: Assembled) -> None:
    await receiver.stranger.post("/webhooks/runware?sig=a.b", content=wrapped(success()))
    line = only_line(receiver, "callback")
    assert (line["outcome"], line["status"], line["size"]) == ("token_forged", 401, 0)
    assert not {"task", "jti"} & set(line)


@pytest.mark.parametrize("given", ["a", "01J-x.y:z_9", "f" * 64])
async def test_a_sane_request_id_is_taken_over(receiver: Assembled, given: str) -> None:
    response = await receiver.client.get("/v1/tasks", headers={"x-request-id": given})
    assert response.headers["x-request-id"] == only_line(receiver)["request_id"] == given


@pytest.mark.parametrize(
    "given", [[], [""], ["f" * 65], ["a b"], ['"'], ["a\x1b"], ["é"], ["a", "b"]]
)
async def test_otherwise_one_is_made(receiver: Assembled, given: list[str]) -> None:
    headers = [("x-request-id", value.encode()) for value in given]
    found = [await receiver.client.get("/v1/tasks", headers=headers) for _ in range(2)]  # type: ignore[arg-type]
    made = [response.headers["x-request-id"] for response in found]
    assert made == [line["request_id"] for line in receiver.log]
    assert len(set(made) - set(given)) == 2


async def test_a_defect_is_one_line_with_its_cause_and_a_500(receiver: Assembled) -> None:
    for connection in receiver.store._readers._all:
        await connection.close()
    response = await receiver.client.get("/v1/tasks")
    line = only_line(receiver)
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert (line["log_level"], line["status"]) == ("error", 500)
    assert "Traceback" in line["exception"]
    assert response.headers["x-request-id"] == line["request_id"]
    receiver.store._readers._all.clear()


async def test_a_defect_of_the_door_is_one_line_and_a_500(
    receiver: Assembled, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_arrival: object) -> None:
        raise OverflowError("too large")

    monkeypatch.setattr(receiver.service.ingest, "_record", broken)
    response = await receiver.stranger.post(PATH, content=wrapped(success()))
    line = only_line(receiver, "callback")
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert response.headers["connection"] == "close"
    assert (line["log_level"], line["outcome"], line["status"]) == ("error", "internal", 500)
    assert "Traceback" in line["exception"]


async def test_who_leaves_before_his_body_is_whole_is_no_defect(receiver: Assembled) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "PUT",
        "path": f"/v1/tasks/{TASK}",
        "query_string": b"",
        "headers": [(b"authorization", receiver.client.headers["authorization"].encode())],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
    }
    await receiver.door(scope, receive, send)
    line = only_line(receiver)
    assert (line["log_level"], line["status"]) == ("info", 0)


@pytest.mark.process
async def test_a_process_writes_a_line_for_what_is_a_request_and_none_for_what_is_not(
    tmp_path: Path,
) -> None:
    with running(tmp_path, LOG_FORMAT="json") as served:
        for request in (
            b"GET /v1/tasks HTTP/1.1\r\nHost: x\r\nX-Request-ID: from-the-proxy\r\n\r\n",
            b"nonsense\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            async with wire(served.port) as line:
                await line.send(request)
                await line.answer()
        async with wire(served.port) as line:
            await line.send(
                b"POST /webhooks/runware HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            )
            name = (await line.answer()).headers["x-request-id"]
        await asyncio.to_thread(served.process.terminate)
        served.process.wait()
        lines = [json.loads(text) for text in served.stderr().splitlines() if text[:1] == "{"]
    told = [line for line in lines if line["event"] in ("request", "callback")]
    found = [(line["event"], line["status"], line.get("request_id")) for line in told]
    assert found == [("request", 401, "from-the-proxy"), ("callback", 401, name)]
    assert sum(line.get("malformed", 0) for line in lines if line["event"] == "refused") == 1
    assert lines[0]["timestamp"].endswith("Z")
