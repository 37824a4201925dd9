"""`scripts/bench ingest|delivery --store postgres`: processes that share a PostgreSQL.

A private server out of Debian's package, on a real disk with its own defaults (fsync on). Ingest is
that of so many `serve --no-worker` beside one bare Starlette app; deliveries are those of a queue
that ingest has filled, by so many `worker` processes, from the moment their endpoint is enabled.
Where the database disagrees with what was acknowledged, or came, there is no figure (exit 1).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg

from scripts.benchmarks.connection import processor_seconds
from scripts.benchmarks.ingest import (
    RESULTS,
    Started,
    ask,
    bare_arm,
    callbacks,
    environment,
    started,
)
from scripts.benchmarks.load import Measured, drive
from scripts.benchmarks.sink import Sink, sinking
from scripts.proofs.ports import reserved_port
from tests.postgres import Server, programs

LIMIT_S: Final = 600.0
HOOK: Final = "/hook"
TABLES: Final = ("callbacks", "results", "deliveries")


@contextmanager
def serving() -> Iterator[Server]:
    """A server, until the block is left."""
    found = programs()
    if found is None:
        raise SystemExit("PostgreSQL is not installed: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="reelhook-bench-") as folder, reserved_port() as port:
        server = Server(Path(folder), found, port)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()


@asynccontextmanager
async def sharing(url: str, *commands: Sequence[str]) -> AsyncIterator[list[Started]]:
    """Processes of ours on one database."""
    async with AsyncExitStack() as stack:
        with tempfile.TemporaryDirectory(prefix="reelhook-bench-") as folder:
            env = environment(Path(folder)) | {"DATABASE_URL": url}
            yield [
                await stack.enter_async_context(started(["receiver", *command], env))
                for command in commands
            ]
            await stack.aclose()


async def counted(url: str) -> dict[str, int]:
    """How many rows of each kind the database has."""
    connection = await asyncpg.connect(url)
    try:
        return {
            table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES
        }
    finally:
        await connection.close()


async def check(url: str, count: int, arms: Sequence[Measured]) -> None:
    """Raises SystemExit unless the database holds what was acknowledged."""
    kept, answered = await counted(url), sum(arm.statuses[200] for arm in arms)
    if answered != count or any(kept[table] != count for table in TABLES):
        raise SystemExit(f"{answered} of {count} acknowledged, the database has {kept}")


def added(url: str, target: str, concurrency: int) -> str:
    """An endpoint that wants every result, paused; its id."""
    spec = {"url": target, "event_types": ["result.*"], "concurrency": concurrency}
    endpoint = ask(f"{url}/v1/endpoints", "POST", spec)
    ask(f"{url}/v1/endpoints/{endpoint['id']}/pause", "POST", {})
    return str(endpoint["id"])


async def filled(
    webs: Sequence[Started], requests: Sequence[bytes], connections: int
) -> list[Measured]:
    """Drive so many receivers at once, each with its part."""
    parts = [requests[place :: len(webs)] for place in range(len(webs))]
    each = max(connections // len(webs), 1)
    return await asyncio.gather(
        *(
            drive(urlsplit(web.url).port or 0, part, each)
            for web, part in zip(webs, parts, strict=True)
        )
    )


async def ingest_row(server: Server, webs: int, connections: int, count: int) -> dict[str, Any]:
    """So many receivers beside one bare app."""
    requests = await asyncio.to_thread(callbacks, count)
    bare, url = await bare_arm(requests, connections), server.empty()
    async with sharing(url, *[["serve", "--no-worker"]] * webs) as processes:
        await asyncio.to_thread(added, processes[0].url, "https://sink.invalid/hook", 64)
        arms = await filled(processes, requests, connections)
        spent = sum(processor_seconds(one.pid) for one in processes)
    await check(url, count, arms)
    slowest = max(arm.seconds for arm in arms)
    return {
        "receivers": webs,
        "connections": connections,
        "bare": bare.figures(),
        "callbacks_per_second": round(count / slowest),
        "p99_ms": max(float(str(arm.figures()["p99_ms"])) for arm in arms),
        "processor_us_with_the_start": round(spent / count * 1e6),
        "ratio": round(bare.seconds / slowest, 3),
    }


async def delivery_row(
    server: Server, workers: int, count: int, concurrency: int
) -> dict[str, Any]:
    """So many workers over a queue that is filled."""
    requests, url = await asyncio.to_thread(callbacks, count), server.empty()
    async with sinking() as sink, sharing(url, ["serve", "--no-worker"]) as (web,):
        target = sink.url + HOOK
        endpoint = await asyncio.to_thread(added, web.url, target, concurrency * workers)
        await check(url, count, await filled([web], requests, 64))
        async with sharing(url, *[["worker"]] * workers) as processes:
            await asyncio.to_thread(ask, f"{web.url}/v1/endpoints/{endpoint}/resume", "POST", {})
            await sink.until(HOOK, count, LIMIT_S)
            await until_settled(url, count)
            spent = sum(processor_seconds(one.pid) for one in processes)
        return {
            "workers": workers,
            "deliveries": count,
            "per_second": round(rate_of(sink, count)),
            "sent_again": len(sink.heard[HOOK]) - count,
            "processor_us_with_the_start": round(spent / count * 1e6),
        }


def rate_of(sink: Sink, count: int) -> float:
    """Deliveries a second, from the first to the last. Raises SystemExit unless all came."""
    heard = sink.heard[HOOK]
    if len(sink.events(HOOK)) != count:
        raise SystemExit(f"{len(sink.events(HOOK))} of {count} events came")
    return count / (max(one.at for one in heard) - min(one.at for one in heard)) * 1e9


async def until_settled(url: str, count: int) -> None:
    """Wait until the database knows of it all."""
    connection = await asyncpg.connect(url)
    sql = "SELECT count(*) FROM deliveries WHERE state = 'succeeded'"
    try:
        async with asyncio.timeout(LIMIT_S):
            while await connection.fetchval(sql) != count:  # noqa: ASYNC110 - it is elsewhere
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


def say(row: dict[str, Any]) -> dict[str, Any]:
    """Progress, for whoever waits."""
    sys.stderr.write(f"{row}\n")
    return row


async def ingest_rows(options: argparse.Namespace) -> dict[str, Any]:
    """Each number of receivers at each number of connections."""
    with serving() as server:
        rows = [
            say(await ingest_row(server, webs, connections, _count(options, connections)))
            for webs in options.receivers
            for connections in options.connections
            if connections >= webs
        ]
    return {"bench": "ingest", "store": "postgres", "python": sys.version.split()[0], "rows": rows}


def _count(options: argparse.Namespace, connections: int) -> int:
    count = max(options.callbacks * connections // 64, options.callbacks // 10)
    return int(count // RESULTS * RESULTS)


async def delivery_rows(options: argparse.Namespace) -> dict[str, Any]:
    """Each number of workers, beside the bare loop to the same sink."""
    from scripts.benchmarks.delivery import bare_rate

    async with sinking() as sink:
        bare = [
            (await bare_rate(sink, options.deliveries, options.concurrency))[0] for _ in range(3)
        ]
    yardstick = statistics.median(bare)
    rows = []
    with serving() as server:
        for workers in options.workers:
            row = await delivery_row(server, workers, options.deliveries, options.concurrency)
            rows.append(say({**row, "ratio": round(row["per_second"] / yardstick, 3)}))
    found = {"bench": "delivery", "store": "postgres", "python": sys.version.split()[0]}
    return {**found, "bare_per_second": [round(rate) for rate in bare], "rows": rows}
