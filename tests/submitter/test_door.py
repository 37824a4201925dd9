"""Posting to the door: it comes to an end, and its errors hold no token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from scripts.proofs.ports import held_port
from submitter import door
from tests.doubles import LIMIT_S

pytestmark = pytest.mark.anyio

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """The URL of a door that is served like this, until whoever came is gone."""
    over = asyncio.Event()
    over.set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over.clear()
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await serve(reader, writer)
        writer.close()
        over.set()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/webhooks/runware?sig=secret"
        await over.wait()
    finally:
        server.close()


async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Never silent for long, and never done."""
    while not writer.is_closing():
        writer.write(b"H")
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_a_door_that_drips_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "TIMEOUT", 0.2)
    async with asyncio.timeout(LIMIT_S), listening(drip) as url:
        with pytest.raises(OSError, match=r"no answer within|RemoteProtocolError") as caught:
            await door.post(url, b"{}")
    assert "secret" not in str(caught.value)


async def test_where_nobody_listens_is_an_error_without_the_token() -> None:
    with pytest.raises(OSError, match="ConnectError") as caught:
        await door.post(f"http://127.0.0.1:{held_port()}/webhooks/runware?sig=secret", b"{}")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("body", [b'{ "a":1.50 }', {"a": 1.5}])
async def test_one_door_takes_many_posts(body: bytes | dict[str, float]) -> None:
    heard = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.partition("content-length: ")[2].split("\r\n")[0])
            heard.append(await reader.readexactly(size))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with asyncio.timeout(LIMIT_S), listening(serve) as url, door.Door() as opened:
        for _ in range(3):
            assert await opened.post(url, body) == 200
    assert len(heard) == 3
    if isinstance(body, bytes):
        assert set(heard) == {body}  # as it came
    else:
        assert all(json.loads(one) == body for one in heard)
