"""A downstream consumer on a real socket; the reference library decides what it trusts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook


@dataclass
class Sink:
    """What was delivered: verified payloads by webhook-id, and how often each id came."""

    url: str = ""
    secret: str = ""
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """The status for one delivery."""
        try:
            payload = Webhook(self.secret).verify(body, headers)
        except Exception as error:  # whatever the oracle raises is a refusal
            self.refused.append(repr(error))
            return 400
        self.events[headers["webhook-id"]] = payload
        self.times[headers["webhook-id"]] += 1
        self.arrived.set()
        return 204

    async def until(self, count: int) -> None:
        """Wait until so many different events have come."""
        while len(self.events) < count:
            self.arrived.clear()
            await self.arrived.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
                headers = {name.lower(): value for name, _, value in lines}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                status = self.take(headers, body)
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
                await writer.drain()
        writer.close()

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Sink]:
        """Listen on loopback until the block is left."""
        sink = cls()
        server = await asyncio.start_server(sink._serve, "127.0.0.1", 0)
        sink.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        try:
            yield sink
        finally:
            server.close()
            for writer in sink._open:
                writer.close()
