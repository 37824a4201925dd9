"""`scripts/bench ingest`: durable ingest beside a bare Starlette app, same server, same requests.

Each callback is one of four results of its task; one endpoint wants `result.*`. At the end the
store must hold exactly what was acknowledged, or the figures are worth nothing (exit 1).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sqlite3
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import uvloop

from receiver.tokens import Claims, Source, TokenBox, digest_tags, webhook_url
from scripts.benchmarks.load import Measured, drive, post

KEY = "a-signing-key-for-benchmarks-only-0123456789"
ADMIN = "an-admin-token-for-benchmarks-only"
RESULTS = 4  # a task
DATABASE = "reelhook.db"


def callbacks(count: int) -> list[bytes]:
    """Distinct authentic callbacks, the results of a task spread over the run."""
    box, now, tags = TokenBox([KEY]), time.time_ns() // 1_000_000, {"projectId": "proj_789"}
    tasks = [str(UUID(bytes=secrets.token_bytes(16))) for _ in range(-(-count // RESULTS))]
    paths = [_path(box, task, now, tags) for task in tasks]
    made = []
    for place in range(count):
        task = place % len(tasks)
        made.append(post(paths[task], _body(tasks[task], place)))
    return made


def _path(box: TokenBox, task: str, now: int, tags: Mapping[str, str]) -> str:
    claims = Claims(
        jti=secrets.token_bytes(16),
        task=task,
        platform="runware",
        project="default",
        expected=RESULTS,
        source=Source.CALLBACK,
        issued_at=now,
        expires_at=now + 86_400_000,
        tags=digest_tags(tags.items()),
    )
    return webhook_url("", "runware", box.mint(claims), tags)


def _body(task: str, seed: int) -> bytes:
    video = str(UUID(bytes=secrets.token_bytes(16)))
    item = {
        "taskType": "videoInference",
        "taskUUID": task,
        "videoUUID": video,
        "videoURL": f"https://vm.runware.ai/video/os/a15d18/ws/5/vi/{video}.mp4",
        "seed": seed,
        "cost": 0.4715,
    }
    return json.dumps({"data": [item]}).encode()


@asynccontextmanager
async def running(module: Sequence[str], env: Mapping[str, str]) -> AsyncIterator[str]:
    """A server process, by the URL it is ready at; stopped and reaped at the end."""
    async with started(module, env) as server:
        yield server.url


@dataclass(frozen=True, slots=True)
class Started:
    """A server process that is ready."""

    url: str
    pid: int


@asynccontextmanager
async def started(module: Sequence[str], env: Mapping[str, str]) -> AsyncIterator[Started]:
    """The same, with the process it is."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *module,
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    ready = await process.stdout.readline()
    if not ready:
        raise SystemExit(f"{module[0]} ended with {await process.wait()} before it was ready")
    try:
        yield Started(str(json.loads(ready)["url"]), process.pid)
    finally:
        process.terminate()
        await process.wait()


def ask(url: str, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """One call of the admin API."""
    request = urllib.request.Request(
        url,
        json.dumps(body).encode(),
        {"authorization": f"Bearer {ADMIN}", "content-type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request) as response:
        found: dict[str, Any] = json.load(response)
        return found


def add_endpoint(url: str, target: str, paused: bool) -> None:
    """Register an endpoint that wants every result."""
    spec = {"url": target, "event_types": ["result.*"], "concurrency": 64}
    endpoint = ask(f"{url}/v1/endpoints", "POST", spec)
    if paused:
        ask(f"{url}/v1/endpoints/{endpoint['id']}/pause", "POST", {})


async def bare_arm(requests: Sequence[bytes], connections: int) -> Measured:
    """The yardstick."""
    async with running(["scripts.benchmarks.bare"], {}) as url:
        return await drive(urlsplit(url).port or 0, requests, connections)


async def ingest_arm(
    requests: Sequence[bytes], connections: int, target: str, paused: bool
) -> tuple[Measured, dict[str, int]]:
    """The receiver as users start it, and what its store holds afterwards."""
    with tempfile.TemporaryDirectory(prefix="reelhook-bench-") as folder:
        async with receiving(Path(folder)) as url:
            await asyncio.to_thread(add_endpoint, url, target, paused)
            measured = await drive(urlsplit(url).port or 0, requests, connections)
        return measured, held(Path(folder) / DATABASE)


@asynccontextmanager
async def receiving(folder: Path) -> AsyncIterator[str]:
    """The receiver as users start it, over the store in `folder`."""
    async with receiver_of(folder) as server:
        yield server.url


def receiver_of(folder: Path) -> AbstractAsyncContextManager[Started]:
    """The same, with the process it is."""
    return started(["receiver", "serve"], environment(folder))


def environment(folder: Path) -> dict[str, str]:
    """What a receiver is told."""
    return {
        "HOST": "127.0.0.1",
        "PORT": "0",
        "REELHOOK_DATA_DIR": str(folder),
        "REELHOOK_SIGNING_KEYS": KEY,
        "REELHOOK_ADMIN_TOKEN": ADMIN,
        "REELHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
    }


def held(path: Path) -> dict[str, int]:
    """How many rows of each kind the store has."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("callbacks", "results", "deliveries", "endpoints")
        }
    finally:
        connection.close()


async def measure(connections: int, count: int) -> tuple[dict[str, Any], bool]:
    """One row: bare, paused and delivering at so many connections; and whether the store agrees."""
    requests = await asyncio.to_thread(callbacks, count)
    bare = await bare_arm(requests, connections)
    paused, held = await ingest_arm(requests, connections, "https://sink.invalid/hook", True)
    async with running(["scripts.benchmarks.bare"], {}) as sink:
        target = f"{sink}/webhooks/sink"
        delivering, kept = await ingest_arm(requests, connections, target, False)
    agrees = all(
        arm.statuses == {200: count}
        and all(found[table] == count for table in ("callbacks", "results", "deliveries"))
        for arm, found in ((paused, held), (delivering, kept))
    )
    ratio = (count / paused.seconds) / (count / bare.seconds)
    row = {
        "connections": connections,
        "bare": bare.figures(),
        "ingest": paused.figures(),
        "ratio": round(ratio, 3),
        "ingest_while_delivering": delivering.figures(),
        "store_holds_what_was_acknowledged": agrees,
    }
    return row, agrees


async def main() -> int:
    """Measure at 1, 16 and 64 connections."""
    parser = argparse.ArgumentParser(prog="scripts/bench ingest", description=__doc__)
    parser.add_argument("--callbacks", type=int, default=40_000, help="at 64 connections")
    parser.add_argument("--connections", type=int, nargs="*", default=[1, 16, 64])
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument(
        "--receivers", type=int, nargs="*", default=[1, 2], help="on one PostgreSQL"
    )
    options = parser.parse_args()
    if options.store == "postgres":
        from scripts.benchmarks.shared import ingest_rows

        print(json.dumps(await ingest_rows(options), indent=1))
        return 0
    rows, good = [], True
    for connections in options.connections:
        count = max(options.callbacks * connections // 64, options.callbacks // 10)
        row, agrees = await measure(connections, count // RESULTS * RESULTS)
        rows.append(row)
        good = good and agrees
        sys.stderr.write(f"{connections} connections: ratio {row['ratio']}\n")
    print(json.dumps({"bench": "ingest", "python": sys.version.split()[0], "rows": rows}, indent=1))
    return 0 if good else 1


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
