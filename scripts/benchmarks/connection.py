"""`scripts/bench connection`: what our connection costs, beside uvicorn's own, in processor time.

The same bare app and the same requests, both arms in turn over several rounds: user and system time
of the server process a request, which other users of the machine disturb less than a wall clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import uvloop

from scripts.benchmarks.ingest import RESULTS, callbacks
from scripts.benchmarks.load import drive

TICKS: Final = os.sysconf("SC_CLK_TCK")
ARMS: Final = {"ours": (), "uvicorn's": ("plain",)}


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def arm(names: Sequence[str], requests: Sequence[bytes], connections: int) -> float:
    """Microseconds of processor time a request, of a server that is warm."""
    command = [sys.executable, "-m", "scripts.benchmarks.bare", *names]
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    try:
        port = urlsplit(json.loads(await server.stdout.readline())["url"]).port or 0
        await drive(port, requests[: len(requests) // 10], connections)
        before = processor_seconds(server.pid)
        measured = await drive(port, requests, connections)
        spent = processor_seconds(server.pid) - before
    finally:
        server.terminate()
        await server.wait()
    assert measured.statuses == {204: len(requests)}, measured.statuses
    return spent / len(requests) * 1_000_000


async def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench connection", description=__doc__)
    parser.add_argument("--callbacks", type=int, default=20_000, help="a round and arm")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    requests = await asyncio.to_thread(callbacks, options.callbacks // RESULTS * RESULTS)
    spent: dict[str, list[float]] = {name: [] for name in ARMS}
    for number in range(options.rounds):
        names = list(ARMS) if number % 2 else list(ARMS)[::-1]
        for name in names:
            spent[name].append(await arm(ARMS[name], requests, options.connections))
    rows = {
        name: {"median_us": round(statistics.median(found), 1), "least_us": round(min(found), 1)}
        for name, found in spent.items()
    }
    more = [ours - theirs for ours, theirs in zip(spent["ours"], spent["uvicorn's"], strict=True)]
    shown = {
        "bench": "connection",
        "python": sys.version.split()[0],
        "rounds": options.rounds,
        "processor_time_a_request": rows,
        "ours_more_by_us_median": round(statistics.median(more), 1),
    }
    print(json.dumps(shown, indent=1))
    return 0


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
