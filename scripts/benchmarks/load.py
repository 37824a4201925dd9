"""A load generator: N keep-alive connections, each sending its next request after its last answer.

It runs as a process of its own and is bounded by its list of requests. Raw asyncio protocols on
uvloop, so that what is measured is the server and not the client.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast


@dataclass(slots=True)
class Measured:
    """What one arm saw: answers by status, latencies in seconds, the whole time in seconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def figures(self) -> dict[str, object]:
        """Requests a second, p50 and p99 in milliseconds, answers by status."""
        ordered = sorted(self.latencies)
        return {
            "requests_per_second": round(len(ordered) / self.seconds),
            "p50_ms": round(ordered[len(ordered) // 2] * 1000, 2),
            "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 2),
            "statuses": dict(self.statuses),
        }


def post(path: str, body: bytes) -> bytes:
    """A whole HTTP/1.1 request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], measured: Measured) -> None:
        self._requests = requests
        self._measured = measured
        self._begun = 0.0
        self._buffer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class, same interface
        self._send()

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
            return
        self._begun = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lowered = head.lower()
        _, _, after = lowered.partition(b"content-length: ")
        length = int(after.split(b"\r\n", 1)[0]) if after else 0
        if len(rest) < length:
            return
        self._measured.latencies.append(time.perf_counter() - self._begun)
        self._measured.statuses[int(head[9:12])] += 1
        self._buffer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def drive(port: int, requests: Sequence[bytes], connections: int) -> Measured:
    """Send every request once over so many connections to a port on loopback."""
    measured, todo = Measured(), iter(requests)
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    made = [
        await loop.create_connection(lambda: _Connection(todo, measured), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    measured.seconds = time.perf_counter() - begun
    return measured


@dataclass(slots=True)
class Paced:
    """What an open loop saw; times in nanoseconds of the monotonic clock, by place, 0: never."""

    due: list[int]
    sent: list[int]
    answered: list[int]
    statuses: Counter[int] = field(default_factory=Counter)


class _Lane(asyncio.Protocol):
    """A connection of an open loop; `free` takes it back after each answer."""

    def __init__(self, paced: Paced, free: deque[_Lane], settled: asyncio.Event) -> None:
        self._paced = paced
        self._free = free
        self._settled = settled
        self._place = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._free.append(self)

    def send(self, place: int, request: bytes) -> None:
        self._place = place
        self._paced.sent[place] = time.monotonic_ns()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        # Answers are one small write here; what comes after the head says nothing new.
        if not data.startswith(b"HTTP/1.1"):
            return
        self._paced.answered[self._place] = time.monotonic_ns()
        self._paced.statuses[int(data[9:12])] += 1
        self._free.append(self)
        self._settled.set()

    def close(self) -> None:
        self._transport.close()


async def pace(port: int, requests: Sequence[bytes], rate: float, lanes: int = 128) -> Paced:
    """Send `rate` requests a second to a port on loopback, whether or not answers come.

    Each goes out when it is due, unless all `lanes` connections still wait for an answer.
    """
    begun = time.monotonic_ns() + 20_000_000
    due = [begun + round(place / rate * 1e9) for place in range(len(requests))]
    paced, settled = Paced(due, [0] * len(due), [0] * len(due)), asyncio.Event()
    free: deque[_Lane] = deque()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: _Lane(paced, free, settled), "127.0.0.1", port)
        for _ in range(lanes)
    ]
    for place, request in enumerate(requests):
        await asyncio.sleep(max(due[place] - time.monotonic_ns(), 0) / 1e9)
        while not free:
            await _next(settled)
        free.popleft().send(place, request)
    while len(free) < lanes:
        await _next(settled)
    for _, lane in made:
        lane.close()
    return paced


async def _next(settled: asyncio.Event) -> None:
    settled.clear()
    await settled.wait()
