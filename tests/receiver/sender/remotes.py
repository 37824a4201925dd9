"""Endpoints on real sockets, most of them hostile, and one attempt by a sender of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from receiver.deliveries import Outcome
from receiver.delivery.guard import Guard, Network
from receiver.delivery.sender import Sender

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

LOOPBACK: list[Network] = [ip_network("127.0.0.0/8"), ip_network("::1")]
HEADERS = {
    "webhook-id": "evt_1",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    "content-type": "application/json",
}
BODY = b'{"type":"result.succeeded"}'
PATIENT, HASTY = 30.0, 0.25  # deadlines: never reached, and reached by those who stall
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def serving(
    handler: Handler, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[Any]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(run, host, port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """The head and the body of one request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(
        int(line.split(":")[1])
        for line in head.split("\r\n")
        if line.lower().startswith("content-l")
    )
    return head, await reader.readexactly(length)


def answering(*chunks: bytes) -> Handler:
    """Reads a request, writes the chunks, closes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.writelines(chunks)
        await writer.drain()

    return handle


def stalling(*chunks: bytes) -> Handler:
    """Reads a request, writes the chunks, and stays."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(*chunks)(reader, writer)
        await asyncio.Event().wait()

    return handle


def dripping(head: bytes, drop: bytes) -> Handler:
    """Reads a request, then writes a drop whenever it gets a turn, without end."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(head)
        while not writer.is_closing():
            writer.write(drop)
            await writer.drain()
            await one_turn()

    return handle


def flooding(head: bytes, piece: bytes) -> Handler:
    """Reads a request, then writes as fast as the other side takes it."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(head)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()

    return handle


async def one_turn() -> None:
    """Long enough for the client, which lives on the same loop, to read what has been written."""
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.005)


def breaking(head: bytes, rest: bytes) -> Handler:
    """Reads a request, writes the head, and the rest only when the head has been read."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(head)(reader, writer)
        await one_turn()
        writer.write(rest)

    return handle


def resetting(*chunks: bytes) -> Handler:
    """Reads a request, writes the chunks, and resets the connection when they have been read."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(*chunks)(reader, writer)
        await one_turn()
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return handle


class Zone(AbstractResolver):
    """Every name has the same answers; several lists are given out in turn, the last for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = [list(answer) for answer in answers]
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not answer:
            raise OSError(None, "Domain name not found")
        return [
            ResolveResult(
                hostname=host,
                host=each,
                port=port,
                family=socket.AF_INET6 if ":" in each else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for each in answer
        ]

    async def close(self) -> None:
        raise AssertionError("whoever passes a resolver in closes it")


async def sent(
    url: str,
    *,
    deadline_s: float = PATIENT,
    allow: Sequence[Network] = LOOPBACK,
    resolver: AbstractResolver | None = None,
    ca_file: str | None = None,
    headers: dict[str, str] | None = None,
    body: bytes = BODY,
) -> Outcome:
    """One attempt by a sender of its own."""
    guard = Guard(allow)
    zone = resolver or Zone(["127.0.0.1"])
    async with Sender(guard, deadline_s=deadline_s, resolver=zone, ca_file=ca_file) as sender:
        return checked(await sender.send(url, body, HEADERS | (headers or {})))


def checked(outcome: Outcome) -> Outcome:
    """The same, with what has to hold for all of them."""
    assert "SECRET" not in outcome.detail
    assert outcome.detail.endswith(".")
    assert outcome.detail.isprintable()
    assert outcome.request_headers is not None
    assert HEADERS["webhook-signature"] not in outcome.request_headers.values()
    return outcome


async def answered(handler: Handler, **options: Any) -> Outcome:
    async with serving(handler) as port:
        return await sent(f"http://127.0.0.1:{port}/hook?token=SECRET", **options)


@asynccontextmanager
async def canary(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A listener on both loopbacks that notes every byte it hears, and even an empty visit."""
    hits: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hits.append(b"")
        hits.append(await reader.read(4096))

    async with serving(handle, tls=tls) as port, contextlib.AsyncExitStack() as stack:
        with suppress(OSError):  # a machine without IPv6
            await stack.enter_async_context(serving(handle, "::1", port, tls))
        yield port, hits


BYPASSES = [
    "127.0.0.1", "127.1", "127.0.1", "127.127.127.127", "2130706433", "0x7f000001", "0x7f.1",
    "0177.0.0.1", "017700000001", "0", "0.0.0.0", "[::]", "[::1]", "[0000::1]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]",
    "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1%25lo]", "[fe80::1%lo]", "localhost",
    "LOCALHOST", "localhost.", "ip6-localhost", "127。0。0。1", "①②⑦.⓪.⓪.①", "ⓛocalhost",
    "169.254.169.254", "2852039166", "0xa9fea9fe", "[::ffff:a9fe:a9fe]",
    "metadata.google.internal", "[fd00:ec2::254]", "100.100.100.200", "168.63.129.16",
    "192.0.0.192", "a.127.0.0.1.nip.io", "localtest.me", "127.0.0.1.", "%31%32%37.0.0.1",
    "１２７.0.0.1", "1.1.1.1 &@127.0.0.1#@x", "public#@127.0.0.1", "127.0.0.1\\@public",
    "public:80\\@127.0.0.1", "user:pw@127.0.0.1", "[::1%2525lo]", "127.0.0.1%00.example",
    "0x7f.0x0.0x0.0x1", "0177.0000.0000.0001", "127.0.0.01", "0000127.0.0.1", "127%2e0%2e0%2e1",
    "[0:0:0:0:0:0:0:1]", "[::ffff:0:127.0.0.1]", "[64:ff9b:1::7f00:1]", "[fec0::1]", "[fd00::1]",
    "[ff02::1]", "[::a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]",
    "0251.0376.0251.0376", "169.254.169.254.", "localhost.localdomain", "app.localhost",
    "10.0.0.1", "172.16.0.1", "192.168.0.1", "3232235521", "100.64.0.1", "198.18.0.1",
]  # fmt: skip
ODD_URLS = [
    "file://127.0.0.1:{port}/", "gopher://127.0.0.1:{port}/", "ftp://127.0.0.1:{port}/",
    "dict://127.0.0.1:{port}/", "jar:http://127.0.0.1:{port}/", "//127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/", "ws://127.0.0.1:{port}/", "tcp://127.0.0.1:{port}/",
    "http+unix://127.0.0.1:{port}/", "https:127.0.0.1:{port}/", "127.0.0.1:{port}", "",
]  # fmt: skip


def certificate(
    folder: Path, name: str, *, ended: timedelta = timedelta(days=-1)
) -> tuple[ssl.SSLContext, str]:
    """A server's context with a self-signed certificate for `name`, and the file to trust it by.

    `ended` is how long ago it was valid for the last time.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now - ended)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(name), x509.IPAddress(IPv4Address("127.0.0.9"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "cert.pem", folder / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(public, private)
    return context, str(public)
