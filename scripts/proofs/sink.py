"""A consumer on loopback that takes every delivery and remembers its id."""

from __future__ import annotations

import asyncio
from typing import Final, Self

_TAKEN: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Sink:
    """Answers 200 to whatever comes. `seen` holds the `webhook-id` of each delivery."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.url = ""
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await self._take(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()  # the receiver was killed, or has closed its connection

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
        await reader.readexactly(int(headers.get("content-length", "0")))
        writer.write(await self.answer(headers.get("webhook-id", "")))

    async def answer(self, event: str) -> bytes:
        """What the receiver hears of one attempt."""
        self.seen.add(event)
        return _TAKEN
