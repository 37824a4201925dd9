"""A POST with an Idempotency-Key is done once, whatever breaks; and changes that see each other."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.admin.ops.once import LEASE
from receiver.clock import DAY
from receiver.errors import StoreUnavailable
from receiver.store.protocol import Answer
from tests.doubles import SIGNING_KEY, Assembled, assembled
from tests.make import OLD_KEY, TASK
from tests.receiver.test_access import holding, made
from tests.receiver.test_api import refused

pytestmark = pytest.mark.anyio

URL = "https://example.com/hook"
ENDPOINT = {"url": URL}


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path) as found:
        yield found


async def ask(
    client: httpx.AsyncClient, path: str, body: Any = None, *, key: str = "a key"
) -> httpx.Response:
    headers = {"idempotency-key": key}
    return await client.post(path, json=body, headers=headers)


async def endpoints(receiver: Assembled) -> list[str]:
    page = (await receiver.client.get("/v1/endpoints")).json()["data"]
    return [endpoint["id"] for endpoint in page]


def rows(receiver: Assembled) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(receiver.store.path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM answers")]


async def test_a_repeated_request_is_answered_as_the_first_one_was(receiver: Assembled) -> None:
    first = await ask(receiver.client, "/v1/endpoints", ENDPOINT)
    receiver.clock.advance(DAY - 1)
    again = await ask(receiver.client, "/v1/endpoints", ENDPOINT)
    assert (
        (again.status_code, again.content)
        == (first.status_code, first.content)
        == (
            201,
            first.content,
        )
    )
    assert again.json()["secret"].startswith("whsec_")
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["content-type"] == "application/json"
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert await endpoints(receiver) == [first.json()["id"]]
    audit = (await receiver.client.get("/v1/audit")).json()["data"]
    assert [entry["request_id"] for entry in audit] == [first.headers["x-request-id"]]


async def test_no_secret_of_an_answer_is_kept_in_clear(receiver: Assembled) -> None:
    secret = (await ask(receiver.client, "/v1/endpoints", ENDPOINT, key="1")).json()["secret"]
    body = {"name": "x", "scope": "read"}
    token = (await ask(receiver.client, "/v1/api-tokens", body, key="2")).json()["token"]
    again = (await ask(receiver.client, "/v1/api-tokens", body, key="2")).json()["token"]
    assert again == token
    kept = rows(receiver)
    assert [row["status"] for row in kept] == [201, 201]
    text = json.dumps(kept, default=str)
    assert secret.removeprefix("whsec_") not in text
    for path in receiver.store.path.parent.iterdir():
        assert token.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/endpoints", {"url": f"{URL}/other"}), ("/v1/endpoints?project=x", ENDPOINT),
     ("/v1/api-tokens", ENDPOINT)],
)  # fmt: skip
async def test_another_request_with_a_known_key_is_refused(
    receiver: Assembled, path: str, body: dict[str, Any]
) -> None:
    await ask(receiver.client, "/v1/endpoints", ENDPOINT)
    refused(await ask(receiver.client, path, body), 422, "idempotency_key_reused")
    assert len(await endpoints(receiver)) == 1


async def test_after_a_day_a_key_is_a_new_one(receiver: Assembled) -> None:
    await ask(receiver.client, "/v1/endpoints", ENDPOINT)
    receiver.clock.advance(DAY)
    await receiver.service.ops.tidy()
    assert rows(receiver) == []
    assert (await ask(receiver.client, "/v1/endpoints", ENDPOINT)).status_code == 201
    assert len(await endpoints(receiver)) == 2


async def test_a_key_is_its_tokens_own(receiver: Assembled) -> None:
    await ask(receiver.client, "/v1/endpoints", ENDPOINT)
    token = await made(receiver)
    async with holding(receiver, token["token"]) as client:
        assert (await ask(client, "/v1/endpoints", {"url": f"{URL}/2"})).status_code == 201
    assert len(await endpoints(receiver)) == 2


async def test_a_refused_request_may_come_again(receiver: Assembled) -> None:
    odd = {"url": "http://127.0.0.1/"}
    for _ in range(2):
        found = refused(await ask(receiver.client, "/v1/endpoints", odd), 422, "url_refused")
        assert found["detail"]
    path = f"/v1/tasks/{TASK}/reconcile"
    refused(await ask(receiver.client, path, key="b"), 404, "not_found")
    await receiver.client.put(f"/v1/tasks/{TASK}", json={"platform": "runware"})
    assert (await ask(receiver.client, path, key="b")).status_code == 200
    assert len(rows(receiver)) == 1


async def test_of_many_at_once_one_is_done(receiver: Assembled) -> None:
    found = await asyncio.gather(
        *[ask(receiver.client, "/v1/endpoints", ENDPOINT) for _ in range(5)]
    )
    codes = sorted(response.status_code for response in found)
    assert codes[0] == 201
    assert set(codes) <= {201, 409}
    late = [response for response in found if response.status_code == 409]
    assert late
    for response in late:
        refused(response, 409, "idempotency_key_in_use")
    assert len(await endpoints(receiver)) == 1


async def test_what_was_done_and_not_answered_is_not_done_again(
    receiver: Assembled, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(key: Any, answer: Answer) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(receiver.store, "keep_answer", fail)
    first = await ask(receiver.client, "/v1/endpoints", ENDPOINT)
    assert first.status_code == 201
    monkeypatch.undo()
    for ms in (0, LEASE):
        receiver.clock.advance(ms)
        again = await ask(receiver.client, "/v1/endpoints", ENDPOINT)
        refused(again, 409, "idempotency_answer_lost")
    assert await endpoints(receiver) == [first.json()["id"]]


async def test_a_defect_after_the_change_does_not_make_it_twice(
    receiver: Assembled, monkeypatch: pytest.MonkeyPatch
) -> None:
    await receiver.client.put(f"/v1/tasks/{TASK}", json={"platform": "runware"})
    read, calls = receiver.store.task, 0

    async def second_fails(task_id: str) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StoreUnavailable
        return await read(task_id)

    monkeypatch.setattr(receiver.store, "task", second_fails)
    path = f"/v1/tasks/{TASK}/revoke"
    refused(await ask(receiver.client, path), 503, "store_unavailable")
    refused(await ask(receiver.client, path), 409, "idempotency_answer_lost")
    audit = (await receiver.client.get("/v1/audit?action=task.revoke")).json()["data"]
    assert len(audit) == 1


async def test_a_request_that_was_cut_off_may_come_again(
    receiver: Assembled, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, reached = asyncio.Event(), asyncio.Event()

    async def hang(*_: Any) -> Any:
        reached.set()
        await held.wait()

    monkeypatch.setattr(receiver.store, "task", hang)
    path = f"/v1/tasks/{TASK}/revoke"
    asking = asyncio.create_task(ask(receiver.client, path))
    await reached.wait()
    refused(await ask(receiver.client, path), 409, "idempotency_key_in_use")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    monkeypatch.undo()
    refused(await ask(receiver.client, path), 404, "not_found")


async def test_keys_of_earlier_days_open_what_they_sealed(tmp_path: Path) -> None:
    async with assembled(tmp_path, REELHOOK_SIGNING_KEYS=OLD_KEY) as receiver:
        first = await ask(receiver.client, "/v1/endpoints", ENDPOINT)
    rotated = f"{SIGNING_KEY},{OLD_KEY}"
    async with assembled(tmp_path, REELHOOK_SIGNING_KEYS=rotated) as receiver:
        assert (await ask(receiver.client, "/v1/endpoints", ENDPOINT)).content == first.content
    async with assembled(tmp_path) as receiver:
        again = await ask(receiver.client, "/v1/endpoints", ENDPOINT)
        refused(again, 409, "idempotency_answer_lost")


@pytest.mark.parametrize("odd", ["", "x" * 256, "\x7f"])
async def test_an_odd_key_is_refused(receiver: Assembled, odd: str) -> None:
    refused(await ask(receiver.client, "/v1/endpoints", ENDPOINT, key=odd), 422, "invalid")
    assert await endpoints(receiver) == []


async def test_other_methods_need_no_key_and_heed_none(receiver: Assembled) -> None:
    headers = {"idempotency-key": "k"}
    for expected in (2, 3):
        body = {"platform": "runware", "expected": expected}
        answer = await receiver.client.put(f"/v1/tasks/{TASK}", json=body, headers=headers)
        assert answer.status_code == (201 if expected == 2 else 409)
    assert rows(receiver) == []


# If-Match


async def added(receiver: Assembled) -> tuple[str, str]:
    response = await receiver.client.post("/v1/endpoints", json=ENDPOINT)
    return f"/v1/endpoints/{response.json()['id']}", response.headers["etag"]


async def changed(
    receiver: Assembled, path: str, headers: Mapping[str, str], **fields: Any
) -> httpx.Response:
    return await receiver.client.patch(path, json=fields, headers=headers)


async def test_an_etag_is_that_of_the_last_change(receiver: Assembled) -> None:
    path, etag = await added(receiver)
    assert etag == '"1"'
    found = await receiver.client.get(path)
    assert (found.headers["etag"], found.json()["revision"]) == (etag, 1)
    same = await receiver.client.get(path, headers={"if-none-match": etag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    after = await changed(receiver, path, {"if-match": etag}, concurrency=3)
    assert (after.status_code, after.headers["etag"]) == (200, '"2"')
    newer = await receiver.client.get(path, headers={"if-none-match": etag})
    assert newer.status_code == 200


async def test_of_two_who_change_it_at_once_one_is_told(receiver: Assembled) -> None:
    path, etag = await added(receiver)
    found = await asyncio.gather(
        changed(receiver, path, {"if-match": etag}, concurrency=3),
        changed(receiver, path, {"if-match": etag}, description="mine"),
    )
    first, second = sorted(found, key=lambda response: response.status_code)
    assert first.status_code == 200
    assert refused(second, 412, "precondition_failed")["revision"] == 2
    shown = (await receiver.client.get(path)).json()
    assert (shown["concurrency"] == 3) != (shown["description"] == "mine")


@pytest.mark.parametrize("given", ['"2"', 'W/"1"', '"x"', "1", '""', "nonsense", '"1000"'])
async def test_what_is_not_its_etag_changes_nothing(receiver: Assembled, given: str) -> None:
    path, _ = await added(receiver)
    headers = {"if-match": given}
    before = (await receiver.client.get(path)).json()
    asked = [
        receiver.client.patch(path, json={"concurrency": 3}, headers=headers),
        receiver.client.delete(path, headers=headers),
        receiver.client.post(f"{path}/pause", headers=headers),
        receiver.client.post(f"{path}/rotate-secret", headers=headers),
    ]
    for one in asked:
        refused(await one, 412, "precondition_failed")
    assert (await receiver.client.get(path)).json() == before


@pytest.mark.parametrize("given", ['"1"', "*", '"7", "1"', ' "1" '])
async def test_what_names_its_etag_goes_through(receiver: Assembled, given: str) -> None:
    path, _ = await added(receiver)
    gone = await receiver.client.delete(path, headers={"if-match": given})
    assert gone.status_code == 204
