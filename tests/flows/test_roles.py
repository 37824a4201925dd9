"""Processes that share a database: some receive, some deliver, and one of them is killed.

Real processes on a real PostgreSQL, of which some have the wrong time. What was acknowledged is
there once, and every event arrives.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from receiver.client import Client
from receiver.endpoints import EndpointSpec
from scripts.proofs.cases import FAKETIME
from submitter.processes import Child
from tests.flows.sink import Sink
from tests.flows.test_spine import (
    ADMIN,
    PATIENCE,
    READY,
    all_complete,
    check,
    register,
    simulator,
    submit,
)
from tests.postgres import Server
from tests.receiver.shell import reelhook

NEAR = timedelta(seconds=1)  # what clocks of one machine may seem to differ by

pytestmark = [pytest.mark.anyio, pytest.mark.process]


def _environment(folder: Path, url: str) -> Mapping[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": url,
        "PORT": "0",
        "REELHOOK_DATA_DIR": str(folder),
        "REELHOOK_ADMIN_TOKEN": ADMIN,
        "REELHOOK_SIGNING_KEYS": "a-key-that-all-of-these-processes-share-0123",
        "REELHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
        "REELHOOK_DELIVERY_SCHEDULE": "0,1,1,1,1,1,1,1,1,1",
    }


def _clock(ahead_s: int) -> Mapping[str, str]:
    """What makes a process believe that it is later, or earlier."""
    if not FAKETIME.exists():
        pytest.skip("apt install faketime")
    # What time passes is no lie: loops, and what a clock of ours goes by.
    return {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME": f"{ahead_s:+}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@asynccontextmanager
async def process(
    folder: Path, url: str, *command: str, ahead_s: int = 0
) -> AsyncIterator[tuple[Child, str]]:
    """A process of ours, and where it answers."""
    argv = [sys.executable, "-m", "receiver", *command]
    env = {**_environment(folder, url), **(_clock(ahead_s) if ahead_s else {})}
    async with Child.start(argv, name=command[0], env=env) as child:
        yield child, str((await child.ready(READY))["url"])


async def test_two_receive_two_deliver_and_one_of_them_is_killed(
    tmp_path: Path, postgres: Server
) -> None:
    url = postgres.empty()
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(Sink.open())
        platform = await stack.enter_async_context(
            simulator("--delay-s", "0.3", "--spread-s", "0.5")
        )
        webs = [
            await stack.enter_async_context(
                process(tmp_path, url, "serve", "--no-worker", ahead_s=ahead_s)
            )
            for ahead_s in (60, 0)
        ]
        workers = [
            await stack.enter_async_context(process(tmp_path, url, "worker", ahead_s=ahead_s))
            for ahead_s in (0, -60)
        ]
        clients = [await stack.enter_async_context(Client(address, ADMIN)) for _, address in webs]
        endpoint = await clients[0].add_endpoint(EndpointSpec(url=sink.url))
        sink.secret = endpoint.secret or ""
        tasks: dict[str, int] = {}
        for number in range(8):
            before = datetime.now(UTC)
            task_id, webhook_url = await register(clients[number % 2], 2)
            made = await clients[1].task(task_id)
            assert made is not None
            assert before - NEAR < made.created_at < datetime.now(UTC) + NEAR
            tasks[task_id] = 2
            await submit(platform, task_id, webhook_url, 2, "pixverse:1@2")
        async with asyncio.timeout(PATIENCE):
            await sink.until(3)
            workers[0][0].kill()
            await workers[0][0].wait()
            await all_complete(clients[1], list(tasks))
            await check(clients[0], platform, sink, tasks)


def test_sqlite_is_one_process_alone_and_says_what_to_change(tmp_path: Path) -> None:
    for command in (["worker"], ["serve", "--no-worker"]):
        said = reelhook(tmp_path, *command)
        assert said.code == 3
        assert "`reelhook serve` does the work of all of them" in said.err
        assert "DATABASE_URL" in said.err
