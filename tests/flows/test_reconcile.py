"""Results whose callback never came, over real processes: they are fetched, and recorded once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.client import Client, Task
from receiver.endpoints import EndpointSpec
from scripts.proofs.ports import held_port
from tests.flows.sink import Sink
from tests.flows.test_spine import (
    ADMIN,
    PATIENCE,
    all_complete,
    all_events,
    platform_view,
    receiver,
    register,
    simulator,
    submit,
)

pytestmark = [pytest.mark.anyio, pytest.mark.process, pytest.mark.usefixtures("store")]

MODEL = "pixverse:1@2"


def seconds_from_now(seconds: float) -> datetime:
    """A deadline."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


class World:
    """A receiver, a simulator and a sink, and the commands that find them."""

    def __init__(
        self, folder: Path, port: int, simulator_url: str, sink: Sink, client: Client
    ) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.simulator = simulator_url
        self.sink = sink
        self.client = client
        self.environ = {
            **os.environ,
            "REELHOOK_URL": f"http://127.0.0.1:{port}",
            "REELHOOK_ADMIN_TOKEN": ADMIN,
            "RUNWARE_BASE_URL": f"{simulator_url}/v1",
            "RUNWARE_API_KEY": "a-key",
        }

    async def start(self, *options: str, **environ: str) -> asyncio.subprocess.Process:
        """`reelhook reconcile`, which somebody has to end."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "receiver", "reconcile", *options),
            env={**self.environ, **environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    @asynccontextmanager
    async def reconciling(
        self, *options: str, **environ: str
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """The same, ended by SIGTERM; it has to end well. `said` gets what nobody read of it."""
        process = await self.start(*options, **environ)
        try:
            yield process
            process.terminate()
            out, err = await process.communicate()
            self.said += out.decode().splitlines()
            assert (process.returncode, b"Traceback" in err) == (0, False), err.decode()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def polls(self) -> dict[str, int]:
        """How many questions of each kind the platform was asked."""
        async with httpx.AsyncClient(trust_env=False) as http:
            counters = (await http.get(f"{self.simulator}/_control")).json()["counters"]
        return dict(counters["polls"])

    async def reconcile(self, *options: str) -> tuple[int | None, str]:
        """`reelhook reconcile --once`: its exit code, and what it said."""
        process = await self.start("--once", *options)
        out, err = await process.communicate()
        assert b"Traceback" not in err, err.decode()
        return process.returncode, out.decode() + err.decode()

    async def made(self, expected: int, model: str = MODEL, **fields: Any) -> tuple[str, str]:
        """A task that the platform has, due soon."""
        given = {"deadline_at": seconds_from_now(1), **fields}
        task_id, webhook = await register(self.client, expected, **given)
        await submit(self.simulator, task_id, webhook, expected, model)
        return task_id, webhook

    async def snapshot(self, task_id: str) -> dict[str, list[dict[str, Any]]]:
        """What the platform says of a task."""
        question = [{"taskType": "getResponse", "taskUUID": task_id}]
        headers = {"authorization": "Bearer test"}
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.post(f"{self.simulator}/v1", json=question, headers=headers)
        found: dict[str, list[dict[str, Any]]] = answer.json()
        return found

    async def done_at_the_platform(self, tasks: Iterable[str]) -> None:
        """Wait until the simulator has nothing in work: `getResponse` itself says so."""
        for task_id in tasks:
            states = {"processing"}
            while "processing" in states:
                states = {item["status"] for item in (await self.snapshot(task_id))["data"]}


@asynccontextmanager
async def world(folder: Path, *flags: str) -> AsyncIterator[World]:
    async with (
        asyncio.timeout(PATIENCE),
        Sink.open() as sink,
        receiver(folder, port := held_port()),
        simulator("--delay-s", "0.1", *flags) as url,
        Client(f"http://127.0.0.1:{port}", ADMIN) as client,
    ):
        sink.secret = (await client.add_endpoint(EndpointSpec(url=sink.url))).secret or ""
        yield World(folder, port, url, sink, client)


async def until_overdue(client: Client, tasks: list[str]) -> None:
    """Wait, by long polls, until each task is overdue or complete."""
    for task_id in tasks:
        found: Task | None = await client.task(task_id)
        while found is not None and not (found.overdue or found.complete):
            found = await client.task(task_id, wait=20, revision=found.revision) or found


async def check_once(world: World, tasks: dict[str, int]) -> None:
    """Every result of the platform is in the ledger once, and told once."""
    sent = await platform_view(world.simulator)
    for task_id, expected in tasks.items():
        held = Counter(
            result.media[0].id if result.media else result.error and result.error.code
            for result in await world.client.results(task_id)
        )
        assert held == Counter(result["media"] or result["code"] for result in sent[task_id])
        assert sum(held.values()) == expected
    events = await all_events(world.client)
    completed = Counter(task for _, kind, task in events if kind == "task.completed")
    assert completed == Counter(dict.fromkeys(tasks, 1))
    assert sum(kind.startswith("result.") for _, kind, _ in events) == sum(tasks.values())
    await world.sink.until(len(events))
    assert set(world.sink.events) == {event[0] for event in events}
    assert not world.sink.refused


async def test_a_task_without_any_callback_is_found_after_its_deadline(tmp_path: Path) -> None:
    async with world(tmp_path, "--drop", "1") as here:
        task_id, webhook = await here.made(2)
        await here.done_at_the_platform({task_id: 2})
        await until_overdue(here.client, [task_id])
        code, said = await here.reconcile("--json")
        assert (code, said.splitlines()) == (
            0,
            [f'{{"task": "{task_id}", "found": "posted", "detail": null}}'],
        )
        found = await here.client.task(task_id)
        assert found is not None
        assert (found.status, found.overdue) == ("succeeded", True)
        results = await here.client.results(task_id)
        assert [result.source for result in results] == ["poll", "poll"]
        await check_once(here, {task_id: 2})
        # The callback comes after all.
        late = {"data": [results[0].raw]}
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.post(webhook, json=late)
        assert answer.json() == {"status": "duplicate"}
        assert await here.reconcile() == (0, "Nothing is due.\n")


@pytest.mark.parametrize(
    "more",
    [[], ["--failures", "0.4", "--envelope", "mixed", "--error-envelope", "flat"]],
    ids=["all succeed", "some fail"],
)
async def test_drops_and_duplicates_together_end_with_each_result_once(
    tmp_path: Path, more: list[str]
) -> None:
    flags = ("--drop", "0.3", "--duplicates", "0.2", "--seed", "5")
    async with world(tmp_path, *flags, *more) as here:
        tasks = {}
        for place in range(40):
            expected = place % 4 + 1
            tasks[(await here.made(expected))[0]] = expected
        await here.done_at_the_platform(tasks)
        await until_overdue(here.client, list(tasks))
        before = await here.polls()
        both = await asyncio.gather(
            *[here.reconcile("--limit", "100", "--rate", "1000") for _ in range(2)]
        )
        assert [code for code, _ in both] == [0, 0]
        polled = [
            line.split()[0] for _, said in both for line in said.splitlines() if "post" in line
        ]
        assert len(polled) == len(set(polled)) > 0
        # Two reconcilers ask no more than one.
        after = await here.polls()
        assert after["getResponse"] - before["getResponse"] == len(polled)
        assert after["getTaskDetails"] == 0
        await all_complete(here.client, list(tasks))
        await check_once(here, tasks)


async def test_the_loop_fetches_by_itself_and_stops_when_told(tmp_path: Path) -> None:
    async with world(tmp_path, "--drop", "1") as here:
        task_id, _ = await here.made(1)
        await here.done_at_the_platform({task_id: 1})
        await until_overdue(here.client, [task_id])
        process = await here.start()
        await all_complete(here.client, [task_id])
        assert process.stdout is not None
        assert task_id in (await process.stdout.readline()).decode()
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")


async def test_a_task_that_the_platform_never_had_is_left_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        task_id, _ = await register(here.client, 1)
        await here.client.reconcile_task(task_id)
        assert await here.reconcile() == (0, f"{task_id}  unknown\n")
        found = await here.client.task(task_id)
        assert found is not None
        assert found.status == "pending"
