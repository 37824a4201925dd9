"""Connections that are kept, and what a sender takes neither from them nor from its environment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp.client_proto import ResponseHandler

from receiver.deliveries import Failure, Outcome
from receiver.delivery import sender as module
from receiver.delivery.guard import Guard
from receiver.delivery.sender import Sender
from tests.receiver.sender.remotes import (
    BODY,
    HEADERS,
    LOOPBACK,
    OK,
    PATIENT,
    answered,
    answering,
    breaking,
    canary,
    certificate,
    flooding,
    one_turn,
    request,
    sent,
    serving,
)
from tests.receiver.store.bench import until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEPALIVE_S", PATIENT)


@asynccontextmanager
async def counting(second: bytes | None) -> AsyncIterator[tuple[int, list[int]]]:
    """A server whose connections answer once, then with `second` and an end; None: for ever."""
    requests: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(0)
        mine = len(requests) - 1
        while True:
            await request(reader)
            requests[mine] += 1
            if second is not None and requests[mine] == 2:
                writer.write(second)
                return
            writer.write(OK)

    async with serving(handle) as port:
        yield port, requests


async def twice(port: int) -> list[Outcome]:
    async with Sender(Guard(LOOPBACK)) as sender:
        return [await sender.send(f"http://127.0.0.1:{port}/", BODY, HEADERS) for _ in range(2)]


async def test_connections_are_kept() -> None:
    async with counting(None) as (port, requests):
        assert [outcome.status for outcome in await twice(port)] == [200, 200]
    assert requests == [2]


async def test_a_kept_connection_that_died_is_no_failed_attempt() -> None:
    async with counting(b"") as (port, requests):
        assert [outcome.status for outcome in await twice(port)] == [200, 200]
    assert requests == [2, 1]


async def test_an_answer_that_began_is_not_asked_for_again() -> None:
    async with counting(b"HTTP/1.1 200 OK\r\nX-Half") as (port, requests):
        assert [outcome.failure for outcome in await twice(port)] == [None, Failure.PROTOCOL]
    assert requests == [2]


async def test_a_new_connection_that_died_is_a_failed_attempt() -> None:
    connections: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        await request(reader)

    assert (await answered(handle)).failure is Failure.PROTOCOL
    assert connections == [1]


async def test_a_cut_connection_is_not_used_again() -> None:
    connections: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        await flooding(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", b"x" * 9999)(
            reader, writer
        )

    async with serving(handle) as port:
        assert all(outcome.truncated for outcome in await twice(port))
    assert connections == [1, 1]


def connections_of(sender: Sender) -> list[ResponseHandler]:
    """Those that a sender keeps."""
    connector = sender._pooled["http"].connector
    assert connector is not None
    return [one for held in connector._conns.values() for one, _ in held]


@pytest.mark.parametrize("unasked", [OK, b"HTTP/1.1 408 Too Late\r\n\r\n", b"noise"])
async def test_what_comes_unasked_is_nobodys_answer(unasked: bytes) -> None:
    said = asyncio.Event()
    answers = [OK, b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await breaking(answers.pop(0), unasked)(reader, writer)
        await one_turn()
        said.set()
        await reader.read()

    async with serving(handle) as port, Sender(Guard(LOOPBACK)) as sender:
        url = f"http://127.0.0.1:{port}/"
        first = await sender.send(url, BODY, HEADERS)
        await said.wait()
        kept = connections_of(sender)
        await until(lambda: not any(one.is_connected() for one in kept))  # it was heard by then
        second = await sender.send(url, BODY, HEADERS)
    assert [first.status, second.status] == [200, 500]


async def test_cookies_are_forgotten() -> None:
    heads: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append((await request(reader))[0].lower())
            writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")

    async with serving(handle) as port:
        await twice(port)
    assert len(heads) == 2
    assert not any("\ncookie:" in head for head in heads)


# The environment


@pytest.mark.parametrize("bypassed", ["", "*", "other.example"])
async def test_proxies_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bypassed: str
) -> None:
    monkeypatch.setenv("NO_PROXY", bypassed)
    context, ca_file = certificate(tmp_path, "sink.example")
    async with canary() as (port, hits), serving(answering(OK), tls=context) as secure:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{port}")
        plain = await answered(answering(OK))
        under_tls = await sent(f"https://sink.example:{secure}/", ca_file=ca_file)
    assert (plain.status, under_tls.status) == (200, 200)
    assert hits == []
