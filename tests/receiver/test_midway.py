"""What an operator changes while deliveries are being retried holds from the next attempt on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from receiver.clock import MINUTE
from tests.doubles import LIMIT_S, Assembled, Consumer, assembled, consuming
from tests.make import success, uuid
from tests.receiver.store.suite import arrival_of

pytestmark = pytest.mark.anyio

DOWN = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path, REELHOOK_ALLOW_NETWORKS="127.0.0.0/8") as found:
        yield found


async def ask(receiver: Assembled, method: str, path: str, **body: Any) -> Any:
    response = await receiver.client.request(method, path, json=body or None)
    assert response.is_success, response.text
    return response.json() if response.content else None


async def failing(receiver: Assembled, consumer: Consumer, count: int = 1) -> str:
    """An endpoint that is down, each of whose deliveries had its first attempt."""
    consumer.answer = DOWN
    spec = {"url": consumer.url, "event_types": ["result.*"], "schedule": [0, 60, 60]}
    added = await ask(receiver, "POST", "/v1/endpoints", **spec)
    for number in range(count):
        await receiver.store.record(arrival_of(uuid(number), success(number), expected=2))
    assert await deliver(receiver) == count
    for _ in range(count):
        await consumer.heard.get()
    return str(added["id"])


async def deliver(receiver: Assembled) -> int:
    """Let everything go out that is due."""
    async with asyncio.timeout(LIMIT_S):
        begun = await receiver.service.worker.tick()
        await receiver.service.worker.drain()
        return begun


async def states(receiver: Assembled) -> list[str]:
    return [one["state"] for one in (await ask(receiver, "GET", "/v1/deliveries"))["data"]]


async def test_a_changed_url_gets_the_next_attempt_and_the_old_one_none(
    receiver: Assembled,
) -> None:
    async with consuming() as old, consuming() as new:
        endpoint_id = await failing(receiver, old)
        await ask(receiver, "PATCH", f"/v1/endpoints/{endpoint_id}", url=new.url)
        receiver.clock.advance(2 * MINUTE)
        assert await deliver(receiver) == 1
        heard = await new.heard.get()
        assert old.heard.empty()
        (delivery,) = (await ask(receiver, "GET", "/v1/deliveries"))["data"]
        assert (delivery["state"], delivery["attempts"]) == ("succeeded", 2)
        assert heard.headers["webhook-id"] == delivery["event_id"]


async def test_a_deleted_endpoint_gets_no_more_attempts(receiver: Assembled) -> None:
    async with consuming() as gone:
        endpoint_id = await failing(receiver, gone, 3)
        await ask(receiver, "DELETE", f"/v1/endpoints/{endpoint_id}")
        assert await states(receiver) == ["canceled"] * 3
        receiver.clock.advance(2 * MINUTE)
        assert await deliver(receiver) == 0
        assert gone.heard.empty()


@pytest.mark.parametrize("move", ["pause", "disable"])
async def test_a_held_endpoint_gets_the_rest_when_it_goes_on(
    receiver: Assembled, move: str
) -> None:
    async with consuming() as held:
        endpoint_id = await failing(receiver, held)
        await ask(receiver, "POST", f"/v1/endpoints/{endpoint_id}/{move}")
        receiver.clock.advance(2 * MINUTE)
        assert await deliver(receiver) == 0
        assert await states(receiver) == ["pending"]
        await ask(receiver, "POST", f"/v1/endpoints/{endpoint_id}/enable")
        assert await deliver(receiver) == 1
        await held.heard.get()


async def test_an_endpoint_that_is_deleted_under_a_job_gets_nothing_more_of_it(
    receiver: Assembled,
) -> None:
    async with consuming() as gone:
        endpoint_id = await failing(receiver, gone, 3)
        for one in (await ask(receiver, "GET", "/v1/deliveries"))["data"]:
            await ask(receiver, "POST", f"/v1/deliveries/{one['id']}/cancel")
        await ask(receiver, "PATCH", f"/v1/endpoints/{endpoint_id}", concurrency=1)
        asked = {"state": "canceled", "endpoint": endpoint_id, "dry_run": False}
        job = await ask(receiver, "POST", "/v1/deliveries/retry", **asked)
        receiver.clock.advance(1)
        step = await receiver.service.jobs.tick()
        assert (step and step.taken) == 2
        assert await deliver(receiver) == 1
        await gone.heard.get()
        await ask(receiver, "DELETE", f"/v1/endpoints/{endpoint_id}")
        receiver.clock.advance(2 * MINUTE)
        assert await receiver.service.jobs.tick()
        assert await deliver(receiver) == 0
        shown = await ask(receiver, "GET", f"/v1/jobs/{job['id']}")
        assert (shown["state"], shown["done"]) == ("canceled", 2)
        assert await states(receiver) == ["canceled"] * 3
        assert gone.heard.empty()


async def test_a_job_sends_to_the_url_of_today(receiver: Assembled) -> None:
    async with consuming() as old, consuming() as new:
        endpoint_id = await failing(receiver, old)
        (one,) = (await ask(receiver, "GET", "/v1/deliveries"))["data"]
        await ask(receiver, "POST", f"/v1/deliveries/{one['id']}/cancel")
        await ask(receiver, "PATCH", f"/v1/endpoints/{endpoint_id}", url=new.url)
        since = {"since": "2026-09-21T00:00:00Z", "dry_run": False}
        await ask(receiver, "POST", f"/v1/endpoints/{endpoint_id}/recover", **since)
        receiver.clock.advance(1)
        assert await receiver.service.jobs.tick()
        assert await deliver(receiver) == 1
        await new.heard.get()
        assert old.heard.empty()
