"""Stand-ins for what is outside, and the receiver itself: in this process, or as its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import httpx
import structlog
from aiohttp.abc import AbstractResolver
from structlog.testing import LogCapture

from receiver.app import FrontDoor, Service, build
from receiver.clock import SteadyClock
from receiver.deliveries import Failure, Outcome
from receiver.delivery.guard import Guard
from receiver.delivery.ourselves import Ourselves
from receiver.delivery.sender import Sender
from receiver.log import LINES
from receiver.settings import Settings
from receiver.store.sqlite import SqliteStore
from tests.taps import EARS

# httpx asks for each request to a receiver in this process whether trio runs. To find that nobody
# has installed it takes all of sys.path, and a tenth of such a request.
if find_spec("sniffio") is None:
    sys.modules["sniffio"] = None  # type: ignore[assignment] # as documented: there is none

START = 1_790_000_000_000


class FakeClock:
    """Milliseconds that pass only when told."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, ms: int) -> int:
        self.now += ms
        return self.now


class SteppingClock:
    """A machine's two clocks: what somebody may set, and what only ever passes. Nanoseconds."""

    def __init__(self) -> None:
        self._wall = START * 1_000_000
        self._steady = 5_000_000_000

    def wall_ns(self) -> int:
        return self._wall

    def steady_ns(self) -> int:
        return self._steady

    def wall(self) -> int:
        """Milliseconds, as `wall_clock` gives them."""
        return self._wall // 1_000_000

    def steady(self) -> SteadyClock:
        return SteadyClock(self.wall_ns, self.steady_ns)

    def step(self, ms: int) -> None:
        """Somebody sets the clock."""
        self._wall += ms * 1_000_000

    def pass_ns(self, ns: int, drift: int = 0) -> None:
        self._steady += ns
        self._wall += ns + drift

    def advance(self, ms: int) -> None:
        self.pass_ns(ms * 1_000_000)


class Dice:
    """Entropy that counts, so that ids differ and runs repeat."""

    def __init__(self) -> None:
        self._thrown = 0

    def bits(self, count: int) -> int:
        self._thrown += 1
        return self._thrown % (1 << count)

    def bytes(self, count: int) -> bytes:
        self._thrown += 1
        return self._thrown.to_bytes(count, "big")


def sent(status: int | None = 200, failure: Failure | None = None, body: bytes = b"") -> Outcome:
    """What an attempt saw."""
    if status is not None and not 200 <= status < 300:
        failure = failure or Failure.STATUS
    return Outcome(status, failure, "A sentence.", 12, response_body=body)


@dataclass
class ScriptedSender:
    """Answers each attempt with the next outcome, the last one for ever."""

    outcomes: Sequence[Outcome] = (sent(),)
    calls: list[tuple[str, bytes, dict[str, str]]] = field(default_factory=list)

    async def send(self, url: str, body: bytes, headers: dict[str, str]) -> Outcome:
        self.calls.append((url, body, headers))
        return self.outcomes[min(len(self.calls), len(self.outcomes)) - 1]


@dataclass(frozen=True)
class Heard:
    """One request that a consumer got."""

    head: str
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines if line)
        return {name.strip().lower(): value.strip() for name, _, value in pairs}


class Consumer:
    """A downstream endpoint on a real socket; `heard` is what came, in order."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Heard] = asyncio.Queue()
        self.answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = int(Heard(head, b"").headers.get("content-length", "0"))
            self.heard.put_nowait(Heard(head, await reader.readexactly(length)))
            writer.write(self.answer)
            await writer.drain()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def consuming() -> AsyncIterator[Consumer]:
    """A consumer that listens on loopback."""
    consumer = Consumer()
    server = await asyncio.start_server(consumer.serve, "127.0.0.1", 0)
    consumer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield consumer
    finally:
        server.close()
        await server.wait_closed()


PUBLIC_URL = "https://hooks.example.com"
SIGNING_KEY = "a-signing-key-of-more-than-32-characters"
ADMIN_TOKEN = "an-admin-token-of-more-than-32-characters"
ENVIRON = {"REELHOOK_SIGNING_KEYS": SIGNING_KEY, "REELHOOK_ADMIN_TOKEN": ADMIN_TOKEN}
ROOT = Path(__file__).parents[1]
LIMIT_S = 30.0


@dataclass
class Assembled:
    """The whole service in this process; nothing runs in it but what a test calls."""

    service: Service
    door: FrontDoor
    store: SqliteStore
    clock: FakeClock
    client: httpx.AsyncClient  # with the admin token
    stranger: httpx.AsyncClient  # without
    log: Sequence[MutableMapping[str, Any]]


@asynccontextmanager
async def assembled(folder: Path, **environ: str) -> AsyncIterator[Assembled]:
    """Everything that `reelhook serve` puts together, under a clock that stands still."""
    async with assembled_over(folder, None, environ) as found:
        yield found


@asynccontextmanager
async def assembled_over(
    folder: Path, resolver: AbstractResolver | None, environ: Mapping[str, str]
) -> AsyncIterator[Assembled]:
    """The same, over a resolver that a test scripts."""
    clock, capture = FakeClock(), LogCapture()
    settings = Settings.read({**ENVIRON, "REELHOOK_DATA_DIR": str(folder), **environ})
    guard = Guard(settings.networks, ourselves=Ourselves.at([PUBLIC_URL]))
    wrapper = structlog.make_filtering_bound_logger("debug")
    told: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, capture]
    log = structlog.wrap_logger(None, processors=told, wrapper_class=wrapper)
    async with (
        await SqliteStore.open(folder / "reelhook.db", clock=clock) as store,
        Sender(guard, resolver=resolver) as sender,
    ):
        service = build(
            settings,
            store=store,
            sender=sender,
            guard=guard,
            clock=clock,
            wall=clock,
            log=log,
            public_url=PUBLIC_URL,
        )
        door = FrontDoor(service, log)
        async with reaching(door, ADMIN_TOKEN) as client, reaching(door) as stranger:
            yield Assembled(service, door, store, clock, client, stranger, capture.entries)
    assert [line for line in capture.entries if undocumented(line)] == []
    EARS.hear("log: receiver", capture.entries)


KEPT_BY_THE_LOG: Final = {"event", "log_level", "exception"}


def undocumented(line: Mapping[str, Any]) -> set[str]:
    """What stands in a line of the log, and not in the table of its page (`receiver.log.LINES`)."""
    known = [found for found in LINES if found.event == line["event"]]
    if not known:
        return {line["event"]}
    return set() if known[0].more else {*line} - {*known[0].fields.split()} - KEPT_BY_THE_LOG


def reaching(door: FrontDoor, token: str | None = None) -> httpx.AsyncClient:
    """A client of a receiver in this process."""
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(door)
    return httpx.AsyncClient(transport=transport, base_url="http://receiver", headers=headers)


@dataclass(frozen=True)
class Running:
    """A receiver that runs as its own process."""

    process: subprocess.Popen[bytes]
    ready: Mapping[str, str]  # what it announced on stdout
    folder: Path

    @property
    def port(self) -> int:
        return int(self.ready["url"].rpartition(":")[2])

    def stderr(self) -> str:
        return self.folder.joinpath("stderr").read_text()


def environment(folder: Path, **environ: str) -> dict[str, str]:
    """The environment of a process of ours, with its own data directory and a free port."""
    return {**os.environ, "REELHOOK_DATA_DIR": str(folder / "data"), "PORT": "0", **environ}


@contextmanager
def running(folder: Path, **environ: str) -> Iterator[Running]:
    """`reelhook serve` until the end of the block, then SIGTERM."""
    folder.mkdir(parents=True, exist_ok=True)
    with folder.joinpath("stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "receiver", "serve"],
            cwd=ROOT,
            env=environment(folder, **{**ENVIRON, **environ}),
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, folder.joinpath("stderr").read_text()
            yield Running(process, json.loads(line), folder)
            process.terminate()
            process.wait(LIMIT_S)
        finally:
            process.kill()


@dataclass(frozen=True)
class Answer:
    """One HTTP response as it came off a socket."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __post_init__(self) -> None:
        EARS.hear(f"answer: {self.status} on a raw connection", f"{self.headers} {self.body!r}")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


class Wire:
    """A raw connection to a receiver."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self, *, head: bool = False) -> Answer:
        """The next response. `head`: it answers a HEAD, so it has no body."""
        async with asyncio.timeout(LIMIT_S):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = text.rstrip("\r\n").split("\r\n")
            pairs = (line.partition(":") for line in lines)
            headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            length = 0 if head else int(headers.get("content-length", "0"))
            return Answer(int(first.split()[1]), headers, await self.reader.readexactly(length))

    async def ended(self) -> bytes:
        """What still comes until the receiver closes."""
        async with asyncio.timeout(LIMIT_S):
            with suppress(ConnectionError):
                return await self.reader.read()
            return b""


@asynccontextmanager
async def wire(port: int, source: str = "127.0.0.1") -> AsyncIterator[Wire]:
    """A raw connection from one of loopback's addresses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
