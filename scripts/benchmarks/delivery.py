"""`scripts/bench delivery`: how fast, how soon, how fairly deliveries go out, and after a restart.

Four rows: `rate` (deliveries a second beside a bare aiohttp loop to the same sink), `latency` (from
a callback's last byte sent to its delivery's arrival), `dead` (the same at healthy endpoints while
one of five is dead) and `restart` (over a queue of a million). The sink is in this process, the
receiver and the bare loop are processes of their own. Where the store disagrees with what the sink
got, there is no figure (exit 1).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import uvloop

from scripts.benchmarks import queued
from scripts.benchmarks.connection import processor_seconds
from scripts.benchmarks.ingest import RESULTS, callbacks, receiver_of, receiving, running
from scripts.benchmarks.load import Paced, pace
from scripts.benchmarks.sink import HANG, Sink, sinking

LIMIT_S: Final = 600.0
HEALTHY: Final = 4
NOWHERE: Final = "https://no-such-endpoint.invalid/hook"


def agree(folder: Path, sink: Sink, endpoint: str, path: str, count: int | None = None) -> None:
    """Raises SystemExit unless store and sink tell the same of an endpoint (and of `count`)."""
    came, told = sink.events(path), queued.told(folder, endpoint)
    answered = queued.answered(folder, endpoint)
    if set(came) != told or came.total() != answered or count not in (None, came.total()):
        raise SystemExit(
            f"{path}: {came.total()} requests of {len(came)} events came ({count} were due); the"
            f" store has {answered} answers and {len(told)} delivered"
        )


def spread(ns: Sequence[int]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    ordered = sorted(ns)
    return {
        "p50_ms": round(ordered[len(ordered) // 2] / 1e6, 2),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)] / 1e6, 2),
    }


# Row 3: deliveries a second


async def bare_rate(sink: Sink, count: int, concurrency: int) -> tuple[float, float]:
    """Requests a second of the bare loop, and its processor time a request in µs."""
    command = [sys.executable, "-m", "scripts.benchmarks.courier", f"{sink.url}/bare"]
    process = await asyncio.create_subprocess_exec(
        *(*command, str(count), str(concurrency)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate((queued.PAYLOAD % 1).encode())
    came = sink.heard.pop("/bare", [])
    if process.returncode or len(came) != count:
        raise SystemExit(f"the bare loop ended with {process.returncode}, {len(came)} came")
    found = json.loads(printed)
    return count / found["seconds"], found["processor_seconds"] / count * 1e6


async def our_rate(sink: Sink, count: int, concurrency: int) -> tuple[float, float]:
    """Deliveries a second, stored to settled, and the processor time of one in µs."""
    sink.heard.clear()
    with tempfile.TemporaryDirectory(prefix="reelhook-bench-") as name:
        folder = Path(name)
        (endpoint,) = await queued.register(folder, [f"{sink.url}/hook"], concurrency)
        queued.fill(folder, count)
        async with receiver_of(folder) as server:
            await sink.until("/hook", count, LIMIT_S)
            await queued.until_settled(folder, endpoint, count, LIMIT_S)
            spent = processor_seconds(server.pid)
        agree(folder, sink, endpoint, "/hook", count)
        return count / queued.seconds(folder), spent / count * 1e6


async def rate_row(options: argparse.Namespace) -> dict[str, Any]:
    """Both in turn."""
    count, concurrency = options.deliveries, options.concurrency
    bare, ours = [], []
    async with sinking() as sink:
        for _ in range(options.rounds):
            bare.append(await bare_rate(sink, count, concurrency))
            ours.append(await our_rate(sink, count, concurrency))
            say(f"bare {bare[-1][0]:.0f}/s, ours {ours[-1][0]:.0f}/s")
    medians = [statistics.median(found[0] for found in arm) for arm in (ours, bare)]
    return {
        "deliveries": count,
        "concurrency": concurrency,
        "bare_per_second": [round(found[0]) for found in bare],
        "per_second": [round(found[0]) for found in ours],
        "bare_processor_us": [round(found[1]) for found in bare],
        "processor_us_with_the_start": [round(found[1]) for found in ours],
        "ratio": round(medians[0] / medians[1], 3),
    }


# Row 4: from a callback to its delivery


async def paced(url: str, requests: Sequence[bytes], rate: float, status: int) -> Paced:
    """Send callbacks at a rate. Raises SystemExit unless all are answered with `status`."""
    async with asyncio.timeout(LIMIT_S):
        found = await pace(urlsplit(url).port or 0, requests, rate)
    if found.statuses != {status: len(requests)}:
        raise SystemExit(f"{dict(found.statuses)} answered of {len(requests)}")
    return found


def answer_times(found: Paced, skip: int) -> list[int]:
    """From sending to the answer's first byte, without the first `skip`; ns."""
    return [b - a for a, b in zip(found.sent[skip:], found.answered[skip:], strict=True)]


def arrival_times(found: Paced, sink: Sink, path: str, skip: int) -> list[int]:
    """From sending a callback to the first arrival of its delivery; ns."""
    first: dict[int, int] = {}
    for heard in sink.heard[path]:
        first.setdefault(heard.seed, heard.at)
    return [first[place] - found.sent[place] for place in range(skip, len(found.sent))]


def made(options: argparse.Namespace, rate: float) -> tuple[list[bytes], int]:
    """Callbacks for a second of warming up and for the time that is measured; how many warm."""
    warm = round(rate)
    count = warm + round(rate * options.seconds)
    return callbacks(-(-count // RESULTS) * RESULTS), warm


async def latency_row(options: argparse.Namespace) -> dict[str, Any]:
    """At an open loop; beside it what a bare app answers to the same."""
    rate, rounds = options.rate, list[dict[str, Any]]()
    for _ in range(options.rounds):
        requests, warm = await asyncio.to_thread(made, options, rate)
        async with running(["scripts.benchmarks.bare"], {}) as url:
            bare = spread(answer_times(await paced(url, requests, rate, 204), warm))
        async with sinking() as sink:
            with tempfile.TemporaryDirectory(prefix="reelhook-bench-") as name:
                ours = await latency_arm(Path(name), sink, requests, warm, options)
        rounds.append({"bare_app_answers": bare, **ours})
        say(f"{rounds[-1]}")
    return {
        "rate": rate,
        "seconds": options.seconds,
        "rounds": rounds,
        "p50_ms": statistics.median(found["delivered"]["p50_ms"] for found in rounds),
        "p99_ms": statistics.median(found["delivered"]["p99_ms"] for found in rounds),
    }


async def latency_arm(
    folder: Path, sink: Sink, requests: Sequence[bytes], warm: int, options: argparse.Namespace
) -> dict[str, Any]:
    """One receiver with one endpoint."""
    async with receiving(folder) as url:
        hook = f"{sink.url}/hook"
        endpoint = await asyncio.to_thread(queued.add, url, hook, options.concurrency)
        found = await paced(url, requests, options.rate, 200)
        await sink.until("/hook", len(requests), LIMIT_S)
        await queued.until_settled(folder, endpoint, len(requests), LIMIT_S)
    agree(folder, sink, endpoint, "/hook", len(requests))
    late = [sent - due for sent, due in zip(found.sent[warm:], found.due[warm:], strict=True)]
    return {
        "load_was_late_by": spread(late),
        "answered": spread(answer_times(found, warm)),
        "delivered": spread(arrival_times(found, sink, "/hook", warm)),
    }


# Row 5: one of five is dead


def deaths(sink: Sink, closed_port: int) -> dict[str, str]:
    """The fifth endpoint's URL in each arm."""
    return {
        "alive": f"{sink.url}/hook5",
        "refusing": f"http://127.0.0.1:{closed_port}/hook5",
        "hanging": f"{sink.url}{HANG}",
        "not_resolving": NOWHERE,
    }


@dataclass(frozen=True, slots=True)
class Died:
    """One turn: the healthy endpoints' latencies in ns, and what became of the dead one's attempts.

    Those that hang are not settled within a turn, so they are counted where they hang.
    """

    latencies: Sequence[int]
    attempts: Mapping[str, int]


async def dead_arm(folder: Path, sink: Sink, fifth: str, options: argparse.Namespace) -> Died:
    """Five endpoints, the fifth at this URL."""
    sink.heard.clear()
    requests, warm = await asyncio.to_thread(made, options, options.dead_rate)
    paths = [f"/hook{number}" for number in range(1, HEALTHY + 1)]
    async with receiving(folder) as url:
        targets = [*(sink.url + path for path in paths), fifth]
        endpoints = [
            await asyncio.to_thread(queued.add, url, target, options.concurrency)
            for target in targets
        ]
        found = await paced(url, requests, options.dead_rate, 200)
        for path, endpoint in zip(paths, endpoints[:HEALTHY], strict=True):
            await sink.until(path, len(requests), LIMIT_S)
            await queued.until_settled(folder, endpoint, len(requests), LIMIT_S)
    for path, endpoint in zip(paths, endpoints[:HEALTHY], strict=True):
        agree(folder, sink, endpoint, path, len(requests))
    latencies = [one for path in paths for one in arrival_times(found, sink, path, warm)]
    hung = {"hanging": len(sink.heard[HANG])} if sink.heard[HANG] else {}
    return Died(latencies, queued.failures(folder, endpoints[-1]) | hung)


async def dead_row(options: argparse.Namespace) -> dict[str, Any]:
    """All arms in turn; the figure is the ratio of the medians of their p99."""
    async with sinking() as sink, sinking() as closed:
        port = urlsplit(closed.url).port or 0
        arms: dict[str, list[dict[str, Any]]] = {name: [] for name in deaths(sink, port)}
        failed: dict[str, Mapping[str, int]] = {}
    async with sinking() as sink:
        for _ in range(options.rounds):
            for name, fifth in deaths(sink, port).items():
                with tempfile.TemporaryDirectory(prefix="reelhook-bench-") as folder:
                    turn = await dead_arm(Path(folder), sink, fifth, options)
                arms[name].append(spread(turn.latencies))
                failed[name] = turn.attempts
                say(f"{name}: {arms[name][-1]} {dict(turn.attempts)}")
    p99 = {name: statistics.median(turn["p99_ms"] for turn in arms[name]) for name in arms}
    return {
        "rate": options.dead_rate,
        "seconds": options.seconds,
        "healthy": arms,
        "attempts_at_the_fifth_that_failed": failed,
        "ratio": {name: round(p99[name] / p99["alive"], 3) for name in arms if name != "alive"},
    }


# Row 7: a restart over a long queue


async def restart_arm(events: int, endpoints: int, options: argparse.Namespace) -> dict[str, Any]:
    """Fill, start, and see how soon the first comes, and how much memory that takes."""
    paths = [f"/hook{number}" for number in range(endpoints)]
    with tempfile.TemporaryDirectory(prefix="reelhook-bench-", dir=options.folder) as name:
        folder = Path(name)
        async with sinking() as sink:
            urls = [sink.url + path for path in paths]
            made = await queued.register(folder, urls, options.concurrency)
            size = await asyncio.to_thread(queued.fill, folder, events)
            begun, before = time.monotonic_ns(), time.monotonic()
            async with receiver_of(folder) as server:
                ready = time.monotonic() - before
                for path in paths:
                    await sink.until(path, 1, LIMIT_S)
                if events > 1:
                    await asyncio.sleep(options.seconds)
                peak = peak_memory(server.pid)
            for path, endpoint in zip(paths, made, strict=True):
                covers(folder, sink, endpoint, path)
    first = sorted((sink.heard[path][0].at - begun) / 1e9 for path in paths)
    return {
        "due": events * endpoints,
        "endpoints": endpoints,
        "file_bytes": size,
        "ready_s": round(ready, 2),
        "first_delivery_s": round(first[0], 2),
        "first_at_the_last_endpoint_s": round(first[-1], 2),
        "peak_memory_mb": round(peak / 1e6, 1),
        "delivered_meanwhile": sum(len(sink.heard[path]) for path in paths),
    }


def covers(folder: Path, sink: Sink, endpoint: str, path: str) -> None:
    """What is settled came. What was under way at the stop may have come too: at least once."""
    missing = queued.told(folder, endpoint) - set(sink.events(path))
    if missing:
        raise SystemExit(f"{path}: {len(missing)} are told to be delivered and never came")


def peak_memory(pid: int) -> int:
    """Bytes, resident, since the process began."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/PID/status has no VmHWM")


async def restart_row(options: argparse.Namespace) -> dict[str, Any]:
    """One due delivery as the yardstick, then so many for each number of endpoints."""
    rows = [await restart_arm(1, 1, options)]
    for endpoints in options.endpoints:
        rows.append(await restart_arm(options.due // endpoints, endpoints, options))
        say(f"{rows[-1]}")
    return {"yardstick": rows[0], "rows": rows[1:]}


ROWS: Final[Mapping[str, Callable[[argparse.Namespace], Awaitable[dict[str, Any]]]]] = {
    "rate": rate_row,
    "latency": latency_row,
    "dead": dead_row,
    "restart": restart_row,
}


def say(line: str) -> None:
    """Progress, for whoever waits."""
    sys.stderr.write(line + "\n")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench delivery", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all")
    parser.add_argument("--rounds", type=int, default=5, help="of rate, latency and dead")
    parser.add_argument("--deliveries", type=int, default=20_000, help="a round of rate")
    parser.add_argument("--concurrency", type=int, default=64, help="of each endpoint")
    parser.add_argument("--rate", type=float, default=500, help="callbacks a second of latency")
    parser.add_argument("--dead-rate", type=float, default=100, help="callbacks a second of dead")
    parser.add_argument("--seconds", type=float, default=10, help="that are measured, a turn")
    parser.add_argument("--due", type=int, default=1_000_000, help="deliveries of restart")
    parser.add_argument("--endpoints", type=int, nargs="*", default=[1, 5], help="of restart")
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument(
        "--workers", type=int, nargs="*", default=[1, 2, 4], help="of rate, on one PostgreSQL"
    )
    parser.add_argument("--folder", type=Path, help="where restart makes its database")
    options = parser.parse_args()
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f"there is no row {', '.join(sorted(unknown))}")
    return options


async def main() -> int:
    """Measure and print."""
    options = arguments()
    if options.store == "postgres":
        from scripts.benchmarks.shared import delivery_rows

        print(json.dumps(await delivery_rows(options), indent=1))
        return 0
    found: dict[str, Any] = {"bench": "delivery", "python": sys.version.split()[0]}
    found["load_before"] = round(os.getloadavg()[0], 1)
    for name, row in ROWS.items():
        if not options.rows or name in options.rows:
            found[name] = await row(options)
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
