"""A downstream consumer for benchmarks: notes what came and when, and answers 204 or never.

Raw asyncio protocols on uvloop in the process of whoever measures, so that the load and what became
of it are timed by one clock.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple, cast

ANSWER: Final = b"HTTP/1.1 204 No Content\r\n\r\n"
HANG: Final = "/hang"  # a path that is never answered


class Heard(NamedTuple):
    """One request: its event, the seed of the result in it, and when it came (ns, monotonic)."""

    event: str
    seed: int
    at: int


@dataclass(slots=True)
class Sink:
    """What came, by path."""

    url: str = ""
    heard: defaultdict[str, list[Heard]] = field(default_factory=lambda: defaultdict(list))
    waiting: list[tuple[str, int, asyncio.Event]] = field(default_factory=list)

    def note(self, path: str, heard: Heard) -> None:
        """Keep one request."""
        self.heard[path].append(heard)
        for wanted, count, enough in self.waiting:
            if path == wanted and len(self.heard[path]) >= count:
                enough.set()

    async def until(self, path: str, count: int, limit_s: float) -> None:
        """Wait until so many requests came on a path. Raises SystemExit after `limit_s`."""
        enough = asyncio.Event()
        self.waiting.append((path, count, enough))
        if len(self.heard[path]) >= count:
            return
        try:
            async with asyncio.timeout(limit_s):
                await enough.wait()
        except TimeoutError:
            came = len(self.heard[path])
            raise SystemExit(f"{came} of {count} came at {path} in {limit_s:g} s") from None

    def events(self, path: str) -> Counter[str]:
        """How often each event came."""
        return Counter(heard.event for heard in self.heard[path])


class _Connection(asyncio.Protocol):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class, same interface

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lowered = head.lower()
        if len(body) < int(_header(lowered, b"content-length") or 0):
            return
        path = head.split(b" ", 2)[1].decode()
        event = _header(lowered, b"webhook-id").decode()
        self._sink.note(path, Heard(event, _seed(body), time.monotonic_ns()))
        self._buffer = b""
        if path != HANG:
            self._transport.write(ANSWER)


def _header(lowered: bytes, name: bytes) -> bytes:
    _, _, after = lowered.partition(b"\r\n" + name + b":")
    return after.split(b"\r\n", 1)[0].strip()


def _seed(body: bytes) -> int:
    _, found, after = body.partition(b'"seed":')
    return int(after.split(b",", 1)[0]) if found else 0


@asynccontextmanager
async def sinking() -> AsyncIterator[Sink]:
    """A sink that listens on loopback."""
    sink = Sink()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(sink), "127.0.0.1", 0, backlog=1024)
    sink.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield sink
    finally:
        server.close()
