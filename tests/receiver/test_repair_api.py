"""Repair over the API: dead letters, and what is sent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from receiver import ids
from receiver.clock import DAY
from receiver.endpoints import State
from tests.doubles import LIMIT_S, START, Assembled, assembled, consuming
from tests.make import endpoint
from tests.receiver.store.bench import until
from tests.receiver.store.repair_suite import die
from tests.receiver.store.suite import claim, queued

pytestmark = pytest.mark.anyio


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path, REELHOOK_ALLOW_NETWORKS="127.0.0.0/8") as found:
        yield found


async def get(receiver: Assembled, path: str, **query: Any) -> Any:
    response = await receiver.client.get(path, params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def test_dead_letters_are_shown_by_cause_page_by_page(receiver: Assembled) -> None:
    added = await queued(receiver.store, 3)
    await die(receiver.store, START, 0, 1)
    first = await get(receiver, "/v1/deliveries/dead", limit=1, endpoint=added.id)
    (group,) = first["data"]
    assert (group["endpoint_id"], group["error"], group["status"]) == (added.id, "status", 500)
    assert (group["count"], group["endpoint_deleted"]) == (2, False)
    shown = await get(receiver, f"/v1/deliveries/{group['example']}")
    assert (shown["state"], shown["last_status"]) == ("dead", 500)
    rest = await get(receiver, "/v1/deliveries/dead", cursor=first["next_cursor"])
    assert [(one["status"], one["count"]) for one in rest["data"]] == [(404, 1)]
    assert rest["next_cursor"] is None


async def post(receiver: Assembled, path: str, status: int = 200, **body: Any) -> Any:
    response = await receiver.client.post(path, json=body)
    assert response.status_code == status, response.text
    return response.json()


async def test_an_event_is_replayed_under_its_id(receiver: Assembled) -> None:
    added = await queued(receiver.store)
    await die(receiver.store)
    (event,) = (await get(receiver, "/v1/events", event_type="result.succeeded"))["data"]
    found = await post(receiver, f"/v1/events/{event['id']}/replay")
    assert (found["event_id"], found["created"], found["retried"]) == (event["id"], 0, 1)
    (claimed,) = await claim(receiver.store, receiver.clock())
    assert ids.delivery_id(claimed.event_id, claimed.endpoint_id) == found["deliveries"][0]
    found = await post(receiver, f"/v1/events/{event['id']}/replay", endpoint=added.id)
    assert (found["retried"], found["waiting"]) == (0, 1)


async def test_a_replay_is_refused_with_what_is_wrong(receiver: Assembled) -> None:
    await queued(receiver.store)
    other = await receiver.store.add_endpoint(endpoint(event_types=["task.*"]))
    (event,) = (await get(receiver, "/v1/events", event_type="result.succeeded"))["data"]
    path = f"/v1/events/{event['id']}/replay"
    assert (await post(receiver, path, 409, endpoint=other.id))["code"] == "conflict"
    assert (await post(receiver, path, 404, endpoint="ep_0000000000001"))["code"] == "not_found"
    assert (await post(receiver, path, 422, to=other.id))["code"] == "invalid"
    await post(receiver, "/v1/events/evt_0000000000001/replay", 404)


@pytest.mark.parametrize(("answer", "state"), [(b"204 X", "succeeded"), (b"500 X", "dead")])
async def test_a_test_says_how_its_one_attempt_went(
    receiver: Assembled, answer: bytes, state: str
) -> None:
    async with consuming() as consumer, asyncio.timeout(LIMIT_S):
        consumer.answer = b"HTTP/1.1 " + answer + b"\r\nContent-Length: 0\r\n\r\n"
        added = await post(receiver, "/v1/endpoints", 201, url=consumer.url)
        path = f"/v1/endpoints/{added['id']}/test?wait=30"
        asked = asyncio.create_task(post(receiver, path, 201))
        await until(lambda: receiver.service.ops.watch._waiting)
        assert await receiver.service.worker.tick() == 1
        await receiver.service.worker.drain()
        found, heard = await asked, await consumer.heard.get()
        assert (found["event_type"], found["state"]) == ("endpoint.test", state)
        assert found["attempt_log"][0]["status"] == int(answer.split()[0])
        assert heard.headers["webhook-id"] == found["event_id"]
        assert b'"endpoint.test"' in heard.body


async def test_a_test_that_nobody_waits_for_is_only_queued(receiver: Assembled) -> None:
    added = await receiver.store.add_endpoint(endpoint())
    found = await post(receiver, f"/v1/endpoints/{added.id}/test", 201)
    assert (found["state"], found["attempt_log"]) == ("pending", [])
    found = await post(receiver, f"/v1/endpoints/{added.id}/test?wait=0.01", 201)
    assert found["state"] == "pending"
    await receiver.store.set_endpoint_state(added.id, State.PAUSED, None)
    refused = await post(receiver, f"/v1/endpoints/{added.id}/test", 409)
    assert "enable" in refused["detail"]


async def test_a_stop_waits_for_no_test(receiver: Assembled) -> None:
    added = await receiver.store.add_endpoint(endpoint())
    asked = asyncio.create_task(post(receiver, f"/v1/endpoints/{added.id}/test?wait=30", 201))
    watch = receiver.service.ops.watch
    async with asyncio.timeout(LIMIT_S):
        await until(lambda: watch._waiting)
        watch.wake_all()
        assert (await asked)["state"] == "pending"


async def test_dead_letters_are_counted_then_sent_again_as_a_job(receiver: Assembled) -> None:
    await queued(receiver.store, 3)
    await die(receiver.store)
    receiver.clock.advance(1)
    counted = await post(receiver, "/v1/deliveries/retry", state="dead")
    assert counted == {"dry_run": True, "count": 3, "complete": True}
    assert (await get(receiver, "/v1/jobs"))["data"] == []
    job = await post(receiver, "/v1/deliveries/retry", 202, dry_run=False)
    assert (job["kind"], job["state"], job["total"], job["done"]) == ("retry", "queued", 3, 0)
    step = await receiver.service.jobs.tick()
    assert (step and step.taken) == 3
    shown = await get(receiver, f"/v1/jobs/{job['id']}")
    assert (shown["state"], shown["done"]) == ("done", 3)
    assert shown["asked"]["states"] == ["dead"]
    assert (await get(receiver, "/v1/jobs"))["data"] == [shown]
    assert len(await claim(receiver.store, receiver.clock())) == 3
    over = await post(receiver, f"/v1/jobs/{job['id']}/cancel", 409)
    assert over["state"] == "done"
    (line,) = [line for line in receiver.log if line["event"] == "job"]
    assert (line["state"], line["done"], line["log_level"]) == ("done", 3, "info")


async def test_a_double_click_gets_the_same_job(receiver: Assembled) -> None:
    async def ask(key: str, **body: Any) -> tuple[int, Any]:
        response = await receiver.client.post(
            "/v1/deliveries/retry",
            json={"dry_run": False, **body},
            headers={"idempotency-key": key},
        )
        return response.status_code, response.json()

    first = await ask("k")
    second = await ask("k")
    assert first == second
    assert first[0] == 202
    status, refused = await ask("k", limit=3)
    assert (status, refused["code"]) == (422, "idempotency_key_reused")
    for odd in ("", "x" * 256, "\x7f"):
        assert (await ask(odd))[0] == 422
    canceled = await post(receiver, f"/v1/jobs/{first[1]['id']}/cancel")
    assert canceled["state"] == "canceled"
    assert await ask("k") == first  # it was that very request
    receiver.clock.advance(DAY)
    status, there = await ask("k")  # the job is known for longer than the answer
    assert (status, there["id"], there["state"]) == (200, first[1]["id"], "canceled")
    receiver.clock.advance(DAY)
    status, refused = await ask("k", limit=3)
    assert (status, refused["code"]) == (409, "conflict")


async def test_an_endpoint_recovers_what_it_did_not_get(receiver: Assembled) -> None:
    added = await queued(receiver.store, 2)
    await die(receiver.store)
    path = f"/v1/endpoints/{added.id}/recover"
    since = "2026-09-21T00:00:00Z"
    receiver.clock.advance(1)
    assert (await post(receiver, path, since=since))["count"] == 2
    job = await post(receiver, path, 202, since=since, missing=True, dry_run=False)
    assert (job["kind"], job["project"], job["total"]) == ("recover", "default", 2)
    await receiver.service.jobs.tick()
    assert (await get(receiver, f"/v1/jobs/{job['id']}"))["state"] == "done"
    assert (await post(receiver, path, 422))["code"] == "invalid"
    assert (await post(receiver, path, 422, since="0001-01-01T00:00:00Z"))["parameter"] == "since"
    await post(receiver, "/v1/endpoints/ep_0000000000001/recover", 404, since=since)


@pytest.mark.parametrize(
    "asked",
    [
        {"state": "pending"},
        {"state": "sending"},
        {"limit": 0},
        {"since": "yesterday"},
        {"until": "9999-12-31T00:00:00Z"},
        {"everything": True},
        {"dry_run": "perhaps"},
    ],
)
async def test_a_bulk_that_makes_no_sense_is_invalid(
    receiver: Assembled, asked: dict[str, Any]
) -> None:
    assert (await post(receiver, "/v1/deliveries/retry", 422, **asked))["code"] == "invalid"


async def test_a_bulk_for_what_is_not_there_is_not_found(receiver: Assembled) -> None:
    await post(receiver, "/v1/deliveries/retry", 404, endpoint="ep_0000000000001")
    await post(receiver, "/v1/deliveries/retry", 404, task="x")
