"""Listeners where no delivery may ever come: on loopback, and at a private address."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

import pytest

from tests.receiver.sender.remotes import Handler, serving

PRIVATE = [ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
ELSEWHERE = "203.0.113.77"  # TEST-NET-3: asking the kernel for the way there sends nothing
LOOPBACK = ("127.0.0.1", "127.127.127.127", "::1")
TRIES = 20


@contextmanager
def private_address() -> Iterator[str]:
    """One of RFC 1918: made by root, who leads it to this machine, else one that the machine has.

    No interface gets it: a browser lets go of what it loads when the machine's addresses change,
    and another worker's test may have one.
    """
    made = f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.{secrets.randbelow(254) + 1}"
    ip = shutil.which("ip") or shutil.which("ip", path="/usr/sbin:/sbin")
    way = ["local", f"{made}/32", "dev", "lo"]
    if ip and os.geteuid() == 0:
        added = subprocess.run([ip, "route", "add", *way], capture_output=True)
        if added.returncode == 0:
            try:
                yield made
            finally:
                subprocess.run([ip, "route", "del", *way], check=True)
            return
    yield _own_private_address()


def _own_private_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((ELSEWHERE, 9))
        except OSError:
            pytest.skip("no private address here, and none can be made on the loopback interface")
        found = str(probe.getsockname()[0])
    if not any(ip_address(found) in network for network in PRIVATE):
        pytest.skip(f"{found} is not private, and none can be made on the loopback interface")
    return found


@dataclass
class Canaries:
    """Who was visited, on which address; all of them listen on one port."""

    port: int
    addresses: list[str]
    hits: Counter[str] = field(default_factory=Counter)

    def at(self, address: str) -> Handler:
        """A listener that notes even an empty visit."""

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.hits[address] += 1
            await reader.read(4096)

        return handle


@asynccontextmanager
async def canaries(allowed: str, handler: Handler) -> AsyncIterator[Canaries]:
    """Canaries, and on the same port of the `allowed` address somebody who may be visited."""
    with private_address() as private:
        for _ in range(TRIES):
            async with AsyncExitStack() as stack:
                port = await stack.enter_async_context(serving(handler, allowed))
                birds = Canaries(port, [*LOOPBACK, private])
                try:
                    for address in birds.addresses:
                        await stack.enter_async_context(serving(birds.at(address), address, port))
                except OSError:
                    continue  # somebody else has that port on one of them
                yield birds
                return
    raise AssertionError("no port was free on all addresses")
