"""A stream of events as a test reads it: from a receiver in this process, or off a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message

from tests.doubles import ADMIN_TOKEN, LIMIT_S, Wire

PATH = "/v1/events/stream"


@dataclass(frozen=True)
class Said:
    """One message: its fields, as a browser would read them."""

    fields: Mapping[str, str]

    @classmethod
    def read(cls, text: str) -> Said:
        lines = [line.partition(":") for line in text.split("\n")]
        return cls({name: value.removeprefix(" ") for name, _, value in lines})

    @property
    def id(self) -> str:
        return self.fields["id"]

    @property
    def data(self) -> Any:
        return json.loads(self.fields["data"])

    @property
    def is_shown(self) -> bool:
        return "data" in self.fields


class Stream:
    """What comes in, cut into messages."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.over = False
        self._text = ""
        self._parts: asyncio.Queue[str | None] = asyncio.Queue()

    def take(self, part: str | None) -> None:
        """A part of the body; None is its end."""
        self._parts.put_nowait(part)

    async def next(self) -> Said | None:
        """The next message, None at the end."""
        async with asyncio.timeout(LIMIT_S):
            while "\n\n" not in self._text:
                part = await self._parts.get()
                if part is None:
                    assert self._text == "", "it ended within a message"
                    self.over = True
                    return None
                self._text += part
        text, self._text = self._text.split("\n\n", 1)
        return Said.read(text)

    async def shown(self) -> Said:
        """The next message that anybody sees."""
        while True:
            said = await self.next()
            assert said is not None, "it ended"
            if said.is_shown:
                return said


@asynccontextmanager
async def streaming(
    app: ASGIApp,
    query: str = "",
    *,
    method: str = "GET",
    path: str = PATH,
    deaf: bool = False,
    **headers: str,
) -> AsyncIterator[Stream]:
    """A stream of a receiver in this process; the client is gone at the end of the block.

    `deaf`: it takes nothing of what is sent.
    """
    stream, gone, begun = Stream(), asyncio.Event(), asyncio.Event()
    given = {"authorization": f"Bearer {ADMIN_TOKEN}", **headers}
    asked = {name: text for name, text in given.items() if text}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in asked.items()],
        "server": ("receiver", 80),
        "client": ("127.0.0.1", 1),
    }

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            stream.status = message["status"]
            stream.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            begun.set()
            return
        if deaf:
            await asyncio.Event().wait()
        if message.get("body"):
            stream.take(message["body"].decode())
        if not message.get("more_body"):
            stream.take(None)

    task = asyncio.create_task(_run(app, scope, receive, send))
    try:
        async with asyncio.timeout(LIMIT_S):
            await begun.wait()
        yield stream
    finally:
        gone.set()
        async with asyncio.timeout(LIMIT_S):
            await task


async def _run(app: ASGIApp, scope: Any, receive: Any, send: Any) -> None:
    await app(scope, receive, send)


async def watch(line: Wire, query: str = "", **headers: str) -> Stream:
    """Ask for the stream on a raw connection; a task reads until the connection ends."""
    asked = {"authorization": f"Bearer {ADMIN_TOKEN}", **headers}
    named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in asked.items())
    await line.send(f"GET {PATH}?{query} HTTP/1.1\r\nHost: x\r\n{named}\r\n".encode())
    stream = Stream()
    async with asyncio.timeout(LIMIT_S):
        head = (await line.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    stream.status = int(first.split()[1])
    pairs = (one.partition(":") for one in lines)
    stream.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    stream.reading = asyncio.create_task(_chunks(line.reader, stream))  # type: ignore[attr-defined]
    return stream


async def _chunks(reader: asyncio.StreamReader, stream: Stream) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            stream.take((await reader.readexactly(size + 2))[:-2].decode())
    stream.take(None)
