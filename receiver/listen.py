"""Floor 5, assembly: events of a receiver anywhere, POSTed to a program on this machine.

What is forwarded has the bytes and headers that an endpoint would get, signed with a secret of this
machine. After a drop it goes on behind the last event it heard of, so that none is left out and
none comes twice. Nothing is tried again by itself: who wants an event once more sends it again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from receiver import __version__, directories
from receiver.client import ApiRefused, Asked, Client, Heard, Message, Unreachable
from receiver.clock import SECOND, Clock
from receiver.delivery.signing import new_secret, own_secret, sign
from receiver.endpoints import matches
from receiver.errors import ReelhookError
from receiver.heard import NotTheFeed

KEPT_IN: Final = "listen.secret"
PATIENCE: Final = 10.0  # seconds for a stream's first words; a tunnel that holds it back has none
DEADLINE: Final = 30.0  # seconds that the local program has for an answer
AT_ONCE: Final = 10  # as an endpoint's concurrency
BREATH: Final = 1.0  # seconds until a stream that ended is asked for again
LONGEST_PAUSE: Final = 30.0  # seconds between two tries to get through


class BadTarget(ReelhookError):
    """Where to forward to is no URL."""

    code = "bad_target"


class BadSecret(ReelhookError):
    """The development secret can't be read or kept."""

    code = "bad_secret"


def development_secret(folder: Path, random_bytes: Callable[[int], bytes]) -> str:
    """The secret of this machine, made at the first call and kept at 0600. Raises BadSecret."""
    path = folder / KEPT_IN
    try:
        with suppress(FileNotFoundError):
            return _read(path)
        directories.make(folder)
        _keep(path, new_secret(random_bytes(32)))
        return _read(path)  # of whoever was first
    except OSError as error:
        raise BadSecret(f"{path} can't be kept: {error.strerror}. Set REELHOOK_DATA_DIR.") from None


def _read(path: Path) -> str:
    try:
        return own_secret(path.read_text().strip())
    except (ReelhookError, ValueError):
        raise BadSecret(f"{path} holds no secret. Remove it, and a new one is made.") from None


def _keep(path: Path, secret: str) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another one was quicker: its secret is the secret
            os.link(draft, path)
    finally:
        draft.unlink()
    directories.sync(path.parent)


def target_url(text: str) -> str:
    """A target as people write it: a URL, `localhost:3000/hook`, or a port. Raises BadTarget."""
    url = f"http://localhost:{text}" if text.isascii() and text.isdigit() else text
    url = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        raise BadTarget(f"{text!r} is no place to forward to: write http://localhost:3000/hook.")
    return url


@dataclass(frozen=True, slots=True)
class Targets:
    """Which URL an event goes to: that of the first pattern that fits, or the one for all."""

    every: str | None = None
    mapped: Sequence[tuple[str, str]] = ()

    def of(self, event_type: str) -> str | None:
        """None: it is only shown."""
        fits = (url for pattern, url in self.mapped if matches(pattern, event_type))
        return next(fits, self.every)


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What became of an event at a URL: a status, or in words why there is none."""

    heard: Heard
    url: str
    status: int | None
    error: str | None
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The receiver is out of reach; it is tried again in so many seconds."""

    why: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Found:
    """Events come from now on, behind this place. `polled`: by long polls."""

    place: str
    again: bool
    polled: bool


News = Heard | Forwarded | Lost | Found


@dataclass(slots=True)
class Listener:
    """Forwards until it is cancelled. `wall` in milliseconds, `pause` sleeps for seconds.

    `tell` hears of everything that happens. `after`: where to begin, None is now.
    """

    client: Client
    http: httpx.AsyncClient
    secret: str = field(repr=False)
    targets: Targets
    tell: Callable[[News], None]
    wall: Clock
    asked: Asked = field(default_factory=Asked)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    after: str | None = None
    polled: bool = False
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    _was_found: bool = False
    _failures: int = 0
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Listen for ever. Raises Unreachable if the receiver never was there, ApiRefused."""
        try:
            while True:
                await self._turn()
        finally:
            for task in self._running:
                task.cancel()

    async def _turn(self) -> None:
        try:
            await (self._poll() if self.polled else self._stream())
        except (Unreachable, NotTheFeed, ApiRefused) as error:
            # What a proxy says while the receiver behind it restarts is not the receiver's word.
            is_refusal = isinstance(error, ApiRefused) and error.problem != "not_reelhook"
            if is_refusal or not self._was_found:
                raise
            seconds = min(2.0**self._failures, LONGEST_PAUSE)
            self._failures += 1
            self.tell(Lost(str(error), seconds))
            await self.pause(seconds)

    async def _stream(self) -> None:
        messages = self.client.stream_events(self.asked, after=self.after)
        async with aclosing(messages):
            try:
                async with asyncio.timeout(PATIENCE):
                    first = await anext(messages, None)
            except TimeoutError:  # something on the way holds it back
                self.polled = True
                return
            if first is not None:
                self._found(first.place)
                await self._hear(first)
            async for message in messages:
                await self._hear(message)
        await self.pause(BREATH)

    async def _poll(self) -> None:
        if not self._was_found or self._failures:
            heard, place = await self.client.wait_events(self.asked, after=self.after, wait=0)
            self._found(place)
        else:
            heard, place = await self.client.wait_events(self.asked, after=self.after)
        for one in heard:
            await self._hear(Message(None, one))
        self.after = place

    def _found(self, place: str | None) -> None:
        if not self._was_found or self._failures:
            self.tell(Found(place or "", self._was_found, self.polled))
        self._was_found, self._failures = True, 0

    async def _hear(self, message: Message) -> None:
        if message.heard is not None:
            self.tell(message.heard)
            url = self.targets.of(message.heard.type)
            if url is not None:
                await self._slots.acquire()
                task = asyncio.create_task(self._forward(message.heard, url))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        self.after = message.place or self.after

    async def _forward(self, heard: Heard, url: str) -> None:
        started = self.wall()
        status, error = None, None
        try:
            async with asyncio.timeout(DEADLINE):
                answer = await self.http.post(url, content=heard.body, headers=self._signed(heard))
            status = answer.status_code
        except TimeoutError:
            error = f"no answer within {DEADLINE:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as failure:
            error = str(failure) or type(failure).__name__
        finally:
            self._slots.release()
        self.tell(Forwarded(heard, url, status, error, self.wall() - started))

    def _signed(self, heard: Heard) -> dict[str, str]:
        timestamp = self.wall() // SECOND
        signature = sign([self.secret], event_id=heard.id, timestamp=timestamp, body=heard.body)
        return {
            "user-agent": f"reelhook/{__version__}",
            "accept": "*/*",
            "accept-encoding": "identity",
            **self.headers,
            "content-type": "application/json",
            "webhook-id": heard.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature,
        }

    async def drain(self) -> None:
        """Wait until what is under way is answered."""
        while self._running:
            await asyncio.wait(self._running)
