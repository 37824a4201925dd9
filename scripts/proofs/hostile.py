"""A consumer that misbehaves in every way that is known, then recovers, and keeps a ledger.

`python -m scripts.proofs.hostile LEDGER` listens on loopback; its endpoints are paths. What it does
to the n-th try of an event is drawn from the seed, so that whoever compares can draw it again. At
SIGTERM it writes the ledger, one JSON array a request.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import signal
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from email.utils import formatdate
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Final

from scripts.proofs.harness import run

FAULTY: Final = 0.3  # of the tries of an event
RARELY: Final = 0.004  # of them: asks for time, in which its endpoint gets nothing at all
POISONED: Final = 0.01  # of the events: an endpoint never takes them
TAME: Final = 4  # from this try on it behaves
ASKS_FOR: Final = 3.0  # seconds of Retry-After
OUTAGE: Final = "outage"  # the endpoint that takes nothing at first
DRIP: Final = 0.2  # seconds between two bytes

# 100 MB of zeros, which nobody may unpack.
BOMB: Final = gzip.compress(bytes(1 << 20)) * 100
_TAKEN: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Visit:
    """One request. Times are seconds of this machine's monotonic clock."""

    endpoint: str
    event: str  # webhook-id
    timestamp: str
    signature: str
    digest: str  # SHA-256 of the body
    fate: str
    arrived: float
    acted: float  # just before its answer began, if there was one
    kept: bool  # its connection had carried another one before


def draw(*of: object) -> float:
    """A number in [0, 1) that is always the same for the same things."""
    digest = blake2b("|".join(map(str, of)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / (1 << 64)


def is_poisoned(seed: int, endpoint: str, event: str) -> bool:
    """Whether this endpoint never takes this event."""
    return draw(seed, endpoint, event) < POISONED


def fate_of(seed: int, endpoint: str, event: str, number: int, *, down: bool) -> str:
    """What happens to the number-th try, from 1."""
    if is_poisoned(seed, endpoint, event):
        return REFUSED
    if not down and number >= TAME:
        return WELL
    drawn = draw(seed, endpoint, event, number)
    if down:
        return _pick(OUTAGES, drawn)
    if drawn < RARELY:
        return _pick(ASKING, drawn / RARELY)
    return _pick(USUAL, (drawn - RARELY) / (FAULTY - RARELY)) if drawn < FAULTY else WELL


def _pick(fates: Sequence[str], drawn: float) -> str:
    return fates[int(drawn * len(fates))]


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _well(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_TAKEN)


async def _error(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 500 X\r\nContent-Length: 5\r\n\r\nsorry")


async def _refused(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 422 X\r\nContent-Length: 5\r\n\r\nnever")


async def _busy(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 429 X\r\nRetry-After: %d\r\nContent-Length: 0\r\n\r\n" % ASKS_FOR)


async def _away(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # A date has whole seconds, so a second more than is then asked for.
    date = formatdate(time.time() + ASKS_FOR + 1, usegmt=True).encode()
    writer.write(b"HTTP/1.1 503 X\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n" % date)


async def _redirect(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 307 X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")


async def _bomb(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB)
    writer.write(head + BOMB)


async def _hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(1)  # until the other side has had enough
    raise ConnectionError


async def _reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise ConnectionError


async def _cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX-Half")
    raise ConnectionError


async def _drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _pour(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"x", DRIP)


async def _drip_head(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _pour(writer, b"HTTP/1.1 200 OK\r\nX: ", b"x", DRIP)


async def _headers(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _pour(writer, b"HTTP/1.1 200 OK\r\n", b"X-Header: y\r\n" * 500, 0)


async def _hints(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _pour(writer, b"", b"HTTP/1.1 103 X\r\n\r\n" * 500, 0)


async def _pour(writer: asyncio.StreamWriter, head: bytes, drop: bytes, pause: float) -> None:
    writer.write(head)
    while not writer.is_closing():
        writer.write(drop)
        await writer.drain()
        await asyncio.sleep(pause)
    raise ConnectionError


WELL: Final = "well"
REFUSED: Final = "refused"  # what it never takes; it says so, since it is there
FATES: Final[Mapping[str, Answer]] = {
    REFUSED: _refused,
    "error": _error,
    "busy": _busy,
    "away": _away,
    "redirect": _redirect,
    "hang": _hang,
    "reset": _reset,
    "cut": _cut,
    "drip": _drip,
    "drip head": _drip_head,
    "bomb": _bomb,
    "endless headers": _headers,
    "endless hints": _hints,
}
TAKEN: Final = frozenset({WELL, "drip", "bomb"})  # a whole head with a 2xx
ASKING: Final = ("busy", "away")
USUAL: Final = tuple(fate for fate in FATES if fate not in (*ASKING, REFUSED))
OUTAGES: Final = ("error", "hang", "reset", "busy", "away")


class Hostile:
    """All endpoints and their ledger."""

    def __init__(self, seed: int, outage: float) -> None:
        self.ledger: list[Visit] = []
        self._seed = seed
        self._outage = outage
        self._until: float | None = None
        self._tries: dict[tuple[str, str], list[str]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        kept = False
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await self._visit(reader, writer, kept)
                kept = True
        writer.close()

    async def _visit(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bool
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        arrived = time.monotonic()
        first, *lines = head.split("\r\n")[:-2]
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        endpoint = first.split(" ")[1].strip("/")
        event, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        fate = self._fate(endpoint, event, timestamp, arrived)
        self.ledger.append(
            Visit(
                endpoint,
                event,
                timestamp,
                headers.get("webhook-signature", ""),
                sha256(body).hexdigest(),
                fate,
                arrived,
                time.monotonic(),
                kept,
            )
        )
        await FATES.get(fate, _well)(reader, writer)
        await writer.drain()

    def _fate(self, endpoint: str, event: str, timestamp: str, now: float) -> str:
        # Two tries are seconds apart, so the timestamp tells a try from its copy.
        tries = self._tries.setdefault((endpoint, event), [])
        if timestamp not in tries:
            tries.append(timestamp)
        if endpoint == OUTAGE and self._until is None:
            self._until = now + self._outage
        down = endpoint == OUTAGE and now < (self._until or 0)
        return fate_of(self._seed, endpoint, event, tries.index(timestamp) + 1, down=down)


async def main() -> None:
    """Serve until SIGTERM, then write the ledger."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--outage", type=float, default=0.0, help="seconds")
    asked = parser.parse_args()
    hostile, told = Hostile(asked.seed, asked.outage), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    server = await asyncio.start_server(hostile.serve, "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(json.dumps({"event": "ready", "url": f"http://127.0.0.1:{port}"}) + "\n")
    sys.stdout.flush()
    await told.wait()
    server.close()
    with asked.ledger.open("w") as file:
        for visit in hostile.ledger:
            file.write(json.dumps(astuple(visit)) + "\n")


def read_ledger(path: Path) -> list[Visit]:
    """What a hostile consumer has written."""
    with path.open() as file:
        return [Visit(*json.loads(line)) for line in file]


if __name__ == "__main__":
    run(main())
