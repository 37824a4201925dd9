"""The parts put together: probes, loops, and what is written about them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import structlog

from receiver.app import build
from receiver.clock import DAY, MINUTE
from receiver.delivery.guard import Guard
from receiver.delivery.sender import Sender
from receiver.errors import CannotStart
from receiver.settings import Settings
from receiver.store.protocol import Query
from tests.doubles import (
    ADMIN_TOKEN,
    ENVIRON,
    LIMIT_S,
    PUBLIC_URL,
    Assembled,
    assembled,
    consuming,
    reaching,
)
from tests.make import TASK, arrival, endpoint, registration, success

pytestmark = pytest.mark.anyio


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path, REELHOOK_ALLOW_NETWORKS="127.0.0.0/8") as found:
        yield found


async def until(condition: Any) -> None:
    """Let others run until something holds."""
    async with asyncio.timeout(LIMIT_S):
        for _ in count():
            if condition():
                return
            await asyncio.sleep(0)


async def test_a_sender_that_may_outlive_the_lease_does_not_start(receiver: Assembled) -> None:
    guard = Guard([])
    settings = Settings.read({**ENVIRON, "REELHOOK_DELIVERY_DEADLINE": "5"})
    with pytest.raises(CannotStart, match="leased for 20 s"):
        build(
            settings,
            store=receiver.store,
            sender=Sender(guard, deadline_s=6),
            guard=guard,
            clock=receiver.clock,
            wall=receiver.clock,
            log=structlog.get_logger(),
            public_url=PUBLIC_URL,
        )


async def test_the_probes_say_which_receiver_it_is(receiver: Assembled) -> None:
    instance = receiver.store.instance
    health = await receiver.stranger.get("/healthz")
    ready = await receiver.stranger.get("/readyz")
    assert (health.status_code, health.json()) == (200, {"status": "ok", "instance": instance})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "instance": instance})
    assert ready.headers["cache-control"] == "no-store"


async def test_a_receiver_that_can_not_store_is_healthy_and_not_ready(
    receiver: Assembled,
) -> None:
    await receiver.store._writer.close()
    assert (await receiver.stranger.get("/healthz")).status_code == 200
    ready = await receiver.stranger.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "not ready")


async def test_a_receiver_whose_worker_stands_still_is_not_ready(receiver: Assembled) -> None:
    receiver.clock.advance(MINUTE)
    ready = await receiver.stranger.get("/readyz")
    assert (ready.status_code, "worker" in ready.json()["reason"]) == (503, True)


@pytest.mark.parametrize("path", ["/healthz/", "/readyz/", "//healthz", "/HEALTHZ"])
async def test_a_probe_has_one_address(receiver: Assembled, path: str) -> None:
    response = await receiver.stranger.get(f"http://receiver{path}")
    assert (response.status_code, "location" in response.headers) == (404, False)


async def test_while_it_runs_it_delivers_and_keeps_deadlines(receiver: Assembled) -> None:
    app = receiver.service.app
    async with consuming() as consumer, app.router.lifespan_context(app):
        await receiver.store.add_endpoint(
            endpoint(url=consumer.url, secret="whsec_" + "A" * 43 + "=")
        )
        await receiver.store.register(registration(give_up_at=receiver.clock() + DAY))
        await receiver.store.record(arrival(success()))
        async with asyncio.timeout(LIMIT_S):
            kinds = sorted([(await consumer.heard.get()).body[9:25] for _ in range(2)])
        assert kinds == [b"result.succeeded", b'task.completed",']
        await until(lambda: [line["event"] for line in receiver.log].count("attempt") == 2)
    (line, _) = [line for line in receiver.log if line["event"] == "attempt"]
    assert (line["number"], line["status"], line["state"]) == (1, 204, "succeeded")
    assert str(line["delivery"]).startswith("dlv_")


async def test_what_runs_beside_the_app_ends_with_it(receiver: Assembled) -> None:
    app = receiver.service.app
    before = asyncio.all_tasks()
    async with app.router.lifespan_context(app):
        assert len(asyncio.all_tasks() - before) == 7
    assert asyncio.all_tasks() == before


async def test_a_long_poll_is_answered_when_the_receiver_stops(receiver: Assembled) -> None:
    app = receiver.service.app
    await receiver.store.register(registration())
    async with reaching(receiver.door, ADMIN_TOKEN) as client:
        async with app.router.lifespan_context(app):
            waiting = asyncio.create_task(client.get(f"/v1/tasks/{TASK}?wait=30"))
            await until(lambda: receiver.service.ops.watch._waiting)
        async with asyncio.timeout(LIMIT_S):
            assert (await waiting).status_code == 200


def failed(receiver: Assembled) -> set[str]:
    """The loops that failed."""
    return {line["loop"] for line in receiver.log if line["event"] == "loop failed"}


async def test_a_loop_that_fails_is_told_and_begins_again(receiver: Assembled) -> None:
    app = receiver.service.app
    await receiver.store.add_endpoint(endpoint())
    for connection in receiver.store._readers._all:
        await connection.close()
    async with app.router.lifespan_context(app):
        await until(lambda: failed(receiver) >= {"worker", "jobs", "alerts"})
    assert "deadlines" not in failed(receiver)  # it only writes
    receiver.store._readers._all.clear()


async def test_tasks_that_are_overdue_are_noticed_without_being_asked(
    receiver: Assembled,
) -> None:
    app = receiver.service.app
    await receiver.store.register(registration(deadline_at=receiver.clock()))
    async with app.router.lifespan_context(app):
        await until(lambda: any(line["event"] == "deadlines" for line in receiver.log))
    assert (await receiver.store.tasks(Query(overdue=True))).data[0].id == TASK
