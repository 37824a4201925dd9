"""What proofs stand on: a receiver as a real process, real callbacks, a client that knows exactly
what was acknowledged, and the verdict. Whether the store agrees is `scripts.proofs.stored`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import signal
import sys
import time
import urllib.request
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import uvloop

from receiver.tokens import Claims, Source, TokenBox, digest_tags, webhook_url
from scripts.proofs.copied import copy

KEY: Final = "a-signing-key-for-proofs-only-0123456789abc"
ADMIN: Final = "an-admin-token-for-proofs-only"
SERVE: Final = (sys.executable, "-m", "receiver", "serve")
WAIT: Final = 20.0  # seconds that a process or an answer may take before the proof calls it hung
START: Final = 60.0  # seconds until a ready line: proofs run side by side, and many start at once
DAY: Final = 86_400_000  # milliseconds


T = TypeVar("T")


# A receiver


class NotReady(Exception):
    """The receiver ended, or said nothing in time, before its ready line."""


class Receiver:
    """`reelhook serve` over the data in a folder, started and ended as often as one likes.

    `command` may put a wrapper in front (strace -D, prlimit) as long as the started process *is*
    the receiver, since signals go to it. What it writes to stderr is appended to `serve.log`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        command: Sequence[str] = SERVE,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.command = command
        self.url = ""
        self.seconds_to_ready = 0.0
        self.process: asyncio.subprocess.Process | None = None
        self.env = {
            **_foreign_environment(),
            "HOST": "127.0.0.1",
            "PORT": "0",
            "REELHOOK_DATA_DIR": str(self.data),
            "REELHOOK_SIGNING_KEYS": KEY,
            "REELHOOK_ADMIN_TOKEN": ADMIN,
            "REELHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
            "LOG_LEVEL": "warning",
            **(env or {}),
        }

    @property
    def data(self) -> Path:
        """The data directory, which the receiver makes at its first start."""
        return self.folder / "data"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.data / "reelhook.db"

    @property
    def database_url(self) -> str | None:
        """Where its PostgreSQL database is, if it has one."""
        return self.env.get("DATABASE_URL")

    async def kept(self) -> Path:
        """All that it keeps as a SQLite file, which for PostgreSQL is a copy of this moment."""
        if self.database_url is None:
            return self.database
        copied = self.folder / "copy.db"
        await copy(self.database_url, copied)
        return copied

    @property
    def log(self) -> Path:
        """Everything it wrote to stderr, over all its starts."""
        return self.folder / "serve.log"

    @property
    def port(self) -> int:
        """Where it listens since its last start."""
        return urlsplit(self.url).port or 0

    async def start(self) -> None:
        """Start it and wait for its ready line. Raises NotReady."""
        begun = time.perf_counter()
        await self.launch()
        self.url = await self.ready()
        self.seconds_to_ready = time.perf_counter() - begun

    async def launch(self) -> None:
        """Start the process; its ready line is still to come."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, env=self.env, stdout=asyncio.subprocess.PIPE, stderr=log
            )

    async def ready(self) -> str:
        """Wait for the ready line; the URL in it. Raises NotReady."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = b""
        with contextlib.suppress(TimeoutError):
            line = await asyncio.wait_for(self.process.stdout.readline(), START)
        if not line:
            code = await self.end(signal.SIGKILL)
            raise NotReady(f"ended with {code}: {self.log.read_text(errors='replace')[-2000:]}")
        return str(json.loads(line)["url"])

    async def end(self, sig: signal.Signals = signal.SIGTERM, within: float = WAIT) -> int:
        """Send a signal and wait for the end; the exit code, negative for a signal.

        Raises TimeoutError when it does not end within so many seconds; it is killed then.
        """
        process = self.process
        assert process is not None
        if process.returncode is None:
            process.send_signal(sig)
        try:
            return await asyncio.wait_for(process.wait(), within)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise

    async def __aenter__(self) -> Receiver:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end(signal.SIGKILL)

    async def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """One call of the admin API. Raises urllib.error.HTTPError."""
        return await asyncio.to_thread(self._ask, method, path, body)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        request = urllib.request.Request(
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {"authorization": f"Bearer {ADMIN}", "content-type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=WAIT) as response:
            found: dict[str, Any] = json.loads(response.read() or b"{}")
            return found

    async def add_endpoint(
        self, target: str = "https://sink.invalid/hook", *, paused: bool = True
    ) -> dict[str, Any]:
        """Register an endpoint for results and completions; paused, its deliveries stay pending."""
        spec = {"url": target, "event_types": ["result.*", "task.completed"]}
        endpoint = await self.ask("POST", "/v1/endpoints", spec)
        if paused:
            await self.ask("POST", f"/v1/endpoints/{endpoint['id']}/pause", {})
        return endpoint


def _foreign_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("REELHOOK_") and name != "DATABASE_URL"
    }


# Callbacks


@dataclass(frozen=True, slots=True)
class Callback:
    """One body of a platform about one task, and the path it is posted to."""

    task: str
    expected: int
    path: str
    body: bytes
    keys: tuple[str, ...]  # what the store calls the results in it, such as video:<videoUUID>

    @property
    def sha256(self) -> bytes:
        """What the store knows the body by."""
        return hashlib.sha256(self.body).digest()

    @property
    def request(self) -> bytes:
        """The whole HTTP/1.1 request."""
        return post(self.path, self.body)


def post(path: str, body: bytes) -> bytes:
    """A whole HTTP/1.1 request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: proof\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def new_uuid() -> str:
    """A random UUID, as platforms make them."""
    return str(UUID(bytes=secrets.token_bytes(16), version=4))


def mint(task: str, expected: int, **changes: Any) -> str:
    """The path and query of a task's signed webhookURL. `changes` are claims."""
    tags = {"projectId": "proj_789"}
    now = time.time_ns() // 1_000_000
    values: dict[str, Any] = {
        "jti": secrets.token_bytes(16),
        "task": task,
        "platform": "runware",
        "project": "default",
        "expected": expected,
        "source": Source.CALLBACK,
        "issued_at": now,
        "expires_at": now + DAY,
        "tags": digest_tags(tags.items()),
    }
    token = _box().mint(Claims(**(values | changes)))
    return webhook_url("", "runware", token, tags)


_boxes: Final[dict[str, TokenBox]] = {}


def _box() -> TokenBox:
    return _boxes.setdefault(KEY, TokenBox([KEY]))


def item(task: str, media: str) -> dict[str, Any]:
    """Runware's item for a finished video."""
    return {
        "taskType": "videoInference",
        "taskUUID": task,
        "videoUUID": media,
        "videoURL": f"https://vm.runware.ai/video/os/a15d18/ws/5/vi/{media}.mp4",
        "seed": secrets.randbits(31),
        "cost": 0.4715,
    }


def callbacks_of(results: int, **changes: Any) -> list[Callback]:
    """A fresh task's callbacks, one a result, as Runware sends them. `changes` are claims."""
    task = new_uuid()
    path = mint(task, results, **changes)
    made = []
    for _ in range(results):
        media = new_uuid()
        body = json.dumps({"data": [item(task, media)]}).encode()
        made.append(Callback(task, results, path, body, (f"video:{media}",)))
    return made


# A client that knows what was acknowledged


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def said(self) -> str:
        """`status` of a JSON body: recorded, duplicate, …"""
        found = json.loads(self.body)
        return str(found.get("status", ""))


class Line:
    """One keep-alive connection. An answer counts only when all of it has come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.port = int(writer.get_extra_info("sockname")[1])  # our own end's

    @classmethod
    async def open(cls, port: int) -> Line:
        """Connect to a port on loopback. Raises OSError."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes, within: float = WAIT) -> Answer | None:
        """Send bytes, read one answer; None when the connection ended before it was whole.

        Raises TimeoutError after so many seconds without one.
        """
        try:
            async with asyncio.timeout(within):
                self.writer.write(request)
                return await self.answer()
        except (OSError, asyncio.IncompleteReadError) as error:
            if isinstance(error, TimeoutError):
                raise
            return None

    async def answer(self) -> Answer:
        """Read one answer. Raises asyncio.IncompleteReadError, OSError."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(first[9:12]), headers, body)

    async def rest(self) -> bytes:
        """What still comes until the receiver ends it. Raises OSError."""
        return await self._reader.read()

    def close(self) -> None:
        """Close without a word."""
        self.writer.transport.abort()


# The verdict


@dataclass(slots=True)
class Verdict:
    """What a proof found. It held when there is no problem and the control failed as it must."""

    proof: str
    figures: dict[str, Any] = field(default_factory=dict)
    control: dict[str, Any] = field(default_factory=dict)
    control_failed: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether the proof may be believed and is fulfilled."""
        return not self.problems and self.control_failed

    def tell(self) -> int:
        """Print the JSON on stdout and a line for people on stderr; the exit code."""
        if not self.control_failed:
            self.problems.append("the control did not fail, so this proof is blind")
        shown = asdict(self) | {"held": self.held, "python": sys.version.split()[0]}
        shown["problems"] = self.problems[:20]
        print(json.dumps(shown, indent=1))
        sys.stderr.write(f"{self.proof}: {'held' if self.held else 'DOES NOT HOLD'}\n")
        for problem in shown["problems"]:
            sys.stderr.write(f"  {problem}\n")
        return 0 if self.held else 1

    def skip(self, reason: str, *, strict: bool) -> int:
        """Say that it could not be made here; the exit code, which is 1 where that is forbidden."""
        print(json.dumps({"proof": self.proof, "skipped": reason}))
        sys.stderr.write(f"{self.proof}: skipped: {reason}\n")
        return 1 if strict else 0


def options(name: str, doc: str | None) -> argparse.ArgumentParser:
    """A proof's options, of which `--ci` is the first."""
    parser = argparse.ArgumentParser(prog=f"scripts/prove {name}", description=doc)
    parser.add_argument("--ci", action="store_true", help="the short form")
    return parser


def progress(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
