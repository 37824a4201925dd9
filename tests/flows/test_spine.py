"""The main job over real processes: simulator, receiver and a sink, with a SIGKILL in the middle.

What the platform was acknowledged must be there once, and every event must arrive, verified.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from receiver.client import Client, TaskSpec
from receiver.endpoints import EndpointSpec
from scripts.proofs.ports import held_port
from submitter.processes import Child
from tests.flows.sink import Sink

pytestmark = [pytest.mark.anyio, pytest.mark.process, pytest.mark.usefixtures("store")]

ADMIN = "an-admin-token-for-tests-0123456789"
READY = 30.0
PATIENCE = 60.0


def _environment(folder: Path, port: int) -> Mapping[str, str]:
    return {
        **os.environ,
        "PORT": str(port),
        "REELHOOK_DATA_DIR": str(folder),
        "REELHOOK_ADMIN_TOKEN": ADMIN,
        "REELHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
        "REELHOOK_DELIVERY_SCHEDULE": "0,1,1,1,1,1,1,1,1,1",
    }


@asynccontextmanager
async def receiver(folder: Path, port: int) -> AsyncIterator[Child]:
    argv = [sys.executable, "-m", "receiver", "serve"]
    async with Child.start(argv, name="receiver", env=_environment(folder, port)) as child:
        await child.ready(READY)
        yield child


@asynccontextmanager
async def simulator(*flags: str) -> AsyncIterator[str]:
    argv = [sys.executable, "-m", "submitter.simulator", "--port", "0", *flags]
    async with Child.start(argv, name="simulator") as child:
        yield str((await child.ready(READY))["url"])


async def register(client: Client, expected: int, **fields: Any) -> tuple[str, str]:
    task_id = str(uuid4())
    spec = TaskSpec(platform="runware", expected=expected, **fields)
    task = await client.register_task(task_id, spec)
    return task_id, task.webhook_url


async def submit(url: str, task_id: str, webhook_url: str, results: int, model: str) -> None:
    task = {
        "taskType": "videoInference",
        "taskUUID": task_id,
        "model": model,
        "positivePrompt": "a reel turns",
        "duration": 5,
        "width": 640,
        "height": 360,
        "numberResults": results,
        "deliveryMethod": "async",
        "includeCost": True,
        "webhookURL": webhook_url,
    }
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{url}/v1", json=[task], headers={"authorization": "Bearer test"})
    assert answer.status_code == 200, answer.text


async def platform_view(url: str) -> dict[str, list[dict[str, Any]]]:
    """Each task's results as the simulator tells them, with every callback's attempts."""
    async with httpx.AsyncClient(trust_env=False) as http:
        found = (await http.get(f"{url}/_control/tasks")).json()["data"]
    return {task["taskUUID"]: task["results"] for task in found}


async def all_complete(client: Client, tasks: list[str]) -> None:
    for task_id in tasks:
        revision: int | None = None
        complete = False
        while not complete:
            task = await client.task(task_id, wait=20 if revision else 0, revision=revision)
            if task is not None:
                revision, complete = task.revision, task.complete


async def all_events(client: Client) -> list[tuple[str, str, str | None]]:
    found, cursor = [], None
    while True:
        page = await client.events(limit=200, cursor=cursor)
        found += [(event.id, event.type, event.task_id) for event in page.data]
        if (cursor := page.next_cursor) is None:
            return found


def acknowledged(results: list[dict[str, Any]]) -> set[str]:
    """Media ids, or error codes, that were answered with a 2xx at least once."""
    return {
        result["media"] or result["code"]
        for result in results
        for callback in result["callbacks"]
        for attempt in callback["attempts"]
        if attempt["status"] is not None and 200 <= attempt["status"] < 300
    }


async def all_acknowledged(url: str, task_id: str, held: set[Any]) -> set[str]:
    """What the platform was acknowledged of a task, once it has heard of all that is held: what is
    on disk may be seen before the answer that says so has arrived."""
    while (found := acknowledged((await platform_view(url))[task_id])) < held:
        pass  # the question takes its time
    return found


async def check(client: Client, url: str, sink: Sink, tasks: dict[str, int]) -> None:
    """The ledger holds what the platform was acknowledged, once; the sink holds every event."""
    for task_id, expected in tasks.items():
        results = await client.results(task_id)
        held = Counter(
            result.media[0].id if result.media else result.error and result.error.code
            for result in results
        )
        assert set(held) == await all_acknowledged(url, task_id, set(held))
        assert max(held.values()) == 1
        assert sum(held.values()) == expected
    events = await all_events(client)
    completed = Counter(task for _, kind, task in events if kind == "task.completed")
    assert completed == Counter(dict.fromkeys(tasks, 1))
    results_told = [event for event in events if event[1].startswith("result.")]
    assert len(results_told) == sum(tasks.values())
    await sink.until(len(events))
    assert set(sink.events) == {event[0] for event in events}
    assert not sink.refused


async def test_duplicates_in_any_order_are_recorded_once_and_delivered(tmp_path: Path) -> None:
    flags = ["--duplicates", "1", "--duplicate-count", "2", "--delay-s", "0.1", "--seed", "7"]
    async with (
        asyncio.timeout(PATIENCE),
        Sink.open() as sink,
        receiver(tmp_path, port := held_port()),
        simulator(*flags) as url,
        Client(f"http://127.0.0.1:{port}", ADMIN) as client,
    ):
        endpoint = await client.add_endpoint(EndpointSpec(url=sink.url))
        assert endpoint.secret is not None
        sink.secret = endpoint.secret
        tasks = {}
        for expected in (1, 2, 4, 4):
            task_id, webhook = await register(client, expected, tags={"projectId": "proj_789"})
            await submit(url, task_id, webhook, expected, "pixverse:1@2")
            tasks[task_id] = expected
        await all_complete(client, list(tasks))
        await check(client, url, sink, tasks)
        payload = next(iter(sink.events.values()))
        assert payload["data"]["task"]["tags"] == {"projectId": "proj_789"}


async def test_a_callback_before_the_submits_answer_finds_its_task(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(PATIENCE),
        Sink.open() as sink,
        receiver(tmp_path, port := held_port()),
        simulator("--callback-before-ack", "--delay-s", "0.1") as url,
        Client(f"http://127.0.0.1:{port}", ADMIN) as client,
    ):
        sink.secret = (await client.add_endpoint(EndpointSpec(url=sink.url))).secret or ""
        task_id, webhook = await register(client, 2, metadata={"order": 1})
        await submit(url, task_id, webhook, 2, "pixverse:1@2")
        await all_complete(client, [task_id])
        await check(client, url, sink, {task_id: 2})


async def test_a_failure_is_told_and_ends_the_task(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(PATIENCE),
        Sink.open() as sink,
        receiver(tmp_path, port := held_port()),
        simulator("--delay-s", "0.1") as url,
        Client(f"http://127.0.0.1:{port}", ADMIN) as client,
    ):
        sink.secret = (await client.add_endpoint(EndpointSpec(url=sink.url))).secret or ""
        task_id, webhook = await register(client, 1)
        await submit(url, task_id, webhook, 1, "simulator:fail@1")
        await all_complete(client, [task_id])
        await check(client, url, sink, {task_id: 1})
        failed = [event for event in sink.events.values() if event["type"] == "result.failed"]
        assert failed[0]["data"]["result"]["error"]["code"] == "timeoutProvider"
        assert failed[0]["data"]["result"]["error"]["retryable"] is True


async def test_nothing_acknowledged_is_lost_to_a_sigkill(tmp_path: Path) -> None:
    flags = ["--delay-s", "0.6", "--spread-s", "0.6", "--duplicates", "0.3", "--seed", "3"]
    port, tasks = held_port(), {}
    async with asyncio.timeout(PATIENCE), Sink.open() as sink, simulator(*flags) as url:
        async with (
            receiver(tmp_path, port) as child,
            Client(f"http://127.0.0.1:{port}", ADMIN) as client,
        ):
            sink.secret = (await client.add_endpoint(EndpointSpec(url=sink.url))).secret or ""
            for place in range(12):
                expected = place % 4 + 1
                task_id, webhook = await register(client, expected)
                await submit(url, task_id, webhook, expected, "pixverse:1@2")
                tasks[task_id] = expected
            # In the middle: something was delivered, and something is still to come.
            await sink.until(5)
            child.kill()
            await child.wait()
        before = sum(len(acknowledged(found)) for found in (await platform_view(url)).values())
        assert 0 < before < sum(tasks.values())
        async with (
            receiver(tmp_path, port),
            Client(f"http://127.0.0.1:{port}", ADMIN) as client,
        ):
            await all_complete(client, list(tasks))
            await check(client, url, sink, tasks)
