"""`scripts/bench pages`: every page and list over a store of a million tasks, beside a bare page.

What is asked is found, not listed here: the GET routes of the API's own description, and the pages
that the dashboard leads to, so that a new one is measured too. The yardstick is a page of the same
server that is one string, over as many connections; rounds alternate, and the figure of a page is
the median of its rounds' ratios at p99.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import httpx
import uvloop

from scripts.benchmarks.ingest import ADMIN, DATABASE, ask, receiving, running
from scripts.benchmarks.load import Measured, drive
from scripts.benchmarks.seed import seed

REACH: Final = 20  # times a bare page, at p99
CONNECTIONS: Final = 4
ENDLESS: Final = {"/v1/events/stream", "/live", "/openapi.json"}  # no page, or a big one of text
_ID: Final = re.compile(r"/(?:[a-z]+_[0-9A-Za-z~-]{8,}|[0-9a-f]{8}-[0-9a-f-]{27})(?=/|$)")
# Filters that a person sets, which find much, little and nothing.
ASKED: Final = (
    "/v1/tasks?status=pending",
    "/v1/tasks?tag=projectId%3Dproj_789&model=pixverse%3A1%406",
    "/v1/deliveries?state=dead",
    "/v1/deliveries?state=succeeded&event_type=task.completed",
    "/v1/events?event_type=task.completed",
    "/v1/callbacks?outcome=quarantined",
    "/v1/deliveries?event_type=result.failed",
    "/v1/events?event_type=result.failed",
    "/v1/deliveries?project=a-project-of-nothing",
    "/v1/events?project=a-project-of-nothing",
    "/v1/callbacks?project=a-project-of-nothing",
    "/v1/tasks?project=a-project-of-nothing",
    "/v1/tasks?project=a-project-of-nothing&status=succeeded",
    "/v1/deliveries?project=default&event_type=result.succeeded",
    "/deliveries?event_type=endpoint.*",
    "/deliveries?endpoint=ep_0000000000009",
)
# What looks at everything that is stored is asked once, and its seconds are told: a sum of all that
# was ever paid (why there is no index: receiver/store/verbs/costs.py), a text that is nowhere.
WALKS: Final = ("/v1/costs", "/v1/costs?by=day", "/v1/tasks?q=a+text+that+is+nowhere")


def get(path: str, cookie: str) -> bytes:
    """A whole HTTP/1.1 request."""
    head = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: text/html, application/json\r\n"
    return f"{head}Cookie: {cookie}\r\n\r\n".encode()


def log_in(http: httpx.Client) -> str:
    """The cookie of a session of the dashboard."""
    origin = {"origin": str(http.base_url).rstrip("/")}
    answer = http.post("/login", data={"token": ADMIN}, headers=origin)
    if answer.status_code != 303:
        raise SystemExit(f"The login answers {answer.status_code}.")
    return "; ".join(f"{name}={value}" for name, value in http.cookies.items())


def routes(http: httpx.Client) -> Iterator[str]:
    """The GET routes of the API, with ids of what the lists hold; those of empty lists are not."""
    paths: Mapping[str, Any] = http.get("/openapi.json").raise_for_status().json()["paths"]
    for path, methods in paths.items():
        if "get" not in methods or path in ENDLESS or path in WALKS:
            continue
        if "{" not in path:
            yield path
            continue
        parent, _, rest = path.partition("/{id}")
        found = http.get(parent, params={"limit": 1}) if "{" not in parent + rest else None
        rows = found.json().get("data", []) if found is not None and found.is_success else []
        if rows and "id" in rows[0]:
            yield f"{parent}/{quote(rows[0]['id'])}{rest}"


def pages(http: httpx.Client) -> Iterator[str]:
    """The pages that the dashboard leads to, one of each kind."""
    seen, todo = set[str](), ["/"]
    while todo:
        path = todo.pop(0)
        kind = _kind(path)
        if kind in seen or urlsplit(path).path in ENDLESS:
            continue
        seen.add(kind)
        answer = http.get(path, headers={"accept": "text/html"})
        if answer.status_code == 200 and "text/html" in answer.headers.get("content-type", ""):
            yield path
            links = re.findall(r'<a[^>]* href="(/(?!/|static)[^"#]*)"', answer.text)
            todo += [link.replace("&amp;", "&") for link in links]


def _kind(path: str) -> str:
    """A path without ids, and of its query the names alone."""
    parts = urlsplit(path)
    names = urlencode([(name, "") for name, _ in sorted(parse_qsl(parts.query))])
    return f"{_ID.sub('/{id}', parts.path)}?{names}"


async def compare(
    url: str, bare: str, paths: Sequence[str], cookie: str, count: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """p99 of each path and of the bare page beside it, round by round."""
    found = {}
    for path in paths:
        ratios, times, statuses = [], [], set[int]()
        for _ in range(rounds):
            beside = await _round(bare, "/page", "", count)
            measured = await _round(url, path, cookie, count)
            times.append(measured.figures()["p99_ms"])
            ratios.append(_p99(measured) / _p99(beside))
            statuses |= {*measured.statuses}
        found[path] = {
            "ratio": round(statistics.median(ratios), 1),
            "p99_ms": times,
            "statuses": sorted(statuses),
        }
        sys.stderr.write(f"{found[path]['ratio']:>8}  {path}\n")
    return found


async def walks(url: str, cookie: str) -> dict[str, float]:
    """Seconds of each question that looks at everything."""
    found = {}
    for path in WALKS:
        measured = await drive(urlsplit(url).port or 0, [get(path, cookie)], 1)
        found[path] = round(measured.seconds, 2)
    return found


async def _round(url: str, path: str, cookie: str, count: int) -> Measured:
    return await drive(urlsplit(url).port or 0, [get(path, cookie)] * count, CONNECTIONS)


def _p99(measured: Measured) -> float:
    return sorted(measured.latencies)[int(len(measured.latencies) * 0.99)]


def fill(folder: Path, tasks: int) -> None:
    """The store in `folder`, made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    made = (folder / DATABASE).exists() or seed(folder / DATABASE, tasks)
    sys.stderr.write(f"store: {made} in {time.monotonic() - began:.0f} s\n")


def everything(url: str) -> tuple[list[str], str]:
    """Every path that is measured, and the session's cookie."""
    with httpx.Client(base_url=url, trust_env=False, timeout=120) as http:
        if not http.get("/v1/endpoints", headers={"authorization": f"Bearer {ADMIN}"}).json()[
            "data"
        ]:
            spec = {"url": "https://sink.invalid/hook", "event_types": ["endpoint.disabled"]}
            ask(f"{url}/v1/endpoints", "POST", spec)
        cookie = log_in(http)
        paths = [*pages(http), *routes(http), *ASKED]
    return list(dict.fromkeys(paths)), cookie


async def main() -> int:
    """Fill a store, or use one again, and compare. Exit code 1 beyond what is to be reached."""
    parser = argparse.ArgumentParser(prog="scripts/bench pages", description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=300, help="a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="a folder for the store, to use it again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reelhook-bench-") as temporary:
        folder = options.keep or Path(temporary)
        await asyncio.to_thread(fill, folder, options.tasks)
        async with receiving(folder) as url, running(["scripts.benchmarks.bare"], {}) as bare:
            paths, cookie = await asyncio.to_thread(everything, url)
            count, rounds = options.requests, options.rounds
            found = await compare(url, bare, paths, cookie, count, rounds)
            seconds = await walks(url, cookie)
    beyond = [path for path, one in found.items() if one["ratio"] > REACH]
    wrong = [path for path, one in found.items() if one["statuses"] != [200]]
    told = {
        "bench": "pages",
        "tasks": options.tasks,
        "connections": CONNECTIONS,
        "reach": REACH,
        "worst": max(one["ratio"] for one in found.values()),
        "beyond": beyond,
        "not_200": wrong,
        "walks_s": seconds,
        "pages": found,
    }
    print(json.dumps(told, indent=1))
    return 1 if beyond or wrong else 0


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
