"""A platform that refuses, hangs or is full, a receiver that is not there, and a SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from receiver.client import Client
from scripts.proofs.ports import held_port
from tests.flows.test_reconcile import MODEL, World, check_once, until_overdue, world
from tests.flows.test_spine import (
    ADMIN,
    PATIENCE,
    all_complete,
    receiver,
    register,
    simulator,
    submit,
)

pytestmark = [pytest.mark.anyio, pytest.mark.process]

Process = asyncio.subprocess.Process


async def line(stream: asyncio.StreamReader | None) -> str:
    """The next line that a process says."""
    assert stream is not None
    return (await stream.readline()).decode()


async def due(here: World, count: int = 1) -> dict[str, int]:
    """Tasks that are done at the platform, and due."""
    tasks = {(await here.made(1))[0]: 1 for _ in range(count)}
    await until_overdue(here.client, list(tasks))
    return tasks


async def asked(here: World) -> None:
    """Wait until the platform has a question."""
    while not (await here.polls())["getResponse"]:
        pass


async def test_a_full_platform_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    flags = ("--poll-status", "429", "--poll-faults", "1", "--poll-retry-after", "1")
    async with world(tmp_path, "--drop", "1", *flags) as here:
        tasks = await due(here, 3)
        code, said = await here.reconcile("--json")
        found = sorted(json.loads(line)["found"] for line in said.splitlines())
        assert (code, found) == (7, ["posted", "posted", "put_off"])
        # It is due again at once.
        assert (await here.reconcile())[0] == 0
        await check_once(here, tasks)


async def test_a_refused_key_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    flags = ("--poll-status", "401", "--poll-faults", "2")
    async with world(tmp_path, "--drop", "1", *flags) as here:
        tasks = await due(here)
        code, said = await here.reconcile()
        assert code == 4
        assert "RUNWARE_API_KEY" in said
        async with here.reconciling() as process:  # goes on, and says so
            assert "put_off" in await line(process.stdout)
            told = await line(process.stderr)
            assert "RUNWARE_API_KEY" in told
            assert "again in 10 minutes" in told
        assert (await here.reconcile())[0] == 0
        await check_once(here, tasks)


async def test_who_is_stopped_while_the_platform_hangs_hands_its_task_back(
    tmp_path: Path,
) -> None:
    flags = ("--poll-faults", "1", "--poll-hang-s", "600")
    async with world(tmp_path, "--drop", "1", *flags) as here:
        tasks = await due(here)
        async with here.reconciling():
            await asked(here)
        # Neither the lease nor a backoff keeps the next one from it.
        assert (await here.reconcile())[0] == 0
        assert await here.polls() == {"getResponse": 2, "getTaskDetails": 0}
        await check_once(here, tasks)


async def test_another_takes_over_what_hangs(tmp_path: Path) -> None:
    """It takes as long as a question may, and then the first pause of the backoff."""
    flags = ("--poll-faults", "1", "--poll-hang-s", "600")
    async with world(tmp_path, "--drop", "1", *flags) as here:
        tasks = await due(here)
        async with here.reconciling("--json"), here.reconciling("--json"):
            await all_complete(here.client, list(tasks))
        said = [json.loads(text) for text in here.said]
        assert sorted(one["found"] for one in said) == ["posted", "unavailable"]
        # Two reconcilers, one question that hung, one that was answered.
        assert await here.polls() == {"getResponse": 2, "getTaskDetails": 0}
        await check_once(here, tasks)


@asynccontextmanager
async def alone(folder: Path, **environ: str) -> AsyncIterator[Process]:
    """`reelhook reconcile` with nothing but a data directory."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "receiver", "reconcile"),
        env={**os.environ, "REELHOOK_DATA_DIR": str(folder), **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
        process.terminate()
        out, err = await process.communicate()
        assert (process.returncode, out, err) == (0, b"", b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_without_a_key_it_idles_and_says_so_once(tmp_path: Path) -> None:
    async with asyncio.timeout(PATIENCE), alone(tmp_path) as process:
        told = await line(process.stderr)
        assert "RUNWARE_API_KEY is not set" in told


async def test_it_waits_for_a_receiver_and_finds_it_by_its_file(tmp_path: Path) -> None:
    """A PORT of its own, as process runners give one, does not lead it astray."""
    async with asyncio.timeout(PATIENCE), simulator("--drop", "1", "--delay-s", "0.1") as url:
        environ = {
            "RUNWARE_BASE_URL": f"{url}/v1",
            "RUNWARE_API_KEY": "any",
            "REELHOOK_ADMIN_TOKEN": ADMIN,
            "PORT": "5100",
        }
        async with alone(tmp_path, **environ) as process:
            told = await line(process.stderr)
            assert "Waiting for the receiver" in told
            assert "5100" not in told
            port = held_port()
            async with (
                receiver(tmp_path, port),
                Client(f"http://127.0.0.1:{port}", ADMIN) as client,
            ):
                task_id, webhook = await register(client, 1)
                await submit(url, task_id, webhook, 1, MODEL)
                await client.reconcile_task(task_id)
                while "answers" not in (told := await line(process.stderr)):
                    assert "Waiting" in told
                assert f":{port} answers" in told
                assert task_id in await line(process.stdout)
                await all_complete(client, [task_id])
