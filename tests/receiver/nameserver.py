"""A name server on loopback, for what no scripted resolver shows: packets that never come."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, cast

from aiohttp import AsyncResolver

A: Final = 1
CNAME: Final = 5
AAAA: Final = 28
NXDOMAIN: Final = 3
ANSWER: Final = 0x8180  # a response, recursion desired and available


class NameServer(asyncio.DatagramProtocol):
    """Answers by the first label of a name, as `_records` says; all with a TTL of 0."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """One question."""
        name, kind, end = _question(data)
        self.asked.append(name)
        label = name.split(".")[0].rstrip("0123456789")
        if label == "silent":
            return
        records = _records(label, kind)
        code = NXDOMAIN if label == "gone" else 0
        head = struct.pack("!2sHHHHH", data[:2], ANSWER | code, 1, len(records), 0, 0)
        assert self._transport is not None
        self._transport.sendto(head + data[12:end] + b"".join(records), address)


def _question(data: bytes) -> tuple[str, int, int]:
    labels, place = [], 12
    while length := data[place]:
        labels.append(data[place + 1 : place + 1 + length].decode())
        place += 1 + length
    return ".".join(labels).lower(), struct.unpack("!H", data[place + 1 : place + 3])[0], place + 5


def _records(label: str, kind: int) -> list[bytes]:
    inside, allowed = socket.inet_aton("127.0.0.1"), socket.inet_aton("127.0.0.2")
    if label == "alias":  # a CNAME to localhost, and its address with it
        target = b"\x09localhost\x00"
        first = _record(b"\xc0\x0c", CNAME, target)
        return [first, _record(target, A, inside)] if kind == A else [first]
    if label == "both":  # a good A beside a private AAAA
        found = {A: allowed, AAAA: socket.inet_pton(socket.AF_INET6, "fd00::1")}
        return [_record(b"\xc0\x0c", kind, found[kind])] if kind in found else []
    if label == "well" and kind == A:
        return [_record(b"\xc0\x0c", A, allowed)]
    return []


def _record(name: bytes, kind: int, data: bytes) -> bytes:
    return name + struct.pack("!HHIH", kind, 1, 0, len(data)) + data


@asynccontextmanager
async def naming() -> AsyncIterator[tuple[AsyncResolver, NameServer]]:
    """The receiver's own kind of resolver, asking a name server of the test."""
    server = NameServer()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: server, ("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    resolver = AsyncResolver(nameservers=["127.0.0.1"], udp_port=port, tcp_port=port)
    try:
        yield resolver, server
    finally:
        await resolver.close()
        with suppress(OSError):
            transport.close()
