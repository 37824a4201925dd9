"""The yardstick of delivering: a bare aiohttp loop that posts one body again and again.

`python -m scripts.benchmarks.courier URL COUNT CONCURRENCY`, the body on stdin. It has the headers
that a delivery has, each request its own id; it reads nothing from a store and keeps nothing.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from base64 import b64encode
from collections.abc import Iterator

import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector

from receiver import ids


def headers(place: int) -> dict[str, str]:
    """As many bytes as those of a delivery."""
    return {
        "user-agent": "Reelhook",
        "accept": "*/*",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "webhook-id": ids.EVENT + ids.encode(place + 1),
        "webhook-timestamp": str(time.time_ns() // 1_000_000_000),
        "webhook-signature": "v1," + b64encode(bytes(32)).decode(),
    }


async def _lane(session: ClientSession, url: str, body: bytes, places: Iterator[int]) -> None:
    for place in places:
        async with session.post(url, data=body, headers=headers(place)) as response:
            await response.read()
            if response.status != 204:
                raise SystemExit(f"the sink answered {response.status}")


async def main() -> int:
    """Post, and print seconds and processor seconds."""
    url, count, concurrency = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    body, places = sys.stdin.buffer.read(), iter(range(count))
    connector = TCPConnector(limit=0, force_close=False)
    async with ClientSession(connector=connector, cookie_jar=DummyCookieJar()) as session:
        before, begun = _processor_seconds(), time.perf_counter()
        await asyncio.gather(*(_lane(session, url, body, places) for _ in range(concurrency)))
        seconds, spent = time.perf_counter() - begun, _processor_seconds() - before
    print(json.dumps({"seconds": seconds, "processor_seconds": spent}))
    return 0


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
