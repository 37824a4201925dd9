"""`scripts/bench prune`: ingest while retention drops old rows, beside ingest while it does not.

One receiver over one store that is full of what is too old; the arms alternate, so that a noisy
machine is noisy for both. The figures are the ratios of the medians. The prune goes the way of
`reelhook prune`, in the very steps and pauses in which it is done by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import uvloop

from receiver.clock import DAY
from scripts.benchmarks.ingest import (
    DATABASE,
    RESULTS,
    add_endpoint,
    ask,
    callbacks,
    held,
    receiving,
)
from scripts.benchmarks.load import Measured, drive
from scripts.benchmarks.seed import seed

AGE: Final = 400 * DAY
ROWS_A_TASK: Final = 19


@dataclass(slots=True)
class Pruning:
    """A prune that goes on while somebody wants it to."""

    url: str
    dropped: Counter[str] = field(default_factory=Counter)
    cursor: str | None = None
    done: bool = False

    async def go_on(self) -> None:
        """One request: a few seconds of work."""
        asked = {"dry_run": False, "cursor": self.cursor}
        found = await asyncio.to_thread(ask, f"{self.url}/v1/prune", "POST", asked)
        self.cursor = found.pop("next_cursor")
        self.done = self.cursor is None
        self.dropped.update({name: n for name, n in found.items() if name != "dry_run"})

    async def until_it_shrinks(self) -> None:
        """Everything but giving room back."""
        while not self.done and not self.dropped["freed_bytes"]:
            await self.go_on()

    @contextlib.asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """Prune until the block ends, or nothing is left."""
        wanted = True

        async def prune() -> None:
            while wanted and not self.done:
                await self.go_on()

        task = asyncio.create_task(prune())
        try:
            yield
        finally:
            wanted = False
            await task


Arms = dict[str, list[Measured]]


async def compare(url: str, options: Any) -> tuple[Arms, Pruning]:
    """Rounds of both arms until everything old is gone."""
    arms: Arms = {"calm": [], "pruning": []}
    pruning, port = Pruning(url), urlsplit(url).port or 0
    count, connections = options.callbacks, options.connections
    while not pruning.done:
        requests = await asyncio.to_thread(callbacks, count)
        arms["calm"].append(await drive(port, requests, connections))
        if options.shrink:
            await pruning.until_it_shrinks()
        requests = await asyncio.to_thread(callbacks, count)
        async with pruning.beside():
            arms["pruning"].append(await drive(port, requests, connections))
        rows = sum(pruning.dropped.values()) - pruning.dropped["freed_bytes"]
        told = " ".join(f"{name} p99 {p99(arm[-1]):.1f} ms" for name, arm in arms.items())
        freed = pruning.dropped["freed_bytes"]
        sys.stderr.write(f"{told}, {rows} rows dropped, {freed} bytes freed\n")
    return arms, pruning


def p99(measured: Measured) -> float:
    """In milliseconds."""
    return sorted(measured.latencies)[int(len(measured.latencies) * 0.99)] * 1000


def rate(measured: Measured) -> float:
    """Callbacks a second."""
    return len(measured.latencies) / measured.seconds


def ratio(arms: Arms, figure: Callable[[Measured], float]) -> float:
    """The median while pruning by the median without."""
    calm, pruning = (statistics.median(map(figure, arms[name])) for name in ("calm", "pruning"))
    return round(pruning / calm, 3)


async def measure(folder: Path, options: Any) -> dict[str, Any]:
    """Seed, compare, and see whether the store agrees. Raises SystemExit if it does not."""
    database = folder / DATABASE
    made = await asyncio.to_thread(seed, database, options.rows // ROWS_A_TASK, AGE)
    count = options.callbacks = options.callbacks // RESULTS * RESULTS
    async with receiving(folder) as url:
        await asyncio.to_thread(add_endpoint, url, "https://sink.invalid/hook", True)
        arms, pruning = await compare(url, options)
    every = [measured for arm in arms.values() for measured in arm]
    kept = held(database)
    if any(measured.statuses != {200: count} for measured in every):
        raise SystemExit("not every callback was acknowledged")
    if kept["callbacks"] != kept["results"] or kept["callbacks"] != count * len(every):
        raise SystemExit(f"{kept} kept of {count * len(every)}")
    arms["pruning"].pop()  # in the last one the prune came to its end
    return {
        "bench": "prune",
        "connections": options.connections,
        "only_while_the_file_shrinks": options.shrink,
        "seeded": made,
        "dropped": dict(pruning.dropped),
        "bytes_afterwards": database.stat().st_size,
        "rounds": len(arms["pruning"]),
        "p99_ms": {name: [round(p99(found), 1) for found in arm] for name, arm in arms.items()},
        "per_second": {name: [round(rate(found)) for found in arm] for name, arm in arms.items()},
        "p99_ratio": ratio(arms, p99),
        "rate_ratio": ratio(arms, rate),
    }


async def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="scripts/bench prune", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="that are too old")
    parser.add_argument("--callbacks", type=int, default=8_000, help="a round and arm")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--shrink", action="store_true", help="only while the file shrinks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reelhook-bench-") as folder:
        found = await measure(Path(folder), options)
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
