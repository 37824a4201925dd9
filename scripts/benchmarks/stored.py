"""`scripts/bench stored`: ingest into a store that has lived long beside ingest into an empty one.

Both arms alternate, so that a noisy machine is noisy for both; the figure is the ratio of their
medians. The full store is made by SQL (scripts/benchmarks/seed.py) and may be kept for another run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from scripts.benchmarks.ingest import DATABASE, RESULTS, add_endpoint, callbacks, held, receiving
from scripts.benchmarks.load import Measured, drive
from scripts.benchmarks.seed import seed

CONNECTIONS = 64


async def arm(folder: Path, count: int) -> Measured:
    """Drive one receiver over the store in `folder`. Raises SystemExit if the store disagrees."""
    requests = await asyncio.to_thread(callbacks, count)
    before = _rows(folder)
    async with receiving(folder) as url:
        if not before.get("endpoints"):
            await asyncio.to_thread(add_endpoint, url, "https://sink.invalid/hook", True)
        measured = await drive(urlsplit(url).port or 0, requests, CONNECTIONS)
    kept = _rows(folder)["callbacks"] - before.get("callbacks", 0)
    if measured.statuses != {200: count} or kept != count:
        raise SystemExit(f"{dict(measured.statuses)} answered, {kept} kept of {count}")
    return measured


def _rows(folder: Path) -> dict[str, int]:
    return held(folder / DATABASE) if (folder / DATABASE).exists() else {}


async def compare(full: Path, count: int, rounds: int) -> tuple[list[float], list[float]]:
    """Callbacks a second into an empty and into the full store, round by round."""
    empty_rates, full_rates = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="reelhook-bench-") as folder:
            empty_rates.append(count / (await arm(Path(folder), count)).seconds)
        full_rates.append(count / (await arm(full, count)).seconds)
        sys.stderr.write(f"empty {empty_rates[-1]:.0f}/s, full {full_rates[-1]:.0f}/s\n")
    return empty_rates, full_rates


async def main() -> int:
    """Seed, or reuse what is there, and compare."""
    parser = argparse.ArgumentParser(prog="scripts/bench stored", description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000, help="in the full store")
    parser.add_argument("--callbacks", type=int, default=20_000, help="a round and arm")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="a folder for the full store, to use it again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reelhook-bench-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        made = (folder / DATABASE).exists() or seed(folder / DATABASE, options.tasks)
        sys.stderr.write(f"full store: {made} in {time.monotonic() - began:.0f} s\n")
        count = options.callbacks // RESULTS * RESULTS
        empty_rates, full_rates = await compare(folder, count, options.rounds)
        found = {
            "bench": "stored",
            "rows": held(folder / DATABASE),
            "bytes": (folder / DATABASE).stat().st_size,
            "empty_per_second": [round(rate) for rate in empty_rates],
            "full_per_second": [round(rate) for rate in full_rates],
            "ratio": round(statistics.median(full_rates) / statistics.median(empty_rates), 3),
        }
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
