"""`scripts/prove slow`: a thousand clients that never finish neither slow the others nor stay.

Connections that say nothing, send half a head or half an authentic body, or drip a byte now and
then, while valid callbacks are posted at a steady rate: windows with them and without alternate,
and the medians of their p99 are compared. Then one wave is left to its deadlines, and one to a
SIGTERM. The control is the same receiver over uvicorn's own connections, which must keep them open.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from receiver.connection import Limits
from receiver.server import GRACE, raise_file_limit
from scripts.proofs.altered import PLAIN, altered
from scripts.proofs.book import Book
from scripts.proofs.harness import (
    Line,
    Receiver,
    Verdict,
    callbacks_of,
    options,
    progress,
    run,
)
from scripts.proofs.stored import integrity_of, problems_of

LINES: Final = 8  # keep-alive connections that valid callbacks are posted over
PAUSE: Final = 0.04  # seconds between an answer and the next callback of its line
DRIP: Final = 3.0  # seconds between two bytes
REAPED: Final = 2.0  # seconds beyond its deadline in which a connection must be gone
WORST: Final = 2.0  # how many times the baseline's p99 may be
MEMORY: Final = 32 << 10  # bytes that a connection may cost
AT_ONCE: Final = 50  # connections opened side by side
SETTLED: Final = 0.3  # seconds after connecting or disconnecting all


# Clients that never finish


@dataclass(frozen=True, slots=True)
class Kind:
    """What such a client sends at first and every few seconds, and when it must be gone."""

    name: str
    begins: Callable[[], bytes]
    drips: bytes
    deadline: float


def _half_head() -> bytes:
    return b"POST /webhooks/runware HTTP/1.1\r\nHost: proof\r\nX-Filler: a"


def _half_body() -> bytes:
    request = callbacks_of(1)[0].request
    return request[:-60]


KINDS: Final = (
    Kind("says nothing", lambda: b"", b"", Limits().head),
    Kind("half a head", _half_head, b"", Limits().head),
    Kind("a head that drips", _half_head, b"a", Limits().head),
    Kind("half a body", _half_body, b"", Limits().body),
    Kind("a body that drips", _half_body, b" ", Limits().body),
)


class Slow(asyncio.Protocol):
    """One of them. `lasted` is in seconds from its first bytes until the receiver ended it."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.lasted: float | None = None
        self.told = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class, same interface
        self._began = time.monotonic()
        self._transport.write(self.kind.begins())

    def data_received(self, data: bytes) -> None:
        self.told += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lasted = time.monotonic() - self._began

    def drip(self) -> None:
        """One more byte."""
        if self.kind.drips and self.lasted is None:
            self._transport.write(self.kind.drips)

    def drop(self) -> None:
        """Give up."""
        self._transport.abort()


@dataclass
class Wave:
    """Many of them at one receiver."""

    clients: list[Slow] = field(default_factory=list)

    @property
    def open(self) -> int:
        """How many are still connected."""
        return sum(client.lasted is None for client in self.clients)

    async def begin(self, port: int, count: int) -> None:
        """Connect all, as many of each kind."""
        loop, kinds = asyncio.get_running_loop(), [KINDS[n % len(KINDS)] for n in range(count)]
        for begin in range(0, count, AT_ONCE):
            made = await asyncio.gather(
                *(
                    loop.create_connection(lambda kind=kind: Slow(kind), "127.0.0.1", port)  # type: ignore[misc]
                    for kind in kinds[begin : begin + AT_ONCE]
                )
            )
            self.clients += [client for _, client in made]

    async def drip(self) -> None:
        """A byte of each that drips, again and again."""
        while True:
            await asyncio.sleep(DRIP)
            for client in self.clients:
                client.drip()

    def problems(self) -> list[str]:
        """Whom the deadlines missed, or met too early, or told nothing."""
        found = []
        for client in self.clients:
            kind, lasted = client.kind, client.lasted
            if lasted is None:
                found.append(f"{kind.name}: still open")
            elif not kind.deadline - 0.1 <= lasted <= kind.deadline + REAPED:
                found.append(f"{kind.name}: ended after {lasted:.1f} s")
            elif client.told[:13] != (b"HTTP/1.1 408 " if kind.begins() else b""):
                found.append(f"{kind.name}: was told {client.told[:40]!r}")
        return found

    def lasted(self) -> Mapping[str, float]:
        """The longest of each kind, in seconds."""
        longest: dict[str, float] = defaultdict(float)
        for client in self.clients:
            longest[client.kind.name] = max(longest[client.kind.name], client.lasted or 0.0)
        return {name: round(seconds, 1) for name, seconds in longest.items()}


@asynccontextmanager
async def slow(port: int, count: int) -> AsyncIterator[Wave]:
    """So many clients that never finish, until the end of the block."""
    wave = Wave()
    dripping = asyncio.create_task(wave.drip())
    try:
        await wave.begin(port, count)
        yield wave
    finally:
        dripping.cancel()
        for client in wave.clients:
            client.drop()


# Clients that do


class Valid:
    """Posts callbacks at a steady rate and keeps what each one took, in seconds."""

    def __init__(self, port: int) -> None:
        self.book = Book()
        self._port = port
        self._taken: list[float] = []

    async def post(self) -> None:
        """Over several connections, until the receiver ends them."""
        await asyncio.gather(*(self._post() for _ in range(LINES)))

    async def _post(self) -> None:
        line = await Line.open(self._port)
        while True:
            callback = self.book.next()
            begun = time.perf_counter()
            answer = await line.ask(callback.request)
            self._taken.append(time.perf_counter() - begun)
            self.book.note(callback, answer)
            if answer is None or answer.headers.get("connection") == "close":
                return
            await asyncio.sleep(PAUSE)

    async def window(self, seconds: float) -> float:
        """p99 of what is answered within so many seconds, in milliseconds."""
        self._taken = []
        await asyncio.sleep(seconds)
        ordered = sorted(self._taken)
        return ordered[int(len(ordered) * 0.99)] * 1000


def resident(receiver: Receiver) -> int:
    """Bytes of memory that a receiver holds."""
    assert receiver.process is not None
    status = Path(f"/proc/{receiver.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) << 10


# The proof


@dataclass
class Proof:
    """One receiver, what is done to it, and what was seen."""

    receiver: Receiver
    verdict: Verdict
    count: int
    valid: Valid = field(init=False)
    memory: list[int] = field(default_factory=list)

    async def compare(self, pairs: int, seconds: float) -> None:
        """Windows without and with them, in turn; twice as many where the first ones leave doubt,
        since a neighbour on the machine may take one arm's time."""
        alone: list[float] = []
        beside: list[float] = []
        ratio = WORST + 1
        self.memory.append(resident(self.receiver))
        while ratio > WORST and len(alone) < 2 * pairs:
            for _ in range(pairs):
                await self._pair(seconds, alone, beside)
            ratio = statistics.median(beside) / statistics.median(alone)
        self.verdict.figures["p99_ms_alone"] = _rounded(alone)
        self.verdict.figures["p99_ms_beside_them"] = _rounded(beside)
        self.verdict.figures["ratio_of_medians"] = round(ratio, 2)
        if ratio > WORST:
            self.verdict.problems.append(f"valid p99 was {ratio:.2f} times the baseline")

    async def _pair(self, seconds: float, alone: list[float], beside: list[float]) -> None:
        await asyncio.sleep(SETTLED)
        alone.append(await self.valid.window(seconds))
        async with slow(self.receiver.port, self.count) as wave:
            await asyncio.sleep(SETTLED)
            beside.append(await self.valid.window(seconds))
            self.memory.append(resident(self.receiver))
            if wave.open < self.count:
                self.verdict.problems.append(f"{wave.open} of {self.count} were connected")

    async def outlast(self, control: Receiver) -> None:
        """One wave at each receiver until the last deadline is over."""
        async with slow(self.receiver.port, self.count) as wave:
            async with slow(control.port, self.count) as ignored:
                p99 = await self.valid.window(Limits().body + REAPED)
                self.memory.append(resident(self.receiver))
                self.verdict.control["still_open_past_the_deadlines"] = ignored.open
                self.verdict.control["of"] = self.count
                self.verdict.control_failed = ignored.open == self.count
            self.verdict.problems += wave.problems()
            self.verdict.figures["longest_s"] = wave.lasted()
        self.verdict.figures["p99_ms_until_the_last_deadline"] = round(p99, 1)

    def weigh(self) -> None:
        """Memory since before the first wave, with whatever else has grown meanwhile."""
        before, first, most = self.memory[0], self.memory[1], max(self.memory)
        each = (most - before) // self.count
        self.verdict.figures["memory_mb"] = {
            "before": before >> 20,
            "first_wave": first >> 20,
            "most": most >> 20,
        }
        self.verdict.figures["memory_a_connection_bytes"] = each
        if each > MEMORY:
            self.verdict.problems.append(f"each connection took {each} bytes")

    async def stop(self) -> None:
        """SIGTERM in the middle of a wave and of valid callbacks."""
        async with slow(self.receiver.port, self.count):
            begun = time.monotonic()
            try:
                code = await self.receiver.end(signal.SIGTERM, GRACE + REAPED)
            except TimeoutError:
                code = -signal.SIGKILL
            self.verdict.figures["stopped_after_s"] = round(time.monotonic() - begun, 1)
            if code != 0:
                self.verdict.problems.append(f"a stop ended with {code}")

    def look(self) -> None:
        """Compare the file with what was acknowledged."""
        book, database = self.valid.book, self.receiver.database
        kept = problems_of(database, book.acknowledged, in_doubt=book.in_doubt, sent=book.sent)
        self.verdict.problems += [*book.problems, *kept, *integrity_of(database)]
        if "Traceback" in self.receiver.log.read_text():
            self.verdict.problems.append("a traceback in the log")
        self.verdict.figures["answers"] = dict(book.said)


def _rounded(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "windows": len(ordered),
        "median": round(statistics.median(ordered), 2),
        "least": round(ordered[0], 2),
        "most": round(ordered[-1], 2),
    }


async def prove(verdict: Verdict, given: argparse.Namespace, folder: Path) -> None:
    """Everything, over one receiver and one control."""
    raise_file_limit()
    async with (
        Receiver(folder / "ours") as receiver,
        Receiver(folder / "control", command=altered(PLAIN)) as control,
    ):
        await receiver.add_endpoint()
        proof = Proof(receiver, verdict, given.connections)
        proof.valid = Valid(receiver.port)
        posting = asyncio.create_task(proof.valid.post())
        await proof.valid.window(1.0)
        progress(f"{given.pairs} windows with {given.connections} slow clients, and without")
        await proof.compare(given.pairs, given.window)
        for _ in range(given.waves):
            progress("until the last deadline")
            await proof.outlast(control)
        proof.weigh()
        progress("SIGTERM in the middle")
        await proof.stop()
        await posting
        await asyncio.to_thread(proof.look)


def main() -> int:
    """Run, and say what was seen."""
    parser = options("slow", __doc__)
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--pairs", type=int, help="windows of each kind (6, else 30)")
    parser.add_argument("--window", type=float, help="seconds a window (1.2, else 5)")
    parser.add_argument("--waves", type=int, help="waves left to their deadlines (1, else 3)")
    given = parser.parse_args()
    short: dict[str, Any] = {"pairs": 6, "window": 1.2, "waves": 1}
    for name, value in (short if given.ci else {"pairs": 30, "window": 5.0, "waves": 3}).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    verdict = Verdict("slow", {"connections": given.connections})
    with tempfile.TemporaryDirectory(prefix="reelhook-slow-") as folder:
        run(prove(verdict, given, Path(folder)))
    return verdict.tell()


if __name__ == "__main__":
    sys.exit(main())
